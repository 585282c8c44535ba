//! What handlers get of a request, checked: who asks, ids of the path, the query, the body.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use axum::{
    extract::{ConnectInfo, FromRequest, FromRequestParts, Query, RawPathParams, Request},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use gochat_core::{
    error::{Code, Error, Result},
    ids::Seq,
    limits::{PAGE_DEFAULT, PAGE_MAX},
    model::Caller,
    ports::Credentials,
    rules,
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::error::Category;

use super::{Problem, Shared, limits::Door};

/// What a handler answers.
pub type Answer = std::result::Result<Response, Problem>;

/// A JSON answer.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(Error::internal)?;
    Ok((status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}

/// `200` with JSON.
pub fn ok(value: &impl Serialize) -> Answer {
    json(StatusCode::OK, value)
}

/// `204`.
pub fn done() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Who is asking: proved by the access token in the `Authorization` header, in a session that still holds.
#[derive(Debug)]
pub struct Signed(pub Caller);

impl FromRequestParts<Shared> for Signed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, http: &Shared) -> std::result::Result<Self, Problem> {
        let token = bearer(&parts.headers).ok_or_else(|| Error::from(Code::Unauthenticated))?;
        let identity = http.authenticator.verify(&Credentials { token: token.to_owned() }).await?;
        http.authenticator.check(&identity.caller).await?;
        Ok(Signed(identity.caller))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The client's address.
#[derive(Clone, Copy, Debug)]
pub struct From(pub IpAddr);

impl FromRequestParts<Shared> for From {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> std::result::Result<Self, Self::Rejection> {
        let known = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip().to_canonical());
        Ok(From(known.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }
}

impl From {
    /// Counts the request against the rates of its address.
    pub fn admitted(self, http: &Shared, door: Door) -> Result<()> {
        http.limiter.admit(door, self.0)
    }
}

/// The one id of the path.
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<T: FromStr<Err = Error>> FromRequestParts<Shared> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, http: &Shared) -> std::result::Result<Self, Problem> {
        Ok(Id(path_id(&path(parts, http).await?, 0)?))
    }
}

/// The two ids of the path.
#[derive(Debug)]
pub struct Ids<A, B>(pub A, pub B);

impl<A: FromStr<Err = Error>, B: FromStr<Err = Error>> FromRequestParts<Shared> for Ids<A, B> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, http: &Shared) -> std::result::Result<Self, Problem> {
        let path = path(parts, http).await?;
        Ok(Ids(path_id(&path, 0)?, path_id(&path, 1)?))
    }
}

async fn path(parts: &mut Parts, http: &Shared) -> Result<RawPathParams> {
    RawPathParams::from_request_parts(parts, http).await.map_err(|_| Error::new(Code::InvalidField, "an id of the path is not a UUID"))
}

/// An id of the path. It counts from the end: a host may have nested us under a path with parameters of its own.
fn path_id<T: FromStr<Err = Error>>(path: &RawPathParams, place: usize) -> Result<T> {
    let names = ["id", "user"];
    let text = path.iter().filter(|(name, _)| *name == names[place]).last().map(|(_, text)| text).unwrap_or_default();
    id(text)
}

/// An id in its documented form: 36 characters with hyphens.
fn id<T: FromStr<Err = Error>>(text: &str) -> Result<T> {
    let id = text.parse()?;
    if text.len() == 36 { Ok(id) } else { Err(Error::new(Code::InvalidField, "an id is a UUID with hyphens")) }
}

/// The query: each parameter at most once, unknown ones ignored.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl FromRequestParts<Shared> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, http: &Shared) -> std::result::Result<Self, Problem> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, http).await;
        let Query(pairs) = query.map_err(|_| Error::new(Code::InvalidRequest, "the query cannot be read"))?;
        Ok(Params(pairs))
    }
}

impl Params {
    /// A parameter as text of at most so many bytes.
    pub fn text(&self, name: &str, bytes_max: usize) -> Result<Option<&str>> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(invalid(name, "is given twice")),
            (Some(value), None) if value.len() > bytes_max => Err(invalid(name, &format!("has more than {bytes_max} bytes"))),
            (value, None) => Ok(value),
        }
    }

    /// A whole number of 0 or more.
    pub fn number(&self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.text(name, 32)? else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(Some(number)),
            _ => Err(invalid(name, "is not a whole number of 0 or more")),
        }
    }

    /// A place in a log.
    pub fn seq(&self, name: &str) -> Result<Option<Seq>> {
        Ok(self.number(name)?.map(Seq))
    }

    /// Items at most.
    pub fn limit(&self) -> Result<usize> {
        limit(self.number("limit")?)
    }

    /// Where the page begins.
    pub fn cursor(&self) -> Result<Option<&str>> {
        self.text("cursor", 256).map_err(|_| Code::InvalidCursor.into())
    }
}

/// A limit that a client asks for: 1 to 200, 50 if it names none.
pub fn limit(asked: Option<i64>) -> Result<usize> {
    match asked.map(usize::try_from) {
        None => Ok(PAGE_DEFAULT),
        Some(Ok(limit)) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
        Some(_) => Err(invalid("limit", &format!("is 1 to {PAGE_MAX}"))),
    }
}

/// A refusal that names the field.
pub fn invalid(name: impl Display, why: &str) -> Error {
    Error::new(Code::InvalidField, format!("{name} {why}"))
}

/// The body: one JSON object, within the limits on bytes and nesting.
#[derive(Debug)]
pub struct RawBody(Bytes);

impl FromRequest<Shared> for RawBody {
    type Rejection = Problem;

    async fn from_request(request: Request, http: &Shared) -> std::result::Result<Self, Problem> {
        is_json(request.headers())?;
        let max = http.settings.body_bytes_max;
        let too_large = || Error::new(Code::TooLarge, format!("a request body has at most {max} bytes"));
        let declared =
            request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()).and_then(|length| length.parse::<u64>().ok());
        if declared.is_some_and(|declared| declared > max as u64) {
            return Err(too_large().into());
        }
        let body = Limited::new(request.into_body(), max)
            .collect()
            .await
            .map_err(|error| if is_too_large(&*error) { too_large() } else { Error::new(Code::InvalidRequest, "the body did not arrive") })?;
        let bytes = body.to_bytes();
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::new(Code::InvalidJson, "the body is not UTF-8"))?;
        // A struct would be read from an array, too: our requests are objects.
        if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
            return Err(Error::new(Code::InvalidJson, "the body is not a JSON object").into());
        }
        let deepest = http.settings.json_depth_max;
        if rules::depth(text.as_bytes()) > deepest {
            return Err(Error::new(Code::InvalidJson, format!("the body is nested deeper than {deepest}")).into());
        }
        Ok(RawBody(bytes))
    }
}

impl RawBody {
    /// The request that the body holds.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_slice(&self.0).map_err(|error| refused(&error))
    }
}

/// The body as a request.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Shared> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, http: &Shared) -> std::result::Result<Self, Problem> {
        Ok(JsonBody(RawBody::from_request(request, http).await?.parse()?))
    }
}

/// Whether a limit on the body, ours or one below it, is the cause.
fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<LengthLimitError>() || error.source().is_some_and(is_too_large)
}

fn is_json(headers: &HeaderMap) -> Result<()> {
    let refused = || Error::from(Code::UnsupportedMediaType);
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(refused()) };
    let mut parts = value.to_str().map_err(|_| refused())?.split(';').map(str::trim);
    let json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let utf8 = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8"),
        _ => true,
    };
    if json && parts.all(utf8) { Ok(()) } else { Err(refused()) }
}

/// Why a body is refused, without repeating what is in it: it may hold a password.
fn refused(error: &serde_json::Error) -> Error {
    let place = format!("at line {} column {}", error.line(), error.column());
    match error.classify() {
        Category::Data => {
            let message = error.to_string();
            let message = message.rfind(" at line ").map_or("", |end| &message[..end]);
            // "missing field `x`" names our own field; "invalid type: string "…", expected y" begins with the client's value.
            let why = match message.rfind(", expected ") {
                _ if message.starts_with("missing field") || message.starts_with("duplicate field") => message,
                _ if message.starts_with("UUID parsing failed") => "an id is not a UUID",
                Some(at) => &message[at + 2..],
                None => "a value is not allowed",
            };
            Error::new(Code::InvalidField, format!("{why}, {place}"))
        }
        _ => Error::new(Code::InvalidJson, format!("the body is not JSON, {place}")),
    }
}

/// For a field where `null` means something else than absence: `None` absent, `Some(None)` null.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> std::result::Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

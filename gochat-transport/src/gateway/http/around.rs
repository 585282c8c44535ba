//! What every request and every answer passes: request id, deadline, panics, problems, headers.

use std::panic::AssertUnwindSafe;

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use gochat_core::error::{Code, Error};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{Http, Problem, Shared};

/// Name of the header with a request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of an id that a client or a proxy in front of us chose.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// Serves a request. Its id is the one it brought, if that is 1 to 64 of `[A-Za-z0-9._-]`, else a new one.
pub async fn around(State(http): State<Shared>, request: Request, next: Next) -> Response {
    let id = request_id(&http, request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let origin = allowed_origin(&http, request.headers());
    let preflight = method == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);

    let work = AssertUnwindSafe(next.run(request)).catch_unwind();
    let response = match tokio::time::timeout(http.settings.request_deadline, work).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Problem::from(Error::internal("a handler panicked")).into_response(),
        Err(_) => Problem::from(Code::TimeoutUnknown).into_response(),
    };
    let mut response = named(response, &id, &method, &route);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Answers belong to one caller at one time; a route that knows better says so.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if !http.settings.allowed_origins.is_empty() {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = origin {
        share_with(origin, preflight, headers);
    }
    response
}

/// A refusal from before the routes, with what every answer carries.
pub(in crate::gateway) fn refused(error: Error, id: &str, method: &Method) -> Response {
    let id = HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("none"));
    let mut response = named(Problem::from(error).into_response(), &id, method, "none");
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn request_id(http: &Http, headers: &HeaderMap) -> HeaderValue {
    let sane = |id: &[u8]| {
        !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    let brought = headers.get(REQUEST_ID).filter(|id| sane(id.as_bytes())).cloned();
    brought.unwrap_or_else(|| HeaderValue::try_from(http.ids.uuid().to_string()).unwrap_or(HeaderValue::from_static("none")))
}

/// Makes a problem of every refusal, with the request's id in it.
fn named(mut response: Response, id: &HeaderValue, method: &Method, route: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let known = response.extensions_mut().remove::<Problem>();
    let id = id.to_str().unwrap_or_default();
    match known {
        Some(problem) => {
            problem.log(id, method, route);
            response.headers_mut().remove(header::CONTENT_LENGTH);
            *response.body_mut() = Body::from(problem.json(Some(id)));
            response
        }
        None => {
            let problem = Problem::from_status(status);
            problem.log(id, method, route);
            let body = Body::from(problem.json(Some(id)));
            let mut made = problem.into_response();
            *made.body_mut() = body;
            for (name, value) in response.headers() {
                if ![header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name) {
                    made.headers_mut().insert(name, value.clone());
                }
            }
            made
        }
    }
}

/// The origin of a page that is on the allow list. Same-origin pages need no permission.
fn allowed_origin(http: &Http, headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(header::ORIGIN).filter(|origin| http.settings.allowed_origins.contains(origin)).cloned()
}

/// Lets a page of this origin read the answer. No cookies are involved: the token is in a header that the page itself sets.
fn share_with(origin: HeaderValue, preflight: bool, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id, retry-after"));
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"));
        let allowed = HeaderValue::from_static("authorization, content-type, idempotency-key, x-request-id");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
}

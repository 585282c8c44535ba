//! Refusals and faults as answers: RFC 9457.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use gochat_core::error::{Code, Error, ErrorKind};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use std::{borrow::Cow, sync::Arc, time::Duration};

/// Media type of a problem.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");
/// Wait that is asked for when the refusal names none.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// An error on its way to a client. Its technical source stays here: it is logged once, with the request's id, and never sent.
#[derive(Clone, Debug)]
pub struct Problem {
    error: Arc<Error>,
    status: u16,
}

#[derive(Serialize)]
struct ProblemJson<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: Cow<'a, str>,
    code: &'static str,
    hint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem { status: error.kind().status(), error: Arc::new(error) }
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Error::from(code).into()
    }
}

impl Problem {
    /// The stable code.
    pub fn code(&self) -> Code {
        self.error.code
    }

    /// The same problem with a status that says more than its class does.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Problem { status: status.as_u16(), ..self }
    }

    /// The problem that a bare status stands for: for answers that others made.
    pub(super) fn from_status(status: StatusCode) -> Self {
        let code = match status.as_u16() {
            401 => Code::Unauthenticated,
            403 => Code::Denied,
            404 => Code::NotFound,
            405 => Code::MethodNotAllowed,
            413 => Code::TooLarge,
            415 => Code::UnsupportedMediaType,
            429 => Code::RateLimited,
            503 => Code::Unavailable,
            504 => Code::TimeoutUnknown,
            400..500 => Code::InvalidRequest,
            _ => Code::Internal,
        };
        Problem::from(code).with_status(status)
    }

    /// The body, with the id of the request where it is known.
    pub(super) fn json(&self, request_id: Option<&str>) -> Bytes {
        let error = &self.error;
        let detail = if error.kind() == ErrorKind::Internal { Cow::Borrowed(error.code.cause()) } else { Cow::Borrowed(&*error.message) };
        let json = ProblemJson {
            r#type: format!("urn:gochat:error:{}", error.code.as_str()),
            title: error.code.cause(),
            status: self.status,
            detail,
            code: error.code.as_str(),
            hint: error.code.hint(),
            retry_after_ms: self.retry_after().map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            request_id,
        };
        serde_json::to_vec(&json).map(Bytes::from).unwrap_or_default()
    }

    /// Logs what the operator has to know; refusals are the client's matter.
    pub(super) fn log(&self, request_id: &str, method: &http::Method, route: &str) {
        match self.error.kind() {
            ErrorKind::Internal => tracing::error!(request.id = request_id, %method, route, error = ?self.error, "a request failed"),
            ErrorKind::Unavailable | ErrorKind::Unknown => {
                tracing::warn!(request.id = request_id, %method, route, error = ?self.error, "a request was not served");
            }
            _ => tracing::debug!(request.id = request_id, %method, route, code = self.error.code.as_str(), "a request was refused"),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        let waiting_helps = matches!(self.error.kind(), ErrorKind::RateLimited | ErrorKind::Unavailable);
        self.error.retry_after.or(waiting_helps.then_some(RETRY_AFTER_DEFAULT))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(Body::from(self.json(None)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, MEDIA_TYPE);
        if let Some(wait) = self.retry_after() {
            // Whole seconds, rounded up: who waits that long is not refused again for having come too early.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_millis().div_ceil(1000).min(u128::from(u32::MAX)) as u64));
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = match self.error.code {
                Code::TokenExpired | Code::SessionRevoked => "Bearer error=\"invalid_token\"",
                _ => "Bearer",
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        // Whoever knows the request's id writes it into the body.
        response.extensions_mut().insert(self);
        response
    }
}

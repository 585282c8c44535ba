//! The routes on a logic role that answers with fixed values: shapes, refusals, headers, and that the OpenAPI document tells
//! the truth about all of them.

mod answers;
mod fake;
mod headers;
mod refusals;
mod schema;

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
use bytes::Bytes;
use gochat_core::time::CountingIds;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use fake::Fake;

/// The routes and what they call.
pub struct Server {
    pub router: Router,
    pub fake: Arc<Fake>,
}

pub fn settings() -> HttpSettings {
    let rate = Rate { per_minute: 60_000, burst: 1000 };
    HttpSettings {
        body_bytes_max: 64 * 1024,
        json_depth_max: 32,
        request_deadline: Duration::from_secs(10),
        user_search_max: 20,
        allowed_origins: Vec::new(),
        rates: HttpRates { register: rate, login: rate, refresh: rate, addresses_max: 100 },
    }
}

pub fn server() -> Server {
    server_with(settings())
}

pub fn server_with(settings: HttpSettings) -> Server {
    let fake = Arc::new(Fake::default());
    let http = Http::new(fake.clone(), fake.clone(), fake.clone(), Arc::new(CountingIds::default()), settings);
    Server { router: router(http, get(|| async { Problem::from(Code::InvalidRequest).with_status(StatusCode::UPGRADE_REQUIRED) })), fake }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        if self.bytes.is_empty() { Value::Null } else { serde_json::from_slice(&self.bytes).unwrap() }
    }

    /// Status and code of a problem; everything else that a problem must have is checked.
    #[track_caller]
    pub fn problem(&self) -> (u16, String) {
        let body = self.json();
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{body}");
        assert_eq!(body["status"], self.status.as_u16(), "{body}");
        assert_eq!(body["request_id"], self.headers["x-request-id"].to_str().unwrap(), "{body}");
        let code = body["code"].as_str().unwrap();
        assert_eq!(body["type"], format!("urn:gochat:error:{code}"));
        assert_eq!(body["hint"], Code::parse(code).unwrap().hint());
        assert!(!body["detail"].as_str().unwrap().is_empty());
        (self.status.as_u16(), code.to_owned())
    }
}

impl Server {
    /// Sends a request as it is.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        Reply { status: parts.status, headers: parts.headers, bytes: body.collect().await.unwrap().to_bytes() }
    }

    /// A request of somebody who is signed in.
    pub async fn call(&self, method: &str, path: &str, body: Option<&str>) -> Reply {
        self.send(request(method, path, body)).await
    }
}

pub fn request(method: &str, path: &str, body: Option<&str>) -> Request<Body> {
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(format!("{BASE}{path}"))
        .header(header::AUTHORIZATION, "Bearer good")
        .extension(ConnectInfo(SocketAddr::from(([192, 0, 2, 7], 50_000))));
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request.body(Body::from(body.unwrap_or_default().to_owned())).unwrap()
}

use std::net::SocketAddr;

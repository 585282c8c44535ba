//! The HTTP side of a gateway: docs/protocol.md §3.
//!
//! ```text
//! request -> around: request id, deadline, headers, problems -> extract: address limits or caller, path, query, body
//!         -> a handler (one file per noun) -> LogicApi, or the gateway's send -> wire
//! ```
//!
//! One table ([`table`]) builds both the axum router and the OpenAPI document, so that neither can have a route that the other
//! lacks. Handlers check the shape of a request and nothing else; what a caller may do is decided by logic.

mod around;
mod auth;
mod conversations;
mod devices;
mod extract;
mod groups;
mod limits;
mod messages;
mod openapi;
mod problem;
mod push;
mod route;
mod schemas;
#[cfg(test)]
mod tests;
mod users;

use std::{sync::Arc, time::Duration};

use axum::{Router, middleware, routing::MethodRouter};
use gochat_core::{
    async_trait,
    error::{Code, Error, Result},
    model::Caller,
    ports::{Authenticator, LogicApi, Port, SendRequest, Stored},
    time::IdGenerator,
};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

pub(super) use around::refused;
pub use limits::{HttpRates, Rate};
pub use problem::Problem;

use super::Gateway;
use route::Route;

/// The base path of version 1.
pub const BASE: &str = "/api/v1";

/// What handlers send messages with: the gateway's own way upstream.
#[async_trait]
pub(super) trait MessageSender: Port {
    /// Sends a message and waits until it is stored or refused for good.
    async fn send(&self, caller: &Caller, request: SendRequest) -> Result<Stored>;
}

/// What the routes work on.
#[derive(Debug)]
pub(super) struct Http {
    /// Use cases.
    pub api: Arc<dyn LogicApi>,
    /// Who is asking.
    pub authenticator: Arc<dyn Authenticator>,
    /// Messages.
    pub sender: Arc<dyn MessageSender>,
    /// Request ids.
    pub ids: Arc<dyn IdGenerator>,
    /// Limits.
    pub settings: HttpSettings,
    limiter: limits::Limiter,
    document: Value,
}

/// The part of a gateway's settings that the routes need.
#[derive(Clone, Debug)]
pub(super) struct HttpSettings {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Nesting of its JSON.
    pub json_depth_max: usize,
    /// Time for a request's body and its answer.
    pub request_deadline: Duration,
    /// Users in one answer of a search.
    pub user_search_max: usize,
    /// Origins, beside the server's own, whose pages may ask.
    pub allowed_origins: Vec<HeaderValue>,
    /// How often one address may ask before it is authenticated.
    pub rates: HttpRates,
}

type Shared = Arc<Http>;

impl Http {
    pub(super) fn new(
        api: Arc<dyn LogicApi>,
        authenticator: Arc<dyn Authenticator>,
        sender: Arc<dyn MessageSender>,
        ids: Arc<dyn IdGenerator>,
        settings: HttpSettings,
    ) -> Http {
        let limiter = limits::Limiter::new(settings.rates.clone());
        Http { api, authenticator, sender, ids, settings, limiter, document: openapi::document(&table()) }
    }
}

/// The routes of a gateway; `websocket` serves `GET /ws`. They nest under any path of a host.
///
/// The client's address is read from axum's `ConnectInfo<SocketAddr>`; requests without it share one address when rates are
/// counted.
pub(super) fn routes(gateway: &Arc<Gateway>, websocket: MethodRouter) -> Router {
    let (ports, settings) = (gateway.ports(), gateway.settings());
    let settings = HttpSettings {
        body_bytes_max: settings.http_body_bytes_max,
        json_depth_max: settings.json_depth_max,
        request_deadline: settings.http_request_deadline,
        user_search_max: settings.user_search_max,
        allowed_origins: settings.allowed_origins.iter().filter_map(|origin| origin.parse().ok()).collect(),
        rates: settings.http_rates.clone(),
    };
    router(Http::new(ports.api.clone(), ports.authenticator.clone(), gateway.clone(), ports.ids.clone(), settings), websocket)
}

#[async_trait]
impl MessageSender for Gateway {
    async fn send(&self, caller: &Caller, request: SendRequest) -> Result<Stored> {
        Gateway::send(self, caller, request).await
    }
}

fn router(http: Http, websocket: MethodRouter) -> Router {
    let http = Arc::new(http);
    let api = table().into_iter().fold(Router::new(), |api, route| api.route(route.path, route.handler));
    let api = api
        .with_state(http.clone())
        .route("/ws", websocket)
        .method_not_allowed_fallback(other_method)
        .fallback(|| async { Problem::from(Error::from(Code::NotFound)) })
        .layer(middleware::from_fn_with_state(http, around::around));
    Router::new().nest(BASE, api)
}

/// Every route but the WebSocket's, in the order of docs/protocol.md.
fn table() -> Vec<Route> {
    [
        auth::routes(),
        users::routes(),
        devices::routes(),
        conversations::routes(),
        messages::routes(),
        groups::routes(),
        push::routes(),
        openapi::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A method that the resource does not have; axum adds the `Allow` header. `OPTIONS` asks for just that.
async fn other_method(method: http::Method) -> std::result::Result<StatusCode, Problem> {
    if method == http::Method::OPTIONS { Ok(StatusCode::NO_CONTENT) } else { Err(Error::from(Code::MethodNotAllowed).into()) }
}

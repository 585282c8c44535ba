//! The table of routes as an OpenAPI 3.1 document.

use std::collections::BTreeMap;

use axum::{
    extract::{MatchedPath, State},
    response::Response,
};
use gochat_core::error::{Code, ErrorKind};
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};

use super::{
    BASE, Shared,
    extract::{Answer, ok},
    route::{Parameter, Route},
    schemas,
};

/// Refusals and faults that any request may meet.
const ANY: &[Code] =
    &[Code::InvalidRequest, Code::Internal, Code::Overloaded, Code::Unavailable, Code::Draining, Code::StorageFull, Code::TimeoutUnknown];
/// Those of a request that needs an access token.
const SIGNED: &[Code] = &[Code::Unauthenticated, Code::TokenExpired, Code::SessionRevoked];
/// Those of a request with a body.
const BODY: &[Code] = &[Code::InvalidJson, Code::InvalidField, Code::TooLarge, Code::UnsupportedMediaType];

pub fn routes() -> Vec<Route> {
    vec![Route::get("/openapi.json", serve).summary("This document").open().answers(200, "OpenAPI 3.1", "Document")]
}

/// The document, with the path at which it is served: a host may have nested us anywhere.
async fn serve(State(http): State<Shared>, path: MatchedPath) -> Answer {
    let mut document = http.document.clone();
    let base = path.as_str().strip_suffix("/openapi.json").unwrap_or(BASE);
    document["servers"] = json!([{"url": base}]);
    let mut response: Response = ok(&document)?;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// The document of these routes.
pub fn document(table: &[Route]) -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in table {
        paths.entry(route.path).or_default().insert(route.method.as_str().to_lowercase(), operation(route));
    }
    paths.entry("/ws").or_default().insert("get".into(), websocket());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "GoChat",
            "version": "1",
            "summary": "Instant messaging",
            "description": "Accounts, conversations and their logs. Live traffic goes over the WebSocket; see docs/protocol.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": BASE}],
        "security": [{"access_token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "access_token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "`access_token` of a session."},
            },
            "headers": {
                "X-Request-Id": {
                    "description": "The request's id: the one it brought, or a new one. Logs name it.",
                    "required": true,
                    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
                },
                "Retry-After": {"description": "Seconds to wait.", "required": true, "schema": {"type": "integer", "minimum": 0}},
                "WWW-Authenticate": {"description": "What is needed.", "required": true, "schema": {"type": "string"}},
            },
            "schemas": schemas::schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [route.path.split('/').nth(1).unwrap_or_default()],
        "responses": responses(route),
    });
    let ids = route.path_ids().map(|name| json!({"name": name, "in": "path", "required": true, "schema": reference("Id")}));
    let parameters: Vec<Value> = ids.chain(route.parameters.iter().map(parameter)).collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(schema) = route.body {
        operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": reference(schema)}}});
    }
    if route.open {
        operation["security"] = json!([]);
    }
    operation
}

/// `post_groups_id_members`: stable as long as the path is.
fn operation_id(route: &Route) -> String {
    let path = route.path.replace(['{', '}'], "").replace(['/', '.'], "_");
    format!("{}{path}", route.method.as_str().to_lowercase())
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.means,
        "schema": reference(parameter.schema),
    })
}

fn responses(route: &Route) -> Map<String, Value> {
    let mut responses = Map::new();
    for answer in &route.answers {
        let mut response = json!({"description": answer.means, "headers": {"X-Request-Id": header_reference("X-Request-Id")}});
        if let Some(schema) = answer.schema {
            response["content"] = json!({"application/json": {"schema": reference(schema)}});
        }
        responses.insert(answer.status.to_string(), response);
    }
    for (status, codes) in refusals(route) {
        responses.insert(status.to_string(), problem(status, &codes));
    }
    responses
}

/// The codes that a route may refuse with, by status.
pub fn refusals(route: &Route) -> BTreeMap<u16, Vec<Code>> {
    let mut codes = ANY.to_vec();
    if !route.open {
        codes.extend(SIGNED);
    }
    if route.limited {
        codes.push(Code::RateLimited);
    }
    if route.body.is_some() {
        codes.extend(BODY);
    }
    if route.path_ids().next().is_some() {
        codes.push(Code::InvalidField);
    }
    codes.extend(route.parameters.iter().map(|parameter| parameter.refusal));
    codes.extend(&route.refuses);
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        let codes = by_status.entry(code.kind().status()).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    by_status
}

fn problem(status: u16, codes: &[Code]) -> Value {
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let meanings: Vec<String> = codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.cause())).collect();
    let mut headers = json!({"X-Request-Id": header_reference("X-Request-Id")});
    let kind = codes[0].kind();
    if matches!(kind, ErrorKind::RateLimited | ErrorKind::Unavailable) {
        headers["Retry-After"] = header_reference("Retry-After");
    }
    if kind == ErrorKind::Unauthenticated {
        headers["WWW-Authenticate"] = header_reference("WWW-Authenticate");
    }
    let schema = json!({"allOf": [reference("Problem"), {"properties": {"code": {"enum": names}, "status": {"const": status}}}]});
    json!({
        "description": format!("{}.", meanings.join("; ")),
        "headers": headers,
        "content": {"application/problem+json": {"schema": schema}},
    })
}

/// The upgrade, which no OpenAPI tool can speak: what there is to know of it over HTTP.
fn websocket() -> Value {
    json!({
        "operationId": "get_ws",
        "summary": "Upgrades to a WebSocket; its first frame authenticates",
        "tags": ["ws"],
        "security": [],
        "responses": {
            "101": {"description": "The protocol is switched."},
            "400": problem(400, &[Code::InvalidField]),
            "403": problem(403, &[Code::OriginRefused]),
            "426": problem(426, &[Code::InvalidRequest]),
            "429": problem(429, &[Code::TooManyConnections]),
            "500": problem(500, &[Code::Internal]),
            "503": problem(503, &[Code::Unavailable, Code::Draining]),
            "504": problem(504, &[Code::TimeoutUnknown]),
        },
    })
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn header_reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}

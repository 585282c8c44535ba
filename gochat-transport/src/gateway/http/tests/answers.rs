use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    super::{openapi, route::Route, table},
    fake::Trouble,
    schema, server,
};

const CHAT: &str = "cccccccc-cccc-cccc-cccc-cccccccccccc";
const BO: &str = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb";

/// A request for every route: method, path of the table, body, expected status, and what logic was asked.
fn examples() -> Vec<(&'static str, &'static str, Option<Value>, u16, &'static str)> {
    let message = json!({"client_msg_id": BO, "text": "Hello", "reply_to": null});
    vec![
        ("POST", "/auth/register", Some(json!({"username": "ana", "password": "correct horse"})), 201, r#"("register", "ana", None)"#),
        (
            "POST",
            "/auth/login",
            Some(json!({"username": "ana", "password": "x", "device_name": "Phone"})),
            200,
            r#"("login", "ana", Some("Phone"), "192.0.2.7")"#,
        ),
        ("POST", "/auth/refresh", Some(json!({"refresh_token": "old"})), 200, r#"("refresh", "old")"#),
        ("POST", "/auth/logout", None, 204, r#"("logout", dddddddd-dddd-dddd-dddd-dddddddddddd)"#),
        ("GET", "/auth/log", None, 200, r#"("login_log", 50)"#),
        ("GET", "/users/me", None, 200, r#"("users", [aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa])"#),
        (
            "PATCH",
            "/users/me",
            Some(json!({"avatar_url": null})),
            200,
            r#"("update_profile", ProfileChange { display_name: None, avatar_url: Some(None) })"#,
        ),
        ("POST", "/users/me/password", Some(json!({"current": "1234", "new": "12345678"})), 204, r#"("change_password", 4, 8)"#),
        ("GET", "/users/{id}", None, 200, r#"("users", [aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa])"#),
        ("GET", "/users", None, 200, r#"("find_users", "ana", 20)"#),
        ("POST", "/users/lookup", Some(json!({"ids": [BO]})), 200, r#"("users", [bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb])"#),
        ("GET", "/devices", None, 200, r#"("devices", aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa)"#),
        ("DELETE", "/devices/{id}", None, 204, r#"("sign_out_device", aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa)"#),
        (
            "POST",
            "/conversations",
            Some(json!({"kind": "single", "participants": [BO]})),
            201,
            r#"("create", CreateConversation { kind: Single, participants: [bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb], name: "", description: "", avatar_url: None, join_mode: Invite, max_members: None, idempotency_key: None })"#,
        ),
        (
            "POST",
            "/groups",
            Some(json!({"participants": [], "name": "Lunch", "join_mode": "open", "max_members": null})),
            201,
            r#"("create", CreateConversation { kind: Group, participants: [], name: "Lunch", description: "", avatar_url: None, join_mode: Open, max_members: None, idempotency_key: None })"#,
        ),
        ("GET", "/conversations", None, 200, r#"("list", None, 50)"#),
        ("GET", "/conversations/{id}", None, 200, r#"("conversation", cccccccc-cccc-cccc-cccc-cccccccccccc)"#),
        ("POST", "/conversations/{id}/leave", None, 204, r#"("manage", cccccccc-cccc-cccc-cccc-cccccccccccc, Leave)"#),
        ("PUT", "/conversations/{id}/mute", Some(json!({"muted": true})), 204, r#"("set_muted", cccccccc-cccc-cccc-cccc-cccccccccccc, true)"#),
        ("GET", "/conversations/{id}/members", None, 200, r#"("members", cccccccc-cccc-cccc-cccc-cccccccccccc, None, 50)"#),
        (
            "GET",
            "/conversations/{id}/messages",
            None,
            200,
            r#"("history", HistoryQuery { conversation: cccccccc-cccc-cccc-cccc-cccccccccccc, after: None, before: None, limit: 50 })"#,
        ),
        (
            "POST",
            "/conversations/{id}/messages",
            Some(message),
            201,
            r#"("send", aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa, SendRequest { conversation: cccccccc-cccc-cccc-cccc-cccccccccccc, client_msg_id: bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb, body: Body { kind: Text, content: "Hello" }, reply_to: None })"#,
        ),
        (
            "POST",
            "/conversations/{id}/marks",
            Some(json!({"read_seq": 2})),
            200,
            r#"("mark", [Mark { conversation: cccccccc-cccc-cccc-cccc-cccccccccccc, user: aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa, read_seq: Seq(2), delivered_seq: Seq(0) }])"#,
        ),
        ("POST", "/sync", Some(json!({"have": {}, "limit": 3})), 200, r#"("sync", SyncRequest { have: [], limit: 3 })"#),
        (
            "PATCH",
            "/groups/{id}",
            Some(json!({"name": "Dinner", "avatar_url": null})),
            200,
            r#"("manage", cccccccc-cccc-cccc-cccc-cccccccccccc, Edit { name: Some("Dinner"), description: None, avatar_url: Some(None), max_members: None, join_mode: None })"#,
        ),
        (
            "POST",
            "/groups/{id}/members",
            Some(json!({"user_ids": [BO]})),
            200,
            r#"("manage", cccccccc-cccc-cccc-cccc-cccccccccccc, Invite { users: [bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb] })"#,
        ),
        (
            "DELETE",
            "/groups/{id}/members/{user}",
            None,
            204,
            r#"("manage", cccccccc-cccc-cccc-cccc-cccccccccccc, Remove { user: bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb })"#,
        ),
        (
            "PATCH",
            "/groups/{id}/members/{user}",
            Some(json!({"silenced_until": null})),
            204,
            r#"("manage", cccccccc-cccc-cccc-cccc-cccccccccccc, Silence { user: bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb, until: None })"#,
        ),
        (
            "PUT",
            "/groups/{id}/owner",
            Some(json!({"user_id": BO})),
            200,
            r#"("manage", cccccccc-cccc-cccc-cccc-cccccccccccc, HandOver { user: bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb })"#,
        ),
        ("POST", "/groups/{id}/join", None, 200, r#"("manage", cccccccc-cccc-cccc-cccc-cccccccccccc, Join)"#),
        ("POST", "/groups/{id}/link", None, 201, r#"("new_link", cccccccc-cccc-cccc-cccc-cccccccccccc)"#),
        ("DELETE", "/groups/{id}/link", None, 204, r#"("manage", cccccccc-cccc-cccc-cccc-cccccccccccc, SetLink { link_hash: None })"#),
        ("POST", "/groups/join", Some(json!({"secret": "s"})), 200, r#"("conversation", cccccccc-cccc-cccc-cccc-cccccccccccc)"#),
        ("POST", "/groups/{id}/requests", None, 202, r#"("manage", cccccccc-cccc-cccc-cccc-cccccccccccc, AskToJoin)"#),
        ("GET", "/groups/{id}/requests", None, 200, r#"("join_requests", cccccccc-cccc-cccc-cccc-cccccccccccc)"#),
        (
            "PUT",
            "/groups/{id}/requests/{user}",
            Some(json!({"accept": true})),
            204,
            r#"("manage", cccccccc-cccc-cccc-cccc-cccccccccccc, AnswerRequest { user: bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb, accept: true })"#,
        ),
        ("DELETE", "/groups/{id}", None, 204, r#"("manage", cccccccc-cccc-cccc-cccc-cccccccccccc, Dissolve)"#),
        ("GET", "/push/log", None, 200, r#"("push_log", 50)"#),
        ("GET", "/openapi.json", None, 200, ""),
    ]
}

/// A path of the table with ids in it.
fn concrete(path: &str) -> String {
    let id = if path.starts_with("/users") || path.starts_with("/devices") { "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa" } else { CHAT };
    let path = path.replace("{id}", id).replace("{user}", BO);
    if path == "/users" { "/users?q=ana&unknown=1".into() } else { path }
}

fn operation<'a>(document: &'a Value, method: &str, path: &str) -> &'a Value {
    &document["paths"][path][method.to_lowercase()]
}

#[tokio::test]
async fn every_route_answers_as_documented_and_asks_logic_for_the_right_thing() {
    let document = openapi::document(&table());
    let mut missing: BTreeSet<String> = table().iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    for (method, path, body, status, called) in examples() {
        let server = server();
        missing.remove(&format!("{method} {path}"));
        let operation = operation(&document, method, path);
        if let Some(body) = &body {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            schema::check(&document, schema, body).unwrap_or_else(|why| panic!("{method} {path}: the request: {why}"));
        }
        let reply = server.call(method, &concrete(path), body.map(|body| body.to_string()).as_deref()).await;
        assert_eq!(reply.status.as_u16(), status, "{method} {path}: {:?}", reply.bytes);
        assert_eq!(server.fake.called(), called, "{method} {path}");
        let documented = operation["responses"].get(status.to_string()).unwrap_or_else(|| panic!("{method} {path}: {status} is not documented"));
        match documented.get("content") {
            None => assert!(reply.bytes.is_empty(), "{method} {path}"),
            Some(content) => {
                assert_eq!(reply.headers["content-type"], "application/json");
                let schema = &content["application/json"]["schema"];
                if path != "/openapi.json" {
                    schema::check(&document, schema, &reply.json()).unwrap_or_else(|why| panic!("{method} {path}: {why}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "routes without an example: {missing:?}");
}

#[tokio::test]
async fn every_documented_refusal_of_logic_comes_out_with_its_status_and_without_its_technical_cause() {
    let document = openapi::document(&table());
    let server = server();
    let routes: BTreeMap<String, Route> = table().into_iter().map(|route| (format!("{} {}", route.method, route.path), route)).collect();
    for (method, path, body, ..) in examples().into_iter().filter(|(_, path, ..)| *path != "/openapi.json") {
        let body = body.map(|body| body.to_string());
        for code in openapi::refusals(&routes[&format!("{method} {path}")]).into_values().flatten() {
            *server.fake.refusal.lock().unwrap() = Some(code);
            let reply = server.call(method, &concrete(path), body.as_deref()).await;
            assert_eq!(reply.problem(), (code.kind().status(), code.as_str().to_owned()), "{method} {path}");
            assert!(!String::from_utf8_lossy(&reply.bytes).contains("technical"), "{method} {path}");
            let documented = &operation(&document, method, path)["responses"][reply.status.as_str()];
            let schema = &documented["content"]["application/problem+json"]["schema"];
            schema::check(&document, schema, &reply.json()).unwrap_or_else(|why| panic!("{method} {path}: {why}"));
            for header in documented["headers"].as_object().unwrap().keys() {
                assert!(reply.headers.contains_key(header.to_lowercase()), "{method} {path} {code:?}: {header}");
            }
            if matches!(reply.status.as_u16(), 429 | 503) {
                assert_eq!((&reply.headers["retry-after"], &reply.json()["retry_after_ms"]), (&"1".parse().unwrap(), &json!(1000)));
            }
        }
    }
}

#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let server = server();
    let document = server.call("GET", "/openapi.json", None).await.json();
    assert_eq!(document["servers"][0]["url"], "/api/v1");
    let mut served: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::from([("/ws", BTreeSet::from(["GET"]))]);
    let table = table();
    for route in &table {
        assert!(served.entry(route.path).or_default().insert(route.method.as_str()), "{} {} twice", route.method, route.path);
    }
    for (path, methods) in document["paths"].as_object().unwrap() {
        let documented: BTreeSet<String> = methods.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        assert!(documented.iter().map(String::as_str).eq(served.remove(path.as_str()).unwrap_or_default()), "{path}");
        // What the router says of itself: every other method is refused with the list of those that there are.
        let reply = server.call("TRACE", &concrete(path), None).await;
        assert_eq!(reply.problem(), (405, "METHOD_NOT_ALLOWED".into()), "{path}");
        let allowed: BTreeSet<String> = reply.headers["allow"].to_str().unwrap().split(',').map(str::to_owned).collect();
        let head = documented.contains("GET").then(|| "HEAD".to_owned());
        assert_eq!(allowed, documented.into_iter().chain(head).collect(), "{path}");
    }
    assert!(served.is_empty(), "not in the document: {served:?}");
    let ids: BTreeSet<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|methods| methods.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), table.len() + 1, "operation ids are unique");
}

#[test]
fn every_reference_of_the_document_leads_somewhere_and_every_schema_is_used() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = openapi::document(&table());
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(found.contains(format!("#/components/schemas/{name}").as_str()), "{name} is not used");
    }
}

#[tokio::test]
async fn without_a_valid_token_nothing_is_asked_of_logic() {
    let server = server();
    for route in table().iter().filter(|route| !route.open) {
        for (authorization, code) in [
            (None, "UNAUTHENTICATED"),
            (Some("Bearer wrong"), "UNAUTHENTICATED"),
            (Some("Basic good"), "UNAUTHENTICATED"),
            (Some("Bearer"), "UNAUTHENTICATED"),
            (Some("good"), "UNAUTHENTICATED"),
            (Some("Bearer expired"), "TOKEN_EXPIRED"),
            (Some("Bearer revoked"), "SESSION_REVOKED"),
        ] {
            let mut request = super::request(route.method.as_str(), &concrete(route.path), None);
            request.headers_mut().remove("authorization");
            if let Some(authorization) = authorization {
                request.headers_mut().insert("authorization", authorization.parse().unwrap());
            }
            let reply = server.send(request).await;
            assert_eq!(reply.problem(), (401, code.into()), "{} {} {authorization:?}", route.method, route.path);
            assert!(reply.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        }
    }
    assert_eq!(server.fake.called(), "");
}

#[tokio::test]
async fn two_tokens_are_none_and_the_scheme_is_written_as_one_likes() {
    let server = server();
    let mut request = super::request("GET", "/users/me", None);
    request.headers_mut().insert("authorization", "bEARER good".parse().unwrap());
    assert_eq!(server.send(request).await.status, 200);
    let mut request = super::request("GET", "/users/me", None);
    request.headers_mut().append("authorization", "Bearer good".parse().unwrap());
    assert_eq!(server.send(request).await.problem().0, 401);
}

#[tokio::test]
async fn a_repeated_create_says_that_it_was_there() {
    let server = server();
    let body = json!({"participants": [BO], "name": "Lunch"}).to_string();
    for (key, status) in [("new", 201), ("used", 200)] {
        let mut request = super::request("POST", "/groups", Some(&body));
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        assert_eq!(server.send(request).await.status.as_u16(), status);
        assert!(server.fake.called().contains(&format!("idempotency_key: Some({key:?})")));
    }
    for wrong in ["", "with space", &"x".repeat(129)] {
        let mut request = super::request("POST", "/groups", Some(&body));
        request.headers_mut().insert("idempotency-key", wrong.parse().unwrap());
        assert_eq!(server.send(request).await.problem(), (400, "INVALID_FIELD".into()), "{wrong}");
    }
}

#[tokio::test]
async fn lists_pass_limit_and_cursor_on() {
    let server = server();
    server.call("GET", "/conversations?limit=200&cursor=abc", None).await;
    assert_eq!(server.fake.called(), r#"("list", Some("abc"), 200)"#);
    let path = format!("/conversations/{CHAT}/messages?after=0&limit=1");
    server.call("GET", &path, None).await;
    assert!(server.fake.called().contains("after: Some(Seq(0)), before: None, limit: 1"), "{}", server.fake.called());
}

#[tokio::test]
async fn sync_names_each_conversation_once() {
    let server = server();
    let body = format!(r#"{{"have":{{"{CHAT}":3,"{BO}":0}}}}"#);
    assert_eq!(server.call("POST", "/sync", Some(&body)).await.status, 200);
    assert_eq!(server.fake.called(), format!("(\"sync\", SyncRequest {{ have: [({CHAT}, Seq(3)), ({BO}, Seq(0))], limit: 50 }})"));
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_that_the_outcome_is_unknown() {
    let server = server();
    *server.fake.trouble.lock().unwrap() = Some(Trouble::Hangs);
    assert_eq!(server.call("GET", "/devices", None).await.problem(), (504, "TIMEOUT_UNKNOWN".into()));
}

#[tokio::test]
async fn a_panic_is_an_internal_error_of_one_request() {
    let server = server();
    *server.fake.trouble.lock().unwrap() = Some(Trouble::Panics);
    assert_eq!(server.call("GET", "/devices", None).await.problem(), (500, "INTERNAL".into()));
    *server.fake.trouble.lock().unwrap() = None;
    assert_eq!(server.call("GET", "/devices", None).await.status, 200);
}

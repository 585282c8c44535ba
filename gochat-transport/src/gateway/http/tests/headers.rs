use axum::Router;
use http::HeaderValue;
use tower::ServiceExt;

use super::{request, server, server_with, settings};
use crate::gateway::http::Rate;

#[tokio::test]
async fn a_sane_request_id_is_kept_and_another_is_replaced() {
    let server = server();
    for (brought, kept) in [("abc-1.2_Z", true), ("", false), ("with space", false), (&"x".repeat(65), false), ("<script>", false)] {
        let mut request = request("GET", "/users/me", None);
        request.headers_mut().insert("x-request-id", brought.parse().unwrap());
        let reply = server.send(request).await;
        let id = reply.headers["x-request-id"].to_str().unwrap();
        assert_eq!(id == brought, kept, "{brought} {id}");
        assert!(!id.is_empty());
    }
}

#[tokio::test]
async fn answers_are_not_sniffed_and_not_stored() {
    let server = server();
    for (method, path) in [("GET", "/users/me"), ("GET", "/nowhere"), ("TRACE", "/users/me"), ("POST", "/auth/login"), ("GET", "/ws")] {
        let reply = server.call(method, path, None).await;
        assert_eq!(reply.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(reply.headers["cache-control"], "no-store", "{path}");
    }
    assert_eq!(server.call("GET", "/openapi.json", None).await.headers["cache-control"], "no-cache");
}

#[tokio::test]
async fn head_is_get_without_a_body_and_options_lists_the_methods() {
    let server = server();
    let (get, head) = (server.call("GET", "/users/me", None).await, server.call("HEAD", "/users/me", None).await);
    assert_eq!((head.status, head.bytes.len()), (get.status, 0));
    assert_eq!(head.headers["content-length"], get.bytes.len().to_string());
    let options = server.call("OPTIONS", "/users/me", None).await;
    assert_eq!((options.status.as_u16(), options.bytes.len()), (204, 0));
    assert_eq!(options.headers["allow"], "GET,HEAD,PATCH");
}

#[tokio::test]
async fn other_origins_are_not_let_in_unless_they_are_listed() {
    let preflight = |origin: &'static str| {
        let mut request = request("OPTIONS", "/users/me", None);
        request.headers_mut().insert("origin", HeaderValue::from_static(origin));
        request.headers_mut().insert("access-control-request-method", HeaderValue::from_static("PATCH"));
        request
    };
    let closed = server().send(preflight("https://a.example")).await;
    assert!(!closed.headers.contains_key("access-control-allow-origin"));

    let server = server_with(super::HttpSettings { allowed_origins: vec![HeaderValue::from_static("https://a.example")], ..settings() });
    let open = server.send(preflight("https://a.example")).await;
    assert_eq!(open.status, 204);
    assert_eq!(open.headers["access-control-allow-origin"], "https://a.example");
    assert_eq!(open.headers["vary"], "origin");
    assert!(open.headers["access-control-allow-methods"].to_str().unwrap().contains("PATCH"));
    assert!(open.headers["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
    assert!(!open.headers.contains_key("access-control-allow-credentials"));
    let other = server.send(preflight("https://b.example")).await;
    assert!(!other.headers.contains_key("access-control-allow-origin"));
    assert_eq!(other.headers["vary"], "origin");
}

#[tokio::test]
async fn it_nests_under_any_path_and_says_so() {
    let server = server();
    let host: Router = Router::new().nest("/tenants/{id}/chat", server.router.clone());
    let mut request = request("GET", "/openapi.json", None);
    *request.uri_mut() = "/tenants/7/chat/api/v1/openapi.json".parse().unwrap();
    let response = host.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut request = super::request("GET", "/x", None);
    *request.uri_mut() = "/tenants/7/chat/api/v1/conversations/cccccccc-cccc-cccc-cccc-cccccccccccc".parse().unwrap();
    assert_eq!(host.oneshot(request).await.unwrap().status(), 200);
    assert!(server.fake.called().contains("cccccccc-cccc"));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_asks_too_often_waits_before_its_body_is_read() {
    let mut settings = settings();
    settings.rates.login = Rate { per_minute: 30, burst: 2 };
    let server = server_with(settings);
    let login = || request("POST", "/auth/login", Some(r#"{"username":"ana","password":"x"}"#));
    for _ in 0..2 {
        assert_eq!(server.send(login()).await.status, 200);
    }
    let mut unread = login();
    *unread.body_mut() = axum::body::Body::from("not JSON");
    let refused = server.send(unread).await;
    assert_eq!(refused.problem(), (429, "RATE_LIMITED".into()));
    assert_eq!((&refused.headers["retry-after"], &refused.json()["retry_after_ms"]), (&"2".parse().unwrap(), &2000.into()));
    let mut elsewhere = login();
    elsewhere.extensions_mut().insert(axum::extract::ConnectInfo(std::net::SocketAddr::from(([192, 0, 2, 8], 1))));
    assert_eq!(server.send(elsewhere).await.status, 200);
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    assert_eq!(server.send(login()).await.status, 200);
}

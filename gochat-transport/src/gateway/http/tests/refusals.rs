use axum::body::Body;
use http::Request;

use super::{Server, request, server};

const CHAT: &str = "/conversations/cccccccc-cccc-cccc-cccc-cccccccccccc";
const MEMBER: &str = "/groups/cccccccc-cccc-cccc-cccc-cccccccccccc/members/bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb";
const ID: &str = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb";

async fn refused(server: &Server, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
    let reply = server.call(method, path, body).await;
    assert!(!reply.status.is_success(), "{method} {path} {body:?} was accepted");
    reply.problem()
}

#[tokio::test]
async fn what_is_not_there_is_not_found_under_the_base_path_only() {
    let server = server();
    for path in ["", "/nowhere", "/users/me/", "/auth", "//users/me"] {
        assert_eq!(refused(&server, "GET", path, None).await, (404, "NOT_FOUND".into()), "{path}");
    }
    let elsewhere = server.send(Request::builder().uri("/elsewhere").body(Body::empty()).unwrap()).await;
    assert_eq!((elsewhere.status.as_u16(), elsewhere.headers.contains_key("x-request-id")), (404, false), "left to the host");
}

#[tokio::test]
async fn path_ids_are_uuids() {
    let server = server();
    for id in [
        "x",
        "me2",
        "cccccccccccccccccccccccccccccccc",
        "%7Bcccccccc-cccc-cccc-cccc-cccccccccccc%7D",
        "%ff",
        "%00",
        "..",
        "cccccccc-cccc-cccc-cccc-ccccccccccc",
    ] {
        assert_eq!(refused(&server, "GET", &format!("/conversations/{id}"), None).await, (400, "INVALID_FIELD".into()), "{id}");
    }
    assert_eq!(refused(&server, "DELETE", &MEMBER.replace(ID, "bo"), None).await, (400, "INVALID_FIELD".into()));
    assert_eq!(server.fake.called(), "");
}

#[tokio::test]
async fn queries_are_checked() {
    let server = server();
    for (path, code) in [
        ("/conversations?limit=0", "INVALID_FIELD"),
        ("/conversations?limit=201", "INVALID_FIELD"),
        ("/conversations?limit=-1", "INVALID_FIELD"),
        ("/conversations?limit=%2B5", "INVALID_FIELD"),
        ("/conversations?limit=5.0", "INVALID_FIELD"),
        ("/conversations?limit=", "INVALID_FIELD"),
        ("/conversations?limit=99999999999999999999", "INVALID_FIELD"),
        ("/conversations?limit=1&limit=2", "INVALID_FIELD"),
        (&format!("/conversations?cursor={}", "x".repeat(257)), "INVALID_CURSOR"),
        (&format!("{CHAT}/messages?after=-1"), "INVALID_FIELD"),
        (&format!("{CHAT}/messages?before=9223372036854775808"), "INVALID_FIELD"),
        (&format!("{CHAT}/messages?after=1&before=5"), "INVALID_FIELD"),
        ("/users", "INVALID_FIELD"),
        ("/users?q=", "INVALID_FIELD"),
        (&format!("/users?q={}", "x".repeat(129)), "INVALID_FIELD"),
        ("/auth/log?limit=x", "INVALID_FIELD"),
        ("/push/log?limit=x", "INVALID_FIELD"),
    ] {
        assert_eq!(refused(&server, "GET", path, None).await, (400, code.into()), "{path}");
    }
    assert_eq!(server.fake.called(), "");
}

#[tokio::test]
async fn bodies_are_json_objects_within_limits() {
    let server = server();
    let deep = format!(r#"{{"muted":true,"x":{}1{}}}"#, "[".repeat(32), "]".repeat(32));
    let allowed = format!(r#"{{"muted":true,"x":{}1{}}}"#, "[".repeat(31), "]".repeat(31));
    let large = format!(r#"{{"muted":true,"x":"{}"}}"#, "x".repeat(64 * 1024));
    let path = format!("{CHAT}/mute");
    for (body, status, code) in [
        ("", 400, "INVALID_JSON"),
        ("null", 400, "INVALID_JSON"),
        ("true", 400, "INVALID_JSON"),
        ("[true]", 400, "INVALID_JSON"),
        (r#"{"muted":true"#, 400, "INVALID_JSON"),
        (r#"{"muted":true} x"#, 400, "INVALID_JSON"),
        (r#"{"muted":NaN}"#, 400, "INVALID_JSON"),
        (r#"{"muted":1}"#, 400, "INVALID_FIELD"),
        (r#"{"muted":null}"#, 400, "INVALID_FIELD"),
        (r#"{"muted":true,"muted":false}"#, 400, "INVALID_FIELD"),
        ("{}", 400, "INVALID_FIELD"),
        (&deep, 400, "INVALID_JSON"),
        (&large, 413, "TOO_LARGE"),
    ] {
        assert_eq!(refused(&server, "PUT", &path, Some(body)).await, (status, code.into()), "{body:.80}");
    }
    assert_eq!(server.fake.called(), "");
    assert_eq!(server.call("PUT", &path, Some(&allowed)).await.status, 204);
    assert_eq!(server.call("PUT", &path, Some(" \r\n\t{\"muted\":true}\n")).await.status, 204);
}

#[tokio::test]
async fn bytes_that_are_no_utf8_and_bodies_without_a_length_are_met_too() {
    let server = server();
    let send = |body: Body| {
        let mut request = request("PUT", &format!("{CHAT}/mute"), Some(""));
        *request.body_mut() = body;
        server.send(request)
    };
    assert_eq!(send(Body::from(&b"{\"muted\":\"\xff\"}"[..])).await.problem(), (400, "INVALID_JSON".into()));
    let chunks = (0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024]));
    assert_eq!(send(Body::from_stream(futures_util::stream::iter(chunks))).await.problem(), (413, "TOO_LARGE".into()));
    let broken = futures_util::stream::iter([Err::<Vec<u8>, _>(std::io::Error::other("gone"))]);
    assert_eq!(send(Body::from_stream(broken)).await.problem(), (400, "INVALID_REQUEST".into()));
}

#[tokio::test]
async fn only_json_is_understood() {
    let server = server();
    for (media_type, accepted) in [
        (Some("application/json"), true),
        (Some("Application/JSON; charset=UTF-8"), true),
        (Some("application/json; charset=\"utf-8\""), true),
        (Some("application/json; charset=latin1"), false),
        (Some("text/plain"), false),
        (Some("application/jsonp"), false),
        (Some("application/x-www-form-urlencoded"), false),
        (None, false),
    ] {
        let mut request = request("PUT", &format!("{CHAT}/mute"), Some(r#"{"muted":true}"#));
        request.headers_mut().remove("content-type");
        if let Some(media_type) = media_type {
            request.headers_mut().insert("content-type", media_type.parse().unwrap());
        }
        let reply = server.send(request).await;
        if accepted {
            assert_eq!(reply.status, 204, "{media_type:?}");
        } else {
            assert_eq!(reply.problem(), (415, "UNSUPPORTED_MEDIA_TYPE".into()), "{media_type:?}");
        }
    }
}

#[tokio::test]
async fn fields_that_make_no_sense_never_reach_logic() {
    let server = server();
    let many = format!("[{}]", vec![format!("\"{ID}\""); 201].join(","));
    let have = format!("{{{}}}", (0..201).map(|n| format!("\"00000000-0000-0000-0000-{n:012}\":1")).collect::<Vec<_>>().join(","));
    let messages = format!("{CHAT}/messages");
    let marks = format!("{CHAT}/marks");
    for (method, path, body) in [
        ("POST", "/users/lookup", format!(r#"{{"ids":{many}}}"#)),
        ("POST", "/users/lookup", r#"{"ids":["bo"]}"#.into()),
        ("POST", "/conversations", format!(r#"{{"participants":["{ID}"]}}"#)),
        ("POST", "/conversations", r#"{"kind":"single"}"#.into()),
        ("POST", "/conversations", format!(r#"{{"kind":"room","participants":["{ID}"]}}"#)),
        ("POST", "/groups", format!(r#"{{"kind":"single","name":"x","participants":["{ID}"]}}"#)),
        ("POST", "/groups", r#"{"participants":[],"name":"x","max_members":99999999999}"#.into()),
        ("PATCH", MEMBER, "{}".into()),
        ("PATCH", MEMBER, r#"{"role":"owner"}"#.into()),
        ("PATCH", MEMBER, r#"{"role":"admin","silenced_until":1}"#.into()),
        ("PATCH", MEMBER, r#"{"silenced_until":-1}"#.into()),
        ("POST", "/groups/cccccccc-cccc-cccc-cccc-cccccccccccc/members", r#"{"user_ids":[]}"#.into()),
        ("POST", &marks, r#"{"read_seq":-1}"#.into()),
        ("POST", &marks, r#"{"read_seq":9223372036854775808}"#.into()),
        ("POST", &marks, r#"{"read_seq":1.5}"#.into()),
        ("POST", "/sync", format!(r#"{{"have":{have}}}"#)),
        ("POST", "/sync", format!(r#"{{"have":{{"{ID}":-1}}}}"#)),
        ("POST", "/sync", format!(r#"{{"have":{{"{ID}":1,"{ID}":2}}}}"#)),
        ("POST", "/sync", r#"{"have":{"bo":1}}"#.into()),
        ("POST", "/sync", r#"{"have":{},"limit":0}"#.into()),
        ("POST", &messages, r#"{"text":"Hello"}"#.into()),
        ("POST", &messages, format!(r#"{{"client_msg_id":"{ID}"}}"#)),
        ("POST", &messages, format!(r#"{{"client_msg_id":"{ID}","text":" "}}"#)),
        ("POST", &messages, format!(r#"{{"client_msg_id":"{ID}","text":"a\u0000b"}}"#)),
        ("POST", &messages, format!(r#"{{"client_msg_id":"{ID}","text":"a","kind":"image"}}"#)),
        ("POST", &messages, format!(r#"{{"client_msg_id":"{ID}","kind":"event","data":{{}}}}"#)),
        ("POST", &messages, format!(r#"{{"client_msg_id":"{ID}","text":"a","reply_to":0}}"#)),
    ] {
        assert_eq!(refused(&server, method, path, Some(&body)).await, (400, "INVALID_FIELD".into()), "{method} {path} {body:.100}");
    }
    let long = format!(r#"{{"client_msg_id":"{ID}","text":"{}"}}"#, "x".repeat(16 * 1024 + 1));
    assert_eq!(refused(&server, "POST", &messages, Some(&long)).await, (413, "TOO_LARGE".into()));
    assert_eq!(server.fake.called(), "");
}

#[tokio::test]
async fn a_refusal_names_the_field_and_never_repeats_a_value() {
    let server = server();
    for (body, told) in [
        (r#"{"username":"ana"}"#, "missing field `password`"),
        (r#"{"username":"ana","password":{"secret":"canary"}}"#, "expected a string"),
        (r#"{"username":"ana","password":["canary, expected "]}"#, "expected a string"),
        (r#"{"username":"ana","password":"canary","device_id":"canary at line 1 column 1"}"#, "an id is not a UUID"),
    ] {
        let reply = server.call("POST", "/auth/login", Some(body)).await;
        assert_eq!(reply.problem(), (400, "INVALID_FIELD".into()));
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(told) && !detail.contains("canary"), "{detail}");
    }
}

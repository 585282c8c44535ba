//! Whatever a stranger sends: every case gets its documented code, nothing is a fault of the server (5xx), and afterwards two
//! users chat as if nothing had been.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use gochat_core::{
    auth::{Secret, TokenSettings, Tokens},
    ids::{DeviceId, UserId},
    model::Caller,
    time::Timestamp,
};
use http::{Method, Request, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    client::{Answer, PATIENCE, Socket, User, http, new_id, raw},
    sandbox::Sandbox,
};

/// Two members of a conversation and one who is not.
struct Scene {
    server: Sandbox,
    ana: User,
    bo: User,
    eve: User,
    chat: String,
    group: String,
}

impl Scene {
    async fn open() -> Scene {
        let server = Sandbox::start().await;
        let [ana, bo, eve] = [
            User::register(server.address(), "ana").await,
            User::register(server.address(), "bo").await,
            User::register(server.address(), "eve").await,
        ];
        let (chat, group) = (ana.single(&bo).await, ana.group("Lunch", &[&bo]).await);
        ana.say(&chat, "a secret").await;
        Scene { server, ana, bo, eve, chat, group }
    }

    /// A body as it is.
    async fn ask(&self, user: Option<&User>, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.server.address().to_string());
        if let Some(user) = user {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", user.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        raw(self.server.address(), request.body(Full::new(body.into())).unwrap()).await
    }

    async fn json(&self, user: Option<&User>, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        self.ask(user, method, path, &[("content-type", "application/json")], body).await
    }

    /// The log is what it was, the server answers, and messages arrive.
    async fn still_well(&self) {
        let log = self.ana.read_all(&self.chat).await;
        let texts: Vec<&Value> = log.iter().filter(|message| message["kind"] == "text").map(|message| &message["text"]).collect();
        assert_eq!(texts, ["a secret"], "nothing of all that was stored");
        let (mut from, mut to) = (self.ana.connect().await, self.bo.connect().await);
        from.say(&self.chat, "still here").await;
        assert_eq!(to.next_of("message").await["text"], "still here");
    }
}

/// The answer is a problem with this status and code, as docs/protocol.md describes one.
fn wrong(name: &str, answer: &Answer, status: u16, code: &str) -> Option<String> {
    let problem = answer.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json");
    let whole = ["type", "title", "detail", "hint"].iter().all(|field| answer.body[field].is_string()) && answer.body["status"] == status;
    let right = answer.status.as_u16() == status && answer.code() == code && problem && whole;
    (!right).then(|| format!("{name}: {} {} and not {status} {code}", answer.status, answer.body))
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_as_documented_is_refused_with_its_code() {
    let scene = Scene::open().await;
    let register = "/api/v1/auth/register";
    let messages = format!("/api/v1/conversations/{}/messages", scene.chat);
    let marks = format!("/api/v1/conversations/{}/marks", scene.chat);
    let deep_data = format!(r#"{{"client_msg_id":"{}","kind":"custom","data":{{"a":{}}}}}"#, new_id(), nested(17));
    let message = |fields: &str| format!(r#"{{"client_msg_id":"{}",{fields}}}"#, new_id());
    let ana = Some(&scene.ana);
    let long = "x".repeat(65_537);
    let cases: Vec<(&str, Option<&User>, Method, &str, Bytes, u16, &str)> = vec![
        ("half an object", None, Method::POST, register, "{".into(), 400, "INVALID_JSON"),
        ("nothing", None, Method::POST, register, "".into(), 400, "INVALID_JSON"),
        ("null", None, Method::POST, register, "null".into(), 400, "INVALID_JSON"),
        ("a list", None, Method::POST, register, "[1,2]".into(), 400, "INVALID_JSON"),
        ("a field is missing", None, Method::POST, register, r#"{"username":"cy"}"#.into(), 400, "INVALID_FIELD"),
        ("a field is twice there", None, Method::POST, register, r#"{"username":"cy","username":"dy","password":"p"}"#.into(), 400, "INVALID_FIELD"),
        ("a number for a text", None, Method::POST, register, r#"{"username":5,"password":"correct horse"}"#.into(), 400, "INVALID_FIELD"),
        (
            "something behind the object",
            None,
            Method::POST,
            register,
            r#"{"username":"cy","password":"correct horse"} {}"#.into(),
            400,
            "INVALID_JSON",
        ),
        (
            "not UTF-8",
            None,
            Method::POST,
            register,
            Bytes::from_static(b"{\"username\":\"\xff\",\"password\":\"correct horse\"}"),
            400,
            "INVALID_JSON",
        ),
        ("half a surrogate pair", None, Method::POST, register, r#"{"username":"\ud800","password":"correct horse"}"#.into(), 400, "INVALID_JSON"),
        ("nested 30,000 deep", None, Method::POST, register, nested(30_000).into(), 400, "INVALID_JSON"),
        ("larger than 64 KiB", None, Method::POST, register, long.clone().into(), 413, "TOO_LARGE"),
        ("a user name with a slash", None, Method::POST, register, r#"{"username":"../cy","password":"correct horse"}"#.into(), 400, "INVALID_FIELD"),
        (
            "a user name with a NUL",
            None,
            Method::POST,
            register,
            r#"{"username":"c\u0000y","password":"correct horse"}"#.into(),
            400,
            "INVALID_FIELD",
        ),
        ("a short password", None, Method::POST, register, r#"{"username":"cy","password":"short"}"#.into(), 400, "INVALID_FIELD"),
        (
            "a password of 2 KiB",
            None,
            Method::POST,
            register,
            format!(r#"{{"username":"cy","password":"{}"}}"#, &long[..2048]).into(),
            413,
            "TOO_LARGE",
        ),
        ("a name that is taken", None, Method::POST, register, r#"{"username":"ANA","password":"correct horse"}"#.into(), 409, "USERNAME_TAKEN"),
        ("an empty text", ana, Method::POST, &messages, message(r#""text":" ""#).into(), 400, "INVALID_FIELD"),
        ("no text", ana, Method::POST, &messages, message(r#""kind":"text""#).into(), 400, "INVALID_FIELD"),
        ("a NUL in a text", ana, Method::POST, &messages, message(r#""text":"a\u0000b""#).into(), 400, "INVALID_FIELD"),
        ("a text of 16 KiB + 1", ana, Method::POST, &messages, message(&format!(r#""text":"{}""#, &long[..16_385])).into(), 413, "TOO_LARGE"),
        ("a kind that is not known", ana, Method::POST, &messages, message(r#""kind":"dance","data":{}"#).into(), 400, "INVALID_FIELD"),
        (
            "an event of a client's",
            ana,
            Method::POST,
            &messages,
            message(r#""kind":"event","data":{"type":"dissolved"}"#).into(),
            400,
            "INVALID_FIELD",
        ),
        ("an image without address", ana, Method::POST, &messages, message(r#""kind":"image","data":{}"#).into(), 400, "INVALID_FIELD"),
        (
            "an image with a script for an address",
            ana,
            Method::POST,
            &messages,
            message(r#""kind":"image","data":{"url":"javascript:alert(1)"}"#).into(),
            400,
            "INVALID_FIELD",
        ),
        (
            "a place off the earth",
            ana,
            Method::POST,
            &messages,
            message(r#""kind":"location","data":{"latitude":91,"longitude":0}"#).into(),
            400,
            "INVALID_FIELD",
        ),
        ("data nested 18 deep", ana, Method::POST, &messages, deep_data.into(), 400, "INVALID_FIELD"),
        ("a client id that is none", ana, Method::POST, &messages, r#"{"client_msg_id":"1","text":"x"}"#.into(), 400, "INVALID_FIELD"),
        ("no client id", ana, Method::POST, &messages, r#"{"text":"x"}"#.into(), 400, "INVALID_FIELD"),
        ("an answer to seq -1", ana, Method::POST, &messages, message(r#""text":"x","reply_to":-1"#).into(), 400, "INVALID_FIELD"),
        (
            "an answer to what is not there",
            ana,
            Method::POST,
            &messages,
            message(r#""text":"x","reply_to":9007199254740991"#).into(),
            404,
            "MESSAGE_NOT_FOUND",
        ),
        ("a seq of 2^63", ana, Method::POST, &messages, message(r#""text":"x","reply_to":9223372036854775808"#).into(), 400, "INVALID_FIELD"),
        ("a negative mark", ana, Method::POST, &marks, r#"{"read_seq":-1}"#.into(), 400, "INVALID_FIELD"),
        ("a mark of 2^63", ana, Method::POST, &marks, r#"{"read_seq":9223372036854775808}"#.into(), 400, "INVALID_FIELD"),
        ("a mark with a fraction", ana, Method::POST, &marks, r#"{"read_seq":1.5}"#.into(), 400, "INVALID_FIELD"),
        ("a mark of 1e400", ana, Method::POST, &marks, r#"{"read_seq":1e400}"#.into(), 400, "INVALID_JSON"),
        ("a mark in quotes", ana, Method::POST, &marks, r#"{"read_seq":"2"}"#.into(), 400, "INVALID_FIELD"),
        (
            "a group for -1 members",
            ana,
            Method::POST,
            "/api/v1/groups",
            r#"{"name":"x","participants":[],"max_members":-1}"#.into(),
            400,
            "INVALID_FIELD",
        ),
        (
            "a group for 2^31 members",
            ana,
            Method::POST,
            "/api/v1/groups",
            r#"{"name":"x","participants":[],"max_members":2147483648}"#.into(),
            400,
            "INVALID_FIELD",
        ),
        ("a group without a name", ana, Method::POST, "/api/v1/groups", r#"{"name":"","participants":[]}"#.into(), 400, "INVALID_FIELD"),
        (
            "a member who does not exist",
            ana,
            Method::POST,
            "/api/v1/groups",
            format!(r#"{{"name":"x","participants":["{}"]}}"#, new_id()).into(),
            404,
            "USER_NOT_FOUND",
        ),
        ("a member with a wrong id", ana, Method::POST, "/api/v1/groups", r#"{"name":"x","participants":["1"]}"#.into(), 400, "INVALID_FIELD"),
        (
            "a 1:1 of three",
            ana,
            Method::POST,
            "/api/v1/conversations",
            format!(r#"{{"kind":"single","participants":["{}","{}"]}}"#, scene.bo.id, scene.eve.id).into(),
            400,
            "INVALID_FIELD",
        ),
        (
            "a 1:1 with oneself",
            ana,
            Method::POST,
            "/api/v1/conversations",
            format!(r#"{{"kind":"single","participants":["{}"]}}"#, scene.ana.id).into(),
            400,
            "INVALID_FIELD",
        ),
        (
            "an avatar that is a script",
            ana,
            Method::PATCH,
            "/api/v1/users/me",
            r#"{"avatar_url":"javascript:alert(1)"}"#.into(),
            400,
            "INVALID_FIELD",
        ),
        ("a name of control characters", ana, Method::PATCH, "/api/v1/users/me", r#"{"display_name":"\u0007"}"#.into(), 400, "INVALID_FIELD"),
        ("a sync of what is no id", ana, Method::POST, "/api/v1/sync", r#"{"have":{"x":1}}"#.into(), 400, "INVALID_FIELD"),
        ("a sync from seq -1", ana, Method::POST, "/api/v1/sync", format!(r#"{{"have":{{"{}":-1}}}}"#, scene.chat).into(), 400, "INVALID_FIELD"),
        ("a link that is none", ana, Method::POST, "/api/v1/groups/join", r#"{"secret":"AAAA"}"#.into(), 404, "LINK_NOT_FOUND"),
        ("a refresh token that is none", None, Method::POST, "/api/v1/auth/refresh", r#"{"refresh_token":"AAAA"}"#.into(), 401, "REFRESH_REFUSED"),
    ];
    let mut failures = Vec::new();
    for (name, user, method, path, body, status, code) in cases {
        failures.extend(wrong(name, &scene.json(user, method, path, body).await, status, code));
    }
    let other = scene.ask(None, Method::POST, register, &[("content-type", "text/plain")], r#"{"username":"cy","password":"correct horse"}"#).await;
    failures.extend(wrong("a body of another type", &other, 415, "UNSUPPORTED_MEDIA_TYPE"));
    let untyped = scene.ask(None, Method::POST, register, &[], r#"{"username":"cy","password":"correct horse"}"#).await;
    failures.extend(wrong("a body of no type", &untyped, 415, "UNSUPPORTED_MEDIA_TYPE"));
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
    scene.still_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_or_query_that_is_not_as_documented_is_refused_with_its_code() {
    let scene = Scene::open().await;
    let messages = format!("/api/v1/conversations/{}/messages", scene.chat);
    let mut failures = Vec::new();
    for (path, status, code) in [
        ("/api/v1/nothing".to_owned(), 404, "NOT_FOUND"),
        ("/api/v1/users/1".into(), 400, "INVALID_FIELD"),
        ("/api/v1/users/%ff".into(), 400, "INVALID_FIELD"),
        (format!("/api/v1/users/{}", new_id()), 404, "USER_NOT_FOUND"),
        ("/api/v1/conversations/..%2f..%2fetc".into(), 400, "INVALID_FIELD"),
        (format!("/api/v1/conversations/{}", new_id()), 404, "CONVERSATION_NOT_FOUND"),
        (format!("{messages}?limit=0"), 400, "INVALID_FIELD"),
        (format!("{messages}?limit=-1"), 400, "INVALID_FIELD"),
        (format!("{messages}?limit=201"), 400, "INVALID_FIELD"),
        (format!("{messages}?limit=99999999999999999999"), 400, "INVALID_FIELD"),
        (format!("{messages}?limit=ten"), 400, "INVALID_FIELD"),
        (format!("{messages}?after=-1"), 400, "INVALID_FIELD"),
        (format!("{messages}?after=9223372036854775808"), 400, "INVALID_FIELD"),
        (format!("{messages}?after=1&before=2"), 400, "INVALID_FIELD"),
        ("/api/v1/conversations?cursor=%00%01".into(), 400, "INVALID_CURSOR"),
        ("/api/v1/conversations?cursor=AAAA".into(), 400, "INVALID_CURSOR"),
        (format!("/api/v1/conversations/{}/members?cursor='--", scene.group), 400, "INVALID_CURSOR"),
    ] {
        let answer = scene.ask(Some(&scene.ana), Method::GET, &path, &[], "").await;
        failures.extend(wrong(&path, &answer, status, code));
    }
    let answer = scene.ask(Some(&scene.ana), Method::PUT, "/api/v1/users/me", &[], "").await;
    failures.extend(wrong("PUT", &answer, 405, "METHOD_NOT_ALLOWED"));
    assert!(answer.headers.contains_key(header::ALLOW));
    // The two ends of a number that is a seq are no fault either.
    let answer = scene.ask(Some(&scene.ana), Method::GET, &format!("{messages}?after=9223372036854775807"), &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.body["messages"].as_array().map(Vec::len)), (200, Some(0)), "{answer:?}");
    let answer = scene.ask(Some(&scene.ana), Method::GET, &format!("{messages}?before=0"), &[], "").await;
    assert!(answer.status.as_u16() < 500, "{answer:?}");
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
    scene.still_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_learns_nothing_of_a_conversation() {
    let scene = Scene::open().await;
    let mut failures = Vec::new();
    for id in [&scene.chat, &scene.group] {
        let message = json!({"client_msg_id": new_id(), "text": "let me in"}).to_string();
        for (method, path, body) in [
            (Method::GET, format!("conversations/{id}"), String::new()),
            (Method::GET, format!("conversations/{id}/members"), String::new()),
            (Method::GET, format!("conversations/{id}/messages"), String::new()),
            (Method::POST, format!("conversations/{id}/messages"), message),
            (Method::POST, format!("conversations/{id}/marks"), r#"{"read_seq":1}"#.into()),
            (Method::PUT, format!("conversations/{id}/mute"), r#"{"muted":true}"#.into()),
            (Method::POST, format!("conversations/{id}/leave"), String::new()),
            (Method::PATCH, format!("groups/{id}"), r#"{"name":"mine"}"#.into()),
            (Method::POST, format!("groups/{id}/members"), json!({"user_ids": [scene.eve.id]}).to_string()),
            (Method::DELETE, format!("groups/{id}/members/{}", scene.bo.id), String::new()),
            (Method::PATCH, format!("groups/{id}/members/{}", scene.eve.id), r#"{"role":"admin"}"#.into()),
            (Method::PUT, format!("groups/{id}/owner"), json!({"user_id": scene.eve.id}).to_string()),
            (Method::POST, format!("groups/{id}/join"), String::new()),
            (Method::POST, format!("groups/{id}/requests"), String::new()),
            (Method::GET, format!("groups/{id}/requests"), String::new()),
            (Method::POST, format!("groups/{id}/link"), String::new()),
            (Method::DELETE, format!("groups/{id}"), String::new()),
        ] {
            let answer = scene.json(Some(&scene.eve), method.clone(), &format!("/api/v1/{path}"), body).await;
            failures.extend(wrong(&format!("{method} {path}"), &answer, 404, "CONVERSATION_NOT_FOUND"));
        }
    }
    let synced = scene.eve.post("/sync", json!({"have": {scene.chat.clone(): 0}})).await.expect(200);
    assert_eq!((&synced["conversations"][0]["head_seq"], &synced["conversations"][0]["messages"]), (&json!(0), &json!([])));
    let mut socket = scene.eve.connect().await;
    let send = json!({"type": "send", "conversation_id": scene.chat, "client_msg_id": new_id(), "text": "let me in"});
    assert_eq!(socket.request(send).await["code"], "CONVERSATION_NOT_FOUND");
    assert_eq!(socket.request(json!({"type": "history", "conversation_id": scene.chat})).await["code"], "CONVERSATION_NOT_FOUND");
    assert_eq!(scene.eve.delete(&format!("/devices/{}", scene.ana.device)).await.code(), "DEVICE_NOT_FOUND");
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
    scene.still_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_not_as_documented_are_answered_with_their_code() {
    let scene = Scene::open().await;
    let mut socket = scene.ana.connect().await;
    let chat = &scene.chat;
    let send = |fields: &str| format!(r#"{{"type":"send","id":9,"conversation_id":"{chat}","client_msg_id":"{}",{fields}}}"#, new_id());
    let many: Vec<String> = (0..201).map(|_| format!("\"{}\":0", new_id())).collect();
    let mut failures = Vec::new();
    for (frame, id, code) in [
        ("{".to_owned(), None, "INVALID_JSON"),
        ("[]".into(), None, "INVALID_JSON"),
        ("null".into(), None, "INVALID_JSON"),
        (String::new(), None, "INVALID_JSON"),
        (nested(33), None, "INVALID_JSON"),
        (nested(30_000), None, "INVALID_JSON"),
        (r#"{"type":"ping"}"#.into(), None, "INVALID_FIELD"),
        (r#"{"type":"ping","id":0}"#.into(), None, "INVALID_FIELD"),
        (r#"{"type":"ping","id":-9}"#.into(), None, "INVALID_JSON"),
        (r#"{"type":"ping","id":9007199254740992}"#.into(), None, "INVALID_FIELD"),
        (r#"{"type":"ping","id":1e3}"#.into(), None, "INVALID_JSON"),
        (r#"{"type":"ping","id":"9"}"#.into(), None, "INVALID_JSON"),
        (r#"{"type":"dance","id":9}"#.into(), Some(9), "UNKNOWN_FRAME"),
        (r#"{"type":"message","id":9}"#.into(), Some(9), "UNKNOWN_FRAME"),
        (r#"{"id":9}"#.into(), Some(9), "INVALID_JSON"),
        (r#"{"type":"send","id":9}"#.into(), Some(9), "INVALID_FIELD"),
        (r#"{"type":"send","id":9,"conversation_id":"x","client_msg_id":"y","text":"z"}"#.into(), Some(9), "INVALID_FIELD"),
        (send(r#""text":5"#), Some(9), "INVALID_JSON"),
        (send(r#""text":"""#), Some(9), "INVALID_FIELD"),
        (send(r#""kind":"event","data":{"type":"dissolved"}"#), Some(9), "INVALID_FIELD"),
        (send(r#""kind":"dance","data":{}"#), Some(9), "INVALID_FIELD"),
        (send(r#""text":"x","data":{}"#), Some(9), "INVALID_FIELD"),
        (send(r#""text":"x","reply_to":-1"#), Some(9), "INVALID_FIELD"),
        (send(r#""text":"x","reply_to":9223372036854775808"#), Some(9), "INVALID_JSON"),
        (send(r#""text":"x","reply_to":99"#), Some(9), "MESSAGE_NOT_FOUND"),
        (send(&format!(r#""text":"{}""#, "x".repeat(16_385))), Some(9), "TOO_LARGE"),
        (send(&format!(r#""kind":"custom","data":{{"a":{}}}"#, nested(20))), Some(9), "INVALID_FIELD"),
        (
            format!(r#"{{"type":"send","id":9,"conversation_id":"{}","client_msg_id":"{}","text":"x"}}"#, new_id(), new_id()),
            Some(9),
            "CONVERSATION_NOT_FOUND",
        ),
        (format!(r#"{{"type":"history","id":9,"conversation_id":"{chat}","after":-1}}"#), Some(9), "INVALID_FIELD"),
        (format!(r#"{{"type":"history","id":9,"conversation_id":"{chat}","after":1,"before":3}}"#), Some(9), "INVALID_FIELD"),
        (format!(r#"{{"type":"history","id":9,"conversation_id":"{chat}","limit":201}}"#), Some(9), "INVALID_FIELD"),
        (r#"{"type":"list","id":9,"cursor":"AAAA"}"#.into(), Some(9), "INVALID_CURSOR"),
        (r#"{"type":"list","id":9,"limit":-1}"#.into(), Some(9), "INVALID_JSON"),
        (format!(r#"{{"type":"sync","id":9,"have":{{{}}}}}"#, many.join(",")), Some(9), "INVALID_FIELD"),
        (format!(r#"{{"type":"mark","id":9,"conversation_id":"{chat}","read_seq":-1}}"#), Some(9), "INVALID_FIELD"),
        (r#"{"type":"auth","id":9,"token":"x"}"#.into(), Some(9), "UNAUTHENTICATED"),
        (format!(r#"{{"type":"auth","id":9,"token":"{}"}}"#, scene.eve.token), Some(9), "DENIED"),
    ] {
        socket.send_text(&frame).await;
        let answer = socket.next_of("error").await;
        if (answer["id"].as_u64(), &answer["code"]) != (id, &json!(code)) || !answer["hint"].is_string() {
            failures.push(format!("{}: {answer} and not {code} with {id:?}", &frame[..frame.len().min(120)]));
        }
    }
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(socket.request(json!({"type": "ping"})).await["type"], "pong", "the connection is as good as before");
    drop(socket);
    scene.still_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_exactly_ours_is_nobodys() {
    let scene = Scene::open().await;
    let caller = Caller { user: scene.ana.id.parse::<UserId>().unwrap(), device: scene.ana.device.parse::<DeviceId>().unwrap(), session_epoch: 1 };
    let seed: [u8; 32] = URL_SAFE_NO_PAD.decode(scene.server.secret("token-key")).unwrap().try_into().unwrap();
    let now = Timestamp(scene.server.now());
    let made =
        |settings: TokenSettings, seed: [u8; 32], at: Timestamp| Tokens::new(settings, &[Secret::new(seed)]).unwrap().issue(&caller, at).unwrap();
    let ours = TokenSettings::default();
    let mut parts = scene.ana.token.splitn(3, '.').map(str::to_owned);
    let [head, claims, signature]: [String; 3] = std::array::from_fn(|_| parts.next().unwrap());
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let changed = |value: &Value, key: &str, to: Value| {
        let mut value = value.clone();
        value[key] = to;
        part(value)
    };
    let (header, body) = (read(&head), read(&claims));
    let of_bo = changed(&body, "sub", json!(scene.bo.id));
    let forged: Vec<(&str, String, &str)> = vec![
        ("no token", String::new(), "UNAUTHENTICATED"),
        ("no JWT", "x".into(), "UNAUTHENTICATED"),
        ("5 KiB", "x".repeat(5000), "UNAUTHENTICATED"),
        ("no algorithm", format!("{}.{claims}.", changed(&header, "alg", json!("none"))), "UNAUTHENTICATED"),
        ("no algorithm, with the signature", format!("{}.{claims}.{signature}", changed(&header, "alg", json!("none"))), "UNAUTHENTICATED"),
        ("another algorithm", format!("{}.{claims}.{signature}", changed(&header, "alg", json!("HS256"))), "UNAUTHENTICATED"),
        ("another type", format!("{}.{claims}.{signature}", changed(&header, "typ", json!("JWT"))), "UNAUTHENTICATED"),
        ("another user under the same signature", format!("{head}.{of_bo}.{signature}"), "UNAUTHENTICATED"),
        ("no signature", format!("{head}.{claims}."), "UNAUTHENTICATED"),
        ("half a signature", format!("{head}.{claims}.{}", &signature[..40]), "UNAUTHENTICATED"),
        ("another key", made(ours.clone(), [7; 32], now), "UNAUTHENTICATED"),
        ("another audience", made(TokenSettings { audience: "other".into(), ..ours.clone() }, seed, now), "UNAUTHENTICATED"),
        ("another issuer", made(TokenSettings { issuer: "other".into(), ..ours.clone() }, seed, now), "UNAUTHENTICATED"),
        ("from tomorrow", made(ours.clone(), seed, now.plus(Duration::from_secs(86_400))), "UNAUTHENTICATED"),
        ("expired", made(TokenSettings { access_seconds: 1, ..ours.clone() }, seed, Timestamp(now.0 - 86_400_000)), "TOKEN_EXPIRED"),
        ("the refresh token", scene.ana.refresh.clone(), "UNAUTHENTICATED"),
    ];
    let mut failures = Vec::new();
    for (name, token, code) in forged {
        let answer = http(scene.server.address(), Method::GET, "/api/v1/users/me", Some(&token), &[], None).await;
        failures.extend(wrong(name, &answer, 401, code));
        let mut socket = Socket::open(scene.server.address()).await;
        // A frame before authentication is at most 4 KiB.
        if token.len() < 4000 {
            let said = socket.request(json!({"type": "auth", "token": token})).await;
            if said["code"] != code {
                failures.push(format!("{name}: {said} and not {code}"));
            }
            let closed = socket.closed().await.0;
            let expected = if code == "TOKEN_EXPIRED" { 4003 } else { 4001 };
            if closed != expected {
                failures.push(format!("{name}: closed with {closed} and not {expected}"));
            }
        }
    }
    // The check itself is right: the same making with the right parts is good.
    let good = made(ours, seed, now);
    assert_eq!(http(scene.server.address(), Method::GET, "/api/v1/users/me", Some(&good), &[], None).await.status, 200);
    let me = "/api/v1/users/me";
    for (name, value) in [("Basic", format!("Basic {}", scene.ana.token)), ("bare", scene.ana.token.clone())] {
        let answer = scene.ask(None, Method::GET, me, &[("authorization", &value)], "").await;
        failures.extend(wrong(name, &answer, 401, "UNAUTHENTICATED"));
    }
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
    scene.server.advance(Duration::from_secs(7_200 + 120));
    assert_eq!(scene.ana.get("/users/me").await.code(), "TOKEN_EXPIRED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_in_a_url_or_a_cookie_is_no_token() {
    let scene = Scene::open().await;
    let token = &scene.ana.token;
    for name in ["token", "access_token", "authorization"] {
        let answer = http(scene.server.address(), Method::GET, &format!("/api/v1/users/me?{name}={token}"), None, &[], None).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (401, "UNAUTHENTICATED"));
        let mut socket = Socket::try_open(scene.server.address(), &format!("/api/v1/ws?{name}={token}"), &[]).await.unwrap();
        assert_eq!(socket.request(json!({"type": "list"})).await["code"], "UNAUTHENTICATED");
        assert_eq!(socket.closed().await.0, 4001);
    }
    let cookie = format!("token={token}; access_token={token}");
    assert_eq!(http(scene.server.address(), Method::GET, "/api/v1/users/me", None, &[("cookie", &cookie)], None).await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_gets_no_connection() {
    let scene = Scene::open().await;
    let own = format!("http://{}", scene.server.address());
    assert!(Socket::try_open(scene.server.address(), "/api/v1/ws", &[("origin", &own)]).await.is_ok());
    for origin in ["http://evil.test", "null", "", "http://127.0.0.1", &format!("{own}.evil.test")] {
        let upgrade = [("origin", origin), ("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
        let headers = [&upgrade[..], &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]].concat();
        let answer = scene.ask(None, Method::GET, "/api/v1/ws", &headers, "").await;
        assert_eq!(wrong(origin, &answer, 403, "ORIGIN_REFUSED"), None);
    }
}

/// Requests that no HTTP library would send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_hardly_http_is_refused_and_ends() {
    let scene = Scene::open().await;
    let address = scene.server.address();
    let chunk = format!("{:x}\r\n{}\r\n", 40_000, "x".repeat(40_000));
    let post = "POST /api/v1/auth/register HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    for (name, bytes, status) in [
        ("no HTTP", "hello\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("a header of 64 KiB", format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(65_536)), "HTTP/1.1 431"),
        ("two lengths", format!("{post}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"), "HTTP/1.1 400"),
        ("a length that is no number", format!("{post}content-length: -1\r\n\r\n"), "HTTP/1.1 400"),
        ("a length of 2^70", format!("{post}content-length: 1180591620717411303424\r\n\r\n"), "HTTP/1.1 400"),
        ("a declared body of 10 GB", format!("{post}content-length: 10000000000\r\n\r\n"), "HTTP/1.1 413"),
        ("80 KB in chunks", format!("{post}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"), "HTTP/1.1 413"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut head = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("an answer in time").unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(String::from_utf8_lossy(&head), status, "{name}");
        if status.ends_with("413") {
            let mut rest = vec![0; 4096];
            let count = timeout(PATIENCE, stream.read(&mut rest)).await.expect("the rest in time").unwrap_or(0);
            let rest = String::from_utf8_lossy(&rest[..count]).to_lowercase();
            assert!(rest.contains("x-request-id: ") && rest.contains("application/problem+json"), "{name}: {rest}");
        }
    }
    scene.still_well().await;
}

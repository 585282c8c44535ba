//! A client for tests that knows only docs/protocol.md: JSON over HTTP and WebSocket.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use bytes::Bytes;
use fastwebsockets::{FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, Role, WebSocketWrite, handshake};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{ReadHalf, WriteHalf},
    net::TcpStream,
    time::timeout,
};
use uuid::Uuid;

use crate::frames;

/// Longest wait for anything in a test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An answer to an HTTP request.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The body, if the status is the expected one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        self.body
    }

    /// The stable code of a problem.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }
}

/// Sends one HTTP request on a connection of its own.
pub async fn http(address: SocketAddr, method: Method, path: &str, token: Option<&str>, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, address.to_string());
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    raw(address, request.body(Full::new(bytes)).unwrap()).await
}

/// Sends a request as it is.
pub async fn raw(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    timeout(PATIENCE, async {
        let stream = TcpStream::connect(address).await.expect("the server answers");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { status: parts.status, headers: parts.headers, body }
    })
    .await
    .expect("an answer in time")
}

/// A user who is signed in with one device.
#[derive(Clone, Debug)]
pub struct User {
    pub address: SocketAddr,
    pub id: String,
    pub username: String,
    pub password: String,
    pub device: String,
    pub token: String,
    pub refresh: String,
}

pub const PASSWORD: &str = "correct horse battery";

impl User {
    /// Registers a new user and signs in.
    pub async fn register(address: SocketAddr, username: &str) -> User {
        let body = json!({"username": username, "password": PASSWORD});
        http(address, Method::POST, "/api/v1/auth/register", None, &[], Some(&body)).await.expect(201);
        User::login(address, username, PASSWORD).await
    }

    /// Signs in with a new device.
    pub async fn login(address: SocketAddr, username: &str, password: &str) -> User {
        let body = json!({"username": username, "password": password});
        let session = http(address, Method::POST, "/api/v1/auth/login", None, &[], Some(&body)).await.expect(200);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        User {
            address,
            id: text(&session["user"]["id"]),
            username: username.into(),
            password: password.into(),
            device: text(&session["device_id"]),
            token: text(&session["access_token"]),
            refresh: text(&session["refresh_token"]),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        http(self.address, Method::GET, &format!("/api/v1{path}"), Some(&self.token), &[], None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        http(self.address, Method::POST, &format!("/api/v1{path}"), Some(&self.token), &[], Some(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        http(self.address, Method::PUT, &format!("/api/v1{path}"), Some(&self.token), &[], Some(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        http(self.address, Method::PATCH, &format!("/api/v1{path}"), Some(&self.token), &[], Some(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        http(self.address, Method::DELETE, &format!("/api/v1{path}"), Some(&self.token), &[], None).await
    }

    /// Makes the 1:1 with another user; answers with its id.
    pub async fn single(&self, other: &User) -> String {
        let answer = self.post("/conversations", json!({"kind": "single", "participants": [other.id]})).await;
        assert!(matches!(answer.status.as_u16(), 200 | 201), "{answer:?}");
        answer.body["id"].as_str().unwrap().to_owned()
    }

    /// Makes a group; answers with its id.
    pub async fn group(&self, name: &str, others: &[&User]) -> String {
        let ids: Vec<&str> = others.iter().map(|user| user.id.as_str()).collect();
        let group = self.post("/groups", json!({"name": name, "participants": ids})).await.expect(201);
        group["id"].as_str().unwrap().to_owned()
    }

    /// Sends a text over HTTP; answers with the ack.
    pub async fn say(&self, conversation: &str, text: &str) -> Value {
        let body = json!({"client_msg_id": new_id(), "text": text});
        self.post(&format!("/conversations/{conversation}/messages"), body).await.expect(201)
    }

    /// Every message of a conversation that this user can see, oldest first.
    pub async fn read_all(&self, conversation: &str) -> Vec<Value> {
        let mut messages: Vec<Value> = Vec::new();
        loop {
            let after = messages.last().map_or(0, |message| message["seq"].as_i64().unwrap());
            let page = self.get(&format!("/conversations/{conversation}/messages?after={after}&limit=200")).await.expect(200);
            messages.extend(page["messages"].as_array().unwrap().iter().cloned());
            if !page["more"].as_bool().unwrap() {
                return messages;
            }
        }
    }

    /// Connects and authenticates.
    pub async fn connect(&self) -> Socket {
        let mut socket = Socket::open(self.address).await;
        let ready = socket.request(json!({"type": "auth", "token": self.token})).await;
        assert_eq!(ready["type"], "ready", "{ready}");
        socket
    }
}

/// A new client message id.
pub fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed(pub u16);

/// A WebSocket that speaks `gochat.v1.json`, or `gochat.v1.proto` where [`frames::PROTOBUF`] says so; to its user it is JSON.
pub struct Socket {
    inner: FragmentCollector<TokioIo<Upgraded>>,
    protobuf: bool,
    next_id: u64,
    unread: VecDeque<Value>,
}

impl Socket {
    /// Connects; the first frame is the caller's.
    pub async fn open(address: SocketAddr) -> Socket {
        Socket::try_open(address, "/api/v1/ws", &[]).await.expect("the upgrade is accepted")
    }

    /// Connects with more headers; `Err` is the status of a refusal.
    pub async fn try_open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Socket, String> {
        let protobuf = frames::protobuf();
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let mut request = Request::builder()
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::UPGRADE, "websocket")
            .header(header::CONNECTION, "upgrade")
            .header("Sec-WebSocket-Key", handshake::generate_key())
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Protocol", if protobuf { "gochat.v1.proto" } else { "gochat.v1.json" });
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let (socket, _) = handshake::client(&TokioExecutor::new(), request, stream).await.map_err(|error| error.to_string())?;
        Ok(Socket { inner: FragmentCollector::new(socket), protobuf, next_id: 0, unread: VecDeque::new() })
    }

    /// Sends a frame as it is.
    pub async fn send_text(&mut self, text: &str) {
        self.inner.write_frame(Frame::text(Payload::Borrowed(text.as_bytes()))).await.expect("the socket is open");
    }

    /// A request in the form of this socket.
    fn frame(&self, request: &Value) -> Frame<'static> {
        if self.protobuf {
            let payload = frames::encode(request).unwrap_or_else(|| panic!("no ClientFrame says {request}"));
            return Frame::binary(Payload::Owned(payload));
        }
        Frame::text(Payload::Owned(request.to_string().into_bytes()))
    }

    /// Sends a request with the next id; answers with the id.
    pub async fn send(&mut self, mut request: Value) -> u64 {
        self.next_id += 1;
        request["id"] = self.next_id.into();
        self.inner.write_frame(self.frame(&request)).await.expect("the socket is open");
        self.next_id
    }

    /// Sends a request and waits for its answer; what comes in between is kept for [`next`](Self::next).
    pub async fn request(&mut self, request: Value) -> Value {
        let id = self.send(request).await;
        self.answer(id).await
    }

    /// Waits for the answer to a request.
    pub async fn answer(&mut self, id: u64) -> Value {
        if let Some(at) = self.unread.iter().position(|frame| frame["id"] == id) {
            return self.unread.remove(at).unwrap();
        }
        loop {
            let frame = self.read().await.unwrap_or_else(|closed| panic!("closed with {closed:?} while waiting for answer {id}"));
            if frame["id"] == id {
                return frame;
            }
            self.unread.push_back(frame);
        }
    }

    /// As [`request`](Self::request), for a connection that may break.
    pub async fn try_request(&mut self, mut request: Value) -> Result<Value, Closed> {
        self.next_id += 1;
        let id = self.next_id;
        request["id"] = id.into();
        self.inner.write_frame(self.frame(&request)).await.map_err(|_| Closed(1006))?;
        loop {
            let frame = self.read().await?;
            if frame["id"] == id {
                return Ok(frame);
            }
        }
    }

    /// Sends a text and waits for its ack.
    pub async fn say(&mut self, conversation: &str, text: &str) -> Value {
        let ack = self.request(json!({"type": "send", "conversation_id": conversation, "client_msg_id": new_id(), "text": text})).await;
        assert_eq!(ack["type"], "ack", "{ack}");
        ack
    }

    /// The next frame that answers no request of ours.
    pub async fn next(&mut self) -> Value {
        if let Some(frame) = self.unread.pop_front() {
            return frame;
        }
        self.read().await.expect("a frame")
    }

    /// As [`next`](Self::next), for a connection that may break.
    pub async fn try_next(&mut self) -> Result<Value, Closed> {
        match self.unread.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read().await,
        }
    }

    /// The next frame of this type; others are dropped.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// What comes within `wait`.
    pub async fn drain(&mut self, wait: Duration) -> Vec<Value> {
        let mut frames: Vec<Value> = self.unread.drain(..).collect();
        while let Ok(Ok(frame)) = timeout(wait, self.read()).await {
            frames.push(frame);
        }
        frames
    }

    /// Waits for the server to close; frames before are dropped.
    pub async fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.read().await {
                return closed;
            }
        }
    }

    /// Both directions of a socket that speaks JSON, for whoever sends without waiting for answers. Nothing may be on its way to this client.
    pub fn split(self) -> (SendHalf, ReceiveHalf) {
        let (read, write) = tokio::io::split(self.inner.into_inner());
        let (read, write) = fastwebsockets::after_handshake_split(read, write, Role::Client);
        (SendHalf { inner: write, next_id: self.next_id }, ReceiveHalf { inner: FragmentCollectorRead::new(read) })
    }

    async fn read(&mut self) -> Result<Value, Closed> {
        let frame = timeout(PATIENCE, self.inner.read_frame()).await.expect("a frame in time").map_err(|_| Closed(1006))?;
        match frame.opcode {
            OpCode::Close => Err(Closed(frame.payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]])))),
            OpCode::Text if !self.protobuf => Ok(serde_json::from_slice(&frame.payload).expect("JSON")),
            OpCode::Binary if self.protobuf => Ok(frames::decode(&frame.payload)),
            other => panic!("unexpected frame {other:?}"),
        }
    }
}

/// The sending half of a [`Socket`].
pub struct SendHalf {
    inner: WebSocketWrite<WriteHalf<TokioIo<Upgraded>>>,
    next_id: u64,
}

impl SendHalf {
    /// The id of the next request: to be noted before it leaves, since its answer may come at once.
    pub fn next_id(&self) -> u64 {
        self.next_id + 1
    }

    /// Sends a request; `false` if the connection broke.
    pub async fn send(&mut self, mut request: Value) -> bool {
        self.next_id += 1;
        request["id"] = self.next_id.into();
        self.inner.write_frame(Frame::text(Payload::Owned(request.to_string().into_bytes()))).await.is_ok()
    }
}

/// The receiving half of a [`Socket`].
pub struct ReceiveHalf {
    inner: FragmentCollectorRead<ReadHalf<TokioIo<Upgraded>>>,
}

impl ReceiveHalf {
    /// The next frame. A ping is not answered: the other half sends often enough.
    pub async fn next(&mut self) -> Result<Value, Closed> {
        let mut unanswered = |_: Frame<'_>| std::future::ready(Ok::<(), std::io::Error>(()));
        let frame = self.inner.read_frame(&mut unanswered).await.map_err(|_| Closed(1006))?;
        match frame.opcode {
            OpCode::Close => Err(Closed(frame.payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]])))),
            OpCode::Text => Ok(serde_json::from_slice(&frame.payload).expect("JSON")),
            other => panic!("unexpected frame {other:?}"),
        }
    }
}

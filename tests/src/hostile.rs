//! Frames that a WebSocket peer must not send, or sends rarely, on a bare TCP socket: each gets exactly the answer that it must
//! get, and then the end of the stream, never a reset. (Autobahn alone does not notice half of these.)

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    client::{PATIENCE, User},
    sandbox::Sandbox,
};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;

/// Bytes of a message at most, once authenticated.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the first message at most.
const FIRST_MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// A connection of which every byte is ours.
struct Raw {
    stream: TcpStream,
}

/// What the server sent.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// A frame: opcode and payload.
    Frame(u8, Vec<u8>),
    /// The stream ended in order.
    End,
}

impl Raw {
    /// Upgrades; `early` travels in the same segment as the request.
    async fn open(address: SocketAddr, early: &[u8]) -> Raw {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /api/v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: gochat.v1.json\r\n\r\n"
        );
        stream.write_all(&[request.as_bytes(), early].concat()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, stream.read_u8()).await.expect("an answer in time").unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Raw { stream }
    }

    /// Upgrades and authenticates. A newer connection of the same device ends the one before.
    async fn authenticated(user: &User) -> Raw {
        let mut raw = Raw::open(user.address, &text(&json!({"type": "auth", "id": 1, "token": user.token}).to_string())).await;
        assert_eq!(raw.answer().await["type"], "ready");
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The server may have refused what came before and not want the rest.
        let _ = self.stream.write_all(bytes).await;
    }

    async fn next(&mut self) -> Got {
        let mut header = [0; 2];
        match timeout(PATIENCE, self.stream.read_exact(&mut header)).await.expect("a frame in time") {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Got::End,
            Err(error) => panic!("the connection was not ended in order: {error}"),
        }
        assert_eq!((header[0] & 0xf0, header[1] & 0x80), (FIN, 0), "the server sends whole frames, not masked");
        let length = match header[1] {
            126 => usize::from(self.stream.read_u16().await.unwrap()),
            127 => usize::try_from(self.stream.read_u64().await.unwrap()).unwrap(),
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        timeout(PATIENCE, self.stream.read_exact(&mut payload)).await.expect("a frame in time").unwrap();
        Got::Frame(header[0] & 0x0f, payload)
    }

    /// The next frame, which is JSON.
    async fn answer(&mut self) -> Value {
        match self.next().await {
            Got::Frame(TEXT, payload) => serde_json::from_slice(&payload).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

/// A masked frame: first byte (FIN, RSV, opcode) and payload.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_with(first, payload, payload.len() as u64, None)
}

/// A masked frame that declares `length`, in the shortest form or in one of 2 or 8 bytes.
fn masked_with(first: u8, payload: &[u8], length: u64, form: Option<u8>) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match form.unwrap_or(if length < 126 {
        0
    } else if length <= 0xffff {
        2
    } else {
        8
    }) {
        0 => frame.push(0x80 | length as u8),
        2 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8], payload].concat()
}

fn text(payload: &str) -> Vec<u8> {
    masked(FIN | TEXT, payload.as_bytes())
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    masked(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A Close frame without a code.
const EMPTY: Option<u16> = None;

fn closes_with(code: u16) -> Option<u16> {
    Some(code)
}

/// What is sent after authentication, and the code of the Close frame that must be the only answer.
fn cases() -> Vec<(&'static str, Vec<u8>, Option<u16>)> {
    let ping = br#"{"type":"ping","id":2}"#;
    let half = &ping[..10];
    let rest = &ping[10..];
    let fragments = |count: usize, payload: &[u8]| {
        let mut bytes = masked(TEXT, payload);
        (1..count).for_each(|_| bytes.extend(masked(CONTINUATION, payload)));
        bytes
    };
    let two = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    let protocol = closes_with(1002);
    vec![
        ("unmasked text frame", unmasked(FIN | TEXT, ping), protocol),
        ("unmasked ping", unmasked(FIN | PING, b"x"), protocol),
        ("unmasked close", unmasked(FIN | CLOSE, &[3, 232]), protocol),
        ("RSV1 without extension", masked(FIN | 0x40 | TEXT, ping), protocol),
        ("RSV2", masked(FIN | 0x20 | TEXT, ping), protocol),
        ("RSV3", masked(FIN | 0x10 | TEXT, ping), protocol),
        ("reserved data opcode 3", masked(FIN | 3, ping), protocol),
        ("reserved control opcode 11", masked(FIN | 11, b""), protocol),
        ("ping of 126 bytes", masked(FIN | PING, &[b'x'; 126]), protocol),
        ("pong of 126 bytes", masked(FIN | PONG, &[b'x'; 126]), protocol),
        ("close of 126 bytes", close(1000, &[b'x'; 124]), protocol),
        ("fragmented ping", masked(PING, b"x"), protocol),
        ("fragmented close", masked(CLOSE, &[3, 232]), protocol),
        ("close with a body of 1 byte", masked(FIN | CLOSE, &[3]), protocol),
        ("close code 999", close(999, b""), protocol),
        ("close code 1005", close(1005, b""), protocol),
        ("close code 5000", close(5000, b""), protocol),
        ("continuation without start", masked(FIN | CONTINUATION, ping), protocol),
        ("continuation without start, not the last", masked(CONTINUATION, ping), protocol),
        ("text inside a fragmented text", two(masked(TEXT, half), text("x")), protocol),
        ("second start inside a fragmented message", two(masked(TEXT, half), masked(TEXT, rest)), protocol),
        ("binary start inside a fragmented text", two(masked(TEXT, half), masked(BINARY, rest)), protocol),
        ("length 2 in the form of 16 bits", masked_with(FIN | TEXT, b"{}", 2, Some(2)), protocol),
        ("length 2 in the form of 64 bits", masked_with(FIN | TEXT, b"{}", 2, Some(8)), protocol),
        ("length with its top bit set", masked_with(FIN | TEXT, b"", 1 << 63, Some(8)), protocol),
        ("close code 1014, registered", close(1014, b""), closes_with(1014)),
        ("close code 4999 with a reason", close(4999, "für heute".as_bytes()), closes_with(4999)),
        ("close reason that is not UTF-8", close(1000, &[0xff]), closes_with(1007)),
        ("text that is not UTF-8", masked(FIN | TEXT, &[b'"', 0xff, b'"']), closes_with(1007)),
        ("text that ends inside a character", masked(FIN | TEXT, &[b'"', 0xe2, 0x82]), closes_with(1007)),
        ("fragmented text that ends inside a character", two(masked(TEXT, b"\""), masked(FIN | CONTINUATION, &[0xe2, 0x82])), closes_with(1007)),
        ("fragmented text, last fragment empty, character cut", two(masked(TEXT, &[0xe2, 0x82]), masked(FIN, b"")), closes_with(1007)),
        (
            "fragmented text with a bad middle",
            two(two(masked(TEXT, b"\""), masked(CONTINUATION, &[0xc3, 0x28])), masked(FIN, b"\"")),
            closes_with(1007),
        ),
        ("empty close", masked(FIN | CLOSE, b""), EMPTY),
        ("length 2^62", masked_with(FIN | TEXT, b"", 1 << 62, Some(8)), closes_with(1009)),
        ("frame of 64 KiB + 1", masked(FIN | TEXT, &vec![b' '; MESSAGE_BYTES_MAX + 1]), closes_with(1009)),
        ("message of 40 x 4 KiB", fragments(40, &[b' '; 4096]), closes_with(1009)),
        ("1,000 empty fragments", fragments(1000, b""), closes_with(1009)),
        ("binary where the subprotocol has text", masked(FIN | BINARY, ping), closes_with(1003)),
        ("data after close", two(close(1000, b""), text(r#"{"type":"ping","id":2}"#)), closes_with(1000)),
        ("two closes", two(close(1000, b""), close(1001, b"")), closes_with(1000)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_frame_gets_its_close_code_and_an_orderly_end() {
    let server = Sandbox::start().await;
    let user = User::register(server.address(), "mallory").await;
    let mut wrong = Vec::new();
    for (name, bytes, code) in cases() {
        let mut raw = Raw::authenticated(&user).await;
        raw.send(&bytes).await;
        let expected = Got::Frame(CLOSE, code.map_or_else(Vec::new, |code| code.to_be_bytes().to_vec()));
        let got = (raw.next().await, raw.next().await);
        if got != (expected, Got::End) {
            wrong.push(format!("{name}: {got:?} and not close {code:?}, then the end"));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    still_well(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rare_but_right_frames_are_served() {
    let server = Sandbox::start().await;
    let user = User::register(server.address(), "patience").await;
    let ping = |id: u64| json!({"type": "ping", "id": id}).to_string();
    let mut raw = Raw::authenticated(&user).await;

    // A ping between the fragments of a message is answered first.
    let message = ping(2);
    let (half, rest) = message.as_bytes().split_at(7);
    raw.send(&[masked(TEXT, half), masked(FIN | PING, b"!"), masked(FIN | CONTINUATION, rest)].concat()).await;
    assert_eq!(raw.next().await, Got::Frame(PONG, b"!".to_vec()));
    assert_eq!(raw.answer().await, json!({"type": "pong", "id": 2}));

    // Exactly the largest message, in one frame and in as many fragments as are allowed.
    let padded = format!("{}{}", ping(3), " ".repeat(MESSAGE_BYTES_MAX - ping(3).len()));
    raw.send(&text(&padded)).await;
    assert_eq!(raw.answer().await["id"], 3);
    let mut fragments: Vec<&[u8]> = padded.as_bytes().chunks(MESSAGE_BYTES_MAX / 64).collect();
    let (last, first) = (fragments.pop().unwrap(), fragments.remove(0));
    raw.send(&masked(TEXT, first)).await;
    for fragment in fragments {
        raw.send(&masked(CONTINUATION, fragment)).await;
    }
    raw.send(&masked(FIN | CONTINUATION, last)).await;
    assert_eq!(raw.answer().await["id"], 3);

    // Byte by byte.
    for byte in text(&ping(4)) {
        raw.send(&[byte]).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(raw.answer().await["id"], 4);

    // Many in one segment, an unasked pong among them.
    let mut many = masked(FIN | PONG, b"unasked");
    (5..25).for_each(|id| many.extend(text(&ping(id))));
    raw.send(&many).await;
    for id in 5..25 {
        assert_eq!(raw.answer().await["id"], id);
    }

    // Half a frame, then the end: the server ends too, and says nothing.
    raw.send(&text(&ping(30))[..9]).await;
    raw.stream.shutdown().await.unwrap();
    assert_eq!(raw.next().await, Got::End);
    still_well(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_authentication_less_is_allowed() {
    let server = Sandbox::start().await;
    let refused = async |bytes: Vec<u8>, code: u16| {
        let mut raw = Raw::open(server.address(), &[]).await;
        raw.send(&bytes).await;
        let mut got = raw.next().await;
        let mut said = None;
        if let Got::Frame(TEXT, error) = &got {
            said = serde_json::from_slice::<Value>(error).ok();
            got = raw.next().await;
        }
        assert_eq!((got, raw.next().await), (Got::Frame(CLOSE, code.to_be_bytes().to_vec()), Got::End));
        said.map(|error| error["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(refused(unmasked(FIN | TEXT, b"{}"), 1002).await, None);
    assert_eq!(refused(masked(FIN | TEXT, &[b' '; FIRST_MESSAGE_BYTES_MAX + 1]), 1009).await, None);
    assert_eq!(refused(masked_with(FIN | TEXT, b"", 1 << 40, Some(8)), 1009).await, None);
    assert_eq!(refused(text("no JSON"), 4001).await.as_deref(), Some("INVALID_JSON"));
    assert_eq!(refused(text(r#"{"type":"ping","id":1}"#), 4001).await.as_deref(), Some("UNAUTHENTICATED"));
    assert_eq!(refused(text(r#"{"type":"auth","id":1,"token":"x"}"#), 4001).await.as_deref(), Some("UNAUTHENTICATED"));
    // Nothing at all: 5 seconds, then the end.
    assert_eq!(refused(Vec::new(), 4001).await, None);
    still_well(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_comes_with_the_upgrade_is_not_lost() {
    let server = Sandbox::start().await;
    let user = User::register(server.address(), "early").await;
    for split in [0, 1, 2, 5, 6, 7, 100] {
        let frames = [text(&json!({"type": "auth", "id": 1, "token": user.token}).to_string()), text(r#"{"type":"ping","id":2}"#)].concat();
        let (early, late) = frames.split_at(frames.len() - split);
        let mut raw = Raw::open(server.address(), early).await;
        raw.send(late).await;
        assert_eq!(raw.answer().await["type"], "ready");
        assert_eq!(raw.answer().await["type"], "pong");
    }
}

/// Two users chat as if nothing had been.
async fn still_well(server: &Sandbox) {
    let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
    let chat = ana.single(&bo).await;
    let (mut from, mut to) = (ana.connect().await, bo.connect().await);
    from.say(&chat, "hello").await;
    assert_eq!(to.next_of("message").await["text"], "hello");
}

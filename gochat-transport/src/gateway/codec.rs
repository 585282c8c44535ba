//! The encodings of frames.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use fastwebsockets::OpCode;

use super::{
    frames::{ClientFrame, ServerFrame, Unreadable},
    json, protobuf,
    websocket::write_frame,
};

/// How a connection's frames are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// `gochat.v1.json`: text frames.
    Json,
    /// `gochat.v1.proto`: binary frames.
    Proto,
}

/// Encodings; the size of tables indexed by `Codec as usize`.
pub(super) const CODECS: usize = 2;

thread_local! {
    /// A frame's length stands before it, so its payload is written here first.
    static PAYLOAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Memory of a large answer is given back.
const PAYLOAD_KEPT_BYTES: usize = 64 * 1024;

impl Codec {
    /// The WebSocket subprotocol.
    pub(super) fn subprotocol(self) -> &'static str {
        match self {
            Codec::Json => "gochat.v1.json",
            Codec::Proto => "gochat.v1.proto",
        }
    }

    /// The codec of a subprotocol.
    pub(super) fn of(subprotocol: &str) -> Option<Codec> {
        [Codec::Json, Codec::Proto].into_iter().find(|codec| codec.subprotocol() == subprotocol)
    }

    /// The kind of WebSocket message that it uses.
    pub(super) fn opcode(self) -> OpCode {
        match self {
            Codec::Json => OpCode::Text,
            Codec::Proto => OpCode::Binary,
        }
    }

    /// Reads a request and its number.
    pub(super) fn decode(self, payload: &[u8], depth_max: usize) -> Result<(u64, ClientFrame), Unreadable> {
        match self {
            Codec::Json => json::decode(payload, depth_max),
            Codec::Proto => protobuf::decode(payload),
        }
    }

    /// Appends a whole WebSocket frame.
    pub(super) fn append(self, out: &mut BytesMut, frame: &ServerFrame<'_>) {
        PAYLOAD.with_borrow_mut(|payload| {
            payload.clear();
            match self {
                Codec::Json => json::encode(payload, frame),
                Codec::Proto => protobuf::encode(payload, frame),
            }
            write_frame(out, self.opcode(), payload);
            if payload.capacity() > PAYLOAD_KEPT_BYTES {
                *payload = Vec::new();
            }
        });
    }

    /// A whole WebSocket frame.
    pub(super) fn frame(self, frame: &ServerFrame<'_>) -> Bytes {
        let mut out = BytesMut::new();
        self.append(&mut out, frame);
        out.freeze()
    }
}

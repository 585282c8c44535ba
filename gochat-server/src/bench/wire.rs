//! The protocol as a load generator speaks it: frames written into a buffer, frames found in a buffer, and the few fields it
//! needs found in a frame without reading the rest.

use std::{net::SocketAddr, time::Duration};

use memchr::memmem;
use uuid::Uuid;

use super::{Fault, json, proto};

/// Hexadecimal digits in front of every text: when it was sent (16), by whom (8), its number (8).
pub const STAMP: usize = 32;

/// Opcodes (RFC 6455 §5.2).
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// What the frames hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// `gochat.v1.json`
    Json,
    /// `gochat.v1.proto`
    Proto,
}

impl Form {
    pub fn subprotocol(self) -> &'static str {
        match self {
            Form::Json => "gochat.v1.json",
            Form::Proto => "gochat.v1.proto",
        }
    }

    pub fn opcode(self) -> u8 {
        match self {
            Form::Json => TEXT,
            Form::Proto => BINARY,
        }
    }

    /// Appends a request that proves who is connected.
    pub fn write_auth(self, out: &mut Vec<u8>, id: u64, token: &str) {
        match self {
            Form::Json => json::write_auth(out, id, token),
            Form::Proto => proto::write_auth(out, id, token),
        }
    }

    /// Appends a text message of `bytes` bytes with its stamp.
    pub fn write_send(self, out: &mut Vec<u8>, id: u64, conversation: Uuid, message: Uuid, stamp: Stamp, bytes: usize) {
        match self {
            Form::Json => json::write_send(out, id, conversation, message, stamp, bytes),
            Form::Proto => proto::write_send(out, id, conversation, message, stamp, bytes),
        }
    }

    /// Appends a request for the newest `limit` entries.
    pub fn write_history(self, out: &mut Vec<u8>, id: u64, conversation: Uuid, limit: u32) {
        match self {
            Form::Json => json::write_history(out, id, conversation, limit),
            Form::Proto => proto::write_history(out, id, conversation, limit),
        }
    }

    /// Appends a request for everything of one conversation.
    pub fn write_sync(self, out: &mut Vec<u8>, id: u64, conversation: Uuid) {
        match self {
            Form::Json => json::write_sync(out, id, conversation),
            Form::Proto => proto::write_sync(out, id, conversation),
        }
    }

    /// Reads what the server sent, as far as the load needs it.
    pub fn read(self, payload: &[u8]) -> Told<'_> {
        match self {
            Form::Json => json::read(payload),
            Form::Proto => proto::read(payload),
        }
    }
}

/// What a frame tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Told<'a> {
    Message {
        seq: i64,
        stamp: Stamp,
    },
    Ack {
        id: u64,
        seq: i64,
    },
    /// The answer to no readable request has id 0.
    Error {
        id: u64,
        code: &'a [u8],
    },
    /// The answer to a request that is not a send.
    Answer {
        id: u64,
    },
    /// Frames were dropped, because this connection was slow.
    Resync,
    Other,
}

/// A request to open a WebSocket.
pub fn upgrade(address: SocketAddr, form: Form) -> String {
    format!(
        "GET /api/v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        form.subprotocol()
    )
}

/// Where the answer to the upgrade ends, if it is whole.
pub fn upgraded(answer: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(end) = memmem::find(answer, b"\r\n\r\n") else { return Ok(None) };
    if answer.starts_with(b"HTTP/1.1 101") { Ok(Some(end + 4)) } else { Err(format!("no upgrade: {}", String::from_utf8_lossy(answer)).into()) }
}

/// What to say of a Close frame.
pub fn closed(payload: &[u8]) -> Fault {
    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
    format!("the server closed a connection with {code}").into()
}

/// Appends a frame. The mask is there, as a client's must be, and zero: masking costs nothing and hides nothing here.
pub fn write_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        middle @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// A frame of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: u8,
    pub payload: &'a [u8],
}

/// The first frame in `bytes` and the length of it, if it is whole.
pub fn first(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (&[head, short], rest) = bytes.split_first_chunk::<2>()?;
    let (length, header): (usize, usize) = match short & 0x7f {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let payload = bytes.get(header..header.checked_add(length)?)?;
    Some((Frame { opcode: head & 0x0f, payload }, header + length))
}

/// What stands in front of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Since the load began.
    pub sent: Duration,
    /// The connection that sent it.
    pub sender: u32,
    /// 1, 2, 3 … for each sender.
    pub number: u32,
}

/// The stamp in front of a text.
pub fn stamp(text: &[u8]) -> Option<Stamp> {
    let digits: &[u8; STAMP] = text.first_chunk()?;
    let hex = |digits: &[u8]| {
        digits.iter().try_fold(0_u64, |value, &digit| {
            let digit = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            Some(value << 4 | u64::from(digit))
        })
    };
    Some(Stamp { sent: Duration::from_nanos(hex(&digits[..16])?), sender: hex(&digits[16..24])? as u32, number: hex(&digits[24..])? as u32 })
}

/// Appends a text of `bytes` (at least [`STAMP`]) with its stamp in front.
pub fn write_stamped(out: &mut Vec<u8>, stamp: Stamp, bytes: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = |value: u64, digits: u32| (0..digits).rev().for_each(|digit| out.push(DIGITS[(value >> (4 * digit) & 15) as usize]));
    hex(stamp.sent.as_nanos() as u64, 16);
    hex(u64::from(stamp.sender), 8);
    hex(u64::from(stamp.number), 8);
    out.resize(out.len() + bytes.saturating_sub(STAMP), b'x');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_as_the_server_writes_them() {
        for length in [0, 5, 125, 126, 65_535, 65_536] {
            let payload = vec![b'a'; length];
            let mut frame = vec![0x81];
            match length {
                0..=125 => frame.push(length as u8),
                126..=65_535 => {
                    frame.push(126);
                    frame.extend_from_slice(&(length as u16).to_be_bytes());
                }
                _ => {
                    frame.push(127);
                    frame.extend_from_slice(&(length as u64).to_be_bytes());
                }
            }
            frame.extend_from_slice(&payload);
            let whole = frame.len();
            assert_eq!(first(&frame[..whole - 1]), None);
            frame.extend_from_slice(b"more");
            assert_eq!(first(&frame), Some((Frame { opcode: 1, payload: &payload }, whole)));
        }
    }

    #[test]
    fn a_stamp_survives_the_way() {
        let written = Stamp { sent: Duration::from_nanos(123_456_789_012), sender: 77, number: 4_000_000_000 };
        let mut text = Vec::new();
        write_stamped(&mut text, written, 128);
        assert_eq!((text.len(), stamp(&text)), (128, Some(written)));
        assert_eq!(stamp(b"somebody else wrote this text, it has no stamp"), None);
        assert_eq!(stamp(b"short"), None);
    }
}

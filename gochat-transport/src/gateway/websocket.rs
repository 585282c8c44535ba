//! RFC 6455 as far as fastwebsockets leaves it to its users: the header check, fragments, Close frames, and the parser
//! that every connection of a thread shares.
//!
//! The parser never sees a frame that is not whole and not allowed: a declared length reserves nothing, an unmasked or
//! oversized frame is refused from its header alone.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{BufMut, BytesMut};
use fastwebsockets::{Frame, OpCode, Role, WebSocketError, WebSocketRead};
use tokio::io::{AsyncRead, ReadBuf};

/// Close codes that the server sends.
pub(super) mod close {
    pub const PROTOCOL: u16 = 1002;
    pub const UNSUPPORTED: u16 = 1003;
    pub const NOT_UTF8: u16 = 1007;
    pub const TOO_LARGE: u16 = 1009;
    pub const FAULT: u16 = 1011;
    pub const DRAIN: u16 = 4000;
    pub const UNAUTHENTICATED: u16 = 4001;
    pub const REVOKED: u16 = 4002;
    pub const EXPIRED: u16 = 4003;
    pub const SLOW: u16 = 4008;
    pub const TAKEN_OVER: u16 = 4012;
    pub const TOO_MANY: u16 = 4029;
    /// A Close frame without a code.
    pub const EMPTY: u16 = 0;
}

/// Bytes of the longest frame header.
pub(super) const HEADER_BYTES_MAX: usize = 14;

/// What the first bytes of a frame tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// More bytes are needed.
    Incomplete,
    /// A frame that is allowed, header and payload together so many bytes.
    Frame { bytes: usize },
    /// The connection is to be closed with this code.
    Refused(u16),
}

/// Checks a frame's header; `payload_bytes_max` limits the payload.
pub(super) fn header(bytes: &[u8], payload_bytes_max: usize) -> Header {
    let [first, second, rest @ ..] = bytes else {
        return Header::Incomplete;
    };
    let opcode = first & 0x0f;
    let control = opcode >= 8;
    let last = first & 0x80 != 0;
    let short = usize::from(second & 0x7f);
    let known = matches!(opcode, 0..=2 | 8..=10);
    let masked = second & 0x80 != 0;
    if first & 0x70 != 0 || !known || !masked || (control && (!last || short > 125)) {
        return Header::Refused(close::PROTOCOL);
    }
    let (length, length_bytes) = match (short, rest) {
        (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2),
        (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8),
        (126 | 127, _) => return Header::Incomplete,
        _ => (short as u64, 0),
    };
    let minimal = match length_bytes {
        0 => true,
        2 => length > 125,
        _ => length > 0xffff && length >> 63 == 0,
    };
    if !minimal {
        return Header::Refused(close::PROTOCOL);
    }
    match usize::try_from(length) {
        Ok(length) if length <= payload_bytes_max => Header::Frame { bytes: 2 + length_bytes + 4 + length },
        _ => Header::Refused(close::TOO_LARGE),
    }
}

/// A message that comes in fragments.
#[derive(Debug)]
pub(super) struct Fragments {
    opcode: OpCode,
    bytes: Vec<u8>,
    count: usize,
}

/// What a data frame leads to.
pub(super) enum Assembled {
    /// A message is complete; `None`: it is the frame itself.
    Whole(OpCode, Option<Vec<u8>>),
    /// Its rest is still to come.
    Partial,
    /// The connection is to be closed with this code.
    Refused(u16),
}

/// Adds a data frame to the message that is open, if there is one.
pub(super) fn assemble(open: &mut Option<Box<Fragments>>, frame: &Frame<'_>, bytes_max: usize, fragments_max: usize) -> Assembled {
    let starts = frame.opcode != OpCode::Continuation;
    match open {
        None if !starts => return Assembled::Refused(close::PROTOCOL),
        Some(_) if starts => return Assembled::Refused(close::PROTOCOL),
        None if frame.fin => return checked(frame.opcode, &frame.payload, None),
        None => *open = Some(Box::new(Fragments { opcode: frame.opcode, bytes: frame.payload.to_vec(), count: 1 })),
        Some(fragments) => {
            fragments.count += 1;
            if fragments.count > fragments_max || fragments.bytes.len() + frame.payload.len() > bytes_max {
                return Assembled::Refused(close::TOO_LARGE);
            }
            fragments.bytes.extend_from_slice(&frame.payload);
        }
    }
    match open.take_if(|_| frame.fin) {
        Some(fragments) => {
            let Fragments { opcode, bytes, .. } = *fragments;
            match checked(opcode, &bytes, None) {
                Assembled::Whole(opcode, _) => Assembled::Whole(opcode, Some(bytes)),
                refused => refused,
            }
        }
        None => Assembled::Partial,
    }
}

fn checked(opcode: OpCode, payload: &[u8], joined: Option<Vec<u8>>) -> Assembled {
    if opcode == OpCode::Text && std::str::from_utf8(payload).is_err() {
        return Assembled::Refused(close::NOT_UTF8);
    }
    Assembled::Whole(opcode, joined)
}

/// The code with which a peer's Close frame is answered.
pub(super) fn close_reply(payload: &[u8]) -> u16 {
    match payload {
        [] => close::EMPTY,
        [_] => close::PROTOCOL,
        [high, low, reason @ ..] => match u16::from_be_bytes([*high, *low]) {
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) if std::str::from_utf8(reason).is_ok() => code,
            1000..=1003 | 1007..=1014 | 3000..=4999 => close::NOT_UTF8,
            _ => close::PROTOCOL,
        },
    }
}

/// Appends a whole frame, as servers send them (not masked).
pub(super) fn write_frame(out: &mut BytesMut, opcode: OpCode, payload: &[u8]) {
    out.reserve(payload.len() + 10);
    out.put_u8(0x80 | opcode as u8);
    match payload.len() {
        length @ 0..=125 => out.put_u8(length as u8),
        length @ 126..=0xffff => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        length => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
    out.extend_from_slice(payload);
}

/// Appends a Close frame.
pub(super) fn write_close(out: &mut BytesMut, code: u16) {
    match code {
        close::EMPTY => write_frame(out, OpCode::Close, &[]),
        code => write_frame(out, OpCode::Close, &code.to_be_bytes()),
    }
}

/// Bytes that one read may take in: the largest frame and as much again.
const SCRATCH_BYTES: usize = 128 * 1024;

/// The memory that the connections of a thread share: what was read, and the parser. Lent within one `poll` only.
pub(super) struct Parser {
    scratch: Rc<Scratch>,
    reader: WebSocketRead<Feed>,
}

struct Scratch {
    bytes: RefCell<Box<[u8]>>,
    /// What is lent to the parser.
    lent: Cell<(usize, usize)>,
}

impl Parser {
    pub(super) fn new() -> Self {
        let scratch = Rc::new(Scratch { bytes: RefCell::new(vec![0; SCRATCH_BYTES].into()), lent: Cell::new((0, 0)) });
        let reader = reader(&scratch);
        Parser { scratch, reader }
    }

    /// Lets `read` put up to `room` bytes behind `held`; answers with how many there are then, `held` included.
    /// The end of the stream is an error, as every other end.
    pub(super) fn fill(&self, held: &[u8], room: usize, read: impl FnOnce(&mut ReadBuf<'_>) -> Poll<io::Result<()>>) -> Poll<io::Result<usize>> {
        let mut bytes = self.scratch.bytes.borrow_mut();
        let end = SCRATCH_BYTES.min(held.len() + room);
        let mut buffer = ReadBuf::new(&mut bytes[held.len()..end]);
        std::task::ready!(read(&mut buffer))?;
        let count = buffer.filled().len();
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        bytes[..held.len()].copy_from_slice(held);
        Poll::Ready(Ok(held.len() + count))
    }

    /// Takes up what was kept, without reading.
    pub(super) fn refill(&self, held: &[u8]) -> usize {
        self.scratch.bytes.borrow_mut()[..held.len()].copy_from_slice(held);
        held.len()
    }

    /// Looks at what was read, from `at` on.
    pub(super) fn header(&self, at: usize, end: usize, payload_bytes_max: usize) -> Header {
        header(&self.scratch.bytes.borrow()[at..end], payload_bytes_max)
    }

    /// Keeps what was not used.
    pub(super) fn keep(&self, held: &mut Vec<u8>, at: usize, end: usize) {
        held.clear();
        if at == end {
            *held = Vec::new();
        } else {
            held.extend_from_slice(&self.scratch.bytes.borrow()[at..end]);
        }
    }

    /// Parses the frame that fills `at..end`, whose header was checked. The payload is unmasked.
    pub(super) fn frame(&mut self, at: usize, end: usize) -> Result<Frame<'_>, u16> {
        self.scratch.lent.set((at, end));
        self.reader.set_max_message_size(end - at + 1);
        let mut nothing_to_send = |_: Frame<'_>| std::future::ready(Ok::<(), WebSocketError>(()));
        let parsed = pin!(self.reader.read_frame::<_, WebSocketError>(&mut nothing_to_send)).poll(&mut Context::from_waker(Waker::noop()));
        match parsed {
            Poll::Ready(Ok(frame)) => Ok(Frame::new(frame.fin, frame.opcode, None, frame.payload)),
            Poll::Ready(Err(WebSocketError::InvalidUTF8)) => Err(close::NOT_UTF8),
            Poll::Ready(Err(_)) | Poll::Pending => Err(close::PROTOCOL),
        }
    }

    /// To be called after a refusal: the parser may hold half a frame.
    pub(super) fn reset(&mut self) {
        self.reader = reader(&self.scratch);
    }
}

fn reader(scratch: &Rc<Scratch>) -> WebSocketRead<Feed> {
    let (mut reader, _) = fastwebsockets::after_handshake_split(Feed(scratch.clone()), tokio::io::sink(), Role::Server);
    reader.set_auto_close(false);
    reader.set_auto_pong(false);
    reader
}

/// Hands the lent bytes to the parser. Always ready: a frame is parsed only when all of it is there.
struct Feed(Rc<Scratch>);

impl AsyncRead for Feed {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (at, end) = self.0.lent.get();
        let next = end.min(at + buffer.remaining());
        buffer.put_slice(&self.0.bytes.borrow()[at..next]);
        self.0.lent.set((next, end));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_refused_as_early_as_their_bytes_tell() {
        assert_eq!(header(&[0x81], 100), Header::Incomplete);
        assert_eq!(header(&[0x81, 0x02], 100), Header::Refused(close::PROTOCOL), "not masked");
        assert_eq!(header(&[0xc1, 0x82], 100), Header::Refused(close::PROTOCOL), "RSV1");
        assert_eq!(header(&[0x83, 0x82], 100), Header::Refused(close::PROTOCOL), "opcode 3");
        assert_eq!(header(&[0x09, 0x81], 100), Header::Refused(close::PROTOCOL), "fragmented ping");
        assert_eq!(header(&[0x8a, 0xfe], 1000), Header::Refused(close::PROTOCOL), "pong of more than 125");
        assert_eq!(header(&[0x81, 0xfe, 0, 2], 100), Header::Refused(close::PROTOCOL), "not minimal");
        assert_eq!(header(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 2], 100), Header::Refused(close::PROTOCOL), "not minimal");
        assert_eq!(header(&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 100), Header::Refused(close::PROTOCOL), "top bit");
        assert_eq!(header(&[0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0], 100), Header::Refused(close::TOO_LARGE));
        assert_eq!(header(&[0x81, 0xe5], 100), Header::Refused(close::TOO_LARGE));
        assert_eq!(header(&[0x81, 0xe4], 100), Header::Frame { bytes: 106 });
        assert_eq!(header(&[0x82, 0xfe, 1, 0], 256), Header::Frame { bytes: 264 });
    }

    #[test]
    fn a_close_frame_is_answered_with_its_code_or_with_its_fault() {
        assert_eq!(close_reply(&[]), close::EMPTY);
        assert_eq!(close_reply(&[3]), close::PROTOCOL);
        for (code, reply) in [(1000, 1000), (1014, 1014), (999, 1002), (1005, 1002), (1006, 1002), (1015, 1002), (5000, 1002), (4999, 4999)] {
            assert_eq!(close_reply(&u16::to_be_bytes(code)), reply);
        }
        assert_eq!(close_reply(&[3, 232, 0xff]), close::NOT_UTF8);
    }
}

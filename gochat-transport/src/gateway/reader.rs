//! The task of a connection: it only reads. What it answers goes out as everybody's frames do, by [`Connection::send`].
//!
//! ```text
//! read -> whole frames -> requests -> one offer upstream, one write of all replies
//! ```
//!
//! Written by hand as a `Future`, so that an idle connection keeps a hundred bytes and no buffer: the memory to read into
//! and the parser belong to the thread and are borrowed within one `poll`.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use fastwebsockets::OpCode;
use gochat_core::ports::{Record, Topic};
use tokio::{io::AsyncRead, net::tcp::OwnedReadHalf, sync::oneshot};

use super::{
    accept::Admission,
    connection::{Chunk, Connection},
    frames::ServerFrame,
    presence::Outcome,
    requests::overloaded,
    shard::TICK,
    websocket::{Assembled, Fragments, HEADER_BYTES_MAX, Header, Parser, assemble, close, close_reply, write_frame},
};

/// Reads one connection until its end.
pub(super) struct Reader {
    pub(super) connection: Arc<Connection>,
    pub(super) state: State,
    pub(super) sends: Bucket,
    controls: Bucket,
    read: OwnedReadHalf,
    /// The beginning of a frame whose rest has not come.
    held: Vec<u8>,
    /// `held` is to be looked at before more is read.
    resume: bool,
    fragments: Option<Box<Fragments>>,
}

/// How far a connection has got.
pub(super) enum State {
    /// Nothing but `auth` is taken; the admission counts it among its address's unauthenticated connections.
    Fresh(Option<Arc<Admission>>),
    /// A token is being verified; nothing is read meanwhile.
    Verifying(Box<Verifying>),
    /// Authenticated.
    Open,
}

pub(super) struct Verifying {
    pub(super) id: u64,
    pub(super) answer: oneshot::Receiver<Outcome>,
    /// See [`State::Fresh`].
    pub(super) admission: Option<Arc<Admission>>,
}

/// What one `poll` brings forth.
#[derive(Default)]
pub(super) struct Turn {
    out: BytesMut,
    replies: u64,
    /// Requests to send, by their numbers.
    pub(super) sends: Vec<(u64, Record)>,
    pub(super) close: Option<u16>,
}

impl Turn {
    /// Replies to a request.
    pub(super) fn reply(&mut self, connection: &Connection, frame: &ServerFrame<'_>) {
        connection.codec.append(&mut self.out, frame);
        self.replies += 1;
    }
}

struct Wire {
    parser: Parser,
    turn: Turn,
}

thread_local! {
    static WIRE: RefCell<Wire> = RefCell::new(Wire { parser: Parser::new(), turn: Turn::default() });
}

impl Reader {
    pub(super) fn new(connection: Arc<Connection>, read: OwnedReadHalf, early: Bytes, admission: Option<Arc<Admission>>) -> Self {
        let settings = &connection.shard.shared.settings;
        Reader {
            sends: Bucket::full(settings.send_burst, &connection),
            controls: Bucket::full(settings.control_burst, &connection),
            connection,
            state: State::Fresh(admission),
            read,
            resume: !early.is_empty(),
            held: early.to_vec(),
            fragments: None,
        }
    }

    /// Reads on, until there is nothing to read; ready at the end of the stream.
    fn advance(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let State::Verifying(verifying) = &mut self.state {
                let outcome = ready!(Pin::new(&mut verifying.answer).poll(cx));
                self.verified(outcome, &mut wire.turn);
                // What came behind the auth frame has waited.
                self.resume = !self.held.is_empty();
                self.finish(&mut wire.turn);
            }
            let Wire { parser, .. } = wire;
            let end = if std::mem::take(&mut self.resume) {
                parser.refill(&self.held)
            } else {
                let room = self.room();
                let read = Pin::new(&mut self.read);
                match ready!(parser.fill(&self.held, room, |buffer| read.poll_read(cx, buffer))) {
                    Ok(end) => end,
                    Err(_) => return Poll::Ready(()),
                }
            };
            self.take_in(wire, end);
        }
    }

    /// Bytes to read at most: an unauthenticated peer cannot make us hold more than its one frame.
    fn room(&self) -> usize {
        match self.state {
            State::Fresh(_) => self.bytes_max() + HEADER_BYTES_MAX,
            _ => usize::MAX / 2,
        }
    }

    /// Bytes of a frame and of a message.
    fn bytes_max(&self) -> usize {
        let settings = &self.connection.shard.shared.settings;
        if matches!(self.state, State::Fresh(_)) { settings.first_frame_bytes_max } else { settings.frame_bytes_max }
    }

    /// Handles the frames among the first `end` bytes and keeps the rest.
    fn take_in(&mut self, wire: &mut Wire, end: usize) {
        let Wire { parser, turn } = wire;
        let shared = self.connection.shard.shared.clone();
        let now = self.connection.shard.now();
        self.connection.seen.store(now, Ordering::Relaxed);
        self.connection.pinged.store(false, Ordering::Relaxed);
        let mut at = 0;
        let mut frames = 0;
        while turn.close.is_none() && !self.connection.is_closing() && !matches!(self.state, State::Verifying(_)) {
            match parser.header(at, end, self.bytes_max()) {
                Header::Frame { bytes } if at + bytes <= end => {
                    frames += 1;
                    self.frame(parser, at, at + bytes, turn);
                    at += bytes;
                }
                Header::Frame { .. } | Header::Incomplete => break,
                Header::Refused(code) => turn.close = Some(code),
            }
        }
        shared.counters.frames_in.add(frames);
        shared.counters.bytes_in.add((end - self.held.len().min(end)) as u64);
        if turn.close.is_some() || self.connection.is_closing() {
            // What comes behind the end is read and dropped, until the peer hangs up.
            self.held = Vec::new();
            self.fragments = None;
        } else {
            parser.keep(&mut self.held, at, end);
        }
        let unfinished = &self.connection.unfinished;
        if self.held.is_empty() && self.fragments.is_none() {
            unfinished.store(0, Ordering::Relaxed);
        } else if unfinished.load(Ordering::Relaxed) == 0 || (frames > 0 && self.fragments.is_none()) {
            unfinished.store(now, Ordering::Relaxed);
        }
        if matches!(turn.close, Some(close::PROTOCOL | close::NOT_UTF8 | close::TOO_LARGE | close::UNSUPPORTED)) {
            shared.counters.protocol_errors.one();
            parser.reset();
        }
        self.finish(turn);
    }

    fn frame(&mut self, parser: &mut Parser, at: usize, end: usize, turn: &mut Turn) {
        let frame = match parser.frame(at, end) {
            Ok(frame) => frame,
            Err(code) => return turn.close = Some(code),
        };
        let settings = &self.connection.shard.shared.settings;
        let bytes_max = self.bytes_max();
        match frame.opcode {
            OpCode::Close => turn.close = Some(close_reply(&frame.payload)),
            OpCode::Ping | OpCode::Pong => {
                if !self.controls.take(settings.controls_per_second, settings.control_burst, &self.connection) {
                    turn.close = Some(close::TOO_MANY);
                } else if frame.opcode == OpCode::Ping {
                    write_frame(&mut turn.out, OpCode::Pong, &frame.payload);
                    turn.replies += 1;
                }
            }
            OpCode::Text | OpCode::Binary | OpCode::Continuation => match assemble(&mut self.fragments, &frame, bytes_max, settings.fragments_max) {
                Assembled::Partial => {}
                Assembled::Refused(code) => turn.close = Some(code),
                Assembled::Whole(opcode, _) if opcode != self.connection.codec.opcode() => turn.close = Some(close::UNSUPPORTED),
                Assembled::Whole(_, Some(message)) => self.handle(&message, turn),
                Assembled::Whole(_, None) => self.handle(&frame.payload, turn),
            },
        }
    }

    /// Hands over what was sent, writes what is to be replied, closes if that is the end.
    fn finish(&mut self, turn: &mut Turn) {
        let shared = &self.connection.shard.shared;
        if !turn.sends.is_empty() {
            let (ids, records): (Vec<u64>, Vec<Record>) = turn.sends.drain(..).unzip();
            let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            // Counted before the offer: the ack may come while it is made.
            self.connection.sends.fetch_add(count, Ordering::Relaxed);
            match shared.ports.bus.offer(&Topic::Upstream, records) {
                Ok(()) => shared.counters.sends.add(u64::from(count)),
                Err(error) => {
                    self.connection.sends.fetch_sub(count, Ordering::Relaxed);
                    shared.counters.overloaded.add(u64::from(count));
                    let error = overloaded(error);
                    ids.into_iter().for_each(|id| turn.reply(&self.connection, &ServerFrame::error(Some(id), &error)));
                }
            }
        }
        if !turn.out.is_empty() {
            shared.counters.frames_out.add(std::mem::take(&mut turn.replies));
            self.connection.send(&[Chunk { bytes: turn.out.split().freeze(), push: false }]);
        }
        if let Some(code) = turn.close.take() {
            self.connection.close(code);
        }
    }
}

impl Future for Reader {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        WIRE.with_borrow_mut(|wire| self.advance(wire, cx))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let State::Verifying(verifying) = &mut self.state {
            verifying.answer.close();
            if let Ok(Ok(verified)) = verifying.answer.try_recv() {
                verified.give_back(&self.connection);
            }
        }
        self.connection.end();
        self.connection.shard.shared.forget(&self.connection);
        self.connection.shard.leave(self.connection.id);
    }
}

/// A token bucket in quarters of a token, refilled by ticks: no clock is asked.
pub(super) struct Bucket {
    quarters: u32,
    at: u32,
}

/// Ticks of a second, and parts of a token.
const QUARTERS: u32 = (1000 / TICK.as_millis()) as u32;

impl Bucket {
    fn full(burst: u32, connection: &Connection) -> Self {
        Bucket { quarters: burst.saturating_mul(QUARTERS), at: connection.opened }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, per_second: u32, burst: u32, connection: &Connection) -> bool {
        let now = connection.shard.now();
        let refill = per_second.saturating_mul(now.saturating_sub(self.at));
        self.quarters = self.quarters.saturating_add(refill).min(burst.saturating_mul(QUARTERS));
        self.at = now;
        match self.quarters.checked_sub(QUARTERS) {
            Some(left) => {
                self.quarters = left;
                true
            }
            None => false,
        }
    }
}

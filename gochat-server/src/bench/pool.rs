//! Many connections on one thread: epoll, one buffer to read into, one write per connection and turn. Cheap, because the load
//! shares its cores with what it measures.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};

use super::{
    Fault, line,
    timer::Timer,
    wire::{self, Form, Frame},
};

/// Bytes that one read may bring.
const READ_BYTES: usize = 256 * 1024;
/// Connections that are opened side by side.
const OPEN_AT_ONCE: usize = 200;
/// The token of the timer; those of the connections are their numbers.
const TIMER: Token = Token(usize::MAX);

pub struct Pool {
    poll: Poll,
    events: Events,
    streams: Vec<TcpStream>,
    /// Beginnings of frames whose rest has not come.
    held: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    timer: Timer,
    pub outbox: Outbox,
}

/// What is to be written.
pub struct Outbox {
    opcode: u8,
    waiting: Vec<Vec<u8>>,
    dirty: Vec<usize>,
    payload: Vec<u8>,
}

impl Outbox {
    /// Lets a frame be sent at the end of this turn.
    pub fn send(&mut self, who: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        write(&mut payload);
        self.frame(who, self.opcode, &payload);
        self.payload = payload;
    }

    fn frame(&mut self, who: usize, opcode: u8, payload: &[u8]) {
        if self.waiting[who].is_empty() {
            self.dirty.push(who);
        }
        wire::write_frame(&mut self.waiting[who], opcode, payload);
    }
}

impl Pool {
    /// Opens and authenticates one connection for each token, to one address after the other.
    pub fn open(addresses: &[SocketAddr], form: Form, tokens: &[&str]) -> Result<Pool, Fault> {
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        let mut pool = Pool {
            poll,
            events: Events::with_capacity(2048),
            streams: Vec::with_capacity(tokens.len()),
            held: Vec::with_capacity(tokens.len()),
            buffer: vec![0; READ_BYTES],
            timer,
            outbox: Outbox { opcode: form.opcode(), waiting: vec![Vec::new(); tokens.len()], dirty: Vec::new(), payload: Vec::new() },
        };
        for tokens in tokens.chunks(OPEN_AT_ONCE) {
            for line in line::open(addresses, form, tokens)? {
                line.stream.set_nonblocking(true)?;
                let mut stream = TcpStream::from_std(line.stream);
                pool.poll.registry().register(&mut stream, Token(pool.streams.len()), Interest::READABLE | Interest::WRITABLE)?;
                pool.streams.push(stream);
                pool.held.push(line.input);
            }
        }
        Ok(pool)
    }

    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Ends the wait of a turn after so long, to a finer measure than the patience of [`turn`](Self::turn).
    pub fn wake_in(&self, delay: Duration) -> Result<(), Fault> {
        self.timer.wake_in(delay)
    }

    /// Writes what waits, waits for what comes (at most `patience`), and shows every message with its connection.
    pub fn turn(&mut self, patience: Duration, mut seen: impl FnMut(&mut Outbox, usize, &[u8], Instant)) -> Result<(), Fault> {
        self.write()?;
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            if event.token() == TIMER {
                self.timer.ended();
                continue;
            }
            let who = event.token().0;
            if event.is_writable() && !self.outbox.waiting[who].is_empty() {
                self.outbox.dirty.push(who);
            }
            if !event.is_readable() {
                continue;
            }
            loop {
                let held = &mut self.held[who];
                let begin = held.len();
                self.buffer[..begin].copy_from_slice(held);
                let read = match self.streams[who].read(&mut self.buffer[begin..]) {
                    Ok(0) => return Err(format!("the server hung up on connection {who}").into()),
                    Ok(read) => read,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                };
                let now = Instant::now();
                let end = begin + read;
                let mut at = 0;
                while let Some((Frame { opcode, payload }, length)) = wire::first(&self.buffer[at..end]) {
                    match opcode {
                        wire::TEXT | wire::BINARY => seen(&mut self.outbox, who, payload, now),
                        wire::PING => self.outbox.frame(who, wire::PONG, payload),
                        wire::CLOSE => return Err(wire::closed(payload)),
                        _ => {}
                    }
                    at += length;
                }
                held.clear();
                held.extend_from_slice(&self.buffer[at..end]);
                // Less than there was room for: nothing is left.
                if end < self.buffer.len() {
                    break;
                }
            }
        }
        self.write()
    }

    fn write(&mut self) -> Result<(), Fault> {
        let mut dirty = std::mem::take(&mut self.outbox.dirty);
        for who in dirty.drain(..) {
            let waiting = &mut self.outbox.waiting[who];
            match self.streams[who].write(waiting) {
                Ok(written) if written == waiting.len() => waiting.clear(),
                // The rest follows when the socket says that it can take more.
                Ok(written) => drop(waiting.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.outbox.dirty = dirty;
        Ok(())
    }
}

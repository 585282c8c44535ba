//! A connection as everybody but its reader sees it: something to write to, to close and to kill, from any thread.
//!
//! Whoever has frames writes them straight to the socket. Only what the socket does not take waits in an outbox, which
//! exists while the peer is slow and no longer. One lock keeps whole frames whole; it is never held across an await.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::Shutdown,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use fastwebsockets::OpCode;
use gochat_core::model::Caller;
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::net::tcp::OwnedWriteHalf;

use super::{
    codec::Codec,
    frames::ServerFrame,
    shard::Shard,
    websocket::{close, write_close, write_frame},
};

/// Chunks that leave in one system call.
const CHUNKS_PER_WRITE: usize = 64;

/// A connection.
pub(super) struct Connection {
    /// Shard, generation and slot: an index, not a key.
    pub(super) id: u64,
    pub(super) codec: Codec,
    pub(super) shard: Arc<Shard>,
    /// Ticks (see [`Shard::now`]) of the upgrade.
    pub(super) opened: u32,
    /// When the peer was last heard.
    pub(super) seen: AtomicU32,
    /// Since when a message is unfinished; 0: none is.
    pub(super) unfinished: AtomicU32,
    /// A ping is on its way.
    pub(super) pinged: AtomicBool,
    /// Requests, other than sends, that wait for their answers.
    pub(super) requests: AtomicU32,
    /// Sends that wait for their acks.
    pub(super) sends: AtomicU32,
    session: OnceLock<Box<Session>>,
    /// Since when it closes; 0: it is open.
    closing: AtomicU32,
    write: OwnedWriteHalf,
    out: Mutex<Outbox>,
}

/// Who is connected.
pub(super) struct Session {
    pub(super) caller: Caller,
    /// Epoch of the connection.
    pub(super) epoch: i64,
    /// When the access token ends, in milliseconds since the Unix epoch.
    pub(super) expires_at: AtomicI64,
}

/// Whole frames that leave together.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    /// Nobody asked for them: they may be dropped for a slow peer, which is told to sync instead.
    pub(super) push: bool,
}

#[derive(Default)]
struct Outbox {
    /// Nothing is taken any more.
    shut: bool,
    slow: Option<Box<Slow>>,
}

/// What waits for a peer that does not read as fast as it is told.
#[derive(Default)]
struct Slow {
    chunks: VecDeque<Chunk>,
    /// Bytes of pushes and of answers that wait.
    pushes: usize,
    answers: usize,
    /// Pushes were dropped; further ones are, until the peer has caught up.
    lagging: bool,
    /// When it last took something.
    progress: u32,
}

/// What became of a write.
enum Written {
    All,
    Blocked,
    Broken,
}

impl Connection {
    pub(super) fn new(id: u64, codec: Codec, shard: Arc<Shard>, write: OwnedWriteHalf) -> Self {
        let now = shard.now();
        Connection {
            id,
            codec,
            shard,
            opened: now,
            seen: AtomicU32::new(now),
            unfinished: AtomicU32::new(0),
            pinged: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            sends: AtomicU32::new(0),
            session: OnceLock::new(),
            closing: AtomicU32::new(0),
            write,
            out: Mutex::default(),
        }
    }

    /// Who is connected, once that is known.
    pub(super) fn session(&self) -> Option<&Session> {
        self.session.get().map(|session| &**session)
    }

    /// Sets who is connected; `false` if that was known.
    pub(super) fn authenticated(&self, session: Session) -> bool {
        self.session.set(Box::new(session)).is_ok()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed) != 0
    }

    /// Since when it closes.
    pub(super) fn closing_since(&self) -> Option<u32> {
        Some(self.closing.load(Ordering::Relaxed)).filter(|&since| since != 0)
    }

    /// Since when the peer has taken nothing of what waits for it.
    pub(super) fn stalled_since(&self) -> Option<u32> {
        self.lock().slow.as_ref().map(|slow| slow.progress)
    }

    /// Writes frames, or lets them wait for a slow peer.
    pub(super) fn send(self: &Arc<Self>, chunks: &[Chunk]) {
        if chunks.is_empty() {
            return;
        }
        let mut out = self.lock();
        if out.shut {
            return;
        }
        if out.slow.is_some() {
            self.enqueue(out, chunks, 0);
            return;
        }
        self.shard.shared.counters.writes.one();
        match self.try_write(chunks.iter()) {
            Ok(written) if written == chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>() => {}
            Ok(written) => {
                self.become_slow(&mut out);
                self.enqueue(out, chunks, written);
            }
            Err(_) => {
                drop(out);
                self.kill();
            }
        }
    }

    /// Whether so many bytes of answers still fit behind what waits.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.lock().slow.as_ref().is_none_or(|slow| slow.answers + bytes <= self.shard.shared.settings.answers_bytes_max)
    }

    /// Asks the peer whether it is still there.
    pub(super) fn ping(self: &Arc<Self>) {
        let mut frame = BytesMut::new();
        write_frame(&mut frame, OpCode::Ping, &[]);
        self.send(&[Chunk { bytes: frame.freeze(), push: false }]);
    }

    /// Asks the peer to sync: it may have missed pushes.
    pub(super) fn resync(self: &Arc<Self>) {
        self.shard.shared.counters.resyncs.one();
        self.send(&[Chunk { bytes: self.codec.frame(&ServerFrame::Resync), push: true }]);
    }

    /// Says goodbye: answers that wait are kept, pushes are not; then the peer has the time of `linger` to hang up.
    pub(super) fn close(self: &Arc<Self>, code: u16) {
        let mut out = self.lock();
        if out.shut {
            return;
        }
        out.shut = true;
        self.closing.store(self.shard.now(), Ordering::Relaxed);
        let mut frame = BytesMut::new();
        write_close(&mut frame, code);
        let chunk = Chunk { bytes: frame.freeze(), push: false };
        if let Some(slow) = &mut out.slow {
            slow.drop_behind_head(|chunk| chunk.push || code == close::SLOW);
            slow.chunks.push_back(chunk);
            return;
        }
        match self.try_write(std::iter::once(&chunk)) {
            Ok(written) if written == chunk.bytes.len() => self.shut_write(),
            Ok(written) => {
                self.become_slow(&mut out);
                if let Some(slow) = &mut out.slow {
                    slow.chunks.push_back(Chunk { bytes: chunk.bytes.slice(written..), push: false });
                }
            }
            Err(_) => {
                drop(out);
                self.kill();
            }
        }
    }

    /// Ends it at once. Its reader and its drain see the end of the stream and end themselves.
    pub(super) fn kill(&self) {
        let mut out = self.lock();
        out.shut = true;
        out.slow = None;
        self.closing.store(self.shard.now(), Ordering::Relaxed);
        let socket = SockRef::from(self.write.as_ref());
        // Both fail only for a socket that is gone already.
        let _ = socket.set_linger(Some(Duration::ZERO));
        let _ = socket.shutdown(Shutdown::Both);
    }

    /// Ends it after its reader has ended: nobody is left to see the peer's answer.
    pub(super) fn end(&self) {
        let mut out = self.lock();
        out.shut = true;
        out.slow = None;
        self.closing.store(self.shard.now(), Ordering::Relaxed);
        let _ = SockRef::from(self.write.as_ref()).shutdown(Shutdown::Both);
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shut_write(&self) {
        let _ = SockRef::from(self.write.as_ref()).shutdown(Shutdown::Write);
    }

    /// Bytes that the socket took; 0 if it takes none now.
    fn try_write<'a>(&self, mut chunks: impl Iterator<Item = &'a Chunk>) -> io::Result<usize> {
        let (first, second) = (chunks.next(), chunks.next());
        let written = match (first, second) {
            (None, _) => Ok(0),
            (Some(only), None) => self.write.try_write(&only.bytes),
            (Some(first), Some(second)) => {
                let slices: SmallVec<[IoSlice<'_>; 8]> =
                    [first, second].into_iter().chain(chunks).take(CHUNKS_PER_WRITE).map(|chunk| IoSlice::new(&chunk.bytes)).collect();
                self.write.try_write_vectored(&slices)
            }
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    fn become_slow(self: &Arc<Self>, out: &mut Outbox) {
        out.slow = Some(Box::new(Slow { progress: self.shard.now(), ..Slow::default() }));
        self.shard.spawn(drain(self.clone()));
    }

    /// Lets frames wait, but for the first `written` bytes.
    fn enqueue(self: &Arc<Self>, mut out: MutexGuard<'_, Outbox>, chunks: &[Chunk], mut written: usize) {
        let Some(slow) = &mut out.slow else { return };
        let settings = &self.shard.shared.settings;
        for chunk in chunks {
            let skip = written.min(chunk.bytes.len());
            written -= skip;
            let left = chunk.bytes.len() - skip;
            if left == 0 || (chunk.push && slow.lagging && skip == 0) {
                continue;
            }
            // What the socket has begun to take must be finished, whatever it is.
            if chunk.push && skip == 0 && slow.pushes + left > settings.outbox_bytes_max {
                slow.drop_behind_head(|chunk| chunk.push);
                slow.lagging = true;
                slow.push(Chunk { bytes: self.codec.frame(&ServerFrame::Resync), push: false });
                self.shard.shared.counters.resyncs.one();
                continue;
            }
            if !chunk.push && slow.answers + left > settings.answers_bytes_max {
                drop(out);
                self.shard.shared.counters.slow_closes.one();
                self.close(close::SLOW);
                return;
            }
            slow.push(Chunk { bytes: chunk.bytes.slice(skip..), push: chunk.push });
        }
    }

    /// Writes what waits, as far as the socket takes it.
    fn write_waiting(&self) -> Written {
        let mut out = self.lock();
        loop {
            let Some(slow) = &mut out.slow else { return Written::All };
            match self.try_write(slow.chunks.iter()) {
                Ok(0) => return Written::Blocked,
                Ok(written) => {
                    slow.written(written);
                    slow.progress = self.shard.now();
                    if slow.chunks.is_empty() {
                        out.slow = None;
                        if out.shut {
                            self.shut_write();
                        }
                        return Written::All;
                    }
                }
                Err(_) => return Written::Broken,
            }
        }
    }
}

impl Slow {
    fn push(&mut self, chunk: Chunk) {
        *self.count(chunk.push) += chunk.bytes.len();
        self.chunks.push_back(chunk);
    }

    fn count(&mut self, push: bool) -> &mut usize {
        if push { &mut self.pushes } else { &mut self.answers }
    }

    /// The head stays: half of it may be written.
    fn drop_behind_head(&mut self, drop: impl Fn(&Chunk) -> bool) {
        let mut index = 0;
        self.chunks.retain(|chunk| {
            index += 1;
            index == 1 || !drop(chunk)
        });
        self.pushes = self.chunks.iter().filter(|chunk| chunk.push).map(|chunk| chunk.bytes.len()).sum();
        self.answers = self.chunks.iter().filter(|chunk| !chunk.push).map(|chunk| chunk.bytes.len()).sum();
    }

    fn written(&mut self, mut bytes: usize) {
        while let Some(head) = self.chunks.front_mut() {
            let push = head.push;
            let taken = bytes.min(head.bytes.len());
            let _ = head.bytes.split_to(taken);
            let done = head.bytes.is_empty();
            let count = self.count(push);
            *count = count.saturating_sub(taken);
            bytes -= taken;
            if !done {
                return;
            }
            self.chunks.pop_front();
        }
    }
}

/// Writes what waits for a slow peer; exists only as long.
async fn drain(connection: Arc<Connection>) {
    loop {
        if connection.write.writable().await.is_err() {
            return connection.kill();
        }
        match connection.write_waiting() {
            Written::All => return,
            Written::Blocked => {}
            Written::Broken => return connection.kill(),
        }
    }
}

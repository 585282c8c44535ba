//! A shard: a thread with its connections. It tells them what comes down from logic, and sweeps those that are gone.
//!
//! ```text
//! downstream records -> one pending list per connection -> one write per connection and turn
//! ```
//!
//! Nothing waits for a window: what arrives during a turn is the next turn's batch.

use std::{
    io,
    net::TcpStream as StdTcpStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use gochat_core::ports::{Ack, Delivery, Downstream};
use smallvec::SmallVec;
use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle, Runtime},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    Shared,
    accept::Admission,
    codec::{CODECS, Codec},
    connection::{Chunk, Connection},
    frames::ServerFrame,
    reader::Reader,
    websocket::close,
};

/// The shard's unit of time: a read costs no clock call.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// A sweep looks at every connection once in so many ticks.
const SWEEP_PARTS: usize = 4;
/// Commands that wait for a shard. The bus waits when they are this many, the outboxes never do.
const COMMANDS_MAX: usize = 1024;
/// Commands of one turn.
const TURN_COMMANDS_MAX: usize = 256;
/// Writes in a row before readers get their turn.
const WRITES_PER_YIELD: usize = 128;
/// Messages are joined into chunks of about this size: a slow peer's head cannot be dropped, so it must be small.
const CHUNK_BYTES: usize = 16 * 1024;
/// Bits of a connection id.
const SLOT_BITS: u32 = 24;
/// Counts the connections of a slot, beginning at a number drawn at the gateway's start: an answer that was meant for a connection
/// of an earlier run finds nobody.
const GENERATION_BITS: u32 = 32;
/// Shards at most: an id stays positive as an `i64`.
pub(super) const SHARDS_MAX: usize = 64;

/// The shard that a connection id belongs to.
pub(super) fn shard_of(id: u64) -> usize {
    (id >> (SLOT_BITS + GENERATION_BITS)) as usize
}

/// A thread's share of the connections.
pub(super) struct Shard {
    index: usize,
    handle: Handle,
    pub(super) shared: Arc<Shared>,
    ticks: AtomicU32,
    slots: Mutex<Slots>,
}

/// What a shard is asked to do.
pub(super) enum Command {
    /// Serve a socket that was upgraded.
    Adopt(Box<Adopted>),
    /// Tell connections.
    Deliver(Arc<[Arc<Downstream>]>),
}

/// A socket that was upgraded.
pub(super) struct Adopted {
    pub(super) socket: StdTcpStream,
    /// What came along with the request to upgrade.
    pub(super) early: Bytes,
    pub(super) codec: Codec,
    pub(super) admission: Option<Arc<Admission>>,
}

#[derive(Default)]
struct Slots {
    entries: Vec<Slot>,
    free: Vec<u32>,
}

struct Slot {
    generation: u32,
    connection: Option<Arc<Connection>>,
}

impl Slots {
    fn get(&self, id: u64) -> Option<&Arc<Connection>> {
        let slot = (id & ((1 << SLOT_BITS) - 1)) as usize;
        self.entries.get(slot)?.connection.as_ref().filter(|connection| connection.id == id)
    }
}

impl Shard {
    /// Starts a shard's thread; it ends when the sender is dropped.
    pub(super) fn start(index: usize, shared: Arc<Shared>) -> io::Result<(Arc<Shard>, mpsc::Sender<Command>)> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let shard = Arc::new(Shard { index, handle: runtime.handle().clone(), shared, ticks: AtomicU32::new(1), slots: Mutex::default() });
        let own = shard.clone();
        std::thread::Builder::new().name(format!("gochat-shard-{index}")).spawn(move || own.work(runtime, commands))?;
        Ok((shard, sender))
    }

    /// Now, in ticks since the start; never 0.
    pub(super) fn now(&self) -> u32 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Runs something beside the connections.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }

    /// Forgets a connection.
    pub(super) fn leave(&self, id: u64) {
        let mut slots = self.lock();
        let slot = (id & ((1 << SLOT_BITS) - 1)) as usize;
        let removed = match slots.entries.get_mut(slot) {
            Some(entry) => entry.connection.take_if(|connection| connection.id == id),
            None => None,
        };
        if removed.is_some() {
            slots.free.push(slot as u32);
            self.shared.counters.connections.less_one();
        }
    }

    /// The connections in a range of slots; `None` behind the last one.
    pub(super) fn connections(&self, from: usize, count: usize) -> Option<Vec<Arc<Connection>>> {
        let slots = self.lock();
        let range = slots.entries.get(from..slots.entries.len().min(from + count)).filter(|range| !range.is_empty())?;
        Some(range.iter().filter_map(|slot| slot.connection.clone()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(self: Arc<Self>, runtime: Runtime, mut commands: mpsc::Receiver<Command>) {
        runtime.block_on(async {
            tokio::spawn(self.clone().sweep());
            let mut batch = Vec::with_capacity(TURN_COMMANDS_MAX);
            let mut turn = Turn::default();
            while commands.recv_many(&mut batch, TURN_COMMANDS_MAX).await > 0 {
                for command in batch.drain(..) {
                    match command {
                        Command::Adopt(adopted) => {
                            if let Err(error) = self.adopt(*adopted) {
                                tracing::debug!(%error, "a socket broke while it was taken over");
                            }
                        }
                        Command::Deliver(records) => records.iter().for_each(|record| self.gather(record, &mut turn)),
                    }
                }
                self.flush(&mut turn).await;
            }
        });
    }

    fn adopt(self: &Arc<Self>, adopted: Adopted) -> io::Result<()> {
        let (read, write) = TcpStream::from_std(adopted.socket)?.into_split();
        let connection = {
            let mut slots = self.lock();
            let slot = match slots.free.pop() {
                Some(slot) => slot as usize,
                None => {
                    slots.entries.push(Slot { generation: self.shared.boot, connection: None });
                    slots.entries.len() - 1
                }
            };
            let entry = &mut slots.entries[slot];
            entry.generation = entry.generation.wrapping_add(1);
            let id = (self.index as u64) << (SLOT_BITS + GENERATION_BITS) | u64::from(entry.generation) << SLOT_BITS | slot as u64;
            let connection = Arc::new(Connection::new(id, adopted.codec, self.clone(), write));
            entry.connection = Some(connection.clone());
            connection
        };
        self.shared.counters.connections.one();
        self.shared.counters.opened.one();
        tokio::spawn(Reader::new(connection, read, adopted.early, adopted.admission));
        Ok(())
    }

    /// Adds what a record tells this shard's connections to their pending lists.
    fn gather(&self, record: &Downstream, turn: &mut Turn) {
        let slots = self.lock();
        turn.places.resize(slots.entries.len(), 0);
        for Ack { connection, request, outcome } in record.acks.iter().filter(|ack| shard_of(ack.connection) == self.index) {
            let Some(connection) = slots.get(*connection) else { continue };
            let _ = connection.sends.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sends| sends.checked_sub(1));
            let frame = match outcome {
                Ok(stored) => ServerFrame::Ack { id: *request, stored },
                Err(refusal) => {
                    ServerFrame::Error { id: Some(*request), code: refusal.code, message: &refusal.message, retry_after_ms: refusal.retry_after_ms }
                }
            };
            connection.codec.append(&mut turn.acks, &frame);
            let bytes = turn.acks.split().freeze();
            turn.add(connection, [Chunk { bytes, push: false }], 1);
        }
        for Delivery { targets, payloads } in &record.deliveries {
            let mut encoded: [Option<SmallVec<[Chunk; 1]>>; CODECS] = std::array::from_fn(|_| None);
            for target in targets.iter().filter(|target| shard_of(target.connection) == self.index) {
                let current = |connection: &&Arc<Connection>| connection.session().is_some_and(|session| session.epoch == target.epoch);
                let Some(connection) = slots.get(target.connection).filter(current) else { continue };
                let chunks = encoded[connection.codec as usize].get_or_insert_with(|| {
                    let mut chunks = SmallVec::new();
                    let mut bytes = BytesMut::new();
                    for payload in payloads {
                        connection.codec.append(&mut bytes, &ServerFrame::push(payload));
                        if bytes.len() >= CHUNK_BYTES {
                            chunks.push(Chunk { bytes: bytes.split().freeze(), push: true });
                        }
                    }
                    if !bytes.is_empty() {
                        chunks.push(Chunk { bytes: bytes.freeze(), push: true });
                    }
                    chunks
                });
                turn.add(connection, chunks.iter().cloned(), payloads.len());
            }
        }
    }

    /// Writes what is pending: one write per connection.
    async fn flush(&self, turn: &mut Turn) {
        for pending in &turn.pending {
            turn.places[(pending.connection.id & ((1 << SLOT_BITS) - 1)) as usize] = 0;
        }
        self.shared.counters.frames_out.add(std::mem::take(&mut turn.frames));
        for (index, pending) in turn.pending.drain(..).enumerate() {
            if index % WRITES_PER_YIELD == WRITES_PER_YIELD - 1 {
                tokio::task::yield_now().await;
            }
            pending.connection.send(&pending.chunks);
        }
    }

    /// Looks at a quarter of the connections every tick.
    async fn sweep(self: Arc<Self>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let limits = Limits::of(&self.shared);
        for part in (0..SWEEP_PARTS).cycle() {
            tick.tick().await;
            let started = self.shared.started.elapsed().as_millis() / TICK.as_millis();
            let now = u32::try_from(started).unwrap_or(u32::MAX).saturating_add(1);
            self.ticks.store(now, Ordering::Relaxed);
            let time = self.shared.ports.clock.now().0;
            let quarter: Vec<Arc<Connection>> =
                self.lock().entries.iter().skip(part).step_by(SWEEP_PARTS).filter_map(|slot| slot.connection.clone()).collect();
            for connection in quarter {
                self.inspect(&connection, &limits, now, time);
            }
        }
    }

    fn inspect(&self, connection: &Arc<Connection>, limits: &Limits, now: u32, time: i64) {
        let past = |since: u32, limit: u32| now.saturating_sub(since) >= limit;
        if let Some(since) = connection.closing_since() {
            if past(since, limits.linger) {
                connection.kill();
            }
            return;
        }
        if connection.stalled_since().is_some_and(|since| past(since, limits.stall)) {
            self.shared.counters.slow_closes.one();
            return connection.close(close::SLOW);
        }
        match connection.session() {
            None if past(connection.opened, limits.auth) => {
                self.shared.counters.auth_refusals.one();
                return connection.close(close::UNAUTHENTICATED);
            }
            Some(session) if session.expires_at.load(Ordering::Relaxed) <= time => return connection.close(close::EXPIRED),
            _ => {}
        }
        let unfinished = connection.unfinished.load(Ordering::Relaxed);
        if unfinished != 0 && past(unfinished, limits.frame) {
            self.shared.counters.slow_closes.one();
            return connection.close(close::SLOW);
        }
        let seen = connection.seen.load(Ordering::Relaxed);
        if past(seen, limits.dead) {
            connection.close(close::SLOW);
        } else if past(seen, limits.ping) && !connection.pinged.swap(true, Ordering::Relaxed) {
            connection.ping();
        }
    }
}

/// Durations in ticks.
struct Limits {
    auth: u32,
    frame: u32,
    ping: u32,
    dead: u32,
    stall: u32,
    linger: u32,
}

impl Limits {
    fn of(shared: &Shared) -> Self {
        let ticks = |duration: Duration| u32::try_from(duration.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u32::MAX).max(1);
        let settings = &shared.settings;
        Limits {
            auth: ticks(settings.auth_deadline),
            frame: ticks(settings.frame_deadline),
            ping: ticks(settings.ping_after),
            dead: ticks(settings.ping_after + settings.pong_within),
            stall: ticks(settings.write_stall),
            linger: ticks(settings.linger),
        }
    }
}

/// What is pending in this turn.
#[derive(Default)]
struct Turn {
    pending: Vec<Pending>,
    /// By slot: where its pending list is, plus one.
    places: Vec<u32>,
    acks: BytesMut,
    frames: u64,
}

struct Pending {
    connection: Arc<Connection>,
    chunks: SmallVec<[Chunk; 2]>,
}

impl Turn {
    fn add(&mut self, connection: &Arc<Connection>, chunks: impl IntoIterator<Item = Chunk>, frames: usize) {
        self.frames += frames as u64;
        let place = &mut self.places[(connection.id & ((1 << SLOT_BITS) - 1)) as usize];
        if *place == 0 {
            self.pending.push(Pending { connection: connection.clone(), chunks: SmallVec::new() });
            *place = self.pending.len() as u32;
        }
        self.pending[*place as usize - 1].chunks.extend(chunks);
    }
}

//! Connections, a few for writes and a few for reads, and the bounded wait for one of them.
//!
//! ```text
//! call ─► waiting (bounded) ─► place (a permit) ─► connection: one that is idle, or a new one ─► unit ─► idle again
//! ```
//!
//! A pool of its own instead of a ready one, because the two ways of having no connection are two answers: all are busy
//! (`OVERLOADED`, nothing was begun), or the server cannot be reached (`UNAVAILABLE`, at once and with its reason).
//!
//! Invariant: a connection becomes idle only after a unit that ended cleanly. Whatever happens otherwise (an error, a timeout,
//! a panic) it is closed, and the server rolls back what was open on it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use diesel_async::SimpleAsyncConnection;
use gochat_core::error::{Code, Error, Result};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{Conn, open::Connector};

/// An idle connection is asked whether it lives before it is used after this time: the server, or something between, may have
/// closed it.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// How long it has to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections of one kind.
pub struct Lane {
    connector: Connector,
    size: usize,
    places: Arc<Semaphore>,
    /// The one used last is used next: what is not needed stays at the bottom.
    idle: Mutex<Vec<(Conn, Instant)>>,
    waiting: AtomicUsize,
    waiting_max: usize,
    wait: Duration,
    closed: AtomicBool,
    opened: AtomicU64,
}

impl Lane {
    pub fn new(connector: Connector, size: usize, waiting_max: usize, wait: Duration) -> Arc<Lane> {
        let size = size.max(1);
        Arc::new(Lane {
            connector,
            size,
            places: Arc::new(Semaphore::new(size)),
            idle: Mutex::new(Vec::with_capacity(size)),
            waiting: AtomicUsize::new(0),
            waiting_max,
            wait,
            closed: AtomicBool::new(false),
            opened: AtomicU64::new(0),
        })
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// `OVERLOADED` if too many wait already or none becomes free in time; `UNAVAILABLE` once the store is closed.
    pub async fn enter(self: &Arc<Self>) -> Result<Place> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Ok(Place { lane: self.clone(), _permit: permit });
        }
        let waiting = Waiting::begin(&self.waiting);
        if waiting.before >= self.waiting_max {
            return Err(overloaded("the store's queue is full"));
        }
        match timeout(self.wait, self.places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { lane: self.clone(), _permit: permit }),
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(overloaded("all connections to the database are busy")),
        }
    }

    /// Refuses who comes later, waits for who is inside, closes the connections.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Ok(all) = self.places.acquire_many(u32::try_from(self.size).unwrap_or(u32::MAX)).await {
            all.forget();
            self.places.close();
        }
        self.forget_idle();
    }

    /// Calls that wait for a connection.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Connections that were opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Closes the idle connections: when one turns out to be dead, the others most likely are too.
    pub fn forget_idle(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        drop(idle);
    }

    fn take_idle(&self) -> Option<(Conn, Instant)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// The right to one connection.
pub struct Place {
    lane: Arc<Lane>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// A connection that lived a moment ago.
    ///
    /// # Errors
    /// `UNAVAILABLE` if there is none and none can be opened.
    pub async fn connection(&self) -> Result<Conn> {
        while let Some((mut conn, since)) = self.lane.take_idle() {
            if since.elapsed() < TRUSTED_IDLE || matches!(timeout(ASK_TIMEOUT, conn.batch_execute("DO 1")).await, Ok(Ok(()))) {
                return Ok(conn);
            }
        }
        self.lane.opened.fetch_add(1, Ordering::Relaxed);
        self.lane.connector.connect().await
    }

    /// Gives a connection back whose unit has ended cleanly.
    pub fn give_back(&self, conn: Conn) {
        if !self.lane.closed.load(Ordering::Acquire) {
            self.lane.idle.lock().unwrap_or_else(PoisonError::into_inner).push((conn, Instant::now()));
        }
    }

    pub fn forget_idle(&self) {
        self.lane.forget_idle();
    }
}

/// Counts a call that waits, for as long as it does.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        Waiting { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

fn overloaded(text: &'static str) -> Error {
    Error::new(Code::Overloaded, text).retry_after(Duration::from_millis(200))
}

fn closed() -> Error {
    Error::new(Code::Unavailable, "the store is closed")
}

//! The threads of the store: the writer and its groups, the readers, the checkpoints.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use diesel::{
    SqliteConnection,
    connection::{AnsiTransactionManager, SimpleConnection, TransactionManager},
};
use futures_util::FutureExt;
use gochat_core::error::{Code, Error, Result};
use tokio::sync::oneshot;

use super::{Conn, SqliteStats, handle::Session, open};
use crate::sql::fail::Fail;

/// Pages in the write-ahead log at which the writer itself begins it anew: under constant load the checkpoints beside it
/// never catch up with the end, and the log would grow without bound. 256 MiB.
const WAL_PAGES_MAX: u64 = 65_536;
/// Pause after the writer tried that: a reader may hold the old log for a while.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How often the log is looked at.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(100);
/// Pages in the log, not yet in the file, that are worth a checkpoint. 4 MiB.
const CHECKPOINT_PAGES: i64 = 1024;

/// What a queue carries.
pub enum Order {
    Run(Job),
    /// The thread that takes it ends.
    Stop,
}

/// Runs now, and says what to answer once COMMIT is known.
pub type Job = Box<dyn FnOnce(&mut Session) -> Done + Send>;
type Answer = Box<dyn FnOnce(&Result<()>) + Send>;

/// What a job leaves behind.
pub struct Done {
    answer: Answer,
    /// Why nothing may follow in the group's transaction: the database may have ended it by itself.
    breaks: Option<Error>,
}

/// A unit of work as a savepoint of its group.
pub fn unit<T: Send + 'static>(work: impl FnOnce(&mut Session) -> Result<T, Fail> + Send + 'static, reply: oneshot::Sender<Result<T>>) -> Job {
    Box::new(move |session| {
        let (outcome, breaks) = match catch_unwind(AssertUnwindSafe(|| savepoint(session, work))) {
            Ok(Ok(value)) => (Ok(value), None),
            Ok(Err(fail)) => {
                let breaks = fail.breaks_transaction();
                let error = Error::from(fail);
                let breaks = breaks.then(|| neighbours(&error));
                (Err(error), breaks)
            }
            Err(panic) => {
                let error = panicked(&*panic);
                let breaks = Some(neighbours(&error));
                (Err(error), breaks)
            }
        };
        // A unit's own refusal stands, whatever became of its group.
        let answer: Answer =
            Box::new(move |committed| drop(reply.send(outcome.and_then(|value| committed.as_ref().map(|()| value).map_err(Error::same)))));
        Done { answer, breaks }
    })
}

/// Reads, without a transaction.
pub fn reading<T: Send + 'static>(work: impl FnOnce(&mut Session) -> Result<T, Fail> + Send + 'static, reply: oneshot::Sender<Result<T>>) -> Job {
    Box::new(move |session| {
        let (outcome, breaks) = match catch_unwind(AssertUnwindSafe(|| work(session))) {
            Ok(Ok(value)) => (Ok(value), None),
            Ok(Err(fail)) => {
                let breaks = fail.breaks_transaction();
                let error = Error::from(fail);
                let breaks = breaks.then(|| error.same());
                (Err(error), breaks)
            }
            Err(panic) => {
                let error = panicked(&*panic);
                let breaks = Some(error.same());
                (Err(error), breaks)
            }
        };
        Done { answer: Box::new(move |_| drop(reply.send(outcome))), breaks }
    })
}

/// What the other units of a group are told when one breaks it. Only a full disk is sure to have stored nothing and not to
/// store anything at the next try either; everything else is worth repeating.
fn neighbours(error: &Error) -> Error {
    match error.code {
        Code::StorageFull => error.same(),
        _ => Error::new(Code::Unavailable, "the transaction was given up; nothing was stored"),
    }
}

fn savepoint<T>(session: &mut Session, work: impl FnOnce(&mut Session) -> Result<T, Fail>) -> Result<T, Fail> {
    on(&mut session.conn, AnsiTransactionManager::begin_transaction)?;
    let outcome = work(session);
    let conn = &mut session.conn;
    match outcome {
        Ok(value) => on(conn, AnsiTransactionManager::commit_transaction).map(|()| value),
        // The first error is the one to tell: after a full disk there may be no savepoint left to go back to.
        Err(fail) if fail.breaks_transaction() => Err(fail),
        Err(fail) => on(conn, AnsiTransactionManager::rollback_transaction).and(Err(fail)),
    }
}

/// The result of a unit of work. It awaits nothing but its connection, whose futures are ready at the first poll.
pub fn now<T>(work: impl Future<Output = Result<T, Fail>>) -> Result<T, Fail> {
    let other = || Fail::Refused(Error::internal("a unit of work awaited something other than its connection"));
    work.now_or_never().unwrap_or_else(|| Err(other()))
}

fn on<T: Send + 'static>(conn: &mut Conn, work: impl FnOnce(&mut SqliteConnection) -> diesel::QueryResult<T> + Send + 'static) -> Result<T, Fail> {
    now(conn.spawn_blocking(work).map(|done| done.map_err(Fail::from)))
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown");
    tracing::error!(panic = text, "a unit of work panicked; its group is rolled back");
    Error::internal(format!("panic: {text}"))
}

/// The writer: takes what queued as one group, until it is told to stop.
pub fn group_commit(mut session: Session, reopen: impl Fn() -> Result<SqliteConnection>, inbox: &Receiver<Order>, max: usize, counters: &Counters) {
    let mut restarted = Instant::now();
    let (mut open, mut failing) = (true, false);
    while open {
        let Ok(Order::Run(first)) = inbox.recv() else { break };
        if let Err(fail) = on(&mut session.conn, |conn| AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")) {
            // The dropped job drops its reply: its caller learns that nothing is known. No unit runs outside a group.
            tracing::error!(error = ?Error::from(fail), "the store could not begin a transaction");
            replace(&mut session, &reopen);
            continue;
        }
        let mut answers = Vec::new();
        let mut broken = None;
        let mut next = Some(first);
        while let Some(job) = next.take() {
            let done = job(&mut session);
            answers.push(done.answer);
            broken = done.breaks;
            if broken.is_none() && answers.len() < max {
                match inbox.try_recv() {
                    Ok(Order::Run(job)) => next = Some(job),
                    Ok(Order::Stop) => open = false,
                    Err(_) => {}
                }
            }
        }
        let began = Instant::now();
        let committed = match broken {
            None => on(&mut session.conn, AnsiTransactionManager::commit_transaction).map_err(Error::from),
            Some(error) => Err(error),
        };
        counters.group(answers.len() as u64, committed.is_ok(), began.elapsed());
        match &committed {
            // Once: whoever has no room on the disk has none for a log either.
            Err(error) if !failing => tracing::error!(?error, units = answers.len(), "a group of units was not stored"),
            Ok(()) if failing => tracing::warn!("groups are stored again"),
            _ => {}
        }
        failing = committed.is_err();
        if failing {
            // Whatever state the transaction is in, a new connection is in none.
            let _ = on(&mut session.conn, |conn| conn.batch_execute("ROLLBACK"));
            replace(&mut session, &reopen);
        }
        for answer in answers {
            answer(&committed);
        }
        if counters.wal_pages.load(Ordering::Relaxed) > WAL_PAGES_MAX && restarted.elapsed() > RESTART_PAUSE {
            restarted = Instant::now();
            match on(&mut session.conn, |conn| Ok(open::checkpoint(conn, "PRAGMA wal_checkpoint(RESTART)"))) {
                Ok(Ok((pages, _))) => tracing::debug!(pages, micros = restarted.elapsed().as_micros() as u64, "the write-ahead log begins anew"),
                Ok(Err(error)) => tracing::debug!(?error, "the write-ahead log could not begin anew yet"),
                Err(_) => {}
            }
        }
    }
    if let Err(error) = on(&mut session.conn, |conn| conn.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)")) {
        tracing::warn!(error = ?Error::from(error), "the write-ahead log stays beside the database; the next start reads it");
    }
}

/// A reader.
pub fn read_loop(mut session: Session, reopen: impl Fn() -> Result<SqliteConnection>, inbox: &Receiver<Order>) {
    while let Ok(Order::Run(job)) = inbox.recv() {
        let done = job(&mut session);
        if done.breaks.is_some() {
            replace(&mut session, &reopen);
        }
        (done.answer)(&Ok(()));
    }
}

fn replace(session: &mut Session, reopen: impl Fn() -> Result<SqliteConnection>) {
    match Session::open(reopen) {
        Ok(fresh) => *session = fresh,
        Err(error) => tracing::error!(?error, "the database could not be opened again"),
    }
}

/// Copies the write-ahead log into the file while it grows, beside the writer.
fn checkpoint_loop(mut conn: SqliteConnection, closed: &Receiver<()>, counters: &Counters) {
    let mut seen = 0;
    while let Err(RecvTimeoutError::Timeout) = closed.recv_timeout(CHECKPOINT_EVERY) {
        let commits = counters.commits.load(Ordering::Relaxed);
        if commits == seen {
            continue;
        }
        seen = commits;
        let looked = open::wal_pages(&mut conn).and_then(|(log, copied)| {
            if log - copied < CHECKPOINT_PAGES { Ok((log, copied)) } else { open::checkpoint(&mut conn, "PRAGMA wal_checkpoint(PASSIVE)") }
        });
        match looked {
            Ok((log, _)) => counters.wal_pages.store(u64::try_from(log).unwrap_or(0), Ordering::Relaxed),
            Err(error) => tracing::debug!(?error, "checkpoint postponed"),
        }
    }
}

#[derive(Debug, Default)]
pub struct Counters {
    commits: AtomicU64,
    failed_groups: AtomicU64,
    units: AtomicU64,
    largest_group_units: AtomicU64,
    commit_micros: AtomicU64,
    wal_pages: AtomicU64,
}

impl Counters {
    fn group(&self, units: u64, committed: bool, took: Duration) {
        let counter = if committed { &self.commits } else { &self.failed_groups };
        counter.fetch_add(1, Ordering::Relaxed);
        self.units.fetch_add(units, Ordering::Relaxed);
        self.largest_group_units.fetch_max(units, Ordering::Relaxed);
        self.commit_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }
}

/// The running threads and their queues.
pub struct Threads {
    pub writes: Sender<Order>,
    pub reads: Sender<Order>,
    readers: usize,
    counters: Arc<Counters>,
    closing: AtomicBool,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    threads: Vec<JoinHandle<()>>,
    /// Dropped to end the checkpoints.
    checkpoints: Option<Sender<()>>,
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Threads {
    pub fn new(writes: Sender<Order>, reads: Sender<Order>, readers: usize, counters: Arc<Counters>) -> Self {
        Threads { writes, reads, readers, counters, closing: AtomicBool::new(false), running: Mutex::default() }
    }

    pub fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(work);
        let thread = thread.map_err(|error| Error::new(Code::Unavailable, "there is no thread for the store").with_source(error))?;
        self.running.get_mut().unwrap_or_else(PoisonError::into_inner).threads.push(thread);
        Ok(())
    }

    pub fn spawn_checkpoints(&mut self, conn: SqliteConnection) -> Result<()> {
        let (ends, ended) = bounded::<()>(0);
        let counters = self.counters.clone();
        self.running.get_mut().unwrap_or_else(PoisonError::into_inner).checkpoints = Some(ends);
        self.spawn("gochat-wal", move || checkpoint_loop(conn, &ended, &counters))
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Lets the queues run empty and joins every thread; the writer last, so that it can empty the log.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.threads.is_empty() {
            return;
        }
        running.checkpoints.take();
        for _ in 0..self.readers {
            let _ = self.reads.send(Order::Stop);
        }
        let writer = running.threads.pop();
        for thread in running.threads.drain(..) {
            let _ = thread.join();
        }
        let _ = self.writes.send(Order::Stop);
        let _ = writer.map(JoinHandle::join);
    }

    pub fn stats(&self) -> SqliteStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        SqliteStats {
            commits: read(&counters.commits),
            failed_groups: read(&counters.failed_groups),
            units: read(&counters.units),
            largest_group_units: read(&counters.largest_group_units),
            commit_micros: read(&counters.commit_micros),
            wal_pages: read(&counters.wal_pages),
            writes_waiting: self.writes.len() as u64,
            reads_waiting: self.reads.len() as u64,
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.close();
    }
}

//! SQLite: one writer thread with group commit, readers beside it.
//!
//! ```text
//! write(work) ─► bounded queue ─► writer: BEGIN IMMEDIATE · unit · unit · … · COMMIT ─► answers
//! read(work)  ─► bounded queue ─► reader threads
//! ```
//!
//! A unit of work is a savepoint of its group: its own failure undoes it alone. What queued while the last COMMIT ran
//! is the next group, so the batch grows with the load and nothing waits for a timer. Units run to the end at their
//! first poll, because [`Inline`] runs each statement at once: the shared query text needs no runtime here.
//!
//! Invariant: an answer of a write leaves only after the COMMIT of its group (I1).

#[path = "queries/mod.rs"]
mod queries;

use std::{
    any::Any,
    fmt,
    future::ready,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use diesel::{
    Connection, ExpressionMethods, RunQueryDsl as _, SqliteConnection,
    connection::{AnsiTransactionManager, SimpleConnection, TransactionManager},
    migration::{Migration, MigrationSource},
};
use diesel_async::{
    AsyncConnection,
    sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use futures_util::{FutureExt, future::BoxFuture};
use gochat_core::error::{Code, Error, Result};
use tokio::sync::oneshot;

use super::{
    fail::Fail,
    rows::NewMessageRow,
    schema::{self, messages},
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// The connection that the shared query text runs on.
pub(crate) type Conn = SyncConnectionWrapper<SqliteConnection, Inline>;

/// How the store runs. The defaults suit a server of one process.
#[derive(Clone, Debug)]
pub struct SqliteSettings {
    /// Threads that read.
    pub readers: usize,
    /// Units that may wait for the writer; more are refused with `OVERLOADED`.
    pub writes_waiting_max: usize,
    /// Reads that may wait; more are refused with `OVERLOADED`.
    pub reads_waiting_max: usize,
    /// Units in one COMMIT.
    pub group_units_max: usize,
    /// Page cache of the writer, in KiB; of each reader a quarter. Taken as it is needed.
    pub cache_kib: u32,
    /// Pages that the file may have: a full disk for tests. 0: no limit.
    pub page_count_max: u32,
}

impl Default for SqliteSettings {
    fn default() -> Self {
        SqliteSettings { readers: 2, writes_waiting_max: 4096, reads_waiting_max: 4096, group_units_max: 512, cache_kib: 65_536, page_count_max: 0 }
    }
}

/// Size of the write-ahead log at which the writer itself empties it (the background checkpoint cannot under constant load).
const WAL_BYTES_MAX: u64 = 256 << 20;
/// How often the background thread looks at the write-ahead log.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(100);
/// Growth of the write-ahead log that is worth a checkpoint.
const CHECKPOINT_BYTES: u64 = 4 << 20;

/// A [`Store`](gochat_core::ports::Store) in one SQLite file. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct Database {
    writer: Sender<Job>,
    readers: Sender<Job>,
    counters: Arc<Counters>,
    // Declared last: the channels close before the threads are joined.
    _threads: Arc<Threads>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("sqlite::Database").field("stats", &self.stats()).finish()
    }
}

/// Counters since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SqliteStats {
    /// COMMITs.
    pub commits: u64,
    /// Units of work in them.
    pub units: u64,
    /// Microseconds spent in COMMIT.
    pub commit_micros: u64,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    units: AtomicU64,
    commit_micros: AtomicU64,
}

/// Opens the store in `path`, creating and migrating it as needed.
///
/// # Errors
/// `UNAVAILABLE` if the file cannot be opened, holds the schema of a newer version, or does not keep what it commits
/// (`synchronous=FULL` and WAL are read back).
pub fn open(path: &Path, settings: SqliteSettings) -> Result<Database> {
    let mut first = connect(path, &settings, settings.cache_kib)?;
    migrate(&mut first)?;
    let (writer, writes) = bounded::<Job>(settings.writes_waiting_max);
    let (readers, reads) = bounded::<Job>(settings.reads_waiting_max);
    let counters = Arc::new(Counters::default());
    let mut threads = Vec::new();
    let reopen = {
        let (path, settings) = (path.to_owned(), settings.clone());
        move || connect(&path, &settings, settings.cache_kib)
    };
    let wal = wal_path(path);
    {
        let (counters, wal, max) = (counters.clone(), wal.clone(), settings.group_units_max);
        threads.push(spawn("gochat-sqlite-writer", move || group_commit(first, reopen, &writes, max, &counters, &wal))?);
    }
    for _ in 0..settings.readers.max(1) {
        let mut conn = connect(path, &settings, settings.cache_kib / 4)?;
        conn.batch_execute("PRAGMA query_only=ON").map_err(unavailable)?;
        let reads = reads.clone();
        let (path, settings) = (path.to_owned(), settings.clone());
        threads.push(spawn("gochat-sqlite-reader", move || read_loop(conn, || connect(&path, &settings, settings.cache_kib / 4), &reads))?);
    }
    let checkpoint = connect(path, &settings, 256)?;
    let (closing, closed) = bounded::<()>(0);
    threads.push(spawn("gochat-sqlite-checkpoint", move || checkpoint_loop(checkpoint, &wal, &closed))?);
    Ok(Database { writer, readers, counters, _threads: Arc::new(Threads { closing: Mutex::new(Some(closing)), threads: Mutex::new(threads) }) })
}

impl Database {
    /// Counters since the store was opened.
    pub fn stats(&self) -> SqliteStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SqliteStats { commits: read(&self.counters.commits), units: read(&self.counters.units), commit_micros: read(&self.counters.commit_micros) }
    }

    /// Runs one unit of work as one transaction; durable once it has answered `Ok`. Never cut in half by a dropped caller.
    async fn write<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Fail>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |conn| {
            let outcome = now(conn.transaction(async |conn| work(conn).await));
            let breaks = outcome.as_ref().is_err_and(Fail::breaks_transaction);
            let answer: Answer = Box::new(move |committed| {
                let outcome = outcome.map_err(Error::from);
                let _ = reply.send(match committed {
                    Ok(()) => outcome,
                    // A unit's own refusal stands, whatever became of the group.
                    Err(error) => outcome.and(Err(error)),
                });
            });
            Done { answer, breaks }
        });
        submit(&self.writer, job)?;
        answer.await.unwrap_or_else(|_| Err(Error::new(Code::Unavailable, "the store's writer gave up this unit")))
    }

    /// Runs reads on one connection, one hop for all of them.
    async fn read<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Fail>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |conn| {
            let outcome = now(work(conn));
            Done { answer: Box::new(move |_| drop(reply.send(outcome.map_err(Error::from)))), breaks: false }
        });
        submit(&self.readers, job)?;
        answer.await.unwrap_or_else(|_| Err(Error::new(Code::Unavailable, "the store's reader gave up this read")))
    }
}

/// Runs now, and says what to answer once COMMIT is known.
type Job = Box<dyn FnOnce(&mut Conn) -> Done + Send>;
type Answer = Box<dyn FnOnce(Result<()>) + Send>;

struct Done {
    answer: Answer,
    /// The database may have ended the group's transaction by itself: nothing may follow in it.
    breaks: bool,
}

fn submit(queue: &Sender<Job>, job: Job) -> Result<()> {
    queue.try_send(job).map_err(|refused| match refused {
        TrySendError::Full(_) => Error::new(Code::Overloaded, "the store's queue is full").retry_after(Duration::from_millis(200)),
        TrySendError::Disconnected(_) => Error::new(Code::Unavailable, "the store is closed"),
    })
}

/// The result of a unit of work. It awaits nothing but its connection, whose futures are ready at the first poll.
fn now<T>(work: impl Future<Output = Result<T, Fail>>) -> Result<T, Fail> {
    let other = || Fail::Refused(Error::internal("a unit of work awaited something other than its connection"));
    work.now_or_never().unwrap_or_else(|| Err(other()))
}

fn group_commit(mut conn: Conn, reopen: impl Fn() -> Result<SqliteConnection>, inbox: &Receiver<Job>, max: usize, counters: &Counters, wal: &Path) {
    while let Ok(first) = inbox.recv() {
        if let Err(error) = on(&mut conn, |conn| AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")) {
            // A dropped job drops its reply: its caller learns that nothing is known. No unit runs outside a group.
            tracing::error!(?error, "the store could not begin a transaction");
            if let Ok(fresh) = reopen() {
                conn = Conn::new(fresh);
            }
            continue;
        }
        let mut answers = Vec::new();
        let mut next = Some(first);
        let mut broken = None;
        while let Some(job) = next.take() {
            match catch_unwind(AssertUnwindSafe(|| job(&mut conn))) {
                Ok(done) => {
                    answers.push(done.answer);
                    if done.breaks {
                        broken = Some(Error::new(Code::Unavailable, "the database gave up the transaction; nothing was stored"));
                    }
                }
                Err(panic) => {
                    tracing::error!(panic = text_of(&*panic), "a unit of work panicked; its group is rolled back");
                    broken = Some(Error::new(Code::Unavailable, "another unit of the same group failed; nothing was stored"));
                }
            }
            if broken.is_none() && answers.len() < max {
                next = inbox.try_recv().ok();
            }
        }
        let began = std::time::Instant::now();
        let done = match broken {
            None => on(&mut conn, AnsiTransactionManager::commit_transaction),
            Some(error) => {
                let _ = on(&mut conn, AnsiTransactionManager::rollback_transaction);
                match reopen() {
                    Ok(fresh) => conn = Conn::new(fresh),
                    Err(error) => tracing::error!(?error, "the store could not be opened again"),
                }
                Err(error)
            }
        };
        if done.is_err() {
            let _ = on(&mut conn, AnsiTransactionManager::rollback_transaction);
        }
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters.units.fetch_add(answers.len() as u64, Ordering::Relaxed);
        counters.commit_micros.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        for answer in answers {
            answer(done.as_ref().map(|()| ()).map_err(Error::same));
        }
        if bytes(wal) > WAL_BYTES_MAX {
            let _ = on(&mut conn, |conn| conn.batch_execute("PRAGMA wal_checkpoint(RESTART)"));
        }
    }
    let _ = on(&mut conn, |conn| conn.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)"));
}

fn read_loop(conn: SqliteConnection, reopen: impl Fn() -> Result<SqliteConnection>, inbox: &Receiver<Job>) {
    let mut conn = Conn::new(conn);
    while let Ok(job) = inbox.recv() {
        match catch_unwind(AssertUnwindSafe(|| job(&mut conn))) {
            Ok(done) => (done.answer)(Ok(())),
            Err(panic) => {
                tracing::error!(panic = text_of(&*panic), "a read panicked");
                if let Ok(fresh) = reopen() {
                    conn = Conn::new(fresh);
                }
            }
        }
    }
}

fn checkpoint_loop(mut conn: SqliteConnection, wal: &Path, closed: &Receiver<()>) {
    let mut seen = 0;
    while let Err(RecvTimeoutError::Timeout) = closed.recv_timeout(CHECKPOINT_EVERY) {
        let size = bytes(wal);
        if size.abs_diff(seen) >= CHECKPOINT_BYTES {
            seen = size;
            if let Err(error) = conn.batch_execute("PRAGMA wal_checkpoint(PASSIVE)") {
                tracing::debug!(%error, "checkpoint postponed");
            }
        }
    }
}

fn on<T: Send + 'static>(conn: &mut Conn, work: impl FnOnce(&mut SqliteConnection) -> diesel::QueryResult<T> + Send + 'static) -> Result<T> {
    now(conn.spawn_blocking(work).map(|done| done.map_err(Fail::from))).map_err(Error::from)
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}

fn bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

fn wal_path(path: &Path) -> PathBuf {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    wal.into()
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Code::Unavailable, "the database cannot be opened").with_source(error)
}

fn connect(path: &Path, settings: &SqliteSettings, cache_kib: u32) -> Result<SqliteConnection> {
    let name = path.to_str().ok_or_else(|| Error::new(Code::Unavailable, "the database's path is not UTF-8"))?;
    let mut conn = SqliteConnection::establish(name)
        .map_err(|error| Error::new(Code::Unavailable, format!("the database {name} cannot be opened: {error}")).with_source(error))?;
    let mut pragmas = format!(
        "PRAGMA busy_timeout=5000; PRAGMA page_size=4096; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;
         PRAGMA temp_store=MEMORY; PRAGMA cache_size=-{cache_kib};"
    );
    if settings.page_count_max > 0 {
        pragmas.push_str(&format!("PRAGMA max_page_count={};", settings.page_count_max));
    }
    conn.batch_execute(&pragmas).map_err(unavailable)?;
    let synchronous = pragma_number(&mut conn, "synchronous")?;
    let mode = pragma_text(&mut conn, "journal_mode")?;
    if synchronous != 2 || mode != "wal" {
        return Err(Error::new(Code::Unavailable, format!("the database would not keep what it commits: synchronous={synchronous}, journal_mode={mode}")));
    }
    Ok(conn)
}

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    value: i64,
}

#[derive(diesel::QueryableByName)]
struct Text {
    #[diesel(sql_type = diesel::sql_types::Text)]
    value: String,
}

fn pragma_number(conn: &mut SqliteConnection, name: &str) -> Result<i64> {
    let row: Number = diesel::sql_query(format!("SELECT {name} AS value FROM pragma_{name}")).get_result(conn).map_err(unavailable)?;
    Ok(row.value)
}

fn pragma_text(conn: &mut SqliteConnection, name: &str) -> Result<String> {
    let row: Text = diesel::sql_query(format!("SELECT {name} AS value FROM pragma_{name}")).get_result(conn).map_err(unavailable)?;
    Ok(row.value)
}

fn migrate(conn: &mut SqliteConnection) -> Result<()> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| Error::new(Code::Unavailable, "the database could not be migrated").with_source(error);
    let known: Vec<String> = MigrationSource::<diesel::sqlite::Sqlite>::migrations(&MIGRATIONS)
        .map_err(failed)?
        .iter()
        .map(|migration| Migration::<diesel::sqlite::Sqlite>::name(&**migration).version().to_string())
        .collect();
    let applied = MigrationHarness::<diesel::sqlite::Sqlite>::applied_migrations(conn).map_err(failed)?;
    if let Some(newer) = applied.iter().map(ToString::to_string).find(|version| !known.contains(version)) {
        return Err(Error::new(
            Code::Unavailable,
            format!("the database holds schema version {newer}, which this version of GoChat does not know; start the newer version that made it"),
        ));
    }
    conn.run_pending_migrations(MIGRATIONS).map_err(failed)?;
    Ok(())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(work).map_err(|error| Error::new(Code::Unavailable, "no thread for the store").with_source(error))
}

struct Threads {
    closing: Mutex<Option<Sender<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner).take();
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}

/// Runs each statement at once on the thread that polls.
pub(crate) struct Inline;

impl SpawnBlocking for Inline {
    fn spawn_blocking<'a, R: Send + 'static>(
        &mut self, task: impl FnOnce() -> R + Send + 'static,
    ) -> BoxFuture<'a, Result<R, Box<dyn std::error::Error + Send + Sync + 'static>>> {
        Box::pin(ready(Ok(task())))
    }

    fn get_runtime() -> Self {
        Inline
    }
}

// ---- what differs from other databases ----

/// Reads a row that this transaction is going to change. There is one writer, so there is nothing to lock.
macro_rules! locked {
    ($query:expr) => {
        $query
    };
}
use locked;

/// Stores a message unless its idempotency key is there; `false`: it is. Only that key is let pass: a seq that is taken
/// stays an error.
async fn insert_message(conn: &mut Conn, row: NewMessageRow) -> Result<bool, Fail> {
    let stored = diesel_async::RunQueryDsl::execute(
        diesel::insert_into(messages::table)
            .values(row)
            .on_conflict((messages::client_msg_id, messages::conversation_id, messages::sender_id))
            .do_nothing(),
        conn,
    )
    .await?;
    Ok(stored == 1)
}

/// Stores many rows of one table. SQLite gains nothing from multi-row statements: one cached statement, row by row.
macro_rules! insert_all {
    ($conn:expr, $table:expr, $rows:expr) => {{
        for row in $rows {
            diesel_async::RunQueryDsl::execute(diesel::insert_into($table).values(row), $conn).await?;
        }
        Ok::<(), Fail>(())
    }};
}
use insert_all;

/// Stores a row unless one of its keys is there; answers with the number of rows stored.
macro_rules! insert_new {
    ($conn:expr, $table:expr, $row:expr) => {
        diesel_async::RunQueryDsl::execute(diesel::insert_into($table).values($row).on_conflict_do_nothing(), $conn)
    };
}
use insert_new;

#[allow(unused_imports)]
use schema as _;
#[allow(unused_imports)]
use ExpressionMethods as _;

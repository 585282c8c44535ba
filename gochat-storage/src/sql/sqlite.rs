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

mod append;
mod handle;
mod open;
mod pages;
#[allow(clippy::duplicate_mod, reason = "the same text, compiled once per database")]
#[path = "queries/mod.rs"]
mod queries;
mod threads;

use std::{fmt, future::ready, path::Path, sync::Arc, time::Duration};

use crossbeam_channel::{TrySendError, bounded};
use diesel::{BoolExpressionMethods, ExpressionMethods, JoinOnDsl, OptionalExtension, QueryDsl, SelectableHelper, SqliteConnection};
use diesel_async::{
    RunQueryDsl,
    methods::LoadQuery,
    sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper},
};
use futures_util::future::BoxFuture;
use gochat_core::{
    error::{Code, Error, Result},
    ids::{ConversationId, DeviceId, Seq, UserId},
    model::{Member, Message},
    ports::{AppendBatch, Appended},
};
use tokio::sync::oneshot;

use super::{
    fail::Fail,
    rows::{DeviceRow, LoginRow, MemberRow, NewMessageRow, PushJobRow},
    schema::{conversations, devices, login_log, members, messages, push_jobs},
};
use append::Prepared;
use handle::Session;
use queries::builder::Diesel;
use threads::{Counters, Job, Order, Threads};

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
    /// Pages of 4 KiB that the file may have; then writes are refused with `STORAGE_FULL`. 0: as many as the disk holds.
    pub page_count_max: u32,
    /// Append and read pages with the query builder's statements instead of prepared ones: slower, and the measure of their
    /// correctness.
    pub by_query_builder: bool,
}

impl Default for SqliteSettings {
    fn default() -> Self {
        SqliteSettings {
            readers: 2,
            writes_waiting_max: 4096,
            reads_waiting_max: 4096,
            group_units_max: 512,
            cache_kib: 65_536,
            page_count_max: 0,
            by_query_builder: false,
        }
    }
}

/// A [`Store`](gochat_core::ports::Store) in one SQLite file. Cheap to clone; [`close`](Self::close), or dropping the
/// last clone, ends it.
#[derive(Clone)]
pub struct Database {
    threads: Arc<Threads>,
    by_query_builder: bool,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("sqlite::Database").field("stats", &self.stats()).finish()
    }
}

/// Counters since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SqliteStats {
    /// Groups that were committed.
    pub commits: u64,
    /// Groups that were given up: a full disk, an I/O error, a fault of ours.
    pub failed_groups: u64,
    /// Units of work in all groups.
    pub units: u64,
    /// Units in the largest group.
    pub largest_group_units: u64,
    /// Microseconds spent in COMMIT.
    pub commit_micros: u64,
    /// Pages in the write-ahead log when it was last looked at.
    pub wal_pages: u64,
    /// Units that wait for the writer now.
    pub writes_waiting: u64,
    /// Reads that wait now.
    pub reads_waiting: u64,
}

/// Opens the store in `path`, creating and migrating it as needed. Blocks for as long as that takes.
///
/// # Errors
/// `UNAVAILABLE` if the file cannot be opened, holds the schema of a newer version, or would not keep what it commits
/// (`synchronous=FULL` and WAL are read back).
pub fn open(path: &Path, settings: &SqliteSettings) -> Result<Database> {
    let writer = Session::open(|| {
        let mut conn = open::connect(path, settings, settings.cache_kib)?;
        open::migrate(&mut conn)?;
        Ok(conn)
    })?;
    let readers = (0..settings.readers.max(1)).map(|_| Session::open(|| open::connect_reader(path, settings))).collect::<Result<Vec<_>>>()?;
    let checkpointer = open::connect(path, settings, 256)?;
    let (writes, write_queue) = bounded(settings.writes_waiting_max);
    let (reads, read_queue) = bounded(settings.reads_waiting_max);
    let counters = Arc::new(Counters::default());
    let mut threads = Threads::new(writes, reads, readers.len(), counters.clone());
    let (path, settings) = (path.to_owned(), settings.clone());
    let by_query_builder = settings.by_query_builder;
    for reader in readers {
        let (queue, path, settings) = (read_queue.clone(), path.clone(), settings.clone());
        threads.spawn("gochat-read", move || threads::read_loop(reader, || open::connect_reader(&path, &settings), &queue))?;
    }
    threads.spawn_checkpoints(checkpointer)?;
    threads.spawn("gochat-write", move || {
        let reopen = || open::connect(&path, &settings, settings.cache_kib);
        threads::group_commit(writer, reopen, &write_queue, settings.group_units_max, &counters);
    })?;
    Ok(Database { threads: Arc::new(threads), by_query_builder })
}

impl Database {
    /// Ends the store: what waits is still done, the write-ahead log is emptied into the file, the threads end. Later
    /// calls answer `UNAVAILABLE`. Blocks for as long as that takes; a second call waits for the first.
    pub fn close(&self) {
        self.threads.close();
    }

    /// Counters since the store was opened.
    pub fn stats(&self) -> SqliteStats {
        self.threads.stats()
    }

    /// Runs one unit of work as one transaction; durable once it has answered `Ok`. Never cut in half by a dropped caller.
    async fn write<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Fail>> + Send + 'static,
    {
        self.write_in(|session| threads::now(work(&mut session.conn))).await
    }

    async fn write_in<T: Send + 'static>(&self, work: impl FnOnce(&mut Session) -> Result<T, Fail> + Send + 'static) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.submit(&self.threads.writes, threads::unit(work, reply))?;
        answer.await.unwrap_or_else(|_| Err(Error::new(Code::Unavailable, "the store could not begin a transaction")))
    }

    /// Runs reads on one connection, one hop for all of them. There is no transaction around them: each statement sees
    /// what was committed when it began.
    async fn read<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Fail>> + Send + 'static,
    {
        self.read_in(|session| threads::now(work(&mut session.conn))).await
    }

    async fn read_in<T: Send + 'static>(&self, work: impl FnOnce(&mut Session) -> Result<T, Fail> + Send + 'static) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.submit(&self.threads.reads, threads::reading(work, reply))?;
        answer.await.unwrap_or_else(|_| Err(Error::new(Code::Unavailable, "the store is closed")))
    }

    fn submit(&self, queue: &crossbeam_channel::Sender<Order>, job: Job) -> Result<()> {
        if self.threads.is_closing() {
            return Err(Error::new(Code::Unavailable, "the store is closed"));
        }
        queue.try_send(Order::Run(job)).map_err(|refused| match refused {
            TrySendError::Full(_) => Error::new(Code::Overloaded, "the store's queue is full").retry_after(Duration::from_millis(200)),
            TrySendError::Disconnected(_) => Error::new(Code::Unavailable, "the store is closed"),
        })
    }
}

/// Runs each statement at once on the thread that polls.
pub(crate) struct Inline;

impl SpawnBlocking for Inline {
    fn spawn_blocking<'a, R: Send + 'static>(
        &mut self,
        task: impl FnOnce() -> R + Send + 'static,
    ) -> BoxFuture<'a, Result<R, Box<dyn std::error::Error + Send + Sync + 'static>>> {
        Box::pin(ready(Ok(task())))
    }

    fn get_runtime() -> Self {
        Inline
    }
}

// ---- what differs from other databases: used by queries/ ----

impl Database {
    /// Appends with prepared statements, unless the settings say otherwise.
    async fn append(&self, batch: AppendBatch) -> Result<Vec<Result<Appended>>> {
        if self.by_query_builder {
            return self.write_in(move |session| threads::now(queries::append::append(&mut Diesel(&mut session.conn), &batch))).await;
        }
        self.write_in(move |session| threads::now(queries::append::append(&mut Prepared(&mut session.statements), &batch))).await
    }

    /// Reads a page as the reader sees it, in the same way.
    async fn history(&self, reader: UserId, id: ConversationId, after: Option<Seq>, before: Option<Seq>, limit: usize) -> Result<Vec<Message>> {
        if self.by_query_builder {
            return self
                .read_in(move |session| threads::now(queries::log::history(&mut Diesel(&mut session.conn), reader, id, after, before, limit)))
                .await;
        }
        self.read_in(move |session| threads::now(queries::log::history(&mut Prepared(&mut session.statements), reader, id, after, before, limit)))
            .await
    }

    /// Reads a page as it is, in the same way.
    async fn log(&self, id: ConversationId, after: Seq, through: Seq, limit: usize) -> Result<Vec<Message>> {
        if self.by_query_builder {
            return self.read_in(move |session| threads::now(queries::log::range(&mut Diesel(&mut session.conn), id, after, through, limit))).await;
        }
        self.read_in(move |session| threads::now(queries::log::range(&mut Prepared(&mut session.statements), id, after, through, limit))).await
    }
}

/// Marks a query whose rows this transaction is going to change. There is one writer, so there is nothing to lock.
macro_rules! locked {
    ($query:expr) => {
        $query
    };
}
use locked;

/// Marks a query for rows that this transaction takes for itself, whichever nobody else is taking.
macro_rules! taken {
    ($query:expr) => {
        $query
    };
}
use taken;

/// The rows of all these queries, which are alike: each is prepared already.
async fn load_each<Q, R>(conn: &mut Conn, queries: Vec<Q>) -> Result<Vec<R>, Fail>
where
    Q: for<'q> LoadQuery<'q, Conn, R>,
    R: Send,
{
    let mut rows = Vec::with_capacity(queries.len());
    for query in queries {
        rows.extend(RunQueryDsl::load::<R>(query, conn).await?);
    }
    Ok(rows)
}

/// Stores a message unless its idempotency key is there; `false`: it is. Only that key is let pass: a seq that is taken
/// stays an error.
async fn insert_message(conn: &mut Conn, row: &NewMessageRow) -> Result<bool, Fail> {
    let key = (messages::client_msg_id, messages::conversation_id, messages::sender_id);
    let stored = diesel::insert_into(messages::table).values(row).on_conflict(key).do_nothing().execute(conn).await?;
    Ok(stored == 1)
}

/// Stores members. SQLite gains nothing from a statement of many rows: one cached statement, row by row.
async fn insert_members(conn: &mut Conn, rows: &[MemberRow]) -> Result<(), Fail> {
    for row in rows {
        diesel::insert_into(members::table).values(row).execute(conn).await?;
    }
    Ok(())
}

/// Stores push jobs, but not those that are there for their (user, device, message); answers with how many are new.
async fn insert_push_jobs(conn: &mut Conn, rows: &[PushJobRow]) -> Result<usize, Fail> {
    let key = (push_jobs::user_id, push_jobs::device_id, push_jobs::message_id);
    let mut added = 0;
    for row in rows {
        added += diesel::insert_into(push_jobs::table).values(row).on_conflict(key).do_nothing().execute(conn).await?;
    }
    Ok(added)
}

/// Writes lines of the login log.
async fn insert_logins(conn: &mut Conn, rows: &[LoginRow]) -> Result<(), Fail> {
    for row in rows {
        diesel::insert_into(login_log::table).values(row).execute(conn).await?;
    }
    Ok(())
}

/// The newest interval of each of these members, with the conversation's head.
async fn newest_intervals(conn: &mut Conn, keys: &[(ConversationId, UserId)]) -> Result<Vec<(i64, MemberRow)>, Fail> {
    let mut found = Vec::with_capacity(keys.len());
    for (id, user) in keys {
        let query = members::table
            .inner_join(conversations::table.on(conversations::id.eq(members::conversation_id)))
            .filter(members::conversation_id.eq(&id.as_bytes()[..]).and(members::user_id.eq(&user.as_bytes()[..])))
            .order(members::join_seq.desc())
            .select((conversations::head_seq, MemberRow::as_select()));
        found.extend(query.first::<(i64, MemberRow)>(conn).await.optional()?);
    }
    Ok(found)
}

/// Writes the marks of these intervals.
async fn store_marks(conn: &mut Conn, intervals: &[Member]) -> Result<(), Fail> {
    for member in intervals {
        let row = members::table.find((&member.conversation.as_bytes()[..], &member.user.as_bytes()[..], member.join_seq.0));
        let values = (members::read_seq.eq(member.read_seq.0), members::delivered_seq.eq(member.delivered_seq.0));
        diesel::update(row).set(values).execute(conn).await?;
    }
    Ok(())
}

/// Raises what was dispatched, up to the head. Sorted by id.
async fn raise_dispatched(conn: &mut Conn, marks: &[(ConversationId, Seq)]) -> Result<(), Fail> {
    for (id, seq) in marks {
        let behind = conversations::dispatched_seq.lt(seq.0).and(conversations::head_seq.ge(seq.0));
        let rows = conversations::table.filter(conversations::id.eq(&id.as_bytes()[..]).and(behind));
        diesel::update(rows).set(conversations::dispatched_seq.eq(seq.0)).execute(conn).await?;
    }
    Ok(())
}

/// The devices with these keys, locked.
async fn locked_devices(conn: &mut Conn, keys: &[(UserId, DeviceId)]) -> Result<Vec<DeviceRow>, Fail> {
    let mut found = Vec::with_capacity(keys.len());
    for (user, id) in keys {
        let query = devices::table.find((&user.as_bytes()[..], &id.as_bytes()[..])).select(DeviceRow::as_select());
        found.extend(query.first(conn).await.optional()?);
    }
    Ok(found)
}

/// Stores devices that are new.
async fn insert_devices(conn: &mut Conn, rows: &[&DeviceRow]) -> Result<(), Fail> {
    for &row in rows {
        diesel::insert_into(devices::table).values(row).execute(conn).await?;
    }
    Ok(())
}

/// Writes the connections of devices: epoch and time.
async fn store_connections(conn: &mut Conn, rows: &[&DeviceRow]) -> Result<(), Fail> {
    for row in rows {
        let values = (devices::connection_epoch.eq(row.connection_epoch), devices::last_seen_at.eq(row.last_seen_at));
        diesel::update(devices::table.find((&row.user_id, &row.device_id))).set(values).execute(conn).await?;
    }
    Ok(())
}

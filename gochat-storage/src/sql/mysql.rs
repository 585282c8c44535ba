//! MySQL and MariaDB: any number of processes on one database.
//!
//! ```text
//! write(work) ─► place (bounded wait) ─► task: BEGIN ─► work ─► COMMIT ─► answer        mysql/units.rs
//! read(work)  ─► place (bounded wait) ─► task: work ─► answer
//! append      ─► what waits together ─► work of seven statements, whatever the number of drafts   mysql/appends.rs, mysql/append.rs
//! ```
//!
//! Isolation is READ COMMITTED and decisions are made on rows that the transaction has locked: conversations in the order of
//! their ids, then members. A circle of waiting transactions that is left after that is broken by the server, and the unit run
//! again.
//!
//! Invariant: an answer of a write leaves only after COMMIT was confirmed (I1); what it is worth says [`Durability`].

mod append;
mod appends;
mod lanes;
mod open;
#[allow(clippy::duplicate_mod, reason = "the same text, compiled once per database")]
#[path = "queries/mod.rs"]
mod queries;
mod statement;
mod units;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use diesel_async::{AsyncMysqlConnection, RunQueryDsl, methods::LoadQuery};
use futures_util::{FutureExt, future::BoxFuture};
use gochat_core::{
    error::{Code, Error, Result},
    ids::{ConversationId, DeviceId, Seq, UserId},
    model::{Member, Message},
    ports::{AppendBatch, Appended},
};
use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    fail::Fail,
    rows::{DeviceRow, LoginRow, MemberRow, NewMessageRow, PushJobRow},
    schema::{devices, login_log, members, messages, push_jobs},
};
use append::{Batch, Columns};
use appends::Appends;
use lanes::Lane;
use open::Connector;
use queries::builder::Diesel;
use statement::{Statement, Union, padded};
use units::{Counters, count};

pub use open::{Durability, migrate};

/// The connection that the shared query text runs on.
pub(crate) type Conn = AsyncMysqlConnection;

/// Bytes that a server must take in one packet: the largest body and its row, several times.
const PACKET_BYTES_MIN: usize = 1 << 20;
/// Bytes of one statement that are enough, however much more the server would take.
const PACKET_BYTES_MAX: usize = 16 << 20;
/// Rows in one INSERT of the query builder's.
const INSERT_ROWS_MAX: usize = 1000;

/// Queries in one UNION.
const UNION_MAX: usize = 100;

/// How the store runs. The defaults suit a server of its own with one to eight `repo` processes.
#[derive(Clone)]
pub struct MysqlSettings {
    /// `mysql://user:password@host:port/database`.
    pub url: String,
    /// Connections for writes. Two that commit batches fill two cores of a database; more add latency, not messages. Four leave
    /// room for the small writes between them.
    pub writers: usize,
    /// Connections for reads.
    pub readers: usize,
    /// Writes that may wait for a connection; more are refused with `OVERLOADED`.
    pub writes_waiting_max: usize,
    /// Reads that may wait for a connection; more are refused with `OVERLOADED`.
    pub reads_waiting_max: usize,
    /// How long a call waits for a connection before it is refused with `OVERLOADED`.
    pub wait: Duration,
    /// How long opening a connection may take before the database counts as away (`UNAVAILABLE`).
    pub connect_timeout: Duration,
    /// How long the server lets a statement wait for a row that another transaction holds; in whole seconds.
    pub lock_wait: Duration,
    /// How long the server lets a statement run (MySQL: a reading one).
    pub statement_limit: Duration,
    /// How long a unit of work may take with all its repetitions; then its connection is given up.
    pub unit_limit: Duration,
    /// Bring the schema up to date in [`connect`].
    pub migrate: bool,
    /// Append with the query builder's statements, one by one: much slower, and the measure of the batch's correctness.
    pub by_query_builder: bool,
}

impl MysqlSettings {
    /// The defaults for this database.
    pub fn new(url: impl Into<String>) -> Self {
        MysqlSettings {
            url: url.into(),
            writers: 4,
            readers: 4,
            writes_waiting_max: 4096,
            reads_waiting_max: 4096,
            wait: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            lock_wait: Duration::from_secs(2),
            statement_limit: Duration::from_secs(5),
            unit_limit: Duration::from_secs(10),
            migrate: false,
            by_query_builder: false,
        }
    }
}

impl fmt::Debug for MysqlSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL holds a password.
        f.debug_struct("MysqlSettings").field("writers", &self.writers).field("readers", &self.readers).finish_non_exhaustive()
    }
}

/// A [`Store`](gochat_core::ports::Store) in one MySQL or MariaDB database. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    writers: Arc<Lane>,
    readers: Arc<Lane>,
    appends: Appends,
    /// Where connections were opened and units run, whoever calls.
    runtime: Handle,
    unit_limit: Duration,
    packet_bytes: usize,
    by_query_builder: bool,
    durability: Durability,
    counters: Counters,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("mysql::Database").field("stats", &self.stats()).finish()
    }
}

/// Counters since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MysqlStats {
    /// Transactions that were committed.
    pub commits: u64,
    /// Units that were run again: a lost race, a dead connection.
    pub repeats: u64,
    /// Connections that died under a unit.
    pub lost_connections: u64,
    /// Connections that were opened.
    pub opened_connections: u64,
    /// Writes that wait for a connection now.
    pub writes_waiting: usize,
    /// Reads that wait for a connection now.
    pub reads_waiting: usize,
}

/// Connects to a database, migrating it if the settings say so. The runtime that this is called on runs the store's work.
///
/// # Errors
/// `UNAVAILABLE` if the server is away or the schema is not of this version.
pub async fn connect(settings: &MysqlSettings) -> Result<Database> {
    if settings.migrate {
        migrate(&settings.url).await?;
    } else {
        open::check(&settings.url).await?;
    }
    let connector = Connector::new(settings);
    let durability = Durability::read(&mut connector.connect().await?).await?;
    let packet_bytes = usize::try_from(durability.max_allowed_packet_bytes).unwrap_or(0).clamp(PACKET_BYTES_MIN, PACKET_BYTES_MAX);
    let shared = Shared {
        writers: Lane::new(connector.clone(), settings.writers, settings.writes_waiting_max, settings.wait),
        readers: Lane::new(connector, settings.readers, settings.reads_waiting_max, settings.wait),
        appends: Appends::default(),
        runtime: Handle::current(),
        unit_limit: settings.unit_limit,
        packet_bytes,
        by_query_builder: settings.by_query_builder,
        durability,
        counters: Counters::default(),
    };
    Ok(Database { shared: Arc::new(shared) })
}

impl Database {
    /// Ends the store: what has begun is still done, then the connections are closed. Later calls answer `UNAVAILABLE`.
    pub async fn close(&self) {
        self.shared.writers.close().await;
        self.shared.readers.close().await;
    }

    /// What the server promises about COMMIT, as it was at the start.
    pub fn durability(&self) -> &Durability {
        &self.shared.durability
    }

    /// Counters since the store was opened.
    pub fn stats(&self) -> MysqlStats {
        let Shared { writers, readers, counters, .. } = &*self.shared;
        MysqlStats {
            commits: count(&counters.commits),
            repeats: count(&counters.repeats),
            lost_connections: count(&counters.lost),
            opened_connections: writers.opened() + readers.opened(),
            writes_waiting: writers.waiting(),
            reads_waiting: readers.waiting(),
        }
    }

    /// Runs one unit of work as one transaction; durable once it has answered `Ok`. Never cut in half by a dropped caller. A unit
    /// that loses a race is run again from its start.
    async fn write<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Fail>> + Clone + Send + 'static,
    {
        let place = self.shared.writers.enter().await?;
        let shared = self.shared.clone();
        let task = async move { units::write(&place, work, shared.unit_limit, &shared.counters).await };
        finished(self.shared.runtime.spawn(task)).await
    }

    /// Runs reads on one connection. There is no transaction around them: each statement sees what was committed when it began.
    async fn read<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Fail>> + Clone + Send + 'static,
    {
        let place = self.shared.readers.enter().await?;
        let shared = self.shared.clone();
        let task = async move { units::read(&place, work, shared.unit_limit, &shared.counters).await };
        finished(self.shared.runtime.spawn(task)).await
    }
}

/// The outcome of a task of the store.
async fn finished<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    match task.await {
        Ok(outcome) => outcome,
        Err(error) if error.is_cancelled() => Err(Error::new(Code::Unavailable, "the store's runtime has ended")),
        Err(error) => {
            tracing::error!(%error, "a unit of work panicked; its transaction is rolled back");
            Err(Error::internal(error))
        }
    }
}

// ---- what differs from other databases: used by queries/ ----

impl Database {
    /// Appends together with what other batches wait.
    async fn append(&self, batch: AppendBatch) -> Result<Vec<Result<Appended>>> {
        self.append_with_others(batch).await
    }

    /// Appends in a transaction of its own: with statements for the whole batch, unless the settings say otherwise.
    async fn append_alone(&self, batch: AppendBatch) -> Result<Vec<Result<Appended>>> {
        let batch = Arc::new(batch);
        if self.shared.by_query_builder {
            return self.write(move |conn| async move { queries::append::append(&mut Diesel(conn), &batch).await }.boxed()).await;
        }
        let packet_bytes = self.shared.packet_bytes;
        self.write(move |conn| async move { queries::append::append(&mut Batch::new(conn, packet_bytes), &batch).await }.boxed()).await
    }

    /// Reads a page as the reader sees it.
    async fn history(&self, reader: UserId, id: ConversationId, after: Option<Seq>, before: Option<Seq>, limit: usize) -> Result<Vec<Message>> {
        self.read(move |conn| async move { queries::log::history(&mut Diesel(conn), reader, id, after, before, limit).await }.boxed()).await
    }

    /// Reads a page as it is.
    async fn log(&self, id: ConversationId, after: Seq, through: Seq, limit: usize) -> Result<Vec<Message>> {
        self.read(move |conn| async move { queries::log::range(&mut Diesel(conn), id, after, through, limit).await }.boxed()).await
    }
}

/// Marks a query whose rows this transaction is going to change, or decides on.
macro_rules! locked {
    ($query:expr) => {
        diesel::QueryDsl::for_update($query)
    };
}
use locked;

/// Marks a query for rows that this transaction takes for itself, whichever nobody else is taking.
macro_rules! taken {
    ($query:expr) => {
        diesel::QueryDsl::skip_locked(diesel::QueryDsl::for_update($query))
    };
}
use taken;

/// The rows of all these queries, which are alike, in one statement.
async fn load_each<Q, R>(conn: &mut Conn, queries: Vec<Q>) -> Result<Vec<R>, Fail>
where
    Q: for<'q> LoadQuery<'q, Conn, R>,
    Union<Q>: for<'q> LoadQuery<'q, Conn, R>,
    R: Send,
{
    let mut rows = Vec::with_capacity(queries.len());
    let mut queries = queries.into_iter();
    loop {
        let mut some: Vec<Q> = queries.by_ref().take(UNION_MAX).collect();
        rows.extend(match (some.pop(), some.is_empty()) {
            (None, _) => return Ok(rows),
            // Alone it is the same text each time, and stays prepared.
            (Some(only), true) => RunQueryDsl::load::<R>(only, conn).await?,
            (Some(last), false) => {
                some.push(last);
                RunQueryDsl::load::<R>(Union(some), conn).await?
            }
        });
    }
}

/// Stores a message unless its idempotency key is there; `false`: it is. Only that key is let pass: a seq that is taken
/// stays an error. (`INSERT IGNORE` would let everything pass, and cut what is too long.)
async fn insert_message(conn: &mut Conn, row: &NewMessageRow) -> Result<bool, Fail> {
    match diesel::insert_into(messages::table).values(row).execute(conn).await {
        Ok(_) => Ok(true),
        // The name of the key ends the text; what comes before it holds bytes that clients choose.
        Err(diesel::result::Error::DatabaseError(diesel::result::DatabaseErrorKind::UniqueViolation, told))
            if told.message().trim_end_matches('\'').ends_with("messages_once") =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Stores members.
async fn insert_members(conn: &mut Conn, rows: &[MemberRow]) -> Result<(), Fail> {
    for rows in rows.chunks(INSERT_ROWS_MAX) {
        diesel::insert_into(members::table).values(rows).execute(conn).await?;
    }
    Ok(())
}

/// Stores push jobs, but not those that are there for their (user, device, message); answers with how many are new. (What an
/// upsert answers does not tell new rows from old ones.) Whoever stores the same ones at the same time fails at the key and is
/// run again.
async fn insert_push_jobs(conn: &mut Conn, rows: &[PushJobRow]) -> Result<usize, Fail> {
    let mut added = 0;
    for rows in rows.chunks(INSERT_ROWS_MAX) {
        let (keys, keep) = padded(rows);
        let mut statement = Statement::<(diesel::sql_types::Binary, diesel::sql_types::Binary, diesel::sql_types::Binary)>::new(
            "SELECT user_id, device_id, message_id FROM push_jobs FORCE INDEX (push_jobs_once) WHERE (user_id, device_id, message_id) IN (",
            keep,
        );
        statement
            .rows(keys, ",", |statement, row| {
                statement.text("(").bytes(&row.user_id).text(",").bytes(&row.device_id).text(",").bytes(&row.message_id).text(")");
            })
            .text(")");
        let mut seen: HashSet<(Vec<u8>, Vec<u8>, Vec<u8>)> = RunQueryDsl::load(statement, conn).await?.into_iter().collect();
        let once = |row: &&PushJobRow| seen.insert((row.user_id.clone(), row.device_id.clone(), row.message_id.clone()));
        let mut new: Vec<&PushJobRow> = rows.iter().filter(once).collect();
        // In the order of the key: two that store the same ones never wait for each other in a circle.
        new.sort_unstable_by_key(|row| (&row.user_id, &row.device_id, &row.message_id));
        if !new.is_empty() {
            added += diesel::insert_into(push_jobs::table).values(new).execute(conn).await?;
        }
    }
    Ok(added)
}

/// Writes lines of the login log.
async fn insert_logins(conn: &mut Conn, rows: &[LoginRow]) -> Result<(), Fail> {
    for rows in rows.chunks(INSERT_ROWS_MAX) {
        diesel::insert_into(login_log::table).values(rows).execute(conn).await?;
    }
    Ok(())
}

/// The newest interval of each of these members, locked, with the conversation's head. The head is read after the member is
/// locked: a mark never waits for an append, nor an append for a mark.
async fn newest_intervals(conn: &mut Conn, keys: &[(ConversationId, UserId)]) -> Result<Vec<(i64, MemberRow)>, Fail> {
    let mut newest: Vec<MemberRow> = Vec::with_capacity(keys.len());
    for row in append::intervals(conn, keys, " FOR UPDATE").await? {
        match newest.last_mut() {
            Some(last) if last.conversation_id == row.conversation_id && last.user_id == row.user_id => *last = row,
            _ => newest.push(row),
        }
    }
    let mut heads: HashMap<Vec<u8>, i64> = HashMap::with_capacity(keys.len());
    let mut ids: Vec<&[u8]> = newest.iter().map(|row| &row.conversation_id[..]).collect();
    ids.dedup();
    for ids in ids.chunks(INSERT_ROWS_MAX) {
        let (ids, keep) = padded(ids);
        let mut statement = Statement::<(diesel::sql_types::Binary, diesel::sql_types::BigInt)>::new(
            "SELECT id, head_seq FROM conversations FORCE INDEX (PRIMARY) WHERE id IN (",
            keep,
        );
        statement
            .rows(ids, ",", |statement, id| {
                statement.bytes(id);
            })
            .text(")");
        heads.extend(RunQueryDsl::load::<(Vec<u8>, i64)>(statement, conn).await?);
    }
    Ok(newest.into_iter().map(|row| (heads.get(&row.conversation_id).copied().unwrap_or(0), row)).collect())
}

/// Writes the marks of these intervals.
async fn store_marks(conn: &mut Conn, intervals: &[Member]) -> Result<(), Fail> {
    for intervals in intervals.chunks(INSERT_ROWS_MAX) {
        let (rows, keep) = padded(intervals);
        let mut statement = Statement::<()>::new("UPDATE (", keep);
        statement
            .rows(rows, " UNION ALL ", |statement, member| {
                statement.text("SELECT CAST(").bytes(member.conversation.as_bytes()).text(" AS BINARY(16)) AS conversation_id, CAST(");
                statement.bytes(member.user.as_bytes()).text(" AS BINARY(16)) AS user_id, CAST(").big(member.join_seq.0);
                statement.text(" AS SIGNED) AS join_seq, CAST(").big(member.read_seq.0).text(" AS SIGNED) AS read_seq, CAST(");
                statement.big(member.delivered_seq.0).text(" AS SIGNED) AS delivered_seq");
            })
            .text(
                ") AS marks STRAIGHT_JOIN members ON members.conversation_id = marks.conversation_id AND members.user_id = marks.user_id
                     AND members.join_seq = marks.join_seq
                 SET members.read_seq = marks.read_seq, members.delivered_seq = marks.delivered_seq",
            );
        RunQueryDsl::execute(statement, conn).await?;
    }
    Ok(())
}

/// Raises what was dispatched, up to the head. Sorted by id, and so locked in this order.
async fn raise_dispatched(conn: &mut Conn, marks: &[(ConversationId, Seq)]) -> Result<(), Fail> {
    for marks in marks.chunks(INSERT_ROWS_MAX) {
        let (rows, keep) = padded(marks);
        let mut statement = Statement::<()>::new("UPDATE (", keep);
        statement
            .rows(rows, " UNION ALL ", |statement, (id, seq)| {
                statement.text("SELECT CAST(").bytes(id.as_bytes()).text(" AS BINARY(16)) AS id, CAST(").big(seq.0).text(" AS SIGNED) AS seq");
            })
            .text(
                ") AS marks STRAIGHT_JOIN conversations ON conversations.id = marks.id AND conversations.dispatched_seq < marks.seq
                     AND conversations.head_seq >= marks.seq
                 SET conversations.dispatched_seq = marks.seq",
            );
        RunQueryDsl::execute(statement, conn).await?;
    }
    Ok(())
}

/// The devices with these keys, locked.
async fn locked_devices(conn: &mut Conn, keys: &[(UserId, DeviceId)]) -> Result<Vec<DeviceRow>, Fail> {
    let mut found = Vec::with_capacity(keys.len());
    for keys in keys.chunks(INSERT_ROWS_MAX) {
        let (keys, keep) = padded(keys);
        let mut statement = Statement::<Columns<DeviceRow>>::new(
            "SELECT user_id, device_id, name, session_epoch, connection_epoch, signed_in, last_seen_at, created_at
             FROM devices FORCE INDEX (PRIMARY) WHERE (user_id, device_id) IN (",
            keep,
        );
        statement
            .rows(keys, ",", |statement, (user, device)| {
                statement.text("(").bytes(user.as_bytes()).text(",").bytes(device.as_bytes()).text(")");
            })
            .text(") ORDER BY user_id, device_id FOR UPDATE");
        found.extend(RunQueryDsl::load::<DeviceRow>(statement, conn).await?);
    }
    Ok(found)
}

/// Stores devices that are new. Whoever stores the same one at the same time fails at the key and is run again.
async fn insert_devices(conn: &mut Conn, rows: &[&DeviceRow]) -> Result<(), Fail> {
    for rows in rows.chunks(INSERT_ROWS_MAX) {
        diesel::insert_into(devices::table).values(rows.to_vec()).execute(conn).await?;
    }
    Ok(())
}

/// Writes the connections of devices: epoch and time.
async fn store_connections(conn: &mut Conn, rows: &[&DeviceRow]) -> Result<(), Fail> {
    for rows in rows.chunks(INSERT_ROWS_MAX) {
        let (rows, keep) = padded(rows);
        let mut statement = Statement::<()>::new("UPDATE (", keep);
        statement
            .rows(rows, " UNION ALL ", |statement, row| {
                statement.text("SELECT CAST(").bytes(&row.user_id).text(" AS BINARY(16)) AS user_id, CAST(").bytes(&row.device_id);
                statement.text(" AS BINARY(16)) AS device_id, CAST(").big(row.connection_epoch).text(" AS SIGNED) AS connection_epoch, CAST(");
                statement.big(row.last_seen_at).text(" AS SIGNED) AS last_seen_at");
            })
            .text(
                ") AS seen STRAIGHT_JOIN devices ON devices.user_id = seen.user_id AND devices.device_id = seen.device_id
                 SET devices.connection_epoch = seen.connection_epoch, devices.last_seen_at = seen.last_seen_at",
            );
        RunQueryDsl::execute(statement, conn).await?;
    }
    Ok(())
}

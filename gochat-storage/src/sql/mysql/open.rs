//! Opening connections, the schema, and what the server promises about COMMIT.

use std::{collections::HashMap, fmt, time::Duration};

use diesel::{
    QueryableByName,
    migration::{Migration, MigrationSource},
    mysql::Mysql,
    sql_types::{BigInt, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection, async_connection_wrapper::AsyncConnectionWrapper};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use gochat_core::error::{Code, Error, Result};
use tokio::time::timeout;

use super::{Conn, MysqlSettings, PACKET_BYTES_MIN};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/mysql");

/// How long an instance waits for another one that migrates.
const MIGRATION_WAIT_SECONDS: i64 = 120;

/// Opens connections of one kind.
#[derive(Clone)]
pub struct Connector {
    url: String,
    within: Duration,
    setup: String,
}

impl Connector {
    /// Connections of the store: what does not answer in time is given up.
    pub fn new(settings: &MysqlSettings) -> Connector {
        let lock_wait = settings.lock_wait.as_secs().max(1);
        let (seconds, millis) = (settings.statement_limit.as_secs_f64(), settings.statement_limit.as_millis());
        // The first comment is text for MariaDB alone, the second for MySQL alone (which limits reads only). Strict: a value
        // that does not fit is refused, never cut. English: which error it is stands in its text (fail.rs).
        let setup = format!(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;
             SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', lc_messages = 'en_US', innodb_lock_wait_timeout = {lock_wait}
                 /*M!100100 , max_statement_time = {seconds} */ /*!80000 , max_execution_time = {millis} */"
        );
        Connector { url: settings.url.clone(), within: settings.connect_timeout, setup }
    }

    /// Connections for changing the schema, which may take its time.
    fn patient(url: &str) -> Connector {
        let setup = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', lc_messages = 'en_US'";
        Connector { url: url.to_owned(), within: Duration::from_secs(10), setup: setup.into() }
    }

    pub async fn connect(&self) -> Result<Conn> {
        let opened = timeout(self.within, async {
            let mut conn = Conn::establish(&self.url).await.map_err(unreachable)?;
            conn.batch_execute(&self.setup).await.map_err(unreadable)?;
            Ok(conn)
        });
        opened.await.unwrap_or_else(|_| Err(Error::new(Code::Unavailable, "the database does not answer")))
    }
}

/// What the server does with a COMMIT, read at start: an acknowledgement is worth no more than this (I1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durability {
    /// Version, as the server names itself.
    pub version: String,
    /// `innodb_flush_log_at_trx_commit`: 1 writes and syncs at each COMMIT (3, on MariaDB, syncs twice).
    pub flush_log_at_trx_commit: i64,
    /// Whether there is a binary log.
    pub log_bin: bool,
    /// `sync_binlog`: 1 syncs the binary log at each COMMIT.
    pub sync_binlog: i64,
    /// Isolation of this store's transactions.
    pub isolation: String,
    /// `max_allowed_packet`.
    pub max_allowed_packet_bytes: i64,
    /// Whether the server refuses writes.
    pub read_only: bool,
}

impl Durability {
    /// Why an acknowledgement would be a lie, or the store not work; nothing: all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mariadb = self.version.contains("MariaDB");
        if !(self.flush_log_at_trx_commit == 1 || mariadb && self.flush_log_at_trx_commit == 3) {
            problems.push(format!(
                "innodb_flush_log_at_trx_commit is {}: what was acknowledged is lost when the machine fails; set it to 1",
                self.flush_log_at_trx_commit
            ));
        }
        if self.log_bin && self.sync_binlog != 1 {
            problems.push(format!(
                "sync_binlog is {}: with the binary log on, what was acknowledged can be missing there after a failure, and on replicas; set it to 1",
                self.sync_binlog
            ));
        }
        if self.isolation != "READ-COMMITTED" {
            problems.push(format!("the isolation is {}, and the store decides on what READ-COMMITTED shows", self.isolation));
        }
        if self.max_allowed_packet_bytes < PACKET_BYTES_MIN as i64 {
            problems.push(format!("max_allowed_packet is {} bytes; the store needs at least {PACKET_BYTES_MIN}", self.max_allowed_packet_bytes));
        }
        if self.read_only {
            problems.push("the server is read-only".into());
        }
        problems
    }

    /// Reads it on a connection of the store.
    pub async fn read(conn: &mut Conn) -> Result<Durability> {
        // Servers differ in which of these they have; what is unknown is not shown.
        let rows: Vec<Variable> = diesel::sql_query(
            "SHOW SESSION VARIABLES WHERE Variable_name IN ('version', 'innodb_flush_log_at_trx_commit', 'log_bin', 'sync_binlog', 'tx_isolation',
             'transaction_isolation', 'max_allowed_packet', 'read_only')",
        )
        .load(conn)
        .await
        .map_err(unreadable)?;
        let values: HashMap<String, String> = rows.into_iter().map(|row| (row.name.to_ascii_lowercase(), row.value)).collect();
        let text = |name: &str| values.get(name).cloned().unwrap_or_default();
        let on = |name: &str| matches!(text(name).as_str(), "ON" | "1");
        // What cannot be read counts as the worst.
        let number = |name: &str| text(name).parse::<i64>().unwrap_or(-1);
        Ok(Durability {
            version: text("version"),
            flush_log_at_trx_commit: number("innodb_flush_log_at_trx_commit"),
            log_bin: on("log_bin"),
            sync_binlog: number("sync_binlog"),
            isolation: values.get("transaction_isolation").or_else(|| values.get("tx_isolation")).cloned().unwrap_or_default(),
            max_allowed_packet_bytes: number("max_allowed_packet"),
            read_only: on("read_only"),
        })
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = if self.log_bin { "on" } else { "off" };
        write!(
            f,
            "{}: innodb_flush_log_at_trx_commit={}, binary log {log}, sync_binlog={}, isolation {}, max_allowed_packet={}",
            self.version, self.flush_log_at_trx_commit, self.sync_binlog, self.isolation, self.max_allowed_packet_bytes
        )?;
        for problem in self.problems() {
            write!(f, "; {problem}")?;
        }
        Ok(())
    }
}

#[derive(QueryableByName)]
struct Variable {
    #[diesel(sql_type = Text, column_name = "Variable_name")]
    name: String,
    #[diesel(sql_type = Text, column_name = "Value")]
    value: String,
}

/// Brings the schema of a database up to this version; answers with the migrations that were run. Instances that start at
/// the same time do it one after the other, under a lock of the server; an interrupted migration is run again.
///
/// # Errors
/// `UNAVAILABLE` if the server is away, another instance takes too long or a statement fails; `INVALID_REQUEST` if the schema is
/// newer than this version.
pub async fn migrate(url: &str) -> Result<Vec<String>> {
    let mut conn = Connector::patient(url).connect().await?;
    // Locks belong to the server, not to a database; the name has at most 64 characters.
    let lock = "SELECT GET_LOCK(CONCAT('gochat-', MD5(DATABASE())), ?) AS value";
    let taken: Taken = diesel::sql_query(lock).bind::<BigInt, _>(MIGRATION_WAIT_SECONDS).get_result(&mut conn).await.map_err(unreadable)?;
    if taken.value != Some(1) {
        return Err(Error::new(Code::Unavailable, format!("another instance has been migrating the database for {MIGRATION_WAIT_SECONDS} s")));
    }
    // The lock ends with the connection.
    blocking(conn, |conn| {
        let pending = compare(conn)?;
        conn.run_pending_migrations(MIGRATIONS).map_err(failed)?;
        Ok(pending)
    })
    .await
}

/// Refuses a schema that is not of this version.
pub async fn check(url: &str) -> Result<()> {
    let pending = blocking(Connector::patient(url).connect().await?, compare).await?;
    match pending.as_slice() {
        [] => Ok(()),
        [next, ..] => Err(Error::new(Code::Unavailable, format!("the database lacks schema version {next}; migrate it first"))),
    }
}

/// Diesel's migrations are synchronous: they run on a thread that may block.
async fn blocking<T: Send + 'static>(conn: Conn, work: impl FnOnce(&mut AsyncConnectionWrapper<Conn>) -> Result<T> + Send + 'static) -> Result<T> {
    let work = tokio::task::spawn_blocking(move || work(&mut AsyncConnectionWrapper::from(conn)));
    work.await.map_err(Error::internal)?
}

/// The migrations that the database lacks; refuses one that has others.
fn compare(conn: &mut AsyncConnectionWrapper<Conn>) -> Result<Vec<String>> {
    let known: Vec<String> = MigrationSource::<Mysql>::migrations(&MIGRATIONS)
        .map_err(failed)?
        .iter()
        .map(|migration| Migration::<Mysql>::name(&**migration).version().to_string())
        .collect();
    let applied: Vec<String> = conn.applied_migrations().map_err(failed)?.iter().map(ToString::to_string).collect();
    if let Some(newer) = applied.iter().find(|version| !known.contains(version)) {
        return Err(Error::new(
            Code::InvalidRequest,
            format!("the database holds schema version {newer}, which this version of GoChat does not know; start the newer version that made it"),
        ));
    }
    Ok(known.into_iter().filter(|version| !applied.contains(version)).collect())
}

#[derive(QueryableByName)]
struct Taken {
    #[diesel(sql_type = Nullable<BigInt>)]
    value: Option<i64>,
}

fn unreachable(error: diesel::ConnectionError) -> Error {
    Error::new(Code::Unavailable, format!("the database cannot be reached: {error}")).with_source(error)
}

fn unreadable(error: diesel::result::Error) -> Error {
    Error::new(Code::Unavailable, format!("the database cannot be read: {error}")).with_source(error)
}

fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::new(Code::Unavailable, format!("the database's schema cannot be read or brought up to date: {error}")).with_source(error)
}

//! Opening the file: settings that are read back, and the schema.

use std::path::Path;

use diesel::{
    Connection, QueryableByName, RunQueryDsl, SqliteConnection,
    connection::SimpleConnection,
    migration::{Migration, MigrationSource},
    sql_types::{BigInt, Text},
    sqlite::Sqlite,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use gochat_core::error::{Code, Error, Result};

use super::SqliteSettings;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// A connection that commits durably, or an error that says why it would not.
pub fn connect(path: &Path, settings: &SqliteSettings, cache_kib: u32) -> Result<SqliteConnection> {
    let name = path.to_str().ok_or_else(|| Error::new(Code::Unavailable, "the database's path is not UTF-8"))?;
    let mut conn = SqliteConnection::establish(name)
        .map_err(|error| Error::new(Code::Unavailable, format!("the database {name} cannot be opened: {error}")).with_source(error))?;
    // Checkpoints are made beside the writer (threads.rs), never inside a COMMIT. The log's file is cut back when it is
    // begun anew, so that one burst does not keep its disk space for ever.
    let mut pragmas = format!(
        "PRAGMA busy_timeout=5000; PRAGMA page_size=4096; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;
         PRAGMA journal_size_limit=67108864; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-{cache_kib};"
    );
    if settings.page_count_max > 0 {
        pragmas.push_str(&format!("PRAGMA max_page_count={};", settings.page_count_max));
    }
    conn.batch_execute(&pragmas)
        .map_err(|error| Error::new(Code::Unavailable, format!("the database {name} cannot be opened: {error}")).with_source(error))?;
    let synchronous = number(&mut conn, "SELECT synchronous AS value FROM pragma_synchronous")?;
    let mode = text(&mut conn, "SELECT journal_mode AS value FROM pragma_journal_mode")?;
    if synchronous != 2 || mode != "wal" {
        let found = format!("the database {name} would not keep what it commits: synchronous={synchronous}, journal_mode={mode}");
        return Err(Error::new(Code::Unavailable, found));
    }
    Ok(conn)
}

/// A connection that cannot write.
pub fn connect_reader(path: &Path, settings: &SqliteSettings) -> Result<SqliteConnection> {
    let mut conn = connect(path, settings, settings.cache_kib / 4)?;
    conn.batch_execute("PRAGMA query_only=ON").map_err(unreadable)?;
    Ok(conn)
}

/// Brings the schema up to this version; refuses one that is newer.
pub fn migrate(conn: &mut SqliteConnection) -> Result<()> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(Code::Unavailable, format!("the database's schema cannot be read or brought up to date: {error}")).with_source(error)
    };
    let known: Vec<String> = MigrationSource::<Sqlite>::migrations(&MIGRATIONS)
        .map_err(failed)?
        .iter()
        .map(|migration| Migration::<Sqlite>::name(&**migration).version().to_string())
        .collect();
    let applied = MigrationHarness::<Sqlite>::applied_migrations(conn).map_err(failed)?;
    if let Some(newer) = applied.iter().map(ToString::to_string).find(|version| !known.contains(version)) {
        return Err(Error::new(
            Code::Unavailable,
            format!("the database holds schema version {newer}, which this version of GoChat does not know; start the newer version that made it"),
        ));
    }
    conn.run_pending_migrations(MIGRATIONS).map_err(failed)?;
    Ok(())
}

/// The pages in the write-ahead log and how many of them are in the file already. Changes nothing.
pub fn wal_pages(conn: &mut SqliteConnection) -> Result<(i64, i64)> {
    checkpoint(conn, "PRAGMA wal_checkpoint(NOOP)")
}

/// Copies pages of the log into the file; answers like [`wal_pages`].
pub fn checkpoint(conn: &mut SqliteConnection, pragma: &str) -> Result<(i64, i64)> {
    let row: Checkpoint = diesel::sql_query(pragma).get_result(conn).map_err(unreadable)?;
    Ok((row.log, row.checkpointed))
}

#[derive(QueryableByName)]
struct Checkpoint {
    #[diesel(sql_type = BigInt)]
    log: i64,
    #[diesel(sql_type = BigInt)]
    checkpointed: i64,
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

#[derive(QueryableByName)]
struct TextRow {
    #[diesel(sql_type = Text)]
    value: String,
}

fn number(conn: &mut SqliteConnection, query: &str) -> Result<i64> {
    Ok(diesel::sql_query(query).get_result::<NumberRow>(conn).map_err(unreadable)?.value)
}

fn text(conn: &mut SqliteConnection, query: &str) -> Result<String> {
    Ok(diesel::sql_query(query).get_result::<TextRow>(conn).map_err(unreadable)?.value)
}

fn unreadable(error: diesel::result::Error) -> Error {
    Error::new(Code::Unavailable, format!("the database cannot be read: {error}")).with_source(error)
}

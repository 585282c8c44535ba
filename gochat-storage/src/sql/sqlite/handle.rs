//! Diesel's connection, and the same SQLite handle for prepared statements.
//!
//! Why: the query builder costs 7 to 9 µs a statement, half of the writer's time in an append. Diesel 2.3 shows nobody its
//! handle, so SQLite's own hook for opened connections notes it while this thread opens one. This is the only file of the
//! crate with `unsafe` (decision 12).

#![expect(unsafe_code, reason = "one handle for diesel and for prepared statements (decision 12)")]

use std::{
    cell::Cell,
    ffi::{c_char, c_int},
    ptr,
    sync::Once,
};

use diesel::SqliteConnection;
use gochat_core::error::{Error, Result};
use rusqlite::ffi;

use super::Conn;

/// One connection of one thread.
pub struct Session {
    /// The same connection. Declared first: its statements end before the connection closes.
    pub statements: rusqlite::Connection,
    /// The connection of the query builder, which owns it.
    pub conn: Conn,
}

thread_local! {
    /// The handle that this thread opened last.
    static OPENED: Cell<*mut ffi::sqlite3> = const { Cell::new(ptr::null_mut()) };
}

/// Called by SQLite for each connection that anybody in this process opens, on the thread that opens it.
extern "C" fn note(db: *mut ffi::sqlite3, _: *mut *mut c_char, _: *const ffi::sqlite3_api_routines) -> c_int {
    OPENED.set(db);
    ffi::SQLITE_OK
}

impl Session {
    /// The session of the connection that `open` opens, on this thread and as the only one.
    pub fn open(open: impl FnOnce() -> Result<SqliteConnection>) -> Result<Session> {
        static HOOK: Once = Once::new();
        // SAFETY: `note` has the signature that SQLite calls, lives as long as the program and touches nothing but a thread-local.
        HOOK.call_once(|| {
            // Counting its memory would take one lock of the whole process for each allocation: readers would wait for each other.
            // SAFETY: the option takes one integer; it has no effect if somebody has begun to use SQLite already.
            let _ = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0) };
            // It fails only without memory; then no handle is noted, and `open` says so.
            let _ = unsafe { ffi::sqlite3_auto_extension(Some(note)) };
        });
        OPENED.set(ptr::null_mut());
        let conn = open()?;
        let db = OPENED.replace(ptr::null_mut());
        if db.is_null() {
            return Err(Error::internal("SQLite did not tell which connection it opened"));
        }
        // SAFETY: `db` is the handle that `conn` has just opened on this thread and owns. The two move and end together in
        // one `Session`, which one thread uses at a time, and this one, which does not close the handle, ends first.
        let statements = unsafe { rusqlite::Connection::from_handle(db) }.map_err(Error::internal)?;
        Ok(Session { statements, conn: Conn::new(conn) })
    }
}

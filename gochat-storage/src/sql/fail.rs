//! What can end a unit of work: a refusal of our own, or the database's error.

use diesel::result::{DatabaseErrorKind, Error as Diesel};
use gochat_core::error::{Code, Error};

/// How errors begin that leave a connection useless: the driver's own, and the server's last words.
const LOST: &[&str] = &["Input/output error", "Driver error", "Connection was killed", "Server shutdown in progress", "Unknown command"];
/// What is said of a backend that is not at fault for long: the same call may be repeated.
const AWAY: &[&str] = &["disk I/O error", "database is locked", "Query execution was interrupted", "read-only option", "Too many connections"];
/// What is said when there is no space left.
const FULL: &[&str] = &["disk is full", "is full", "Disk full", "No space left"];

/// Ends a unit of work and rolls its transaction back.
#[derive(Debug)]
pub enum Fail {
    /// Decided by a rule: nothing is wrong with the database.
    Refused(Error),
    /// The database's own error.
    Database(Diesel),
}

impl From<Diesel> for Fail {
    fn from(error: Diesel) -> Self {
        Fail::Database(error)
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Fail::Refused(error)
    }
}

impl From<Code> for Fail {
    fn from(code: Code) -> Self {
        Fail::Refused(code.into())
    }
}

impl Fail {
    /// Whether the database may have given up the whole transaction by itself (full disk, I/O error): then nothing may
    /// follow in it. A constraint or a missing row is an ordinary outcome of one unit.
    pub fn breaks_transaction(&self) -> bool {
        !matches!(
            self,
            Fail::Refused(_)
                | Fail::Database(
                    Diesel::NotFound
                        | Diesel::DatabaseError(
                            DatabaseErrorKind::UniqueViolation
                                | DatabaseErrorKind::NotNullViolation
                                | DatabaseErrorKind::ForeignKeyViolation
                                | DatabaseErrorKind::CheckViolation,
                            _
                        )
                )
        )
    }

    /// Whether other transactions were in the way, so that this one, begun anew, may pass: a deadlock, a lock that was waited
    /// for too long.
    pub fn is_conflict(&self) -> bool {
        let Fail::Database(Diesel::DatabaseError(_, told)) = self else { return false };
        ["Deadlock found", "Lock wait timeout exceeded"].iter().any(|text| told.message().starts_with(text))
    }

    /// Whether the connection is of no more use: closed, killed, or out of step.
    pub fn is_connection_lost(&self) -> bool {
        let error = match self {
            Fail::Refused(_) => return false,
            Fail::Database(Diesel::DatabaseError(_, told)) => told.message(),
            Fail::Database(error) => return matches!(error, Diesel::BrokenTransactionManager),
        };
        LOST.iter().any(|text| error.starts_with(text))
    }

    /// Whether a unique key refused a row.
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Fail::Database(Diesel::DatabaseError(DatabaseErrorKind::UniqueViolation, _)))
    }
}

impl From<Fail> for Error {
    fn from(fail: Fail) -> Self {
        let away = fail.is_connection_lost() || fail.is_conflict();
        let error = match fail {
            Fail::Refused(error) => return error,
            Fail::Database(error) => error,
        };
        let text = error.to_string();
        // A constraint's text quotes what a client sent.
        let plain = matches!(error, Diesel::DatabaseError(DatabaseErrorKind::Unknown, _));
        let says = |texts: &[&str]| plain && texts.iter().any(|part| text.contains(part));
        if says(FULL) {
            return Error::from(Code::StorageFull).with_source(error);
        }
        if away || says(AWAY) {
            return Error::from(Code::Unavailable).with_source(error);
        }
        Error::internal(error)
    }
}

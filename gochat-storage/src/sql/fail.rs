//! What can end a unit of work: a refusal of our own, or the database's error.

use diesel::result::{DatabaseErrorKind, Error as Diesel};
use gochat_core::error::{Code, Error};

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

    /// Whether a unique key refused a row.
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Fail::Database(Diesel::DatabaseError(DatabaseErrorKind::UniqueViolation, _)))
    }
}

impl From<Fail> for Error {
    fn from(fail: Fail) -> Self {
        let error = match fail {
            Fail::Refused(error) => return error,
            Fail::Database(error) => error,
        };
        let text = error.to_string();
        if text.contains("disk is full") || text.contains("is full") {
            return Error::from(Code::StorageFull).with_source(error);
        }
        if text.contains("disk I/O error") || text.contains("database is locked") {
            return Error::from(Code::Unavailable).with_source(error);
        }
        Error::internal(error)
    }
}

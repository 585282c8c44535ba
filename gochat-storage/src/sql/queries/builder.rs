//! Statements by the query builder: right on every database, and the measure of faster ones.

use super::Conn;

/// A connection as the query builder uses it; what it can do stands with each trait of statements.
pub struct Diesel<'a>(pub &'a mut Conn);

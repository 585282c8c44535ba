//! Statements of many rows: one way over the network, whatever their number.
//!
//! The text depends on the number of rows alone. Where a row too many does no harm, the number is rounded up to a power of two
//! ([`padded`]), so that a connection prepares few texts and then only executes them.

use std::{iter::repeat_n, marker::PhantomData};

use diesel::{
    QueryResult,
    mysql::Mysql,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Integer, Nullable},
};

/// Rows up to which a text is kept prepared: a server holds some 100 bytes for each value of a prepared statement.
const PREPARED_ROWS_MAX: usize = 512;

/// A statement, piece by piece; `T` is the type of its rows.
#[derive(Debug)]
pub struct Statement<'a, T = ()> {
    pieces: Vec<Piece<'a>>,
    keep: bool,
    rows: PhantomData<fn() -> T>,
}

#[derive(Debug)]
enum Piece<'a> {
    Text(&'static str),
    Bytes(&'a [u8]),
    BigInt(Option<i64>),
    Integer(i32),
}

impl<'a, T> Statement<'a, T> {
    /// A statement that begins like this. With `keep` it stays prepared.
    pub fn new(text: &'static str, keep: bool) -> Self {
        Statement { pieces: vec![Piece::Text(text)], keep, rows: PhantomData }
    }

    pub fn text(&mut self, text: &'static str) -> &mut Self {
        self.pieces.push(Piece::Text(text));
        self
    }

    pub fn bytes(&mut self, bytes: &'a [u8]) -> &mut Self {
        self.pieces.push(Piece::Bytes(bytes));
        self
    }

    pub fn big(&mut self, number: impl Into<Option<i64>>) -> &mut Self {
        self.pieces.push(Piece::BigInt(number.into()));
        self
    }

    pub fn int(&mut self, number: i32) -> &mut Self {
        self.pieces.push(Piece::Integer(number));
        self
    }

    /// Rows with a separator between them.
    pub fn rows<R>(&mut self, rows: impl IntoIterator<Item = R>, between: &'static str, mut row: impl FnMut(&mut Self, R)) -> &mut Self {
        for (index, item) in rows.into_iter().enumerate() {
            if index > 0 {
                self.text(between);
            }
            row(self, item);
        }
        self
    }
}

/// The rows, with the last one repeated up to the next power of two, and whether a statement of so many is kept prepared.
pub fn padded<R>(rows: &[R]) -> (impl Iterator<Item = &R> + Clone, bool) {
    let keep = rows.len() <= PREPARED_ROWS_MAX;
    let more = if keep { rows.len().next_power_of_two() - rows.len() } else { 0 };
    let last = rows.last().into_iter().flat_map(move |last| repeat_n(last, more));
    (rows.iter().chain(last), keep)
}

impl<T: 'static> QueryId for Statement<'_, T> {
    // Told apart by its text.
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<T> Query for Statement<'_, T> {
    type SqlType = T;
}

impl<T> QueryFragment<Mysql> for Statement<'_, T> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Mysql>) -> QueryResult<()> {
        if !self.keep {
            out.unsafe_to_cache_prepared();
        }
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_sql(text),
                Piece::Bytes(bytes) => out.push_bind_param::<Binary, [u8]>(bytes)?,
                Piece::BigInt(number) => out.push_bind_param::<Nullable<BigInt>, _>(number)?,
                Piece::Integer(number) => out.push_bind_param::<Integer, _>(number)?,
            }
        }
        Ok(())
    }
}

/// Queries of one shape as one: their rows together, in no order. None of them may end in a clause that would then be the whole
/// one's.
#[derive(Debug)]
pub struct Union<Q>(pub Vec<Q>);

impl<Q: 'static> QueryId for Union<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: Query> Query for Union<Q> {
    type SqlType = Q::SqlType;
}

impl<Q: QueryFragment<Mysql>> QueryFragment<Mysql> for Union<Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Mysql>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        for (index, query) in self.0.iter().enumerate() {
            if index > 0 {
                out.push_sql(" UNION ALL ");
            }
            query.walk_ast(out.reborrow())?;
        }
        Ok(())
    }
}

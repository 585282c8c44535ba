//! Units of work: a transaction that is run again where that is right, a read that is.
//!
//! ```text
//! write: BEGIN ─► work ─► COMMIT ─► answer
//!          │        └─ lost a race (deadlock, lock wait, unique key) ─► ROLLBACK ─► again, on what the others have left
//!          └─ connection dead, COMMIT not sent yet ─► again, on a new connection
//! COMMIT without an answer ─► UNAVAILABLE: the outcome is unknown, the caller repeats (I6 decides)
//! ```
//!
//! A unit runs in a task of the store: a caller that goes away cuts nothing in half, and no connection stays behind with an open
//! transaction.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use diesel_async::{AnsiTransactionManager, TransactionManager};
use futures_util::future::BoxFuture;
use gochat_core::error::{Code, Error, Result};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Conn, lanes::Place};
use crate::sql::fail::Fail;

/// How often a unit is tried that loses races or its connection.
const TRIES: u32 = 6;
/// Tries on connections that turn out to be dead: the second one is new, so that a third would find the same.
const CONNECTIONS_TRIED: u32 = 2;

/// Counted since the store was opened.
#[derive(Debug, Default)]
pub struct Counters {
    pub commits: AtomicU64,
    pub repeats: AtomicU64,
    pub lost: AtomicU64,
}

/// A counter's value. (Diesel's `load` would be taken for the atomic's where it is in scope.)
pub fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Runs a unit as one transaction.
pub async fn write<T, W>(place: &Place, work: W, limit: Duration, counters: &Counters) -> Result<T>
where
    W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Fail>> + Clone,
{
    let deadline = Instant::now() + limit;
    let (mut tries, mut lost) = (0, 0);
    loop {
        tries += 1;
        let mut conn = place.connection().await?;
        let mut committing = false;
        let outcome = timeout_at(deadline, transaction(&mut conn, work.clone(), &mut committing)).await;
        let fail = match outcome {
            Ok(Ok(value)) => {
                counters.commits.fetch_add(1, Ordering::Relaxed);
                place.give_back(conn);
                return Ok(value);
            }
            Ok(Err(fail)) => fail,
            Err(_) if committing => return Err(unknown(None)),
            Err(_) => return Err(Error::new(Code::Unavailable, "the database does not answer")),
        };
        let conflict = fail.is_conflict() || fail.is_unique_violation();
        if committing && !conflict {
            counters.lost.fetch_add(u64::from(fail.is_connection_lost()), Ordering::Relaxed);
            return Err(unknown(Some(fail)));
        }
        if fail.is_connection_lost() {
            counters.lost.fetch_add(1, Ordering::Relaxed);
            place.forget_idle();
            lost += 1;
        } else if !committing && AnsiTransactionManager::rollback_transaction(&mut conn).await.is_ok() {
            place.give_back(conn);
        }
        let again = conflict || (fail.is_connection_lost() && lost < CONNECTIONS_TRIED);
        if !again || tries >= TRIES || Instant::now() >= deadline {
            return Err(fail.into());
        }
        counters.repeats.fetch_add(1, Ordering::Relaxed);
        sleep(pause(tries)).await;
    }
}

/// Runs reads on one connection, without a transaction: each statement sees what was committed when it began.
pub async fn read<T, W>(place: &Place, work: W, limit: Duration, counters: &Counters) -> Result<T>
where
    W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Fail>> + Clone,
{
    let deadline = Instant::now() + limit;
    let mut tries = 0;
    loop {
        tries += 1;
        let mut conn = place.connection().await?;
        match timeout_at(deadline, work.clone()(&mut conn)).await {
            Ok(Err(fail)) if fail.is_connection_lost() => {
                counters.lost.fetch_add(1, Ordering::Relaxed);
                place.forget_idle();
                if tries >= CONNECTIONS_TRIED {
                    return Err(fail.into());
                }
                counters.repeats.fetch_add(1, Ordering::Relaxed);
            }
            Ok(outcome) => {
                place.give_back(conn);
                return outcome.map_err(Error::from);
            }
            Err(_) => return Err(Error::new(Code::Unavailable, "the database does not answer")),
        }
    }
}

/// Once `committing` is set, an error does not tell whether the transaction was committed.
async fn transaction<T, W>(conn: &mut Conn, work: W, committing: &mut bool) -> Result<T, Fail>
where
    W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Fail>>,
{
    AnsiTransactionManager::begin_transaction(conn).await?;
    let value = work(conn).await?;
    *committing = true;
    AnsiTransactionManager::commit_transaction(conn).await?;
    Ok(value)
}

/// Longer with each try, and not the same for all that wait.
fn pause(tries: u32) -> Duration {
    let most = 4_u64 << tries;
    Duration::from_millis(1 + RandomState::new().hash_one(tries) % most)
}

fn unknown(fail: Option<Fail>) -> Error {
    let error = Error::new(Code::Unavailable, "the database did not confirm the commit; repeat the call");
    match fail {
        Some(fail) => error.with_source(Error::from(fail)),
        None => error,
    }
}

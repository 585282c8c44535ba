//! Backends of GoChat's ports.
//!
//! | module | what it provides | feature |
//! |---|---|---|
//! | `sqlite` | [`Store`](gochat_core::ports::Store) on one file: WAL, `synchronous=FULL`, one writer with group commit | `sqlite` |
//! | [`local`] | [`Cache`](gochat_core::ports::Cache) and [`Routes`](gochat_core::ports::Routes) in this process | |

pub mod local;
#[cfg(feature = "sqlite")]
mod sql;

#[cfg(feature = "sqlite")]
pub use sql::sqlite;

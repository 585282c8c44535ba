//! Backends of GoChat's ports.
//!
//! | module | what it provides | feature |
//! |---|---|---|
//! | `sqlite` | [`Store`](gochat_core::ports::Store) on one file: WAL, `synchronous=FULL`, one writer with group commit | `sqlite` |
//! | `mysql` | the same on MySQL or MariaDB, shared by any number of processes | `mysql` |
//! | [`local`] | [`Cache`](gochat_core::ports::Cache) and [`Routes`](gochat_core::ports::Routes) in this process | |
//! | `redis` | [`Cache`](gochat_core::ports::Cache) and [`Routes`](gochat_core::ports::Routes) that all processes share: one server or a Cluster | `redis` |
//! | [`tiered`] | [`Cache`](gochat_core::ports::Cache) of two tiers: this process's own in front of the shared one | |

pub mod local;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sql")]
mod sql;
pub mod tiered;

#[cfg(feature = "mysql")]
pub use sql::mysql;
#[cfg(feature = "sqlite")]
pub use sql::sqlite;

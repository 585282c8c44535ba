//! gRPC between roles: a [`Store`](gochat_core::ports::Store) and a [`LogicApi`](gochat_core::ports::LogicApi) in another process.
//!
//! ```text
//! logic ─► RepoClient ─► channel: balances, reconnects, deadlines ═══ serve ─► RepoServer ─► Store
//! gateway ► LogicClient ─► channel …                              ═══ serve ─► LogicServer ─► LogicApi
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | `repo`, `logic` | the tables of methods: one line is client and server of one |
//! | `remote` | what such a line becomes |
//! | `wire`, `convert` | values of the domain as protobuf and back |
//! | `errors` | [`Error`](gochat_core::error::Error)s as gRPC statuses and back |
//! | `channel` | which endpoint answers a call, and what happens when it does not |
//! | `serve` | the listener, health, reflection, shutdown |
//!
//! Invariant: what a client answers is what the port behind the server answered, its errors included; where no answer came, the
//! error says whether the call may have run.

mod channel;
mod convert;
mod errors;
mod logic;
mod remote;
mod repo;
mod serve;
mod wire;

use gochat_core::limits::{APPEND_DRAFTS_MAX, BODY_BYTES_MAX};

pub use channel::ClientSettings;
pub use logic::{LogicClient, LogicServer};
pub use repo::{RepoClient, RepoServer};
pub use serve::{Health, ServeSettings, Services, serve};

/// Bytes of one request or reply at most: the largest append, whole. An append is one transaction, so it cannot be split into
/// several calls; the usual one is a few kilobytes.
pub const MESSAGE_BYTES_MAX: usize = APPEND_DRAFTS_MAX * (BODY_BYTES_MAX + 512);

/// Bytes that one call, and one connection, may have on their way unread: larger than the product of bandwidth and delay in one
/// data centre, so that a large batch is not cut into round trips.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Silence after which a connection is asked whether it lives, and the wait for the answer: a frozen peer is noticed in 13 s.
const PING_AFTER: std::time::Duration = std::time::Duration::from_secs(10);
const PING_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);

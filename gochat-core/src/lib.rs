//! Instant messaging as a library.
//!
//! This crate decides; it opens no socket and no file. Read it in this order:
//!
//! | module | what it holds |
//! |---|---|
//! | [`error`], [`ids`], [`time`], [`limits`] | the vocabulary: one error, typed ids, `Seq`, clocks, named limits |
//! | [`model`] | the nouns: user, device, conversation, member, message, event, push |
//! | [`ports`] | the contracts of everything outside: store, cache, bus, routes, push, authenticator, hook |
//! | [`rules`], [`fanout`], [`route`], [`unread`] | pure policies: who may do what, who is told how |
//! | [`dispatch`] | telling the members: locate, route, publish; shared by logic and task |
//! | [`logic`], [`task`] | the use cases, one file per flow |
//! | [`cached`] | a store with a cache in front |
//! | [`auth`] | passwords and tokens |
//! | `conformance` (feature) | public suites that prove a backend against its port |
//!
//! Import direction: `error, ids, time, model <- ports <- rules, fanout, route, unread <- dispatch, cached <- logic, task`.

pub mod auth;
pub mod cached;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod dispatch;
pub mod error;
pub mod fanout;
pub mod ids;
pub mod limits;
pub mod logic;
pub mod model;
pub mod ports;
pub mod route;
pub mod rules;
pub mod task;
pub mod time;
pub mod unread;

pub use async_trait::async_trait;
pub use bytestring::ByteString;
pub use error::{Code, Error, ErrorKind, Result};

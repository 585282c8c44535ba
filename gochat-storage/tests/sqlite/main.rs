//! What the SQLite store promises beyond the public suite: groups, durability, races, limits.

#![cfg(feature = "sqlite")]
#![allow(missing_docs)]

mod accounts;
mod append;
mod durability;
mod groups;
mod lists;
mod push;
mod support;

//! The SQL store. Query text stands once, in `queries/`, and is compiled once per database against the `Conn` and the
//! dialect functions of that database's file.

mod fail;
#[cfg(feature = "mysql")]
pub mod mysql;
mod rows;
mod schema;
#[cfg(feature = "sqlite")]
pub mod sqlite;

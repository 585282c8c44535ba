//! The SQL store. Query text stands once, in `queries/`, and is compiled once per database against the `Conn` and the
//! dialect functions of that database's file.

pub mod fail;
pub mod rows;
pub mod schema;
pub mod sqlite;

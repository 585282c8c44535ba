//! The MySQL store on a real server: the public suite, races of several instances, dead connections, the schema, values at their
//! limits. Each test makes a database of its own and drops it.

#![allow(missing_docs)]

mod append;
mod conformance;
mod faults;
mod lists;
mod proxy;
mod schema;
mod support;
mod values;

//! How GoChat talks.

pub mod bus;

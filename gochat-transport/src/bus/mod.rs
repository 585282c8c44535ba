//! Buses: how records get from role to role.

mod local;

pub use local::{LocalBus, LocalBusSettings};

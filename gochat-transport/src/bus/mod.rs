//! Buses: how records get from role to role.

pub mod codec;
mod local;
mod wire;

pub use local::{LocalBus, LocalBusSettings};
pub use wire::WireBus;

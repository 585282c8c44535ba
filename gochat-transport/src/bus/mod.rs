//! Buses: how records get from role to role.

pub mod codec;
#[cfg(feature = "kafka")]
mod kafka;
mod local;
mod wire;

#[cfg(feature = "kafka")]
pub use kafka::{DeadLetter, GroupLag, KafkaBus, KafkaSettings, KafkaStatistics, TopicDescription};
pub use local::{LocalBus, LocalBusSettings};
pub use wire::WireBus;

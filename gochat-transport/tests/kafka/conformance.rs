//! The contract of the port.

use std::sync::Arc;

use gochat_core::{conformance, ports::Bus};
use gochat_transport::bus::KafkaSettings;

use crate::{settings, with};

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_on_kafka_keeps_the_contract() {
    // Small, so that a full bus is soon reached.
    let settings = KafkaSettings { records_in_flight_max: 2_000, ..settings() };
    with(settings, |bus| async move {
        let bus: Arc<dyn Bus> = Arc::new(bus);
        conformance::run_all(conformance::bus::CASES, bus).await;
    })
    .await;
}

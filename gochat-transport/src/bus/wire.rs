//! Any bus, with every record passed through its bytes: what does not survive that could not cross a process.

use std::sync::Arc;

use async_trait::async_trait;
use gochat_core::{
    error::Result,
    ports::{Bus, Receipt, Record, Subscription, Topic},
};

use super::codec;

/// A bus whose records are encoded and decoded on their way in.
#[derive(Clone, Debug)]
pub struct WireBus {
    inner: Arc<dyn Bus>,
}

impl WireBus {
    /// Around this bus.
    pub fn new(inner: Arc<dyn Bus>) -> Self {
        WireBus { inner }
    }
}

fn through_bytes(records: Vec<Record>) -> Result<Vec<Record>> {
    records.iter().map(|record| codec::decode(codec::encode(record))).collect()
}

#[async_trait]
impl Bus for WireBus {
    fn offer(&self, topic: &Topic, records: Vec<Record>) -> Result<()> {
        self.inner.offer(topic, through_bytes(records)?)
    }

    async fn publish(&self, topic: &Topic, records: Vec<Record>) -> Result<Receipt> {
        self.inner.publish(topic, through_bytes(records)?).await
    }

    async fn subscribe(&self, topic: &Topic, group: &str) -> Result<Arc<dyn Subscription>> {
        self.inner.subscribe(topic, group).await
    }
}

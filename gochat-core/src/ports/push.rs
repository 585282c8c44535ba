use async_trait::async_trait;

use crate::{
    error::Result,
    model::{Notice, PushOutcome},
    ports::Port,
};

/// Tells devices that are not connected. Best effort by nature.
///
/// # Contract
/// One outcome per notice, aligned: `Sent`, `Refused` (for good) or `Failed` (worth another try); an `Err` is
/// `Failed` for all. May be called again for a notice whose outcome was lost: `Notice::id` tells.
#[async_trait]
pub trait PushProvider: Port {
    /// Sends notices.
    async fn push(&self, notices: &[Notice]) -> Result<Vec<PushOutcome>>;
}

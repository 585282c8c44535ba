//! Built-in push providers.

mod log;
mod webhook;

pub use log::LogPush;
pub use webhook::WebhookPush;

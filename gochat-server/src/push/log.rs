use async_trait::async_trait;
use gochat_core::{
    error::Result,
    model::{Notice, PushOutcome},
    ports::PushProvider,
};

/// Writes a structured log line for each push: what an installation without a push service does.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogPush;

#[async_trait]
impl PushProvider for LogPush {
    async fn push(&self, notices: &[Notice]) -> Result<Vec<PushOutcome>> {
        for notice in notices {
            tracing::info!(
                push.id = %notice.id, user.id = %notice.user_id, device.id = %notice.device_id, conversation.id = %notice.conversation_id,
                seq = notice.seq.0, "push"
            );
        }
        Ok(vec![PushOutcome::Sent; notices.len()])
    }
}

use async_trait::async_trait;

use crate::{
    model::{Draft, Message},
    ports::Port,
};

/// A host's own rules about messages. Both methods default to doing nothing: having no hook is normal.
///
/// # Contract
/// `before_send` runs in the order of the drafts, before the store; it must answer quickly, since it holds up
/// its partition. It may run again for a draft that is repeated. `after_store` observes what is stored, after
/// the ack; it may see a message again after a crash.
#[async_trait]
pub trait Hook: Port {
    /// Lets a draft pass, changed or not, or refuses it.
    async fn before_send(&self, draft: &Draft) -> Decision {
        let _ = draft;
        Decision::Pass
    }

    /// Sees stored messages.
    async fn after_store(&self, messages: &[std::sync::Arc<Message>]) {
        let _ = messages;
    }
}

/// What a hook says about a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// As it is.
    Pass,
    /// With another body, which is checked like one from a client.
    Rewrite(crate::model::Body),
    /// Not at all; the reason reaches the sender with code `REFUSED_BY_HOOK`.
    Refuse(String),
}

//! Everything that is done to a group (flow 6): invite, join, leave, remove, roles, hand over, silence, edit, links,
//! requests, dissolve.
//!
//! ```text
//! action -> shape -> Store::manage: rules::decide on locked rows, members, settings and log entry in one transaction
//!        -> the entry is dispatched like any message: also to who was just removed
//! ```

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::{Logic, conversation::check_max_members, dispatched::Done};
use crate::{
    dispatch::Entry,
    error::{Code, Error, Result},
    ids::{ConversationId, MessageId},
    limits::{INVITE_MAX, PAGE_MAX},
    model::{Caller, Conversation, GroupAction, JoinRequest, Message, Role},
    rules,
};

impl Logic {
    pub(super) async fn manage_group(&self, caller: &Caller, id: ConversationId, action: &GroupAction) -> Result<Conversation> {
        let action = checked(action)?;
        let event_id = MessageId::from(self.ports.ids.uuid());
        let changed = self.ports.store.manage(id, caller.user, &action, event_id, self.ports.clock.now()).await?;
        if let Some(event) = changed.event {
            self.told(&changed.conversation, event).await;
        }
        Ok(changed.conversation)
    }

    pub(super) async fn new_group_link(&self, caller: &Caller, id: ConversationId) -> Result<String> {
        let mut secret = [0; 24];
        self.ports.ids.random(&mut secret);
        let secret = URL_SAFE_NO_PAD.encode(secret);
        self.manage_group(caller, id, &GroupAction::SetLink { link_hash: Some(hash(&secret)) }).await?;
        Ok(secret)
    }

    pub(super) async fn join_group_by_link(&self, caller: &Caller, secret: &str) -> Result<Conversation> {
        let link_hash = hash(secret);
        let group = self.ports.store.conversation_by_link(&link_hash).await?.ok_or_else(|| Error::from(Code::LinkNotFound))?;
        // The link is compared again on the locked row: it may have been changed meanwhile.
        self.manage_group(caller, group.id, &GroupAction::JoinByLink { link_hash }).await
    }

    pub(super) async fn open_requests(&self, caller: &Caller, id: ConversationId) -> Result<Vec<JoinRequest>> {
        if self.member(caller, id).await?.role < Role::Admin {
            return Err(Code::Denied.into());
        }
        self.ports.store.join_requests(id, PAGE_MAX).await
    }

    /// Tells the members of an entry that a management call has stored. The entry is stored whatever happens here: what is
    /// not told now, the sweeper and the heads tell later.
    pub(super) async fn told(&self, conversation: &Conversation, event: Message) {
        let done = Done { conversation: event.conversation, seq: event.seq, known: conversation.dispatched_seq };
        let entry = Entry { message: event.into(), from: None, member_count: conversation.member_count, members_seq: conversation.members_seq };
        match self.dispatcher.dispatch(Vec::new(), &[entry]).await {
            Ok(receipt) => self.sender.dispatched.note_when_safe(receipt, vec![done]),
            Err(error) => tracing::warn!(?error, conversation.id = %conversation.id, "members were not told of an event yet"),
        }
    }
}

/// The action with its texts in canonical form, or why it is none.
fn checked(action: &GroupAction) -> Result<GroupAction> {
    Ok(match action.clone() {
        GroupAction::Invite { mut users } => {
            users.sort_unstable();
            users.dedup();
            if users.is_empty() || users.len() > INVITE_MAX {
                return Err(Error::new(Code::InvalidField, format!("1 to {INVITE_MAX} users")));
            }
            GroupAction::Invite { users }
        }
        GroupAction::Edit { name, description, avatar_url, max_members, join_mode } => {
            if let Some(Some(url)) = &avatar_url {
                rules::check_url(url)?;
            }
            if let Some(max) = max_members {
                check_max_members(max)?;
            }
            let name = name.as_deref().map(rules::display_name).transpose()?;
            let description = description.as_deref().map(rules::description).transpose()?;
            GroupAction::Edit { name, description, avatar_url, max_members, join_mode }
        }
        other => other,
    })
}

fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

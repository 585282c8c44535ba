//! Conversations: making, listing, muting (flow 5). What is done to groups stands in `group`.
//!
//! ```text
//! create: shape of the request -> Store::create_conversation (participants, pair, capacity, members, first entry: one
//!         transaction) -> the first entry is dispatched like any message
//! ```

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::Logic;
use crate::{
    error::{Code, Error, Result},
    ids::{ConversationId, MessageId, UserId},
    limits::{IDEMPOTENCY_KEY_BYTES_MAX, INVITE_MAX, MEMBERS_DEFAULT, MEMBERS_MAX, PAGE_MAX},
    model::{Caller, Conversation, ConversationKind, ConversationView, GroupAction, IdempotencyKey, JoinRequest, Member, NewConversation},
    ports::{ConversationsApi, CreateConversation, Page},
    rules,
    time::Timestamp,
};

#[async_trait]
impl ConversationsApi for Logic {
    async fn create(&self, caller: &Caller, request: &CreateConversation) -> Result<(ConversationView, bool)> {
        let new = self.new_conversation(caller, request)?;
        let created = self.ports.store.create_conversation(&new).await?;
        if let Some(event) = created.event {
            self.told(&created.conversation, event).await;
        }
        Ok((self.conversation(caller, created.conversation.id).await?, created.existed))
    }

    async fn list(&self, caller: &Caller, cursor: Option<&str>, limit: usize) -> Result<Page<ConversationView>> {
        let limit = limit.clamp(1, PAGE_MAX);
        let before = cursor.map(parse_list_cursor).transpose()?;
        let mut items = self.ports.store.conversations_of(caller.user, before, limit + 1).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| list_cursor(last.conversation.active_at, last.conversation.id));
        Ok(Page { items, next_cursor })
    }

    async fn conversation(&self, caller: &Caller, id: ConversationId) -> Result<ConversationView> {
        self.ports.store.conversation_view(caller.user, id).await?.ok_or_else(|| Code::ConversationNotFound.into())
    }

    async fn members(&self, caller: &Caller, id: ConversationId, cursor: Option<&str>, limit: usize) -> Result<Page<Member>> {
        self.member(caller, id).await?;
        let limit = limit.clamp(1, PAGE_MAX);
        let after: Option<UserId> = cursor.map(|cursor| cursor.parse().map_err(|_| Error::from(Code::InvalidCursor))).transpose()?;
        let mut items = self.ports.store.members(id, after, limit + 1).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| last.user.to_string());
        Ok(Page { items, next_cursor })
    }

    async fn manage(&self, caller: &Caller, id: ConversationId, action: &GroupAction) -> Result<Conversation> {
        self.manage_group(caller, id, action).await
    }

    async fn new_link(&self, caller: &Caller, id: ConversationId) -> Result<String> {
        self.new_group_link(caller, id).await
    }

    async fn join_by_link(&self, caller: &Caller, secret: &str) -> Result<Conversation> {
        self.join_group_by_link(caller, secret).await
    }

    async fn join_requests(&self, caller: &Caller, id: ConversationId) -> Result<Vec<JoinRequest>> {
        self.open_requests(caller, id).await
    }

    async fn set_muted(&self, caller: &Caller, id: ConversationId, muted: bool) -> Result<Member> {
        self.ports.store.set_muted(id, caller.user, muted).await
    }
}

impl Logic {
    fn new_conversation(&self, caller: &Caller, request: &CreateConversation) -> Result<NewConversation> {
        let invalid = |why: &'static str| Err(Error::new(Code::InvalidField, why));
        let mut members = request.participants.clone();
        members.sort_unstable();
        members.dedup();
        if members.len() > INVITE_MAX {
            return Err(Error::new(Code::InvalidField, format!("at most {INVITE_MAX} participants; invite more afterwards")));
        }
        if members.contains(&caller.user) {
            return invalid("the caller is a member anyway and is not named among the participants");
        }
        let group = request.kind == ConversationKind::Group;
        let (mut name, mut description, mut max_members) = (String::new(), String::new(), 2);
        if group {
            name = rules::display_name(&request.name)?;
            description = rules::description(&request.description)?;
            max_members = request.max_members.unwrap_or(MEMBERS_DEFAULT);
            check_max_members(max_members)?;
        } else {
            if members.len() != 1 {
                return invalid("a 1:1 has exactly one participant");
            }
            let settings = request.max_members.is_some() || request.avatar_url.is_some();
            if !request.name.is_empty() || !request.description.is_empty() || settings {
                return invalid("a 1:1 has no name, description, picture or settings");
            }
        }
        if let Some(url) = &request.avatar_url {
            rules::check_url(url)?;
        }
        Ok(NewConversation {
            id: ConversationId::from(self.ports.ids.uuid()),
            kind: request.kind,
            creator: caller.user,
            members,
            name,
            description,
            avatar_url: request.avatar_url.clone(),
            join_mode: request.join_mode,
            max_members,
            event_id: MessageId::from(self.ports.ids.uuid()),
            idempotency: idempotency_key(request)?,
            at: self.ports.clock.now(),
        })
    }

    /// The caller's current membership; `CONVERSATION_NOT_FOUND` or `NOT_A_MEMBER` otherwise. For reads: what a read
    /// shows may be as old as the read itself.
    pub(super) async fn member(&self, caller: &Caller, id: ConversationId) -> Result<Member> {
        let intervals = self.ports.store.memberships(id, &[caller.user]).await?.pop().unwrap_or_default();
        let unknown = intervals.is_empty();
        let code = if unknown { Code::ConversationNotFound } else { Code::NotAMember };
        intervals.into_iter().find(Member::is_current).ok_or_else(|| code.into())
    }
}

pub(super) fn check_max_members(max: i32) -> Result<()> {
    if !(1..=MEMBERS_MAX).contains(&max) {
        return Err(Error::new(Code::InvalidField, format!("max_members is 1 to {MEMBERS_MAX}")));
    }
    Ok(())
}

fn idempotency_key(request: &CreateConversation) -> Result<Option<IdempotencyKey>> {
    let Some(key) = &request.idempotency_key else { return Ok(None) };
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::new(Code::InvalidField, format!("Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters")));
    }
    let request = serde_json::to_vec(request).map_err(Error::internal)?;
    Ok(Some(IdempotencyKey { key: key.clone(), request_hash: Sha256::digest(request).into() }))
}

fn list_cursor(at: Timestamp, id: ConversationId) -> String {
    let mut bytes = at.0.to_be_bytes().to_vec();
    bytes.extend(id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn parse_list_cursor(cursor: &str) -> Result<(Timestamp, ConversationId)> {
    let invalid = || Error::from(Code::InvalidCursor);
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?;
    let (at, id) = bytes.split_first_chunk::<8>().ok_or_else(invalid)?;
    Ok((Timestamp(i64::from_be_bytes(*at)), ConversationId::from_slice(id).map_err(|_| invalid())?))
}

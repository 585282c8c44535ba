//! Short ways to fill a store, so that a case says only what it is about.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    error::{Code, Result},
    ids::{ClientMsgId, ConversationId, DeviceId, FamilyId, MessageId, Seq, UserId},
    model::{
        Body, Caller, Conversation, ConversationKind, Draft, Event, GroupAction, JoinMode, Member, Message, MessageKind, NewConversation, NewSession,
        NewUser, PayloadHash, Role,
    },
    ports::{AppendBatch, Appended, Changed, Store},
    time::Timestamp,
};

/// A store, and what cases do with it. Everything that is made has a fresh id.
#[derive(Clone)]
pub struct World(pub Arc<dyn Store>);

impl Deref for World {
    type Target = dyn Store;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl World {
    pub async fn user(&self) -> UserId {
        self.create_user(&new_user()).await.unwrap().id
    }

    pub async fn users_of<const N: usize>(&self) -> [UserId; N] {
        let mut users = [UserId::from_bytes([0; 16]); N];
        for user in &mut users {
            *user = self.user().await;
        }
        users
    }

    pub async fn group(&self, owner: UserId, members: &[UserId]) -> ConversationId {
        self.create_conversation(&new_group(owner, members)).await.unwrap().conversation.id
    }

    pub async fn single(&self, creator: UserId, peer: UserId) -> ConversationId {
        self.create_conversation(&new_single(creator, peer)).await.unwrap().conversation.id
    }

    pub async fn row(&self, id: ConversationId) -> Conversation {
        self.conversations(&[id]).await.unwrap().remove(0).unwrap()
    }

    /// The newest interval of a member.
    pub async fn member(&self, id: ConversationId, user: UserId) -> Member {
        self.memberships(id, &[user]).await.unwrap().remove(0).pop().unwrap()
    }

    pub async fn role(&self, id: ConversationId, user: UserId) -> Role {
        self.member(id, user).await.role
    }

    pub async fn act(&self, id: ConversationId, actor: UserId, action: GroupAction) -> Result<Changed> {
        self.manage(id, actor, &action, MessageId::from(Uuid::now_v7()), now()).await
    }

    /// What an action told the members; `None`: it told nothing.
    pub async fn told(&self, id: ConversationId, actor: UserId, action: GroupAction) -> Option<Event> {
        self.act(id, actor, action).await.unwrap().event.as_ref().map(event)
    }

    pub async fn send(&self, drafts: &[Draft]) -> Vec<Result<Appended>> {
        self.append(&AppendBatch { drafts: drafts.to_vec(), dispatched: Vec::new() }).await.unwrap()
    }

    pub async fn send_one(&self, draft: &Draft) -> Result<Appended> {
        self.send(std::slice::from_ref(draft)).await.remove(0)
    }

    pub async fn say(&self, id: ConversationId, sender: UserId, text: &str) -> Seq {
        self.send_one(&draft(id, sender, text)).await.unwrap().message.seq
    }

    /// What `reader` sees of the log, and that going forward and going back from the end show the same.
    pub async fn seen(&self, reader: UserId, id: ConversationId) -> Vec<i64> {
        let back = seqs(&self.history(reader, id, None, None, 10_000).await.unwrap());
        assert_eq!(seqs(&self.history(reader, id, Some(Seq::ZERO), None, 10_000).await.unwrap()), back, "both directions show the same");
        back
    }

    pub async fn login(&self, user: UserId) -> (Caller, NewSession) {
        let session = new_session(user, DeviceId::from(Uuid::now_v7()));
        let (device, _) = self.record_login(&session).await.unwrap();
        (Caller { user, device: device.id, session_epoch: device.session_epoch }, session)
    }

    /// A log is whole: seqs 1 to the head, each once.
    pub async fn assert_dense(&self, id: ConversationId) -> Seq {
        let head = self.row(id).await.head_seq;
        let log = self.log(id, Seq::ZERO, Seq(i64::MAX), 100_000).await.unwrap();
        assert_eq!(seqs(&log), (1..=head.0).collect::<Vec<_>>(), "seqs are 1 to the head");
        head
    }
}

/// Milliseconds that count up: no case depends on the time of day.
pub fn now() -> Timestamp {
    static NOW: AtomicI64 = AtomicI64::new(1_700_000_000_000);
    Timestamp(NOW.fetch_add(1, Ordering::Relaxed))
}

pub const HOUR: Duration = Duration::from_secs(3600);

pub fn new_user() -> NewUser {
    let id = Uuid::now_v7();
    NewUser {
        id: UserId::from(id),
        username: id.simple().to_string(),
        display_name: "Somebody".into(),
        password_phc: None,
        external_id: None,
        created_at: now(),
    }
}

pub fn nobody() -> UserId {
    UserId::from(Uuid::now_v7())
}

pub fn new_group(owner: UserId, members: &[UserId]) -> NewConversation {
    NewConversation {
        id: ConversationId::from(Uuid::now_v7()),
        kind: ConversationKind::Group,
        creator: owner,
        members: members.to_vec(),
        name: "Group".into(),
        description: String::new(),
        avatar_url: None,
        join_mode: JoinMode::Invite,
        max_members: 5000,
        event_id: MessageId::from(Uuid::now_v7()),
        idempotency: None,
        at: now(),
    }
}

pub fn new_single(creator: UserId, peer: UserId) -> NewConversation {
    NewConversation { kind: ConversationKind::Single, name: String::new(), max_members: 2, ..new_group(creator, &[peer]) }
}

pub fn draft(conversation: ConversationId, sender: UserId, text: &str) -> Draft {
    Draft {
        conversation,
        id: MessageId::from(Uuid::now_v7()),
        sender,
        client_msg_id: ClientMsgId::from(Uuid::now_v7()),
        body: Body { kind: MessageKind::Text, content: text.to_owned().into() },
        payload_hash: hash(1, text),
        reply_to: None,
        created_at: now(),
    }
}

/// The same message, sent again: another id and time, the sender's own id.
pub fn again(draft: &Draft) -> Draft {
    Draft { id: MessageId::from(Uuid::now_v7()), created_at: now(), ..draft.clone() }
}

/// Another message under the same id of the sender.
pub fn forged(draft: &Draft, text: &str) -> Draft {
    let body = Body { kind: MessageKind::Text, content: text.to_owned().into() };
    Draft { body, payload_hash: hash(draft.payload_hash.key_id, text), ..again(draft) }
}

/// Not keyed, but different for different texts and keys.
pub fn hash(key_id: i32, text: &str) -> PayloadHash {
    PayloadHash { key_id, hash: Sha256::new().chain_update(key_id.to_be_bytes()).chain_update(text).finalize().into() }
}

pub fn new_session(user: UserId, device: DeviceId) -> NewSession {
    NewSession {
        user,
        device,
        device_name: "Phone".into(),
        family: FamilyId::from(Uuid::now_v7()),
        refresh_hash: secret(),
        refresh_expires_at: Timestamp(i64::MAX),
        address: "192.0.2.1".into(),
        at: now(),
    }
}

/// 32 bytes that nobody else has.
pub fn secret() -> [u8; 32] {
    Sha256::digest(Uuid::now_v7().as_bytes()).into()
}

pub fn seqs(messages: &[Message]) -> Vec<i64> {
    messages.iter().map(|message| message.seq.0).collect()
}

pub fn event(message: &Message) -> Event {
    assert_eq!(message.body.kind, MessageKind::Event);
    serde_json::from_str(&message.body.content).unwrap()
}

/// The code of a refusal.
#[track_caller]
pub fn refusal<T>(outcome: Result<T>) -> Code {
    match outcome {
        Ok(_) => panic!("this was to be refused"),
        Err(error) => error.code,
    }
}

/// `None` for what was done, else the code of its refusal.
pub fn code<T>(outcome: &Result<T>) -> Option<Code> {
    outcome.as_ref().err().map(|error| error.code)
}

pub fn sorted<T: Ord, const N: usize>(mut items: [T; N]) -> [T; N] {
    items.sort();
    items
}

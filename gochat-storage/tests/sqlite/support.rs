//! A store in a directory of its own, and short ways to fill it.

use std::{
    ops::Deref,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
};

use gochat_core::{
    error::{Error, Result},
    ids::{ClientMsgId, ConversationId, DeviceId, FamilyId, MessageId, Seq, UserId},
    model::{Body, ConversationKind, Draft, GroupAction, JoinMode, MessageKind, NewConversation, NewSession, NewUser, PayloadHash},
    ports::{AppendBatch, Appended, Changed, Conversations, Devices, Messages, Users},
    time::Timestamp,
};
use gochat_storage::sqlite::{self, Database, SqliteSettings};
use uuid::Uuid;

pub struct TestStore {
    pub database: Database,
    pub directory: tempfile::TempDir,
}

impl Deref for TestStore {
    type Target = Database;
    fn deref(&self) -> &Database {
        &self.database
    }
}

pub fn store() -> TestStore {
    store_with(&SqliteSettings::default())
}

pub fn store_with(settings: &SqliteSettings) -> TestStore {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite::open(&directory.path().join("gochat.db"), settings).unwrap();
    TestStore { database, directory }
}

impl TestStore {
    pub fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("gochat.db")
    }

    pub async fn user(&self) -> UserId {
        self.user_with(UserId::from(Uuid::now_v7())).await
    }

    pub async fn user_with(&self, id: UserId) -> UserId {
        let new = NewUser {
            id,
            username: format!("u{}", id.to_string().replace('-', "").split_off(4)),
            display_name: "Somebody".into(),
            password_phc: None,
            external_id: None,
            created_at: now(),
        };
        self.create_user(&new).await.unwrap().id
    }

    pub async fn users_of<const N: usize>(&self) -> [UserId; N] {
        let mut users = Vec::with_capacity(N);
        for _ in 0..N {
            users.push(self.user().await);
        }
        users.try_into().unwrap()
    }

    pub async fn group(&self, owner: UserId, members: &[UserId]) -> ConversationId {
        self.create_conversation(&new_group(owner, members)).await.unwrap().conversation.id
    }

    pub async fn single(&self, creator: UserId, peer: UserId) -> ConversationId {
        self.create_conversation(&new_single(creator, peer)).await.unwrap().conversation.id
    }

    pub async fn act(&self, id: ConversationId, actor: UserId, action: GroupAction) -> Result<Changed> {
        self.manage(id, actor, &action, MessageId::from(Uuid::now_v7()), now()).await
    }

    pub async fn send(&self, drafts: Vec<Draft>) -> Vec<Result<Appended>> {
        self.append(&AppendBatch { drafts, dispatched: vec![] }).await.unwrap()
    }

    pub async fn say(&self, id: ConversationId, sender: UserId, text: &str) -> Seq {
        self.send(vec![draft(id, sender, text)]).await.remove(0).unwrap().message.seq
    }

    /// The seqs that `reader` finds, going back from the end.
    pub async fn seen(&self, reader: UserId, id: ConversationId) -> Vec<i64> {
        self.history(reader, id, None, None, 200).await.unwrap().iter().map(|message| message.seq.0).collect()
    }

    pub async fn login(&self, user: UserId) -> NewSession {
        let session = new_session(user, DeviceId::from(Uuid::now_v7()));
        self.record_login(&session).await.unwrap();
        session
    }
}

/// Milliseconds that count up: nothing here depends on the time of day.
pub fn now() -> Timestamp {
    static NOW: AtomicI64 = AtomicI64::new(1_700_000_000_000);
    Timestamp(NOW.fetch_add(1, Ordering::Relaxed))
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
        join_mode: JoinMode::Open,
        max_members: 100_000,
        event_id: MessageId::from(Uuid::now_v7()),
        idempotency: None,
        at: now(),
    }
}

pub fn new_single(creator: UserId, peer: UserId) -> NewConversation {
    NewConversation {
        kind: ConversationKind::Single,
        name: String::new(),
        join_mode: JoinMode::Invite,
        max_members: 2,
        ..new_group(creator, &[peer])
    }
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

/// Not a hash, but different for different texts.
pub fn hash(key_id: i32, text: &str) -> PayloadHash {
    let mut hash = [key_id as u8; 32];
    for (to, from) in hash.iter_mut().zip(text.bytes()) {
        *to = to.wrapping_add(from);
    }
    PayloadHash { key_id, hash }
}

pub fn new_session(user: UserId, device: DeviceId) -> NewSession {
    NewSession {
        user,
        device,
        device_name: "Phone".into(),
        family: FamilyId::from(Uuid::now_v7()),
        refresh_hash: secret(),
        refresh_expires_at: Timestamp(i64::MAX),
        address: "127.0.0.1".into(),
        at: now(),
    }
}

pub fn secret() -> [u8; 32] {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    secret
}

pub fn code<T>(outcome: Result<T>) -> &'static str {
    outcome.err().map_or("OK", |error: Error| error.code.as_str())
}

//! A database of its own for each test, and short ways to fill it.

use std::{
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicI64, Ordering},
};

use diesel::{QueryableByName, sql_types::BigInt};
use diesel_async::{AsyncConnection, AsyncMysqlConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::FutureExt;
use gochat_core::{
    error::{Error, Result},
    ids::{ClientMsgId, ConversationId, MessageId, Seq, UserId},
    model::{Body, ConversationKind, Draft, JoinMode, MessageKind, NewConversation, NewUser, PayloadHash},
    ports::{AppendBatch, Appended, Conversations, Messages, Users},
    time::Timestamp,
};
use gochat_storage::mysql::{self, Database, MysqlSettings};
use uuid::Uuid;

/// Names the server; the user needs the right to make databases.
const SERVER: &str = "GOCHAT_TEST_MYSQL";
const DEFAULT: &str = "mysql://im:im@127.0.0.1:13306/";

pub struct TestDatabase {
    pub name: String,
    server: String,
}

impl TestDatabase {
    /// The database's URL.
    pub fn url(&self) -> String {
        format!("{}{}", self.server, self.name)
    }

    /// Its URL by another port of this machine.
    pub fn url_by(&self, port: u16) -> String {
        let (user, rest) = self.server.split_once('@').unwrap();
        let (address, _) = rest.split_once('/').unwrap();
        assert!(address.contains(':'), "the address names its port: {address}");
        format!("{user}@127.0.0.1:{port}/{}?prefer_socket=false", self.name)
    }

    /// Host and port of the server.
    pub fn address(&self) -> String {
        self.server.split_once('@').unwrap().1.trim_end_matches('/').to_owned()
    }

    pub fn settings(&self) -> MysqlSettings {
        MysqlSettings { migrate: true, ..MysqlSettings::new(self.url()) }
    }

    pub async fn store(&self) -> Database {
        mysql::connect(&self.settings()).await.unwrap()
    }

    /// A connection beside the store.
    pub async fn beside(&self) -> Beside {
        Beside(AsyncMysqlConnection::establish(&self.url()).await.unwrap())
    }
}

/// Runs a test on a new database and drops that, however the test ends.
pub async fn on_a_database(test: impl AsyncFnOnce(&TestDatabase)) {
    let server = std::env::var(SERVER).unwrap_or_else(|_| DEFAULT.into());
    let name = format!("gochat_test_{}", Uuid::now_v7().simple());
    let mut admin = AsyncMysqlConnection::establish(&server).await.unwrap_or_else(|error| {
        panic!("no MySQL server for the tests: {error}. Start one with `./deploy/local.sh up --servers-only`, or name one in {SERVER}.")
    });
    admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let database = TestDatabase { name, server };
    let outcome = AssertUnwindSafe(test(&database)).catch_unwind().await;
    admin.batch_execute(&format!("DROP DATABASE {}", database.name)).await.unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// A connection that does what the store would not.
pub struct Beside(pub AsyncMysqlConnection);

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

impl Beside {
    pub async fn run(&mut self, sql: &str) {
        self.0.batch_execute(sql).await.unwrap();
    }

    /// Numbers in a column named `value`.
    pub async fn numbers(&mut self, sql: &str) -> Vec<i64> {
        diesel::sql_query(sql).load::<Number>(&mut self.0).await.unwrap().into_iter().map(|row| row.value).collect()
    }

    /// Connections of others to this database, whose statement begins like this.
    pub async fn connections(&mut self, running: &str) -> Vec<i64> {
        let sql = format!(
            "SELECT CAST(id AS SIGNED) AS value FROM information_schema.processlist
             WHERE db = DATABASE() AND id <> CONNECTION_ID() AND COALESCE(info, '') LIKE '{running}%'"
        );
        self.numbers(&sql).await
    }

    /// Waits until a statement of another connection is there; answers with the connection.
    pub async fn waiting(&mut self, running: &str) -> i64 {
        for _ in 0..400 {
            if let [id, ..] = self.connections(running).await[..] {
                return id;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("no statement {running}");
    }
}

/// `X'…'` of an id.
pub fn hex(bytes: &[u8]) -> String {
    format!("X'{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

pub async fn users<const N: usize>(store: &Database) -> [UserId; N] {
    let mut users = Vec::with_capacity(N);
    for _ in 0..N {
        users.push(user_with(store, UserId::from(Uuid::now_v7())).await);
    }
    users.try_into().unwrap()
}

pub async fn user_with(store: &Database, id: UserId) -> UserId {
    let username = format!("u{}", id.to_string().replace('-', "").split_off(4));
    let new = NewUser { id, username, display_name: "Somebody".into(), password_phc: None, external_id: None, created_at: now() };
    store.create_user(&new).await.unwrap().id
}

pub async fn group(store: &Database, owner: UserId, members: &[UserId]) -> ConversationId {
    store.create_conversation(&new_group(owner, members)).await.unwrap().conversation.id
}

pub async fn send(store: &Database, drafts: Vec<Draft>) -> Vec<Result<Appended>> {
    store.append(&AppendBatch { drafts, dispatched: vec![] }).await.unwrap()
}

/// Seqs 1 to the head, each once; answers with the head.
pub async fn assert_dense(store: &Database, id: ConversationId) -> i64 {
    let log = store.log(id, Seq::ZERO, Seq(i64::MAX), 1_000_000).await.unwrap();
    let head = store.conversations(&[id]).await.unwrap().remove(0).unwrap().head_seq;
    assert_eq!(log.iter().map(|message| message.seq.0).collect::<Vec<_>>(), (1..=head.0).collect::<Vec<_>>());
    head.0
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

pub fn code<T>(outcome: Result<T>) -> &'static str {
    outcome.err().map_or("OK", |error: Error| error.code.as_str())
}

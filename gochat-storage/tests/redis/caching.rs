//! Two processes over one store: what one has acknowledged the other shows, also where its copies lag.

use std::sync::Arc;

use gochat_core::{
    cached::CachedStore,
    ids::{ClientMsgId, ConversationId, MessageId, Seq, UserId},
    model::{Body, ConversationKind, Draft, GroupAction, JoinMode, MessageKind, NewConversation, NewUser, PayloadHash},
    ports::{AppendBatch, Store},
    time::Timestamp,
};
use gochat_storage::{local::LocalCache, redis::Redis, redis::RedisCache, tiered::TieredCache};
use uuid::Uuid;

use crate::support::{Server, command, database, settings};

fn process(database: &Arc<dyn Store>, redis: &Redis) -> Arc<dyn Store> {
    let tiered = TieredCache::new(Arc::new(LocalCache::new(16 << 20)), Arc::new(RedisCache::new(redis.clone())));
    Arc::new(CachedStore::new(database.clone(), Arc::new(tiered)).with_pages())
}

async fn account(store: &dyn Store) -> UserId {
    let id = UserId::from(Uuid::now_v7());
    let new = NewUser {
        id,
        username: format!("u{}", &id.to_string().replace('-', "")[4..]),
        display_name: "Somebody".into(),
        password_phc: None,
        external_id: None,
        created_at: Timestamp(1),
    };
    store.create_user(&new).await.unwrap().id
}

async fn group(store: &dyn Store, creator: UserId, members: &[UserId]) -> ConversationId {
    let new = NewConversation {
        id: ConversationId::from(Uuid::now_v7()),
        kind: ConversationKind::Group,
        creator,
        members: members.to_vec(),
        name: "Group".into(),
        description: String::new(),
        avatar_url: None,
        join_mode: JoinMode::Open,
        max_members: 100,
        event_id: MessageId::from(Uuid::now_v7()),
        idempotency: None,
        at: Timestamp(1),
    };
    store.create_conversation(&new).await.unwrap().conversation.id
}

async fn say(store: &dyn Store, conversation: ConversationId, sender: UserId, at: i64) -> Seq {
    let draft = Draft {
        conversation,
        id: MessageId::from(Uuid::now_v7()),
        sender,
        client_msg_id: ClientMsgId::from(Uuid::now_v7()),
        body: Body { kind: MessageKind::Text, content: format!("said at {at}").into() },
        payload_hash: PayloadHash { key_id: 1, hash: [at as u8; 32] },
        reply_to: None,
        created_at: Timestamp(at),
    };
    store.append(&AppendBatch { drafts: vec![draft], dispatched: vec![] }).await.unwrap().remove(0).unwrap().message.seq
}

/// Pages, lists and heads through one process are never behind what another one has acknowledged, though each keeps copies of
/// its own for two seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_acknowledged_every_other_shows_at_once() {
    let server = Server::start();
    let redis = Redis::connect(settings(&[server.url()])).await.unwrap();
    let (database, _folder) = database();
    let (here, there) = (process(&database, &redis), process(&database, &redis));
    let (a, b) = (account(&*here).await, account(&*here).await);
    let id = group(&*here, a, &[b]).await;
    for n in 2..=150 {
        let (writer, reader) = if n % 2 == 0 { (&here, &there) } else { (&there, &here) };
        assert_eq!(say(&**writer, id, a, n).await, Seq(n));
        let page = reader.history(b, id, None, None, 50).await.unwrap();
        assert_eq!(page.last().map(|message| message.seq), Some(Seq(n)));
        assert_eq!(page.len(), 50.min(n as usize));
        assert_eq!(reader.history(b, id, Some(Seq(n - 1)), None, 50).await.unwrap().len(), 1);
        let list = reader.conversations_of(b, None, 50).await.unwrap();
        assert_eq!((list[0].unread, list[0].last_message.as_ref().map(|message| message.seq)), (n - 1, Some(Seq(n))));
        assert_eq!(reader.readable(b, &[id]).await.unwrap()[0].as_ref().map(|readable| readable.head_seq), Some(Seq(n)));
    }
    let remove = GroupAction::Remove { user: b };
    here.manage(id, a, &remove, MessageId::from(Uuid::now_v7()), Timestamp(1)).await.unwrap();
    assert_eq!(say(&*here, id, a, 1).await, Seq(152));
    assert_eq!(there.history(a, id, None, None, 50).await.unwrap().last().map(|message| message.seq), Some(Seq(152)));
    assert_eq!(there.history(b, id, None, None, 50).await.unwrap().last().map(|message| message.seq), Some(Seq(151)));
    assert_eq!(there.conversations_of(b, None, 50).await.unwrap(), [], "who is gone has no list");
    let shapes: Vec<String> = command(&server.url(), &["KEYS", "*"]).await;
    for shape in ["user:", "group:", "message:", "user_conversations:"] {
        assert!(shapes.iter().any(|key| key.contains(shape)), "{shape} is not among {shapes:?}");
    }
}

/// A cache that went away costs what was in it, and nothing is wrong meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_everything_is_read_from_the_store() {
    let mut server = Server::start();
    let redis = Redis::connect(settings(&[server.url()])).await.unwrap();
    let (database, _folder) = database();
    let store = process(&database, &redis);
    let (a, b) = (account(&*store).await, account(&*store).await);
    let id = group(&*store, a, &[b]).await;
    assert_eq!(say(&*store, id, a, 2).await, Seq(2));
    assert_eq!(store.history(b, id, None, None, 50).await.unwrap().len(), 2);
    server.kill();
    for n in 3..=20 {
        assert_eq!(say(&*store, id, a, n).await, Seq(n));
        assert_eq!(store.history(b, id, None, None, 50).await.unwrap().len() as i64, n);
        assert_eq!(store.conversations_of(b, None, 50).await.unwrap()[0].unread, n - 1);
    }
    server.restart();
    assert_eq!(say(&*store, id, a, 21).await, Seq(21));
    assert_eq!(store.history(b, id, None, None, 50).await.unwrap().len(), 21);
}

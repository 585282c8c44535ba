use std::{collections::BTreeMap, sync::atomic::Ordering};

use gochat_core::{
    ids::{ConversationId, MessageId, Seq, UserId},
    limits::APPEND_DRAFTS_MAX,
    model::{Draft, GroupAction},
    ports::{AppendBatch, Conversations, Messages},
    time::Timestamp,
};
use gochat_storage::mysql::{self, Database, MysqlSettings};
use uuid::Uuid;

use crate::{
    proxy::Proxy,
    support::{TestDatabase, assert_dense, draft, group, hash, new_group, on_a_database, send, user_with, users},
};

/// Two processes, eight tasks each, the same conversations: every seq once, and every task's messages in its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_leave_dense_seqs_and_every_sender_in_order() {
    on_a_database(async |database| {
        let stores = [database.store().await, database.store().await];
        let senders = users::<16>(&stores[0]).await;
        let mut groups = Vec::new();
        for _ in 0..5 {
            groups.push(group(&stores[0], senders[0], &senders[1..]).await);
        }
        let mut tasks = tokio::task::JoinSet::new();
        for (task, sender) in senders.into_iter().enumerate() {
            let (store, groups) = (stores[task % 2].clone(), groups.clone());
            tasks.spawn(async move {
                for n in 0..20 {
                    // Each batch touches other conversations, in another order.
                    let drafts = (0..6).map(|k| draft(groups[(task + n * 7 + k * 3) % 5], sender, &format!("{n}/{k}"))).collect();
                    for outcome in send(&store, drafts).await {
                        outcome.unwrap();
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let mut heads = 0;
        for &id in &groups {
            heads += assert_dense(&stores[1], id).await;
            let mut said: BTreeMap<UserId, Vec<(u32, u32)>> = BTreeMap::new();
            for message in stores[0].log(id, Seq(1), Seq(i64::MAX), 100_000).await.unwrap() {
                let (n, k) = message.body.content.split_once('/').unwrap();
                said.entry(message.sender).or_default().push((n.parse().unwrap(), k.parse().unwrap()));
            }
            assert!(said.values().all(|said| said.is_sorted()), "a sender's messages were reordered");
        }
        assert_eq!(heads, 5 + 16 * 20 * 6);
    })
    .await;
}

/// The store's statements for one append of `drafts` messages, each in another conversation.
async fn statements(proxy: &Proxy, store: &Database, conversations: &[ConversationId], senders: &[UserId], drafts: usize) -> (usize, usize) {
    let batch = || AppendBatch {
        drafts: (0..drafts).map(|n| draft(conversations[n], senders[n % senders.len()], "x")).collect(),
        dispatched: conversations[..drafts].iter().map(|id| (*id, Seq(1))).collect(),
    };
    // Twice: what is kept prepared is prepared then.
    for _ in 0..2 {
        proxy.traffic.statements.store(0, Ordering::SeqCst);
        proxy.traffic.prepared.store(0, Ordering::SeqCst);
        for outcome in store.append(&batch()).await.unwrap() {
            assert!(!outcome.unwrap().repeated);
        }
    }
    (proxy.traffic.statements.load(Ordering::SeqCst), proxy.traffic.prepared.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_has_as_many_statements_for_a_hundred_conversations_as_for_one() {
    on_a_database(async |database| {
        let proxy = Proxy::start(database.address()).await;
        let store = connect_by(database, &proxy).await;
        let senders = users::<5>(&store).await;
        let mut conversations = Vec::new();
        for _ in 0..300 {
            conversations.push(group(&store, senders[0], &senders[1..]).await);
        }
        // BEGIN, conversations, intervals, keys, INSERT, UPDATE, COMMIT.
        assert_eq!(statements(&proxy, &store, &conversations, &senders, 1).await, (7, 0));
        for drafts in [2, 100, 300] {
            assert_eq!(statements(&proxy, &store, &conversations, &senders, drafts).await, (7, 1), "{drafts} drafts");
        }
        let marked = store.conversations(&conversations[..1]).await.unwrap().remove(0).unwrap();
        assert_eq!((marked.head_seq, marked.dispatched_seq), (Seq(9), Seq(1)));
    })
    .await;
}

async fn connect_by(database: &TestDatabase, proxy: &Proxy) -> Database {
    let settings = MysqlSettings { url: database.url_by(proxy.port), writers: 1, readers: 1, ..database.settings() };
    mysql::connect(&settings).await.unwrap()
}

/// The largest batch there may be, and one whose bodies no single statement may hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_may_be_larger_than_a_statement() {
    on_a_database(async |database| {
        let store = database.store().await;
        let [a] = users(&store).await;
        let id = group(&store, a, &[]).await;
        let drafts: Vec<Draft> = (0..APPEND_DRAFTS_MAX).map(|n| draft(id, a, &n.to_string())).collect();
        assert!(send(&store, drafts).await.iter().all(|outcome| outcome.is_ok()));
        let large = "ä".repeat(32 << 10);
        let outcomes = send(&store, (0..300).map(|_| draft(id, a, &large)).collect()).await;
        assert_eq!(outcomes.last().unwrap().as_ref().unwrap().message.seq, Seq(1 + APPEND_DRAFTS_MAX as i64 + 300));
        let last = store.history(a, id, None, None, 2).await.unwrap();
        assert!(last.iter().all(|message| message.body.content == large));
        assert_eq!(store.conversations(&[id]).await.unwrap().remove(0).unwrap().head_seq, last[1].seq);
    })
    .await;
}

/// The batch and the query builder's statements are two ways to say one thing: the same drafts on both, with repeats, conflicts,
/// strangers, silenced and former members, bad replies and marks, have the same outcomes and leave the same rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batched_appends_do_what_the_query_builder_does() {
    on_a_database(async |one| {
        on_a_database(async |other| {
            let batched = one.store().await;
            let settings = MysqlSettings { by_query_builder: true, ..other.settings() };
            let single = mysql::connect(&settings).await.unwrap();
            compare(&batched, &single).await;
        })
        .await;
    })
    .await;
}

async fn compare(batched: &Database, single: &Database) {
    let [owner, member, left, silenced, stranger] = std::array::from_fn(|_| UserId::from(Uuid::now_v7()));
    let (new, second) = (new_group(owner, &[member, left, silenced]), new_group(owner, &[member]));
    let (event, other) = (MessageId::from(Uuid::now_v7()), MessageId::from(Uuid::now_v7()));
    for store in [batched, single] {
        for user in [owner, member, left, silenced, stranger] {
            user_with(store, user).await;
        }
        store.create_conversation(&new).await.unwrap();
        store.create_conversation(&second).await.unwrap();
        store.manage(new.id, left, &GroupAction::Leave, event, Timestamp(1)).await.unwrap();
        let silence = GroupAction::Silence { user: silenced, until: Some(Timestamp(i64::MAX)) };
        store.manage(new.id, owner, &silence, other, Timestamp(1)).await.unwrap();
    }
    let mut random = 7_u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let conversations = [new.id, second.id, ConversationId::from(Uuid::now_v7())];
    let senders = [owner, member, left, silenced, stranger];
    let mut sent: Vec<Draft> = Vec::new();
    for _ in 0..60 {
        let mut drafts = Vec::new();
        for _ in 0..next(12) {
            let mut draft = draft(conversations[next(3) as usize], senders[next(5) as usize], &format!("text {}", next(1000)));
            if next(4) == 0 && !sent.is_empty() {
                draft = sent[next(sent.len() as u64) as usize].clone();
                if next(2) == 0 {
                    draft.payload_hash = hash(1 + next(2) as i32, "another");
                }
            } else if next(4) == 0 {
                draft.reply_to = Some(Seq(next(30) as i64 - 2));
            }
            sent.push(draft.clone());
            drafts.push(draft);
        }
        let batch = AppendBatch { drafts, dispatched: vec![(conversations[next(3) as usize], Seq(next(20) as i64))] };
        let outcomes = async |store: &Database| format!("{:?}", store.append(&batch).await.unwrap());
        assert_eq!(outcomes(batched).await, outcomes(single).await);
    }
    for id in [new.id, second.id] {
        let left_behind = async |store: &Database| {
            let conversation = store.conversations(&[id]).await.unwrap();
            format!("{conversation:?} {:?}", store.log(id, Seq(0), Seq(i64::MAX), 10_000).await.unwrap())
        };
        assert_eq!(left_behind(batched).await, left_behind(single).await);
    }
    assert!(batched.conversations(&[new.id]).await.unwrap()[0].as_ref().unwrap().head_seq > Seq(20), "the drafts were hardly any");
}

use std::{collections::BTreeSet, sync::Arc};

use gochat_core::{
    ids::{ConversationId, MessageId, Seq, UserId},
    limits::APPEND_DRAFTS_MAX,
    model::GroupAction,
    ports::{AppendBatch, Conversations, Messages},
    time::Timestamp,
};
use gochat_storage::sqlite::{Database, SqliteSettings};
use uuid::Uuid;

use crate::support::{code, draft, hash, new_group, new_single, now, store, store_with};

#[tokio::test]
async fn a_batch_is_answered_in_its_order_and_stored_without_gaps() {
    let store = store();
    let [a, b, stranger] = store.users_of().await;
    let (one, two) = (store.group(a, &[b]).await, store.group(b, &[a]).await);
    let nowhere = ConversationId::from(Uuid::now_v7());
    let drafts = vec![
        draft(one, a, "1"),
        draft(two, b, "2"),
        draft(one, stranger, "no"),
        draft(nowhere, a, "no"),
        draft(one, b, "3"),
        draft(two, a, "4"),
        draft(one, a, "5"),
    ];
    let outcomes = store.send(drafts.clone()).await;
    let seqs: Vec<Result<(i64, String), &str>> = outcomes
        .into_iter()
        .map(|outcome| outcome.map(|stored| (stored.message.seq.0, stored.message.body.content.to_string())).map_err(|error| error.code.as_str()))
        .collect();
    let ok = |seq: i64, text: &str| Ok((seq, text.to_owned()));
    let missing = Err("CONVERSATION_NOT_FOUND");
    assert_eq!(seqs, [ok(2, "1"), ok(2, "2"), missing.clone(), missing, ok(3, "3"), ok(3, "4"), ok(4, "5")]);
    let stored = store.conversations(&[one]).await.unwrap().remove(0).unwrap();
    assert_eq!((stored.head_seq, stored.active_at), (Seq(4), drafts[6].created_at));
    assert_eq!((stored.version, stored.members_seq), (1, Seq(1)), "messages change neither settings nor members");
    let member = store.memberships(one, &[a]).await.unwrap().remove(0).remove(0);
    assert_eq!((member.read_seq, member.delivered_seq), (Seq(0), Seq(0)), "sending marks nothing");
}

#[tokio::test]
async fn a_repeated_draft_is_answered_with_what_was_stored_first() {
    let store = store();
    let [a, b] = store.users_of().await;
    let group = store.group(a, &[b]).await;
    let first = draft(group, a, "hello");
    let again = gochat_core::model::Draft { id: draft(group, a, "").id, created_at: now(), ..first.clone() };
    let other = gochat_core::model::Draft { payload_hash: hash(1, "bye"), body: draft(group, a, "bye").body, ..first.clone() };
    let by_b = gochat_core::model::Draft { sender: b, ..first.clone() };
    let rekeyed = gochat_core::model::Draft { payload_hash: hash(2, "hello"), ..again.clone() };
    let rekeyed_other = gochat_core::model::Draft { payload_hash: hash(2, "bye"), ..other.clone() };

    let stored = store.send(vec![first.clone()]).await.remove(0).unwrap();
    assert!(!stored.repeated);
    for batch in [vec![again.clone()], vec![draft(group, a, "between"), again.clone(), again.clone()], vec![rekeyed]] {
        let repeated = store.send(batch).await.pop().unwrap().unwrap();
        assert!(repeated.repeated);
        assert_eq!(repeated.message, stored.message);
    }
    for conflict in [other, rekeyed_other] {
        assert_eq!(code(store.send(vec![conflict]).await.remove(0)), "IDEMPOTENCY_CONFLICT");
    }
    let b_too = store.send(vec![by_b]).await.remove(0).unwrap();
    assert!(!b_too.repeated, "an id belongs to its sender");

    let within = draft(group, b, "twice");
    let outcomes = store.send(vec![within.clone(), draft(group, b, "other"), within]).await;
    let outcomes: Vec<(i64, bool)> =
        outcomes.into_iter().map(|outcome| outcome.map(|stored| (stored.message.seq.0, stored.repeated)).unwrap()).collect();
    assert_eq!(outcomes, [(5, false), (6, false), (5, true)]);
    assert_eq!(store.seen(a, group).await, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_repeat_stays_answered_when_the_sender_may_no_longer_send() {
    let store = store();
    let [a, b] = store.users_of().await;
    let group = store.group(a, &[b]).await;
    let sent = draft(group, b, "before");
    store.send(vec![sent.clone()]).await.remove(0).unwrap();
    store.act(group, a, GroupAction::Remove { user: b }).await.unwrap();
    let outcomes = store.send(vec![sent, draft(group, b, "after")]).await;
    assert!(outcomes[0].as_ref().unwrap().repeated);
    assert_eq!(outcomes[1].as_ref().unwrap_err().code.as_str(), "NOT_A_MEMBER");
}

#[tokio::test]
async fn who_is_silenced_or_answers_what_is_not_visible_is_refused() {
    let store = store();
    let [a, b] = store.users_of().await;
    let group = store.group(a, &[]).await;
    store.say(group, a, "before b").await;
    store.act(group, a, GroupAction::Invite { users: vec![b] }).await.unwrap();
    let answer = |to: i64| gochat_core::model::Draft { reply_to: Some(Seq(to)), ..draft(group, b, "answer") };
    let outcomes = store.send(vec![answer(3), answer(2), answer(4), answer(0), answer(-1), answer(99)]).await;
    let outcomes: Vec<&str> = outcomes.into_iter().map(code).collect();
    let hidden = "MESSAGE_NOT_FOUND";
    assert_eq!(outcomes, ["OK", hidden, "OK", hidden, hidden, hidden], "4 is the answer stored first in this batch");
    let until = now().plus(std::time::Duration::from_secs(60));
    store.act(group, a, GroupAction::Silence { user: b, until: Some(until) }).await.unwrap();
    assert_eq!(code(store.send(vec![draft(group, b, "no")]).await.remove(0)), "SILENCED");
    let later = gochat_core::model::Draft { created_at: until, ..draft(group, b, "yes") };
    assert_eq!(code(store.send(vec![later]).await.remove(0)), "OK");
    store.act(group, a, GroupAction::Dissolve).await.unwrap();
    assert_eq!(code(store.send(vec![draft(group, a, "no")]).await.remove(0)), "DISSOLVED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_tasks_at_once_leave_dense_seqs() {
    let store = Arc::new(store());
    let [a, b] = store.users_of().await;
    let (one, two) = (store.group(a, &[b]).await, store.group(a, &[b]).await);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..50 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut seqs = Vec::new();
            for n in 0..10 {
                let (id, sender) = (if (task + n) % 2 == 0 { one } else { two }, if task % 3 == 0 { a } else { b });
                for outcome in store.send(vec![draft(id, sender, "x"), draft(id, sender, "y")]).await {
                    seqs.push((id, outcome.unwrap().message.seq.0));
                }
            }
            seqs
        });
    }
    let mut answered = BTreeSet::new();
    while let Some(seqs) = tasks.join_next().await {
        for seq in seqs.unwrap() {
            assert!(answered.insert(seq), "{seq:?} was given twice");
        }
    }
    for id in [one, two] {
        let log = store.log(id, Seq(0), Seq(i64::MAX), 10_000).await.unwrap();
        let seqs: Vec<i64> = log.iter().map(|message| message.seq.0).collect();
        let head = store.conversations(&[id]).await.unwrap().remove(0).unwrap().head_seq;
        assert_eq!(seqs, (1..=head.0).collect::<Vec<_>>());
        assert_eq!(head.0, 501);
    }
    let stats = store.stats();
    assert!(stats.commits < stats.units, "no group held two units: {stats:?}");
}

#[tokio::test]
async fn dispatched_marks_ride_along_rise_and_stay_below_the_head() {
    let store = store();
    let [a] = store.users_of().await;
    let (one, two, three) = (store.group(a, &[]).await, store.group(a, &[]).await, store.group(a, &[]).await);
    let batch = AppendBatch { drafts: vec![draft(one, a, "x")], dispatched: vec![(one, Seq(1)), (two, Seq(1)), (three, Seq(9))] };
    let stored = store.append(&batch).await.unwrap().remove(0).unwrap();
    assert_eq!((stored.dispatched_seq, stored.members_seq, stored.member_count), (Seq(1), Seq(1), 1));
    store.append(&AppendBatch { drafts: vec![], dispatched: vec![(one, Seq(2))] }).await.unwrap();
    store.set_dispatched(&[(one, Seq(1))]).await.unwrap();
    let stored = store.conversations(&[one, two, three]).await.unwrap();
    let dispatched: Vec<i64> = stored.iter().map(|stored| stored.as_ref().unwrap().dispatched_seq.0).collect();
    assert_eq!(dispatched, [2, 1, 0]);
}

#[tokio::test]
async fn the_sweep_finds_what_is_behind_in_steps() {
    let store = store();
    let [a] = store.users_of().await;
    let mut groups = Vec::new();
    for _ in 0..7 {
        groups.push(store.group(a, &[]).await);
    }
    groups.sort_unstable();
    store.set_dispatched(&[(groups[1], Seq(1)), (groups[4], Seq(1))]).await.unwrap();
    let (mut after, mut found, mut steps) = (None, Vec::new(), 0);
    loop {
        let (page, next) = store.undispatched(after, 3).await.unwrap();
        found.extend(page.iter().map(|conversation| conversation.id));
        steps += 1;
        match next {
            Some(id) => after = Some(id),
            None => break,
        }
    }
    groups.remove(4);
    groups.remove(1);
    assert_eq!((found, steps), (groups, 3));
}

#[tokio::test]
async fn too_many_drafts_are_refused_and_none_are_nothing() {
    let store = store();
    let [a] = store.users_of().await;
    let group = store.group(a, &[]).await;
    let drafts = vec![draft(group, a, "x"); APPEND_DRAFTS_MAX + 1];
    assert_eq!(code(store.append(&AppendBatch { drafts, dispatched: vec![] }).await), "TOO_LARGE");
    assert!(store.append(&AppendBatch::default()).await.unwrap().is_empty());
    assert_eq!(store.seen(a, group).await, [1]);
}

#[tokio::test]
async fn history_goes_both_ways_and_only_to_members() {
    let store = store();
    let [a, stranger] = store.users_of().await;
    let group = store.group(a, &[]).await;
    for n in 2..=9 {
        store.say(group, a, &n.to_string()).await;
    }
    let seqs = async |after: Option<i64>, before: Option<i64>, limit: usize| -> Vec<i64> {
        let found = store.history(a, group, after.map(Seq), before.map(Seq), limit).await.unwrap();
        found.iter().map(|message| message.seq.0).collect()
    };
    assert_eq!(seqs(None, None, 3).await, [7, 8, 9]);
    assert_eq!(seqs(None, Some(7), 3).await, [4, 5, 6]);
    assert_eq!(seqs(Some(0), None, 3).await, [1, 2, 3]);
    assert_eq!(seqs(Some(7), None, 5).await, [8, 9]);
    assert_eq!(seqs(Some(2), Some(5), 5).await, [3, 4]);
    assert_eq!(seqs(Some(9), None, 5).await, [0; 0]);
    assert_eq!(seqs(None, Some(i64::MIN), 5).await, [0; 0]);
    assert_eq!(seqs(Some(i64::MAX), None, 5).await, [0; 0]);
    assert_eq!(seqs(None, None, 0).await, [0; 0]);
    assert_eq!(code(store.history(stranger, group, None, None, 5).await), "CONVERSATION_NOT_FOUND");
    let log = store.log(group, Seq(3), Seq(6), 2).await.unwrap();
    assert_eq!(log.iter().map(|message| message.seq.0).collect::<Vec<_>>(), [4, 5]);
    assert!(log.iter().all(|message| message.created_at > Timestamp(0)));
}

/// Prepared statements and the query builder's are two ways to say one thing: the same drafts on both, with repeats, conflicts,
/// strangers, silenced and former members, bad replies and marks, have the same outcomes and leave the same rows; and everybody
/// reads the same pages.
#[tokio::test]
async fn prepared_appends_do_what_the_query_builder_does() {
    let fast = store();
    let slow = store_with(&SqliteSettings { by_query_builder: true, ..SqliteSettings::default() });
    let [owner, member, left, silenced, stranger] = std::array::from_fn(|_| UserId::from(Uuid::now_v7()));
    let new = new_group(owner, &[member, left, silenced]);
    let pair = new_single(owner, member);
    let (event, other) = (MessageId::from(Uuid::now_v7()), MessageId::from(Uuid::now_v7()));
    for store in [&fast, &slow] {
        for user in [owner, member, left, silenced, stranger] {
            store.user_with(user).await;
        }
        store.create_conversation(&new).await.unwrap();
        store.create_conversation(&pair).await.unwrap();
        store.manage(new.id, left, &GroupAction::Leave, event, Timestamp(1)).await.unwrap();
        let silence = GroupAction::Silence { user: silenced, until: Some(Timestamp(i64::MAX)) };
        store.manage(new.id, owner, &silence, other, Timestamp(1)).await.unwrap();
    }
    let mut random = 7_u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let conversations = [new.id, pair.id, ConversationId::from(Uuid::now_v7())];
    let senders = [owner, member, left, silenced, stranger];
    let mut sent: Vec<gochat_core::model::Draft> = Vec::new();
    for _ in 0..40 {
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
        assert_eq!(outcomes(&fast).await, outcomes(&slow).await);
    }
    for id in [new.id, pair.id] {
        let left_behind = async |store: &Database| {
            let conversation = store.conversations(&[id]).await.unwrap();
            format!("{conversation:?} {:?}", store.log(id, Seq(0), Seq(i64::MAX), 10_000).await.unwrap())
        };
        assert_eq!(left_behind(&fast).await, left_behind(&slow).await);
        for reader in senders {
            for (after, before) in [(None, None), (Some(3), None), (None, Some(9)), (Some(2), Some(7))] {
                let page = async |store: &Database| {
                    format!("{:?}", store.history(reader, id, after.map(Seq), before.map(Seq), 7).await.map_err(|error| error.code))
                };
                assert_eq!(page(&fast).await, page(&slow).await);
            }
        }
    }
    assert!(fast.conversations(&[new.id]).await.unwrap()[0].as_ref().unwrap().head_seq > Seq(20), "the drafts were hardly any");
}

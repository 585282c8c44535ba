use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::task::JoinSet;

use crate::{
    conformance::world::{HOUR, World, again, code, draft, forged, hash, new_group, nobody, now, refusal},
    error::Code,
    ids::{ConversationId, Seq, UserId},
    limits::APPEND_DRAFTS_MAX,
    model::{Draft, GroupAction},
    ports::{AppendBatch, Appended, Store},
};

/// Each conversation counts for itself, in the order of its drafts, and a message comes back as it was stored (I2, I5).
pub async fn drafts_get_the_next_seqs_in_their_order(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let (one, two) = (world.group(a, &[b]).await, world.single(a, b).await);
    let drafts = [draft(one, a, "1"), draft(two, b, "2"), draft(one, b, "3 \u{1f600} 'quoted' \"so\""), draft(two, a, "4"), draft(one, a, "5")];
    let stored: Vec<Appended> = world.send(&drafts).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(stored.iter().map(|stored| stored.message.seq.0).collect::<Vec<_>>(), [2, 2, 3, 3, 4]);
    for (stored, draft) in stored.iter().zip(&drafts) {
        let message = &stored.message;
        assert_eq!((message.id, message.conversation, message.sender), (draft.id, draft.conversation, draft.sender));
        assert_eq!((message.client_msg_id, &message.body, message.reply_to), (draft.client_msg_id, &draft.body, None));
        assert_eq!((stored.repeated, stored.member_count, stored.members_seq), (false, 2, Seq(1)));
        assert_eq!(world.history(a, message.conversation, Some(Seq(message.seq.0 - 1)), None, 1).await.unwrap(), std::slice::from_ref(message));
    }
    assert_eq!((world.assert_dense(one).await, world.assert_dense(two).await), (Seq(4), Seq(3)));
    let row = world.row(one).await;
    assert_eq!((row.active_at, row.version, row.members_seq), (drafts[4].created_at, 1, Seq(1)), "a message changes neither settings nor members");
    let member = world.member(one, a).await;
    assert_eq!((member.read_seq, member.delivered_seq), (Seq::ZERO, Seq::ZERO), "sending marks nothing");
    assert_eq!(world.say(one, b, "6").await, Seq(5));
}

/// Answers are aligned with the drafts; a refused one leaves no hole and no trace.
pub async fn refusals_between_drafts_take_no_seq_and_touch_nothing_else(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b, stranger] = world.users_of().await;
    let (one, two) = (world.group(a, &[b]).await, world.group(b, &[a]).await);
    let first = draft(one, a, "first");
    world.send_one(&first).await.unwrap();
    let missing = new_group(a, &[]).id;
    let batch = [
        draft(one, stranger, "no"),
        draft(one, a, "yes"),
        draft(missing, a, "no"),
        again(&first),
        draft(two, a, "yes"),
        forged(&first, "other"),
        draft(two, stranger, "no"),
        Draft { reply_to: Some(Seq(99)), ..draft(one, b, "no") },
        draft(one, b, "yes"),
    ];
    let outcomes: Vec<Result<i64, Code>> =
        world.send(&batch).await.into_iter().map(|outcome| outcome.map(|stored| stored.message.seq.0).map_err(|error| error.code)).collect();
    let unknown = Err(Code::ConversationNotFound);
    assert_eq!(outcomes, [unknown, Ok(3), unknown, Ok(2), Ok(2), Err(Code::IdempotencyConflict), unknown, Err(Code::MessageNotFound), Ok(4)]);
    assert_eq!((world.assert_dense(one).await, world.assert_dense(two).await), (Seq(4), Seq(2)));
    let all = world.send(&[draft(missing, a, "no"), draft(one, stranger, "no")]).await;
    assert!(all.iter().all(|outcome| code(outcome) == Some(Code::ConversationNotFound)), "nothing but refusals");
    assert_eq!(world.row(one).await.active_at, batch[8].created_at);
}

/// A stranger must not learn that there is a conversation; a former member, a silenced one and whoever writes to a dissolved
/// group are told so.
pub async fn who_may_not_send_is_told_why(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, left, silenced, stranger] = world.users_of().await;
    let group = world.group(owner, &[left, silenced]).await;
    world.act(group, left, GroupAction::Leave).await.unwrap();
    let until = now().plus(HOUR);
    world.act(group, owner, GroupAction::Silence { user: silenced, until: Some(until) }).await.unwrap();
    let senders = [left, silenced, stranger, owner];
    let outcomes = world.send(&senders.map(|sender| draft(group, sender, "?"))).await;
    let expected = [Some(Code::NotAMember), Some(Code::Silenced), Some(Code::ConversationNotFound), None];
    assert_eq!(outcomes.iter().map(code).collect::<Vec<_>>(), expected);
    assert!(world.send_one(&Draft { created_at: until, ..draft(group, silenced, "again") }).await.is_ok(), "a silence ends at its time");
    world.act(group, owner, GroupAction::Dissolve).await.unwrap();
    let outcomes = world.send(&senders.map(|sender| draft(group, sender, "?"))).await;
    let expected = [Some(Code::NotAMember), Some(Code::Dissolved), Some(Code::ConversationNotFound), Some(Code::Dissolved)];
    assert_eq!(outcomes.iter().map(code).collect::<Vec<_>>(), expected);
    world.assert_dense(group).await;
}

/// What was said before the sender came, after it left once, or does not exist, is nothing to answer (I4).
pub async fn only_what_the_sender_sees_can_be_answered(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, guest] = world.users_of().await;
    let group = world.group(owner, &[]).await;
    world.say(group, owner, "2: before").await;
    world.act(group, owner, GroupAction::Invite { users: vec![guest] }).await.unwrap();
    world.say(group, owner, "4: with the guest").await;
    world.act(group, owner, GroupAction::Remove { user: guest }).await.unwrap();
    world.say(group, owner, "6: without").await;
    world.act(group, owner, GroupAction::Invite { users: vec![guest] }).await.unwrap();
    for (seq, visible) in [(0, false), (-1, false), (1, false), (2, false), (3, true), (4, true), (5, true), (6, false), (7, true), (99, false)] {
        let answer = Draft { reply_to: Some(Seq(seq)), ..draft(group, guest, "answer") };
        let outcome = world.send_one(&answer).await;
        assert_eq!(code(&outcome), (!visible).then_some(Code::MessageNotFound), "an answer to {seq}");
        if let Ok(stored) = outcome {
            assert_eq!(stored.message.reply_to, Some(Seq(seq)));
            assert_eq!(world.history(owner, group, None, None, 1).await.unwrap()[0].reply_to, Some(Seq(seq)));
        }
    }
    let head = world.row(group).await.head_seq;
    let batch = [draft(group, owner, "question"), Draft { reply_to: Some(head.next()), ..draft(group, guest, "answer") }];
    assert!(world.send(&batch).await.iter().all(Result::is_ok), "the entry before it in the same batch is there already");
}

/// Every reply to the same (conversation, sender, client message id) is the same message, whatever happened in between (I6).
pub async fn a_repeat_is_answered_with_what_was_stored_first(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let (group, elsewhere) = (world.group(a, &[b]).await, world.group(a, &[b]).await);
    let sent = draft(group, a, "hello");
    let first = world.send_one(&sent).await.unwrap();
    world.say(group, b, "between").await;
    world.act(group, a, GroupAction::Invite { users: vec![world.user().await] }).await.unwrap();
    let repeat = world.send_one(&again(&sent)).await.unwrap();
    assert!(!first.repeated && repeat.repeated);
    assert_eq!(repeat.message, first.message);
    assert_eq!((repeat.member_count, repeat.members_seq), (3, Seq(4)), "the members are those of now");
    let rekeyed = Draft { payload_hash: hash(2, "hello"), ..again(&sent) };
    assert_eq!(world.send_one(&rekeyed).await.unwrap().message, first.message, "the same payload, hashed with a newer key");
    for other in [Draft { sender: b, ..again(&sent) }, Draft { conversation: elsewhere, ..again(&sent) }] {
        assert!(!world.send_one(&other).await.unwrap().repeated, "an id belongs to its sender and its conversation");
    }
    assert_eq!((world.assert_dense(group).await, world.assert_dense(elsewhere).await), (Seq(5), Seq(2)));
}

/// The first of two drafts with the same id is stored, the second answered with it; another payload is a conflict.
pub async fn a_repeat_within_one_batch_is_one_message(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let group = world.group(a, &[b]).await;
    let twice = draft(group, a, "twice");
    let batch = [draft(group, b, "x"), twice.clone(), draft(group, b, "y"), again(&twice), forged(&twice, "other"), draft(group, a, "z")];
    let outcomes = world.send(&batch).await;
    let outcomes: Vec<Result<(i64, bool), Code>> =
        outcomes.into_iter().map(|outcome| outcome.map(|stored| (stored.message.seq.0, stored.repeated)).map_err(|error| error.code)).collect();
    assert_eq!(outcomes, [Ok((2, false)), Ok((3, false)), Ok((4, false)), Ok((3, true)), Err(Code::IdempotencyConflict), Ok((5, false))]);
    world.assert_dense(group).await;
}

/// A crash between commit and ack must not turn an accepted message into a refusal.
pub async fn a_repeat_is_answered_even_to_who_may_not_send_any_more(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, removed, silenced] = world.users_of().await;
    let group = world.group(owner, &[removed, silenced]).await;
    let sent = [owner, removed, silenced].map(|sender| draft(group, sender, "sent"));
    let first: Vec<_> = world.send(&sent).await.into_iter().map(|outcome| outcome.unwrap().message).collect();
    world.act(group, owner, GroupAction::Remove { user: removed }).await.unwrap();
    world.act(group, owner, GroupAction::Silence { user: silenced, until: Some(now().plus(HOUR)) }).await.unwrap();
    for dissolved in [false, true] {
        if dissolved {
            world.act(group, owner, GroupAction::Dissolve).await.unwrap();
        }
        let repeats: Vec<_> = world.send(&sent.clone().map(|sent| again(&sent))).await.into_iter().map(|outcome| outcome.unwrap().message).collect();
        assert_eq!(repeats, first);
    }
    assert_eq!(refusal(world.send_one(&draft(group, removed, "new")).await), Code::NotAMember);
}

/// The stored message stays as it is.
pub async fn another_payload_under_the_same_id_is_a_conflict(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let group = world.group(a, &[b]).await;
    let sent = draft(group, a, "this");
    let first = world.send_one(&sent).await.unwrap();
    for other in [forged(&sent, "that"), Draft { payload_hash: hash(2, "that"), ..forged(&sent, "that") }] {
        assert_eq!(refusal(world.send_one(&other).await), Code::IdempotencyConflict);
    }
    assert_eq!(world.send_one(&again(&sent)).await.unwrap().message, first.message);
    assert_eq!(world.assert_dense(group).await, Seq(2));
}

/// Only what is stored takes an id: a refusal is not remembered.
pub async fn a_refused_draft_may_be_sent_again(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, late] = world.users_of().await;
    let group = world.group(owner, &[]).await;
    let early = draft(group, late, "hello?");
    assert_eq!(refusal(world.send_one(&early).await), Code::ConversationNotFound);
    world.act(group, owner, GroupAction::Invite { users: vec![late] }).await.unwrap();
    assert!(!world.send_one(&again(&early)).await.unwrap().repeated);
}

/// Appends from everywhere at once: no seq is given twice or left out, and each sender's messages stay in the order in which
/// they were sent (I2, I5).
pub async fn fifty_appends_at_once_leave_dense_seqs_and_every_sender_in_order(store: Arc<dyn Store>) {
    let world = World(store);
    let owner = world.user().await;
    let mut senders = Vec::new();
    for _ in 0..50 {
        senders.push(world.user().await);
    }
    let groups = [world.group(owner, &senders).await, world.group(owner, &senders).await];
    let mut tasks = JoinSet::new();
    for (task, sender) in senders.into_iter().enumerate() {
        let world = world.clone();
        tasks.spawn(async move {
            let mut given: Vec<(ConversationId, i64, UserId)> = Vec::new();
            for n in 0..8 {
                let batch = [draft(groups[(task + n) % 2], sender, "x"), draft(groups[task % 2], sender, "y"), draft(groups[n % 2], sender, "z")];
                for outcome in world.send(&batch).await {
                    let message = outcome.unwrap().message;
                    given.push((message.conversation, message.seq.0, sender));
                }
            }
            given
        });
    }
    let (mut all, mut last) = (HashSet::new(), HashMap::new());
    for (group, seq, sender) in tasks.join_all().await.into_iter().flatten() {
        assert!(all.insert((group, seq)), "{seq} was given twice");
        let before = last.insert((group, sender), seq).unwrap_or(0);
        assert!(before < seq, "{before} was sent before {seq}");
    }
    let heads = [world.assert_dense(groups[0]).await, world.assert_dense(groups[1]).await];
    assert_eq!(heads[0].0 + heads[1].0, 50 * 8 * 3 + 2);
}

/// A storm of retries through several gateways stores one message.
pub async fn racing_repeats_make_one_message(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let group = world.group(a, &[b]).await;
    let sent = draft(group, a, "once");
    let mut tasks = JoinSet::new();
    for n in 0..40 {
        let world = world.clone();
        let draft = if n % 4 == 3 { forged(&sent, "other") } else { again(&sent) };
        tasks.spawn(async move { (draft.body.content.clone(), world.send_one(&draft).await) });
    }
    let outcomes = tasks.join_all().await;
    let stored: Vec<_> = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).collect();
    assert_eq!(stored.iter().filter(|stored| !stored.repeated).count(), 1);
    assert!(stored.iter().all(|other| other.message == stored[0].message));
    for (content, outcome) in &outcomes {
        assert_eq!(code(outcome), (*content != stored[0].message.body.content).then_some(Code::IdempotencyConflict));
    }
    assert_eq!(world.assert_dense(group).await, Seq(2));
}

/// However removals and sends race, the log holds nothing of a member behind the entry that removed it (I4).
pub async fn no_message_follows_its_senders_removal(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, guest] = world.users_of().await;
    for _ in 0..5 {
        let group = world.group(owner, &[guest]).await;
        let sending = {
            let world = world.clone();
            tokio::spawn(async move {
                let mut sent = 0;
                while world.send_one(&draft(group, guest, "x")).await.is_ok() {
                    sent += 1;
                }
                sent
            })
        };
        world.say(group, owner, "a moment").await;
        world.act(group, owner, GroupAction::Remove { user: guest }).await.unwrap();
        let sent = sending.await.unwrap();
        let removed = world.member(group, guest).await.leave_seq.unwrap();
        let log = world.log(group, Seq::ZERO, Seq(i64::MAX), 100_000).await.unwrap();
        assert_eq!(log.iter().filter(|message| message.sender == guest).count(), sent);
        assert!(log.iter().all(|message| message.sender != guest || message.seq < removed));
    }
}

/// A call beyond the limit is an error of the call, not a part of it.
pub async fn more_drafts_than_the_limit_are_refused_whole(store: Arc<dyn Store>) {
    let world = World(store);
    let [a] = world.users_of().await;
    let group = world.group(a, &[]).await;
    let drafts: Vec<Draft> = (0..=APPEND_DRAFTS_MAX).map(|_| draft(group, a, "x")).collect();
    assert_eq!(refusal(world.append(&AppendBatch { drafts: drafts.clone(), dispatched: Vec::new() }).await), Code::TooLarge);
    assert_eq!(world.assert_dense(group).await, Seq(1));
    let stored = world.send(&drafts[1..]).await;
    assert!(stored.iter().zip(2..).all(|(stored, seq)| stored.as_ref().is_ok_and(|stored| stored.message.seq == Seq(seq))));
    assert!(world.append(&AppendBatch::default()).await.unwrap().is_empty());
}

/// What was dispatched rides on an append or comes alone, in any order; it never falls. Beyond the head there is nothing to be
/// dispatched.
pub async fn dispatched_marks_only_rise(store: Arc<dyn Store>) {
    let world = World(store);
    let [a] = world.users_of().await;
    let (one, two) = (world.group(a, &[]).await, world.group(a, &[]).await);
    world.say(two, a, "x").await;
    let riding = AppendBatch { drafts: vec![draft(one, a, "x")], dispatched: vec![(one, Seq(1)), (two, Seq(2))] };
    let stored = world.append(&riding).await.unwrap().remove(0).unwrap();
    assert_eq!(stored.dispatched_seq, Seq(1));
    assert_eq!((world.row(one).await.dispatched_seq, world.row(two).await.dispatched_seq), (Seq(1), Seq(2)));
    world.append(&AppendBatch { drafts: Vec::new(), dispatched: vec![(two, Seq(1)), (one, Seq(2))] }).await.unwrap();
    world.set_dispatched(&[(one, Seq(1)), (one, Seq(2)), (two, Seq(0)), (new_group(nobody(), &[]).id, Seq(5))]).await.unwrap();
    assert_eq!((world.row(one).await.dispatched_seq, world.row(two).await.dispatched_seq), (Seq(2), Seq(2)));
    world.set_dispatched(&[(one, Seq(900))]).await.unwrap();
    let row = world.row(one).await;
    assert!(row.dispatched_seq <= row.head_seq);
    let stored = world.send_one(&draft(two, a, "y")).await.unwrap();
    assert_eq!(stored.dispatched_seq, Seq(2));
}

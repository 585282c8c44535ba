use std::sync::Arc;

use uuid::Uuid;

use crate::{
    conformance::world::{World, draft, new_single, now, refusal},
    error::Code,
    ids::{ConversationId, Seq, UserId},
    model::{Draft, GroupAction, Mark},
    ports::Store,
    time::Timestamp,
};

async fn listed(world: &World, user: UserId) -> Vec<ConversationId> {
    world.conversations_of(user, None, 100).await.unwrap().into_iter().map(|view| view.conversation.id).collect()
}

/// The newest activity first, each conversation once however the pages are cut, also among equal times.
pub async fn a_list_is_ordered_by_activity_and_comes_in_pages(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let mut groups = Vec::new();
    for _ in 0..5 {
        groups.push(world.group(a, &[b]).await);
    }
    let at = now();
    // 3 alone at the top, then 0, 1 and 4 at one time, then 2, which is silent.
    let drafts = [0, 1, 4].map(|n| Draft { created_at: at, ..draft(groups[n], a, "x") });
    world.send(&drafts).await;
    world.say(groups[3], b, "x").await;
    let mut expected: Vec<(Timestamp, ConversationId)> = Vec::new();
    for id in &groups {
        expected.push((world.row(*id).await.active_at, *id));
    }
    expected.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(expected[0].1, groups[3]);
    assert_eq!(expected[4].1, groups[2]);
    for limit in 1..=6 {
        let (mut before, mut found) = (None, Vec::new());
        loop {
            let page = world.conversations_of(a, before, limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            before = Some((last.conversation.active_at, last.conversation.id));
            found.extend(page.into_iter().map(|view| (view.conversation.active_at, view.conversation.id)));
        }
        assert_eq!(found, expected, "in pages of {limit}");
    }
    let first = world.conversations_of(b, None, 1).await.unwrap().remove(0);
    assert_eq!(Some(first.clone()), world.conversation_view(b, groups[3]).await.unwrap(), "the list shows what the view shows");
    assert_eq!((first.member.user, first.last_message.unwrap().sender), (b, b));
}

/// The rows are those of the views, and a list that is asked for again and again shows every message, mark and membership that
/// was acknowledged before it.
pub async fn the_rows_of_a_list_are_those_of_its_views(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b, c] = world.users_of().await;
    let pair = world.single(a, b).await;
    let mut ids = vec![pair];
    for _ in 0..12 {
        ids.push(world.group(b, &[a, c]).await);
    }
    let agree = async |what: &str| {
        for user in [a, b, c] {
            let views = world.conversations_of(user, None, 50).await.unwrap();
            let rows = world.listed(user, None, 50).await.unwrap();
            assert_eq!(rows.len(), views.len(), "{what}");
            for (row, view) in rows.into_iter().zip(&views) {
                let alone = world.conversation_view(user, view.conversation.id).await.unwrap();
                assert_eq!(alone.as_ref(), Some(view), "{what}");
                assert_eq!(view.last_message.as_ref().map(|message| message.seq), Some(row.last_seq()), "{what}");
                assert_eq!(&row.with(view.last_message.clone(), view.unread), view, "{what}");
            }
        }
        world.conversations_of(a, None, 50).await.unwrap()
    };
    agree("at the beginning").await;
    for round in 0..4_i64 {
        world.say(pair, b, &format!("round {round}")).await;
        let list = agree("a message").await;
        assert_eq!((list[0].conversation.id, list[0].unread), (pair, 1));
        world.say(ids[3], c, "x").await;
        world.say(ids[4], a, "own").await;
        let list = agree("messages").await;
        assert_eq!((list[0].conversation.id, list[0].unread, list[1].unread), (ids[4], 0, round + 1));
        let mark = |user, conversation, read_seq| Mark { conversation, user, read_seq, delivered_seq: Seq::ZERO };
        let head = world.row(pair).await.head_seq;
        world.mark(&[mark(a, pair, head), mark(b, pair, head)]).await.unwrap();
        let list = agree("marks").await;
        let view = list.iter().find(|view| view.conversation.id == pair).unwrap();
        assert_eq!((view.unread, view.peer_read_seq), (0, head));
        world.set_muted(ids[5], a, round % 2 == 0).await.unwrap();
        agree("muted").await;
    }
    world.act(ids[6], a, GroupAction::Leave).await.unwrap();
    assert!(agree("left").await.iter().all(|view| view.conversation.id != ids[6]));
    let new = world.group(b, &[a]).await;
    assert_eq!(agree("made").await[0].conversation.id, new);
    for id in &ids[7..] {
        world.say(*id, b, "all of them").await;
    }
    agree("many at once").await;
    let rows = world.listed(a, None, 3).await.unwrap();
    let before = rows.last().map(|row| (row.conversation.active_at, row.conversation.id));
    let next: Vec<_> = world.listed(a, before, 2).await.unwrap().into_iter().map(|row| row.conversation.id).collect();
    assert_eq!(next, listed(&world, a).await[3..5]);
}

/// Leaving a 1:1 hides it from who left, until somebody writes or it is asked for again; it stays the pair's one conversation
/// (decision 35).
pub async fn a_hidden_pair_comes_back_with_the_next_message(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let pair = world.single(a, b).await;
    world.say(pair, b, "before").await;
    let changed = world.act(pair, a, GroupAction::Leave).await.unwrap();
    assert_eq!((changed.event, changed.conversation.member_count), (None, 2), "nobody is told");
    assert_eq!((listed(&world, a).await, listed(&world, b).await), (vec![], vec![pair]));
    let view = world.conversation_view(a, pair).await.unwrap().unwrap();
    assert_eq!((view.unread, view.member.leave_seq), (0, None));
    assert_eq!(world.say(pair, b, "after").await, Seq(3));
    assert_eq!(listed(&world, a).await, [pair]);
    assert_eq!(world.conversation_view(a, pair).await.unwrap().unwrap().unread, 1, "what was hidden does not count");
    world.act(pair, a, GroupAction::Leave).await.unwrap();
    world.act(pair, b, GroupAction::Leave).await.unwrap();
    let again = world.create_conversation(&new_single(a, b)).await.unwrap();
    assert_eq!((again.conversation.id, again.existed, again.event), (pair, true, None));
    assert_eq!((listed(&world, a).await, listed(&world, b).await), (vec![pair], vec![]), "unhidden for who asked");
    assert_eq!(world.say(pair, a, "and sent to").await, Seq(4));
    assert_eq!(listed(&world, b).await, [pair]);
}

/// A former member still sees the conversation as it was at the end; one who comes back sees it as a member does.
pub async fn who_has_left_keeps_the_view_and_loses_the_place_in_the_list(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, guest] = world.users_of().await;
    let group = world.group(owner, &[guest]).await;
    world.say(group, owner, "2").await;
    world.act(group, guest, GroupAction::Leave).await.unwrap();
    world.say(group, owner, "4").await;
    assert_eq!(listed(&world, guest).await, []);
    let view = world.conversation_view(guest, group).await.unwrap().unwrap();
    assert_eq!((view.member.leave_seq, view.last_message.unwrap().seq, view.unread), (Some(Seq(3)), Seq(3), 1));
    world.act(group, owner, GroupAction::Invite { users: vec![guest] }).await.unwrap();
    assert_eq!(listed(&world, guest).await, [group]);
    let view = world.conversation_view(guest, group).await.unwrap().unwrap();
    assert_eq!((view.member.join_seq, view.member.leave_seq, view.last_message.unwrap().seq), (Seq(5), None, Seq(5)));
    assert_eq!(world.conversation_view(guest, ConversationId::from(Uuid::now_v7())).await.unwrap(), None);
}

/// Muting takes no entry and concerns nobody else; who is no member cannot.
pub async fn muting_is_the_members_own_affair(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b, left, stranger] = world.users_of().await;
    let group = world.group(a, &[b, left]).await;
    world.act(group, left, GroupAction::Leave).await.unwrap();
    let before = world.row(group).await;
    assert!(world.set_muted(group, b, true).await.unwrap().muted);
    assert!(world.member(group, b).await.muted && !world.member(group, a).await.muted);
    assert!(world.set_muted(group, b, true).await.unwrap().muted);
    assert!(!world.set_muted(group, b, false).await.unwrap().muted);
    assert_eq!(world.row(group).await, before);
    assert_eq!(refusal(world.set_muted(group, left, true).await), Code::NotAMember);
    assert_eq!(refusal(world.set_muted(group, stranger, true).await), Code::ConversationNotFound);
}

use std::sync::Arc;

use crate::{
    conformance::world::{World, draft, new_group, nobody, refusal, seqs, sorted},
    error::Code,
    ids::{ConversationId, Seq, UserId},
    model::GroupAction,
    ports::Store,
};

/// A log of ten entries that a guest saw parts of: 1 created · 2 · 3 guest joins · 4 · 5 guest removed · 6 · 7 guest joins ·
/// 8 · 9 guest leaves · 10.
async fn interrupted(world: &World) -> (UserId, UserId, ConversationId) {
    let [owner, guest] = world.users_of().await;
    let group = world.group(owner, &[]).await;
    let invite = || GroupAction::Invite { users: vec![guest] };
    world.say(group, owner, "2").await;
    world.act(group, owner, invite()).await.unwrap();
    world.say(group, guest, "4").await;
    world.act(group, owner, GroupAction::Remove { user: guest }).await.unwrap();
    world.say(group, owner, "6").await;
    world.act(group, owner, invite()).await.unwrap();
    world.say(group, guest, "8").await;
    world.act(group, guest, GroupAction::Leave).await.unwrap();
    world.say(group, owner, "10").await;
    (owner, guest, group)
}

/// Whoever was removed keeps what was there, sees the removal and nothing behind it; who comes back sees the hole stay (I4).
pub async fn history_is_clipped_to_what_the_reader_was_there_for(store: Arc<dyn Store>) {
    let world = World(store);
    let (owner, guest, group) = interrupted(&world).await;
    assert_eq!(world.seen(owner, group).await, (1..=10).collect::<Vec<_>>());
    assert_eq!(world.seen(guest, group).await, [3, 4, 5, 7, 8, 9]);
    let page = async |after: Option<i64>, before: Option<i64>, limit: usize| -> Vec<i64> {
        seqs(&world.history(guest, group, after.map(Seq), before.map(Seq), limit).await.unwrap())
    };
    assert_eq!(page(Some(0), None, 4).await, [3, 4, 5, 7], "a page goes on behind the hole");
    assert_eq!(page(Some(5), None, 1).await, [7]);
    assert_eq!(page(None, Some(8), 3).await, [4, 5, 7]);
    assert_eq!(page(None, None, 2).await, [8, 9]);
    assert_eq!(page(Some(9), None, 5).await, [0; 0]);
    assert_eq!(page(None, Some(3), 5).await, [0; 0]);
    let intervals = world.memberships(group, &[guest, nobody(), owner, guest]).await.unwrap();
    let intervals: Vec<Vec<(i64, Option<i64>)>> =
        intervals.iter().map(|intervals| intervals.iter().map(|member| (member.join_seq.0, member.leave_seq.map(|seq| seq.0))).collect()).collect();
    let of_guest = vec![(3, Some(5)), (7, Some(9))];
    assert_eq!(intervals, [of_guest.clone(), vec![], vec![(1, None)], of_guest]);
}

/// `after` gives the oldest above it, `before` the newest below it, neither the newest of all; always ascending.
pub async fn history_pages_in_both_directions(store: Arc<dyn Store>) {
    let world = World(store);
    let [a] = world.users_of().await;
    let group = world.group(a, &[]).await;
    for _ in 2..=9 {
        world.say(group, a, "x").await;
    }
    let page = async |after: Option<i64>, before: Option<i64>, limit: usize| -> Vec<i64> {
        seqs(&world.history(a, group, after.map(Seq), before.map(Seq), limit).await.unwrap())
    };
    assert_eq!(page(None, None, 3).await, [7, 8, 9]);
    assert_eq!(page(None, None, 100).await, (1..=9).collect::<Vec<_>>());
    assert_eq!(page(None, Some(7), 3).await, [4, 5, 6]);
    assert_eq!(page(None, Some(2), 3).await, [1]);
    assert_eq!(page(Some(0), None, 3).await, [1, 2, 3]);
    assert_eq!(page(Some(7), None, 3).await, [8, 9]);
    for (after, before) in [(Some(9), None), (Some(i64::MAX), None), (None, Some(1)), (None, Some(0)), (None, Some(i64::MIN))] {
        assert_eq!(page(after, before, 3).await, [0; 0], "{after:?} {before:?}");
    }
    assert_eq!(page(Some(-5), None, 2).await, [1, 2]);
}

/// Whoever never was a member gets the answer that a conversation gets which is not there.
pub async fn a_stranger_finds_nothing(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, stranger] = world.users_of().await;
    let group = world.group(owner, &[]).await;
    for id in [group, new_group(owner, &[]).id] {
        assert_eq!(refusal(world.history(stranger, id, None, None, 10).await), Code::ConversationNotFound);
        assert_eq!(world.conversation_view(stranger, id).await.unwrap(), None);
        assert_eq!(world.memberships(id, &[stranger]).await.unwrap(), [vec![]]);
    }
    assert_eq!(world.conversations_of(stranger, None, 10).await.unwrap(), []);
}

/// The newest page, asked for again and again, is never behind an entry that was acknowledged, also by another reader, and its
/// parts agree however they are asked for.
pub async fn a_page_is_current_the_moment_an_entry_is_acknowledged(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let group = world.group(a, &[b]).await;
    for n in 2..=90 {
        let text = format!("entry {n}");
        assert_eq!(world.say(group, if n % 2 == 0 { a } else { b }, &text).await, Seq(n));
        for reader in [a, b] {
            let page = world.history(reader, group, None, None, 20).await.unwrap();
            assert_eq!(seqs(&page), ((n - 19).max(1)..=n).collect::<Vec<_>>());
            assert_eq!(page.last().unwrap().body.content, text.as_str());
        }
        let page = async |after: Option<i64>, before: Option<i64>, limit: usize| -> Vec<i64> {
            seqs(&world.history(a, group, after.map(Seq), before.map(Seq), limit).await.unwrap())
        };
        assert_eq!(page(Some(n - 1), None, 10).await, [n]);
        assert_eq!(page(Some(n), None, 10).await, [0; 0]);
        assert_eq!(page(Some((n - 5).max(0)), None, 2).await, ((n - 4).max(1)..=n).take(2).collect::<Vec<_>>());
        assert_eq!(page(None, Some(n), 5).await, ((n - 5).max(1)..n).collect::<Vec<_>>());
        assert_eq!(page(None, Some(3), 5).await, (1..=n.min(2)).collect::<Vec<_>>());
    }
    let whole = world.history(b, group, None, None, 200).await.unwrap();
    assert_eq!(whole, world.log(group, Seq::ZERO, Seq(i64::MAX), 200).await.unwrap(), "whole entries, not only their seqs");
    for limit in 0..=90 {
        assert_eq!(world.history(b, group, None, None, limit).await.unwrap(), whole[90 - limit..], "the newest {limit}");
        assert_eq!(world.history(b, group, Some(Seq(20)), None, limit).await.unwrap(), whole[20..(20 + limit).min(90)], "{limit} above 20");
    }
}

/// What others read of a conversation shows nothing to whoever is not there any more, nor to whoever never was (I4).
pub async fn no_page_shows_a_removed_reader_what_came_later(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, guest, stranger] = world.users_of().await;
    let group = world.group(owner, &[guest]).await;
    world.say(group, owner, "2").await;
    assert_eq!(world.seen(guest, group).await, [1, 2]);
    world.act(group, owner, GroupAction::Remove { user: guest }).await.unwrap();
    for seq in 4..=9 {
        world.say(group, owner, "later").await;
        assert_eq!(seqs(&world.history(owner, group, None, None, 20).await.unwrap()), (1..=seq).collect::<Vec<_>>());
        assert_eq!(seqs(&world.history(guest, group, None, None, 20).await.unwrap()), [1, 2, 3]);
        assert_eq!(seqs(&world.history(guest, group, Some(Seq(2)), None, 20).await.unwrap()), [3]);
        assert_eq!(refusal(world.history(stranger, group, None, None, 20).await), Code::ConversationNotFound);
    }
    world.act(group, owner, GroupAction::Invite { users: vec![guest] }).await.unwrap();
    assert_eq!(seqs(&world.history(guest, group, None, None, 20).await.unwrap()), [1, 2, 3, 10]);
    assert_eq!(seqs(&world.history(guest, group, None, Some(Seq(10)), 2).await.unwrap()), [2, 3]);
}

/// Aligned with what was asked for, repeated ids too.
pub async fn what_is_readable_is_head_and_intervals_of_one_moment(store: Arc<dyn Store>) {
    let world = World(store);
    let (owner, guest, group) = interrupted(&world).await;
    let other = world.group(owner, &[]).await;
    let unknown = new_group(owner, &[]).id;
    let found = world.readable(guest, &[other, group, unknown, group]).await.unwrap();
    let readable = found[1].clone().unwrap();
    assert_eq!((&found[0], &found[2], &found[3]), (&None, &None, &found[1]));
    assert_eq!(readable.head_seq, Seq(10));
    assert_eq!(vec![readable.intervals.clone()], world.memberships(group, &[guest]).await.unwrap());
    let visible: Vec<i64> = (0..=12).filter(|&seq| readable.sees(Seq(seq))).collect();
    assert_eq!(visible, [3, 4, 5, 7, 8, 9]);
    let of_owner = world.readable(owner, &[group]).await.unwrap().remove(0).unwrap();
    assert!(of_owner.sees(Seq(10)) && !of_owner.sees(Seq(11)), "nothing above the head");
    assert_eq!(world.readable(guest, &[other]).await.unwrap(), [None]);
    assert_eq!(world.readable(guest, &[]).await.unwrap(), []);
}

/// For dispatch: `after` < seq <= `through`, whoever asks.
pub async fn the_log_is_read_by_exact_seq(store: Arc<dyn Store>) {
    let world = World(store);
    let (_, _, group) = interrupted(&world).await;
    let log = async |after: i64, through: i64, limit: usize| seqs(&world.log(group, Seq(after), Seq(through), limit).await.unwrap());
    assert_eq!(log(0, 100, 100).await, (1..=10).collect::<Vec<_>>());
    assert_eq!(log(3, 6, 100).await, [4, 5, 6]);
    assert_eq!(log(3, 6, 2).await, [4, 5]);
    assert_eq!(log(6, 6, 100).await, [0; 0]);
    assert_eq!(log(10, i64::MAX, 100).await, [0; 0]);
}

/// The entry that adds a member is its first, the one that ends its membership its last: both are told to it.
pub async fn members_at_an_entry_are_those_who_see_it(store: Arc<dyn Store>) {
    let world = World(store);
    let (owner, guest, group) = interrupted(&world).await;
    let both = sorted([owner, guest]);
    for seq in 1..=10 {
        let expected: &[UserId] = if [3, 4, 5, 7, 8, 9].contains(&seq) { &both } else { &[owner] };
        assert_eq!(world.members_at(group, Seq(seq), None, 10).await.unwrap(), expected, "at {seq}");
    }
    assert_eq!(world.members_at(group, Seq(4), None, 1).await.unwrap(), both[..1]);
    assert_eq!(world.members_at(group, Seq(4), Some(both[0]), 10).await.unwrap(), both[1..]);
    assert_eq!(world.members_at(group, Seq(4), Some(both[1]), 10).await.unwrap(), []);
    assert_eq!(world.members_at(group, Seq(0), None, 10).await.unwrap(), []);
}

/// Ordered by user id; those who left are not there.
pub async fn members_come_in_pages(store: Arc<dyn Store>) {
    let world = World(store);
    let users = sorted(world.users_of::<5>().await);
    let group = world.group(users[3], &users).await;
    world.act(group, users[1], GroupAction::Leave).await.unwrap();
    let page = async |after: Option<UserId>, limit: usize| -> Vec<UserId> {
        world.members(group, after, limit).await.unwrap().into_iter().map(|member| member.user).collect()
    };
    assert_eq!(page(None, 2).await, [users[0], users[2]]);
    assert_eq!(page(Some(users[2]), 2).await, [users[3], users[4]]);
    assert_eq!(page(Some(users[1]), 9).await, [users[2], users[3], users[4]], "behind somebody who is not there");
    assert_eq!(page(Some(users[4]), 2).await, []);
    assert_eq!(world.row(group).await.member_count, 4, "the creator named again counts once");
}

/// The sweep looks at so many rows in a step, goes on from the answer, and finds exactly what is behind its head.
pub async fn what_was_not_dispatched_is_found_in_steps(store: Arc<dyn Store>) {
    let world = World(store);
    let [a] = world.users_of().await;
    let mut groups = Vec::new();
    for _ in 0..7 {
        groups.push(world.group(a, &[]).await);
    }
    groups.sort_unstable();
    world.set_dispatched(&[(groups[1], Seq(1)), (groups[4], Seq(1))]).await.unwrap();
    world.send(&[draft(groups[4], a, "x"), draft(groups[5], a, "x")]).await;
    for scan in [1, 3, 1000] {
        let (mut after, mut found) = (None, Vec::new());
        for step in 0.. {
            assert!(step < 100_000, "the steps do not end");
            let (page, next) = world.undispatched(after, scan).await.unwrap();
            assert!(page.len() <= scan);
            found.extend(page.into_iter().filter(|conversation| groups.contains(&conversation.id)));
            assert!(next > after || next.is_none(), "a step goes forward");
            after = next;
            if after.is_none() {
                break;
            }
        }
        let behind: Vec<ConversationId> = [0, 2, 3, 4, 5, 6].map(|n| groups[n]).to_vec();
        assert_eq!(found.iter().map(|conversation| conversation.id).collect::<Vec<_>>(), behind, "in steps of {scan}");
        assert_eq!((found[3].dispatched_seq, found[3].head_seq), (Seq(1), Seq(2)));
    }
}

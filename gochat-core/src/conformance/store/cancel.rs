//! Callers go away: a socket closes, a timeout ends a request. Each case drops a write after 0, 1, 2 … polls; the store must be
//! whole at once, and the same call, repeated, must find or make what the first one was to make.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use uuid::Uuid;

use crate::{
    conformance::world::{World, again, draft, event, new_group, now},
    ids::{MessageId, Seq},
    model::{Draft, Event, GroupAction, NewConversation},
    ports::Store,
};

/// Polls of a write before it is dropped: more than any store needs from the call to its answer in these cases.
const POLLS_MAX: usize = 24;

/// Polls a call so often and drops it then.
async fn dropped_after<T>(polls: usize, call: impl Future<Output = T>) {
    let mut call = pin!(call);
    for _ in 0..polls {
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        // Lets the store get on between two polls, now and then far enough to finish.
        tokio::task::yield_now().await;
    }
}

/// All drafts of a batch are stored or none is; the repeated batch stores each once.
pub async fn a_dropped_append_is_whole_or_absent(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let (one, two) = (world.group(a, &[b]).await, world.group(b, &[a]).await);
    for polls in 0..POLLS_MAX {
        let before = world.row(two).await.head_seq.0 as usize;
        let batch = [draft(one, a, "1"), draft(two, a, "2"), draft(one, b, "3"), draft(two, b, "4")];
        dropped_after(polls, world.send(&batch)).await;
        let found = world.log(two, Seq::ZERO, Seq(i64::MAX), 100_000).await.unwrap();
        assert!([0, 2].contains(&(found.len() - before)), "half a batch after {polls} polls");
        let repeated = world.send(&batch.each_ref().map(again)).await;
        let mut repeats = repeated.iter().map(|outcome| outcome.as_ref().unwrap().repeated);
        let first = repeats.next().unwrap();
        assert!(repeats.all(|repeated| repeated == first), "half a batch was there after {polls} polls");
        if !found.is_empty() && found.len() > before {
            assert!(first);
        }
        assert_eq!(world.assert_dense(two).await.0 as usize, before + 2, "after {polls} polls");
        assert_eq!(world.assert_dense(one).await, world.row(two).await.head_seq);
    }
    let late: Vec<Draft> = vec![draft(one, a, "the store goes on")];
    assert!(world.send(&late).await[0].is_ok());
}

/// Row, members, first entry and key are there together or not at all.
pub async fn a_dropped_create_is_whole_or_absent(store: Arc<dyn Store>) {
    let world = World(store);
    let users = world.users_of::<8>().await;
    for polls in 0..POLLS_MAX {
        let new: NewConversation = new_group(users[0], &users[1..]);
        dropped_after(polls, world.create_conversation(&new)).await;
        if world.conversations(&[new.id]).await.unwrap()[0].is_some() {
            assert_whole(&world, &new).await;
        }
        assert_eq!(world.create_conversation(&new).await.unwrap().conversation.id, new.id);
        assert_whole(&world, &new).await;
    }
}

async fn assert_whole(world: &World, new: &NewConversation) {
    assert_eq!(world.members(new.id, None, 100).await.unwrap().len(), new.members.len() + 1);
    let log = world.log(new.id, Seq::ZERO, Seq(9), 9).await.unwrap();
    assert_eq!(log.len(), 1);
    assert!(matches!(event(&log[0]), Event::Created { .. }));
    let row = world.row(new.id).await;
    assert_eq!((row.head_seq, row.member_count as usize), (Seq(1), new.members.len() + 1));
}

/// Members, count and entry change together or not at all; the repeated call is told once.
pub async fn a_dropped_action_is_whole_or_absent(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, guest] = world.users_of().await;
    let group = world.group(owner, &[]).await;
    for polls in 0..POLLS_MAX {
        let there = polls % 2 == 1;
        let action = if there { GroupAction::Remove { user: guest } } else { GroupAction::Invite { users: vec![guest] } };
        let (event_id, at, before) = (MessageId::from(Uuid::now_v7()), now(), world.row(group).await);
        dropped_after(polls, world.manage(group, owner, &action, event_id, at)).await;
        let (row, members) = (world.row(group).await, world.members(group, None, 9).await.unwrap());
        if row.head_seq > before.head_seq {
            assert_eq!(members.len(), row.member_count as usize, "after {polls} polls");
            assert_eq!(world.log(group, before.head_seq, row.head_seq, 9).await.unwrap()[0].id, event_id);
        }
        let done = world.manage(group, owner, &action, event_id, at).await.unwrap();
        assert_eq!(done.event.unwrap().seq, before.head_seq.next(), "told once");
        assert_eq!(done.conversation.member_count, if there { 1 } else { 2 });
        assert_eq!(world.assert_dense(group).await, before.head_seq.next());
        assert_eq!(world.members(group, None, 9).await.unwrap().len(), done.conversation.member_count as usize);
    }
}

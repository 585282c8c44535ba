use std::sync::Arc;

use tokio::task::JoinSet;

use crate::{
    conformance::world::{World, code, draft, new_group, nobody},
    error::Code,
    ids::{ConversationId, Seq, UserId},
    limits::UNREAD_MAX,
    model::{GroupAction, Mark},
    ports::Store,
};

fn mark(conversation: ConversationId, user: UserId, read: i64, delivered: i64) -> Mark {
    Mark { conversation, user, read_seq: Seq(read), delivered_seq: Seq(delivered) }
}

/// A mark never falls, never passes the head or, for who has left, the last visible entry; read implies delivered (I12).
pub async fn marks_only_rise_and_stop_at_the_last_visible_entry(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b, stranger] = world.users_of().await;
    let group = world.group(a, &[b]).await;
    for _ in 2..=5 {
        world.say(group, a, "x").await;
    }
    let set = async |read: i64, delivered: i64| -> (i64, i64, bool) {
        let (member, rose) = world.mark(&[mark(group, b, read, delivered)]).await.unwrap().remove(0).unwrap();
        assert_eq!(world.member(group, b).await, member, "the answer is what is stored");
        (member.read_seq.0, member.delivered_seq.0, rose)
    };
    assert_eq!(set(0, 2).await, (0, 2, true));
    assert_eq!(set(3, 0).await, (3, 3, true), "what is read is delivered");
    assert_eq!(set(1, 1).await, (3, 3, false));
    assert_eq!(set(3, 4).await, (3, 4, true));
    assert_eq!(set(0, 0).await, (3, 4, false));
    assert_eq!(set(-7, i64::MIN).await, (3, 4, false));
    assert_eq!(set(i64::MAX, 0).await, (5, 5, true), "there is nothing above the head");
    world.say(group, a, "6").await;
    world.act(group, b, GroupAction::Leave).await.unwrap();
    world.say(group, a, "8").await;
    assert_eq!(set(8, 8).await, (7, 7, true), "7 is the last entry that is visible");

    let missing = new_group(a, &[]).id;
    let batch = [mark(group, stranger, 1, 1), mark(group, a, 2, 2), mark(missing, a, 1, 1), mark(group, nobody(), 1, 1), mark(group, a, 1, 4)];
    let outcomes = world.mark(&batch).await.unwrap();
    let unknown = Some(Code::ConversationNotFound);
    assert_eq!(outcomes.iter().map(code).collect::<Vec<_>>(), [unknown, None, unknown, unknown, None]);
    let (member, rose) = outcomes[4].as_ref().unwrap();
    assert_eq!((member.read_seq, member.delivered_seq, *rose), (Seq(2), Seq(4), true));
    assert_eq!(world.mark(&[]).await.unwrap().len(), 0);
}

/// Several devices mark at once: what stays is the highest, and of each height only one call says that something rose.
pub async fn racing_marks_leave_the_highest(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let group = world.group(a, &[b]).await;
    for _ in 2..=30 {
        world.say(group, a, "x").await;
    }
    let mut tasks = JoinSet::new();
    for device in 0..4 {
        let world = world.clone();
        tasks.spawn(async move {
            let (mut rises, mut before) = (0, Seq::ZERO);
            for seq in 1..=30 {
                // Each device in another order.
                let seq = (seq * (2 * device + 7)) % 31;
                let (member, rose) = world.mark(&[mark(group, b, seq, 0)]).await.unwrap().remove(0).unwrap();
                assert!(member.read_seq >= Seq(seq) && member.read_seq >= before, "a mark fell");
                before = member.read_seq;
                rises += i64::from(rose);
            }
            rises
        });
    }
    let rises: i64 = tasks.join_all().await.into_iter().sum();
    assert!((1..=30).contains(&rises), "{rises} rises to 30");
    let member = world.member(group, b).await;
    assert_eq!((member.read_seq, member.delivered_seq), (Seq(30), Seq(30)));
}

/// Own messages and events do not count, nor does what the reader cannot see; how far the others have got is shown beside it.
pub async fn unread_is_what_others_said_above_the_read_mark(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b, c] = world.users_of().await;
    let (group, pair) = (world.group(a, &[b]).await, world.single(a, b).await);
    let view = async |user: UserId, id: ConversationId| world.conversation_view(user, id).await.unwrap().unwrap();
    assert_eq!(view(b, group).await.unread, 0, "the first entry is an event");
    world.send(&[draft(group, a, "2"), draft(group, b, "3"), draft(group, a, "4"), draft(pair, a, "2")]).await;
    world.act(group, a, GroupAction::Invite { users: vec![c] }).await.unwrap();
    world.say(group, a, "6").await;
    assert_eq!((view(a, group).await.unread, view(b, group).await.unread, view(c, group).await.unread), (1, 3, 1));
    assert_eq!((view(a, pair).await.unread, view(b, pair).await.unread), (0, 1));
    world.mark(&[mark(group, b, 4, 5), mark(pair, b, 1, 2)]).await.unwrap();
    let of_b = view(b, group).await;
    assert_eq!((of_b.unread, of_b.member.read_seq, of_b.peer_read_seq, of_b.peer_delivered_seq), (1, Seq(4), Seq::ZERO, Seq::ZERO));
    let of_a = view(a, group).await;
    assert_eq!((of_a.peer, of_a.peer_read_seq, of_a.peer_delivered_seq), (None, Seq(4), Seq(5)));
    let of_a = view(a, pair).await;
    assert_eq!((of_a.peer, of_a.peer_read_seq, of_a.peer_delivered_seq), (Some(b), Seq(1), Seq(2)));
    assert_eq!(of_a.last_message.unwrap().seq, Seq(2));
    world.act(group, a, GroupAction::Remove { user: b }).await.unwrap();
    world.say(group, a, "8").await;
    assert_eq!(view(b, group).await.unread, 1, "what follows the removal is not seen and does not count");
}

/// Exact below [`UNREAD_MAX`], and from there on the limit itself.
pub async fn unread_is_exact_up_to_its_limit(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let pair = world.single(a, b).await;
    let unread = async || world.conversation_view(b, pair).await.unwrap().unwrap().unread;
    let drafts: Vec<_> = (1..UNREAD_MAX).map(|_| draft(pair, a, "x")).collect();
    world.send(&drafts).await;
    assert_eq!(unread().await, UNREAD_MAX - 1);
    world.send(&[draft(pair, a, "x"), draft(pair, a, "x"), draft(pair, a, "x")]).await;
    assert_eq!(unread().await, UNREAD_MAX);
    world.mark(&[mark(pair, b, 10, 0)]).await.unwrap();
    assert_eq!(unread().await, UNREAD_MAX + 3 - 10);
}

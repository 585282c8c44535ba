use gochat_core::{
    ids::{ConversationId, Seq, UserId},
    limits::UNREAD_MAX,
    model::{GroupAction, Mark},
    ports::{Conversations, Messages},
};

use crate::support::{TestStore, code, draft, new_single, store};

async fn listed(store: &TestStore, user: UserId) -> Vec<ConversationId> {
    store.conversations_of(user, None, 100).await.unwrap().iter().map(|view| view.conversation.id).collect()
}

fn read(conversation: ConversationId, user: UserId, seq: i64) -> Mark {
    Mark { conversation, user, read_seq: Seq(seq), delivered_seq: Seq::ZERO }
}

#[tokio::test]
async fn the_list_is_ordered_by_activity_and_paged() {
    let store = store();
    let [a, b, c] = store.users_of().await;
    let (one, two, three) = (store.group(a, &[b]).await, store.single(a, b).await, store.group(c, &[a]).await);
    assert_eq!(listed(&store, a).await, [three, two, one]);
    store.say(one, b, "hello").await;
    assert_eq!(listed(&store, a).await, [one, three, two]);
    assert_eq!(listed(&store, b).await, [one, two]);
    let mut paged = Vec::new();
    let mut before = None;
    loop {
        let page = store.conversations_of(a, before, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.conversation.active_at, last.conversation.id));
        paged.extend(page.iter().map(|view| view.conversation.id));
    }
    assert_eq!(paged, [one, three, two]);
    store.act(one, b, GroupAction::Leave).await.unwrap();
    assert_eq!(listed(&store, b).await, [two]);
}

#[tokio::test]
async fn a_view_tells_the_last_entry_unread_and_how_far_the_peer_has_got() {
    let store = store();
    let [a, b, stranger] = store.users_of().await;
    let pair = store.single(a, b).await;
    store.send(vec![draft(pair, a, "1"), draft(pair, b, "2"), draft(pair, a, "3")]).await;
    let view = store.conversation_view(b, pair).await.unwrap().unwrap();
    assert_eq!((view.peer, view.unread, view.peer_read_seq), (Some(a), 2, Seq(0)), "the first entry is an event, the third one's own");
    assert_eq!(view.last_message.as_ref().unwrap().body.content, "3");
    assert_eq!(store.conversations_of(b, None, 9).await.unwrap(), [view]);
    let marks = [read(pair, b, 3), Mark { delivered_seq: Seq(99), ..read(pair, b, 0) }, read(pair, b, 2), read(pair, stranger, 1)];
    let marked = store.mark(&marks).await.unwrap();
    let marked: Vec<Result<(i64, i64, bool), &str>> = marked
        .into_iter()
        .map(|marked| marked.map(|(member, rose)| (member.read_seq.0, member.delivered_seq.0, rose)).map_err(|error| error.code.as_str()))
        .collect();
    assert_eq!(marked, [Ok((3, 3, true)), Ok((3, 4, true)), Ok((3, 4, false)), Err("CONVERSATION_NOT_FOUND")]);
    assert_eq!(store.conversation_view(b, pair).await.unwrap().unwrap().unread, 1);
    let view = store.conversation_view(a, pair).await.unwrap().unwrap();
    assert_eq!((view.peer, view.peer_read_seq, view.peer_delivered_seq, view.unread), (Some(b), Seq(3), Seq(4), 1));
    assert_eq!(store.conversation_view(stranger, pair).await.unwrap(), None);
}

#[tokio::test]
async fn a_hidden_pair_comes_back_with_the_next_message_or_by_being_asked_for() {
    let store = store();
    let [a, b] = store.users_of().await;
    let pair = store.single(a, b).await;
    store.say(pair, b, "hello").await;
    let hidden = store.act(pair, a, GroupAction::Leave).await.unwrap();
    assert!(hidden.event.is_none());
    assert_eq!((hidden.conversation.head_seq, hidden.conversation.version), (Seq(2), 1), "nobody else is told");
    assert_eq!((listed(&store, a).await, listed(&store, b).await), (vec![], vec![pair]));
    assert_eq!(store.conversation_view(a, pair).await.unwrap().unwrap().unread, 0);
    store.say(pair, b, "again").await;
    assert_eq!(listed(&store, a).await, [pair]);
    assert_eq!(store.conversation_view(a, pair).await.unwrap().unwrap().unread, 1);
    store.act(pair, a, GroupAction::Leave).await.unwrap();
    assert!(store.create_conversation(&new_single(a, b)).await.unwrap().existed);
    assert_eq!(listed(&store, a).await, [pair]);
}

#[tokio::test]
async fn who_has_left_is_shown_the_conversation_as_it_was() {
    let store = store();
    let [a, b] = store.users_of().await;
    let group = store.group(a, &[b]).await;
    store.say(group, a, "2").await;
    store.act(group, a, GroupAction::Remove { user: b }).await.unwrap();
    store.send(vec![draft(group, a, "4"), draft(group, a, "5")]).await;
    let view = store.conversation_view(b, group).await.unwrap().unwrap();
    assert_eq!((view.member.leave_seq, view.last_message.unwrap().seq, view.unread), (Some(Seq(3)), Seq(3), 1));
    let marked = store.mark(&[read(group, b, 5)]).await.unwrap().remove(0).unwrap();
    assert_eq!((marked.0.read_seq, marked.1), (Seq(3), true), "never above the last visible entry");
    assert_eq!(code(store.mark(&[read(group, b, 5)]).await.unwrap().remove(0)), "OK");
}

#[tokio::test]
async fn unread_is_exact_up_to_its_limit() {
    let store = store();
    let [a, b, c] = store.users_of().await;
    let group = store.group(a, &[b, c]).await;
    let limit = usize::try_from(UNREAD_MAX).unwrap();
    store.send((0..limit + 200).map(|_| draft(group, a, "x")).collect()).await;
    let unread = async |user: UserId| store.conversation_view(user, group).await.unwrap().unwrap().unread;
    assert_eq!((unread(b).await, unread(a).await), (UNREAD_MAX, 0));
    store.mark(&[read(group, b, 1 + 201)]).await.unwrap();
    assert_eq!(unread(b).await, UNREAD_MAX - 1);
    store.mark(&[read(group, b, 99_999), read(group, c, 700)]).await.unwrap();
    assert_eq!(unread(b).await, 0);
    let view = store.conversation_view(b, group).await.unwrap().unwrap();
    assert_eq!((view.peer, view.peer_read_seq), (None, Seq(700)), "the highest among the others, not the own one");
}

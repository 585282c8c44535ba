use std::sync::Arc;

use gochat_core::{
    ids::{MessageId, Seq},
    limits::INVITE_MAX,
    model::{Event, GroupAction, IdempotencyKey, JoinMode, MessageKind, NewConversation, Role, UserStatus},
    ports::{Conversations, Messages, Users},
};
use uuid::Uuid;

use crate::support::{code, draft, new_group, new_single, now, secret, store};

#[tokio::test]
async fn a_group_is_made_whole() {
    let store = store();
    let [a, b, c] = store.users_of().await;
    let created = store.create_conversation(&new_group(a, &[b, c])).await.unwrap();
    let (group, event) = (created.conversation, created.event.unwrap());
    assert!(!created.existed);
    assert_eq!((group.head_seq, group.members_seq, group.dispatched_seq, group.member_count, group.owner), (Seq(1), Seq(1), Seq(0), 3, Some(a)));
    assert_eq!((event.seq, event.sender, event.body.kind), (Seq(1), a, MessageKind::Event));
    assert_eq!(serde_json::from_str::<Event>(&event.body.content).unwrap(), Event::Created { users: vec![b, c] });
    assert_eq!(store.conversations(&[group.id]).await.unwrap(), [Some(group.clone())]);
    assert_eq!(store.history(c, group.id, None, None, 10).await.unwrap(), [event]);
    let mut expected = [(a, Role::Owner), (b, Role::Member), (c, Role::Member)];
    expected.sort_unstable_by_key(|(user, _)| *user);
    let members = store.members(group.id, None, 10).await.unwrap();
    assert_eq!(members.iter().map(|member| (member.user, member.role)).collect::<Vec<_>>(), expected);
    assert!(members.iter().all(|member| member.join_seq == Seq(1)));
    let page = store.members(group.id, Some(expected[0].0), 1).await.unwrap();
    assert_eq!(page.iter().map(|member| member.user).collect::<Vec<_>>(), [expected[1].0]);
}

#[tokio::test]
async fn a_create_that_is_refused_leaves_nothing() {
    let store = store();
    let [a, b, disabled] = store.users_of().await;
    store.set_user_status(disabled, UserStatus::Disabled).await.unwrap();
    let missing = gochat_core::ids::UserId::from(Uuid::now_v7());
    for (members, max, expected) in [(vec![b, missing], 10, "USER_NOT_FOUND"), (vec![disabled], 10, "USER_NOT_FOUND"), (vec![b], 1, "GROUP_FULL")] {
        let new = NewConversation { max_members: max, ..new_group(a, &members) };
        assert_eq!(code(store.create_conversation(&new).await), expected);
        assert_eq!(store.conversations(&[new.id]).await.unwrap(), [None]);
    }
    assert!(store.conversations_of(a, None, 10).await.unwrap().is_empty());
    assert_eq!(code(store.create_conversation(&new_single(a, a)).await), "INVALID_FIELD");
}

#[tokio::test]
async fn a_repeated_create_answers_with_the_first_one() {
    let store = store();
    let [a, b] = store.users_of().await;
    let key = Some(IdempotencyKey { key: "k".into(), request_hash: [1; 32] });
    let first = NewConversation { idempotency: key.clone(), ..new_group(a, &[b]) };
    let made = store.create_conversation(&first).await.unwrap().conversation;
    let again = store.create_conversation(&NewConversation { idempotency: key.clone(), ..new_group(a, &[b]) }).await.unwrap();
    assert!(again.existed && again.event.is_none());
    assert_eq!(again.conversation, made);
    let other = Some(IdempotencyKey { key: "k".into(), request_hash: [2; 32] });
    assert_eq!(code(store.create_conversation(&NewConversation { idempotency: other, ..new_group(a, &[b]) }).await), "IDEMPOTENCY_CONFLICT");
    let by_b = store.create_conversation(&NewConversation { idempotency: key, ..new_group(b, &[a]) }).await.unwrap();
    assert!(!by_b.existed, "a key belongs to its creator");

    let keyless = new_group(a, &[b]);
    store.create_conversation(&keyless).await.unwrap();
    assert!(store.create_conversation(&keyless).await.unwrap().existed, "the very same call, repeated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pair_has_one_conversation_however_many_ask_at_once() {
    let store = Arc::new(store());
    let [a, b] = store.users_of().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let store = store.clone();
        let new = if n % 2 == 0 { new_single(a, b) } else { new_single(b, a) };
        tasks.spawn(async move { store.create_conversation(&new).await.unwrap() });
    }
    let created: Vec<_> = tasks.join_all().await;
    assert_eq!(created.iter().filter(|created| !created.existed).count(), 1);
    assert!(created.iter().all(|other| other.conversation.id == created[0].conversation.id));
    assert_eq!(created[0].conversation.member_count, 2);
    assert_eq!(created[0].conversation.owner, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_never_has_more_members_than_it_may() {
    let store = Arc::new(store());
    let owner = store.user().await;
    let new = NewConversation { max_members: 5, ..new_group(owner, &[]) };
    let group = store.create_conversation(&new).await.unwrap().conversation.id;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, user) = (store.clone(), store.user().await);
        tasks.spawn(async move { code(store.act(group, user, GroupAction::Join).await) });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "OK").count(), 4);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "GROUP_FULL").count(), 16);
    let stored = store.conversations(&[group]).await.unwrap().remove(0).unwrap();
    assert_eq!((stored.member_count, stored.head_seq, stored.members_seq, stored.version), (5, Seq(5), Seq(5), 5));
    assert_eq!(store.members(group, None, 100).await.unwrap().len(), 5);
}

#[tokio::test]
async fn who_was_removed_sees_nothing_later_and_the_hole_stays_after_coming_back() {
    let store = store();
    let [a, b] = store.users_of().await;
    let group = store.group(a, &[b]).await;
    store.say(group, a, "2").await;
    let removed = store.act(group, a, GroupAction::Remove { user: b }).await.unwrap();
    assert_eq!(removed.event.as_ref().unwrap().seq, Seq(3));
    assert_eq!((removed.conversation.member_count, removed.conversation.members_seq), (1, Seq(3)));
    store.say(group, a, "4").await;
    assert_eq!(store.seen(b, group).await, [1, 2, 3]);
    assert_eq!(code(store.send(vec![draft(group, b, "no")]).await.remove(0)), "NOT_A_MEMBER");
    assert_eq!(code(store.act(group, b, GroupAction::Leave).await), "NOT_A_MEMBER");
    assert_eq!(store.members_at(group, Seq(3), None, 10).await.unwrap().len(), 2);
    assert_eq!(store.members_at(group, Seq(4), None, 10).await.unwrap(), [a]);

    store.act(group, a, GroupAction::Invite { users: vec![b, b, a] }).await.unwrap();
    store.say(group, b, "6").await;
    assert_eq!(store.seen(b, group).await, [1, 2, 3, 5, 6]);
    let after = |seqs: Vec<gochat_core::model::Message>| seqs.iter().map(|message| message.seq.0).collect::<Vec<_>>();
    assert_eq!(after(store.history(b, group, Some(Seq(2)), None, 2).await.unwrap()), [3, 5]);
    assert_eq!(after(store.history(b, group, None, Some(Seq(6)), 2).await.unwrap()), [3, 5]);
    let intervals: Vec<(i64, Option<i64>)> =
        store.memberships(group, &[b]).await.unwrap()[0].iter().map(|member| (member.join_seq.0, member.leave_seq.map(|seq| seq.0))).collect();
    assert_eq!(intervals, [(1, Some(3)), (5, None)]);
}

#[tokio::test]
async fn a_silence_does_not_end_by_leaving_and_coming_back() {
    let store = store();
    let [a, b] = store.users_of().await;
    let group = store.group(a, &[b]).await;
    let until = now().plus(std::time::Duration::from_secs(3600));
    store.act(group, a, GroupAction::Silence { user: b, until: Some(until) }).await.unwrap();
    store.act(group, b, GroupAction::Leave).await.unwrap();
    store.act(group, b, GroupAction::Join).await.unwrap();
    assert_eq!(code(store.send(vec![draft(group, b, "no")]).await.remove(0)), "SILENCED");
}

#[tokio::test]
async fn roles_settings_links_and_requests_are_kept() {
    let store = store();
    let [a, b, c] = store.users_of().await;
    let group = store.group(a, &[b]).await;
    assert_eq!(code(store.act(group, b, GroupAction::Invite { users: vec![c] }).await), "DENIED");
    store.act(group, a, GroupAction::SetRole { user: b, role: Role::Admin }).await.unwrap();
    let unchanged = store.act(group, a, GroupAction::SetRole { user: b, role: Role::Admin }).await.unwrap();
    assert!(unchanged.event.is_none());
    assert_eq!((unchanged.conversation.head_seq, unchanged.conversation.version), (Seq(2), 2));

    let link = secret().to_vec();
    let linked = store.act(group, b, GroupAction::SetLink { link_hash: Some(link.clone()) }).await.unwrap();
    assert!(linked.event.is_none());
    assert_eq!(store.conversation_by_link(&link).await.unwrap().unwrap().id, group);
    assert_eq!(code(store.act(group, c, GroupAction::JoinByLink { link_hash: vec![0; 32] }).await), "LINK_NOT_FOUND");

    let edit = GroupAction::Edit {
        name: Some("New".into()),
        description: Some("About".into()),
        avatar_url: Some(Some("/a.png".into())),
        max_members: Some(3),
        join_mode: Some(JoinMode::Request),
    };
    let edited = store.act(group, b, edit).await.unwrap();
    let stored = store.conversations(&[group]).await.unwrap().remove(0).unwrap();
    assert_eq!(stored, edited.conversation);
    assert_eq!((&*stored.name, &*stored.description, stored.max_members, stored.join_mode), ("New", "About", 3, JoinMode::Request));

    assert!(store.act(group, c, GroupAction::AskToJoin).await.unwrap().event.is_none());
    store.act(group, c, GroupAction::AskToJoin).await.unwrap();
    let requests = store.join_requests(group, 10).await.unwrap();
    assert_eq!(requests.iter().map(|request| request.user_id).collect::<Vec<_>>(), [c]);
    store.act(group, b, GroupAction::AnswerRequest { user: c, accept: true }).await.unwrap();
    assert!(store.join_requests(group, 10).await.unwrap().is_empty());
    assert_eq!(code(store.act(group, b, GroupAction::AnswerRequest { user: c, accept: true }).await), "REQUEST_NOT_FOUND");
    assert_eq!(store.seen(c, group).await, [4]);

    assert_eq!(code(store.act(group, a, GroupAction::Leave).await), "OWNER_LEAVES");
    let handed = store.act(group, a, GroupAction::HandOver { user: c }).await.unwrap();
    assert_eq!(handed.conversation.owner, Some(c));
    store.act(group, a, GroupAction::Leave).await.unwrap();
    store.act(group, c, GroupAction::Dissolve).await.unwrap();
    assert_eq!(store.conversation_by_link(&link).await.unwrap(), None);
    assert_eq!(code(store.act(group, c, GroupAction::SetRole { user: b, role: Role::Member }).await), "DISSOLVED");
    assert_eq!(store.seen(b, group).await, [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn the_same_action_repeated_by_its_event_id_happens_once() {
    let store = store();
    let [a, b] = store.users_of().await;
    let group = store.group(a, &[b]).await;
    let event_id = MessageId::from(Uuid::now_v7());
    let first = store.manage(group, b, &GroupAction::Leave, event_id, now()).await.unwrap();
    let again = store.manage(group, b, &GroupAction::Leave, event_id, now()).await.unwrap();
    assert_eq!(again.event, first.event);
    assert_eq!(again.conversation.head_seq, Seq(2));
}

#[tokio::test]
async fn a_thousand_members_are_added_at_once() {
    let store = store();
    let owner = store.user().await;
    let mut users = Vec::new();
    for _ in 0..INVITE_MAX {
        users.push(store.user().await);
    }
    let made = store.create_conversation(&new_group(owner, &users)).await.unwrap().conversation;
    assert_eq!(made.member_count, 1001);
    let group = store.group(owner, &[]).await;
    let invited = store.act(group, owner, GroupAction::Invite { users: users.clone() }).await.unwrap();
    assert_eq!((invited.conversation.member_count, invited.conversation.head_seq), (1001, Seq(2)));
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = store.members_at(group, Seq(2), after, 300).await.unwrap();
        after = page.last().copied();
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    users.push(owner);
    users.sort_unstable();
    assert_eq!(listed, users);
    let intervals = store.memberships(group, &users).await.unwrap();
    assert!(intervals.iter().zip(&users).all(|(intervals, user)| intervals.len() == 1 && intervals[0].user == *user));
}

#[tokio::test]
async fn muting_is_the_members_own() {
    let store = store();
    let [a, b, stranger] = store.users_of().await;
    let group = store.group(a, &[b]).await;
    assert!(store.set_muted(group, b, true).await.unwrap().muted);
    let stored = store.memberships(group, &[a, b]).await.unwrap();
    assert_eq!((stored[0][0].muted, stored[1][0].muted), (false, true));
    store.act(group, b, GroupAction::Leave).await.unwrap();
    assert_eq!(code(store.set_muted(group, b, false).await), "NOT_A_MEMBER");
    assert_eq!(code(store.set_muted(group, stranger, false).await), "CONVERSATION_NOT_FOUND", "a stranger cannot tell that it exists");
    assert_eq!(code(store.act(group, stranger, GroupAction::Leave).await), "CONVERSATION_NOT_FOUND");
    assert!(store.log(group, Seq(0), Seq(9), 9).await.unwrap().len() == 2);
}

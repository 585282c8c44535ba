use std::{collections::HashSet, sync::Arc};

use tokio::task::JoinSet;

use crate::{
    conformance::world::{World, event, new_group, new_single, nobody, refusal, sorted},
    error::Code,
    ids::Seq,
    model::{ConversationKind, Event, IdempotencyKey, JoinMode, NewConversation, Role, UserStatus},
    ports::Store,
};

/// Row, members and first entry are there together; a create that is refused leaves none of them (I13).
pub async fn a_conversation_is_made_whole_or_not_at_all(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b, c, disabled] = world.users_of().await;
    let settings = NewConversation {
        description: "About".into(),
        avatar_url: Some("/g.png".into()),
        join_mode: JoinMode::Request,
        max_members: 3,
        ..new_group(a, &[c, b])
    };
    let created = world.create_conversation(&settings).await.unwrap();
    let (made, first) = (created.conversation, created.event.unwrap());
    assert!(!created.existed);
    assert_eq!((made.id, made.kind, made.owner, made.member_count), (settings.id, ConversationKind::Group, Some(a), 3));
    assert_eq!((&made.name, &made.description, &made.avatar_url), (&settings.name, &settings.description, &settings.avatar_url));
    assert_eq!((made.join_mode, made.max_members, made.dissolved), (JoinMode::Request, 3, false));
    assert_eq!((made.head_seq, made.members_seq, made.dispatched_seq), (Seq(1), Seq(1), Seq::ZERO));
    assert_eq!((made.created_at, made.active_at), (settings.at, settings.at));
    assert_eq!((first.id, first.seq, first.sender, first.conversation), (settings.event_id, Seq(1), a, made.id));
    let Event::Created { users } = event(&first) else { panic!("{first:?}") };
    assert_eq!(users.into_iter().collect::<HashSet<_>>(), HashSet::from([b, c]), "the creator is not named");
    assert_eq!(
        world.conversations(&[made.id, settings.id, nobody_s(), made.id]).await.unwrap(),
        [Some(made.clone()), Some(made.clone()), None, Some(made.clone())]
    );
    assert_eq!(world.log(made.id, Seq::ZERO, Seq(9), 9).await.unwrap(), [first]);
    let members = world.members(made.id, None, 10).await.unwrap();
    assert_eq!(members.iter().map(|member| member.user).collect::<Vec<_>>(), sorted([a, b, c]));
    for member in members {
        assert_eq!(member.role, if member.user == a { Role::Owner } else { Role::Member });
        assert_eq!((member.join_seq, member.leave_seq, member.read_seq, member.delivered_seq), (Seq(1), None, Seq::ZERO, Seq::ZERO));
    }

    world.set_user_status(disabled, UserStatus::Disabled).await.unwrap();
    for (refused, expected) in [
        (new_group(a, &[b, nobody()]), Code::UserNotFound),
        (new_group(a, &[disabled, b]), Code::UserNotFound),
        (new_single(a, nobody()), Code::UserNotFound),
        (NewConversation { max_members: 2, ..new_group(a, &[b, c]) }, Code::GroupFull),
    ] {
        assert_eq!(refusal(world.create_conversation(&refused).await), expected);
        assert_eq!(world.conversations(&[refused.id]).await.unwrap(), [None]);
        assert_eq!(world.members(refused.id, None, 10).await.unwrap(), []);
        assert_eq!(world.log(refused.id, Seq::ZERO, Seq(9), 9).await.unwrap(), []);
    }
    assert_eq!(world.conversations_of(b, None, 10).await.unwrap().len(), 1);
}

/// A key belongs to its creator and to one request; repeating the very same call without a key is the same conversation too.
pub async fn a_repeated_key_answers_with_the_first_conversation(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let keyed = |creator, peer, request: u8| {
        let idempotency = Some(IdempotencyKey { key: "key".into(), request_hash: [request; 32] });
        NewConversation { idempotency, ..new_group(creator, &[peer]) }
    };
    let made = world.create_conversation(&keyed(a, b, 1)).await.unwrap().conversation;
    let repeated = world.create_conversation(&keyed(a, b, 1)).await.unwrap();
    assert!(repeated.existed && repeated.event.is_none());
    assert_eq!(repeated.conversation, made);
    let other = keyed(a, b, 2);
    assert_eq!(refusal(world.create_conversation(&other).await), Code::IdempotencyConflict);
    assert_eq!(world.conversations(&[other.id]).await.unwrap(), [None]);
    assert!(!world.create_conversation(&keyed(b, a, 2)).await.unwrap().existed, "a key belongs to its creator");
    let keyless = new_group(a, &[b]);
    world.create_conversation(&keyless).await.unwrap();
    assert!(world.create_conversation(&keyless).await.unwrap().existed, "the very same call");
    world.assert_dense(keyless.id).await;
}

/// There is one 1:1 for each pair, from whichever side it is made and however often at once.
pub async fn a_pair_has_one_conversation_however_many_ask_at_once(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b, c] = world.users_of().await;
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let (world, new) = (world.clone(), if n % 2 == 0 { new_single(a, b) } else { new_single(b, a) });
        tasks.spawn(async move { world.create_conversation(&new).await.unwrap() });
    }
    let created = tasks.join_all().await;
    assert_eq!(created.iter().map(|created| created.conversation.id).collect::<HashSet<_>>().len(), 1);
    assert_eq!(created.iter().filter(|created| !created.existed && created.event.is_some()).count(), 1);
    let pair = world.row(created[0].conversation.id).await;
    assert_eq!((pair.kind, pair.member_count, pair.owner, pair.head_seq), (ConversationKind::Single, 2, None, Seq(1)));
    let view = world.conversation_view(a, pair.id).await.unwrap().unwrap();
    assert_eq!((view.peer, view.member.role), (Some(b), Role::Member));
    assert_ne!(world.single(a, c).await, pair.id);
}

/// Racing creates with one key make one group.
pub async fn a_key_makes_one_group_however_many_ask_at_once(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b] = world.users_of().await;
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let world = world.clone();
        let idempotency = Some(IdempotencyKey { key: "one".into(), request_hash: [7; 32] });
        let new = NewConversation { idempotency, ..new_group(a, &[b]) };
        tasks.spawn(async move { world.create_conversation(&new).await.unwrap() });
    }
    let created = tasks.join_all().await;
    assert_eq!(created.iter().map(|created| created.conversation.id).collect::<HashSet<_>>().len(), 1);
    assert_eq!(created.iter().filter(|created| !created.existed).count(), 1);
    assert_eq!(world.conversations_of(b, None, 10).await.unwrap().len(), 1);
}

fn nobody_s() -> crate::ids::ConversationId {
    new_group(nobody(), &[]).id
}

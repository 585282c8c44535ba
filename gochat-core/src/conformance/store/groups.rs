use std::{collections::HashSet, sync::Arc};

use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    conformance::world::{HOUR, World, code, draft, event, new_group, nobody, now, refusal, secret},
    error::Code,
    ids::{ConversationId, MessageId, Seq, UserId},
    model::{Event, GroupAction, JoinMode, NewConversation, Role, UserStatus},
    ports::Store,
};

const NO_EDIT: GroupAction = GroupAction::Edit { name: None, description: None, avatar_url: None, max_members: None, join_mode: None };

fn join_mode(mode: JoinMode) -> GroupAction {
    GroupAction::Edit { name: None, description: None, avatar_url: None, max_members: None, join_mode: Some(mode) }
}

fn max_members(max: i32) -> GroupAction {
    GroupAction::Edit { name: None, description: None, avatar_url: None, max_members: Some(max), join_mode: None }
}

fn invite(users: &[UserId]) -> GroupAction {
    GroupAction::Invite { users: users.to_vec() }
}

fn link(secret: [u8; 32]) -> Vec<u8> {
    Sha256::digest(secret).to_vec()
}

async fn listed(world: &World, group: ConversationId) -> HashSet<UserId> {
    world.members(group, None, 10_000).await.unwrap().into_iter().map(|member| member.user).collect()
}

/// Members are skipped and named once, one unknown or disabled user refuses the whole, and the entry that tells of it is the
/// first that the new members see.
pub async fn an_invitation_adds_whoever_is_not_there_yet(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, there, new, newer, disabled] = world.users_of().await;
    world.set_user_status(disabled, UserStatus::Disabled).await.unwrap();
    let group = world.group(owner, &[there]).await;
    let before = world.row(group).await;
    let changed = world.act(group, owner, invite(&[there, new, newer, owner, new])).await.unwrap();
    let entry = changed.event.unwrap();
    assert_eq!((entry.seq, entry.sender), (Seq(2), owner));
    let Event::MembersJoined { users } = event(&entry) else { panic!("{entry:?}") };
    assert_eq!((users.len(), users.into_iter().collect::<HashSet<_>>()), (2, HashSet::from([new, newer])));
    let after = world.row(group).await;
    assert_eq!(after, changed.conversation);
    assert_eq!((after.member_count, after.members_seq, after.head_seq), (4, Seq(2), Seq(2)));
    assert!(after.version > before.version);
    assert_eq!(listed(&world, group).await, HashSet::from([owner, there, new, newer]));
    assert_eq!((world.seen(new, group).await, world.role(group, new).await), (vec![2], Role::Member));
    assert_eq!(world.told(group, owner, invite(&[new, there])).await, None, "all of them are there");
    for refused in [nobody(), disabled] {
        let user = world.user().await;
        assert_eq!(refusal(world.act(group, owner, invite(&[user, refused])).await), Code::UserNotFound);
        assert_eq!(world.memberships(group, &[user]).await.unwrap(), [vec![]]);
    }
    assert_eq!(world.row(group).await, after, "what changed nothing took no seq");
}

/// `Open` lets in at once, `Request` wants to be asked, and a group by invitation is not there for strangers.
pub async fn a_group_is_joined_as_its_mode_says(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, a, b] = world.users_of().await;
    let group = world.group(owner, &[]).await;
    let outcome = async |action: GroupAction| code(&world.act(group, a, action).await);
    assert_eq!(outcome(GroupAction::Join).await, Some(Code::ConversationNotFound));
    assert_eq!(outcome(GroupAction::AskToJoin).await, Some(Code::ConversationNotFound));
    world.act(group, owner, join_mode(JoinMode::Request)).await.unwrap();
    assert_eq!(outcome(GroupAction::Join).await, Some(Code::Denied));
    world.act(group, owner, join_mode(JoinMode::Open)).await.unwrap();
    assert_eq!(world.told(group, a, GroupAction::Join).await, Some(Event::MembersJoined { users: vec![a] }));
    assert_eq!(outcome(GroupAction::Join).await, Some(Code::AlreadyMember));
    assert_eq!(world.told(group, b, GroupAction::AskToJoin).await, Some(Event::MembersJoined { users: vec![b] }), "nobody needs to ask here");
    assert_eq!(refusal(world.act(new_group(owner, &[]).id, a, GroupAction::Join).await), Code::ConversationNotFound);
    assert_eq!(world.row(group).await.member_count, 3);
}

/// A link leads to its group and lets in whatever the mode is; a new one, none, or the end of the group closes the old one.
pub async fn a_link_lets_in_until_it_is_replaced(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, a, b, c] = world.users_of().await;
    let (group, other) = (world.group(owner, &[]).await, world.group(owner, &[]).await);
    let (first, second) = (link(secret()), link(secret()));
    let set = |link_hash: Option<&Vec<u8>>| GroupAction::SetLink { link_hash: link_hash.cloned() };
    let by = |link_hash: &Vec<u8>| GroupAction::JoinByLink { link_hash: link_hash.clone() };
    assert_eq!(world.conversation_by_link(&first).await.unwrap(), None);
    assert_eq!(world.told(group, owner, set(Some(&first))).await, None, "a link is not told");
    assert_eq!(world.conversation_by_link(&first).await.unwrap().map(|found| found.id), Some(group));
    assert_eq!(world.told(group, a, by(&first)).await, Some(Event::MembersJoined { users: vec![a] }));
    assert_eq!(refusal(world.act(group, a, by(&first)).await), Code::AlreadyMember);
    assert_eq!(refusal(world.act(other, b, by(&first)).await), Code::LinkNotFound, "a link is of one group");
    world.act(group, owner, set(Some(&second))).await.unwrap();
    assert_eq!(world.conversation_by_link(&first).await.unwrap(), None);
    assert_eq!(refusal(world.act(group, b, by(&first)).await), Code::LinkNotFound);
    world.act(group, b, by(&second)).await.unwrap();
    world.act(group, owner, set(None)).await.unwrap();
    assert_eq!(refusal(world.act(group, c, by(&second)).await), Code::LinkNotFound);
    world.act(group, owner, set(Some(&first))).await.unwrap();
    world.act(group, owner, GroupAction::Dissolve).await.unwrap();
    assert_eq!(world.conversation_by_link(&first).await.unwrap(), None);
    world.assert_dense(group).await;
}

/// A request is open once, seen by those who answer it, and closed by an answer or by coming in another way.
pub async fn a_request_waits_for_its_answer(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, a, b] = world.users_of().await;
    let group = world.create_conversation(&NewConversation { join_mode: JoinMode::Request, ..new_group(owner, &[]) }).await.unwrap().conversation.id;
    let open = async || -> Vec<UserId> { world.join_requests(group, 10).await.unwrap().into_iter().map(|request| request.user_id).collect() };
    let answer = |user, accept| GroupAction::AnswerRequest { user, accept };
    for user in [a, b, a] {
        assert_eq!(world.told(group, user, GroupAction::AskToJoin).await, None);
    }
    assert_eq!(open().await, [a, b], "oldest first, each once");
    assert_eq!(world.join_requests(group, 1).await.unwrap().len(), 1);
    assert_eq!(world.told(group, owner, answer(a, true)).await, Some(Event::MembersJoined { users: vec![a] }));
    assert_eq!(world.told(group, owner, answer(b, false)).await, None, "a refusal is not told");
    assert_eq!(open().await, []);
    assert_eq!(listed(&world, group).await, HashSet::from([owner, a]));
    for user in [a, b] {
        assert_eq!(refusal(world.act(group, owner, answer(user, true)).await), Code::RequestNotFound);
    }
    world.act(group, b, GroupAction::AskToJoin).await.unwrap();
    world.act(group, owner, join_mode(JoinMode::Open)).await.unwrap();
    world.act(group, b, GroupAction::Join).await.unwrap();
    assert_eq!(open().await, [], "joining closes it");
    assert_eq!(world.row(group).await.head_seq, Seq(4));
}

/// The last thing that one sees is the own leaving. The owner stays as long as there are others; the last one dissolves the group.
pub async fn leaving_ends_the_membership_with_the_entry_that_tells_of_it(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, a] = world.users_of().await;
    let group = world.group(owner, &[a]).await;
    assert_eq!(refusal(world.act(group, owner, GroupAction::Leave).await), Code::OwnerLeaves);
    let changed = world.act(group, a, GroupAction::Leave).await.unwrap();
    assert_eq!(event(changed.event.as_ref().unwrap()), Event::MemberLeft);
    assert_eq!((changed.conversation.member_count, changed.conversation.members_seq), (1, Seq(2)));
    assert_eq!(world.member(group, a).await.leave_seq, Some(Seq(2)));
    assert_eq!(refusal(world.act(group, a, GroupAction::Leave).await), Code::NotAMember);
    let last = world.act(group, owner, GroupAction::Leave).await.unwrap().conversation;
    assert_eq!((last.member_count, last.dissolved, last.head_seq), (0, true, Seq(3)));
    assert_eq!((world.seen(owner, group).await, world.seen(a, group).await), (vec![1, 2, 3], vec![1, 2]));
}

/// An admin removes members, the owner admins too; nobody an equal or a higher role.
pub async fn a_removed_member_sees_the_removal_and_nothing_later(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, admin, admin2, member] = world.users_of().await;
    let group = world.group(owner, &[admin, admin2, member]).await;
    for user in [admin, admin2] {
        world.act(group, owner, GroupAction::SetRole { user, role: Role::Admin }).await.unwrap();
    }
    let remove = |user| GroupAction::Remove { user };
    for (actor, user) in [(member, admin), (member, member), (admin, admin2), (admin, owner), (owner, owner)] {
        assert_eq!(refusal(world.act(group, actor, remove(user)).await), Code::Denied);
    }
    assert_eq!(world.told(group, admin, remove(member)).await, Some(Event::MemberRemoved { user: member }));
    assert_eq!(world.told(group, owner, remove(admin2)).await, Some(Event::MemberRemoved { user: admin2 }));
    assert_eq!(refusal(world.act(group, admin, remove(member)).await), Code::UserNotFound);
    world.say(group, owner, "later").await;
    let removed = world.member(group, member).await;
    assert_eq!((removed.leave_seq, world.seen(member, group).await), (Some(Seq(4)), vec![1, 2, 3, 4]));
    assert_eq!(refusal(world.act(group, member, invite(&[admin2])).await), Code::NotAMember);
    assert_eq!(listed(&world, group).await, HashSet::from([owner, admin]));
    world.act(group, owner, invite(&[admin2])).await.unwrap();
    assert_eq!(world.role(group, admin2).await, Role::Member, "who comes back begins as a member");
}

/// There is one owner at any time: handing over changes row and both roles together.
pub async fn roles_are_given_by_the_owner_and_the_group_is_handed_over_whole(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, a, b] = world.users_of().await;
    let group = world.group(owner, &[a, b]).await;
    let role = |user, role| GroupAction::SetRole { user, role };
    let before = world.row(group).await.members_seq;
    assert_eq!(world.told(group, owner, role(a, Role::Admin)).await, Some(Event::RoleChanged { user: a, role: Role::Admin }));
    assert_eq!(world.told(group, owner, role(a, Role::Admin)).await, None);
    assert_eq!(refusal(world.act(group, a, role(b, Role::Admin)).await), Code::Denied);
    assert_eq!(refusal(world.act(group, owner, role(a, Role::Owner)).await), Code::InvalidField);
    assert_eq!(refusal(world.act(group, owner, role(owner, Role::Member)).await), Code::InvalidField);
    assert_eq!(refusal(world.act(group, owner, role(nobody(), Role::Admin)).await), Code::UserNotFound);
    assert_eq!(refusal(world.act(group, a, GroupAction::HandOver { user: a }).await), Code::Denied);
    let changed = world.act(group, owner, GroupAction::HandOver { user: b }).await.unwrap();
    assert_eq!(event(&changed.event.unwrap()), Event::OwnerChanged { user: b });
    assert_eq!((changed.conversation.owner, changed.conversation.members_seq), (Some(b), before), "who is a member has not changed");
    assert_eq!((world.role(group, owner).await, world.role(group, a).await, world.role(group, b).await), (Role::Admin, Role::Admin, Role::Owner));
    world.act(group, owner, GroupAction::Leave).await.unwrap();
    assert_eq!(world.told(group, b, role(a, Role::Member)).await, Some(Event::RoleChanged { user: a, role: Role::Member }));
}

/// Silencing is of this membership, for a time, and can be taken back.
pub async fn a_silence_is_told_and_ends(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, admin, member] = world.users_of().await;
    let group = world.group(owner, &[admin, member]).await;
    world.act(group, owner, GroupAction::SetRole { user: admin, role: Role::Admin }).await.unwrap();
    let until = Some(now().plus(HOUR));
    let silence = |user, until| GroupAction::Silence { user, until };
    assert_eq!(refusal(world.act(group, member, silence(admin, until)).await), Code::Denied);
    assert_eq!(refusal(world.act(group, admin, silence(owner, until)).await), Code::Denied);
    assert_eq!(world.told(group, admin, silence(member, None)).await, None, "it is so already");
    assert_eq!(world.told(group, admin, silence(member, until)).await, Some(Event::Silenced { user: member, until }));
    assert_eq!(world.told(group, admin, silence(member, until)).await, None);
    assert_eq!(world.member(group, member).await.silenced_until, until);
    assert_eq!(refusal(world.send_one(&draft(group, member, "x")).await), Code::Silenced);
    assert_eq!(world.told(group, admin, silence(member, None)).await, Some(Event::Silenced { user: member, until: None }));
    world.send_one(&draft(group, member, "x")).await.unwrap();
}

/// Only what changed is written and named; a limit below the present members is refused.
pub async fn an_edit_changes_and_tells_only_what_differs(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, member] = world.users_of().await;
    let group = world.group(owner, &[member]).await;
    let edit = GroupAction::Edit {
        name: Some("New".into()),
        description: Some(String::new()),
        avatar_url: Some(Some("/n.png".into())),
        max_members: Some(2),
        join_mode: Some(JoinMode::Open),
    };
    let told = Event::Edited {
        name: Some("New".into()),
        description: None,
        avatar_url: Some("/n.png".into()),
        max_members: Some(2),
        join_mode: Some(JoinMode::Open),
    };
    assert_eq!(refusal(world.act(group, member, edit.clone()).await), Code::Denied);
    let before = world.row(group).await;
    assert_eq!(world.told(group, owner, edit.clone()).await, Some(told));
    let after = world.row(group).await;
    assert_eq!((after.name.as_str(), after.avatar_url.as_deref(), after.max_members, after.join_mode), ("New", Some("/n.png"), 2, JoinMode::Open));
    assert!(after.version > before.version && after.head_seq == before.head_seq.next() && after.members_seq == before.members_seq);
    for nothing in [edit, NO_EDIT] {
        assert_eq!(world.told(group, owner, nothing).await, None);
    }
    assert_eq!(refusal(world.act(group, owner, max_members(1)).await), Code::InvalidField);
    assert_eq!(world.row(group).await, after);
    let bare = GroupAction::Edit { avatar_url: Some(None), name: None, description: Some("About".into()), max_members: None, join_mode: None };
    let told = Event::Edited { avatar_url: Some(String::new()), description: Some("About".into()), name: None, max_members: None, join_mode: None };
    assert_eq!(world.told(group, owner, bare).await, Some(told));
    assert_eq!((world.row(group).await.avatar_url, world.row(group).await.description), (None, "About".into()));
}

/// The end of a group is an entry like others; afterwards members read, mark, mute and leave.
pub async fn a_dissolved_group_can_be_read_and_nothing_else(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, member, stranger] = world.users_of().await;
    let group = world.group(owner, &[member]).await;
    assert_eq!(refusal(world.act(group, member, GroupAction::Dissolve).await), Code::Denied);
    let dissolved = world.act(group, owner, GroupAction::Dissolve).await.unwrap();
    assert_eq!((event(&dissolved.event.unwrap()), dissolved.conversation.dissolved), (Event::Dissolved, true));
    for action in [invite(&[stranger]), NO_EDIT, GroupAction::Remove { user: member }, GroupAction::Dissolve, GroupAction::HandOver { user: member }]
    {
        assert_eq!(refusal(world.act(group, owner, action).await), Code::Dissolved);
    }
    assert_eq!(refusal(world.act(group, stranger, GroupAction::Join).await), Code::ConversationNotFound);
    assert_eq!(world.seen(member, group).await, [1, 2]);
    assert!(world.set_muted(group, member, true).await.unwrap().muted);
    world.act(group, owner, GroupAction::Leave).await.unwrap();
    assert_eq!(world.seen(member, group).await, [1, 2, 3]);
}

/// Refusals of every kind leave row, members and log as they were.
pub async fn what_a_role_may_not_do_changes_nothing(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, admin, member, other, stranger] = world.users_of().await;
    let group = world.group(owner, &[admin, member, other]).await;
    world.act(group, owner, GroupAction::SetRole { user: admin, role: Role::Admin }).await.unwrap();
    let before = (world.row(group).await, world.members(group, None, 10).await.unwrap());
    let of_admins = [
        invite(&[stranger]),
        GroupAction::AnswerRequest { user: stranger, accept: true },
        GroupAction::Remove { user: other },
        GroupAction::Silence { user: other, until: Some(now().plus(HOUR)) },
        NO_EDIT,
        GroupAction::SetLink { link_hash: Some(link(secret())) },
    ];
    let of_owners = [GroupAction::SetRole { user: other, role: Role::Admin }, GroupAction::HandOver { user: other }, GroupAction::Dissolve];
    for action in of_admins.iter().chain(&of_owners) {
        assert_eq!(refusal(world.act(group, member, action.clone()).await), Code::Denied, "{action:?}");
        assert_eq!(refusal(world.act(group, stranger, action.clone()).await), Code::ConversationNotFound, "{action:?}");
    }
    for action in &of_owners {
        assert_eq!(refusal(world.act(group, admin, action.clone()).await), Code::Denied, "{action:?}");
    }
    assert_eq!(refusal(world.act(group, owner, GroupAction::AnswerRequest { user: stranger, accept: true }).await), Code::RequestNotFound);
    assert_eq!((world.row(group).await, world.members(group, None, 10).await.unwrap()), before);
}

/// What is done to groups is not done to a 1:1, and a stranger learns nothing of it.
pub async fn a_pair_is_no_group(store: Arc<dyn Store>) {
    let world = World(store);
    let [a, b, stranger] = world.users_of().await;
    let pair = world.single(a, b).await;
    let before = world.row(pair).await;
    for action in [
        invite(&[stranger]),
        GroupAction::Remove { user: b },
        GroupAction::SetRole { user: b, role: Role::Admin },
        GroupAction::HandOver { user: b },
        GroupAction::Silence { user: b, until: None },
        GroupAction::SetLink { link_hash: Some(link(secret())) },
        GroupAction::Dissolve,
        join_mode(JoinMode::Open),
    ] {
        assert_eq!(refusal(world.act(pair, a, action.clone()).await), Code::WrongKind, "{action:?}");
    }
    for action in [GroupAction::Join, GroupAction::AskToJoin, GroupAction::JoinByLink { link_hash: link(secret()) }, GroupAction::Leave] {
        assert_eq!(refusal(world.act(pair, stranger, action.clone()).await), Code::ConversationNotFound, "{action:?}");
    }
    assert_eq!(world.row(pair).await, before);
}

/// However many come at once, the limit holds, and everybody who is in has an entry that says so (I13).
pub async fn a_group_never_has_more_members_than_it_may(store: Arc<dyn Store>) {
    let world = World(store);
    let owner = world.user().await;
    let new = NewConversation { max_members: 6, join_mode: JoinMode::Open, ..new_group(owner, &[]) };
    let group = world.create_conversation(&new).await.unwrap().conversation.id;
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let (world, user) = (world.clone(), world.user().await);
        tasks.spawn(async move {
            let (actor, action) = if n % 2 == 0 { (user, GroupAction::Join) } else { (owner, invite(&[user])) };
            code(&world.act(group, actor, action).await)
        });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_none()).count(), 5);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Some(Code::GroupFull)).count(), 15);
    let row = world.row(group).await;
    assert_eq!((row.member_count, row.head_seq, row.members_seq, listed(&world, group).await.len()), (6, Seq(6), Seq(6), 6));
    let [x, y] = world.users_of().await;
    world.act(group, owner, max_members(7)).await.unwrap();
    assert_eq!(refusal(world.act(group, owner, invite(&[x, y])).await), Code::GroupFull, "all or nobody");
    world.act(group, owner, invite(&[x])).await.unwrap();
}

/// After any race of joining, leaving, removing and sending, the row counts its members, intervals do not overlap, and each
/// begins and ends with an entry that names its member.
pub async fn racing_removals_and_invitations_leave_a_consistent_group(store: Arc<dyn Store>) {
    let world = World(store);
    let owner = world.user().await;
    let guests = world.users_of::<4>().await;
    let group = world.create_conversation(&NewConversation { join_mode: JoinMode::Open, ..new_group(owner, &[]) }).await.unwrap().conversation.id;
    let mut tasks = JoinSet::new();
    for (n, guest) in guests.into_iter().enumerate() {
        for by_owner in [true, false] {
            let world = world.clone();
            tasks.spawn(async move {
                for _ in 0..10 {
                    let (comes, goes) = match by_owner {
                        true => (world.act(group, owner, invite(&[guest])).await, world.act(group, owner, GroupAction::Remove { user: guest }).await),
                        false => (world.act(group, guest, GroupAction::Join).await, world.act(group, guest, GroupAction::Leave).await),
                    };
                    for refused in [code(&comes), code(&goes)].into_iter().flatten() {
                        assert!(matches!(refused, Code::AlreadyMember | Code::NotAMember | Code::UserNotFound), "{refused:?} for guest {n}");
                    }
                    let _ = world.send_one(&draft(group, guest, "x")).await;
                }
            });
        }
    }
    tasks.join_all().await;
    let head = world.assert_dense(group).await;
    let row = world.row(group).await;
    assert_eq!(row.member_count as usize, listed(&world, group).await.len());
    let log = world.log(group, Seq::ZERO, head, 100_000).await.unwrap();
    let told = |seq: Seq| event(&log[seq.0 as usize - 1]);
    let mut changes = Vec::from([Seq(1)]);
    for guest in guests {
        let mut ended = Seq::ZERO;
        let intervals = world.memberships(group, &[guest]).await.unwrap().remove(0);
        assert!(intervals.iter().rev().skip(1).all(|member| member.leave_seq.is_some()), "only the last one goes on");
        for member in &intervals {
            assert!(member.join_seq > ended, "intervals overlap");
            assert_eq!(told(member.join_seq), Event::MembersJoined { users: vec![guest] });
            changes.push(member.join_seq);
            if let Some(leave) = member.leave_seq {
                let (left, entry) = (told(leave), &log[leave.0 as usize - 1]);
                assert!(left == Event::MemberRemoved { user: guest } || (left == Event::MemberLeft && entry.sender == guest));
                changes.push(leave);
                ended = leave;
            }
        }
        for message in log.iter().filter(|message| message.sender == guest) {
            assert!(intervals.iter().any(|member| member.sees(message.seq)), "{guest} is in the log where it was no member");
        }
    }
    assert_eq!(changes.into_iter().max(), Some(row.members_seq));
}

/// A call that is repeated because its answer was lost tells nothing twice, also where it could not be done a second time.
pub async fn a_repeated_action_answers_with_its_first_outcome(store: Arc<dyn Store>) {
    let world = World(store);
    let [owner, a, b] = world.users_of().await;
    let group = world.group(owner, &[a]).await;
    for (actor, action) in [(owner, invite(&[b])), (a, GroupAction::Leave), (owner, GroupAction::Remove { user: b }), (owner, GroupAction::Dissolve)]
    {
        let (event_id, at) = (MessageId::from(Uuid::now_v7()), now());
        let first = world.manage(group, actor, &action, event_id, at).await.unwrap();
        assert!(first.event.is_some());
        let repeated = world.manage(group, actor, &action, event_id, at).await.unwrap();
        assert_eq!((repeated.event, repeated.conversation), (first.event, first.conversation), "{action:?}");
    }
    assert_eq!(world.assert_dense(group).await, Seq(5));
}

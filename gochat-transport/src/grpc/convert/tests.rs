//! Every type, in every variant, through its bytes and back.

use std::{fmt::Debug, time::Duration};

use gochat_core::{
    error::Code,
    ids::{ClientMsgId, FamilyId, MessageId},
    model::{Body, MessageKind},
};
use prost::Message as _;

use super::*;

/// Through its bytes; compared by what `Debug` shows, for not every type can be compared.
fn same<T: Wire + Clone + Debug>(value: T) -> T
where
    T::Pb: prost::Message + Default,
{
    let bytes = value.clone().out().encode_to_vec();
    let back = T::back(T::Pb::decode(bytes.as_slice()).unwrap()).unwrap();
    assert_eq!(format!("{back:?}"), format!("{value:?}"));
    back
}

/// The same for what is only answered.
fn answered<T: Wire + Debug>(make: impl Fn() -> T)
where
    T::Pb: prost::Message + Default,
{
    let bytes = make().out().encode_to_vec();
    assert_eq!(format!("{:?}", T::back(T::Pb::decode(bytes.as_slice()).unwrap()).unwrap()), format!("{:?}", make()));
}

fn user_id() -> UserId {
    UserId::from_bytes(*b"user id 16 bytes")
}
fn device_id() -> DeviceId {
    DeviceId::from_bytes([0; 16])
}
fn conversation_id() -> ConversationId {
    ConversationId::from_bytes([255; 16])
}

fn user() -> User {
    User {
        id: user_id(),
        username: "ann".into(),
        display_name: "Ann Ä".into(),
        avatar_url: None,
        status: UserStatus::Disabled,
        external_id: Some(String::new()),
        version: i64::MAX,
        created_at: Timestamp(-1),
    }
}

fn caller() -> Caller {
    Caller { user: user_id(), device: device_id(), session_epoch: 0 }
}

fn device() -> Device {
    Device {
        user: user_id(),
        id: device_id(),
        name: "phone".into(),
        session_epoch: 1,
        connection_epoch: 2,
        signed_in: true,
        last_seen_at: Timestamp(3),
        created_at: Timestamp(4),
    }
}

fn message(kind: MessageKind) -> Message {
    Message {
        conversation: conversation_id(),
        seq: Seq(1),
        id: MessageId::from_bytes([2; 16]),
        sender: user_id(),
        client_msg_id: ClientMsgId::from_bytes([3; 16]),
        body: Body { kind, content: "ü\0".into() },
        reply_to: None,
        created_at: Timestamp(5),
    }
}

fn conversation() -> Conversation {
    Conversation {
        id: conversation_id(),
        kind: ConversationKind::Single,
        name: String::new(),
        description: "d".into(),
        avatar_url: Some("u".into()),
        owner: None,
        join_mode: JoinMode::Request,
        max_members: i32::MAX,
        member_count: 1,
        head_seq: Seq(2),
        dispatched_seq: Seq(3),
        members_seq: Seq(4),
        dissolved: true,
        version: 5,
        created_at: Timestamp(6),
        active_at: Timestamp(7),
    }
}

fn member() -> Member {
    Member {
        conversation: conversation_id(),
        user: user_id(),
        role: Role::Owner,
        join_seq: Seq(1),
        leave_seq: Some(Seq(0)),
        read_seq: Seq(2),
        delivered_seq: Seq(3),
        muted: false,
        silenced_until: None,
        hidden_seq: Seq(4),
    }
}

fn view(last_message: Option<Message>, peer: Option<UserId>) -> ConversationView {
    ConversationView {
        conversation: conversation(),
        member: member(),
        peer,
        last_message,
        unread: 1000,
        peer_delivered_seq: Seq(1),
        peer_read_seq: Seq(2),
    }
}

fn job() -> NewPushJob {
    NewPushJob {
        id: PushJobId::from_bytes([1; 16]),
        user: user_id(),
        device: device_id(),
        conversation: conversation_id(),
        seq: Seq(1),
        message: MessageId::from_bytes([2; 16]),
        sender: user_id(),
        at: Timestamp(3),
    }
}

fn refusal() -> Error {
    Error::new(Code::GroupFull, "full").retry_after(Duration::from_millis(1))
}

#[test]
fn accounts_and_sessions_come_back_as_they_were() {
    assert_eq!(same(user()), user());
    let new = |password_phc: Option<&str>| NewUser {
        id: user_id(),
        username: "ann".into(),
        display_name: String::new(),
        password_phc: password_phc.map(str::to_owned),
        external_id: None,
        created_at: Timestamp(1),
    };
    assert_eq!(same(new(Some("$phc"))).password_phc.as_deref(), Some("$phc"));
    assert_eq!(same(new(None)).password_phc, None);
    assert_eq!(same(Credential { user: user_id(), phc: "$phc".into() }).phc, "$phc");
    for avatar_url in [None, Some(None), Some(Some(String::new()))] {
        same(ProfileChange { display_name: avatar_url.clone().flatten(), avatar_url });
    }
    same(caller());
    same(device());
    same(Connected { connection_epoch: i64::MIN });
    let session = same(NewSession {
        user: user_id(),
        device: device_id(),
        device_name: "phone".into(),
        family: FamilyId::from_bytes([4; 16]),
        refresh_hash: [5; 32],
        refresh_expires_at: Timestamp(6),
        address: "::1".into(),
        at: Timestamp(7),
    });
    assert_eq!((session.family, session.refresh_hash), (FamilyId::from_bytes([4; 16]), [5; 32]));
    for outcome in [LoginOutcome::Success, LoginOutcome::UnknownUser, LoginOutcome::WrongPassword, LoginOutcome::Disabled] {
        let user = (outcome == LoginOutcome::Success).then(user_id);
        same(LoginAttempt { user, username: "ann".into(), device: None, outcome, address: String::new(), at: Timestamp(0) });
    }
    same(Rotation {
        presented_hash: [1; 32],
        successor_hash: [2; 32],
        successor_sealed: vec![3, 0, 4],
        expires_at: Timestamp(5),
        grace: Duration::from_millis(10_000),
        at: Timestamp(6),
    });
    same(Refreshed::Rotated { caller: caller(), user: user() });
    same(Refreshed::Repeated { caller: caller(), user: user(), successor_sealed: vec![0, 255] });
    same(Refreshed::Reused { caller: caller() });
    same(Refreshed::Refused);
    let registration = same(RegisterRequest { username: "ann".into(), password: "pä".into(), display_name: Some(String::new()) });
    assert_eq!((&*registration.password, registration.display_name.as_deref()), ("pä", Some("")));
    let login = LoginRequest {
        username: "ann".into(),
        password: "pä".into(),
        device_id: Some(device_id()),
        device_name: Some("phone".into()),
        address: "::1".into(),
    };
    let login = same(login);
    assert_eq!((&*login.password, &*login.address, login.device_id), ("pä", "::1", Some(device_id())));
    let session = same(Session { access_token: "a".into(), expires_in: u64::MAX, refresh_token: "r".into(), user: user(), device_id: device_id() });
    assert_eq!((&*session.access_token, &*session.refresh_token, session.expires_in), ("a", "r", u64::MAX));
}

#[test]
fn conversations_and_members_come_back_as_they_were() {
    for kind in [ConversationKind::Single, ConversationKind::Group] {
        for join_mode in [JoinMode::Invite, JoinMode::Request, JoinMode::Open] {
            let value = Conversation { kind, join_mode, owner: (kind == ConversationKind::Group).then(user_id), ..conversation() };
            assert_eq!(same(value.clone()), value);
            same(CreateConversation {
                kind,
                participants: vec![user_id(); 2],
                name: "n".into(),
                description: "d".into(),
                avatar_url: None,
                join_mode,
                max_members: Some(0),
                idempotency_key: Some("k".into()),
            });
        }
    }
    for idempotency in [None, Some(IdempotencyKey { key: "k".into(), request_hash: [9; 32] })] {
        same(NewConversation {
            id: conversation_id(),
            kind: ConversationKind::Group,
            creator: user_id(),
            members: Vec::new(),
            name: "n".into(),
            description: "d".into(),
            avatar_url: Some("u".into()),
            join_mode: JoinMode::Open,
            max_members: 3,
            event_id: MessageId::from_bytes([8; 16]),
            idempotency,
            at: Timestamp(1),
        });
    }
    for role in [Role::Member, Role::Admin, Role::Owner] {
        let silenced_until = (role == Role::Member).then_some(Timestamp(0));
        let value = Member { role, silenced_until, leave_seq: None, muted: true, ..member() };
        assert_eq!(same(value.clone()), value);
    }
    assert_eq!(same(member()), member());
    for (last_message, peer) in [(None, None), (Some(message(MessageKind::Event)), Some(user_id()))] {
        same(view(last_message.clone(), peer));
        answered(|| Created { conversation: conversation(), event: last_message.clone(), existed: true });
        answered(|| Changed { conversation: conversation(), event: last_message.clone() });
    }
    answered(|| (view(None, None), true));
    answered(|| Page { items: vec![view(None, None)], next_cursor: None });
    answered(|| Page { items: vec![member(), member()], next_cursor: Some(String::new()) });
    same(JoinRequest { conversation_id: conversation_id(), user_id: user_id(), created_at: Timestamp(1) });
    same((Timestamp(1), conversation_id()));
}

#[test]
fn every_action_comes_back_as_it_was() {
    let (user, users) = (user_id(), vec![user_id(), UserId::from_bytes([7; 16])]);
    let edit = |name: Option<&str>, avatar_url, join_mode: Option<JoinMode>| {
        let name = name.map(str::to_owned);
        GroupAction::Edit { description: name.clone(), name, avatar_url, max_members: join_mode.map(|_| 5), join_mode }
    };
    for action in [
        GroupAction::Invite { users },
        GroupAction::Join,
        GroupAction::JoinByLink { link_hash: vec![1; 32] },
        GroupAction::AskToJoin,
        GroupAction::AnswerRequest { user, accept: true },
        GroupAction::AnswerRequest { user, accept: false },
        GroupAction::Leave,
        GroupAction::Remove { user },
        GroupAction::SetRole { user, role: Role::Admin },
        GroupAction::HandOver { user },
        GroupAction::Silence { user, until: Some(Timestamp(0)) },
        GroupAction::Silence { user, until: None },
        edit(None, None, None),
        edit(Some(""), Some(None), Some(JoinMode::Invite)),
        edit(Some("n"), Some(Some("u".to_owned())), Some(JoinMode::Open)),
        GroupAction::SetLink { link_hash: None },
        GroupAction::SetLink { link_hash: Some(Vec::new()) },
        GroupAction::Dissolve,
    ] {
        assert_eq!(same(action.clone()), action);
    }
}

#[test]
fn messages_and_marks_come_back_as_they_were() {
    for kind in MessageKind::ALL {
        let reply_to = [None, Some(Seq(0)), Some(Seq(7))][kind as usize % 3];
        let value = Message { reply_to, ..message(kind) };
        assert_eq!(same(value.clone()), value);
        let Message { conversation, id, sender, client_msg_id, body, reply_to, created_at, .. } = value;
        let payload_hash = PayloadHash { key_id: -1, hash: [6; 32] };
        let draft = Draft { conversation, id, sender, client_msg_id, body, payload_hash, reply_to, created_at };
        assert_eq!(same(draft.clone()), draft);
        same(AppendBatch { drafts: vec![draft; 2], dispatched: vec![(conversation, Seq(3))] });
    }
    same(Appended { message: message(MessageKind::Text), repeated: true, member_count: 1, members_seq: Seq(2), dispatched_seq: Seq(3) });
    same(Mark { conversation: conversation_id(), user: user_id(), read_seq: Seq(0), delivered_seq: Seq(1) });
    for (after, before) in [(None, None), (Some(Seq(0)), Some(Seq(i64::MAX)))] {
        same(HistoryQuery { conversation: conversation_id(), after, before, limit: usize::MAX });
    }
    same(HistoryPage { messages: vec![message(MessageKind::Text)], more: true });
    same(SyncRequest { have: vec![(conversation_id(), Seq(0))], limit: 0 });
    let synced =
        SyncedConversation { id: conversation_id(), head_seq: Seq(1), read_seq: Seq(2), messages: vec![message(MessageKind::File)], more: false };
    same(SyncAnswer { conversations: vec![synced] });
}

#[test]
fn push_jobs_and_their_log_come_back_as_they_were() {
    assert_eq!(same(job()), job());
    same(PushJob { job: job(), attempts: 2 });
    use PushOutcome::{Failed, Online, Read, Refused, Sent, Unwanted};
    for outcome in [Sent, Read, Online, Unwanted, Refused, Failed] {
        same((job().id, outcome, (outcome == Failed).then_some(Timestamp(1))));
        for outcome in [None, Some(outcome)] {
            same(PushLogEntry {
                user_id: user_id(),
                device_id: device_id(),
                conversation_id: conversation_id(),
                seq: Seq(1),
                outcome,
                attempts: 3,
                created_at: Timestamp(4),
                finished_at: outcome.map(|_| Timestamp(5)),
            });
        }
    }
}

#[test]
fn lists_absence_and_outcomes_keep_their_places() {
    answered(|| ());
    answered(|| 7_usize);
    answered(|| "secret".to_owned());
    answered(|| vec![Some(user()), None]);
    answered(|| None::<User>);
    answered(|| vec![user_id()]);
    answered(|| vec![caller()]);
    answered(|| vec![None, Some(caller())]);
    answered(|| vec![vec![device()], vec![]]);
    answered(|| vec![Some(device()), None]);
    answered(|| vec![Some(0_i64), None]);
    answered(|| vec![None, Some(conversation())]);
    answered(|| vec![vec![member()], vec![], vec![member(), member()]]);
    answered(|| Some(view(None, None)));
    answered(|| Some(Credential { user: user_id(), phc: String::new() }));
    answered(|| (device(), vec![caller()]));
    answered(|| (vec![conversation()], Some(conversation_id())));
    answered(|| (Vec::<Conversation>::new(), None));
    answered(|| vec![Ok(Connected { connection_epoch: 1 }), Err(refusal())]);
    answered(|| vec![Err(refusal()), Ok(member())]);
    answered(|| vec![Ok((member(), true)), Err(refusal()), Ok((member(), false))]);
}

#[test]
fn what_is_malformed_is_refused_and_never_panics() {
    fn code<T: Wire + Debug>(pb: T::Pb) -> Code {
        T::back(pb).unwrap_err().code
    }
    assert_eq!(code::<User>(pb::User::default()), Code::InvalidField, "an id of no bytes");
    assert_eq!(code::<Member>(pb::Member { role: 99, ..member().out() }), Code::InvalidRequest);
    assert_eq!(code::<Conversation>(pb::Conversation { kind: 0, ..conversation().out() }), Code::InvalidRequest);
    assert_eq!(code::<GroupAction>(pb::GroupAction { action: None }), Code::InvalidRequest);
    assert_eq!(code::<Refreshed>(pb::Refreshed { outcome: None }), Code::InvalidRequest);
    assert_eq!(code::<Created>(pb::Created::default()), Code::InvalidRequest);
    assert_eq!(code::<Vec<Result<Appended>>>(pb::AppendedOutcomes { items: vec![pb::AppendedOutcome { outcome: None }] }), Code::InvalidRequest);
    assert_eq!(code::<Message>(bus::Message { content: vec![0xff].into(), ..message(MessageKind::Text).out() }), Code::InvalidRequest);
    let hash = pb::IdempotencyKey { key: String::new(), request_hash: vec![0; 31].into() };
    assert_eq!(code::<IdempotencyKey>(hash), Code::InvalidRequest);
}

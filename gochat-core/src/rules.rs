//! Who may do what: pure decisions, made by stores on rows locked in the transaction that acts on them.
//!
//! A store loads the rows, asks here, and writes what is answered. So the rules stand once for every store,
//! and no decision is made on a copy that could be old (decision 33).

use serde_json::Value;

use crate::{
    error::{Code, Error, Result},
    ids::{Seq, UserId},
    limits,
    model::{Body, Conversation, ConversationKind, Event, GroupAction, JoinMode, Member, MessageKind, Role},
    time::Timestamp,
};

/// May this member send to this conversation now? `member` is the sender's current interval, if there is one;
/// `was_member` tells whether there ever was one: strangers must not learn that the conversation exists.
pub fn may_send(conversation: &Conversation, member: Option<&Member>, was_member: bool, now: Timestamp) -> Result<()> {
    let member = match member {
        Some(member) => member,
        None if was_member => return Err(Code::NotAMember.into()),
        None => return Err(Code::ConversationNotFound.into()),
    };
    if conversation.dissolved {
        return Err(Code::Dissolved.into());
    }
    match member.silenced_until {
        Some(until) if until > now => Err(Error::new(Code::Silenced, format!("an admin has silenced the caller until {until}"))),
        _ => Ok(()),
    }
}

/// What a store has loaded and locked for a [`GroupAction`].
#[derive(Debug)]
pub struct GroupState<'a> {
    /// The conversation.
    pub conversation: &'a Conversation,
    /// The actor.
    pub actor: UserId,
    /// The actor's current interval.
    pub actor_member: Option<&'a Member>,
    /// Whether the actor ever was a member.
    pub actor_was_member: bool,
    /// For each of [`subjects`]: the current interval, and whether the account exists and is active.
    pub subjects: &'a [(UserId, Option<Member>, bool)],
    /// SHA-256 of the present link's secret.
    pub link_hash: Option<&'a [u8]>,
    /// Whether the user of `AnswerRequest`, or the actor of `AskToJoin`, has an open request.
    pub request_open: bool,
}

/// The users other than the actor whose rows an action needs.
pub fn subjects(action: &GroupAction) -> &[UserId] {
    match action {
        GroupAction::Invite { users } => users,
        GroupAction::Remove { user }
        | GroupAction::SetRole { user, .. }
        | GroupAction::HandOver { user }
        | GroupAction::Silence { user, .. }
        | GroupAction::AnswerRequest { user, .. } => std::slice::from_ref(user),
        _ => &[],
    }
}

/// What a store writes, in this order, in the same transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Changes of members.
    pub members: Vec<MemberChange>,
    /// Changes of the conversation's own row.
    pub conversation: Vec<ConversationChange>,
    /// A request to open or to close.
    pub request: Option<RequestChange>,
    /// The entry that tells of it. Without one nothing is told and no seq is taken.
    pub event: Option<Event>,
}

/// A change of one member's row. The seq of the entry that tells of it is `join_seq` or `leave_seq`.
#[derive(Clone, Debug, PartialEq)]
pub enum MemberChange {
    /// A new interval with role `Member`.
    Add(UserId),
    /// The current interval ends.
    End(UserId),
    /// Another role.
    Role(UserId, Role),
    /// May not send until then.
    Silence(UserId, Option<Timestamp>),
    /// Hidden up to this seq (leaving a 1:1).
    Hide(UserId, Seq),
}

/// A change of the conversation's row.
#[derive(Clone, Debug, PartialEq)]
pub enum ConversationChange {
    /// New name.
    Name(String),
    /// New description.
    Description(String),
    /// New picture or none.
    Avatar(Option<String>),
    /// New limit.
    MaxMembers(i32),
    /// New way to become a member.
    JoinMode(JoinMode),
    /// New owner.
    Owner(UserId),
    /// New link or none.
    Link(Option<Vec<u8>>),
    /// The group ends.
    Dissolve,
}

/// A change of the open requests.
#[derive(Clone, Debug, PartialEq)]
pub enum RequestChange {
    /// The user asks.
    Open(UserId),
    /// The request is answered (or made needless).
    Close(UserId),
}

/// Decides an action on locked rows. `Ok` with no effect at all: it is so already.
pub fn decide(state: &GroupState<'_>, action: &GroupAction) -> Result<Effects> {
    let conversation = state.conversation;
    let group = conversation.kind == ConversationKind::Group;
    let by_outsider = matches!(action, GroupAction::Join | GroupAction::JoinByLink { .. } | GroupAction::AskToJoin);
    if state.actor_member.is_none() && !by_outsider {
        let code = if state.actor_was_member { Code::NotAMember } else { Code::ConversationNotFound };
        return Err(code.into());
    }
    if !group {
        return match action {
            GroupAction::Leave => Ok(Effects { members: vec![MemberChange::Hide(state.actor, conversation.head_seq)], ..Effects::default() }),
            _ if by_outsider => Err(Code::ConversationNotFound.into()),
            _ => Err(Code::WrongKind.into()),
        };
    }
    if conversation.dissolved && !matches!(action, GroupAction::Leave) {
        return Err(if state.actor_member.is_none() && !state.actor_was_member { Code::ConversationNotFound } else { Code::Dissolved }.into());
    }
    match action {
        GroupAction::Invite { users } => {
            require(state, Role::Admin)?;
            invite(state, users)
        }
        GroupAction::Join => match conversation.join_mode {
            JoinMode::Open => join(state),
            _ if state.actor_member.is_some() => Err(Code::AlreadyMember.into()),
            JoinMode::Request => Err(Error::new(Code::Denied, "one has to ask to join this group")),
            JoinMode::Invite => Err(Code::ConversationNotFound.into()),
        },
        GroupAction::JoinByLink { link_hash } => match state.link_hash {
            Some(hash) if hash == link_hash.as_slice() => join(state),
            _ => Err(Code::LinkNotFound.into()),
        },
        GroupAction::AskToJoin => ask(state),
        GroupAction::AnswerRequest { user, accept } => {
            require(state, Role::Admin)?;
            if !state.request_open {
                return Err(Code::RequestNotFound.into());
            }
            let mut effects = if *accept { invite(state, &[*user])? } else { Effects::default() };
            effects.request = Some(RequestChange::Close(*user));
            Ok(effects)
        }
        GroupAction::Leave => {
            if conversation.owner == Some(state.actor) && conversation.member_count > 1 && !conversation.dissolved {
                return Err(Code::OwnerLeaves.into());
            }
            let mut effects = Effects { members: vec![MemberChange::End(state.actor)], event: Some(Event::MemberLeft), ..Effects::default() };
            if conversation.member_count == 1 && !conversation.dissolved {
                effects.conversation.push(ConversationChange::Dissolve);
            }
            Ok(effects)
        }
        GroupAction::Remove { user } => {
            outranks(state, *user)?;
            Ok(Effects { members: vec![MemberChange::End(*user)], event: Some(Event::MemberRemoved { user: *user }), ..Effects::default() })
        }
        GroupAction::SetRole { user, role } => {
            require(state, Role::Owner)?;
            let member = subject(state, *user)?;
            if *role == Role::Owner || *user == state.actor {
                return Err(Error::new(Code::InvalidField, "role is admin or member; hand the group over to make an owner"));
            }
            if member.role == *role {
                return Ok(Effects::default());
            }
            Ok(Effects {
                members: vec![MemberChange::Role(*user, *role)],
                event: Some(Event::RoleChanged { user: *user, role: *role }),
                ..Effects::default()
            })
        }
        GroupAction::HandOver { user } => {
            require(state, Role::Owner)?;
            subject(state, *user)?;
            if *user == state.actor {
                return Ok(Effects::default());
            }
            Ok(Effects {
                members: vec![MemberChange::Role(state.actor, Role::Admin), MemberChange::Role(*user, Role::Owner)],
                conversation: vec![ConversationChange::Owner(*user)],
                event: Some(Event::OwnerChanged { user: *user }),
                ..Effects::default()
            })
        }
        GroupAction::Silence { user, until } => {
            let member = outranks(state, *user)?;
            if member.silenced_until == *until {
                return Ok(Effects::default());
            }
            let event = Event::Silenced { user: *user, until: *until };
            Ok(Effects { members: vec![MemberChange::Silence(*user, *until)], event: Some(event), ..Effects::default() })
        }
        GroupAction::Edit { name, description, avatar_url, max_members, join_mode } => {
            require(state, Role::Admin)?;
            edit(conversation, name, description, avatar_url, *max_members, *join_mode)
        }
        GroupAction::SetLink { link_hash } => {
            require(state, Role::Admin)?;
            Ok(Effects { conversation: vec![ConversationChange::Link(link_hash.clone())], ..Effects::default() })
        }
        GroupAction::Dissolve => {
            require(state, Role::Owner)?;
            Ok(Effects {
                conversation: vec![ConversationChange::Dissolve, ConversationChange::Link(None)],
                event: Some(Event::Dissolved),
                ..Effects::default()
            })
        }
    }
}

fn require(state: &GroupState<'_>, role: Role) -> Result<()> {
    match state.actor_member {
        Some(member) if member.role >= role => Ok(()),
        _ => Err(Code::Denied.into()),
    }
}

fn subject<'a>(state: &'a GroupState<'_>, user: UserId) -> Result<&'a Member> {
    let member = state.subjects.iter().find(|(id, ..)| *id == user).and_then(|(_, member, _)| member.as_ref());
    member.ok_or_else(|| Error::new(Code::UserNotFound, "the user is not a member of the group"))
}

fn outranks<'a>(state: &'a GroupState<'_>, user: UserId) -> Result<&'a Member> {
    require(state, Role::Admin)?;
    let member = subject(state, user)?;
    match state.actor_member {
        Some(actor) if actor.role > member.role => Ok(member),
        _ => Err(Code::Denied.into()),
    }
}

fn invite(state: &GroupState<'_>, users: &[UserId]) -> Result<Effects> {
    let mut added = Vec::new();
    for user in users {
        let (_, member, active) = state.subjects.iter().find(|(id, ..)| id == user).ok_or_else(|| Error::from(Code::UserNotFound))?;
        if !active {
            return Err(Error::new(Code::UserNotFound, format!("there is no active user {user}")));
        }
        if member.is_none() && !added.contains(user) {
            added.push(*user);
        }
    }
    if added.is_empty() {
        return Ok(Effects::default());
    }
    capacity(state.conversation, added.len())?;
    Ok(Effects {
        members: added.iter().copied().map(MemberChange::Add).collect(),
        event: Some(Event::MembersJoined { users: added }),
        ..Effects::default()
    })
}

fn join(state: &GroupState<'_>) -> Result<Effects> {
    if state.actor_member.is_some() {
        return Err(Code::AlreadyMember.into());
    }
    capacity(state.conversation, 1)?;
    Ok(Effects {
        members: vec![MemberChange::Add(state.actor)],
        request: Some(RequestChange::Close(state.actor)),
        event: Some(Event::MembersJoined { users: vec![state.actor] }),
        ..Effects::default()
    })
}

fn ask(state: &GroupState<'_>) -> Result<Effects> {
    match (state.actor_member, state.conversation.join_mode) {
        (Some(_), _) => Err(Code::AlreadyMember.into()),
        (None, JoinMode::Open) => join(state),
        (None, JoinMode::Invite) => Err(Code::ConversationNotFound.into()),
        (None, JoinMode::Request) if state.request_open => Ok(Effects::default()),
        (None, JoinMode::Request) => Ok(Effects { request: Some(RequestChange::Open(state.actor)), ..Effects::default() }),
    }
}

fn capacity(conversation: &Conversation, more: usize) -> Result<()> {
    let free = usize::try_from(conversation.max_members - conversation.member_count).unwrap_or(0);
    if more > free {
        return Err(Error::new(Code::GroupFull, format!("the group has {} of {} members", conversation.member_count, conversation.max_members)));
    }
    Ok(())
}

fn edit(
    conversation: &Conversation,
    name: &Option<String>,
    description: &Option<String>,
    avatar_url: &Option<Option<String>>,
    max_members: Option<i32>,
    join_mode: Option<JoinMode>,
) -> Result<Effects> {
    let name = name.clone().filter(|name| *name != conversation.name);
    let description = description.clone().filter(|text| *text != conversation.description);
    let avatar_url = avatar_url.clone().filter(|url| *url != conversation.avatar_url);
    let max_members = max_members.filter(|max| *max != conversation.max_members);
    let join_mode = join_mode.filter(|mode| *mode != conversation.join_mode);
    if let Some(max) = max_members
        && max < conversation.member_count
    {
        return Err(Error::new(Code::InvalidField, format!("max_members is below the present {} members", conversation.member_count)));
    }
    let mut changes = Vec::new();
    changes.extend(name.clone().map(ConversationChange::Name));
    changes.extend(description.clone().map(ConversationChange::Description));
    changes.extend(avatar_url.clone().map(ConversationChange::Avatar));
    changes.extend(max_members.map(ConversationChange::MaxMembers));
    changes.extend(join_mode.map(ConversationChange::JoinMode));
    if changes.is_empty() {
        return Ok(Effects::default());
    }
    let event = Event::Edited { name, description, avatar_url: avatar_url.map(Option::unwrap_or_default), max_members, join_mode };
    Ok(Effects { conversation: changes, event: Some(event), ..Effects::default() })
}

/// Checks what a client (or a hook) wants to send: kind, size, and for all but text the shape of the JSON.
pub fn check_body(body: &Body) -> Result<()> {
    let content = &body.content;
    if content.len() > limits::BODY_BYTES_MAX {
        return Err(Error::new(Code::TooLarge, format!("a message body has at most {} bytes", limits::BODY_BYTES_MAX)));
    }
    match body.kind {
        MessageKind::Event => Err(Error::new(Code::InvalidField, "kind event is written by the server only")),
        MessageKind::Text if content.trim().is_empty() => Err(Error::new(Code::InvalidField, "text is empty")),
        MessageKind::Text if content.contains('\0') => Err(Error::new(Code::InvalidField, "text contains a NUL character")),
        MessageKind::Text => Ok(()),
        kind => check_data(kind, content),
    }
}

fn check_data(kind: MessageKind, content: &str) -> Result<()> {
    let invalid = |what: &str| Error::new(Code::InvalidField, format!("data of a {} message: {what}", kind.as_str()));
    if depth(content.as_bytes()) > limits::BODY_DEPTH_MAX {
        return Err(invalid(&format!("nested deeper than {}", limits::BODY_DEPTH_MAX)));
    }
    let Ok(Value::Object(data)) = serde_json::from_str::<Value>(content) else {
        return Err(invalid("not a JSON object"));
    };
    let text = |field: &str| data.get(field).and_then(Value::as_str);
    let count = |field: &str| data.get(field).is_none_or(|value| value.as_u64().is_some_and(|n| n <= i64::MAX as u64));
    match kind {
        MessageKind::Location => {
            let within = |field: &str, bound: f64| data.get(field).and_then(Value::as_f64).is_some_and(|degrees| degrees.abs() <= bound);
            if !within("latitude", 90.0) || !within("longitude", 180.0) {
                return Err(invalid("latitude (-90 to 90) and longitude (-180 to 180) are numbers"));
            }
        }
        // Its fields mean what the application says.
        MessageKind::Custom => return Ok(()),
        _ => {
            check_url(text("url").ok_or_else(|| invalid("url is missing"))?)?;
            if kind == MessageKind::File && text("name").is_none_or(str::is_empty) {
                return Err(invalid("name is missing"));
            }
        }
    }
    for field in ["name", "address", "media_type"] {
        if !data.get(field).is_none_or(Value::is_string) {
            return Err(invalid(&format!("{field} is not a text")));
        }
    }
    for field in ["bytes", "width", "height", "duration_ms"] {
        if !count(field) {
            return Err(invalid(&format!("{field} is not a whole number of 0 or more")));
        }
    }
    Ok(())
}

/// Nesting of a JSON text, without building it.
pub fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Canonical form of a user name, or why it is none: lower case, `[a-z0-9._-]`, starting with a letter or digit.
pub fn username(text: &str) -> Result<String> {
    let name = text.trim().to_ascii_lowercase();
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if name.len() > limits::USERNAME_BYTES_MAX || !name.bytes().all(allowed) || !name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) {
        return Err(Error::new(
            Code::InvalidField,
            format!("username has 1 to {} of a-z, 0-9, '.', '_', '-' and starts with a letter or digit", limits::USERNAME_BYTES_MAX),
        ));
    }
    Ok(name)
}

/// A name that people see: trimmed, 1 to [`NAME_CHARS_MAX`](limits::NAME_CHARS_MAX) characters, no control characters.
pub fn display_name(text: &str) -> Result<String> {
    let name = text.trim();
    if name.is_empty() || name.chars().count() > limits::NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(Error::new(Code::InvalidField, format!("a name has 1 to {} characters and no control characters", limits::NAME_CHARS_MAX)));
    }
    Ok(name.to_owned())
}

/// A longer text: up to [`DESCRIPTION_CHARS_MAX`](limits::DESCRIPTION_CHARS_MAX) characters.
pub fn description(text: &str) -> Result<String> {
    let text = text.trim();
    if text.chars().count() > limits::DESCRIPTION_CHARS_MAX || text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(Error::new(Code::InvalidField, format!("a description has at most {} characters", limits::DESCRIPTION_CHARS_MAX)));
    }
    Ok(text.to_owned())
}

/// An address that a client may fetch: https, http, or a path of this server. Never a script or data URL.
pub fn check_url(url: &str) -> Result<()> {
    let scheme = url.starts_with("https://") || url.starts_with("http://") || (url.starts_with('/') && !url.starts_with("//"));
    if !scheme || url.len() > limits::URL_BYTES_MAX || url.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return Err(Error::new(
            Code::InvalidField,
            format!("a url is https, http or a path of this server, with at most {} bytes", limits::URL_BYTES_MAX),
        ));
    }
    Ok(())
}

/// A password that is long enough, not too long and not among the commonest.
pub fn check_password(password: &str) -> Result<()> {
    const COMMON: &[&str] = &[
        "password",
        "password1",
        "password123",
        "passw0rd",
        "12345678",
        "123456789",
        "1234567890",
        "qwertyui",
        "qwertyuiop",
        "qwerty123",
        "11111111",
        "00000000",
        "iloveyou",
        "sunshine",
        "princess",
        "football",
        "baseball",
        "superman",
        "trustno1",
        "letmein1",
        "abcd1234",
        "1q2w3e4r",
        "1qaz2wsx",
        "zaq12wsx",
        "asdfghjk",
        "asdfghjkl",
        "welcome1",
        "admin123",
        "starwars",
        "computer",
        "whatever",
        "changeme",
    ];
    if password.len() > limits::PASSWORD_BYTES_MAX {
        return Err(Error::new(Code::TooLarge, format!("a password has at most {} bytes", limits::PASSWORD_BYTES_MAX)));
    }
    if password.chars().count() < limits::PASSWORD_CHARS_MIN {
        return Err(Error::new(Code::InvalidField, format!("a password has at least {} characters", limits::PASSWORD_CHARS_MIN)));
    }
    if COMMON.contains(&password.to_lowercase().as_str()) {
        return Err(Error::new(Code::InvalidField, "this password is among the commonest; choose another one"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: MessageKind, content: &str) -> Option<Code> {
        check_body(&Body { kind, content: content.into() }).err().map(|error| error.code)
    }

    #[test]
    fn a_text_is_not_empty_not_too_long_and_has_no_nul() {
        assert_eq!(refusal(MessageKind::Text, "hello \u{1f600}"), None);
        assert_eq!(refusal(MessageKind::Text, " \n"), Some(Code::InvalidField));
        assert_eq!(refusal(MessageKind::Text, "a\0b"), Some(Code::InvalidField));
        assert_eq!(refusal(MessageKind::Text, &"x".repeat(limits::BODY_BYTES_MAX)), None);
        assert_eq!(refusal(MessageKind::Text, &"x".repeat(limits::BODY_BYTES_MAX + 1)), Some(Code::TooLarge));
        assert_eq!(refusal(MessageKind::Event, "{}"), Some(Code::InvalidField), "events are the server's");
    }

    #[test]
    fn data_has_the_fields_of_its_kind_with_their_types() {
        let invalid = Some(Code::InvalidField);
        for kind in [MessageKind::Image, MessageKind::Audio, MessageKind::Video] {
            assert_eq!(refusal(kind, r#"{"url":"https://example.org/a","width":640,"media_type":"x/y","more":[1]}"#), None);
            assert_eq!(refusal(kind, r#"{"url":"/files/a"}"#), None);
            for wrong in
                ["{}", "[]", "5", "{", r#"{"url":5}"#, r#"{"url":"javascript:x"}"#, r#"{"url":"/a","width":-1}"#, r#"{"url":"/a","bytes":1.5}"#]
            {
                assert_eq!(refusal(kind, wrong), invalid, "{wrong}");
            }
            assert_eq!(refusal(kind, r#"{"url":"/a","media_type":{}}"#), invalid);
        }
        assert_eq!(refusal(MessageKind::File, r#"{"url":"/a","name":"a.txt"}"#), None);
        assert_eq!(refusal(MessageKind::File, r#"{"url":"/a"}"#), invalid);
        assert_eq!(refusal(MessageKind::Location, r#"{"latitude":90,"longitude":-180,"name":"the end"}"#), None);
        assert_eq!(refusal(MessageKind::Location, r#"{"latitude":90.1,"longitude":0}"#), invalid);
        assert_eq!(refusal(MessageKind::Location, r#"{"latitude":0,"longitude":0,"name":{}}"#), invalid);
        assert_eq!(refusal(MessageKind::Location, r#"{"latitude":0}"#), invalid);
        assert_eq!(refusal(MessageKind::Custom, r#"{"bytes":"many","name":{}}"#), None, "any object");
        assert_eq!(refusal(MessageKind::Custom, "[]"), invalid);
    }

    #[test]
    fn data_is_nested_so_deep_and_no_deeper() {
        let nested = |depth: usize| format!("{}{}", r#"{"a":"#.repeat(depth - 1) + "{}", "}".repeat(depth - 1));
        assert_eq!(depth(nested(limits::BODY_DEPTH_MAX).as_bytes()), limits::BODY_DEPTH_MAX);
        assert_eq!(refusal(MessageKind::Custom, &nested(limits::BODY_DEPTH_MAX)), None);
        assert_eq!(refusal(MessageKind::Custom, &nested(limits::BODY_DEPTH_MAX + 1)), Some(Code::InvalidField));
        assert_eq!(depth(br#"{"a":"[[[[\"[["}"#), 1, "what stands in a text does not count");
    }

    #[test]
    fn names_and_passwords_are_as_the_limits_say() {
        assert_eq!(username("Ana.B-2").unwrap(), "ana.b-2");
        for wrong in ["", "-ana", "a b", "ana/..", "änn", &"a".repeat(limits::USERNAME_BYTES_MAX + 1)] {
            assert_eq!(username(wrong).err().map(|error| error.code), Some(Code::InvalidField), "{wrong:?}");
        }
        assert!(check_password("correct horse").is_ok());
        assert!(check_password(&"ä".repeat(limits::PASSWORD_CHARS_MIN - 1)).is_err());
        assert_eq!(check_password(&"x".repeat(limits::PASSWORD_BYTES_MAX + 1)).unwrap_err().code, Code::TooLarge);
        assert!(display_name("\u{7}").is_err() && display_name(&"x".repeat(limits::NAME_CHARS_MAX + 1)).is_err());
    }
}

//! One error for every port and every use case.
//!
//! Callers match on [`Code`] or its [`ErrorKind`]; people read `message` (the cause) and [`Code::hint`]
//! (what to do about it); `source` keeps the technical cause and is logged once, where it is handled.

use std::{borrow::Cow, fmt, time::Duration};

/// Shorthand for results of GoChat.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong: a stable code, the cause in words and, where there is one, the technical source.
pub struct Error {
    /// Stable code: part of the public contract.
    pub code: Code,
    /// The cause, lower case, without secrets or message bodies.
    pub message: Cow<'static, str>,
    /// How long to wait before trying again, where waiting helps.
    pub retry_after: Option<Duration>,
    source: Option<Source>,
}

impl Error {
    /// An error with a cause in words.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Error { code, message: message.into(), retry_after: None, source: None }
    }

    /// Keeps the technical cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Tells the caller how long to wait.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The class that the code belongs to.
    pub fn kind(&self) -> ErrorKind {
        self.code.kind()
    }

    /// A fault of ours: the caller did nothing wrong.
    pub fn internal(source: impl Into<Source>) -> Self {
        Error::new(Code::Internal, "internal error").with_source(source)
    }

    /// The same refusal for another item of a batch. The technical source stays with the first.
    #[must_use]
    pub fn same(&self) -> Self {
        Error {
            code: self.code,
            message: self.message.clone(),
            retry_after: self.retry_after,
            source: self.source.as_ref().map(|source| source.to_string().into()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.as_str())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<Code> for Error {
    fn from(code: Code) -> Self {
        Error::new(code, code.cause())
    }
}

/// Classes of errors; each has one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is not well-formed (400).
    Invalid,
    /// Who is asking is not proved (401).
    Unauthenticated,
    /// Who is asking may not do this (403).
    Denied,
    /// There is no such thing, or the caller may not know of it (404).
    NotFound,
    /// The method does not exist on this resource (405).
    NotAllowed,
    /// It contradicts what is stored (409).
    Conflict,
    /// Larger than a named limit (413).
    TooLarge,
    /// The media type is not understood (415).
    Unsupported,
    /// Too often (429).
    RateLimited,
    /// Refused before acceptance because the system is full, or a part of it is away (503).
    Unavailable,
    /// The outcome is unknown; the same request may be repeated (504).
    Unknown,
    /// A fault of the server (500).
    Internal,
}

impl ErrorKind {
    /// The HTTP status of this class.
    pub const fn status(self) -> u16 {
        match self {
            ErrorKind::Invalid => 400,
            ErrorKind::Unauthenticated => 401,
            ErrorKind::Denied => 403,
            ErrorKind::NotFound => 404,
            ErrorKind::NotAllowed => 405,
            ErrorKind::Conflict => 409,
            ErrorKind::TooLarge => 413,
            ErrorKind::Unsupported => 415,
            ErrorKind::RateLimited => 429,
            ErrorKind::Internal => 500,
            ErrorKind::Unavailable => 503,
            ErrorKind::Unknown => 504,
        }
    }
}

macro_rules! codes {
    ($($name:ident $text:literal $kind:ident $cause:literal $hint:literal;)*) => {
        /// Stable codes of refusals and faults. Clients may match on them; they are never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = concat!("`", $text, "`: ", $cause, ".")] $name,)* }

        impl Code {
            /// Every code, for documentation and tests.
            pub const ALL: &[Code] = &[$(Code::$name,)*];
            /// The code as it stands on the wire.
            pub const fn as_str(self) -> &'static str { match self { $(Code::$name => $text,)* } }
            /// The code with this text, if there is one.
            pub fn parse(text: &str) -> Option<Code> { match text { $($text => Some(Code::$name),)* _ => None } }
            /// The class of the code.
            pub const fn kind(self) -> ErrorKind { match self { $(Code::$name => ErrorKind::$kind,)* } }
            /// The usual cause in words.
            pub const fn cause(self) -> &'static str { match self { $(Code::$name => $cause,)* } }
            /// What the caller can do.
            pub const fn hint(self) -> &'static str { match self { $(Code::$name => $hint,)* } }
        }
    };
}

codes! {
    InvalidRequest "INVALID_REQUEST" Invalid "the request is not well-formed" "compare the request with docs/protocol.md";
    InvalidJson "INVALID_JSON" Invalid "the body is not the JSON that is expected here" "send one JSON object with the documented fields";
    InvalidField "INVALID_FIELD" Invalid "a field has a value that is not allowed" "correct the named field";
    UnknownFrame "UNKNOWN_FRAME" Invalid "a frame of this type is not known" "use one of the documented frame types";
    InvalidCursor "INVALID_CURSOR" Invalid "the cursor is not one that this server gave" "start again without a cursor";
    Unauthenticated "UNAUTHENTICATED" Unauthenticated "no valid credentials" "log in and send the access token in the Authorization header or the auth frame";
    TokenExpired "TOKEN_EXPIRED" Unauthenticated "the access token has expired" "use the refresh token to get a new one";
    SessionRevoked "SESSION_REVOKED" Unauthenticated "the session was revoked" "log in again";
    LoginFailed "LOGIN_FAILED" Unauthenticated "user name and password do not match an active account" "check both; after several failures wait as told";
    RefreshRefused "REFRESH_REFUSED" Unauthenticated "the refresh token is not valid" "log in again";
    Denied "DENIED" Denied "the caller's role does not allow this" "ask an admin or the owner of the group";
    NotAMember "NOT_A_MEMBER" Denied "the caller is not a member of the conversation" "join it, or ask to be invited";
    Silenced "SILENCED" Denied "an admin has silenced the caller in this conversation" "wait until the silence ends";
    RefusedByHook "REFUSED_BY_HOOK" Denied "a rule of this installation refuses the message" "change the message";
    OriginRefused "ORIGIN_REFUSED" Denied "the page's origin is not allowed" "add the origin to the server's allow list";
    NotFound "NOT_FOUND" NotFound "there is no such resource" "check the path";
    UserNotFound "USER_NOT_FOUND" NotFound "there is no such user" "check the id or the exact user name";
    DeviceNotFound "DEVICE_NOT_FOUND" NotFound "there is no such device" "list your devices first";
    ConversationNotFound "CONVERSATION_NOT_FOUND" NotFound "there is no such conversation for the caller" "check the id; you see only your own conversations";
    MessageNotFound "MESSAGE_NOT_FOUND" NotFound "there is no such message for the caller" "check the seq";
    LinkNotFound "LINK_NOT_FOUND" NotFound "the invitation link is not valid" "ask for a new link";
    RequestNotFound "REQUEST_NOT_FOUND" NotFound "there is no open request of this user" "list the open requests first";
    MethodNotAllowed "METHOD_NOT_ALLOWED" NotAllowed "the method is not allowed on this resource" "see the Allow header";
    UsernameTaken "USERNAME_TAKEN" Conflict "the user name is taken" "choose another one";
    AlreadyMember "ALREADY_MEMBER" Conflict "the user is a member already" "nothing to do";
    GroupFull "GROUP_FULL" Conflict "the group has reached its maximum number of members" "raise max_members or remove somebody";
    WrongKind "WRONG_KIND" Conflict "this is not possible in a conversation of this kind" "only groups have roles, invitations and settings";
    Dissolved "DISSOLVED" Conflict "the group was dissolved" "its history stays readable; nothing can be added";
    OwnerLeaves "OWNER_LEAVES" Conflict "the owner cannot leave a group that has other members" "hand the group over or dissolve it first";
    IdempotencyConflict "IDEMPOTENCY_CONFLICT" Conflict "the same id was used for something else" "use a new id for a new request";
    TooLarge "TOO_LARGE" TooLarge "larger than the limit allows" "send less; the limit is named in the message";
    UnsupportedMediaType "UNSUPPORTED_MEDIA_TYPE" Unsupported "the content type is not understood" "send application/json";
    RateLimited "RATE_LIMITED" RateLimited "too many requests" "wait as long as retry_after_ms says";
    TooManyConnections "TOO_MANY_CONNECTIONS" RateLimited "too many connections" "close some first";
    Overloaded "OVERLOADED" Unavailable "the system is at its limit and accepted nothing" "repeat after retry_after_ms with the same id";
    Unavailable "UNAVAILABLE" Unavailable "a part of the system is away" "repeat later";
    Draining "DRAINING" Unavailable "this server is shutting down" "reconnect; another server or a new start will answer";
    StorageFull "STORAGE_FULL" Unavailable "the store has no space left and stored nothing" "free space; nothing acknowledged is affected";
    TimeoutUnknown "TIMEOUT_UNKNOWN" Unknown "no answer in time; it may or may not have happened" "repeat with the same id";
    Internal "INTERNAL" Internal "internal error" "tell the operator the request id";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_parses_back_and_has_a_cause_and_a_hint() {
        for &code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(code));
            assert!(!code.cause().is_empty() && !code.hint().is_empty());
        }
    }
}

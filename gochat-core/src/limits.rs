//! Named limits of the domain. Sizes end in `_BYTES_MAX`, counts in `_MAX`; what is larger is refused
//! with `TOO_LARGE` or `INVALID_FIELD` and the limit's value. Limits of the wire stand in the gateway.

/// Bytes of a text message (UTF-8) or of the JSON of another kind.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Nesting of the JSON of a message that is not text.
pub const BODY_DEPTH_MAX: usize = 16;
/// Bytes of a user name: `[a-z0-9._-]`, lower case, starting with a letter or digit.
pub const USERNAME_BYTES_MAX: usize = 32;
/// Characters of a display name or the name of a group.
pub const NAME_CHARS_MAX: usize = 100;
/// Characters of a group's description.
pub const DESCRIPTION_CHARS_MAX: usize = 1000;
/// Bytes of an avatar URL (https, http or a path of this server).
pub const URL_BYTES_MAX: usize = 1024;
/// Characters of a device's name.
pub const DEVICE_NAME_CHARS_MAX: usize = 64;
/// Bytes of a password; longer ones are refused, never cut.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Characters of a password at least.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Bytes of a host's own user id (decision 26).
pub const EXTERNAL_ID_BYTES_MAX: usize = 128;
/// Bytes of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// Devices of one user that may be logged in at once; a further login signs the oldest one out.
pub const DEVICES_MAX: usize = 10;
/// Members of a group when its creator names no number.
pub const MEMBERS_DEFAULT: i32 = 500;
/// Members that any group may have.
pub const MEMBERS_MAX: i32 = 100_000;
/// Users named in one create or invite.
pub const INVITE_MAX: usize = 1000;
/// Entries in one page of history or sync.
pub const PAGE_MAX: usize = 200;
/// Entries in a page when the caller names no number.
pub const PAGE_DEFAULT: usize = 50;
/// Conversations in one sync request.
pub const SYNC_CONVERSATIONS_MAX: usize = 200;
/// Unread is counted exactly up to this number; the number itself means "this many or more".
pub const UNREAD_MAX: i64 = 1000;
/// Drafts in one append.
pub const APPEND_DRAFTS_MAX: usize = 4096;
/// Groups below this number of members are served directly, the others by the task role.
pub const DIRECT_MEMBERS_BELOW: u32 = 100;
/// Recipients in one downstream record.
pub const FANOUT_PAGE: usize = 1000;

//! Schemas of the OpenAPI document: the shapes of `wire` and of the requests, with the limits that handlers and logic enforce.

use gochat_core::{
    error::Code,
    limits::{
        BODY_BYTES_MAX, DESCRIPTION_CHARS_MAX, DEVICE_NAME_CHARS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, INVITE_MAX, MEMBERS_MAX, NAME_CHARS_MAX,
        PAGE_DEFAULT, PAGE_MAX, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, SYNC_CONVERSATIONS_MAX, UNREAD_MAX, URL_BYTES_MAX, USERNAME_BYTES_MAX,
    },
};
use serde_json::{Map, Value, json};

/// A name that people see: something beside spaces, no control characters.
const NAME: &str = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
/// The same, or nothing.
const NAME_OR_EMPTY: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// A longer text: line feeds are allowed.
const TEXT: &str = r"^[^\u0000-\u0009\u000b-\u001f\u007f-\u009f]*$";
/// Something beside spaces, no NUL.
const MESSAGE: &str = r"^[^\u0000]*[^\s\u0000][^\u0000]*$";
/// https, http, or a path of the server.
const URL: &str = r"^(https?://[^\u0000-\u0020\u007f]*|/([^/\u0000-\u0020\u007f][^\u0000-\u0020\u007f]*)?)$";

/// Every named schema.
pub fn schemas() -> Map<String, Value> {
    [values(), answers(), requests(), contents()].into_iter().flatten().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Or `null`.
fn nullable(schema: Value) -> Value {
    json!({"oneOf": [schema, {"type": "null"}]})
}

fn list(item: &str) -> Value {
    json!({"type": "array", "items": reference(item)})
}

/// An object with these fields, all of them there.
fn object(properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().map(|properties| properties.keys().collect()).unwrap_or_default();
    json!({"type": "object", "required": required, "properties": properties})
}

/// An object with these fields, of which only some have to be there.
fn partial(required: &[&str], properties: Value) -> Value {
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn values() -> Vec<(&'static str, Value)> {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    vec![
        ("Id", json!({"type": "string", "format": "uuid"})),
        (
            "Seq",
            json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": i64::MAX, "description": "A place in a log: 1, 2, 3 … without gaps; 0 stands before the first."}),
        ),
        (
            "Time",
            json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": i64::MAX, "description": "Milliseconds since 1970-01-01 UTC."}),
        ),
        ("SeqParameter", json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": i64::MAX})),
        ("Limit", json!({"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT})),
        ("Cursor", json!({"type": "string", "maxLength": 256})),
        ("UserQuery", json!({"type": "string", "minLength": 1, "maxLength": 128})),
        ("IdempotencyKey", json!({"type": "string", "pattern": format!("^[!-~]{{1,{IDEMPOTENCY_KEY_BYTES_MAX}}}$")})),
        (
            "Username",
            json!({
                "type": "string",
                "pattern": format!("^[A-Za-z0-9][A-Za-z0-9._-]{{0,{}}}$", USERNAME_BYTES_MAX - 1),
                "description": "Kept in lower case.",
            }),
        ),
        (
            "Password",
            json!({"type": "string", "minLength": PASSWORD_CHARS_MIN, "maxLength": PASSWORD_BYTES_MAX, "format": "password",
            "description": "The commonest ones are refused."}),
        ),
        ("GivenPassword", json!({"type": "string", "maxLength": PASSWORD_BYTES_MAX, "format": "password"})),
        ("Name", json!({"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX, "pattern": NAME})),
        ("Description", json!({"type": "string", "maxLength": DESCRIPTION_CHARS_MAX, "pattern": TEXT})),
        ("Url", json!({"type": "string", "maxLength": URL_BYTES_MAX, "pattern": URL, "description": "https, http, or a path of this server."})),
        ("Kind", json!({"type": "string", "enum": ["single", "group"]})),
        ("JoinMode", json!({"type": "string", "enum": ["invite", "request", "open"]})),
        ("Role", json!({"type": "string", "enum": ["member", "admin", "owner"]})),
        ("MaxMembers", json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": MEMBERS_MAX})),
        ("Code", json!({"type": "string", "enum": codes})),
        ("Document", json!({"type": "object", "required": ["openapi", "info", "paths"]})),
    ]
}

fn answers() -> Vec<(&'static str, Value)> {
    let text = json!({"type": "string"});
    let flag = json!({"type": "boolean"});
    let count = json!({"type": "integer", "minimum": 0});
    let items = |item: &str| object(json!({"items": list(item)}));
    let page = |item: &str| object(json!({"items": list(item), "next_cursor": {"type": ["string", "null"]}}));
    vec![
        (
            "Problem",
            json!({
                "type": "object",
                "description": "RFC 9457.",
                "required": ["type", "title", "status", "detail", "code", "hint", "request_id"],
                "properties": {
                    "type": {"type": "string", "pattern": "^urn:gochat:error:[A-Z_]+$"},
                    "title": text,
                    "status": {"type": "integer", "minimum": 400, "maximum": 599},
                    "detail": {"type": "string", "description": "The cause in words."},
                    "code": reference("Code"),
                    "hint": {"type": "string", "description": "What to do about it."},
                    "retry_after_ms": {"type": "integer", "minimum": 0},
                    "request_id": text,
                },
            }),
        ),
        (
            "User",
            object(json!({
                "id": reference("Id"), "username": text, "display_name": text, "avatar_url": {"type": ["string", "null"]}, "created_at": reference("Time"),
            })),
        ),
        ("UserItems", items("User")),
        (
            "Session",
            object(json!({
                "access_token": text, "expires_in": {"type": "integer", "minimum": 1, "description": "Seconds."}, "refresh_token": text,
                "user": reference("User"), "device_id": reference("Id"),
            })),
        ),
        (
            "LoginEntry",
            object(json!({
                "outcome": {"type": "string", "enum": ["success", "unknown_user", "wrong_password", "disabled"]},
                "username": text, "device": nullable(reference("Id")), "address": text, "at": reference("Time"),
            })),
        ),
        ("LoginItems", items("LoginEntry")),
        (
            "Device",
            object(json!({
                "id": reference("Id"), "name": text, "signed_in": flag, "current": flag, "last_seen_at": reference("Time"), "created_at": reference("Time"),
            })),
        ),
        ("DeviceItems", items("Device")),
        (
            "Message",
            json!({
                "type": "object",
                "required": ["conversation_id", "seq", "message_id", "sender_id", "client_msg_id", "kind", "created_at"],
                "properties": {
                    "conversation_id": reference("Id"), "seq": reference("Seq"), "message_id": reference("Id"), "sender_id": reference("Id"),
                    "client_msg_id": reference("Id"), "reply_to": reference("Seq"), "created_at": reference("Time"),
                },
                "oneOf": [
                    {"required": ["text"], "properties": {"kind": {"const": "text"}, "text": text}},
                    {"required": ["data"], "properties": {
                        "kind": {"enum": ["image", "file", "audio", "video", "location", "custom", "event"]},
                        "data": {"type": "object"},
                    }},
                ],
            }),
        ),
        (
            "Ack",
            object(json!({
                "conversation_id": reference("Id"), "seq": reference("Seq"), "message_id": reference("Id"), "created_at": reference("Time"),
            })),
        ),
        ("History", object(json!({"messages": list("Message"), "more": flag}))),
        ("Synced", object(json!({"conversations": list("SyncedConversation")}))),
        (
            "SyncedConversation",
            object(json!({
                "id": reference("Id"), "head_seq": reference("Seq"), "read_seq": reference("Seq"), "messages": list("Message"), "more": flag,
            })),
        ),
        ("Conversation", conversation()),
        ("ConversationPage", page("Conversation")),
        (
            "Member",
            object(json!({
                "user_id": reference("Id"), "role": reference("Role"), "join_seq": reference("Seq"), "silenced_until": nullable(reference("Time")),
                "read_seq": reference("Seq"), "delivered_seq": reference("Seq"),
            })),
        ),
        ("MemberPage", page("Member")),
        ("JoinRequest", object(json!({"conversation_id": reference("Id"), "user_id": reference("Id"), "created_at": reference("Time")}))),
        ("JoinRequestItems", items("JoinRequest")),
        (
            "PushEntry",
            object(json!({
                "device_id": reference("Id"), "conversation_id": reference("Id"), "seq": reference("Seq"),
                "outcome": {"enum": ["sent", "read", "online", "unwanted", "refused", "failed", null]},
                "attempts": count, "created_at": reference("Time"), "finished_at": nullable(reference("Time")),
            })),
        ),
        ("PushItems", items("PushEntry")),
    ]
}

/// The conversation and what the caller has to do with it: one shape for everybody who gets a conversation.
fn conversation() -> Value {
    let text = json!({"type": "string"});
    let flag = json!({"type": "boolean"});
    let count = json!({"type": "integer", "minimum": 0});
    let itself = json!({
        "id": reference("Id"), "kind": reference("Kind"), "name": text, "description": text, "avatar_url": {"type": ["string", "null"]},
        "owner_id": nullable(reference("Id")), "join_mode": reference("JoinMode"), "max_members": count, "member_count": count,
        "head_seq": reference("Seq"), "dissolved": flag, "version": count, "created_at": reference("Time"), "active_at": reference("Time"),
    });
    let seen = json!({
        "role": reference("Role"), "join_seq": reference("Seq"), "left": flag, "muted": flag, "silenced_until": nullable(reference("Time")),
        "read_seq": reference("Seq"), "delivered_seq": reference("Seq"), "peer_id": nullable(reference("Id")),
        "peer_read_seq": reference("Seq"), "peer_delivered_seq": reference("Seq"),
        "unread": {"type": "integer", "minimum": 0, "maximum": UNREAD_MAX, "description": "The maximum means that many or more."},
        "last_message": nullable(reference("Message")),
    });
    let fields = [itself, seen].into_iter().filter_map(|part| match part {
        Value::Object(part) => Some(part),
        _ => None,
    });
    object(fields.flatten().collect::<Map<_, _>>().into())
}

fn requests() -> Vec<(&'static str, Value)> {
    let device_name = json!({"type": ["string", "null"], "maxLength": DEVICE_NAME_CHARS_MAX, "pattern": NAME_OR_EMPTY});
    let group = |required: &[&str], kind: Value| {
        partial(
            required,
            json!({
                "kind": kind,
                "participants": {"type": "array", "items": reference("Id"), "maxItems": INVITE_MAX},
                "name": reference("Name"),
                "description": nullable(reference("Description")),
                "avatar_url": nullable(reference("Url")),
                "join_mode": nullable(reference("JoinMode")),
                "max_members": nullable(reference("MaxMembers")),
            }),
        )
    };
    vec![
        (
            "Register",
            partial(
                &["username", "password"],
                json!({
                    "username": reference("Username"), "password": reference("Password"), "display_name": nullable(reference("Name")),
                }),
            ),
        ),
        (
            "Login",
            partial(
                &["username", "password"],
                json!({
                    "username": reference("Username"), "password": reference("GivenPassword"), "device_id": nullable(reference("Id")), "device_name": device_name,
                }),
            ),
        ),
        ("Refresh", object(json!({"refresh_token": {"type": "string"}}))),
        ("ProfileChange", partial(&[], json!({"display_name": nullable(reference("Name")), "avatar_url": nullable(reference("Url"))}))),
        ("PasswordChange", object(json!({"current": reference("GivenPassword"), "new": reference("Password")}))),
        ("UserLookup", object(json!({"ids": {"type": "array", "items": reference("Id"), "maxItems": PAGE_MAX}}))),
        ("CreateConversation", json!({"oneOf": [reference("CreateSingle"), group(&["kind", "participants", "name"], json!({"const": "group"}))]})),
        (
            "CreateSingle",
            partial(
                &["kind", "participants"],
                json!({
                    "kind": {"const": "single"},
                    "participants": {"type": "array", "items": reference("Id"), "minItems": 1, "maxItems": 1},
                    "name": {"enum": ["", null]},
                    "description": {"enum": ["", null]},
                    "avatar_url": {"type": "null"},
                    "join_mode": nullable(reference("JoinMode")),
                    "max_members": {"type": "null"},
                }),
            ),
        ),
        ("CreateGroup", group(&["participants", "name"], json!({"enum": ["group", null]}))),
        (
            "GroupEdit",
            partial(
                &[],
                json!({
                    "name": nullable(reference("Name")),
                    "description": nullable(reference("Description")),
                    "avatar_url": nullable(reference("Url")),
                    "max_members": nullable(reference("MaxMembers")),
                    "join_mode": nullable(reference("JoinMode")),
                }),
            ),
        ),
        ("Mute", object(json!({"muted": {"type": "boolean"}}))),
        ("Invite", object(json!({"user_ids": {"type": "array", "items": reference("Id"), "minItems": 1, "maxItems": INVITE_MAX}}))),
        (
            "MemberEdit",
            json!({"oneOf": [
                partial(&["role"], json!({"role": {"enum": ["member", "admin"]}, "silenced_until": false})),
                partial(&["silenced_until"], json!({"silenced_until": nullable(reference("Time")), "role": {"type": "null"}})),
            ]}),
        ),
        ("HandOver", object(json!({"user_id": reference("Id")}))),
        ("Link", object(json!({"secret": {"type": "string"}}))),
        ("RequestAnswer", object(json!({"accept": {"type": "boolean"}}))),
        ("MarkInput", partial(&[], json!({"read_seq": nullable(reference("Seq")), "delivered_seq": nullable(reference("Seq"))}))),
        (
            "SyncInput",
            partial(
                &["have"],
                json!({
                    "have": {
                        "type": "object",
                        "propertyNames": {"format": "uuid"},
                        "additionalProperties": reference("Seq"),
                        "maxProperties": SYNC_CONVERSATIONS_MAX,
                        "description": "For each conversation the highest seq that the device has without a gap.",
                    },
                    "limit": nullable(reference("Limit")),
                }),
            ),
        ),
    ]
}

/// What clients send as messages: one shape for each kind.
fn contents() -> Vec<(&'static str, Value)> {
    let count = json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": i64::MAX});
    let text = json!({"type": "string"});
    let media = |required: &[&str], name: Value| {
        partial(
            required,
            json!({
                "url": reference("Url"), "name": name, "media_type": text,
                "bytes": count, "width": count, "height": count, "duration_ms": count,
            }),
        )
    };
    let message = |kind: Value, content: &str, other: &str, schema: Value| {
        let mut required = vec!["client_msg_id", content];
        if content == "data" {
            required.push("kind");
        }
        let mut properties = json!({
            "client_msg_id": {"type": "string", "format": "uuid", "description": "Made by the client; UUIDv7 is fastest."},
            "kind": kind,
            "reply_to": {"oneOf": [{"type": "integer", "format": "int64", "minimum": 1, "maximum": i64::MAX}, {"type": "null"}]},
        });
        properties[content] = schema;
        properties[other] = json!({"type": "null"});
        partial(&required, properties)
    };
    let of = |kind: &str, data: Value| message(json!({"const": kind}), "data", "text", data);
    let words = json!({"type": "string", "minLength": 1, "maxLength": BODY_BYTES_MAX, "pattern": MESSAGE});
    vec![(
        "MessageInput",
        json!({"oneOf": [
            message(json!({"enum": ["text", null]}), "text", "data", words),
            of("image", media(&["url"], text.clone())),
            of("file", media(&["url", "name"], json!({"type": "string", "minLength": 1}))),
            of("audio", media(&["url"], text.clone())),
            of("video", media(&["url"], text.clone())),
            of("location", partial(&["latitude", "longitude"], json!({
                "latitude": {"type": "number", "minimum": -90, "maximum": 90},
                "longitude": {"type": "number", "minimum": -180, "maximum": 180},
                "name": text,
                "address": text,
            }))),
            of("custom", json!({"type": "object"})),
        ]}),
    )]
}

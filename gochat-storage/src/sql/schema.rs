//! The tables, once for every SQL database: only Binary, BigInt, Integer, Text and Bool.

diesel::table! { users (id) { id -> Binary, username -> Text, display_name -> Text, avatar_url -> Nullable<Text>, status -> Integer,
external_id -> Nullable<Text>, version -> BigInt, created_at -> BigInt, } }

diesel::table! { credentials (user_id) { user_id -> Binary, phc -> Text, } }

diesel::table! { devices (user_id, device_id) { user_id -> Binary, device_id -> Binary, name -> Text, session_epoch -> BigInt,
connection_epoch -> BigInt, signed_in -> Bool, last_seen_at -> BigInt, created_at -> BigInt, } }

diesel::table! { refresh_tokens (token_hash) { token_hash -> Binary, family_id -> Binary, user_id -> Binary, device_id -> Binary,
state -> Integer, expires_at -> BigInt, used_at -> Nullable<BigInt>, successor_sealed -> Nullable<Binary>, } }

diesel::table! { login_log (id) { id -> BigInt, user_id -> Nullable<Binary>, username -> Text, device_id -> Nullable<Binary>,
outcome -> Integer, address -> Text, at -> BigInt, } }

diesel::table! { conversations (id) { id -> Binary, kind -> Integer, pair_key -> Nullable<Binary>, name -> Text, description -> Text,
avatar_url -> Nullable<Text>, owner_id -> Nullable<Binary>, join_mode -> Integer, link_hash -> Nullable<Binary>, max_members -> Integer,
member_count -> Integer, head_seq -> BigInt, dispatched_seq -> BigInt, members_seq -> BigInt, dissolved -> Bool, version -> BigInt,
created_at -> BigInt, active_at -> BigInt, } }

diesel::table! { members (conversation_id, user_id, join_seq) { conversation_id -> Binary, user_id -> Binary, join_seq -> BigInt,
leave_seq -> Nullable<BigInt>, role -> Integer, read_seq -> BigInt, delivered_seq -> BigInt, muted -> Bool,
silenced_until -> Nullable<BigInt>, hidden_seq -> BigInt, } }

diesel::table! { messages (conversation_id, seq) { conversation_id -> Binary, seq -> BigInt, message_id -> Binary, sender_id -> Binary,
client_msg_id -> Binary, payload_key_id -> Integer, payload_hash -> Binary, kind -> Integer, envelope -> Integer, body -> Binary,
reply_to -> Nullable<BigInt>, created_at -> BigInt, } }

diesel::table! { create_keys (creator_id, create_key) { creator_id -> Binary, create_key -> Text, request_hash -> Binary, conversation_id -> Binary, } }

diesel::table! { join_requests (conversation_id, user_id) { conversation_id -> Binary, user_id -> Binary, created_at -> BigInt, } }

diesel::table! { push_jobs (id) { id -> Binary, user_id -> Binary, device_id -> Binary, conversation_id -> Binary, seq -> BigInt,
message_id -> Binary, sender_id -> Binary, created_at -> BigInt, attempts -> Integer, due_at -> Nullable<BigInt>,
outcome -> Nullable<Integer>, finished_at -> Nullable<BigInt>, } }

diesel::allow_tables_to_appear_in_same_query!(conversations, members, messages, users);

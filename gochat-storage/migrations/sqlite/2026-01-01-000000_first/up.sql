-- Ids are the 16 bytes of a UUID, times milliseconds since 1970. Column order and names are those of the MySQL schema.
CREATE TABLE users (
  id BLOB NOT NULL PRIMARY KEY,
  username TEXT NOT NULL UNIQUE,
  display_name TEXT NOT NULL,
  avatar_url TEXT,
  status INTEGER NOT NULL,
  external_id TEXT UNIQUE,
  version BIGINT NOT NULL,
  created_at BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE credentials (
  user_id BLOB NOT NULL PRIMARY KEY,
  phc TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE devices (
  user_id BLOB NOT NULL,
  device_id BLOB NOT NULL,
  name TEXT NOT NULL,
  session_epoch BIGINT NOT NULL,
  connection_epoch BIGINT NOT NULL,
  signed_in BOOLEAN NOT NULL,
  last_seen_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;

CREATE TABLE refresh_tokens (
  token_hash BLOB NOT NULL PRIMARY KEY,
  family_id BLOB NOT NULL,
  user_id BLOB NOT NULL,
  device_id BLOB NOT NULL,
  state INTEGER NOT NULL,
  expires_at BIGINT NOT NULL,
  used_at BIGINT,
  successor_sealed BLOB
) WITHOUT ROWID;
CREATE INDEX refresh_tokens_by_device ON refresh_tokens (user_id, device_id);

CREATE TABLE login_log (
  id INTEGER NOT NULL PRIMARY KEY,
  user_id BLOB,
  username TEXT NOT NULL,
  device_id BLOB,
  outcome INTEGER NOT NULL,
  address TEXT NOT NULL,
  at BIGINT NOT NULL
);
CREATE INDEX login_log_by_user ON login_log (user_id, id);

CREATE TABLE conversations (
  id BLOB NOT NULL PRIMARY KEY,
  kind INTEGER NOT NULL,
  pair_key BLOB UNIQUE,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  avatar_url TEXT,
  owner_id BLOB,
  join_mode INTEGER NOT NULL,
  link_hash BLOB UNIQUE,
  max_members INTEGER NOT NULL,
  member_count INTEGER NOT NULL,
  head_seq BIGINT NOT NULL,
  dispatched_seq BIGINT NOT NULL,
  members_seq BIGINT NOT NULL,
  dissolved BOOLEAN NOT NULL,
  version BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  active_at BIGINT NOT NULL
) WITHOUT ROWID;

-- One row per interval of membership (decision 6).
CREATE TABLE members (
  conversation_id BLOB NOT NULL,
  user_id BLOB NOT NULL,
  join_seq BIGINT NOT NULL,
  leave_seq BIGINT,
  role INTEGER NOT NULL,
  read_seq BIGINT NOT NULL,
  delivered_seq BIGINT NOT NULL,
  muted BOOLEAN NOT NULL,
  silenced_until BIGINT,
  hidden_seq BIGINT NOT NULL,
  PRIMARY KEY (conversation_id, user_id, join_seq)
) WITHOUT ROWID;
CREATE INDEX members_by_user ON members (user_id, conversation_id);

-- A plain rowid table: bodies append, only the small indexes are touched at random. The idempotency key begins with
-- the client's UUIDv7, so that it grows at its right edge (decision 3).
CREATE TABLE messages (
  conversation_id BLOB NOT NULL,
  seq BIGINT NOT NULL,
  message_id BLOB NOT NULL,
  sender_id BLOB NOT NULL,
  client_msg_id BLOB NOT NULL,
  payload_key_id INTEGER NOT NULL,
  payload_hash BLOB NOT NULL,
  kind INTEGER NOT NULL,
  envelope INTEGER NOT NULL,
  body BLOB NOT NULL,
  reply_to BIGINT,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (conversation_id, seq),
  UNIQUE (client_msg_id, conversation_id, sender_id)
);

CREATE TABLE create_keys (
  creator_id BLOB NOT NULL,
  create_key TEXT NOT NULL,
  request_hash BLOB NOT NULL,
  conversation_id BLOB NOT NULL,
  PRIMARY KEY (creator_id, create_key)
) WITHOUT ROWID;

CREATE TABLE join_requests (
  conversation_id BLOB NOT NULL,
  user_id BLOB NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (conversation_id, user_id)
) WITHOUT ROWID;

CREATE TABLE push_jobs (
  id BLOB NOT NULL PRIMARY KEY,
  user_id BLOB NOT NULL,
  device_id BLOB NOT NULL,
  conversation_id BLOB NOT NULL,
  seq BIGINT NOT NULL,
  message_id BLOB NOT NULL,
  sender_id BLOB NOT NULL,
  created_at BIGINT NOT NULL,
  attempts INTEGER NOT NULL,
  due_at BIGINT,
  outcome INTEGER,
  finished_at BIGINT,
  UNIQUE (user_id, device_id, message_id)
) WITHOUT ROWID;
CREATE INDEX push_jobs_due ON push_jobs (due_at);

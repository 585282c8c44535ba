-- Ids are the 16 bytes of a UUID, times milliseconds since 1970. Column order and names are those of the SQLite schema.
-- Each statement commits by itself here, so each can be run again: an interrupted migration is simply repeated. Indexes stand
-- in their table for the same reason. Texts compare by their bytes; where a trailing space makes a difference they are
-- VARBINARY, because the collations that MySQL and MariaDB have in common ignore it.
CREATE TABLE IF NOT EXISTS users (
  id BINARY(16) NOT NULL PRIMARY KEY,
  username VARCHAR(64) NOT NULL,
  display_name VARCHAR(255) NOT NULL,
  avatar_url VARCHAR(1024),
  status INT NOT NULL,
  external_id VARBINARY(255),
  version BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  UNIQUE KEY users_by_username (username),
  UNIQUE KEY users_by_external_id (external_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS credentials (
  user_id BINARY(16) NOT NULL PRIMARY KEY,
  phc VARCHAR(512) NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS devices (
  user_id BINARY(16) NOT NULL,
  device_id BINARY(16) NOT NULL,
  name VARCHAR(255) NOT NULL,
  session_epoch BIGINT NOT NULL,
  connection_epoch BIGINT NOT NULL,
  signed_in BOOLEAN NOT NULL,
  last_seen_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (user_id, device_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS refresh_tokens (
  token_hash BINARY(32) NOT NULL PRIMARY KEY,
  family_id BINARY(16) NOT NULL,
  user_id BINARY(16) NOT NULL,
  device_id BINARY(16) NOT NULL,
  state INT NOT NULL,
  expires_at BIGINT NOT NULL,
  used_at BIGINT,
  successor_sealed VARBINARY(1024),
  KEY refresh_tokens_by_device (user_id, device_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS login_log (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  user_id BINARY(16),
  username VARCHAR(255) NOT NULL,
  device_id BINARY(16),
  outcome INT NOT NULL,
  address VARCHAR(255) NOT NULL,
  at BIGINT NOT NULL,
  KEY login_log_by_user (user_id, id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS conversations (
  id BINARY(16) NOT NULL PRIMARY KEY,
  kind INT NOT NULL,
  pair_key BINARY(32),
  name VARCHAR(255) NOT NULL,
  description VARCHAR(4000) NOT NULL,
  avatar_url VARCHAR(1024),
  owner_id BINARY(16),
  join_mode INT NOT NULL,
  link_hash BINARY(32),
  max_members INT NOT NULL,
  member_count INT NOT NULL,
  head_seq BIGINT NOT NULL,
  dispatched_seq BIGINT NOT NULL,
  members_seq BIGINT NOT NULL,
  dissolved BOOLEAN NOT NULL,
  version BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  active_at BIGINT NOT NULL,
  UNIQUE KEY conversations_by_pair (pair_key),
  UNIQUE KEY conversations_by_link (link_hash)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- One row per interval of membership (decision 6).
CREATE TABLE IF NOT EXISTS members (
  conversation_id BINARY(16) NOT NULL,
  user_id BINARY(16) NOT NULL,
  join_seq BIGINT NOT NULL,
  leave_seq BIGINT,
  role INT NOT NULL,
  read_seq BIGINT NOT NULL,
  delivered_seq BIGINT NOT NULL,
  muted BOOLEAN NOT NULL,
  silenced_until BIGINT,
  hidden_seq BIGINT NOT NULL,
  PRIMARY KEY (conversation_id, user_id, join_seq),
  KEY members_by_user (user_id, conversation_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The idempotency key begins with the client's UUIDv7, so that it grows at its right edge (decision 3).
CREATE TABLE IF NOT EXISTS messages (
  conversation_id BINARY(16) NOT NULL,
  seq BIGINT NOT NULL,
  message_id BINARY(16) NOT NULL,
  sender_id BINARY(16) NOT NULL,
  client_msg_id BINARY(16) NOT NULL,
  payload_key_id INT NOT NULL,
  payload_hash BINARY(32) NOT NULL,
  kind INT NOT NULL,
  envelope INT NOT NULL,
  body MEDIUMBLOB NOT NULL,
  reply_to BIGINT,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (conversation_id, seq),
  UNIQUE KEY messages_once (client_msg_id, conversation_id, sender_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS create_keys (
  creator_id BINARY(16) NOT NULL,
  create_key VARBINARY(255) NOT NULL,
  request_hash VARBINARY(64) NOT NULL,
  conversation_id BINARY(16) NOT NULL,
  PRIMARY KEY (creator_id, create_key)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS join_requests (
  conversation_id BINARY(16) NOT NULL,
  user_id BINARY(16) NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (conversation_id, user_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS push_jobs (
  id BINARY(16) NOT NULL PRIMARY KEY,
  user_id BINARY(16) NOT NULL,
  device_id BINARY(16) NOT NULL,
  conversation_id BINARY(16) NOT NULL,
  seq BIGINT NOT NULL,
  message_id BINARY(16) NOT NULL,
  sender_id BINARY(16) NOT NULL,
  created_at BIGINT NOT NULL,
  attempts INT NOT NULL,
  due_at BIGINT,
  outcome INT,
  finished_at BIGINT,
  UNIQUE KEY push_jobs_once (user_id, device_id, message_id),
  KEY push_jobs_due (due_at)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

// @ts-check
/**
 * The values of docs/protocol.md §2, and what the client adds to them.
 *
 * @typedef {{id: string, username: string, display_name: string, avatar_url: string | null, created_at?: number}} User
 *
 * An entry of a conversation's log.
 * @typedef {object} Message
 * @property {string} conversation_id
 * @property {number} seq
 * @property {string} message_id
 * @property {string} sender_id
 * @property {string} client_msg_id
 * @property {string} kind
 * @property {string} [text]
 * @property {Record<string, any>} [data]
 * @property {number | null} [reply_to]
 * @property {number} created_at
 *
 * @typedef {"member" | "admin" | "owner"} Role
 *
 * @typedef {object} Conversation
 * @property {string} id
 * @property {"single" | "group"} kind
 * @property {string} name
 * @property {string} description
 * @property {string | null} avatar_url
 * @property {string | null} owner_id
 * @property {"invite" | "request" | "open"} join_mode
 * @property {number} max_members
 * @property {number} member_count
 * @property {number} head_seq
 * @property {boolean} dissolved
 * @property {number} version
 * @property {number} created_at
 * @property {number} active_at
 * @property {Role} role
 * @property {number} join_seq
 * @property {boolean} left
 * @property {boolean} muted
 * @property {number | null} silenced_until
 * @property {number} read_seq
 * @property {number} delivered_seq
 * @property {string | null} peer_id
 * @property {number} peer_read_seq
 * @property {number} peer_delivered_seq
 * @property {number} unread
 * @property {Message | null} last_message
 * @property {number} [counted_seq] entries up to here are in `unread`
 *
 * @typedef {{user_id: string, role: Role, join_seq: number, silenced_until: number | null, read_seq: number, delivered_seq: number}} Member
 *
 * @typedef {{id: string, name: string, signed_in: boolean, current: boolean, last_seen_at: number, created_at: number}} Device
 *
 * A message that has no ack yet.
 * @typedef {object} Pending
 * @property {string} conversation_id
 * @property {string} client_msg_id
 * @property {string} kind
 * @property {string} [text]
 * @property {Record<string, any>} [data]
 * @property {number | null} reply_to
 * @property {number} created_at
 * @property {{code: string, message: string} | null} failed why it will not be sent again by itself
 *
 * `elsewhere`: another connection of the same device took over.
 * @typedef {"offline" | "connecting" | "online" | "signed_out" | "elsewhere"} Status
 *
 * A sign-in as it is kept between visits.
 * @typedef {{user: User, device_id: string, refresh_token: string}} Saved
 */
export {};

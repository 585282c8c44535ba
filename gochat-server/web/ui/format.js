// @ts-check
/** Words for times, names, events and refusals. */
import { h } from "./dom.js";

/**
 * @typedef {import("../client/types.js").Message} Message
 * @typedef {import("../client/types.js").Conversation} Conversation
 * @typedef {import("../client/index.js").GoChat} GoChat
 */

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const date = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const dateWithYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** @param {number} at */
export const time = (at) => clock.format(at);

/** @param {number} at */
export const dateTime = (at) => moment.format(at);

/** When something ends. @param {number} at */
export const until = (at) => (day(at) === day(Date.now()) ? time(at) : dateTime(at));

/** Days since 1970 where the reader is. @param {number} at */
export function day(at) {
  const local = new Date(at);
  return Math.round(Date.UTC(local.getFullYear(), local.getMonth(), local.getDate()) / 86_400_000);
}

/** @param {number} at @param {number} [now] */
export function dayLabel(at, now = Date.now()) {
  const ago = day(now) - day(at);
  if (ago === 0) return "Today";
  if (ago === 1) return "Yesterday";
  return ago > 1 && ago < 7 ? weekday.format(at) : dateWithYear.format(at);
}

/** A time as a list shows it. @param {number} at @param {number} [now] */
export function shortTime(at, now = Date.now()) {
  const ago = day(now) - day(at);
  if (ago <= 0) return time(at);
  if (ago === 1) return "Yesterday";
  return ago < 7 ? weekday.format(at) : date.format(at);
}

/** @param {GoChat} chat @param {string} id */
export function nameOf(chat, id) {
  return chat.user(id)?.display_name ?? "…";
}

/** The name that a conversation goes by. @param {GoChat} chat @param {Conversation} conversation */
export function titleOf(chat, conversation) {
  if (conversation.kind === "group") return conversation.name || "Group";
  return conversation.peer_id ? nameOf(chat, conversation.peer_id) : conversation.name || "Chat";
}

/** What an avatar needs. @param {GoChat} chat @param {Conversation} conversation */
export function avatarOf(chat, conversation) {
  const peer = conversation.peer_id ? chat.user(conversation.peer_id) : undefined;
  const url = conversation.kind === "group" ? conversation.avatar_url : peer?.avatar_url;
  return { id: conversation.peer_id ?? conversation.id, label: titleOf(chat, conversation), url, kind: conversation.kind };
}

/** @param {GoChat} chat @param {string[]} ids */
function names(chat, ids) {
  const me = chat.me?.id;
  const sorted = [...ids].sort((a, b) => Number(b === me) - Number(a === me));
  const shown = sorted.slice(0, sorted.length > 4 ? 3 : 4).map((id) => (id === me ? "you" : nameOf(chat, id)));
  if (sorted.length > shown.length) shown.push(`${sorted.length - shown.length} others`);
  return shown.length > 1 ? `${shown.slice(0, -1).join(", ")} and ${shown[shown.length - 1]}` : (shown[0] ?? "nobody");
}

/** An event as a sentence. @param {GoChat} chat @param {Message} message @param {Conversation | undefined} conversation */
export function eventText(chat, message, conversation) {
  const me = chat.me?.id;
  const data = message.data ?? {};
  const who = message.sender_id === me ? "You" : nameOf(chat, message.sender_id);
  const whom = data.user ? names(chat, [data.user]) : "";
  /** @type {string[]} */
  const users = data.users ?? [];
  const others = users.filter((id) => id !== message.sender_id);
  switch (data.type) {
    case "created":
      if (conversation?.kind === "single") return `${who} started this conversation`;
      return others.length ? `${who} created the group with ${names(chat, others)}` : `${who} created the group`;
    case "members_joined":
      return others.length ? `${who} added ${names(chat, others)}` : `${who} joined`;
    case "member_left":
      return `${who} left`;
    case "member_removed":
      return `${who} removed ${whom}`;
    case "role_changed":
      return data.role === "admin" ? `${who} made ${whom} an admin` : `${who} made ${whom} a member again`;
    case "owner_changed":
      return `${who} made ${whom} the owner`;
    case "silenced":
      return data.until && data.until > message.created_at ? `${who} silenced ${whom} until ${until(data.until)}` : `${who} let ${whom} write again`;
    case "edited": {
      if (data.name) return `${who} renamed the group to “${data.name}”`;
      if (data.description !== undefined && data.description !== null) return `${who} changed the description`;
      if (data.avatar_url !== undefined && data.avatar_url !== null) return `${who} changed the picture`;
      return `${who} changed the group’s settings`;
    }
    case "dissolved":
      return `${who} dissolved the group`;
    default:
      return "Something changed";
  }
}

/** What a message says in one line. @param {GoChat} chat @param {{kind: string, text?: string, data?: any}} message */
export function summary(chat, message) {
  switch (message.kind) {
    case "text":
      return message.text ?? "";
    case "image":
      return "Picture";
    case "file":
      return `File: ${message.data?.name ?? ""}`;
    case "audio":
      return "Audio";
    case "video":
      return "Video";
    case "location":
      return `Place: ${message.data?.name ?? "on the map"}`;
    default:
      return "A message of another kind";
  }
}

/** The line below a conversation's name. @param {GoChat} chat @param {Conversation} conversation */
export function preview(chat, conversation) {
  const last = conversation.last_message;
  if (!last) return "No messages yet";
  if (last.kind === "event") return eventText(chat, last, conversation);
  const text = summary(chat, last);
  if (last.sender_id === chat.me?.id) return `You: ${text}`;
  return conversation.kind === "group" ? `${nameOf(chat, last.sender_id)}: ${text}` : text;
}

const LINK = /\bhttps?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]}]/g;

/** Text with its addresses as links: text nodes and `a` elements only. @param {string} text @returns {(Node | string)[]} */
export function linked(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(LINK)) {
    parts.push(text.slice(from, match.index));
    parts.push(h("a", { href: match[0], target: "_blank", rel: "noopener noreferrer" }, match[0]));
    from = match.index + match[0].length;
  }
  parts.push(text.slice(from));
  return parts;
}

/** Up to three emoji and nothing else are shown large. @param {string} text */
export function isEmoji(text) {
  return text.length <= 24 && /^(?:\p{Extended_Pictographic}(?:\p{Emoji_Modifier}|\u{FE0F}|\u{200D}\p{Extended_Pictographic})*\s*){1,3}$/u.test(text);
}

/** Why something did not work, for people. @param {any} error */
export function explain(error) {
  if (error instanceof TypeError || error?.code === "NO_ANSWER") return "The server cannot be reached. Check your connection and try again.";
  switch (error?.code) {
    case "LOGIN_FAILED":
      return "User name and password do not match.";
    case "USERNAME_TAKEN":
      return "This user name is taken. Choose another one.";
    case "RATE_LIMITED": {
      const seconds = Math.ceil((error.retryAfterMs || 1000) / 1000);
      return `Too many attempts. Try again in ${seconds} second${seconds === 1 ? "" : "s"}.`;
    }
    case "DENIED":
      return "You are not allowed to do this.";
    case "NOT_A_MEMBER":
      return "You are not a member of this group any more.";
    case "SILENCED":
      return "An admin does not let you write here at the moment.";
    case "DISSOLVED":
      return "This group was dissolved.";
    case "LINK_NOT_FOUND":
      return "This invitation link is not valid any more.";
    case "OVERLOADED":
    case "UNAVAILABLE":
    case "DRAINING":
      return "The server is busy. Try again in a moment.";
    case "INTERNAL":
      return "Something went wrong on the server.";
  }
  const message = String(error?.message ?? error);
  return message ? message[0].toUpperCase() + message.slice(1) + (/[.!?]$/.test(message) ? "" : ".") : "Something went wrong.";
}

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

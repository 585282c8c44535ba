// @ts-check
/** One conversation: its log, and where in it the reader is. */
import { Composer } from "./composer.js";
import { avatar, beforePaint, fill, h, icon } from "./dom.js";
import { avatarOf, day, dayLabel, eventText, explain, nameOf, summary, titleOf, until } from "./format.js";
import { divider, ghosts, messageRow } from "./message.js";
import { toast } from "./overlay.js";

/**
 * @typedef {import("../client/index.js").GoChat} GoChat
 * @typedef {import("../client/types.js").Message} Message
 * @typedef {import("../client/types.js").Conversation} Conversation
 * @typedef {import("./message.js").Row} Row
 */

/** Rows in the page at most, and how many come at once: long histories stay as fast as short ones. */
const ROWS_MAX = 240;
const ROWS_STEP = 60;
/** So near an end, more rows are brought. */
const NEAR_PX = 700;
/** So near the end, new messages keep it in view. */
const END_PX = 90;
/** Messages of one sender within this time stand together. */
const TOGETHER_MS = 5 * 60_000;
/** Pages of history that are read in search of a message that was answered. */
const SEARCH_PAGES = 20;
/** Pages of history that are read to begin at the first unread message; with more unread ones, reading begins at the end. */
const UNREAD_PAGES = 4;

export class Thread {
  /** @param {GoChat} chat */
  constructor(chat) {
    this.chat = chat;
    /** @type {string | null} */
    this.id = null;
    /** @type {"nothing" | "unknown" | "thread" | null} */
    this.shownKind = null;
    /** What the head and the top of the log show. */
    this.shownHead = "";
    this.shownTop = "";
    /** @type {Map<string, {node: HTMLElement, shown: string}>} */
    this.rows = new Map();
    /** Seq of the first row, and of the last one: `Infinity` follows the end. */
    this.low = 0;
    this.high = Infinity;
    /** @type {number | null} the first entry that was unread when the conversation was opened */
    this.unreadFrom = null;
    this.placed = false;
    this.loading = false;
    /** @type {any} */
    this.failed = null;
    this.below = 0;

    this.head = h("header", { class: "thread-head" });
    this.log = h("ol", { class: "log", "aria-label": "Messages" });
    this.top = h("div", { class: "log-top" });
    this.scroller = h("div", { class: "scroller", tabIndex: -1 }, this.top, this.log);
    this.scroller.addEventListener("scroll", beforePaint(() => this.onScroll()), { passive: true });
    this.log.addEventListener("keydown", (event) => this.onLogKey(event));
    this.jumpCount = h("span", { class: "badge" });
    this.jump = h("button", { class: "jump", type: "button", "aria-label": "Go to the latest message", hidden: true, onclick: () => this.toEnd() }, this.jumpCount, icon("down"));
    this.composer = new Composer(chat, { sent: () => this.onSent(), up: () => this.focusMessage(-1) });
    this.notice = h("p", { class: "thread-notice", role: "status" });
    this.spoken = h("div", { class: "hidden", role: "log", "aria-live": "polite" });
    this.body = h("div", { class: "thread-body" }, this.scroller, this.jump);
    this.element = h("main", { class: "thread", id: "thread" });
    // The window, and pictures that come late.
    const resized = new ResizeObserver(() => this.follow && this.stick());
    for (const element of [this.scroller, this.log]) resized.observe(element);
    /** Whether the end is kept in view. */
    this.follow = true;
    document.addEventListener("visibilitychange", () => this.see());
  }

  get conversation() {
    return this.id ? this.chat.conversations.get(this.id) : undefined;
  }

  /** @param {string | null} id */
  show(id) {
    const conversation = id ? this.chat.conversations.get(id) : undefined;
    const kind = !id ? "nothing" : conversation ? "thread" : "unknown";
    if (id === this.id && kind === this.shownKind && kind !== "unknown") return;
    if (id !== this.id) this.reset(id);
    this.shownKind = kind;
    this.element.dataset.conversation = id ?? "";
    if (!id) return this.showNothing();
    if (!conversation) return this.showUnknown();
    if (conversation.unread) this.unreadFrom = conversation.read_seq;
    fill(this.element, this.head, this.body, this.notice, this.composer.element, this.spoken);
    this.showHead(conversation);
    this.composer.show(id);
    // The reader's place is found when what is missing has come.
    void this.load(() => this.open(id));
    this.render();
  }

  /** Reads the newest entries, and up to the first unread one if it is near. @param {string} id */
  async open(id) {
    await this.chat.look(id);
    for (let page = 0; page < UNREAD_PAGES && this.id === id && this.unreadFrom !== null; page++) {
      const { entries, more } = this.chat.timeline(id);
      const at = firstFrom(entries, this.unreadFrom + 1);
      if (at > 0 || !more) {
        this.low = entries[Math.max(0, Math.min(at, entries.length - ROWS_STEP))]?.seq ?? 0;
        return;
      }
      await this.chat.older(id);
    }
  }

  /** @param {string | null} id */
  reset(id) {
    this.id = id;
    this.low = 0;
    this.high = Infinity;
    this.unreadFrom = null;
    this.failed = null;
    this.loading = false;
    this.below = 0;
    this.placed = false;
    this.follow = true;
    this.rows.clear();
    fill(this.log);
    fill(this.spoken);
  }

  showNothing() {
    void this.chat.look(null);
    fill(
      this.element,
      h(
        "div",
        { class: "empty stage-empty" },
        h("img", { src: "icon.svg", alt: "", width: 72, height: 72 }),
        h("h2", {}, "Your messages appear here"),
        h("p", {}, "Pick a conversation, or begin a new one."),
      ),
    );
  }

  showUnknown() {
    const back = h("a", { class: "icon-button back", href: "#", "aria-label": "Back to the conversations" }, icon("back"));
    const ended = this.chat.synced;
    const content = ended
      ? h("div", { class: "empty stage-empty" }, h("h2", {}, "This conversation is not here"), h("p", {}, "It does not exist, or you are not a member of it."), h("a", { class: "button quiet", href: "#" }, "Back to the conversations"))
      : ghosts();
    fill(this.element, h("header", { class: "thread-head" }, back, ended ? null : [h("span", { class: "ghost circle small" }), h("span", { class: "ghost line" })]), h("div", { class: "thread-body" }, content));
  }

  /** @param {Set<string>} topics */
  update(topics) {
    if (this.shownKind === "unknown" || (this.shownKind === "thread" && !this.conversation)) return this.show(this.id);
    const conversation = this.conversation;
    if (!conversation) return;
    if (topics.has(`timeline:${this.id}`) || topics.has("users") || topics.has("status") || topics.has(`members:${this.id}`)) {
      this.showHead(conversation);
      this.render();
    }
    if (topics.has("status") && this.chat.status === "online" && this.failed && this.id) {
      const id = this.id;
      void this.load(() => this.open(id));
    }
  }

  /** @param {Conversation} conversation */
  showHead(conversation) {
    const { chat } = this;
    const title = titleOf(chat, conversation);
    const face = avatarOf(chat, conversation);
    const peer = conversation.peer_id ? chat.user(conversation.peer_id) : undefined;
    const below = conversation.kind === "group" ? `${conversation.member_count} member${conversation.member_count === 1 ? "" : "s"}` : peer ? `@${peer.username}` : "";
    const notice = noticeOf(conversation);
    const shown = JSON.stringify([this.id, title, face, below, notice, conversation.muted]);
    if (this.shownHead === shown) return;
    this.shownHead = shown;
    fill(
      this.head,
      h("a", { class: "icon-button back", href: "#", "aria-label": "Back to the conversations" }, icon("back")),
      h(
        "a",
        { class: "thread-who", href: `#/c/${conversation.id}/details`, title: "Details" },
        avatar({ ...face, size: "small" }),
        h("span", { class: "thread-names" }, h("h2", { dir: "auto" }, title, conversation.muted ? icon("muted", "Muted") : null), h("span", { class: "thread-sub" }, below)),
      ),
      h("a", { class: "icon-button", href: `#/c/${conversation.id}/details`, id: "open-details", title: "Details", "aria-label": "Details" }, icon("info")),
    );
    this.notice.textContent = notice;
    this.notice.hidden = !notice;
    this.composer.element.hidden = Boolean(notice);
  }

  /** @param {() => Promise<unknown>} work */
  async load(work) {
    const id = this.id;
    this.loading = true;
    this.log.setAttribute("aria-busy", "true");
    this.failed = null;
    this.showTop();
    try {
      await work();
    } catch (error) {
      if (this.id === id) this.failed = error;
    } finally {
      if (this.id === id) {
        this.loading = false;
        this.render();
        this.log.setAttribute("aria-busy", "false");
        if (!this.failed) this.extend();
      }
    }
  }

  // ---- The rows

  /** Which entries are in the page. */
  slice() {
    const { entries, more, pending } = this.chat.timeline(this.id ?? "");
    const end = this.high === Infinity ? entries.length : firstFrom(entries, this.high + 1);
    let start = this.low ? firstFrom(entries, this.low) : Math.max(0, end - ROWS_STEP);
    if (end - start > ROWS_MAX && this.follow) start = end - ROWS_MAX;
    this.low = entries[start]?.seq ?? 0;
    return { entries, start, end, more, pending: end === entries.length ? pending : [] };
  }

  render() {
    if (!this.conversation) return;
    const anchor = this.placed && !this.follow ? this.anchor() : null;
    const slice = this.slice();
    const rows = this.compose(slice);
    const gone = new Set(this.rows.keys());
    let next = this.log.firstElementChild;
    for (const row of rows) {
      gone.delete(row.key);
      let have = this.rows.get(row.key);
      if (!have || have.shown !== row.shown) {
        const node = row.build();
        if (have) {
          if (have.node === next) next = next.nextElementSibling;
          have.node.remove();
        }
        have = { node, shown: row.shown };
        this.rows.set(row.key, have);
      }
      if (have.node === next) next = next.nextElementSibling;
      else this.log.insertBefore(have.node, next);
    }
    for (const key of gone) {
      this.rows.get(key)?.node.remove();
      this.rows.delete(key);
    }
    this.showTop();
    this.place(slice.entries.length + slice.pending.length > 0, anchor);
    this.see();
  }

  /** @param {ReturnType<Thread["slice"]>} slice @returns {Row[]} */
  compose({ entries, start, end, more, pending }) {
    const { chat } = this;
    const conversation = /** @type {Conversation} */ (this.conversation);
    const me = chat.me?.id ?? "";
    /** @type {Row[]} */
    const rows = [];
    /** @type {{sender: string, at: number} | null} the message that this one may stand together with */
    let before = null;
    const group = conversation.kind === "group";
    const answerable = !noticeOf(conversation);
    const on = { goTo: (/** @type {number} */ seq) => void this.goTo(seq), answer: (/** @type {number} */ seq) => this.composer.answer(seq) };
    let shownDay = NaN;
    const unread = this.firstUnread(entries, more);
    const waiting = pending.map((one) => ({ ...one, sender_id: me, seq: Infinity }));
    const all = [...entries.slice(start, end), ...waiting];
    all.forEach((message, at) => {
      const today = day(message.created_at);
      if (shownDay !== today) {
        shownDay = today;
        rows.push(divider(`day-${message.seq}-${today}`, dayLabel(message.created_at), "day"));
        before = null;
      }
      if (message === unread) {
        rows.push(divider("unread", "New messages", "new"));
        before = null;
      }
      if (message.kind === "event") {
        rows.push(divider(`event-${message.seq}`, eventText(chat, /** @type {Message} */ (message), conversation), "event"));
        before = null;
        return;
      }
      const after = all[at + 1];
      const first = before?.sender !== message.sender_id || message.created_at - before.at > TOGETHER_MS;
      const last = !after || after.kind === "event" || after.sender_id !== message.sender_id || after.created_at - message.created_at > TOGETHER_MS || day(after.created_at) !== today;
      rows.push(messageRow(chat, message, { own: message.sender_id === me, first, last, group, answerable }, on));
      before = { sender: message.sender_id, at: message.created_at };
    });
    return rows;
  }

  /** The first message that was unread when the conversation was opened, if what comes before it is known. @param {Message[]} entries @param {boolean} more */
  firstUnread(entries, more) {
    if (this.unreadFrom === null) return undefined;
    const from = firstFrom(entries, this.unreadFrom + 1);
    if (from === 0 && more) return undefined;
    return entries.slice(from).find((message) => message.sender_id !== this.chat.me?.id && message.kind !== "event");
  }

  showTop() {
    const { entries, more, pending } = this.chat.timeline(this.id ?? "");
    const shown = this.failed ? "failed" : this.loading && !entries.length && !pending.length ? "ghosts" : this.loading && more ? "spinner" : !entries.length && !pending.length ? "empty" : "";
    if (this.shownTop === shown + this.id) return;
    this.shownTop = shown + this.id;
    switch (shown) {
      case "failed":
        return fill(
          this.top,
          h("div", { class: "history-failed", role: "alert" }, h("p", {}, `Earlier messages cannot be read. ${explain(this.failed)}`), h("button", { class: "button quiet", type: "button", onclick: () => void this.load(() => this.chat.older(this.id ?? "")) }, "Try again")),
        );
      case "ghosts":
        return fill(this.top, ghosts());
      case "spinner":
        return fill(this.top, h("div", { class: "history-spinner" }, h("span", { class: "spinner" }), h("span", { class: "hidden", role: "status" }, "Loading earlier messages")));
      case "empty":
        return fill(this.top, h("p", { class: "empty-line" }, "No messages yet. Say hello."));
      default:
        return fill(this.top);
    }
  }

  // ---- Where the reader is

  get fromEnd() {
    return this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight;
  }

  stick() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /** The first row in view that stays when rows come above it, and where it stands. */
  anchor() {
    const top = this.scroller.getBoundingClientRect().top;
    for (const node of this.log.querySelectorAll(":scope > :not(.day)")) {
      const box = node.getBoundingClientRect();
      // Its key, not its node: the row may be built again.
      if (box.bottom > top) return { key: [...this.rows].find(([, row]) => row.node === node)?.[0] ?? "", top: box.top };
    }
    return null;
  }

  /** @param {boolean} filled @param {{key: string, top: number} | null} anchor */
  place(filled, anchor) {
    if (!this.placed) {
      if (!filled) return;
      this.placed = !this.loading;
      const unread = this.rows.get("unread")?.node;
      this.stick();
      if (unread && unread.getBoundingClientRect().top < this.scroller.getBoundingClientRect().top) {
        unread.scrollIntoView({ block: "start" });
        this.scroller.scrollTop -= 24;
        this.follow = false;
      }
    } else if (this.follow) {
      this.stick();
    } else if (anchor) {
      const node = this.rows.get(anchor.key)?.node;
      if (node) this.scroller.scrollTop += node.getBoundingClientRect().top - anchor.top;
    }
    this.showJump();
  }

  onScroll() {
    if (this.shownKind !== "thread") return;
    // Whoever scrolls while the first messages are read has found a place already.
    if (!this.placed && this.fromEnd > END_PX) this.placed = true;
    if (!this.placed) return;
    const atEnd = this.high === Infinity && this.fromEnd < END_PX;
    if (atEnd) this.below = 0;
    this.follow = atEnd;
    this.extend();
    this.showJump();
    this.see();
  }

  /** Brings more rows where the reader is near an end of them. */
  extend() {
    if (!this.id || this.shownKind !== "thread") return;
    const { entries, start, end, more } = this.slice();
    if (this.scroller.scrollTop < NEAR_PX) {
      if (start > 0) {
        const from = Math.max(0, start - ROWS_STEP);
        this.low = entries[from].seq;
        if (end - from > ROWS_MAX) {
          this.high = entries[from + ROWS_MAX - 1].seq;
          this.follow = false;
        }
        return this.render();
      }
      const id = this.id;
      if (more && !this.loading && !this.failed) {
        return void this.load(() => this.chat.older(id));
      }
    }
    if (this.high !== Infinity && this.fromEnd < NEAR_PX) {
      const to = Math.min(entries.length, end + ROWS_STEP);
      this.high = to === entries.length ? Infinity : entries[to - 1].seq;
      if (to - start > ROWS_MAX) this.low = entries[to - ROWS_MAX].seq;
      this.render();
    }
  }

  showJump() {
    const away = this.placed && (this.high !== Infinity || this.fromEnd > 400);
    this.jump.hidden = !away;
    this.jumpCount.textContent = this.below ? String(this.below) : "";
    this.jumpCount.hidden = !this.below;
  }

  toEnd() {
    this.high = Infinity;
    this.low = 0;
    this.follow = true;
    this.below = 0;
    this.render();
    this.stick();
  }

  /** Shows an entry, however far up it is. @param {number} seq */
  async goTo(seq) {
    const id = this.id;
    if (!id) return;
    for (let page = 0; page < SEARCH_PAGES && !this.chat.entry(id, seq) && this.chat.timeline(id).more; page++) {
      try {
        await this.chat.older(id);
      } catch (error) {
        return toast(explain(error));
      }
      if (this.id !== id) return;
    }
    const { entries } = this.chat.timeline(id);
    const at = firstFrom(entries, seq);
    if (entries[at]?.seq !== seq) return toast("This message is not there any more.");
    const rendered = this.log.querySelector(`[data-seq="${seq}"]`);
    if (!rendered) {
      this.follow = false;
      this.low = entries[Math.max(0, at - ROWS_STEP)].seq;
      this.high = at + ROWS_STEP < entries.length ? entries[at + ROWS_STEP].seq : Infinity;
      this.render();
    }
    const node = /** @type {HTMLElement | null} */ (this.log.querySelector(`[data-seq="${seq}"]`));
    node?.scrollIntoView({ block: "center" });
    node?.focus({ preventScroll: true });
    node?.classList.add("pointed");
    setTimeout(() => node?.classList.remove("pointed"), 1600);
  }

  /** Marks as read what is in view. */
  see() {
    const conversation = this.conversation;
    if (!conversation || !this.placed || document.visibilityState !== "visible" || this.shownKind !== "thread") return;
    if (!this.element.offsetParent && getComputedStyle(this.element).position !== "fixed") return;
    const { entries, end } = this.slice();
    if (this.high === Infinity && this.fromEnd < END_PX) return this.chat.seen(conversation.id, entries[end - 1]?.seq ?? 0);
    const bottom = this.scroller.getBoundingClientRect().bottom;
    for (let node = this.log.lastElementChild; node; node = node.previousElementSibling) {
      const seq = Number(/** @type {HTMLElement} */ (node).dataset.seq);
      if (seq && node.getBoundingClientRect().top < bottom - 20) return this.chat.seen(conversation.id, seq);
    }
  }

  /** A message came. @param {Message} message */
  announce(message) {
    if (message.conversation_id !== this.id || message.sender_id === this.chat.me?.id) return;
    if (!this.follow) this.below += 1;
    const text = message.kind === "event" ? eventText(this.chat, message, this.conversation) : `${nameOf(this.chat, message.sender_id)}: ${summary(this.chat, message)}`;
    fill(this.spoken, h("p", {}, text.slice(0, 400)));
  }

  /** @param {KeyboardEvent} event */
  onLogKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const messages = [...this.log.querySelectorAll(".message")];
    const at = messages.findIndex((node) => node.contains(document.activeElement)) + step;
    if (at >= messages.length) this.composer.focus();
    else this.focusMessage(Math.max(0, at));
  }

  /** @param {number} at from the end if negative */
  focusMessage(at) {
    /** @type {HTMLElement | undefined} */ ([...this.log.querySelectorAll(".message")].at(at))?.focus();
  }

  onSent() {
    this.unreadFrom = null;
    this.toEnd();
  }
}

/** Why nothing can be written here; empty: it can. @param {Conversation} conversation */
function noticeOf(conversation) {
  if (conversation.dissolved) return "This group was dissolved. Its history stays readable.";
  if (conversation.left) return "You are not a member of this group any more.";
  if (conversation.silenced_until && conversation.silenced_until > Date.now()) return `An admin has silenced you until ${until(conversation.silenced_until)}.`;
  return "";
}

/** Index of the first entry with this seq or a higher one. @param {Message[]} entries @param {number} seq */
function firstFrom(entries, seq) {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (entries[middle].seq < seq) low = middle + 1;
    else high = middle;
  }
  return low;
}

// @ts-check
/** The conversations, most recently active first. */
import { joinByLink, newChat, newGroup } from "./dialogs.js";
import { avatar, fill, h, icon, iconButton } from "./dom.js";
import { avatarOf, preview, shortTime, time, titleOf } from "./format.js";
import { menu } from "./overlay.js";

/**
 * @typedef {import("../client/index.js").GoChat} GoChat
 * @typedef {import("../client/types.js").Conversation} Conversation
 */

export class List {
  /** @param {GoChat} chat @param {() => void} openAccount */
  constructor(chat, openAccount) {
    this.chat = chat;
    /** @type {string | null} */
    this.selected = null;
    /** @type {Map<string, {node: HTMLLIElement, shown: string}>} */
    this.rows = new Map();
    this.search = h("input", {
      id: "search",
      class: "search-input",
      type: "search",
      placeholder: "Search",
      autocomplete: "off",
      "aria-label": "Search conversations, or find a user by exact name",
      oninput: () => this.update(),
    });
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        this.search.value = "";
        this.update();
      }
      if (event.key === "ArrowDown") this.focusRow(0);
      if (event.key === "Enter") /** @type {HTMLElement | null} */ (this.rowsElement.querySelector("a") ?? this.find.querySelector("button"))?.click();
    });
    this.account = h("button", { class: "me", type: "button", id: "account", title: "Your account", "aria-label": "Your account", onclick: openAccount });
    const create = iconButton("plus", "New conversation", () =>
      menu(create, [
        { icon: "person", label: "New chat", run: () => newChat(chat) },
        { icon: "group", label: "New group", run: () => newGroup(chat) },
        { icon: "link", label: "Join with a link", run: () => joinByLink(chat) },
      ]),
    );
    create.id = "create";
    create.setAttribute("aria-haspopup", "menu");
    this.rowsElement = h("ul", { class: "rows" });
    this.rowsElement.addEventListener("keydown", (event) => this.onKey(event));
    this.find = h("div", { class: "find" });
    this.state = h("div", { class: "list-state" });
    this.element = h(
      "nav",
      { class: "sidebar", "aria-label": "Conversations" },
      h("header", { class: "sidebar-head" }, this.account, h("h1", {}, "Chats"), create),
      h("div", { class: "search" }, icon("search"), this.search),
      h("div", { class: "rows-scroll" }, this.find, this.rowsElement, this.state),
    );
    this.update();
  }

  /** @param {string | null} id */
  select(id) {
    this.selected = id;
    this.update();
  }

  update() {
    const me = this.chat.me;
    if (me) fill(this.account, avatar({ id: me.id, label: me.display_name, url: me.avatar_url, size: "small" }));
    const wanted = this.search.value.trim().toLocaleLowerCase();
    const all = this.chat.list();
    const shown = wanted ? all.filter((one) => titleOf(this.chat, one).toLocaleLowerCase().includes(wanted)) : all;
    this.showRows(shown);
    this.showFind(wanted);
    this.showState(all.length, shown.length, wanted);
  }

  /** @param {Conversation[]} conversations */
  showRows(conversations) {
    const gone = new Set(this.rows.keys());
    /** @type {Element | null} */
    let next = this.rowsElement.firstElementChild;
    for (const conversation of conversations) {
      gone.delete(conversation.id);
      let row = this.rows.get(conversation.id);
      const content = this.content(conversation);
      const signature = JSON.stringify(content);
      if (!row) {
        row = { node: h("li", {}, h("a", { class: "row", href: `#/c/${conversation.id}`, "data-id": conversation.id })), shown: "" };
        this.rows.set(conversation.id, row);
      }
      if (row.shown !== signature) {
        this.fillRow(/** @type {HTMLElement} */ (row.node.firstElementChild), conversation, content);
        row.shown = signature;
      }
      if (row.node === next) next = next.nextElementSibling;
      else this.rowsElement.insertBefore(row.node, next);
    }
    for (const id of gone) {
      this.rows.get(id)?.node.remove();
      this.rows.delete(id);
    }
  }

  /** Everything that a row shows. @param {Conversation} conversation */
  content(conversation) {
    const { chat } = this;
    const selected = conversation.id === this.selected;
    const draft = selected ? "" : chat.draft(conversation.id).trim();
    const pending = chat.outbox.of(conversation.id);
    const last = conversation.last_message;
    const waiting = pending[pending.length - 1];
    const state = waiting ? (waiting.failed ? "failed" : "sending") : last && last.kind !== "event" && last.sender_id === chat.me?.id ? chat.stateOf(last) : "";
    return {
      title: titleOf(chat, conversation),
      face: avatarOf(chat, conversation),
      text: draft || (waiting ? `You: ${waiting.text ?? ""}` : preview(chat, conversation)),
      draft: Boolean(draft),
      at: shortTime(waiting?.created_at ?? conversation.active_at),
      state,
      unread: conversation.unread,
      muted: conversation.muted,
      selected,
    };
  }

  /** @param {HTMLElement} link @param {Conversation} conversation @param {ReturnType<List["content"]>} content */
  fillRow(link, conversation, { title, face, text, draft, at, state, unread, muted, selected }) {
    if (selected) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
    link.classList.toggle("unread", unread > 0);
    const count = unread > 999 ? "999+" : String(unread);
    fill(
      link,
      avatar(face),
      h(
        "span",
        { class: "row-main" },
        h(
          "span",
          { class: "row-top" },
          h("span", { class: "row-title", dir: "auto" }, title),
          muted ? icon("muted", "Muted") : null,
          h("time", { class: "row-time", dateTime: new Date(conversation.active_at).toISOString() }, at),
        ),
        h(
          "span",
          { class: "row-bottom" },
          state && !draft ? h("span", { class: `state ${state}` }, icon(STATES[state].icon, STATES[state].label)) : null,
          h("span", { class: "row-text", dir: "auto" }, draft ? h("span", { class: "draft" }, "Draft: ") : null, text.slice(0, 200)),
          unread ? h("span", { class: muted ? "badge muted" : "badge" }, count, h("span", { class: "hidden" }, " unread")) : null,
        ),
      ),
    );
  }

  /** @param {string} wanted */
  showFind(wanted) {
    if (!wanted) return fill(this.find);
    fill(
      this.find,
      h("button", { class: "find-button", type: "button", onclick: () => newChat(this.chat, wanted) }, icon("person"), h("span", {}, `Find user “${wanted}”`)),
    );
  }

  /** @param {number} all @param {number} shown @param {string} wanted */
  showState(all, shown, wanted) {
    const { chat } = this;
    if (!all && !chat.synced) {
      const ghosts = Array.from({ length: 7 }, () => h("div", { class: "ghost-row" }, h("span", { class: "ghost circle" }), h("span", { class: "ghost line" })));
      return fill(this.state, h("p", { class: "hidden", role: "status" }, "Loading conversations"), ghosts);
    }
    if (!all) {
      return fill(
        this.state,
        h(
          "div",
          { class: "empty" },
          h("h2", {}, "No conversations yet"),
          h("p", {}, "Write to somebody by user name, or bring a few people together in a group."),
          h("div", { class: "actions" }, h("button", { class: "button", type: "button", onclick: () => newChat(chat) }, "New chat"), h("button", { class: "button quiet", type: "button", onclick: () => newGroup(chat) }, "New group")),
        ),
      );
    }
    fill(this.state, wanted && !shown ? h("p", { class: "empty-line" }, "No conversation has this name.") : null);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const links = [...this.rowsElement.querySelectorAll("a")];
    const at = links.indexOf(/** @type {any} */ (document.activeElement)) + step;
    if (at < 0) this.search.focus();
    else this.focusRow(at);
  }

  /** @param {number} at */
  focusRow(at) {
    /** @type {HTMLElement | undefined} */ (this.rowsElement.querySelectorAll("a")[at])?.focus();
  }
}

/** How each state of an own message looks and is called. @type {Record<string, {icon: import("./dom.js").Icon, label: string}>} */
export const STATES = {
  sending: { icon: "clock", label: "Sending" },
  stored: { icon: "check", label: "Sent" },
  delivered: { icon: "checks", label: "Delivered" },
  read: { icon: "checks", label: "Read" },
  failed: { icon: "alert", label: "Not sent" },
};

/** @param {number} at */
export const stamp = (at) => h("time", { dateTime: new Date(at).toISOString(), title: new Date(at).toLocaleString() }, time(at));

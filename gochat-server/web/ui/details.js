// @ts-check
/** Who and what is behind a conversation: a person, or a group with its members, roles and settings. */
import { addMembers, invitationLink } from "./dialogs.js";
import { avatar, fill, h, icon, iconButton } from "./dom.js";
import { avatarOf, explain, nameOf, titleOf, until } from "./format.js";
import { attempt, busy, confirm, copy, dialog, errorLine, field, menu, toast } from "./overlay.js";

/**
 * @typedef {import("../client/index.js").GoChat} GoChat
 * @typedef {import("../client/types.js").Conversation} Conversation
 * @typedef {import("../client/types.js").Member} Member
 */

const RANK = { member: 0, admin: 1, owner: 2 };
const ROLE = { member: "", admin: "Admin", owner: "Owner" };
/** From so many members on, they can be searched. */
const SEARCH_FROM = 12;
/** Members in the page at most; the others are found by searching. */
const MEMBERS_SHOWN = 300;
const HOUR_MS = 3_600_000;

export class Details {
  /** @param {GoChat} chat */
  constructor(chat) {
    this.chat = chat;
    /** @type {string | null} */
    this.id = null;
    /** @type {Member[] | null} */
    this.members = null;
    /** @type {{user_id: string}[]} */
    this.requests = [];
    /** @type {any} */
    this.failed = null;
    /** What the page shows, to see whether it must be built again. */
    this.shown = "";
    this.closing = iconButton("close", "Close details", () => this.close());
    this.heading = h("h2", {});
    this.search = h("input", {
      class: "search-input",
      type: "search",
      placeholder: "Search members",
      "aria-label": "Search members",
      oninput: () => this.conversation && this.showMembers(this.conversation),
    });
    this.body = h("div", { class: "details-body" });
    this.memberRows = h("ul", { class: "members", "aria-label": "Members" });
    this.element = h("aside", { class: "details", hidden: true, "aria-label": "Details" });
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented) this.close();
    });
  }

  get conversation() {
    return this.id ? this.chat.conversations.get(this.id) : undefined;
  }

  close() {
    if (this.id) location.hash = `#/c/${this.id}`;
    document.getElementById("open-details")?.focus();
  }

  /** @param {string | null} id */
  show(id) {
    const opened = id !== null && id !== this.id;
    this.id = id;
    this.element.hidden = id === null;
    if (id === null) return;
    if (opened) {
      this.members = null;
      this.requests = [];
      this.failed = null;
      this.search.value = "";
      void this.load();
    }
    this.render();
    if (opened) this.closing.focus();
  }

  /** @param {Set<string>} topics */
  update(topics) {
    if (!this.id) return;
    if (topics.has(`members:${this.id}`)) void this.load();
    if (topics.has(`timeline:${this.id}`) || topics.has("users") || topics.has("list")) this.render();
  }

  async load() {
    const id = this.id;
    const conversation = id && this.chat.conversations.get(id);
    if (!id || !conversation || conversation.kind !== "group") return;
    try {
      const members = await this.chat.members(id);
      const requests = RANK[conversation.role] > 0 && !conversation.left ? await this.chat.joinRequests(id).catch(() => []) : [];
      if (this.id !== id) return;
      this.members = members.sort((a, b) => RANK[b.role] - RANK[a.role] || a.join_seq - b.join_seq);
      this.requests = requests;
      this.failed = null;
    } catch (error) {
      if (this.id !== id) return;
      this.failed = error;
    }
    this.shown = "";
    this.render();
  }

  render() {
    const conversation = this.conversation;
    if (!conversation) return fill(this.element);
    const title = titleOf(this.chat, conversation);
    const { unread: _, read_seq: __, delivered_seq: ___, last_message: ____, counted_seq: _____, active_at: ______, head_seq: _______, ...stable } = conversation;
    const names = (this.members ?? []).map((member) => this.chat.user(member.user_id)?.display_name);
    const { peer_read_seq: ________, peer_delivered_seq: _________, ...content } = stable;
    const shown = JSON.stringify([content, title, names, this.requests, Boolean(this.members), String(this.failed)]);
    if (this.shown === shown && this.element.firstChild) return;
    this.shown = shown;
    // What stays keeps its place and its focus.
    const focused = this.element.contains(document.activeElement) ? /** @type {HTMLElement} */ (document.activeElement) : null;
    const top = this.body.scrollTop;
    const group = conversation.kind === "group";
    fill(this.body, this.top(conversation, title), group ? this.group(conversation) : null, this.bottom(conversation, title));
    this.heading.textContent = group ? "Group" : "Chat";
    fill(this.element, h("header", { class: "details-head" }, this.closing, this.heading), this.body);
    this.body.scrollTop = top;
    if (focused) (focused.isConnected ? focused : this.closing).focus({ preventScroll: true });
  }

  /** @param {Conversation} conversation @param {string} title */
  top(conversation, title) {
    const peer = conversation.peer_id ? this.chat.user(conversation.peer_id) : undefined;
    const count = `${conversation.member_count} member${conversation.member_count === 1 ? "" : "s"} · up to ${conversation.max_members}`;
    return h(
      "section",
      { class: "details-top" },
      avatar({ ...avatarOf(this.chat, conversation), size: "large" }),
      h("h3", { class: "details-title", dir: "auto" }, title),
      h("p", { class: "details-sub" }, conversation.kind === "group" ? count : peer ? `@${peer.username}` : ""),
      conversation.description ? h("p", { class: "details-text", dir: "auto" }, conversation.description) : null,
    );
  }

  /** @param {Conversation} conversation */
  group(conversation) {
    const can = RANK[conversation.role] > 0 && !conversation.left && !conversation.dissolved;
    return [
      can
        ? h(
            "section",
            { class: "details-actions" },
            this.action("plus", "Add people", () => addMembers(this.chat, conversation.id)),
            this.action("pen", "Edit group", () => this.edit(conversation)),
            this.action("link", "Invitation link", () => this.link(conversation)),
          )
        : null,
      this.requests.length ? this.joinRequests(conversation) : null,
      this.memberSection(conversation),
    ];
  }

  /** @param {import("./dom.js").Icon} shape @param {string} label @param {() => void} run @param {string} [kind] */
  action(shape, label, run, kind = "") {
    return h("button", { class: `details-action ${kind}`, type: "button", onclick: run }, icon(shape), h("span", {}, label));
  }

  /** @param {Conversation} conversation */
  joinRequests(conversation) {
    /** @param {string} user @param {boolean} accept */
    const answer = (user, accept) => void attempt(async () => (await this.chat.answerRequest(conversation.id, user, accept), this.load()));
    return h(
      "section",
      {},
      h("h3", {}, "Ask to join"),
      h(
        "ul",
        { class: "members" },
        this.requests.map(({ user_id }) =>
          h(
            "li",
            { class: "user-row" },
            avatar({ id: user_id, label: nameOf(this.chat, user_id), size: "small" }),
            h("span", { class: "user-text" }, h("strong", { dir: "auto" }, nameOf(this.chat, user_id))),
            h("button", { class: "text-button", type: "button", onclick: () => answer(user_id, true) }, "Accept"),
            h("button", { class: "text-button danger", type: "button", onclick: () => answer(user_id, false) }, "Refuse"),
          ),
        ),
      ),
    );
  }

  /** @param {Conversation} conversation */
  memberSection(conversation) {
    this.showMembers(conversation);
    return h(
      "section",
      {},
      h("h3", {}, "Members"),
      this.failed ? h("p", { class: "error-line", role: "alert" }, explain(this.failed)) : null,
      (this.members?.length ?? 0) >= SEARCH_FROM ? h("div", { class: "search" }, icon("search"), this.search) : null,
      this.members || this.failed ? this.memberRows : h("div", { class: "ghost-rows" }, [1, 2, 3].map(() => h("div", { class: "ghost-row" }, h("span", { class: "ghost circle small" }), h("span", { class: "ghost line" })))),
    );
  }

  /** @param {Conversation} conversation */
  showMembers(conversation) {
    const wanted = this.search.value.trim().toLocaleLowerCase();
    const matching = (this.members ?? []).filter(({ user_id }) => {
      const user = this.chat.user(user_id);
      return !wanted || `${user?.display_name} ${user?.username}`.toLocaleLowerCase().includes(wanted);
    });
    const more = matching.length - MEMBERS_SHOWN;
    fill(
      this.memberRows,
      matching.slice(0, MEMBERS_SHOWN).map((member) => this.memberRow(conversation, member)),
      more > 0 ? h("li", { class: "empty-line" }, `And ${more} more. Search to find them.`) : null,
    );
  }

  /** @param {Conversation} conversation @param {Member} member */
  memberRow(conversation, member) {
    const user = this.chat.user(member.user_id);
    const name = nameOf(this.chat, member.user_id);
    const self = member.user_id === this.chat.me?.id;
    const silenced = member.silenced_until && member.silenced_until > Date.now() ? ` · silenced until ${until(member.silenced_until)}` : "";
    const items = self || conversation.left || conversation.dissolved ? [] : this.memberActions(conversation, member, name);
    const more = iconButton("more", `What to do with ${name}`, () => menu(more, items));
    more.setAttribute("aria-haspopup", "menu");
    return h(
      "li",
      { class: "user-row", "data-user": user?.username ?? "" },
      avatar({ id: member.user_id, label: name, url: user?.avatar_url, size: "small" }),
      h("span", { class: "user-text" }, h("strong", { dir: "auto" }, self ? `${name} (you)` : name), h("span", {}, `@${user?.username ?? "…"}${silenced}`)),
      ROLE[member.role] ? h("span", { class: "role" }, ROLE[member.role]) : null,
      items.length ? more : null,
    );
  }

  /** What the caller's role allows (the server decides). @param {Conversation} conversation @param {Member} member @param {string} name */
  memberActions(conversation, member, name) {
    const { chat } = this;
    const { id, role } = conversation;
    const user = member.user_id;
    /** @type {Parameters<typeof menu>[1]} */
    const items = [];
    /** @param {() => Promise<unknown>} run */
    const then = (run) => () => void attempt(async () => (await run(), this.load()));
    items.push({
      icon: "person",
      label: "Chat",
      run: () => void attempt(async () => (location.hash = `#/c/${(await chat.startChat(user)).id}`)),
    });
    if (role === "owner") {
      items.push(
        member.role === "admin"
          ? { icon: "shield", label: "Make a member again", run: then(() => chat.setRole(id, user, "member")) }
          : { icon: "shield", label: "Make an admin", run: then(() => chat.setRole(id, user, "admin")) },
        {
          icon: "key",
          label: "Make the owner",
          run: () => confirm({ title: "Hand the group over?", text: `${name} becomes the owner, and you become an admin.`, action: "Hand over", run: () => chat.handOver(id, user) }),
        },
      );
    }
    if (RANK[role] > RANK[member.role]) {
      if (member.silenced_until && member.silenced_until > Date.now()) {
        items.push({ icon: "bell", label: "Let write again", run: then(() => chat.silence(id, user, null)) });
      } else {
        items.push({ icon: "muted", label: "Silence for an hour", run: then(() => chat.silence(id, user, Date.now() + HOUR_MS)) });
        items.push({ icon: "muted", label: "Silence for a day", run: then(() => chat.silence(id, user, Date.now() + 24 * HOUR_MS)) });
      }
      items.push({
        icon: "trash",
        label: "Remove from the group",
        danger: true,
        run: () => confirm({ title: `Remove ${name}?`, text: "New messages will not reach this person any more.", action: "Remove", run: () => chat.remove(id, user) }),
      });
    }
    return items;
  }

  /** @param {Conversation} conversation @param {string} title */
  bottom(conversation, title) {
    const { chat } = this;
    const { id, muted } = conversation;
    const gone = () => (location.hash = "#");
    const actions = [];
    if (!conversation.left) actions.push(this.action(muted ? "bell" : "muted", muted ? "Notify me again" : "Mute", () => void attempt(() => chat.mute(id, !muted))));
    if (conversation.kind === "single") {
      actions.push(
        this.action("trash", "Hide chat", () =>
          confirm({ title: "Hide this chat?", text: "It comes back with the next message.", action: "Hide", danger: false, run: () => chat.leave(id).then(gone) }),
        ),
      );
    } else if (!conversation.left) {
      const owner = conversation.role === "owner";
      if (!owner || conversation.member_count === 1 || conversation.dissolved) {
        actions.push(
          this.action("leave", "Leave group", () => confirm({ title: `Leave ${title}?`, text: "You will not see what is written there later.", action: "Leave", run: () => chat.leave(id).then(gone) }), "danger"),
        );
      }
      if (owner && !conversation.dissolved) {
        actions.push(
          this.action("trash", "Dissolve group", () => confirm({ title: `Dissolve ${title}?`, text: "Nobody can write there any more. The history stays readable.", action: "Dissolve", run: () => chat.dissolve(id) }), "danger"),
        );
      }
    }
    return h("section", { class: "details-actions" }, actions);
  }

  /** @param {Conversation} conversation */
  edit(conversation) {
    dialog("Edit group", (close) => {
      const name = h("input", { value: conversation.name, maxLength: 100, "data-focus": "" });
      const description = h("textarea", { value: conversation.description, maxLength: 1000, rows: 3 });
      const picture = h("input", { type: "url", value: conversation.avatar_url ?? "", maxLength: 1024, placeholder: "https://…" });
      const most = h("input", { type: "number", value: String(conversation.max_members), min: "1", max: "100000" });
      const mode = h(
        "select",
        {},
        h("option", { value: "invite" }, "Only who is invited"),
        h("option", { value: "request" }, "Whoever asks and is accepted"),
        h("option", { value: "open" }, "Everybody who knows the group"),
      );
      mode.value = conversation.join_mode;
      const failed = errorLine();
      const button = h("button", { class: "button", type: "submit" }, "Save");
      const form = h(
        "form",
        { noValidate: true },
        field("Name", name),
        field("Description", description),
        field("Picture (address)", picture),
        h("div", { class: "two" }, field("Members at most", most), field("Who may join", mode)),
        failed,
        h("div", { class: "actions" }, h("button", { class: "button quiet", type: "button", onclick: close }, "Cancel"), button),
      );
      form.onsubmit = (event) => {
        event.preventDefault();
        /** @type {Record<string, any>} */
        const changes = {};
        if (name.value.trim() !== conversation.name) changes.name = name.value.trim();
        if (description.value.trim() !== conversation.description) changes.description = description.value.trim();
        if (picture.value.trim() !== (conversation.avatar_url ?? "")) changes.avatar_url = picture.value.trim() || null;
        if (Number(most.value) !== conversation.max_members) changes.max_members = Number(most.value);
        if (mode.value !== conversation.join_mode) changes.join_mode = mode.value;
        if (!Object.keys(changes).length) return close();
        void busy(button, failed, () => this.chat.edit(conversation.id, changes), close);
      };
      return [form];
    });
  }

  /** @param {Conversation} conversation */
  link(conversation) {
    dialog("Invitation link", (close) => {
      const failed = errorLine();
      const shown = h("input", { readOnly: true, onfocus: () => shown.select() });
      const made = h(
        "div",
        { class: "with-button", hidden: true },
        field("Whoever opens this link can join", shown),
        h("button", { class: "button quiet", type: "button", onclick: () => void attempt(() => copy(shown.value)) }, "Copy"),
      );
      const make = h("button", { class: "button", type: "button", "data-focus": "" }, "New link");
      make.onclick = () =>
        void busy(make, failed, async () => {
          shown.value = invitationLink(await this.chat.newLink(conversation.id));
          made.hidden = false;
          shown.focus();
        });
      const end = h("button", { class: "button quiet danger", type: "button" }, "End the link");
      end.onclick = () => void busy(end, failed, () => this.chat.endLink(conversation.id), () => (close(), toast("The link has ended.")));
      return [h("p", { class: "dialog-text" }, "A link is shown once. A new one ends the one before it."), made, failed, h("div", { class: "actions" }, end, make)];
    });
  }
}

// @ts-check
/** What is asked for in dialogs: new conversations, joining, one's own account. */
import { avatar, fill, h, icon, iconButton } from "./dom.js";
import { dateTime, explain } from "./format.js";
import { attempt, busy, confirm, dialog, errorLine, field, toast } from "./overlay.js";

/**
 * @typedef {import("../client/index.js").GoChat} GoChat
 * @typedef {import("../client/types.js").User} User
 */

/** People to pick from who are shown at once. */
const KNOWN_SHOWN = 5;

/** @param {string} id */
function open(id) {
  location.hash = `#/c/${id}`;
}

/** @param {User} user @param {Node | string | null} [end] */
function userRow(user, end) {
  return h(
    "div",
    { class: "user-row" },
    avatar({ id: user.id, label: user.display_name, url: user.avatar_url, size: "small" }),
    h("span", { class: "user-text" }, h("strong", { dir: "auto" }, user.display_name), h("span", {}, `@${user.username}`)),
    end ?? null,
  );
}

/** @param {string} [placeholder] */
function usernameInput(placeholder = "") {
  return h("input", { autocomplete: "off", autocapitalize: "none", spellcheck: false, maxLength: 36, placeholder, "data-focus": "" });
}

/** @param {GoChat} chat @param {string} [wanted] */
export function newChat(chat, wanted = "") {
  const shown = dialog("New chat", (close) => {
    const input = usernameInput();
    input.id = "find-user";
    input.value = wanted;
    const failed = errorLine();
    const button = h("button", { class: "button", type: "submit" }, "Start chat");
    const form = h("form", { noValidate: true }, field("User name", input, "The exact name that the other person registered with"), failed, h("div", { class: "actions" }, button));
    form.onsubmit = (event) => {
      event.preventDefault();
      void busy(button, failed, async () => {
        const user = await found(chat, input.value);
        if (user.id === chat.me?.id) throw new Error("this is you");
        const conversation = await chat.startChat(user.id);
        close();
        open(conversation.id);
      });
    };
    return [form];
  });
  shown.id = "new-chat";
}

/** @param {GoChat} chat @param {string} text @returns {Promise<User>} */
async function found(chat, text) {
  const name = text.trim().replace(/^@/, "").toLowerCase();
  if (!name) throw new Error("enter a user name");
  const user = await chat.findUser(name);
  if (!user) throw new Error(`there is no user “${name}”`);
  return user;
}

/**
 * Gathers users by their names.
 * @param {GoChat} chat @param {string} label
 */
function picker(chat, label) {
  /** @type {Map<string, User>} */
  const picked = new Map();
  const input = usernameInput();
  input.id = "add-member";
  const failed = errorLine();
  const chosen = h("ul", { class: "chips", "aria-label": "Chosen" });
  const add = h("button", { class: "button quiet", type: "button" }, "Add");
  const known = h("div", { class: "known", role: "group", "aria-label": "People you chat with" });
  const people = knownPeople(chat);
  const show = () => {
    fill(
      chosen,
      [...picked.values()].map((user) =>
        h(
          "li",
          { class: "chip" },
          avatar({ id: user.id, label: user.display_name, url: user.avatar_url, size: "tiny" }),
          h("span", { dir: "auto" }, user.display_name),
          iconButton("close", `Take ${user.display_name} out`, () => {
            picked.delete(user.id);
            show();
          }),
        ),
      ),
    );
    fill(
      known,
      people
        .filter((user) => !picked.has(user.id))
        .slice(0, KNOWN_SHOWN)
        .map((user) => knownPerson(user, () => pick(user))),
    );
  };
  const pick = (/** @type {User} */ user) => {
    picked.set(user.id, user);
    show();
  };
  const run = () =>
    busy(add, failed, async () => {
      const user = await found(chat, input.value);
      if (user.id === chat.me?.id) throw new Error("you are in it already");
      input.value = "";
      pick(user);
      input.focus();
    });
  add.onclick = () => void run();
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !input.value.trim()) return;
    event.preventDefault();
    void run();
  });
  show();
  const element = h("div", { class: "picker" }, h("div", { class: "with-button" }, field(label, input), add), failed, chosen, known);
  return {
    element,
    failed,
    /** Everybody who was chosen, also who was typed and not added yet. */
    users: async () => {
      if (input.value.trim()) {
        const user = await found(chat, input.value);
        if (user.id !== chat.me?.id) picked.set(user.id, user);
        input.value = "";
        show();
      }
      return [...picked.keys()];
    },
  };
}

/** People one has a chat with. @param {GoChat} chat @returns {User[]} */
function knownPeople(chat) {
  return chat
    .list()
    .map(({ peer_id }) => (peer_id ? chat.user(peer_id) : undefined))
    .filter((user) => user !== undefined);
}

/** @param {User} user @param {() => void} pick */
function knownPerson(user, pick) {
  const face = avatar({ id: user.id, label: user.display_name, url: user.avatar_url, size: "small" });
  return h("button", { class: "known-person", type: "button", title: `Add ${user.display_name}`, onclick: pick }, face, h("span", { dir: "auto" }, user.display_name));
}

/** @param {GoChat} chat */
export function newGroup(chat) {
  // The same key for every try: an answer that got lost does not make a second group.
  const key = crypto.getRandomValues(new Uint32Array(4)).join("-");
  const shown = dialog("New group", (close) => {
    const name = h("input", { id: "group-name", maxLength: 100, autocomplete: "off", "data-focus": "" });
    const members = picker(chat, "Add people by user name");
    const failed = errorLine();
    const button = h("button", { class: "button", type: "submit" }, "Create group");
    const form = h("form", { noValidate: true }, field("Group name", name), members.element, failed, h("div", { class: "actions" }, button));
    form.onsubmit = (event) => {
      event.preventDefault();
      void busy(button, failed, async () => {
        if (!name.value.trim()) {
          name.focus();
          throw new Error("give the group a name");
        }
        const group = await chat.createGroup({ name: name.value.trim(), participants: await members.users() }, key);
        close();
        open(group.id);
      });
    };
    return [form];
  });
  shown.id = "new-group";
}

/** @param {GoChat} chat @param {string} group */
export function addMembers(chat, group) {
  dialog("Add people", (close) => {
    const members = picker(chat, "User name");
    const failed = errorLine();
    const button = h("button", { class: "button", type: "button" }, "Add to the group");
    button.onclick = () =>
      void busy(button, failed, async () => {
        const users = await members.users();
        if (!users.length) throw new Error("choose somebody first");
        await chat.invite(group, users);
      }, () => failed.textContent || close());
    return [members.element, failed, h("div", { class: "actions" }, button)];
  });
}

/** @param {GoChat} chat @param {string} [given] */
export function joinByLink(chat, given = "") {
  dialog("Join a group", (close) => {
    const input = h("input", { id: "join-link", autocomplete: "off", spellcheck: false, value: given, "data-focus": "" });
    const failed = errorLine();
    const button = h("button", { class: "button", type: "submit" }, "Join");
    const form = h("form", { noValidate: true }, field("Invitation link", input, "The whole link, or what follows “join/”"), failed, h("div", { class: "actions" }, button));
    form.onsubmit = (event) => {
      event.preventDefault();
      void busy(button, failed, async () => {
        const secret = decodeURIComponent(input.value.trim().split("/").pop() ?? "");
        if (!secret) throw new Error("paste a link first");
        const group = await chat.joinByLink(secret);
        close();
        open(group.id);
      });
    };
    return [form];
  });
}

/** The secret of an invitation as an address that can be sent. @param {string} secret */
export function invitationLink(secret) {
  return `${new URL(".", location.href).href}#/join/${encodeURIComponent(secret)}`;
}

/** @param {GoChat} chat */
export function account(chat) {
  const me = chat.me;
  if (!me) return;
  const shown = dialog("Your account", (close) => [profile(chat, me), appearance(), password(chat), devices(chat), signOut(chat, close)], { class: "account" });
  shown.id = "account-dialog";
}

/** @param {GoChat} chat @param {User} me */
function profile(chat, me) {
  const name = h("input", { id: "profile-name", value: me.display_name, maxLength: 100, autocomplete: "name" });
  const failed = errorLine();
  const button = h("button", { class: "button quiet", type: "submit" }, "Save");
  const form = h("form", { class: "with-button", noValidate: true }, field("Your name", name), button);
  form.onsubmit = (event) => {
    event.preventDefault();
    void busy(button, failed, () => chat.updateProfile({ display_name: name.value.trim() }), () => toast("Saved."));
  };
  return h("section", {}, userRow(me), form, failed);
}

function appearance() {
  const root = document.documentElement;
  const now = root.dataset.theme ?? "system";
  /** @param {string} theme */
  const choose = (theme) => {
    if (theme === "system") {
      delete root.dataset.theme;
      localStorage.removeItem("gochat.theme");
    } else {
      root.dataset.theme = theme;
      localStorage.setItem("gochat.theme", theme);
    }
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.value === theme));
  };
  const buttons = [["system", "System"], ["light", "Light"], ["dark", "Dark"]].map(([value, label]) =>
    h("button", { class: "segment", type: "button", value, "aria-pressed": String(now === value), onclick: () => choose(value) }, label),
  );
  return h("section", {}, h("h3", {}, "Appearance"), h("div", { class: "segments", role: "group", "aria-label": "Appearance" }, buttons));
}

/** @param {GoChat} chat */
function password(chat) {
  const current = h("input", { type: "password", autocomplete: "current-password", maxLength: 1024 });
  const next = h("input", { type: "password", autocomplete: "new-password", maxLength: 1024 });
  const failed = errorLine();
  const button = h("button", { class: "button quiet", type: "submit" }, "Change password");
  const form = h("form", { noValidate: true }, h("input", { class: "hidden", autocomplete: "username", value: chat.me?.username, tabIndex: -1, "aria-hidden": "true" }), field("Present password", current), field("New password", next, "Signs your other devices out"), failed, h("div", { class: "actions" }, button));
  form.onsubmit = (event) => {
    event.preventDefault();
    void busy(button, failed, () => chat.changePassword(current.value, next.value), () => {
      current.value = next.value = "";
      toast("Your password was changed.");
    });
  };
  return h("details", { class: "fold" }, h("summary", {}, icon("key"), "Change password"), form);
}

/** @param {GoChat} chat */
function devices(chat) {
  const rows = h("ul", { class: "devices" });
  const failed = errorLine();
  const load = async () => {
    try {
      const all = (await chat.devices()).filter((device) => device.signed_in).sort((a, b) => Number(b.current) - Number(a.current) || b.last_seen_at - a.last_seen_at);
      fill(
        rows,
        all.map((device) =>
          h(
            "li",
            { class: "user-row" },
            icon("device"),
            h("span", { class: "user-text" }, h("strong", {}, device.name || "Unnamed device"), h("span", {}, device.current ? "This device" : `Last seen ${dateTime(device.last_seen_at)}`)),
            device.current ? null : h("button", { class: "text-button danger", type: "button", onclick: () => void attempt(async () => (await chat.revokeDevice(device.id), load())) }, "Sign out"),
          ),
        ),
      );
    } catch (error) {
      failed.textContent = explain(error);
    }
  };
  const fold = h("details", { class: "fold" }, h("summary", {}, icon("device"), "Devices"), rows, failed);
  fold.addEventListener("toggle", () => fold.open && void load());
  return fold;
}

/** @param {GoChat} chat @param {() => void} close */
function signOut(chat, close) {
  const leave = () => {
    const unsent = chat.outbox.pending.size;
    const run = async () => {
      close();
      await chat.logout();
    };
    if (!unsent) return void attempt(run);
    const count = unsent === 1 ? "One message" : `${unsent} messages`;
    confirm({ title: "Sign out?", text: `${count} could not be sent yet and will be lost.`, action: "Sign out", run });
  };
  return h("section", {}, h("button", { class: "button quiet danger wide", type: "button", id: "sign-out", onclick: leave }, icon("leave"), "Sign out"));
}

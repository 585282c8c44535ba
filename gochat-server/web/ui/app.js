// @ts-check
/** The page: who is signed in, what is shown where, and what the address bar says of it. */
import { GoChat } from "../client/index.js";
import { BrowserSessions } from "../client/session.js";
import { openStore } from "../client/store.js";
import { Banner } from "./banner.js";
import { Details } from "./details.js";
import { account, joinByLink } from "./dialogs.js";
import { beforePaint, fill, h } from "./dom.js";
import { List } from "./list.js";
import { signIn } from "./signin.js";
import { Thread } from "./thread.js";

const root = /** @type {HTMLElement} */ (document.getElementById("app"));
const sessions = new BrowserSessions();
/** @type {<T>(work: () => Promise<T>) => Promise<T>} */
const alone = (work) => (navigator.locks ? /** @type {any} */ (navigator.locks.request("gochat.refresh", work)) : work());
const chat = new GoChat({
  url: new URL(".", location.href).href,
  sessions,
  openStore: (user) => openStore(`gochat.${user}`),
  alone,
});

/** The page of somebody who is signed in. */
class Main {
  constructor() {
    this.banner = new Banner(chat);
    this.list = new List(chat, () => account(chat));
    this.thread = new Thread(chat);
    this.details = new Details(chat);
    this.shell = h(
      "div",
      { class: "shell" },
      this.list.element,
      h("div", { class: "stage" }, this.banner.element, h("div", { class: "stage-body" }, this.thread.element, this.details.element)),
    );
    fill(root, this.shell);
    /** @type {Set<string>} */
    this.topics = new Set();
    const update = beforePaint(() => this.update());
    this.ends = [
      chat.on("change", (topics) => {
        for (const topic of topics) this.topics.add(topic);
        update();
      }),
      chat.on("message", (message) => this.thread.announce(message)),
    ];
    this.onHash = () => this.route();
    addEventListener("hashchange", this.onHash);
    this.route();
  }

  close() {
    removeEventListener("hashchange", this.onHash);
    for (const end of this.ends) end();
    document.title = "GoChat";
  }

  /** `#/c/<conversation>`, `#/c/<conversation>/details`, `#/join/<secret>` */
  route() {
    const [, kind, id, more] = location.hash.split("/");
    if (kind === "join" && id) {
      history.replaceState(null, "", "#");
      joinByLink(chat, decodeURIComponent(id));
    }
    const conversation = kind === "c" && id ? id : null;
    const details = conversation !== null && more === "details";
    this.shell.dataset.pane = details ? "details" : conversation ? "thread" : "list";
    this.thread.show(conversation);
    this.list.select(conversation);
    this.details.show(details ? conversation : null);
  }

  update() {
    const topics = this.topics;
    this.topics = new Set();
    const names = topics.has("users");
    if (topics.has("status")) this.banner.update();
    if (topics.has("list") || names || topics.has("status")) this.list.update();
    this.thread.update(topics);
    this.details.update(topics);
    if (topics.has("list")) document.title = chat.unread ? `(${chat.unread > 999 ? "999+" : chat.unread}) GoChat` : "GoChat";
  }
}

/** @type {Main | null} */
let main = null;

function showSignIn() {
  main?.close();
  main = null;
  fill(
    root,
    signIn(chat, sessions.accounts(), async (userId) => {
      sessions.bind(userId);
      await enter();
    }, enter),
  );
}

async function enter() {
  const started = chat.start();
  main?.close();
  main = new Main();
  await started;
  main?.route();
}

/** Whether a tab is connected as this device. @param {string} device */
async function isOpen(device) {
  const held = (await navigator.locks?.query())?.held ?? [];
  return held.some((lock) => lock.name === `gochat.connection.${device}`);
}

chat.on("signed_out", showSignIn);
// Another tab signed this account out.
addEventListener("storage", () => {
  if (main && !sessions.load()) chat.api.forget();
});
addEventListener("online", () => chat.hurry());
addEventListener("pagehide", () => chat.flushStore());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") chat.hurry();
  else chat.flushStore();
});
addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    main?.list.search.focus();
  }
});

// A tab of its own may be another person; otherwise whoever was here last goes on.
const accounts = sessions.accounts();
if (!sessions.load() && accounts.length === 1 && !(await isOpen(accounts[0].device_id))) sessions.bind(accounts[0].user.id);
if (sessions.load()) await enter();
else showSignIn();

// @ts-check
/**
 * GoChat for JavaScript: signs in, keeps a connection and a copy of the conversations, sends what is written even when the
 * network is away, and tells what has changed. No user interface, no dependency; `docs/protocol.md` is what it speaks.
 *
 * ```js
 * import { GoChat } from "./client/index.js";
 *
 * const chat = new GoChat({ url: "https://chat.example.org/" });
 * chat.on("message", (message) => console.log(message.text));
 * await chat.login("ana", "correct horse battery");
 * const bo = await chat.findUser("bo");
 * const conversation = await chat.startChat(bo.id);
 * chat.send(conversation.id, "Hello Bo");
 * ```
 *
 * @typedef {import("./types.js").User} User
 * @typedef {import("./types.js").Message} Message
 * @typedef {import("./types.js").Member} Member
 * @typedef {import("./types.js").Device} Device
 * @typedef {import("./types.js").Pending} Pending
 * @typedef {import("./types.js").Status} Status
 * @typedef {import("./types.js").Conversation} Conversation
 * @typedef {import("./store.js").Change} StoreChange
 *
 * What is told:
 * - `change` with a set of topics: `status`, `list`, `users`, `timeline:<conversation>`, `members:<conversation>`
 * - `message` with an entry of the log that came live
 * - `signed_out` when the sign-in has ended, by whomever
 * @typedef {{change: Set<string>, message: Message, signed_out: void}} Events
 */
import { Api, Problem } from "./api.js";
import { Refusal } from "./connection.js";
import { Log } from "./log.js";
import { Marks } from "./marks.js";
import { Outbox } from "./outbox.js";
import { memorySessions } from "./session.js";
import { connect } from "./share.js";
import { memoryStore, messageKey } from "./store.js";
import { uuid7 } from "./uuid.js";

export { Problem, Refusal };

/** Entries in one page of history. */
const PAGE = 50;
/** Missing more than this, a device begins anew at the end instead of reading everything in between. */
const CATCH_UP_MAX = 200;
/** Entries that stay in memory of a conversation that is not looked at. */
const KEEP = 100;
/** Conversations in one `sync`. */
const SYNC_MAX = 200;
/** A gap that frames on their way may still close. */
const GAP_MS = 1_000;
/** Changes are gathered before the conversation's view is read again. */
const VIEW_MS = 250;
const WRITE_MS = 150;
const LOOKUP_MS = 20;
const LOOKUP_MAX = 200;
const LOOKUP_AGAIN_MS = 5_000;

export class GoChat {
  /**
   * @param {object} options
   * @param {string} options.url where the server is, with a slash at the end
   * @param {import("./session.js").Sessions} [options.sessions] where the sign-in is kept; by default in memory only
   * @param {(user: string) => Promise<import("./store.js").Store>} [options.openStore] what a device keeps; by default in memory only
   * @param {typeof fetch} [options.fetch]
   * @param {(url: string, protocol: string) => WebSocket} [options.open]
   * @param {<T>(work: () => Promise<T>) => Promise<T>} [options.alone] see {@link Api}
   * @param {typeof connect} [options.connect] how the connection is kept
   * @param {() => number} [options.random]
   */
  constructor(options) {
    this.options = options;
    this.api = new Api(options.url, options.sessions ?? memorySessions(), { fetch: options.fetch, alone: options.alone });
    this.api.onSignedOut = () => this.signedOut();
    /** @type {Status} */
    this.status = "offline";
    /** Whether what is shown is what the server has, as far as we know. */
    this.synced = false;
    /** @type {Error | null} why the list could not be read */
    this.failure = null;
    /** @type {Map<string, Conversation>} */
    this.conversations = new Map();
    /** @type {Map<string, Log>} */
    this.logs = new Map();
    /** @type {Map<string, {floor: number, more: boolean}>} how far down the store has each log without a gap */
    this.kept = new Map();
    /** @type {Map<string, User>} */
    this.users = new Map();
    /** @type {Map<string, string>} */
    this.drafts = new Map();
    this.store = memoryStore();
    /** @type {import("./share.js").Shared | null} */
    this.connection = null;
    /** @type {string | null} the conversation that is looked at */
    this.looking = null;

    /** @type {Map<string, Set<(value: any) => void>>} */
    this.listeners = new Map();
    /** @type {Set<string>} */
    this.topics = new Set();
    /** @type {Map<string, StoreChange>} */
    this.unwritten = new Map();
    /** @type {Map<string, ReturnType<typeof setTimeout>>} */
    this.timers = new Map();
    /** @type {Set<string>} users who were asked for since the start */
    this.asked = new Set();
    /** @type {Set<string>} */
    this.wanted = new Set();
    /** @type {Map<string, Promise<void>>} */
    this.reading = new Map();
    this.round = 0;

    this.outbox = this.newOutbox();
    this.marks = this.newMarks();
  }

  newOutbox() {
    return new Outbox({
      request: (frame) => this.request(frame),
      keep: (pending) => this.write({ table: "outbox", put: pending }, true),
      remove: (id) => this.write({ table: "outbox", remove: [id] }, true),
      onStored: (pending, ack) => this.stored(pending, ack),
      onChange: (conversation) => this.touch(`timeline:${conversation}`, "list"),
      random: this.options.random,
    });
  }

  newMarks() {
    return new Marks((frame) => this.request(frame));
  }

  // ---- Who we are

  /** @returns {User | null} */
  get me() {
    return this.api.user;
  }

  /** @param {string} username @param {string} password */
  async login(username, password) {
    await this.api.login(username, password);
    await this.start();
  }

  /** @param {string} username @param {string} password @param {string} [displayName] */
  async register(username, password, displayName) {
    await this.api.register(username, password, displayName);
    await this.start();
  }

  /** Ends the session on the server if it can be reached, and forgets everything here. */
  async logout() {
    const store = this.store;
    try {
      await this.api.logout();
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return;
      if (!(error instanceof TypeError)) throw error;
    } finally {
      await store.clear().catch(() => {});
    }
  }

  /** Shows what is kept, then connects. Needs a sign-in. */
  async start() {
    const me = this.me;
    if (!me || this.connection) return;
    const saved = this.api.sessions.load();
    const connection = (this.options.connect ?? connect)(`gochat.connection.${saved?.device_id}`, {
      url: webSocketUrl(this.options.url),
      token: () => this.api.token(),
      onFrame: (frame) => this.onFrame(frame),
      onStatus: (status) => this.onStatus(status),
      onTokenRefused: () => this.api.distrust(),
      open: this.options.open,
      random: this.options.random,
    });
    this.connection = connection;
    this.users.set(me.id, me);
    this.store = (await this.options.openStore?.(me.id)) ?? memoryStore();
    await this.restore().catch(() => {});
    if (this.connection === connection) connection.start();
  }

  /** Disconnects; what is kept stays. */
  stop() {
    this.connection?.stop();
    this.connection = null;
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.timers.clear();
    this.flushStore();
    this.outbox.setOnline(false);
    this.marks.setOnline(false);
    this.outbox = this.newOutbox();
    this.marks = this.newMarks();
    this.round += 1;
    this.synced = false;
    for (const state of [this.conversations, this.logs, this.kept, this.users, this.drafts, this.asked, this.wanted, this.reading]) state.clear();
    this.looking = null;
    this.status = "offline";
  }

  /** Connects now if a connection is being waited for, or takes it over from {@link Status} `elsewhere`. */
  hurry() {
    if (this.status === "elsewhere") this.connection?.start();
    else this.connection?.hurry();
  }

  signedOut() {
    const was = this.connection !== null;
    this.stop();
    this.status = "signed_out";
    this.touch("status");
    if (was) this.emit("signed_out", undefined);
  }

  // ---- What is told

  /**
   * @template {keyof Events} E
   * @param {E} event @param {(value: Events[E]) => void} listener
   * @returns {() => void} ends it
   */
  on(event, listener) {
    const listeners = this.listeners.get(event) ?? new Set();
    this.listeners.set(event, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /**
   * @template {keyof Events} E
   * @param {E} event @param {Events[E]} value
   */
  emit(event, value) {
    for (const listener of this.listeners.get(event) ?? []) listener(value);
  }

  /** Several changes in one turn are told once. @param {string[]} topics */
  touch(...topics) {
    if (!this.topics.size) {
      queueMicrotask(() => {
        const told = this.topics;
        this.topics = new Set();
        this.emit("change", told);
      });
    }
    for (const topic of topics) this.topics.add(topic);
  }

  // ---- What is kept

  async restore() {
    const tables = /** @type {import("./store.js").Table[]} */ (["conversations", "logs", "users", "drafts", "outbox"]);
    const [conversations, logs, users, drafts, outbox] = await Promise.all(tables.map((table) => this.store.all(table)));
    for (const conversation of conversations) this.conversations.set(conversation.id, conversation);
    for (const { id, have, floor, more } of logs) {
      this.logs.set(id, new Log(have));
      this.kept.set(id, { floor, more });
    }
    for (const user of users) if (!this.users.has(user.id)) this.users.set(user.id, user);
    for (const draft of drafts) this.drafts.set(draft.id, draft.text);
    outbox.sort((a, b) => (a.client_msg_id < b.client_msg_id ? -1 : 1));
    this.outbox.restore(outbox);
    this.touch("list", "users");
  }

  /** @param {StoreChange} change @param {boolean} [now] without waiting for others: it must not get lost */
  write(change, now = false) {
    const gathered = this.unwritten.get(change.table) ?? { table: change.table, put: [], remove: [] };
    gathered.put?.push(...(change.put ?? []));
    gathered.remove?.push(...(change.remove ?? []));
    if (change.remove) gathered.put = gathered.put?.filter((row) => !change.remove?.includes(row.client_msg_id ?? row.id));
    this.unwritten.set(change.table, gathered);
    if (now) this.flushStore();
    else this.later("write", WRITE_MS, () => this.flushStore());
  }

  /** Writes what waits to be kept. Call it when the page goes away. */
  flushStore() {
    const changes = [...this.unwritten.values()];
    this.unwritten.clear();
    // A full disk costs the copy, not the chat.
    if (changes.length) this.store.write(changes).catch(() => {});
  }

  /** @param {string} name @param {number} ms @param {() => void} work */
  later(name, ms, work) {
    if (this.timers.has(name)) return;
    const timer = setTimeout(() => {
      this.timers.delete(name);
      work();
    }, ms);
    this.timers.set(name, timer);
  }

  /** @param {Conversation} conversation */
  keep(conversation) {
    this.write({ table: "conversations", put: [conversation] });
    this.touch("list", `timeline:${conversation.id}`);
  }

  /** @param {string} id @param {Log} log @param {Message[]} added */
  keepEntries(id, log, added) {
    const kept = this.kept.get(id) ?? { floor: log.floor, more: log.more };
    if (log.floor < kept.floor) Object.assign(kept, { floor: log.floor, more: log.more });
    this.kept.set(id, kept);
    this.write({ table: "messages", put: added.map((message) => ({ ...message, key: messageKey(id, message.seq) })) });
    this.write({ table: "logs", put: [{ id, have: log.have, ...kept }] });
    this.touch(`timeline:${id}`);
  }

  // ---- The connection

  /** @param {Record<string, any>} frame @returns {Promise<any>} */
  request(frame) {
    return this.connection ? this.connection.request(frame) : Promise.reject(new Refusal("NO_ANSWER", "not connected"));
  }

  /** @param {Status} status */
  onStatus(status) {
    if (!this.connection) return;
    const online = status === "online";
    this.status = status;
    if (!online) this.synced = false;
    this.touch("status");
    this.marks.setOnline(online);
    this.outbox.setOnline(online);
    if (online) void this.resume();
    if (status === "signed_out") this.api.forget();
  }

  /** @param {any} frame */
  onFrame(frame) {
    switch (frame.type) {
      case "message":
        return this.onMessage(frame);
      case "marks":
        return this.onMarks(frame);
      case "heads":
        return this.onHeads(frame.heads);
      case "resync":
        return void this.resume();
    }
  }

  /** Reads the list and whatever is missing of the logs. */
  async resume() {
    const round = ++this.round;
    try {
      const seen = new Set();
      // What comes, or moves to another page, while the list is read may not be in it.
      const before = new Map([...this.conversations].map(([id, { head_seq }]) => [id, head_seq]));
      let cursor;
      do {
        /** @type {any} */
        const page = await this.request({ type: "list", cursor, limit: 200 });
        if (round !== this.round) return;
        for (const view of page.items) {
          seen.add(view.id);
          this.view(view);
        }
        cursor = page.next_cursor;
      } while (cursor);
      for (const [id, head] of before) if (!seen.has(id) && this.conversations.get(id)?.head_seq === head) this.drop(id);
      this.synced = true;
      this.failure = null;
      this.touch("status", "list");
      await this.pull([...this.logs].filter(([, log]) => log.missing).map(([id]) => id));
    } catch (error) {
      if (round !== this.round || !(error instanceof Refusal)) return;
      // A broken connection comes here again by itself.
      if (error.code === "NO_ANSWER" && this.status !== "online") return;
      this.failure = error;
      this.touch("status");
      this.later("resume", Math.max(error.retryAfterMs, 2_000), () => this.status === "online" && void this.resume());
    }
  }

  /** @param {Message & {type?: string}} frame */
  onMessage(frame) {
    const { type: _, ...message } = frame;
    const id = message.conversation_id;
    const conversation = this.conversations.get(id);
    if (!conversation) return this.onceKnown(id, () => this.onMessage(message));
    const log = this.log(id, message.seq - 1);
    const added = log.take(message);
    this.note(conversation, log, added);
    for (const one of added) this.emit("message", one);
    if (log.missing) this.later(`gap:${id}`, GAP_MS, () => log.missing && void this.pull([id]).catch(() => {}));
  }

  /**
   * Reads a conversation that is not known, then does what came too early: the answer may be older than it.
   * @param {string} id @param {() => void} work
   */
  onceKnown(id, work) {
    void this.readView(id).then(() => this.conversations.has(id) && work());
  }

  /** @param {{conversation_id: string, user_id: string, read_seq: number, delivered_seq: number}} frame */
  onMarks(frame) {
    const { conversation_id, user_id, read_seq, delivered_seq } = frame;
    const conversation = this.conversations.get(conversation_id);
    if (!conversation) return this.onceKnown(conversation_id, () => this.onMarks(frame));
    if (user_id === this.me?.id) {
      conversation.delivered_seq = Math.max(conversation.delivered_seq, delivered_seq);
      if (read_seq > conversation.read_seq) this.countUnread(conversation, read_seq);
    } else {
      conversation.peer_read_seq = Math.max(conversation.peer_read_seq, read_seq);
      conversation.peer_delivered_seq = Math.max(conversation.peer_delivered_seq, delivered_seq, read_seq);
    }
    this.keep(conversation);
    this.touch(`members:${conversation_id}`);
  }

  /** @param {Record<string, number>} heads */
  onHeads(heads) {
    const behind = [];
    for (const [id, head] of Object.entries(heads)) {
      if (!this.conversations.has(id)) {
        void this.readView(id);
        continue;
      }
      const log = this.log(id, head);
      log.hear(head);
      if (log.missing) behind.push(id);
    }
    void this.pull(behind).catch(() => {});
  }

  /** @param {Pending} pending @param {any} ack */
  stored(pending, ack) {
    const { conversation_id, client_msg_id, kind, text, data, reply_to } = pending;
    const { seq, message_id, created_at } = ack;
    const sender_id = this.me?.id ?? "";
    const message = { conversation_id, client_msg_id, kind, text, data, reply_to, seq, message_id, created_at, sender_id };
    const conversation = this.conversations.get(conversation_id);
    if (!conversation) return;
    const log = this.log(conversation_id, seq - 1);
    this.note(conversation, log, log.take(message));
    if (log.missing) this.later(`gap:${conversation_id}`, GAP_MS, () => log.missing && void this.pull([conversation_id]).catch(() => {}));
  }

  // ---- Logs and conversations

  /** The log of a conversation; one that nobody has looked at yet begins at its end. @param {string} id @param {number} head */
  log(id, head) {
    let log = this.logs.get(id);
    if (!log) this.logs.set(id, (log = new Log(head)));
    return log;
  }

  /** Takes a conversation as the server sees it. @param {Conversation} view @returns {Conversation} */
  view(view) {
    const before = this.conversations.get(view.id);
    const log = this.log(view.id, view.head_seq);
    log.hear(view.head_seq);
    if (log.missing && log.head - log.have > CATCH_UP_MAX) this.restart(view.id, log, view.head_seq);
    /** @type {Conversation} */
    const conversation = { ...view, counted_seq: view.head_seq };
    if (before) {
      conversation.peer_read_seq = Math.max(view.peer_read_seq, before.peer_read_seq);
      conversation.peer_delivered_seq = Math.max(view.peer_delivered_seq, before.peer_delivered_seq);
      // An answer may be older than what has come by itself meanwhile.
      if ((before.counted_seq ?? 0) > view.head_seq) {
        const { head_seq, counted_seq, last_message, active_at, unread } = before;
        Object.assign(conversation, { head_seq, counted_seq, last_message, active_at, unread });
      }
    }
    this.conversations.set(view.id, conversation);
    if (before && before.read_seq > view.read_seq) {
      this.countUnread(conversation, before.read_seq);
      this.marks.raise(view.id, { read_seq: before.read_seq });
    }
    if (view.head_seq > view.delivered_seq && !view.left) this.marks.raise(view.id, { delivered_seq: view.head_seq });
    this.keep(conversation);
    return conversation;
  }

  /** Too much is missing: begin anew at the end, history is read when somebody looks. @param {string} id @param {Log} log @param {number} head */
  restart(id, log, head) {
    log.restart(head);
    this.kept.delete(id);
    this.flushStore();
    this.store.write([{ table: "messages", forget: id }]).catch(() => {});
    this.keepEntries(id, log, []);
    if (this.looking === id) void this.older(id).catch(() => {});
  }

  /** New entries at the end of a log. @param {Conversation} conversation @param {Log} log @param {Message[]} added */
  note(conversation, log, added) {
    if (!added.length) return;
    const me = this.me?.id;
    let changed = false;
    for (const message of added) {
      if (message.sender_id === me) this.outbox.settle(message.client_msg_id);
      if (message.seq >= (conversation.last_message?.seq ?? 0)) conversation.last_message = message;
      conversation.head_seq = Math.max(conversation.head_seq, message.seq);
      conversation.active_at = Math.max(conversation.active_at, message.created_at);
      if (message.seq > (conversation.counted_seq ?? 0)) {
        conversation.counted_seq = message.seq;
        if (message.sender_id !== me && message.kind !== "event" && message.seq > conversation.read_seq) conversation.unread += 1;
      }
      changed ||= message.kind === "event";
    }
    if (conversation.head_seq > conversation.delivered_seq && !conversation.left) {
      this.marks.raise(conversation.id, { delivered_seq: conversation.head_seq });
    }
    if (this.looking !== conversation.id) log.trim(KEEP);
    this.keepEntries(conversation.id, log, added);
    this.keep(conversation);
    // What an event did to the conversation (name, roles, membership) the server knows best.
    if (changed) {
      this.later(`view:${conversation.id}`, VIEW_MS, () => void this.readView(conversation.id));
      this.touch(`members:${conversation.id}`);
    }
  }

  /** Pulls what is missing of these conversations. @param {string[]} ids */
  async pull(ids) {
    for (let from = 0; from < ids.length; from += SYNC_MAX) {
      let open = ids.slice(from, from + SYNC_MAX);
      while (open.length) {
        const have = Object.fromEntries(open.map((id) => [id, this.logs.get(id)?.have ?? 0]));
        const answer = await this.request({ type: "sync", have, limit: 100 });
        const again = [];
        for (const { id, head_seq, messages, more } of answer.conversations) {
          const conversation = this.conversations.get(id);
          const log = this.logs.get(id);
          if (!conversation || !log) continue;
          const added = log.takePage(messages, more, head_seq);
          this.note(conversation, log, added);
          if (!added.length) this.keepEntries(id, log, []);
          if (more && messages.length) {
            if (head_seq - log.have > CATCH_UP_MAX) this.restart(id, log, head_seq);
            else again.push(id);
          }
        }
        open = again;
      }
    }
  }

  /** Reads a conversation as the server sees it now. @param {string} id @returns {Promise<void>} */
  readView(id) {
    const running = this.reading.get(id);
    if (running) return running;
    const known = this.conversations.has(id);
    const reading = this.api
      .request("GET", `/conversations/${id}`)
      .then((view) => {
        // Of a group that we left late frames come in; the list does not have it either.
        if (!this.connection || (view.left && !this.conversations.has(id))) return;
        const conversation = this.view(view);
        // The message that told of a new conversation was not shown yet.
        const last = conversation.last_message;
        if (!known && last) {
          this.logs.get(id)?.restart(last.seq - 1);
          this.onMessage(last);
        }
        const log = this.logs.get(id);
        if (log?.missing) return this.pull([id]);
      })
      .catch((error) => {
        if (error instanceof Problem && (error.status === 404 || error.status === 403)) this.drop(id);
      })
      .finally(() => this.reading.delete(id));
    this.reading.set(id, reading);
    return reading;
  }

  /** The conversation is not ours any more. @param {string} id */
  drop(id) {
    if (!this.conversations.delete(id)) return;
    this.logs.delete(id);
    this.kept.delete(id);
    this.flushStore();
    this.store
      .write([
        { table: "conversations", remove: [id] },
        { table: "logs", remove: [id] },
        { table: "messages", forget: id },
      ])
      .catch(() => {});
    this.touch("list", `timeline:${id}`);
  }

  /** @param {Conversation} conversation @param {number} readSeq */
  countUnread(conversation, readSeq) {
    conversation.read_seq = Math.max(conversation.read_seq, readSeq);
    const entries = this.logs.get(conversation.id)?.entries ?? [];
    const covered = readSeq >= conversation.head_seq || (entries[0]?.seq ?? Infinity) <= readSeq + 1;
    if (!covered) return this.later(`view:${conversation.id}`, VIEW_MS, () => void this.readView(conversation.id));
    conversation.unread = entries.filter((one) => one.seq > readSeq && one.sender_id !== this.me?.id && one.kind !== "event").length;
  }

  // ---- For those who show it

  /** Conversations, most recently active first. @returns {Conversation[]} */
  list() {
    return [...this.conversations.values()].sort((a, b) => b.active_at - a.active_at || (a.id < b.id ? 1 : -1));
  }

  /**
   * Says which conversation is looked at: its history is read, the others' is let go of.
   * @param {string | null} id
   */
  async look(id) {
    const before = this.looking && this.logs.get(this.looking);
    if (before && this.looking !== id) before.trim(KEEP);
    this.looking = id;
    const log = id && this.logs.get(id);
    if (id && log && log.entries.length < PAGE / 2 && log.more) await this.older(id);
  }

  /** Entries and what follows them without a seq yet. @param {string} id */
  timeline(id) {
    const log = this.logs.get(id);
    return { entries: log?.entries ?? [], more: log?.more ?? false, pending: this.outbox.of(id) };
  }

  /** Reads one more page of history: what is kept here, or else what the server has. @param {string} id @returns {Promise<void>} */
  older(id) {
    const name = `older:${id}`;
    const running = this.reading.get(name);
    if (running) return running;
    const reading = this.readOlder(id).finally(() => this.reading.delete(name));
    this.reading.set(name, reading);
    return reading;
  }

  /** @param {string} id */
  async readOlder(id) {
    const log = this.logs.get(id);
    if (!log?.more) return;
    const before = log.entries[0]?.seq ?? log.have + 1;
    const kept = this.kept.get(id);
    if (kept && kept.floor < before - 1) {
      this.flushStore();
      const rows = (await this.store.page(id, before, PAGE).catch(() => [])).filter((row) => row.seq > kept.floor);
      if ((log.entries[0]?.seq ?? log.have + 1) !== before) return;
      if (rows.length) {
        log.takeOlder(rows.map(({ key: _, ...message }) => message), kept.more || rows.length === PAGE || rows[0].seq > kept.floor + 1);
        return this.touch(`timeline:${id}`);
      }
    }
    const page = await this.request({ type: "history", conversation_id: id, before, limit: PAGE });
    if ((log.entries[0]?.seq ?? log.have + 1) !== before) return;
    this.keepEntries(id, log, log.takeOlder(page.messages, page.more));
  }

  /** An entry of a log, read if it is not here. @param {string} id @param {number} seq @returns {Message | undefined} */
  entry(id, seq) {
    return this.logs.get(id)?.at(seq);
  }

  /** @param {Message} message @returns {"stored" | "delivered" | "read"} how far an own message has come */
  stateOf(message) {
    const conversation = this.conversations.get(message.conversation_id);
    if (conversation && conversation.peer_read_seq >= message.seq) return "read";
    return conversation && conversation.peer_delivered_seq >= message.seq ? "delivered" : "stored";
  }

  /** The user looks at the entries up to `seq`. @param {string} id @param {number} seq */
  seen(id, seq) {
    const conversation = this.conversations.get(id);
    if (!conversation || seq <= conversation.read_seq || conversation.left) return;
    this.countUnread(conversation, seq);
    this.marks.raise(id, { read_seq: seq });
    this.keep(conversation);
  }

  /** Unread messages of all conversations that are not muted. */
  get unread() {
    let sum = 0;
    for (const { unread, muted } of this.conversations.values()) if (!muted) sum += unread;
    return sum;
  }

  /**
   * Queues a message; it goes out now or when the connection is back.
   * @param {string} id @param {string} text @param {number | null} [replyTo] seq of the entry that it answers
   * @returns {Pending}
   */
  send(id, text, replyTo = null) {
    /** @type {Pending} */
    const pending = { conversation_id: id, client_msg_id: uuid7(), kind: "text", text, reply_to: replyTo, created_at: Date.now(), failed: null };
    this.outbox.add(pending);
    return pending;
  }

  /** @param {string} id */
  draft(id) {
    return this.drafts.get(id) ?? "";
  }

  /** @param {string} id @param {string} text */
  setDraft(id, text) {
    if (this.draft(id) === text) return;
    if (text) this.drafts.set(id, text);
    else this.drafts.delete(id);
    this.write(text ? { table: "drafts", put: [{ id, text }] } : { table: "drafts", remove: [id] });
    this.touch("list");
  }

  /** A user, if known; otherwise asked for, and `users` is told. @param {string} id @returns {User | undefined} */
  user(id) {
    if (!this.asked.has(id)) {
      this.asked.add(id);
      this.wanted.add(id);
      this.later("lookup", LOOKUP_MS, () => void this.lookup());
    }
    return this.users.get(id);
  }

  async lookup() {
    const ids = [...this.wanted].slice(0, LOOKUP_MAX);
    for (const id of ids) this.wanted.delete(id);
    if (!ids.length) return;
    try {
      const { items } = await this.api.request("POST", "/users/lookup", { ids });
      this.know(items);
    } catch {
      for (const id of ids) this.wanted.add(id);
      return this.later("lookup", LOOKUP_AGAIN_MS, () => void this.lookup());
    }
    if (this.wanted.size) this.later("lookup", LOOKUP_MS, () => void this.lookup());
  }

  /** @param {User[]} users */
  know(users) {
    for (const user of users) {
      this.users.set(user.id, user);
      this.asked.add(user.id);
    }
    this.write({ table: "users", put: users });
    this.touch("users", "list");
  }

  // ---- What is done over HTTP; each throws a `Problem` when refused, a `TypeError` when the server is away

  /** @param {string} nameOrId the exact user name @returns {Promise<User | null>} */
  async findUser(nameOrId) {
    const { items } = await this.api.request("GET", `/users?q=${encodeURIComponent(nameOrId)}`);
    this.know(items);
    return items[0] ?? null;
  }

  /** @param {Promise<Conversation>} view @returns {Promise<Conversation>} */
  async taken(view) {
    return this.view(await view);
  }

  /** The 1:1 with a user; there is one for each pair. @param {string} userId */
  startChat(userId) {
    return this.taken(this.api.request("POST", "/conversations", { kind: "single", participants: [userId] }));
  }

  /**
   * @param {{name: string, description?: string, participants: string[]}} group
   * @param {string} [key] the same key makes the same group: for repeating after an unknown outcome
   */
  createGroup(group, key = uuid7()) {
    return this.taken(this.api.request("POST", "/groups", group, { "idempotency-key": key }));
  }

  /** @param {string} id @returns {Promise<Member[]>} */
  async members(id) {
    const members = [];
    let cursor = "";
    do {
      const page = await this.api.request("GET", `/conversations/${id}/members?limit=200${cursor}`);
      members.push(...page.items);
      cursor = page.next_cursor ? `&cursor=${encodeURIComponent(page.next_cursor)}` : "";
    } while (cursor);
    return members;
  }

  /** @param {string} id @param {string[]} users */
  invite(id, users) {
    return this.taken(this.api.request("POST", `/groups/${id}/members`, { user_ids: users }));
  }

  /** @param {string} id @param {string} user */
  remove(id, user) {
    return this.api.request("DELETE", `/groups/${id}/members/${user}`);
  }

  /** @param {string} id @param {string} user @param {"admin" | "member"} role */
  setRole(id, user, role) {
    return this.api.request("PATCH", `/groups/${id}/members/${user}`, { role });
  }

  /** @param {string} id @param {string} user @param {number | null} until */
  silence(id, user, until) {
    return this.api.request("PATCH", `/groups/${id}/members/${user}`, { silenced_until: until });
  }

  /** @param {string} id @param {string} user */
  handOver(id, user) {
    return this.taken(this.api.request("PUT", `/groups/${id}/owner`, { user_id: user }));
  }

  /** @param {string} id @param {{name?: string, description?: string, avatar_url?: string, max_members?: number, join_mode?: string}} changes */
  edit(id, changes) {
    return this.taken(this.api.request("PATCH", `/groups/${id}`, changes));
  }

  /** Leaves a group; a 1:1 is hidden until its next message. @param {string} id */
  async leave(id) {
    await this.api.request("POST", `/conversations/${id}/leave`);
    this.drop(id);
  }

  /** @param {string} id */
  async dissolve(id) {
    await this.api.request("DELETE", `/groups/${id}`);
    await this.readView(id);
  }

  /** @param {string} id @param {boolean} muted */
  async mute(id, muted) {
    await this.api.request("PUT", `/conversations/${id}/mute`, { muted });
    const conversation = this.conversations.get(id);
    if (conversation) this.keep(Object.assign(conversation, { muted }));
  }

  /** A new invitation link; the one before it ends. @param {string} id @returns {Promise<string>} its secret, which is shown this once */
  async newLink(id) {
    return (await this.api.request("POST", `/groups/${id}/link`)).secret;
  }

  /** @param {string} id */
  endLink(id) {
    return this.api.request("DELETE", `/groups/${id}/link`);
  }

  /** @param {string} secret of an invitation link */
  joinByLink(secret) {
    return this.taken(this.api.request("POST", "/groups/join", { secret }));
  }

  /** Who asks to join. @param {string} id @returns {Promise<{user_id: string, created_at: number}[]>} */
  async joinRequests(id) {
    return (await this.api.request("GET", `/groups/${id}/requests`)).items;
  }

  /** @param {string} id @param {string} user @param {boolean} accept */
  answerRequest(id, user, accept) {
    return this.api.request("PUT", `/groups/${id}/requests/${user}`, { accept });
  }

  /** @returns {Promise<Device[]>} */
  async devices() {
    return (await this.api.request("GET", "/devices")).items;
  }

  /** @param {string} id */
  revokeDevice(id) {
    return this.api.request("DELETE", `/devices/${id}`);
  }

  /** @param {{display_name?: string, avatar_url?: string | null}} changes */
  async updateProfile(changes) {
    const user = await this.api.request("PATCH", "/users/me", changes);
    const saved = this.api.sessions.load();
    if (saved) this.api.sessions.save({ ...saved, user });
    this.know([user]);
    return user;
  }

  /** Signs the other devices out. @param {string} current @param {string} next */
  changePassword(current, next) {
    return this.api.request("POST", "/users/me/password", { current, new: next });
  }
}

/** @param {string} url */
function webSocketUrl(url) {
  return `${url.replace(/^http/, "ws")}api/v1/ws`;
}

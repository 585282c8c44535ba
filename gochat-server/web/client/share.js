// @ts-check
/**
 * One connection for all tabs of an account: the same device must not be connected twice (docs/protocol.md §4, code 4012).
 *
 * The tab that holds a Web Lock connects; the others ask it over a BroadcastChannel and hear what it hears. When it goes
 * away the browser gives the lock to the next one. Browsers without locks connect on their own: the newest tab wins.
 */
import { ANSWER_MS, Connection, Refusal } from "./connection.js";

/**
 * @typedef {object} Shared
 * @property {() => void} start
 * @property {() => void} stop
 * @property {() => void} hurry
 * @property {(frame: Record<string, any>) => Promise<any>} request
 */

/**
 * @param {string} name one for each device of a user
 * @param {import("./connection.js").Options} options
 * @returns {Shared}
 */
export function connect(name, options) {
  const locks = globalThis.navigator?.locks;
  return locks && typeof BroadcastChannel !== "undefined" ? new SharedConnection(name, options, locks) : new Connection(options);
}

/** @implements {Shared} */
export class SharedConnection {
  /**
   * @param {string} name @param {import("./connection.js").Options} options @param {Pick<LockManager, "request">} locks
   * @param {BroadcastChannel} [channel]
   */
  constructor(name, options, locks, channel = new BroadcastChannel(name)) {
    this.name = name;
    this.options = options;
    this.locks = locks;
    this.channel = channel;
    this.me = crypto.getRandomValues(new Uint32Array(2)).join("-");
    /** @type {Connection | null} ours, while we lead */
    this.own = null;
    /** @type {import("./types.js").Status} */
    this.status = "connecting";
    this.nextAsk = 1;
    /** @type {Map<number, {resolve: (answer: any) => void, reject: (error: Error) => void, timer: ReturnType<typeof setTimeout>}>} */
    this.asks = new Map();
    /** @type {AbortController | null} */
    this.started = null;
    this.release = () => {};
    channel.onmessage = (event) => this.told(event.data);
  }

  start() {
    if (this.started) {
      this.own?.start();
      if (!this.own) this.channel.postMessage({ start: true });
      return;
    }
    this.started = new AbortController();
    this.options.onStatus("connecting");
    this.channel.postMessage({ hello: this.me });
    this.locks.request(this.name, { signal: this.started.signal }, () => this.lead()).catch(() => {});
  }

  stop() {
    this.started?.abort();
    this.started = null;
    this.own?.stop();
    this.own = null;
    this.release();
    this.abandon();
  }

  hurry() {
    if (this.own) this.own.hurry();
    else this.channel.postMessage({ hurry: true });
  }

  /** Leads until stopped. @returns {Promise<void>} */
  lead() {
    if (!this.started) return Promise.resolve();
    this.abandon();
    this.own = new Connection({
      ...this.options,
      onFrame: (frame) => {
        this.channel.postMessage({ frame });
        this.options.onFrame(frame);
      },
      onStatus: (status) => {
        this.status = status;
        this.channel.postMessage({ status });
        this.options.onStatus(status);
      },
    });
    this.own.start();
    return new Promise((resolve) => (this.release = resolve));
  }

  /** @param {Record<string, any>} frame @returns {Promise<any>} */
  async request(frame) {
    if (this.own) return this.perform(this.own, frame, this.me);
    const ask = this.nextAsk++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.asks.delete(ask);
        reject(new Refusal("NO_ANSWER", "no answer from the tab that is connected"));
      }, ANSWER_MS);
      this.asks.set(ask, { resolve, reject, timer });
      this.channel.postMessage({ ask, from: this.me, frame });
    });
  }

  /**
   * What one tab does the others must learn from us: to the server they are the same device.
   * @param {Connection} connection @param {Record<string, any>} frame @param {string} from
   */
  async perform(connection, frame, from) {
    const answer = await connection.request(frame);
    const echo = echoOf(frame, answer, connection.userId);
    if (echo) {
      this.channel.postMessage({ frame: echo });
      if (from !== this.me) this.options.onFrame(echo);
    }
    return answer;
  }

  /** @param {any} note */
  told(note) {
    if (!this.started) return;
    const own = this.own;
    if (own) {
      if (note.hello) this.channel.postMessage({ status: this.status });
      if (note.hurry) own.hurry();
      if (note.start) own.start();
      if (note.ask) {
        this.perform(own, note.frame, note.from).then(
          (answer) => this.channel.postMessage({ to: note.from, answers: note.ask, answer }),
          (error) =>
            this.channel.postMessage({
              to: note.from,
              answers: note.ask,
              refusal: { code: error.code ?? "NO_ANSWER", message: error.message, retryAfterMs: error.retryAfterMs },
            }),
        );
      }
      return;
    }
    if (note.frame && !note.ask) this.options.onFrame(note.frame);
    if (note.status) this.options.onStatus((this.status = note.status));
    if (note.to === this.me) {
      const ask = this.asks.get(note.answers);
      if (!ask) return;
      this.asks.delete(note.answers);
      clearTimeout(ask.timer);
      if (note.refusal) ask.reject(new Refusal(note.refusal.code, note.refusal.message, note.refusal.retryAfterMs));
      else ask.resolve(note.answer);
    }
  }

  /** The tab that was asked is gone. */
  abandon() {
    for (const { reject, timer } of this.asks.values()) {
      clearTimeout(timer);
      reject(new Refusal("NO_ANSWER", "the tab that was connected went away"));
    }
    this.asks.clear();
  }
}

/**
 * The frame that the server would have sent to another device.
 * @param {Record<string, any>} frame @param {any} answer @param {string | null} userId
 */
function echoOf(frame, answer, userId) {
  if (frame.type === "send") {
    const { conversation_id, client_msg_id, kind = "text", text, data, reply_to } = frame;
    const { seq, message_id, created_at } = answer;
    return { type: "message", conversation_id, client_msg_id, kind, text, data, reply_to, seq, message_id, created_at, sender_id: userId };
  }
  if (frame.type === "mark") {
    const { conversation_id, read_seq = 0, delivered_seq = 0 } = frame;
    return { type: "marks", conversation_id, read_seq, delivered_seq, user_id: userId };
  }
  return null;
}

// @ts-check
/**
 * One WebSocket that is always being kept: connects, authenticates, answers requests by id, and connects again with
 * exponential back-off and full jitter (docs/protocol.md §4).
 */

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 20_000;
/** How long each close code makes us wait at least; for 4000 a random part of it, so that not all come back at once. */
const DRAIN_MS = 3_000;
const TOO_MANY_MS = 10_000;
/** No connection, or no answer, for so long: give up; the outcome is unknown. */
export const ANSWER_MS = 10_000;
/** Nothing heard for so long: the connection is dead. It is asked before. */
const SILENCE_MS = 40_000;
const PING_MS = 25_000;
/** Requests other than `send` that wait for an answer; the server takes 32. */
const IN_FLIGHT_MAX = 16;

const TEMPORARY = new Set(["NO_ANSWER", "OVERLOADED", "UNAVAILABLE", "DRAINING", "RATE_LIMITED", "TIMEOUT_UNKNOWN"]);

/** A refusal of a request, or no answer at all (`code` is then `NO_ANSWER`). */
export class Refusal extends Error {
  /** @param {string} code @param {string} message @param {number} [retryAfterMs] */
  constructor(code, message, retryAfterMs = 0) {
    super(message);
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the same request may be repeated. */
  get temporary() {
    return TEMPORARY.has(this.code);
  }
}

/**
 * @typedef {object} Options
 * @property {string} url
 * @property {() => Promise<string | null>} token `null`: signed out
 * @property {(frame: any) => void} onFrame what nobody asked for
 * @property {(status: import("./types.js").Status) => void} onStatus
 * @property {() => void} [onTokenRefused] a token that is not good any more
 * @property {(url: string, protocol: string) => WebSocket} [open]
 * @property {() => number} [random]
 */

export class Connection {
  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    this.open = options.open ?? ((url, protocol) => new WebSocket(url, protocol));
    this.random = options.random ?? Math.random;
    /** @type {WebSocket | null} */
    this.socket = null;
    this.nextId = 1;
    /** @type {Map<number, {frame: any, resolve: (frame: any) => void, reject: (error: Error) => void, timer: ReturnType<typeof setTimeout>}>} */
    this.waiting = new Map();
    /** @type {(() => void)[]} requests that wait until an earlier one is answered */
    this.queue = [];
    this.inFlight = 0;
    this.failures = 0;
    /** Refusals of the token since the last success. */
    this.refused = 0;
    this.stopped = true;
    this.ready = false;
    /** @type {string | null} who we are, once the server has said so */
    this.userId = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.retry = undefined;
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.heart = undefined;
    this.heardAt = 0;
  }

  start() {
    if (!this.stopped) return;
    this.stopped = false;
    this.failures = 0;
    this.refused = 0;
    void this.connect();
  }

  stop() {
    this.end("offline");
    this.drop(1000);
  }

  /** Connects now if a connection is being waited for: the network came back, the page is shown again. */
  hurry() {
    if (this.stopped || this.socket) return;
    clearTimeout(this.retry);
    this.failures = 0;
    void this.connect();
  }

  async connect() {
    clearTimeout(this.retry);
    this.options.onStatus("connecting");
    let token;
    try {
      token = await this.options.token();
    } catch {
      return this.again(0);
    }
    if (this.stopped || this.socket) return;
    if (!token) return this.end("signed_out");
    const socket = this.open(this.options.url, "gochat.v1.json");
    this.socket = socket;
    const opening = setTimeout(() => this.closed(socket, 1006), ANSWER_MS);
    socket.onopen = () => {
      clearTimeout(opening);
      this.request({ type: "auth", token }).then(
        (ready) => this.become(ready),
        // A refused token is followed by the server's close, which says what to do.
        (error) => error.code === "NO_ANSWER" && this.closed(socket, 1006),
      );
    };
    socket.onmessage = (event) => this.heard(event.data);
    socket.onclose = (event) => {
      clearTimeout(opening);
      this.closed(socket, event.code);
    };
    socket.onerror = () => {};
  }

  /** @param {any} ready */
  become(ready) {
    this.userId = ready.user_id;
    this.ready = true;
    this.failures = 0;
    this.refused = 0;
    this.beat();
    this.options.onStatus("online");
  }

  /** @param {string} data */
  heard(data) {
    this.heardAt = Date.now();
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    if (!frame.id) return this.options.onFrame(frame);
    const waiting = this.waiting.get(frame.id);
    if (!waiting) return;
    this.answered(frame.id);
    if (frame.type === "error") waiting.reject(new Refusal(frame.code, frame.message, frame.retry_after_ms));
    else waiting.resolve(frame);
  }

  /** @param {number} id */
  answered(id) {
    const waiting = this.waiting.get(id);
    if (!waiting) return;
    this.waiting.delete(id);
    clearTimeout(waiting.timer);
    if (isCounted(waiting.frame)) {
      this.inFlight -= 1;
      this.queue.shift()?.();
    }
  }

  /** @param {WebSocket} socket @param {number} code */
  closed(socket, code) {
    if (this.socket !== socket) return;
    this.drop(1000);
    if (this.stopped) return;
    switch (code) {
      case 4002:
        return this.end("signed_out");
      case 4012:
        return this.end("elsewhere");
      case 4001:
      case 4003:
        // A fresh token may help, once.
        this.options.onTokenRefused?.();
        this.refused += 1;
        return this.refused > 2 ? this.end("signed_out") : this.again(0);
      case 4000:
        return this.again(this.random() * DRAIN_MS);
      case 4029:
        return this.again(TOO_MANY_MS);
      default:
        return this.again(0);
    }
  }

  /** @param {import("./types.js").Status} status */
  end(status) {
    this.stopped = true;
    clearTimeout(this.retry);
    this.options.onStatus(status);
  }

  /** @param {number} atLeastMs */
  again(atLeastMs) {
    if (this.stopped) return;
    this.options.onStatus("offline");
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** this.failures);
    this.failures += 1;
    clearTimeout(this.retry);
    this.retry = setTimeout(() => void this.connect(), atLeastMs + this.random() * ceiling);
  }

  /** Lets go of the socket; what waits for an answer gets none. @param {number} code */
  drop(code) {
    clearInterval(this.heart);
    this.ready = false;
    const socket = this.socket;
    this.socket = null;
    socket?.close(code);
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    this.inFlight = 0;
    for (const { timer, reject } of waiting) {
      clearTimeout(timer);
      reject(new Refusal("NO_ANSWER", "the connection broke"));
    }
    for (const send of this.queue.splice(0)) send();
  }

  beat() {
    this.heardAt = Date.now();
    clearInterval(this.heart);
    this.heart = setInterval(() => {
      const silent = Date.now() - this.heardAt;
      if (silent > SILENCE_MS && this.socket) this.closed(this.socket, 1006);
      else if (silent > PING_MS) this.request({ type: "ping" }).catch(() => {});
    }, 5_000);
  }

  /**
   * Sends a request; its answer, or a {@link Refusal}. Without a connection it is refused at once.
   * @param {Record<string, any>} frame
   * @returns {Promise<any>}
   */
  request(frame) {
    return new Promise((resolve, reject) => {
      const send = () => {
        const socket = this.socket;
        if (!socket || socket.readyState !== 1 || (!this.ready && frame.type !== "auth")) {
          return reject(new Refusal("NO_ANSWER", "not connected"));
        }
        const id = this.nextId++;
        const timer = setTimeout(() => {
          this.answered(id);
          reject(new Refusal("NO_ANSWER", "no answer in time"));
        }, ANSWER_MS);
        this.waiting.set(id, { frame, resolve, reject, timer });
        if (isCounted(frame)) this.inFlight += 1;
        socket.send(JSON.stringify({ ...frame, id }));
      };
      if (isCounted(frame) && this.inFlight >= IN_FLIGHT_MAX) this.queue.push(send);
      else send();
    });
  }
}

/** @param {any} frame */
function isCounted(frame) {
  return frame.type !== "send" && frame.type !== "auth" && frame.type !== "ping";
}

// @ts-check
/**
 * Messages without an ack. They are sent one after the other in each conversation and repeated under the same id until the
 * server answers, so that none is lost and none is there twice (docs/protocol.md §5.5). They outlive the page.
 *
 * @typedef {import("./types.js").Pending} Pending
 */
import { Refusal } from "./connection.js";

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 20_000;

export class Outbox {
  /**
   * @param {object} options
   * @param {(frame: Record<string, any>) => Promise<any>} options.request
   * @param {(pending: Pending[]) => void} options.keep
   * @param {(id: string) => void} options.remove
   * @param {(pending: Pending, ack: any) => void} options.onStored
   * @param {(conversation: string) => void} options.onChange
   * @param {() => number} [options.random]
   */
  constructor(options) {
    this.options = options;
    this.random = options.random ?? Math.random;
    /** @type {Map<string, Pending>} in the order in which they were written */
    this.pending = new Map();
    /** @type {Set<string>} conversations that wait for an ack, or for the next try */
    this.busy = new Set();
    this.online = false;
    this.failures = 0;
  }

  /** What was left from the last visit. @param {Pending[]} pending */
  restore(pending) {
    const known = [...this.pending.values()];
    this.pending = new Map([...pending, ...known].map((one) => [one.client_msg_id, one]));
    if (this.online) this.flush();
  }

  /** @param {Pending} pending */
  add(pending) {
    this.pending.set(pending.client_msg_id, pending);
    this.options.keep([pending]);
    this.options.onChange(pending.conversation_id);
    void this.pump(pending.conversation_id);
  }

  /** What waits in a conversation, oldest first. @param {string} conversation */
  of(conversation) {
    return [...this.pending.values()].filter((pending) => pending.conversation_id === conversation);
  }

  /** Whether a connection is there. @param {boolean} online */
  setOnline(online) {
    this.online = online;
    if (online) this.flush();
  }

  flush() {
    for (const conversation of new Set([...this.pending.values()].map((pending) => pending.conversation_id))) void this.pump(conversation);
  }

  /** Tries a failed message again. @param {string} id */
  retry(id) {
    const pending = this.pending.get(id);
    if (!pending) return;
    pending.failed = null;
    this.options.keep([pending]);
    this.options.onChange(pending.conversation_id);
    void this.pump(pending.conversation_id);
  }

  /** Gives a message up. @param {string} id */
  discard(id) {
    this.settle(id);
  }

  /** The message is known to be stored: by its ack, or because it came with the log. @param {string} id */
  settle(id) {
    const pending = this.pending.get(id);
    if (!pending) return;
    this.pending.delete(id);
    this.options.remove(id);
    this.options.onChange(pending.conversation_id);
  }

  /** Sends what waits in a conversation, in order. @param {string} conversation */
  async pump(conversation) {
    if (this.busy.has(conversation)) return;
    this.busy.add(conversation);
    try {
      while (this.online) {
        const next = this.of(conversation).find((pending) => !pending.failed);
        if (!next) return;
        await this.attempt(next);
      }
    } finally {
      this.busy.delete(conversation);
    }
  }

  /** @param {Pending} pending */
  async attempt(pending) {
    const { conversation_id, client_msg_id, kind, text, data, reply_to } = pending;
    try {
      const content = kind === "text" ? { text } : { data };
      const ack = await this.options.request({ type: "send", conversation_id, client_msg_id, kind, ...content, reply_to: reply_to ?? undefined });
      this.failures = 0;
      this.options.onStored(pending, ack);
      this.settle(client_msg_id);
    } catch (error) {
      const refusal = error instanceof Refusal ? error : new Refusal("NO_ANSWER", String(error));
      if (refusal.temporary) return this.wait(refusal.retryAfterMs);
      pending.failed = { code: refusal.code, message: refusal.message };
      if (!this.pending.has(client_msg_id)) return;
      this.options.keep([pending]);
      this.options.onChange(conversation_id);
    }
  }

  /** @param {number} atLeastMs */
  wait(atLeastMs) {
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** this.failures);
    this.failures += 1;
    return new Promise((resolve) => setTimeout(resolve, atLeastMs + this.random() * ceiling));
  }
}

/** What the tests have in place of a socket and of time. */
import { webcrypto } from "node:crypto";

// Older releases of Node.js do not have it as a global.
globalThis.crypto ??= webcrypto;

/** @param {number} seq @param {object} [more] */
export function entry(seq, more = {}) {
  return {
    conversation_id: "c",
    seq,
    message_id: `m${seq}`,
    sender_id: "bo",
    client_msg_id: `id${seq}`,
    kind: "text",
    text: `text ${seq}`,
    created_at: 1_000 + seq,
    ...more,
  };
}

/** Lets everything run that waits for promises only. */
export async function settled() {
  for (let turn = 0; turn < 30; turn++) await Promise.resolve();
}

/** A WebSocket whose other side is the test. */
export class FakeSocket {
  constructor() {
    this.readyState = 1;
    this.sent = [];
    this.closedWith = null;
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.readyState = 3;
    this.closedWith = code;
  }

  /** The newest frame of a type that was sent. */
  last(type) {
    return this.sent.filter((frame) => frame.type === type).at(-1);
  }

  say(frame) {
    this.onmessage({ data: JSON.stringify(frame) });
  }

  /** The server, or the network, ends the connection. */
  end(code) {
    this.readyState = 3;
    this.onclose({ code });
  }
}

/** Time that the test moves, in place of the timers and the clock, until the test ends. @param {import("node:test").TestContext} t */
export function fakeTime(t) {
  const real = { setTimeout, clearTimeout, setInterval, clearInterval, now: Date.now };
  const due = new Map();
  let now = 1_000_000;
  let next = 1;
  const set = (every) => (work, ms = 0) => (due.set(next, { at: now + ms, every: every ? ms : 0, work }), next++);
  const clear = (timer) => void due.delete(timer);
  Object.assign(globalThis, { setTimeout: set(false), setInterval: set(true), clearTimeout: clear, clearInterval: clear });
  Date.now = () => now;
  t.after(() => {
    const { now, ...timers } = real;
    Object.assign(globalThis, timers);
    Date.now = now;
  });
  return {
    tick(ms) {
      const until = now + ms;
      for (;;) {
        const [id, timer] = [...due].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
        if (!timer || timer.at > until) break;
        now = timer.at;
        if (timer.every) timer.at += timer.every;
        else due.delete(id);
        timer.work();
      }
      now = until;
    },
  };
}

/** A message is sent until it is answered, always under the same id, and in order. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Refusal } from "../client/connection.js";
import { Outbox } from "../client/outbox.js";
import { fakeTime, settled } from "./fake.js";

const pending = (id, conversation = "c") => ({ conversation_id: conversation, client_msg_id: id, kind: "text", text: `text of ${id}`, reply_to: null, created_at: 1, failed: null });

/** An outbox whose requests the test answers. */
function made(t) {
  const time = fakeTime(t);
  const requests = [];
  const kept = new Map();
  const stored = [];
  const outbox = new Outbox({
    request: (frame) => new Promise((resolve, reject) => requests.push({ frame, ack: (seq) => resolve({ seq }), refuse: (code, after) => reject(new Refusal(code, "no", after)) })),
    keep: (messages) => messages.forEach((one) => kept.set(one.client_msg_id, structuredClone(one))),
    remove: (id) => kept.delete(id),
    onStored: (one, ack) => stored.push([one.client_msg_id, ack.seq]),
    onChange: () => {},
    random: () => 1,
  });
  return { time, outbox, requests, kept, stored };
}

test("a message without an answer is repeated as it was", async (t) => {
  const { time, outbox, requests, kept, stored } = made(t);
  outbox.setOnline(true);
  outbox.add(pending("a"));
  requests[0].refuse("NO_ANSWER");
  await settled();
  assert.equal(requests.length, 1);
  assert.ok(kept.has("a"));
  time.tick(500);
  await settled();
  assert.deepEqual(requests[1].frame, requests[0].frame);
  assert.equal(requests[1].frame.client_msg_id, "a");
  requests[1].ack(7);
  await settled();
  assert.deepEqual(stored, [["a", 7]]);
  assert.equal(outbox.pending.size, 0);
  assert.equal(kept.size, 0);
});

test("a conversation's messages go one after the other, other conversations beside them", async (t) => {
  const { outbox, requests } = made(t);
  outbox.setOnline(true);
  outbox.add(pending("a"));
  outbox.add(pending("b"));
  outbox.add(pending("x", "other"));
  await settled();
  assert.deepEqual(requests.map(({ frame }) => frame.client_msg_id), ["a", "x"]);
  requests[0].ack(1);
  await settled();
  assert.deepEqual(requests.map(({ frame }) => frame.client_msg_id), ["a", "x", "b"]);
});

test("what is written without a connection goes out once it is back, in order", async (t) => {
  const { outbox, requests, kept } = made(t);
  outbox.add(pending("a"));
  outbox.add(pending("b"));
  await settled();
  assert.equal(requests.length, 0);
  assert.deepEqual([...kept.keys()], ["a", "b"]);
  outbox.setOnline(true);
  outbox.setOnline(true);
  await settled();
  assert.equal(requests.length, 1);
  requests[0].ack(1);
  await settled();
  assert.equal(requests[1].frame.client_msg_id, "b");
});

test("what was left from the last visit goes out under its old id", async (t) => {
  const { outbox, requests } = made(t);
  outbox.add(pending("new"));
  outbox.restore([pending("old")]);
  outbox.setOnline(true);
  await settled();
  assert.equal(requests[0].frame.client_msg_id, "old");
  requests[0].ack(1);
  await settled();
  assert.equal(requests[1].frame.client_msg_id, "new");
});

test("a final refusal is shown and does not hold up the next message", async (t) => {
  const { outbox, requests, kept } = made(t);
  outbox.setOnline(true);
  outbox.add(pending("a"));
  outbox.add(pending("b"));
  requests[0].refuse("SILENCED");
  await settled();
  assert.equal(kept.get("a").failed.code, "SILENCED");
  assert.equal(requests[1].frame.client_msg_id, "b");
  requests[1].ack(1);
  await settled();
  outbox.retry("a");
  await settled();
  assert.equal(requests[2].frame.client_msg_id, "a");
  requests[2].refuse("SILENCED");
  await settled();
  outbox.discard("a");
  assert.equal(outbox.pending.size, 0);
});

test("a server that asks for patience gets it", async (t) => {
  const { time, outbox, requests } = made(t);
  outbox.setOnline(true);
  outbox.add(pending("a"));
  requests[0].refuse("OVERLOADED", 3_000);
  await settled();
  time.tick(3_000);
  await settled();
  assert.equal(requests.length, 1);
  time.tick(500);
  await settled();
  assert.equal(requests.length, 2);
});

test("a message that came with the log is not sent again", async (t) => {
  const { time, outbox, requests } = made(t);
  outbox.setOnline(true);
  outbox.add(pending("a"));
  requests[0].refuse("NO_ANSWER");
  await settled();
  outbox.settle("a");
  time.tick(20_000);
  await settled();
  assert.equal(requests.length, 1);
});

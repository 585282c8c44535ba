/** Marks only rise, and are told at most once a second. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Refusal } from "../client/connection.js";
import { Marks } from "../client/marks.js";
import { fakeTime, settled } from "./fake.js";

function made(t, request) {
  const time = fakeTime(t);
  const frames = [];
  const marks = new Marks((frame) => (frames.push(frame), request?.(frames.length) ?? Promise.resolve({})));
  marks.setOnline(true);
  return { time, marks, frames };
}

test("many marks within a second are one, the highest", async (t) => {
  const { time, marks, frames } = made(t);
  marks.raise("c", { delivered_seq: 4 });
  marks.raise("c", { delivered_seq: 9 });
  marks.raise("c", { delivered_seq: 6, read_seq: 5 });
  time.tick(999);
  assert.equal(frames.length, 0);
  time.tick(1);
  assert.deepEqual(frames, [{ type: "mark", conversation_id: "c", delivered_seq: 9, read_seq: 5 }]);
});

test("what was read was delivered", async (t) => {
  const { time, marks, frames } = made(t);
  marks.raise("c", { read_seq: 5 });
  time.tick(1_000);
  assert.equal(frames[0].delivered_seq, 5);
});

test("a mark that the server knows is not told again", async (t) => {
  const { time, marks, frames } = made(t);
  marks.raise("c", { read_seq: 5 });
  time.tick(1_000);
  await settled();
  marks.raise("c", { read_seq: 5 });
  marks.raise("c", { delivered_seq: 3 });
  time.tick(5_000);
  assert.equal(frames.length, 1);
});

test("a mark without an answer is told again", async (t) => {
  const { time, marks, frames } = made(t, (count) => (count === 1 ? Promise.reject(new Refusal("NO_ANSWER", "away")) : Promise.resolve({})));
  marks.raise("c", { read_seq: 5 });
  time.tick(1_000);
  await settled();
  time.tick(1_000);
  await settled();
  assert.equal(frames.length, 2);
  assert.deepEqual(frames[1], frames[0]);
});

test("without a connection marks wait", async (t) => {
  const { time, marks, frames } = made(t);
  marks.setOnline(false);
  marks.raise("c", { read_seq: 5 });
  time.tick(5_000);
  assert.equal(frames.length, 0);
  marks.setOnline(true);
  time.tick(1_000);
  assert.equal(frames.length, 1);
});

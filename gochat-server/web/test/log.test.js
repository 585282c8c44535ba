/** A log shows each entry once and in order, whatever way they come. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Log } from "../client/log.js";
import { entry } from "./fake.js";

const seqs = (entries) => entries.map(({ seq }) => seq);

test("entries that come in order follow on", () => {
  const log = new Log(3);
  assert.deepEqual(seqs(log.take(entry(4))), [4]);
  assert.deepEqual(seqs(log.take(entry(5))), [5]);
  assert.equal(log.missing, false);
});

test("an entry that comes early waits until the gap closes", () => {
  const log = new Log();
  log.take(entry(1));
  assert.deepEqual(log.take(entry(3)), []);
  assert.deepEqual(log.take(entry(4)), []);
  assert.equal(log.missing, true);
  assert.deepEqual(seqs(log.take(entry(2))), [2, 3, 4]);
  assert.equal(log.missing, false);
  assert.deepEqual(seqs(log.entries), [1, 2, 3, 4]);
});

test("an entry that comes twice is there once", () => {
  const log = new Log();
  log.take(entry(1));
  assert.deepEqual(log.take(entry(1)), []);
  log.take(entry(3));
  log.take(entry(3));
  assert.deepEqual(seqs(log.takePage([entry(1), entry(2), entry(3)], false, 3)), [2, 3]);
  assert.deepEqual(seqs(log.entries), [1, 2, 3]);
});

test("a pulled page repairs the gap and lets early entries follow", () => {
  const log = new Log(1);
  log.take(entry(6));
  log.take(entry(7));
  assert.deepEqual(seqs(log.takePage([entry(2), entry(3)], true, 7)), [2, 3]);
  assert.equal(log.missing, true);
  assert.deepEqual(seqs(log.takePage([entry(4), entry(5)], true, 7)), [4, 5, 6, 7]);
  assert.equal(log.missing, false);
});

test("entries that a user cannot see leave holes that a page stands for", () => {
  const log = new Log(1);
  log.hear(9);
  assert.deepEqual(seqs(log.takePage([entry(2), entry(7)], false, 9)), [2, 7]);
  assert.equal(log.have, 9);
  assert.equal(log.missing, false);
});

test("more early entries than fit keep the gap known", () => {
  const log = new Log();
  for (let seq = 2; seq <= 400; seq++) log.take(entry(seq));
  assert.ok(log.early.size <= 256);
  log.take(entry(1));
  assert.equal(log.head, 400);
  assert.equal(log.missing, true);
});

test("history goes below the window, once", () => {
  const log = new Log(10);
  assert.equal(log.more, true);
  assert.deepEqual(seqs(log.takeOlder([entry(8), entry(9), entry(10)], true)), [8, 9, 10]);
  assert.deepEqual(seqs(log.takeOlder([entry(6), entry(7), entry(8)], false)), [6, 7]);
  assert.deepEqual(seqs(log.entries), [6, 7, 8, 9, 10]);
  assert.equal(log.more, false);
  assert.equal(log.at(9)?.seq, 9);
  assert.equal(log.at(11), undefined);
});

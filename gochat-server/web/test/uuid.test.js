/** Message ids are UUIDs of version 7 that sort as they were made. */
import assert from "node:assert/strict";
import { test } from "node:test";
import "./fake.js";
import { uuid7 } from "../client/uuid.js";

test("ids have version 7, the right variant and the time in front", () => {
  const id = uuid7(0x0193_6f6e_8a3c);
  assert.match(id, /^01936f6e-8a3c-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("ids of one millisecond, and of a clock that goes back, still rise", () => {
  const now = Date.now() + 1_000;
  const ids = Array.from({ length: 10_000 }, (_, at) => uuid7(now - (at % 3)));
  assert.deepEqual([...ids].sort(), ids);
  assert.equal(new Set(ids).size, ids.length);
});

/** A connection is kept: every close has its answer, and tries spread out. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Connection } from "../client/connection.js";
import { FakeSocket, fakeTime, settled } from "./fake.js";

/** A connection that opens fake sockets; `random` is 1, so that waits have their longest length. */
function made(t, options = {}) {
  const time = fakeTime(t);
  const sockets = [];
  const statuses = [];
  const frames = [];
  const connection = new Connection({
    url: "ws://chat.test/",
    token: async () => "token",
    onFrame: (frame) => frames.push(frame),
    onStatus: (status) => statuses.push(status),
    open: () => (sockets.push(new FakeSocket()), sockets.at(-1)),
    random: () => 1,
    ...options,
  });
  t.after(() => connection.stop());
  const ready = async () => {
    await settled();
    const socket = sockets.at(-1);
    socket.onopen();
    socket.say({ type: "ready", id: socket.last("auth").id, user_id: "ana" });
    await settled();
    return socket;
  };
  return { time, connection, sockets, statuses, frames, ready };
}

test("the token goes in the first frame and nowhere else", async (t) => {
  const { connection, ready, statuses } = made(t, { url: "ws://chat.test/api/v1/ws" });
  connection.start();
  const socket = await ready();
  assert.deepEqual(socket.sent[0], { type: "auth", token: "token", id: 1 });
  assert.equal(statuses.at(-1), "online");
});

test("tries wait longer each time, up to 20 s, and begin anew after a success", async (t) => {
  const { time, connection, sockets, ready } = made(t);
  connection.start();
  await settled();
  const waits = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000];
  for (const [at, wait] of waits.entries()) {
    sockets.at(-1).end(1006);
    time.tick(wait - 1);
    await settled();
    assert.equal(sockets.length, at + 1, `too early after ${at} failures`);
    time.tick(1);
    await settled();
    assert.equal(sockets.length, at + 2, `no try ${wait} ms after failure ${at + 1}`);
  }
  const socket = await ready();
  socket.end(1006);
  time.tick(500);
  await settled();
  assert.equal(sockets.length, waits.length + 2);
});

test("the wait is a random part of its ceiling", async (t) => {
  const { time, connection, sockets } = made(t, { random: () => 0.25 });
  connection.start();
  await settled();
  sockets[0].end(1006);
  time.tick(124);
  await settled();
  assert.equal(sockets.length, 1);
  time.tick(1);
  await settled();
  assert.equal(sockets.length, 2);
});

for (const [code, status] of [[4002, "signed_out"], [4012, "elsewhere"]]) {
  test(`close code ${code} is terminal`, async (t) => {
    const { time, connection, sockets, statuses, ready } = made(t);
    connection.start();
    (await ready()).end(code);
    time.tick(120_000);
    await settled();
    assert.equal(sockets.length, 1);
    assert.equal(statuses.at(-1), status);
  });
}

test("a token that ended is distrusted, and a fresh one is tried", async (t) => {
  let refused = 0;
  const { time, connection, sockets, statuses, ready } = made(t, { onTokenRefused: () => (refused += 1) });
  connection.start();
  (await ready()).end(4003);
  assert.equal(refused, 1);
  time.tick(500);
  await ready();
  assert.equal(sockets.length, 2);
  assert.equal(statuses.at(-1), "online");
});

test("too many connections: it waits 10 s at least", async (t) => {
  const { time, connection, sockets, ready } = made(t, { random: () => 0 });
  connection.start();
  (await ready()).end(4029);
  time.tick(9_999);
  await settled();
  assert.equal(sockets.length, 1);
  time.tick(1);
  await settled();
  assert.equal(sockets.length, 2);
});

test("answers find their requests whatever their order; a break refuses what waits", async (t) => {
  const { connection, frames, ready } = made(t);
  connection.start();
  const socket = await ready();
  const [one, two, three] = [1, 2, 3].map((limit) => connection.request({ type: "list", limit }));
  const ids = socket.sent.filter((frame) => frame.type === "list").map(({ id }) => id);
  socket.say({ type: "list", id: ids[1], items: ["second"] });
  socket.say({ type: "message", seq: 7 });
  socket.say({ type: "error", id: ids[0], code: "DENIED", message: "no" });
  assert.deepEqual((await two).items, ["second"]);
  await assert.rejects(one, { code: "DENIED", temporary: false });
  assert.deepEqual(frames, [{ type: "message", seq: 7 }]);
  socket.end(1006);
  await assert.rejects(three, { code: "NO_ANSWER", temporary: true });
  await assert.rejects(connection.request({ type: "list" }), { code: "NO_ANSWER" });
});

test("a connection that is silent for 40 s is dead", async (t) => {
  const { time, connection, statuses, ready } = made(t);
  connection.start();
  const socket = await ready();
  time.tick(30_000);
  assert.equal(socket.last("ping")?.type, "ping");
  time.tick(15_000);
  assert.equal(statuses.at(-1), "offline");
  assert.notEqual(socket.closedWith, null);
});

/** The client as a whole, against a server of the test's own: gaps are pulled, nothing is sent or shown twice. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Refusal } from "../client/connection.js";
import { GoChat } from "../client/index.js";
import { memorySessions } from "../client/session.js";
import { memoryStore } from "../client/store.js";
import { entry, fakeTime, settled } from "./fake.js";

const ana = { id: "ana", username: "ana", display_name: "Ana", avatar_url: null };

/** A conversation as the server sees it. */
const conversation = (head, more = {}) => ({
  id: "c",
  kind: "single",
  name: "",
  peer_id: "bo",
  role: "member",
  left: false,
  muted: false,
  head_seq: head,
  read_seq: head,
  delivered_seq: head,
  peer_read_seq: 0,
  peer_delivered_seq: 0,
  unread: 0,
  active_at: 1_000 + head,
  last_message: head ? entry(head) : null,
  ...more,
});

/** A signed-in client; `answer` answers its frames, `http` what it asks for below `/api/v1`. */
async function made(t, { store = memoryStore(), answer, http = async () => ({ items: [] }) }) {
  const time = fakeTime(t);
  const sessions = memorySessions();
  sessions.save({ user: ana, device_id: "d", refresh_token: "r" });
  const frames = [];
  let options;
  let online = false;
  const chat = new GoChat({
    url: "http://chat.test/",
    sessions,
    openStore: async () => store,
    fetch: async (url) => {
      const session = { access_token: "a", expires_in: 7_200, refresh_token: "r", user: ana, device_id: "d" };
      return new Response(JSON.stringify(url.endsWith("/auth/refresh") ? session : await http(url)));
    },
    connect: (_, given) => {
      options = given;
      return {
        start: () => {},
        stop: () => {},
        hurry: () => {},
        request: async (frame) => {
          if (!online) throw new Refusal("NO_ANSWER", "not connected");
          frames.push(frame);
          return (await answer(frame)) ?? {};
        },
      };
    },
    random: () => 1,
  });
  const shown = [];
  chat.on("message", (message) => shown.push(message.seq));
  await chat.start();
  t.after(() => chat.stop());
  const go = async (status) => {
    online = status === "online";
    options.onStatus(status);
    await settled();
  };
  return { time, chat, frames, shown, store, go, say: (frame) => options.onFrame(frame), of: (type) => frames.filter((frame) => frame.type === type) };
}

test("a gap that does not close by itself is pulled after a second", async (t) => {
  const log = [1, 2, 3, 4, 5].map((seq) => entry(seq));
  const client = await made(t, {
    answer: (frame) => {
      if (frame.type === "list") return { items: [conversation(2)], next_cursor: null };
      if (frame.type === "sync") return { conversations: [{ id: "c", head_seq: 5, messages: log.filter(({ seq }) => seq > frame.have.c), more: false }] };
    },
  });
  await client.go("online");
  client.say({ type: "message", ...entry(5) });
  client.say({ type: "message", ...entry(3) });
  await settled();
  assert.deepEqual(client.shown, [3]);
  assert.equal(client.of("sync").length, 0);
  client.time.tick(1_000);
  await settled();
  assert.deepEqual(client.of("sync").map((frame) => frame.have), [{ c: 3 }]);
  assert.deepEqual(client.chat.timeline("c").entries.map(({ seq }) => seq), [3, 4, 5]);
  client.say({ type: "message", ...entry(4) });
  assert.deepEqual(client.chat.timeline("c").entries.map(({ seq }) => seq), [3, 4, 5]);
});

test("heads that are higher than the log are pulled", async (t) => {
  const client = await made(t, {
    answer: (frame) => {
      if (frame.type === "list") return { items: [conversation(2)], next_cursor: null };
      if (frame.type === "sync") return { conversations: [{ id: "c", head_seq: 3, messages: [entry(3)], more: false }] };
    },
  });
  await client.go("online");
  client.say({ type: "heads", heads: { c: 2 } });
  await settled();
  assert.equal(client.of("sync").length, 0);
  client.say({ type: "heads", heads: { c: 3 } });
  await settled();
  assert.deepEqual(client.chat.timeline("c").entries.map(({ seq }) => seq), [3]);
  assert.equal(client.chat.conversations.get("c").unread, 1);
});

test("a message whose ack got lost is sent again under its id and shown once", async (t) => {
  let acks = 0;
  const client = await made(t, {
    answer: (frame) => {
      if (frame.type === "list") return { items: [conversation(0)], next_cursor: null };
      if (frame.type === "send") {
        acks += 1;
        if (acks === 1) throw new Refusal("NO_ANSWER", "the connection broke");
        return { type: "ack", conversation_id: "c", seq: 1, message_id: "m1", created_at: 5 };
      }
    },
  });
  await client.go("online");
  client.chat.send("c", "hello");
  await settled();
  await client.go("offline");
  assert.equal(client.chat.timeline("c").pending.length, 1);
  await client.go("online");
  client.time.tick(500);
  await settled();
  const sent = client.of("send");
  assert.equal(sent.length, 2);
  assert.equal(sent[0].client_msg_id, sent[1].client_msg_id);
  const { entries, pending } = client.chat.timeline("c");
  assert.deepEqual([entries.length, pending.length, entries[0].text], [1, 0, "hello"]);
});

test("messages written offline outlive the page and go out once, in order; a draft stays", async (t) => {
  const store = memoryStore();
  const first = await made(t, { store, answer: (frame) => (frame.type === "list" ? { items: [conversation(0)], next_cursor: null } : {}) });
  await first.go("online");
  await first.go("offline");
  first.chat.send("c", "one");
  first.chat.send("c", "two");
  first.chat.setDraft("c", "three, not yet");
  first.chat.stop();
  await settled();

  let seq = 0;
  const second = await made(t, {
    store,
    answer: (frame) => {
      if (frame.type === "list") return { items: [conversation(0)], next_cursor: null };
      if (frame.type === "send") return { type: "ack", conversation_id: "c", seq: ++seq, message_id: `m${seq}`, created_at: seq };
    },
  });
  assert.equal(second.chat.draft("c"), "three, not yet");
  assert.deepEqual(second.chat.timeline("c").pending.map(({ text }) => text), ["one", "two"]);
  await second.go("online");
  await second.go("online");
  await settled();
  assert.deepEqual(second.of("send").map(({ text }) => text), ["one", "two"]);
  assert.deepEqual((await store.all("outbox")).length, 0);
});

test("the state of an own message follows the marks of the other", async (t) => {
  const own = entry(1, { sender_id: "ana" });
  const client = await made(t, { answer: (frame) => (frame.type === "list" ? { items: [conversation(0)], next_cursor: null } : {}) });
  await client.go("online");
  client.say({ type: "message", ...own });
  assert.equal(client.chat.stateOf(own), "stored");
  client.say({ type: "marks", conversation_id: "c", user_id: "bo", read_seq: 0, delivered_seq: 1 });
  assert.equal(client.chat.stateOf(own), "delivered");
  client.say({ type: "marks", conversation_id: "c", user_id: "bo", read_seq: 1, delivered_seq: 1 });
  assert.equal(client.chat.stateOf(own), "read");
  client.say({ type: "marks", conversation_id: "c", user_id: "bo", read_seq: 0, delivered_seq: 0 });
  assert.equal(client.chat.stateOf(own), "read");
});

test("what comes while a new conversation is read is not lost", async (t) => {
  let answer;
  const client = await made(t, {
    answer: (frame) => {
      if (frame.type === "list") return { items: [], next_cursor: null };
      if (frame.type === "sync") return { conversations: [{ id: "c", head_seq: 3, messages: [entry(3)].filter(({ seq }) => seq > frame.have.c), more: false }] };
    },
    http: (url) => (url.endsWith("/conversations/c") ? new Promise((resolve) => (answer = resolve)) : { items: [] }),
  });
  await client.go("online");
  client.say({ type: "message", ...entry(2) });
  client.say({ type: "message", ...entry(3) });
  client.say({ type: "marks", conversation_id: "c", user_id: "ana", read_seq: 3, delivered_seq: 3 });
  await settled();
  // Read before the third entry and the mark came.
  answer(conversation(2, { read_seq: 1, unread: 1 }));
  await settled();
  await settled();
  assert.deepEqual(client.shown, [2, 3]);
  assert.equal(client.chat.conversations.get("c").unread, 0);
});

test("a conversation that begins while the list is read stays; one that is not listed any more goes", async (t) => {
  const store = memoryStore();
  await store.write([{ table: "conversations", put: [conversation(3, { id: "gone" })] }]);
  let list;
  const client = await made(t, {
    store,
    answer: (frame) => (frame.type === "list" ? new Promise((resolve) => (list = resolve)) : { conversations: [] }),
    http: async (url) => (url.endsWith("/conversations/c") ? conversation(1) : { items: [] }),
  });
  assert.deepEqual([...client.chat.conversations.keys()], ["gone"]);
  await client.go("online");
  client.say({ type: "message", ...entry(1) });
  await settled();
  list({ items: [], next_cursor: null });
  await settled();
  assert.deepEqual([...client.chat.conversations.keys()], ["c"]);
});

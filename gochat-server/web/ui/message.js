// @ts-check
/** The rows of a thread: messages and what stands between them. */
import { avatar, h, hue, icon, iconButton } from "./dom.js";
import { explain, isEmoji, linked, nameOf, size, summary } from "./format.js";
import { STATES, stamp } from "./list.js";
import { attempt, copy } from "./overlay.js";

/**
 * @typedef {import("../client/index.js").GoChat} GoChat
 * @typedef {import("../client/types.js").Message | (import("../client/types.js").Pending & {sender_id: string, seq: number})} Shown
 *
 * Where a message stands: `first` and `last` of those that stand together.
 * @typedef {{own: boolean, first: boolean, last: boolean, group: boolean, answerable: boolean}} Place
 *
 * What one row of the thread shows; `shown` changes whenever it must be built again.
 * @typedef {{key: string, shown: string, build: () => HTMLElement}} Row
 */

/**
 * @param {GoChat} chat @param {Shown} message @param {Place} place
 * @param {{goTo: (seq: number) => void, answer: (seq: number) => void}} on
 * @returns {Row}
 */
export function messageRow(chat, message, place, on) {
  const failure = "failed" in message ? message.failed : null;
  const state = !place.own ? "" : "failed" in message ? (failure ? "failed" : "sending") : chat.stateOf(message);
  const sender = chat.user(message.sender_id);
  const answered = message.reply_to ? chat.entry(message.conversation_id, message.reply_to) : undefined;
  const quote = message.reply_to
    ? { name: answered ? (answered.sender_id === chat.me?.id ? "You" : nameOf(chat, answered.sender_id)) : "", text: answered ? summary(chat, answered).slice(0, 300) : "An earlier message" }
    : null;
  const shown = JSON.stringify([state, failure, place, place.group && !place.own ? [sender?.display_name, sender?.avatar_url] : 0, quote]);
  return { key: `${message.sender_id}/${message.client_msg_id}`, shown, build: () => build(chat, message, place, { state, quote, failure }, on) };
}

/**
 * @param {GoChat} chat @param {Shown} message @param {Place} place
 * @param {{state: string, quote: {name: string, text: string} | null, failure: {code: string, message: string} | null}} shown
 * @param {{goTo: (seq: number) => void, answer: (seq: number) => void}} on
 */
function build(chat, message, { own, first, last, group, answerable }, { state, quote, failure }, on) {
  const name = own ? "You" : nameOf(chat, message.sender_id);
  const sender = chat.user(message.sender_id);
  const emoji = message.kind === "text" && !quote && isEmoji(message.text ?? "");
  const seq = Number.isFinite(message.seq) ? message.seq : 0;
  const bubble = h(
    "div",
    { class: emoji ? "bubble emoji" : "bubble" },
    group && !own && first ? h("span", { class: `sender hue-text-${hue(message.sender_id)}`, dir: "auto" }, name) : h("span", { class: "hidden" }, `${name}: `),
    quote ? h("button", { class: "quote", type: "button", onclick: () => on.goTo(message.reply_to ?? 0) }, quote.name ? h("strong", { dir: "auto" }, quote.name) : null, h("span", { dir: "auto" }, quote.text)) : null,
    content(message),
    h("span", { class: "meta" }, stamp(message.created_at), state ? h("span", { class: `state ${state}` }, icon(STATES[state].icon, STATES[state].label)) : null),
  );
  const tools = seq
    ? h(
        "div",
        { class: "tools" },
        answerable ? iconButton("reply", "Reply", () => on.answer(seq)) : null,
        message.kind === "text" ? iconButton("copy", "Copy text", () => void attempt(() => copy(message.text ?? ""))) : null,
      )
    : null;
  const failed = failure
    ? h(
        "div",
        { class: "not-sent", role: "alert" },
        h("span", {}, `Not sent. ${explain(failure)}`),
        h(
          "span",
          { class: "not-sent-actions" },
          h("button", { class: "text-button", type: "button", onclick: () => chat.outbox.retry(message.client_msg_id) }, "Try again"),
          h("button", { class: "text-button", type: "button", onclick: () => chat.outbox.discard(message.client_msg_id) }, "Delete"),
        ),
      )
    : null;
  return h(
    "li",
    { class: ["message", own ? "own" : "other", first && "first", last && "last", group && "in-group"].filter(Boolean).join(" "), tabIndex: -1, "data-seq": seq || "", "data-state": state, onclick: touchTools },
    group && !own ? (last ? avatar({ id: message.sender_id, label: name, url: sender?.avatar_url, size: "tiny" }) : h("span", { class: "avatar-gap" })) : null,
    h("div", { class: "stack" }, h("div", { class: "bubble-row" }, bubble, tools), failed),
  );
}

/** @param {string} key @param {string} text @param {string} kind @returns {Row} */
export function divider(key, text, kind) {
  return { key, shown: text, build: () => h("li", { class: `divider ${kind}` }, h("span", { dir: "auto" }, text)) };
}

/** What a message says. @param {{kind: string, text?: string, data?: Record<string, any>}} message */
function content(message) {
  const data = message.data ?? {};
  const url = typeof data.url === "string" && /^(https?:\/\/|\/(?!\/))/.test(data.url) ? data.url : "";
  /** @param {import("./dom.js").Icon} shape @param {string} label @param {string} href */
  const attached = (shape, label, href) =>
    h("a", { class: "attachment", href, target: "_blank", rel: "noopener noreferrer" }, icon(shape), h("span", {}, h("strong", { dir: "auto" }, label), data.bytes ? h("span", {}, size(data.bytes)) : null));
  switch (message.kind) {
    case "text":
      return h("div", { class: "text", dir: "auto" }, linked(message.text ?? ""));
    case "image": {
      if (!url) break;
      const image = h("img", { class: "picture", src: url, alt: data.name ?? "Picture", loading: "lazy", referrerPolicy: "no-referrer" });
      if (data.width > 0 && data.height > 0) {
        image.width = Math.min(320, data.width);
        image.height = Math.round((image.width * data.height) / data.width);
      }
      image.onerror = () => image.replaceWith(h("span", { class: "text" }, "The picture cannot be shown"));
      return h("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, image);
    }
    case "file":
    case "audio":
    case "video":
      if (url) return attached("file", data.name ?? (message.kind === "audio" ? "Audio" : message.kind === "video" ? "Video" : "File"), url);
      break;
    case "location":
      return attached("place", data.name ?? data.address ?? "A place", `https://www.openstreetmap.org/?mlat=${Number(data.latitude)}&mlon=${Number(data.longitude)}&zoom=15`);
  }
  return h("div", { class: "text unknown" }, "A message of a kind that this app does not show");
}

/** A touch shows a message's tools; a mouse shows them by hovering. @param {Event} event */
function touchTools(event) {
  if (!matchMedia("(hover: none)").matches || /** @type {Element} */ (event.target).closest("a, button")) return;
  const node = /** @type {HTMLElement} */ (event.currentTarget);
  const shown = node.classList.contains("touched");
  for (const other of node.parentElement?.querySelectorAll(".touched") ?? []) other.classList.remove("touched");
  node.classList.toggle("touched", !shown);
}

/** Messages that have not come yet. */
export function ghosts() {
  const widths = ["w50", "w30", "w60", "w40", "w70", "w35"];
  return h(
    "div",
    { class: "ghosts" },
    h("p", { class: "hidden", role: "status" }, "Loading messages"),
    widths.map((width, at) => h("span", { class: `ghost bubble-ghost ${width} ${at % 3 === 1 ? "right" : ""}` })),
  );
}

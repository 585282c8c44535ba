// @ts-check
/** The line that is written in, the draft that it keeps, and which message it answers. */
import { fill, h, icon, iconButton } from "./dom.js";
import { nameOf, summary } from "./format.js";

const TEXT_BYTES_MAX = 16 * 1024;
const HEIGHT_MAX_PX = 180;

const encoder = new TextEncoder();

export class Composer {
  /**
   * @param {import("../client/index.js").GoChat} chat
   * @param {{sent: () => void, up: () => void}} on a message was sent; the reader wants to go up into the log
   */
  constructor(chat, on) {
    this.chat = chat;
    this.on = on;
    /** @type {string | null} the conversation that is written in */
    this.id = null;
    /** @type {number | null} */
    this.replyTo = null;
    this.reply = h("div", { class: "reply-bar", hidden: true });
    this.text = h("textarea", {
      id: "message",
      class: "composer-text",
      rows: 1,
      placeholder: "Message",
      "aria-label": "Message",
      enterKeyHint: "send",
      oninput: () => this.onInput(),
    });
    this.text.addEventListener("keydown", (event) => this.onKey(event));
    this.limit = h("span", { class: "limit", role: "status" });
    this.sendButton = h("button", { class: "send", type: "submit", id: "send", "aria-label": "Send", title: "Send" }, icon("send"));
    this.element = h("form", { class: "composer" }, this.reply, h("div", { class: "composer-row" }, this.text, this.limit, this.sendButton));
    this.element.onsubmit = (event) => {
      event.preventDefault();
      this.send();
    };
  }

  /** @param {string} id */
  show(id) {
    this.id = id;
    this.replyTo = null;
    this.text.value = this.chat.draft(id);
    this.showReply();
    this.grow();
    if (!touched()) this.focus();
  }

  focus() {
    this.text.focus({ preventScroll: true });
  }

  /** What is written next answers this message. @param {number} seq */
  answer(seq) {
    this.replyTo = seq;
    this.showReply();
    this.focus();
  }

  showReply() {
    const message = this.replyTo && this.id ? this.chat.entry(this.id, this.replyTo) : undefined;
    this.reply.hidden = !message;
    if (!message) return fill(this.reply);
    const cancel = () => {
      this.replyTo = null;
      this.showReply();
      this.focus();
    };
    const name = message.sender_id === this.chat.me?.id ? "yourself" : nameOf(this.chat, message.sender_id);
    fill(
      this.reply,
      icon("reply"),
      h("div", { class: "reply-text" }, h("strong", { dir: "auto" }, `Reply to ${name}`), h("span", { dir: "auto" }, summary(this.chat, message).slice(0, 200))),
      iconButton("close", "Do not reply", cancel),
    );
  }

  onInput() {
    if (this.id) this.chat.setDraft(this.id, this.text.value);
    this.grow();
  }

  grow() {
    this.text.style.height = "auto";
    this.text.style.height = `${Math.min(this.text.scrollHeight, HEIGHT_MAX_PX)}px`;
    const bytes = encoder.encode(this.text.value).length;
    this.limit.textContent = bytes > TEXT_BYTES_MAX * 0.9 ? String(TEXT_BYTES_MAX - bytes) : "";
    this.limit.classList.toggle("over", bytes > TEXT_BYTES_MAX);
    this.sendButton.disabled = !this.text.value.trim() || bytes > TEXT_BYTES_MAX;
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !touched()) {
      event.preventDefault();
      this.send();
    } else if (event.key === "Escape") {
      if (this.replyTo) {
        this.replyTo = null;
        this.showReply();
      } else {
        location.hash = "#";
      }
    } else if (event.key === "ArrowUp" && !this.text.value) {
      event.preventDefault();
      this.on.up();
    }
  }

  send() {
    const text = this.text.value.trim();
    if (!this.id || !text || encoder.encode(text).length > TEXT_BYTES_MAX) return;
    this.chat.send(this.id, text, this.replyTo);
    this.chat.setDraft(this.id, "");
    this.text.value = "";
    this.replyTo = null;
    this.showReply();
    this.grow();
    this.focus();
    this.on.sent();
  }
}

/** Fingers write on a keyboard that covers half the page, and whose Enter makes a new line. */
function touched() {
  return matchMedia("(pointer: coarse)").matches;
}

// @ts-check
/** Says that the connection is away, when it has been for a moment. */
import { fill, h } from "./dom.js";
import { explain } from "./format.js";

/** Shorter interruptions are nobody's business. */
const PATIENCE_MS = 1_200;

export class Banner {
  /** @param {import("../client/index.js").GoChat} chat */
  constructor(chat) {
    this.chat = chat;
    this.element = h("div", { class: "banner", role: "status", hidden: true });
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.update();
  }

  update() {
    const { status, failure } = this.chat;
    if (status === "online" && !failure) {
      clearTimeout(this.timer);
      this.timer = undefined;
      this.element.hidden = true;
      return;
    }
    if (status === "elsewhere" || failure) return this.show();
    this.timer ??= setTimeout(() => this.show(), PATIENCE_MS);
  }

  show() {
    const { status, failure } = this.chat;
    if (status === "online" && !failure) return;
    const button = (/** @type {string} */ label) => h("button", { class: "banner-button", type: "button", onclick: () => this.chat.hurry() }, label);
    if (status === "elsewhere") {
      fill(this.element, h("span", {}, "GoChat is open somewhere else with this sign-in."), button("Use it here"));
    } else if (failure) {
      fill(this.element, h("span", {}, `The conversations cannot be read. ${explain(failure)}`));
    } else {
      const spinner = h("span", { class: "spinner", "aria-hidden": "true" });
      fill(this.element, spinner, h("span", {}, "No connection. What you write is sent when it is back."), button("Try now"));
    }
    this.element.hidden = false;
  }
}

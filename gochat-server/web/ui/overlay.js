// @ts-check
/** Things that lie above the page: dialogs, menus, short notes. */
import { fill, h, icon, iconButton } from "./dom.js";
import { explain } from "./format.js";

let titles = 0;

/**
 * A modal dialog; the browser keeps the focus in it and closes it on Escape.
 * @param {string} title @param {(close: () => void) => (Node | string)[]} content @param {{class?: string}} [options]
 */
export function dialog(title, content, options = {}) {
  const id = `dialog-${++titles}`;
  const shown = h("dialog", { class: `dialog ${options.class ?? ""}`, "aria-labelledby": id });
  const close = () => shown.close();
  fill(
    shown,
    h("header", { class: "dialog-head" }, h("h2", { id }, title), iconButton("close", "Close", close)),
    h("div", { class: "dialog-body" }, content(close)),
  );
  shown.addEventListener("close", () => shown.remove());
  // The backdrop belongs to the dialog's own box.
  let pressed = false;
  shown.addEventListener("pointerdown", (event) => (pressed = event.target === shown));
  shown.addEventListener("click", (event) => event.target === shown && pressed && close());
  document.body.append(shown);
  shown.showModal();
  /** @type {HTMLElement | null} */ (shown.querySelector("[data-focus]"))?.focus();
  return shown;
}

/**
 * Asks before something that cannot be taken back.
 * @param {{title: string, text: string, action: string, danger?: boolean, run: () => Promise<unknown>}} question
 */
export function confirm({ title, text, action, danger = true, run }) {
  dialog(title, (close) => {
    const failed = errorLine();
    const button = h("button", { class: danger ? "button danger" : "button", type: "button", "data-focus": "", onclick: () => busy(button, failed, run, close) }, action);
    return [
      h("p", { class: "dialog-text" }, text),
      failed,
      h("div", { class: "actions" }, h("button", { class: "button quiet", type: "button", onclick: close }, "Cancel"), button),
    ];
  });
}

/** Where a form says what went wrong. */
export function errorLine() {
  return h("p", { class: "error-line", role: "alert" });
}

/**
 * Runs something that a button started: the button waits, and what goes wrong is said.
 * @param {HTMLButtonElement} button @param {HTMLElement} failed @param {() => Promise<unknown>} run @param {() => void} [done]
 */
export async function busy(button, failed, run, done) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  failed.textContent = "";
  try {
    await run();
    done?.();
  } catch (error) {
    failed.textContent = explain(error);
  } finally {
    button.removeAttribute("aria-busy");
  }
}

/**
 * A menu below a button.
 * @param {HTMLElement} button @param {{icon: import("./dom.js").Icon, label: string, danger?: boolean, run: () => void}[]} items
 */
export function menu(button, items) {
  const host = button.closest("dialog") ?? document.body;
  const shown = h("div", { class: "menu", role: "menu", popover: "auto" });
  const buttons = items.map((item) =>
    h(
      "button",
      {
        class: item.danger ? "menu-item danger" : "menu-item",
        type: "button",
        role: "menuitem",
        onclick: () => {
          shown.hidePopover();
          item.run();
        },
      },
      icon(item.icon),
      item.label,
    ),
  );
  fill(shown, ...buttons);
  shown.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = buttons.indexOf(/** @type {any} */ (document.activeElement));
    buttons[(at + step + buttons.length) % buttons.length].focus();
  });
  button.setAttribute("aria-expanded", "true");
  shown.addEventListener("toggle", (event) => {
    if (/** @type {ToggleEvent} */ (event).newState !== "closed") return;
    shown.remove();
    button.setAttribute("aria-expanded", "false");
    if (document.activeElement === document.body) button.focus();
  });
  host.append(shown);
  shown.showPopover();
  const at = button.getBoundingClientRect();
  const box = shown.getBoundingClientRect();
  const below = at.bottom + box.height + 8 < innerHeight;
  shown.style.left = `${Math.max(8, Math.min(at.right - box.width, innerWidth - box.width - 8))}px`;
  shown.style.top = `${below ? at.bottom + 4 : Math.max(8, at.top - box.height - 4)}px`;
  buttons[0]?.focus();
}

/** A short note that goes away by itself. @param {string} text */
export function toast(text) {
  const host = document.querySelector("dialog[open]") ?? document.body;
  const shown = h("div", { class: "toast", role: "status" }, text);
  host.append(shown);
  setTimeout(() => shown.remove(), 4000);
}

/** @param {string} text */
export async function copy(text) {
  if (!navigator.clipboard) throw new Error("the browser lets a page copy only over https");
  await navigator.clipboard.writeText(text);
  toast("Copied.");
}

/** @param {() => Promise<unknown>} run */
export async function attempt(run) {
  try {
    await run();
  } catch (error) {
    toast(explain(error));
  }
}

/**
 * A labelled input.
 * @param {string} label @param {HTMLElement} input @param {string} [hint]
 */
export function field(label, input, hint) {
  input.id ||= `field-${++titles}`;
  const note = hint ? h("span", { class: "field-hint", id: `${input.id}-hint` }, hint) : null;
  if (note) input.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, note);
}

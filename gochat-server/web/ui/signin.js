// @ts-check
/** Signing in and registering. */
import { avatar, fill, h, icon } from "./dom.js";
import { busy, errorLine, field } from "./overlay.js";

/**
 * @param {import("../client/index.js").GoChat} chat
 * @param {import("../client/types.js").Saved[]} accounts who is signed in in this browser already
 * @param {(user: string) => Promise<void>} goOn @param {() => Promise<void>} entered
 */
export function signIn(chat, accounts, goOn, entered) {
  let registering = false;
  const name = h("input", {
    id: "username",
    name: "username",
    autocomplete: "username",
    autocapitalize: "none",
    spellcheck: false,
    required: true,
    maxLength: 32,
    autofocus: true,
  });
  const shownName = h("input", { id: "display-name", name: "name", autocomplete: "name", maxLength: 100 });
  const password = h("input", { id: "password", name: "password", type: "password", autocomplete: "current-password", required: true, maxLength: 1024 });
  const reveal = h("button", { class: "reveal", type: "button", "aria-label": "Show password", "aria-pressed": "false" }, icon("eye"));
  reveal.onclick = () => {
    const shown = password.type === "password";
    password.type = shown ? "text" : "password";
    reveal.setAttribute("aria-pressed", String(shown));
  };
  const failed = errorLine();
  const submit = h("button", { class: "button wide", type: "submit", id: "submit" });
  const hint = h("span", { class: "field-hint", id: "password-hint" }, "8 characters or more");
  const shownNameField = field("Your name (as others see it)", shownName);
  const passwordField = h("div", { class: "field" }, h("label", { for: "password" }, "Password"), h("div", { class: "with-reveal" }, password, reveal), hint);
  const tabs = [tab("Sign in", false), tab("Create account", true)];

  /** @param {string} label @param {boolean} register */
  function tab(label, register) {
    return h("button", { class: "segment", type: "button", id: register ? "tab-register" : "tab-sign-in", onclick: () => set(register) }, label);
  }

  /** @param {boolean} register */
  function set(register) {
    registering = register;
    tabs.forEach((button, at) => button.setAttribute("aria-pressed", String(Boolean(at) === register)));
    submit.textContent = register ? "Create account" : "Sign in";
    shownNameField.hidden = hint.hidden = !register;
    password.autocomplete = register ? "new-password" : "current-password";
    if (register) password.setAttribute("aria-describedby", "password-hint");
    else password.removeAttribute("aria-describedby");
    failed.textContent = "";
  }

  const form = h(
    "form",
    { class: "card sign-in-form", noValidate: true },
    h("div", { class: "segments", role: "group", "aria-label": "What to do" }, tabs),
    field("User name", name),
    shownNameField,
    passwordField,
    failed,
    submit,
  );
  form.onsubmit = (event) => {
    event.preventDefault();
    const missing = [name, password].find((input) => !input.value.trim());
    if (missing) {
      failed.textContent = missing === name ? "Enter a user name." : "Enter a password.";
      return missing.focus();
    }
    void busy(submit, failed, async () => {
      const username = name.value.trim().toLowerCase();
      // Only the tokens are fetched here; `entered` starts the chat once the page for it is there.
      if (registering) await chat.api.register(username, password.value, shownName.value.trim());
      else await chat.api.login(username, password.value);
      await entered();
    });
  };
  set(false);

  const others = accounts.map(({ user }) =>
    h(
      "button",
      { class: "account-row", type: "button", onclick: () => void goOn(user.id) },
      avatar({ id: user.id, label: user.display_name, url: user.avatar_url }),
      h("span", { class: "account-text" }, h("strong", {}, `Continue as ${user.display_name}`), h("span", {}, `@${user.username}`)),
    ),
  );
  const page = h("main", { class: "sign-in" });
  fill(
    page,
    h(
      "div",
      { class: "sign-in-column" },
      h("div", { class: "brand" }, h("img", { src: "icon.svg", alt: "", width: 56, height: 56 }), h("h1", {}, "GoChat"), h("p", {}, "Messages that arrive. Once.")),
      others.length ? h("section", { class: "card accounts", "aria-label": "Signed in in this browser" }, others) : null,
      form,
    ),
  );
  return page;
}

// @ts-check
/**
 * Where sign-ins are kept: the one place that touches refresh tokens at rest. Another kind of keeping (a cookie that scripts
 * cannot read, say) replaces this module and nothing else.
 *
 * A browser may hold several accounts. Each tab is bound to one of them, so that two tabs can be two people, and a reload
 * stays who it was.
 *
 * @typedef {import("./types.js").Saved} Saved
 *
 * @typedef {object} Sessions
 * @property {() => Saved | null} load the account that this tab is bound to
 * @property {(saved: Saved | null) => void} save keeps it and binds the tab to it; `null` forgets it
 */

const ACCOUNTS = "gochat.accounts";
const BOUND = "gochat.account";

export class BrowserSessions {
  /** @param {Storage} [shared] what all tabs see @param {Storage} [own] what this tab sees */
  constructor(shared = localStorage, own = sessionStorage) {
    this.shared = shared;
    this.own = own;
  }

  /** Everybody who is signed in in this browser. @returns {Saved[]} */
  accounts() {
    return Object.values(this.read());
  }

  /** Makes this tab the account's. @param {string} userId */
  bind(userId) {
    this.own.setItem(BOUND, userId);
  }

  /** @returns {Saved | null} */
  load() {
    const bound = this.own.getItem(BOUND);
    return (bound && this.read()[bound]) || null;
  }

  /** @param {Saved | null} saved */
  save(saved) {
    const accounts = this.read();
    if (saved) {
      accounts[saved.user.id] = saved;
      this.bind(saved.user.id);
    } else {
      const bound = this.own.getItem(BOUND);
      if (bound) delete accounts[bound];
      this.own.removeItem(BOUND);
    }
    this.shared.setItem(ACCOUNTS, JSON.stringify(accounts));
  }

  /** @returns {Record<string, Saved>} */
  read() {
    try {
      return JSON.parse(this.shared.getItem(ACCOUNTS) ?? "{}");
    } catch {
      return {};
    }
  }
}

/** Keeps the sign-in as long as the program runs. @returns {Sessions} */
export function memorySessions() {
  /** @type {Saved | null} */
  let kept = null;
  return { load: () => kept, save: (saved) => void (kept = saved) };
}

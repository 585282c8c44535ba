// @ts-check
/**
 * What a device has of one conversation's log: a window without gaps that grows upward as entries come and downward as
 * history is read. Shows each entry once and in order, keeps what comes early, and says when something is missing
 * (docs/protocol.md §5.3).
 *
 * @typedef {import("./types.js").Message} Message
 */

/** Entries that are kept while one before them is missing. */
const EARLY_MAX = 256;

export class Log {
  /** @param {number} have nothing up to here is asked for by {@link Log.missing}; older entries are history */
  constructor(have = 0) {
    /** @type {Message[]} ascending; the newest part of what is known without a gap */
    this.entries = [];
    /** @type {number} the highest seq below which, down to the window's first entry, nothing is missing */
    this.have = have;
    /** @type {number} the highest seq that is known to exist */
    this.head = have;
    /** @type {number} what lies above is in the window: an entry that is not there cannot be seen by this user */
    this.floor = have;
    /** @type {Map<number, Message>} */
    this.early = new Map();
    /** @type {boolean} whether the server may have older entries */
    this.more = have > 0;
  }

  /** Whether something that exists has not come. */
  get missing() {
    return this.head > this.have;
  }

  /**
   * Takes an entry that came, in whatever order. Answers with the entries that follow on without a gap, in order.
   * @param {Message} message
   * @returns {Message[]}
   */
  take(message) {
    this.hear(message.seq);
    if (message.seq <= this.have) return [];
    // When there is no room the gap stays known, and pulling brings the entry again.
    if (this.early.size >= EARLY_MAX && message.seq !== this.have + 1) return [];
    this.early.set(message.seq, message);
    return this.follow();
  }

  /**
   * Takes a page that was pulled: ascending, beginning right behind what we had when we asked. Entries that this user cannot
   * see leave holes that never fill; the page stands for them too.
   * @param {Message[]} messages @param {boolean} more whether others follow the page
   * @param {number} head where the log stood when the page was read
   * @returns {Message[]} what is new
   */
  takePage(messages, more, head) {
    const fresh = messages.filter((message) => message.seq > this.have);
    this.entries.push(...fresh);
    this.have = Math.max(this.have, messages.at(-1)?.seq ?? 0, more ? 0 : head);
    this.hear(Math.max(head, this.have));
    for (const seq of this.early.keys()) if (seq <= this.have) this.early.delete(seq);
    return [...fresh, ...this.follow()];
  }

  /**
   * Takes a page of history that ends right below the window.
   * @param {Message[]} messages @param {boolean} more whether older ones exist
   * @returns {Message[]} what is new
   */
  takeOlder(messages, more) {
    const first = this.entries[0]?.seq ?? this.have + 1;
    const fresh = messages.filter((message) => message.seq < first);
    this.entries.unshift(...fresh);
    this.more = more;
    this.floor = more ? (fresh[0]?.seq ?? first) - 1 : 0;
    return fresh;
  }

  /** There is an entry with this seq, wherever it is. @param {number} seq */
  hear(seq) {
    this.head = Math.max(this.head, seq);
  }

  /** Gives the window up and begins anew behind `have`: too much is missing to be read in full. @param {number} have */
  restart(have) {
    this.entries = [];
    this.have = have;
    this.floor = have;
    this.more = have > 0;
    this.hear(have);
    for (const seq of this.early.keys()) if (seq <= have) this.early.delete(seq);
    return this.follow();
  }

  /** Lets go of all but the newest entries. @param {number} keep */
  trim(keep) {
    if (this.entries.length <= keep) return;
    this.entries = this.entries.slice(-keep);
    this.floor = this.entries[0].seq - 1;
    this.more = true;
  }

  /** The entry with this seq, if it is in the window. @param {number} seq @returns {Message | undefined} */
  at(seq) {
    let low = 0;
    let high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.entries[middle].seq < seq) low = middle + 1;
      else high = middle;
    }
    return this.entries[low]?.seq === seq ? this.entries[low] : undefined;
  }

  /** @returns {Message[]} */
  follow() {
    const shown = [];
    for (let next = this.early.get(this.have + 1); next; next = this.early.get(this.have + 1)) {
      this.early.delete(next.seq);
      this.have = next.seq;
      shown.push(next);
    }
    this.entries.push(...shown);
    return shown;
  }
}

// @ts-check
/** Tells the server what arrived and what was seen: the highest of each, at most once a second for each conversation. */

const INTERVAL_MS = 1_000;

/** @typedef {{read_seq: number, delivered_seq: number}} Mark */

export class Marks {
  /** @param {(frame: Record<string, any>) => Promise<any>} request */
  constructor(request) {
    this.request = request;
    /** @type {Map<string, Mark>} */
    this.due = new Map();
    /** @type {Map<string, Mark>} what the server was told */
    this.told = new Map();
    this.online = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  /** @param {string} conversation @param {Partial<Mark>} mark */
  raise(conversation, mark) {
    const told = this.told.get(conversation);
    const due = this.due.get(conversation) ?? { read_seq: 0, delivered_seq: 0 };
    const read_seq = Math.max(due.read_seq, mark.read_seq ?? 0);
    const delivered_seq = Math.max(due.delivered_seq, mark.delivered_seq ?? 0, read_seq);
    if (told && told.read_seq >= read_seq && told.delivered_seq >= delivered_seq) return;
    this.due.set(conversation, { read_seq, delivered_seq });
    this.soon();
  }

  /** @param {boolean} online */
  setOnline(online) {
    this.online = online;
    if (online) this.soon();
  }

  soon() {
    if (!this.online || !this.due.size) return;
    this.timer ??= setTimeout(() => this.flush(), INTERVAL_MS);
  }

  flush() {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (!this.online) return;
    for (const [conversation, mark] of this.due) {
      this.due.delete(conversation);
      const frame = { type: "mark", conversation_id: conversation, delivered_seq: mark.delivered_seq, read_seq: mark.read_seq || undefined };
      this.request(frame).then(
        () => {
          const told = this.told.get(conversation) ?? { read_seq: 0, delivered_seq: 0 };
          const highest = { read_seq: Math.max(told.read_seq, mark.read_seq), delivered_seq: Math.max(told.delivered_seq, mark.delivered_seq) };
          this.told.set(conversation, highest);
        },
        (error) => error.temporary && this.raise(conversation, mark),
      );
    }
  }
}

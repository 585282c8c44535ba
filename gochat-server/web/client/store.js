// @ts-check
/**
 * What a device keeps between visits: conversations, the newest entries, users, messages without an ack, drafts. In IndexedDB,
 * or in memory where there is none (private windows). A cache: what it lost is pulled again, but for unsent messages and drafts.
 */

/** Tables, each with its key. */
const TABLES = { conversations: "id", logs: "id", messages: "key", users: "id", outbox: "client_msg_id", drafts: "id" };

/** @typedef {keyof typeof TABLES} Table */

/**
 * @typedef {object} Store
 * @property {(table: Table) => Promise<any[]>} all
 * @property {(changes: Change[]) => Promise<void>} write all or none
 * @property {(conversation: string, below: number, limit: number) => Promise<any[]>} page newest entries below a seq, ascending
 * @property {() => Promise<void>} clear
 * @property {() => void} close
 *
 * @typedef {{table: Table, put?: any[], remove?: string[], forget?: string}} Change `forget`: a conversation whose messages go
 */

/** The key of an entry: sorts by conversation and seq. @param {string} conversation @param {number} seq */
export function messageKey(conversation, seq) {
  return `${conversation}/${String(Math.min(seq, 1e15)).padStart(16, "0")}`;
}

/** @returns {Store} */
export function memoryStore() {
  /** @type {Record<string, Map<string, any>>} */
  const tables = Object.fromEntries(Object.keys(TABLES).map((table) => [table, new Map()]));
  return {
    all: async (table) => [...tables[table].values()].map((row) => structuredClone(row)),
    write: async (changes) => {
      for (const { table, put = [], remove = [], forget } of changes) {
        for (const key of remove) tables[table].delete(key);
        for (const key of forget ? [...tables[table].keys()] : []) if (key.startsWith(`${forget}/`)) tables[table].delete(key);
        for (const row of put) tables[table].set(row[TABLES[table]], structuredClone(row));
      }
    },
    page: async (conversation, below, limit) => {
      const [from, to] = [messageKey(conversation, 0), messageKey(conversation, below)];
      const rows = [...tables.messages.values()].filter((row) => row.key >= from && row.key < to);
      return rows.sort((a, b) => (a.key < b.key ? -1 : 1)).slice(-limit);
    },
    clear: async () => Object.values(tables).forEach((table) => table.clear()),
    close: () => {},
  };
}

/**
 * @param {string} name one database for each account
 * @returns {Promise<Store>}
 */
export async function openStore(name) {
  if (typeof indexedDB === "undefined") return memoryStore();
  /** @type {IDBDatabase} */
  let database;
  try {
    database = await new Promise((resolve, reject) => {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => {
        for (const [table, keyPath] of Object.entries(TABLES)) request.result.createObjectStore(table, { keyPath });
      };
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  } catch {
    return memoryStore();
  }
  // Another tab wants to upgrade or delete: do not stand in its way.
  database.onversionchange = () => database.close();
  return indexedStore(database);
}

/** @param {IDBDatabase} database @returns {Store} */
function indexedStore(database) {
  /** @param {string[]} tables @param {(transaction: IDBTransaction) => void} work @returns {Promise<void>} */
  const write = (tables, work) =>
    new Promise((resolve, reject) => {
      const transaction = database.transaction(tables, "readwrite");
      transaction.oncomplete = () => resolve();
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
      work(transaction);
    });
  return {
    all: (table) =>
      new Promise((resolve, reject) => {
        const request = database.transaction(table).objectStore(table).getAll();
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      }),
    write: (changes) =>
      write([...new Set(changes.map((change) => change.table))], (transaction) => {
        for (const { table, put = [], remove = [], forget } of changes) {
          const objects = transaction.objectStore(table);
          for (const key of remove) objects.delete(key);
          if (forget) objects.delete(IDBKeyRange.bound(messageKey(forget, 0), messageKey(forget, Infinity)));
          for (const row of put) objects.put(row);
        }
      }),
    page: (conversation, below, limit) =>
      new Promise((resolve, reject) => {
        /** @type {any[]} */
        const rows = [];
        const range = IDBKeyRange.bound(messageKey(conversation, 0), messageKey(conversation, below), false, true);
        const request = database.transaction("messages").objectStore("messages").openCursor(range, "prev");
        request.onerror = () => reject(request.error);
        request.onsuccess = () => {
          const cursor = request.result;
          if (!cursor || rows.length >= limit) return resolve(rows.reverse());
          rows.push(cursor.value);
          cursor.continue();
        };
      }),
    clear: () => write(Object.keys(TABLES), (transaction) => Object.keys(TABLES).forEach((table) => transaction.objectStore(table).clear())),
    close: () => database.close(),
  };
}

// @ts-check
/** UUIDs as clients name their messages: version 7 (RFC 9562), so that the store's index grows at its right edge. */

/** The time and the counter of the last one: each sorts behind the one before it, also within a millisecond. */
let lastTime = 0;
let count = 0;
const COUNT_MAX = 0xfff;

/** @param {number} [now] milliseconds since 1970 @returns {string} a new UUIDv7 */
export function uuid7(now = Date.now()) {
  if (now > lastTime) {
    lastTime = now;
    count = 0;
  } else if (++count > COUNT_MAX) {
    lastTime += 1;
    count = 0;
  }
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let time = lastTime;
  for (let at = 5; at >= 0; at--) {
    bytes[at] = time % 256;
    time = Math.floor(time / 256);
  }
  bytes[6] = 0x70 | (count >> 8);
  bytes[7] = count & 0xff;
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

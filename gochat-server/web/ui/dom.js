// @ts-check
/** The few functions that build the page. Text becomes text nodes, never HTML. */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * An element. `on…` properties are listeners, `class` is the class, `aria-…`, `data-…` and the like are attributes,
 * everything else is set as a property.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {Record<string, any>} [props] @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "list" || name === "for") element.setAttribute(name, String(value));
    else /** @type {any} */ (element)[name] = value;
  }
  element.append(...nodes(children));
  return element;
}

/** @param {(Child | Child[])[]} children @returns {(Node | string)[]} */
function nodes(children) {
  return children
    .flat()
    .filter((child) => child !== null && child !== undefined && child !== false && child !== "")
    .map((child) => (child instanceof Node ? child : String(child)));
}

/** Puts these children in the place of what was there. @param {Element} parent @param {...(Child | Child[])} children */
export function fill(parent, ...children) {
  parent.replaceChildren(...nodes(children));
}

/** Paths in a box of 24. */
const ICONS = {
  back: "M15 5l-7 7 7 7",
  close: "M6 6l12 12M18 6L6 18",
  plus: "M12 5v14M5 12h14",
  search: "M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14zM16.5 16.5L20.5 20.5",
  send: "M4.5 12L20 4.5 15 20l-3.5-6.5zM11.5 13.5L20 4.5",
  group: "M9 11.5a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4zM3 19c.4-3.3 2.8-5 6-5s5.6 1.7 6 5M16 11.3a2.8 2.8 0 1 0-1-5.4M17.5 14.3c2 .5 3.3 2 3.6 4.7",
  person: "M12 12a3.7 3.7 0 1 0 0-7.4 3.7 3.7 0 0 0 0 7.4zM4.8 20c.5-3.6 3.3-5.5 7.2-5.5s6.7 1.9 7.2 5.5",
  pen: "M4.5 19.5l.8-3.8L15.8 5.2a1.8 1.8 0 0 1 2.6 0l.4.4a1.8 1.8 0 0 1 0 2.6L8.3 18.7z",
  more: "M5.5 12h.01M12 12h.01M18.5 12h.01",
  info: "M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16zM12 11v5M12 8h.01",
  gear: "M12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6zM19 12a7 7 0 0 0-.1-1.2l2-1.5-2-3.4-2.3 1a7 7 0 0 0-2.1-1.2L14.2 3.2h-4.4l-.3 2.5a7 7 0 0 0-2.1 1.2l-2.3-1-2 3.4 2 1.5a7 7 0 0 0 0 2.4l-2 1.5 2 3.4 2.3-1a7 7 0 0 0 2.1 1.2l.3 2.5h4.4l.3-2.5a7 7 0 0 0 2.1-1.2l2.3 1 2-3.4-2-1.5c.07-.4.1-.8.1-1.2z",
  clock: "M12 5a7 7 0 1 1 0 14 7 7 0 0 1 0-14zM12 8.5V12l2.5 1.5",
  check: "M5 12.5l4.5 4.5L19 7.5",
  checks: "M2.5 12.5L7 17l8.5-9M11.5 16l1 1L21 8",
  alert: "M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16zM12 8v5M12 16h.01",
  reply: "M9.5 7L4.5 12l5 5M5 12h8.5c3.5 0 6 2 6 6",
  copy: "M9 9h9.5v10.5H9zM6 15H5V4.5h9.5V6",
  down: "M6 9.5l6 6 6-6",
  bell: "M6.5 16.5V11a5.5 5.5 0 0 1 11 0v5.5l1.5 1.5H5zM10 20.5h4",
  muted: "M6.5 16.5V11c0-1 .3-2 .8-2.8M9.5 6.1A5.5 5.5 0 0 1 17.5 11v3.5M16 18H5l1.5-1.5M10 20.5h4M4 4l16 16",
  link: "M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.7-5.7l-1.3 1.3M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.7 5.7l1.3-1.3",
  leave: "M14 5H6v14h8M11 12h9M17 9l3 3-3 3",
  trash: "M5 7h14M10 7V5h4v2M7 7l.8 12h8.4L17 7M10.5 10.5v5M13.5 10.5v5",
  eye: "M3 12c2-4 5.3-6 9-6s7 2 9 6c-2 4-5.3 6-9 6s-7-2-9-6zM12 9.5a2.5 2.5 0 1 1 0 5 2.5 2.5 0 0 1 0-5z",
  file: "M7 3.5h7l4 4v13H7zM14 3.5v4h4",
  place: "M12 21c4-4.5 6-7.8 6-11a6 6 0 1 0-12 0c0 3.2 2 6.5 6 11zM12 7.8a2.2 2.2 0 1 1 0 4.4 2.2 2.2 0 0 1 0-4.4z",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  moon: "M19.5 14A8 8 0 0 1 10 4.5 8 8 0 1 0 19.5 14z",
  device: "M4 5h16v11H4zM9 20h6M12 16v4",
  key: "M8 11a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM11 12l8.5-8.5M16 7l2.5 2.5",
  shield: "M12 3.5l7 2.5v5.5c0 4.5-3 7.5-7 9-4-1.5-7-4.5-7-9V6z",
};

/** @typedef {keyof typeof ICONS} Icon */

/** @param {Icon} name @param {string} [label] for those who cannot see it; none: it only decorates */
export function icon(name, label) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  if (label) {
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  } else {
    svg.setAttribute("aria-hidden", "true");
  }
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button that is only an icon. @param {Icon} name @param {string} label @param {(event: MouseEvent) => void} onclick @param {string} [kind] */
export function iconButton(name, label, onclick, kind = "") {
  return h("button", { class: `icon-button ${kind}`.trim(), type: "button", title: label, "aria-label": label, onclick }, icon(name));
}

/** Runs at most once before the next paint. @param {() => void} work @returns {() => void} */
export function beforePaint(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    // A hidden page paints nothing, and still has to be right when it is read.
    const run = () => {
      waiting = false;
      work();
    };
    if (document.hidden) setTimeout(run, 50);
    else requestAnimationFrame(run);
  };
}

/** @param {{id: string, label: string, url?: string | null, kind?: string, size?: string}} who */
export function avatar({ id, label, url, kind, size = "" }) {
  const shown = h("span", { class: `avatar hue-${hue(id)} ${size}`.trim(), "aria-hidden": "true" });
  const initials = () => fill(shown, kind === "group" ? icon("group") : initialsOf(label));
  initials();
  if (url && /^(https:\/\/|\/(?!\/))/.test(url)) {
    const image = h("img", { src: url, alt: "", loading: "lazy", referrerPolicy: "no-referrer", onerror: initials });
    fill(shown, image);
  }
  return shown;
}

/** Which of the eight colours of people somebody has. @param {string} id */
export function hue(id) {
  let sum = 0;
  for (let at = 0; at < id.length; at++) sum = (sum * 31 + id.charCodeAt(at)) >>> 0;
  // The low bits of this sum mix badly.
  return (sum >>> 16) % 8;
}

/** @param {string} name */
export function initialsOf(name) {
  const words = name.trim().split(/[\s._-]+/).filter(Boolean);
  const first = [...(words[0] ?? "?")][0];
  const last = words.length > 1 ? [...words[words.length - 1]][0] : "";
  return (first + last).toUpperCase();
}

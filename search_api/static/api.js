/**
 * Asks the server: JSON in and out, problems as errors, the key in its header, pictures into their places.
 *
 * Nothing from the server becomes HTML: `make` and its callers write text and fixed properties alone.
 */

const KEY = "crosslens.key";
const NEAR = "400px"; // how far below the window a picture is asked for
const TRIES = 4;

/** What the server refused, and what to do next: a problem document (RFC 9457). */
export class Problem extends Error {
  constructor(document, status) {
    super(document.detail || "The server does not answer.");
    this.status = status;
    this.code = document.code || "";
    this.remedy = document.remedy || "";
    this.field = document.field || "";
  }
}

/** The key of this tab: kept until it is closed, sent as a header, and never part of an address. */
export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

let askForKey = async () => null;
let asking = null;

/** `ask(problem)` gives the key that a person entered, or null; several requests refused at once ask them once. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** Ask with a JSON body or a form; gives the response, or throws a `Problem`. */
export async function request(path, { method, json, form, signal } = {}) {
  for (let tries = 1; ; tries += 1) {
    const sent = key.get();
    const headers = sent ? { Authorization: `Bearer ${sent}` } : {};
    if (json) headers["Content-Type"] = "application/json";
    const body = json ? JSON.stringify(json) : form;
    let response;
    try {
      response = await fetch(path, { method: method || (body ? "POST" : "GET"), headers, body, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem({ detail: "The server does not answer.", remedy: "Start it with `crosslens serve`." }, 0);
    }
    if (response.ok) return response;
    const problem = new Problem(await response.json().catch(() => ({})), response.status);
    const pause = Number(response.headers.get("Retry-After"));
    if ((response.status === 429 || response.status === 503) && pause <= 10 && tries < TRIES) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * (pause || 1)));
    } else if (response.status === 401 && (sent !== key.get() || (await newKey(problem)))) {
      tries = 0; // with the new key
    } else {
      throw problem;
    }
  }
}

/** As `request`; gives the decoded answer. */
export const ask = async (path, options) => (await request(path, options)).json();

async function newKey(problem) {
  asking ||= askForKey(problem).finally(() => {
    asking = null;
  });
  const entered = await asking;
  if (entered) key.set(entered);
  return Boolean(entered);
}

/** The address of a collection, or of something in it, as a visitor or a moderator sees it. */
export function pathOf({ collection, moderator }, rest = "", query = {}) {
  const asked = new URLSearchParams(moderator ? { ...query, view: "moderator" } : query).toString();
  return `v1/collections/${encodeURIComponent(collection)}${rest}${asked && `?${asked}`}`;
}

/** The address of an item, or of its media or thumbnail. */
export const itemPath = (place, id, rest = "", query = {}) =>
  pathOf(place, `/items/${encodeURIComponent(id)}${rest}`, query);

/** Run something once a node comes near the window, unless it was taken away before. */
function whenNear(node, run) {
  const watch = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      watch.disconnect();
      run();
    },
    { rootMargin: NEAR },
  );
  watch.observe(node);
}

/**
 * Show a picture in an `img`; `gone` is called where there is none.
 *
 * With a key it is fetched with the header that an `img` cannot send; the copy in memory goes once it is decoded.
 */
export function showPicture(img, path, { signal, gone }) {
  img.addEventListener("error", gone, { once: true });
  if (!key.get()) {
    img.src = path;
    return;
  }
  whenNear(img, async () => {
    try {
      const url = URL.createObjectURL(await (await request(path, { signal })).blob());
      for (const end of ["load", "error"]) img.addEventListener(end, () => URL.revokeObjectURL(url), { once: true });
      img.src = url;
    } catch (error) {
      if (error.name !== "AbortError") gone();
    }
  });
}

/** Save an item's original as a file; throws a `Problem` where it is withheld or gone. */
export async function download(path, name) {
  if (!key.get()) {
    await (await request(path)).body?.cancel(); // a refusal is told here; a long video is never held in memory
    save(path, name);
    return;
  }
  const url = URL.createObjectURL(await (await request(path)).blob());
  save(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser reads it after the click
}

function save(url, name) {
  make("a", { href: url, download: name }).click();
}

/** A node with properties and children; strings become text. */
export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

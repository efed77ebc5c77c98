/** Results as a grid of cards, and the dialog that shows one of them in full. */

import { ask, download, itemPath, make, showPicture } from "./api.js";

const THUMBNAIL = 512;
const LARGE = 1024;
const SHOWN_AS = { image: "Picture", video: "Video frame", page: "PDF page", text: "Text" };
const byId = (id) => document.getElementById(id);

const PART = /#(t|page)=[\d.]+$/; // the time or page behind a source
const UPLOADED = /^upload:/; // the sender's name of a file is not kept
const MADE_HERE = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/; // an id that nobody chose

/** What a result is called: the id that its sender chose, or the last part of where it was found. */
function nameOf({ source, id, kind }) {
  if (UPLOADED.test(source)) return MADE_HERE.test(id) ? SHOWN_AS[kind] : id;
  return source.replace(PART, "").split(/[/\\!]/).filter(Boolean).pop() || id;
}

function folderOf({ source }) {
  if (UPLOADED.test(source)) return "Uploaded";
  return source.replace(PART, "").replace(/[/\\!]?[^/\\!]*[/\\]*$/, "");
}

/** What a payload says in words of its item, if it does. */
function captionOf({ payload }) {
  return ["caption", "title", "description"].map((field) => payload[field]).find((said) => typeof said === "string");
}

/** `1:05` or `p. 3`, of a frame or a page. */
function placeOf({ seconds, page }) {
  if (page !== undefined) return `p. ${page}`;
  if (seconds === undefined) return "";
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function percent(share) {
  const rounded = Math.round(share * 100);
  return share > 0 && rounded < 1 ? "< 1 %" : `${rounded} %`;
}

/** A payload's value; a list of plain values as its members. */
function inWords(value) {
  if (Array.isArray(value) && value.every((each) => typeof each !== "object")) return value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** How well a result fits: a bar and a probability, or the cosine where no probability can be told. */
function relevanceOf({ relevance, score }) {
  if (relevance === null && score === null) return "";
  const row = make("div", { className: "relevance" });
  if (relevance === null) {
    row.append(make("span", { textContent: `cosine ${score.toFixed(3)}` }));
    return row;
  }
  const bar = make("i");
  bar.style.setProperty("--share", relevance);
  row.append(make("span", { className: "track", ariaHidden: "true" }, bar));
  row.append(make("span", { className: "hidden", textContent: "Relevance " }), percent(relevance));
  return row;
}

/** A picture or item that is searched with, by its picture: `show(img, gone)` fills it, `remove` takes the term away. */
export function term(name, remove, show) {
  const img = make("img", { alt: name, width: 36, height: 36 });
  show(img, () => img.replaceWith(make("span", { className: "words", textContent: name })));
  const button = make("button", { type: "button", textContent: "×", ariaLabel: `Search without ${name}` });
  button.addEventListener("click", remove);
  return make("li", {}, img, button);
}

/** The grid of results; `onLike(result)` searches for more like one. */
export class Results {
  #place = { collection: "" };
  #signal = undefined;
  #shown = [];
  #at = 0;

  constructor({ onLike }) {
    this.list = byId("results");
    this.viewer = byId("viewer");
    this.onLike = onLike;
    byId("previous").addEventListener("click", () => this.#open(this.#at - 1));
    byId("next").addEventListener("click", () => this.#open(this.#at + 1));
    byId("close").addEventListener("click", () => this.viewer.close());
    byId("like").addEventListener("click", () => this.#like(this.#shown[this.#at]));
    byId("download").addEventListener("click", () => this.#download());
    this.viewer.addEventListener("click", (event) => event.target === this.viewer && this.viewer.close());
    this.viewer.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#open(this.#at - 1);
      if (event.key === "ArrowRight") this.#open(this.#at + 1);
    });
    // So that who came by the keyboard goes on from the result that was seen last.
    this.viewer.addEventListener("close", () => this.list.children[this.#at]?.querySelector(".open").focus());
  }

  /** Show the first results of a search in a place; its pictures are fetched until `signal` says stop. */
  show(results, place, signal) {
    this.#place = place;
    this.#signal = signal;
    this.#shown = [];
    this.list.replaceChildren();
    this.add(results);
  }

  /** Show further ones behind them; gives the first new card. */
  add(results) {
    const cards = results.map((result, number) => this.#card(result, this.#shown.length + number));
    this.#shown.push(...results);
    this.list.append(...cards);
    return cards[0];
  }

  /** How many are shown. */
  get count() {
    return this.#shown.length;
  }

  #card(result, at) {
    const name = nameOf(result);
    const open = make("button", { type: "button", className: "open" }, this.#face(result, THUMBNAIL));
    open.addEventListener("click", () => this.#open(at));
    const where = placeOf(result);
    if (where) open.append(make("span", { className: "badge", textContent: where }));
    const more = make("button", { type: "button", className: "more-like", title: "More like this" });
    more.ariaLabel = `More like ${name}`;
    more.append(byId("like-icon").content.cloneNode(true));
    more.addEventListener("click", () => this.#like(result));
    const card = make("li", { className: `card ${result.kind === "text" ? "of-text" : ""}` }, open, more);
    const called = make("p", { className: "name", textContent: name, title: result.source });
    const about = make("p", { className: "folder", textContent: captionOf(result) || folderOf(result) });
    card.append(make("div", { className: "under" }, called, about, relevanceOf(result)));
    const action = result.verdict?.action; // for moderators, who see what is withheld
    if (action && action !== "allow") {
      const badge = make("span", { className: "badge verdict", textContent: action });
      badge.dataset.action = action;
      open.append(badge);
    }
    return card;
  }

  /** A result's picture, or its text. */
  #face(result, size) {
    if (result.kind === "text") return make("blockquote", { textContent: result.text || "" });
    const name = nameOf(result);
    const img = make("img", { alt: captionOf(result) || name, decoding: "async", loading: "lazy" });
    showPicture(img, itemPath(this.#place, result.id, "/thumbnail", { size }), {
      signal: this.#signal,
      gone: () => img.replaceWith(make("span", { className: "gone", textContent: `${name}: the original is gone` })),
    });
    return img;
  }

  #like(result) {
    if (this.viewer.open) this.viewer.close();
    this.onLike(result);
  }

  async #open(at) {
    const result = this.#shown[at];
    if (!result) return;
    this.#at = at;
    byId("viewer-name").textContent = nameOf(result);
    byId("viewer-picture").replaceChildren(this.#face(result, LARGE));
    byId("viewer-problem").textContent = "";
    byId("previous").disabled = at === 0;
    byId("next").disabled = at === this.#shown.length - 1;
    this.#tell(result, {});
    if (!this.viewer.open) this.viewer.showModal();
    try {
      const item = await ask(itemPath(this.#place, result.id), { signal: this.#signal });
      if (this.#shown[this.#at] === result) this.#tell(result, item);
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error);
    }
  }

  /** The rows of what is known of a result: how well it fits, where it is from, its payload. */
  #tell(result, item) {
    const { verdict } = item;
    const fired = Object.entries(verdict?.categories || {}).filter(([, found]) => found.fired).map(([name]) => name);
    const facts = [
      ["Relevance", result.relevance === null ? "" : percent(result.relevance)],
      ["Cosine", result.score === null ? "" : result.score.toFixed(4)],
      ["Kind", [SHOWN_AS[result.kind], placeOf(result), item.media_type].filter(Boolean).join(" · ")],
      ["Size", item.width ? `${item.width} × ${item.height}` : ""],
      ["Text", result.kind === "text" ? "" : result.text],
      ["Found in", (item.locations || [result]).map((each) => each.source).join("\n")],
      ["Id", result.id],
      ["Verdict", verdict ? [verdict.action, ...fired].join(" · ") : ""],
    ];
    const said = Object.entries(result.payload).map(([name, value]) => [name, inWords(value)]);
    const row = ([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })];
    const rows = (pairs) => pairs.filter(([, value]) => value).flatMap(row);
    byId("viewer-payload").replaceChildren(...rows(said));
    byId("viewer-facts").replaceChildren(...rows(facts));
  }

  async #download() {
    const result = this.#shown[this.#at];
    try {
      await download(itemPath(this.#place, result.id, "/media"), nameOf(result));
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(problem) {
    byId("viewer-problem").textContent = [problem.message, problem.remedy].filter(Boolean).join(" ");
  }
}

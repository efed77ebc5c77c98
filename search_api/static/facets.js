/** Facets: the values of declared fields with their counts, as conditions that a click adds to the filter. */

import { ask, make, pathOf } from "./api.js";

const COUNTED = new Set(["keyword", "integer", "bool"]);
const MOST_FIELDS = 16;
const MOST_VALUES = 8;
const WORD = /^[\p{L}\p{N}_][\p{L}\p{N}_-]*$/u; // needs no quotes in a filter
const FIELD = /^[^\s:<>="',-][^\s:<>="',]*$/; // can be written in a filter

/** The list beside the results; `onFilter(change)` searches with the filter that `change(filter)` gives. */
export class Facets {
  #shown = "";

  constructor(home, onFilter) {
    this.home = home;
    this.onFilter = onFilter;
  }

  /** Count under what is asked, unless that is what is shown already; `types` are those of the declared fields. */
  async show(asked, types, signal) {
    const { collection, filter, kind, moderator } = asked;
    const what = JSON.stringify([collection, filter, kind, moderator]);
    if (what === this.#shown) return;
    const counted = ([name, type]) => COUNTED.has(type) && FIELD.test(name);
    const fields = Object.entries(types).filter(counted).map(([name]) => name).slice(0, MOST_FIELDS);
    const json = { fields, limit: MOST_VALUES, ...(filter && { filter }), ...(kind && { kind }) };
    const { facets } = fields.length ? await ask(pathOf(asked, "/facets"), { json, signal }) : { facets: {} };
    const full = Object.entries(facets).filter(([, values]) => values.length);
    this.home.replaceChildren(...full.map(([name, values]) => this.#section(name, values, filter)));
    this.#shown = what;
  }

  /** Show none. */
  clear() {
    this.#shown = "";
    this.home.replaceChildren();
  }

  #section(name, values, filter) {
    const items = values.map(({ value, count }) => make("li", {}, this.#button(name, String(value), count, filter)));
    return make("section", {}, make("h2", { textContent: name }), make("ul", {}, ...items));
  }

  #button(name, value, count, filter) {
    const condition = `${name}:${WORD.test(value) ? value : `"${value.replace(/["\\]/g, "\\$&")}"`}`;
    const chosen = ` ${filter} `.includes(` ${condition} `);
    const label = [make("span", { textContent: value }), make("b", { textContent: count })];
    const button = make("button", { type: "button", ariaPressed: String(chosen) }, ...label);
    button.addEventListener("click", () => {
      // Of the filter as it is by then: these counts may be those of an earlier one.
      this.onFilter((now) => {
        const rest = ` ${now} `.replace(` ${condition} `, " ").trim();
        return rest === now ? `${now} ${condition}`.trim() : rest;
      });
    });
    return button;
  }
}

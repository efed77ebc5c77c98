/** The search page: what is asked lives in the address, so that it can be shared and Back works. */

import { Problem, ask, key, make, onKeyNeeded, itemPath, pathOf, showPicture } from "./api.js";
import { Facets } from "./facets.js";
import { Results, term } from "./results.js";

const PAGE = 24;
const AWAY = -0.5; // the weight of what is not wanted
const VARIED = 0.5;
const byId = (id) => document.getElementById(id);
const field = Object.fromEntries(
  ["collection", "text", "not", "filter", "least", "diverse", "rerank", "moderator"].map((id) => [id, byId(id)]),
);

let collections = null; // until the server has named them
let state = {};
let running = new AbortController();
let cursor = null;
const pictures = []; // those that were put in, each with its address; the tab's history counts them
const onLike = ({ id }) => go({ text: "", not: "", like: [id], pictures: [] });
const results = new Results({ onLike });
const facets = new Facets(byId("facets"), (change) => go({ filter: change(fromForm().filter) }));

// What is asked, the address, and the form

function read() {
  const asked = new URLSearchParams(location.search);
  const of = (name) => asked.get(name) || "";
  return {
    collection: of("collection") || fallback(),
    text: of("q"), not: of("not"), filter: of("filter"), kind: of("kind"), like: asked.getAll("like"),
    least: Number(of("least")) || 0,
    diverse: asked.has("diverse"), rerank: asked.has("rerank"), moderator: of("view") === "moderator",
    pictures: (history.state?.pictures || []).filter((number) => pictures[number]),
  };
}

const fallback = () => (collections?.find(({ name }) => name === "media") || collections?.[0])?.name || "";

function address(asked) {
  const said = { collection: asked.collection, q: asked.text, not: asked.not, filter: asked.filter, kind: asked.kind,
    least: asked.least || "", diverse: asked.diverse ? 1 : "", rerank: asked.rerank ? 1 : "", view: asked.moderator ? "moderator" : "" };
  const pairs = Object.entries(said).filter(([, value]) => value !== "");
  return `?${new URLSearchParams([...pairs, ...asked.like.map((id) => ["like", id])])}`;
}

/** Search with some of what is asked changed, as a new place in the tab's history. */
function go(changes) {
  const next = { ...fromForm(), ...changes };
  if (next.diverse && next.rerank) next[state.rerank ? "rerank" : "diverse"] = false; // each decides the order
  const isNew = address(next) !== location.search || String(next.pictures) !== String(state.pictures);
  history[isNew ? "pushState" : "replaceState"]({ pictures: next.pictures }, "", address(next));
  state = next;
  intoForm();
  if (!collections) return; // what begins the page will search
  scrollTo(0, 0);
  run();
}

function fromForm() {
  const kind = document.querySelector("[name=kind]:checked").value;
  return { ...state, collection: field.collection.value || state.collection, text: field.text.value.trim(), not: field.not.value.trim(),
    filter: field.filter.value.trim(), kind, least: Number(field.least.value), diverse: field.diverse.checked,
    rerank: field.rerank.checked, moderator: field.moderator.checked };
}

function intoForm() {
  for (const name of ["collection", "text", "not", "filter", "least"]) field[name].value = state[name];
  for (const name of ["diverse", "rerank", "moderator"]) field[name].checked = state[name];
  const kinds = [...document.querySelectorAll("[name=kind]")];
  (kinds.find((each) => each.value === state.kind) || kinds[0]).checked = true;
  showLeast();
}

const canRerank = () => Object.values(collections.find(({ name }) => name === state.collection)?.reranker || {}).some(Boolean);

/** Show what else is asked than what was typed, and what can be asked. */
function showAsked() {
  byId("rerank-switch").hidden = !canRerank();
  byId("terms").replaceChildren(
    ...state.pictures.map((number) => term("your picture", without("pictures", number), (img) => { img.src = pictures[number].url; })),
    ...state.like.map((id) => term(id, without("like", id), (img, gone) => showPicture(img, itemPath(state, id, "/thumbnail", { size: 128 }), { gone }))));
  document.title = [state.text || (state.like.length ? "More like this" : ""), "Crosslens"].filter(Boolean).join(" · ");
}

const without = (name, value) => () => go({ [name]: state[name].filter((each) => each !== value) });

function showLeast() {
  const share = Number(field.least.value);
  byId("least-shown").value = share ? `${Math.round(share * 100)} %` : "any";
  field.least.style.setProperty("--share", share / Number(field.least.max));
}

// Searching

const isQuery = () => Boolean(state.text || state.not || state.like.length || state.pictures.length);

function body() {
  const query = [
    ...(state.text ? [{ text: state.text }] : []),
    ...state.pictures.map((number) => ({ image: `picture-${number}` })),
    ...state.like.map((item) => ({ item })),
    ...(state.not ? [{ text: state.not, weight: AWAY }] : []),
  ];
  const asked = { limit: PAGE };
  if (state.filter) asked.filter = state.filter;
  if (state.kind) asked.kind = state.kind;
  if (!query.length) return { json: asked };
  Object.assign(asked, { query });
  if (state.least) asked.min_relevance = state.least;
  if (state.diverse) asked.diversity = VARIED;
  if (state.rerank && canRerank()) asked.rerank = true;
  if (!state.pictures.length) return { json: asked };
  const form = new FormData();
  form.append("request", JSON.stringify(asked));
  for (const number of state.pictures) form.append(`picture-${number}`, pictures[number].file, "picture");
  return { form };
}

/** Ask, and show the answer; `before` is said above it. */
async function run(before = []) {
  running.abort();
  const { signal } = (running = new AbortController());
  showAsked();
  clear();
  const there = collections.find(({ name }) => name === state.collection);
  if (!collections.length || (there?.count === 0 && !state.moderator)) {
    showNothingYet();
    return;
  }
  document.body.classList.add("busy");
  try {
    const answer = await ask(pathOf(state, "/search"), { ...body(), signal });
    results.show(answer.results, state, signal);
    showAnswer(answer, before);
    facets.show(state, there?.fields || {}, signal).catch((error) => error.name === "AbortError" || tell(error));
  } catch (error) {
    if (error.name === "AbortError") return;
    results.show([], state, signal);
    tell(error);
  } finally {
    if (!signal.aborted) document.body.classList.remove("busy");
  }
}

async function more() {
  const { signal } = running;
  byId("more").disabled = true;
  try {
    const answer = await ask(pathOf(state, "/search"), { json: { cursor, limit: PAGE }, signal });
    const first = results.add(answer.results);
    showAnswer(answer);
    if (!cursor) first?.querySelector(".open").focus(); // the button goes, and the focus must not go with it
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.code === "invalid_cursor") run(["These results were too old to be continued: they were looked for anew."]);
    else tell(error);
  } finally {
    byId("more").disabled = false;
  }
}

function clear() {
  document.body.classList.remove("busy");
  byId("status").textContent = "";
  byId("warnings").replaceChildren();
  byId("problem").replaceChildren();
  byId("filter-problem").replaceChildren();
  field.filter.ariaInvalid = null;
  byId("empty").hidden = true;
  byId("more").hidden = true;
}

function showAnswer(answer, before = []) {
  cursor = answer.cursor;
  byId("more").hidden = !cursor;
  const count = `${results.count} ${results.count === 1 ? "result" : "results"}`;
  const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
  byId("status").textContent = [
    cursor ? `The ${isQuery() ? "best" : "first"} ${count}` : count,
    ms(answer.took_ms), answer.model, isQuery() ? (answer.exact ? "exact" : "approximate") : "",
    answer.reranked === undefined ? "" : `reranked ${answer.reranked}${"rerank" in answer.stages ? ` in ${ms(answer.stages.rerank)}` : ""}`,
  ].filter(Boolean).join(" · ");
  byId("warnings").replaceChildren(...[...before, ...answer.warnings].map((said) => make("li", { textContent: said })));
  if (results.count) return;
  const hints = [state.least ? "lower the relevance" : "", state.filter ? "let more through the filter" : "", state.kind ? "look for everything" : ""];
  const hint = hints.filter(Boolean).join(", or ");
  empty(make("h2", { textContent: "Nothing here matches" }), make("p", { textContent: hint ? `To see more, ${hint}.` : "Try other words." }));
}

function showNothingYet() {
  results.show([], state);
  facets.clear();
  const option = state.collection && state.collection !== "media" ? ` --collection ${state.collection}` : "";
  empty(make("h2", { textContent: "Nothing is indexed yet" }), make("p", { textContent: "Point Crosslens at a folder of photos, videos, PDFs or texts:" }),
    make("p", {}, make("code", { textContent: `crosslens ingest FOLDER${option}` })), make("p", { textContent: "Then load this page again." }));
}

function empty(...children) {
  byId("empty").replaceChildren(...children);
  byId("empty").hidden = false;
}

/** Say what went wrong and what to do next: of the filter beside it, of all else above the results. */
function tell(problem) {
  if (!(problem instanceof Problem)) console.error(problem);
  const ofFilter = /^filter\b/.test(problem.field || problem.message);
  const message = problem.message.replace(/^filter: /, "The filter ");
  const said = [make("span", { textContent: message }), make("span", { className: "remedy", textContent: problem.remedy || "" })];
  byId(ofFilter ? "filter-problem" : "problem").replaceChildren(...said);
  if (ofFilter) {
    field.filter.ariaInvalid = "true";
    byId("refine").open = true;
  }
}

// Pictures, keys, and the beginning

function take(files) {
  const taken = [...files].filter((file) => file.type.startsWith("image/") || /\.(heic|avif|tiff?)$/i.test(file.name));
  if (!taken.length) return;
  const first = pictures.length;
  pictures.push(...taken.map((file) => ({ file, url: URL.createObjectURL(file) })));
  go({ like: [], pictures: [...state.pictures, ...taken.map((_, number) => first + number)] });
}

function askKey(problem) {
  const dialog = byId("key-dialog");
  byId("key-problem").textContent = key.get() ? problem.message : "Whoever runs it makes one with `crosslens keys create`.";
  byId("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue || null), { once: true });
  });
}

/** A server tells a key's roles only by what it lets it do. */
async function findOutWhetherModerator() {
  if (!state.collection) return;
  const asked = ask(pathOf({ collection: state.collection, moderator: true }));
  const whole = await asked.catch(() => null);
  byId("moderator-switch").hidden = !whole && !state.moderator; // so that what an address brought can be taken back
  if (!whole?.count || state.moderator || collections.find(({ name }) => name === whole.name)?.count !== 0) return;
  empty(make("h2", { textContent: "All of it is withheld" }), make("p", { textContent: "The policy shows none of this collection, or has not judged it yet:" }),
    make("p", {}, make("code", { textContent: "crosslens moderate rescan" })), make("p", { textContent: "The moderator view shows what there is." }));
}

async function start() {
  state = read();
  intoForm();
  try {
    ({ collections } = await ask("v1/collections"));
  } catch (error) {
    tell(error);
    return;
  }
  state.collection ||= fallback();
  const names = collections.map(({ name }) => name);
  if (state.collection && !names.includes(state.collection)) names.push(state.collection); // the server will say
  field.collection.replaceChildren(...names.map((name) => make("option", { textContent: name, value: name })));
  field.collection.value = state.collection;
  byId("forget").hidden = !key.get();
  await run();
  await findOutWhetherModerator();
}

byId("search").addEventListener("submit", (event) => { event.preventDefault(); go({}); });
field.collection.addEventListener("change", () => go({ like: [] })); // ids of the other one
const switches = [field.least, field.diverse, field.rerank, field.moderator];
for (const input of [...switches, ...document.querySelectorAll("[name=kind]")]) input.addEventListener("change", () => go({}));
field.least.addEventListener("input", showLeast);
byId("more").addEventListener("click", more);
byId("file").addEventListener("change", ({ target }) => { take(target.files); target.value = ""; });
byId("key-form").addEventListener("submit", (event) => { event.preventDefault(); byId("key-dialog").close(byId("key").value.trim()); });
byId("no-key").addEventListener("click", () => byId("key-dialog").close());
byId("forget").addEventListener("click", () => { key.forget(); location.reload(); });
addEventListener("popstate", () => { state = read(); intoForm(); if (collections) run(); });
addEventListener("paste", ({ clipboardData }) => take(clipboardData.files));
addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", ({ relatedTarget }) => relatedTarget || document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  take(event.dataTransfer.files);
});
addEventListener("keydown", (event) => {
  if (event.key !== "/" || document.querySelector("dialog[open]") || event.target.matches("input:not([type=checkbox], [type=radio], [type=range]), select")) return;
  event.preventDefault();
  field.text.select();
});
byId("refine").open = matchMedia("(min-width: 60rem)").matches;
onKeyNeeded(askKey);
start();

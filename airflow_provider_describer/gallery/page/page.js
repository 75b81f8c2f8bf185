// The page: its address holds the filters, the server's API has the rows, and this file brings both together.

import { card, entry, picture } from "./cards.js";
import { drawChart } from "./chart.js";
import { count, element, label, money, nameOf, when } from "./words.js";

const FILTERS = ["q", "status", "dag_id", "run_id", "task_id", "map_index", "vendor", "prompt", "rule", "review"];
const FROM_LINKS = { dag_id: "DAG", task_id: "Task", map_index: "Map index" };
const STATUSES = ["described", "rejected", "unknown", "withdrawn", "failed"];
const REVIEWS = ["approved", "edited", "rejected"];
// Of the choice "without a prompt"; in the page's address it is the empty text.
const NO_PROMPT = "\u0001";
const byId = (id) => document.getElementById(id);
const form = byId("filters");
const grid = byId("grid");
const detail = byId("detail");
let address = new URLSearchParams(location.search);
let next = null;
let underWay = new AbortController();
let typing = 0;
// The rules that a row of this visit has failed.
const rules = new Set();

// --- the server ---------------------------------------------------------------------------------------------------

async function ask(path, parameters, signal) {
  const response = await fetch(`api/${path}?${parameters}`, { signal, headers: { accept: "application/json" } });
  if (response.ok) return response.json();
  const answer = await response.json().catch(() => ({}));
  throw Object.assign(new Error(answer.error ?? `The server answered with HTTP ${response.status}.`), { status: response.status });
}

function query(...names) {
  const chosen = new URLSearchParams();
  for (const name of ["store", ...names]) if (address.has(name)) chosen.set(name, address.get(name));
  return chosen;
}

const thumbnail = (row) => `api/thumbnail?${new URLSearchParams({ store: address.get("store"), row: row.row })}`;

// --- messages -----------------------------------------------------------------------------------------------------

function tell(heading, text, isBad = false, link = null) {
  const box = byId("message");
  box.hidden = false;
  box.classList.toggle("bad", isBad);
  box.querySelector("h2").textContent = heading;
  box.querySelector("p").textContent = text;
  const anchor = box.querySelector("a");
  anchor.hidden = link === null;
  if (link) { anchor.href = link.href; anchor.textContent = link.text; }
}

function tellError(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401) tell("You are not logged in any more", "Log in again to go on.", true, { href: location.href, text: "Log in" });
  else if (error.status === 403) tell("You may not see this", error.message, true);
  else tell("The store cannot be shown", error.message, true);
  byId("content").hidden = error.status === 401 || error.status === 403 || grid.childElementCount === 0;
  byId("state").textContent = "";
}

// --- filters ------------------------------------------------------------------------------------------------------

function go(changes, isSmall = false) {
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) address.delete(name);
    else address.set(name, value);
  }
  history[isSmall ? "replaceState" : "pushState"](null, "", `?${address}`);
}

function choices(select, all, chosen, anyText) {
  const known = all.some(([value]) => value === chosen);
  const more = chosen === null || known ? [] : [[chosen, chosen]];
  const options = [["", anyText], ...all, ...more].map(([value, text]) => element("option", { value }, text));
  select.replaceChildren(...options);
  select.value = chosen ?? "";
}

const short = (text) => (text.length > 90 ? `${text.slice(0, 90)}…` : text);

function showFilters(totals) {
  const field = (name) => form.elements[name];
  const chosen = (name) => address.get(name);
  if (field("q") !== document.activeElement) field("q").value = chosen("q") ?? "";
  choices(field("status"), STATUSES.map((status) => [status, label(status)]), chosen("status"), "All");
  choices(field("run_id"), totals.runs.map((run) => [run.run_id, short(run.run_id)]), chosen("run_id"), "All");
  choices(field("vendor"), totals.vendors.map((vendor) => [vendor, vendor]), chosen("vendor"), "All");
  choices(field("prompt"), totals.prompts.map((prompt) => [prompt || NO_PROMPT, short(prompt ?? "") || "none: the vendor's own"]), chosen("prompt") === "" ? NO_PROMPT : chosen("prompt"), "All");
  choices(field("rule"), [["any", "any rule"], ...[...rules].sort().map((rule) => [rule, short(rule)])], chosen("rule"), "All");
  choices(field("review"), [["any", "any decision"], ...REVIEWS.map((review) => [review, review])], chosen("review"), "All");
  const chips = Object.entries(FROM_LINKS).filter(([name]) => address.has(name)).map(([name, text]) => {
    const chip = element("button", { type: "button", "aria-label": `Remove the filter ${text} ${address.get(name)}` }, `${text}: `, element("bdi", {}, address.get(name)), " ✕");
    chip.addEventListener("click", () => { go({ [name]: null }); load(); });
    return element("li", {}, chip);
  });
  byId("chosen").replaceChildren(...chips);
  byId("clear").hidden = !FILTERS.some((name) => address.has(name));
}

function showTotals(totals) {
  const open = totals.by_status.unknown ?? 0;
  const numbers = [["Outcomes", count(totals.count)], ["Calls", count(totals.calls)], ["Cost", money(totals.cost_usd)]];
  if (open > 0) numbers.push(["Unknown", count(open)]);
  byId("totals").querySelector("dl").replaceChildren(...numbers.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value))));
  drawChart(byId("chart"), totals.by_day);
  byId("totals-note").textContent = totals.searched_to ? `Counted back to ${when(totals.searched_to)} only: the search took too long.` : "";
}

// --- gallery ------------------------------------------------------------------------------------------------------

function showRows(page, isMore) {
  for (const row of page.rows) for (const rule of row.failed_rules ?? []) rules.add(rule);
  const cards = page.rows.map((row) => card(row, row.thumbnail && thumbnail(row), openImage));
  if (isMore) grid.append(...cards);
  else grid.replaceChildren(...cards);
  if (isMore) cards[0]?.querySelector("button").focus();
  next = page.next;
  byId("more").hidden = next === null;
  byId("state").textContent = stateOf(page);
}

function stateOf(page) {
  const shown = grid.childElementCount;
  if (page.searched_to) return `${count(shown)} found so far, back to ${when(page.searched_to)}. Show more searches on.`;
  if (shown > 0) return `${count(shown)} shown, newest first${next === null ? "" : "; there are more"}`;
  return FILTERS.some((name) => address.has(name)) ? "No description fits these filters." : "This store has no descriptions that you may see.";
}

async function load() {
  underWay.abort();
  underWay = new AbortController();
  const { signal } = underWay;
  byId("message").hidden = true;
  byId("content").hidden = false;
  grid.setAttribute("aria-busy", "true");
  byId("state").textContent = "Loading…";
  try {
    const filters = query(...FILTERS);
    const page = await ask("rows", filters, signal);
    showRows(page, false);
    grid.removeAttribute("aria-busy");
    const totals = await ask("totals", filters, signal);
    showFilters(totals);
    showTotals(totals);
  } catch (error) {
    if (error.name === "AbortError") return;
    grid.removeAttribute("aria-busy");
    grid.replaceChildren();
    byId("more").hidden = true;
    tellError(error);
  }
}

async function loadMore() {
  const parameters = query(...FILTERS);
  parameters.set("after", next);
  byId("more").disabled = true;
  try {
    showRows(await ask("rows", parameters, underWay.signal), true);
  } catch (error) {
    tellError(error);
  }
  byId("more").disabled = false;
}

// --- one image ----------------------------------------------------------------------------------------------------

function openImage(uri) {
  go({ image: uri });
  showImage();
}

async function showImage() {
  const uri = address.get("image");
  byId("detail-name").textContent = nameOf(uri);
  byId("detail-uri").firstElementChild.textContent = uri;
  byId("detail-image").replaceChildren();
  byId("history").replaceChildren();
  byId("detail-state").textContent = "Loading…";
  byId("open").hidden = true;
  if (!detail.open) detail.showModal();
  try {
    const { rows, link } = await ask("history", query("image"));
    if (address.get("image") !== uri) return;
    // Airflow's frame opens no windows.
    byId("open").hidden = link === null || window.top !== window;
    if (link) byId("open").href = link;
    if (rows.length > 0) byId("detail-image").replaceChildren(picture(rows[0], rows[0].thumbnail && thumbnail(rows[0]), false));
    byId("history").replaceChildren(...rows.map((row, at) => entry(row, rows.slice(at + 1).find((older) => older.text !== null))));
    const several = rows.length > 1 ? "; words that differ from the text before are marked" : "";
    byId("detail-state").textContent = rows.length === 0 ? "This store knows nothing of this image that you may see." : `${count(rows.length)} ${rows.length === 1 ? "entry" : "entries"}${several}`;
  } catch (error) {
    byId("detail-state").textContent = error.status === 401 ? "You are not logged in any more." : error.message;
  }
}

// --- the beginning ------------------------------------------------------------------------------------------------

async function start() {
  address = new URLSearchParams(location.search);
  try {
    const { stores } = await ask("stores", "");
    const select = byId("store");
    if (stores.length === 0 && !address.has("store")) {
      select.replaceChildren(element("option", {}, "none"));
      tell("No store is named in [describer] stores", "An administrator names the stores that this page may show in Airflow's configuration, under [describer] stores, as in: stores = s3://bucket/store aws_default");
      return;
    }
    if (!address.has("store")) go({ store: stores[0] }, true);
    const all = stores.includes(address.get("store")) ? stores : [address.get("store"), ...stores];
    select.replaceChildren(...all.map((store) => element("option", { value: store }, store)));
    select.value = address.get("store");
    select.disabled = all.length < 2;
    await load();
    if (address.has("image")) showImage();
    else if (detail.open) detail.close();
  } catch (error) {
    tellError(error);
  }
}

// Airflow's own theme, where the page is in Airflow's frame.
function followTheme() {
  try {
    const outer = window.parent === window ? null : window.parent.document.documentElement;
    if (!outer) return;
    const apply = () => {
      const theme = outer.classList.contains("dark") ? "dark" : outer.classList.contains("light") ? "light" : null;
      if (theme) document.documentElement.dataset.theme = theme;
    };
    new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
    apply();
  } catch {
    // A frame of another origin does not tell; the system's theme is used.
  }
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", (event) => {
  const { name, value } = event.target;
  if (name === "q") return;
  go({ [name]: value === NO_PROMPT ? "" : value || null });
  load();
});
form.elements.q.addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    go({ q: event.target.value.trim() || null }, address.has("q"));
    load();
  }, 300);
});
byId("clear").addEventListener("click", () => {
  form.elements.q.value = "";
  go(Object.fromEntries(FILTERS.map((name) => [name, null])));
  load();
  form.elements.q.focus();
});
byId("store").addEventListener("change", (event) => {
  go({ ...Object.fromEntries(FILTERS.map((name) => [name, null])), store: event.target.value });
  load();
});
byId("more").addEventListener("click", loadMore);
byId("close").addEventListener("click", () => detail.close());
byId("copy").addEventListener("click", async () => {
  await navigator.clipboard?.writeText(address.get("image")).catch(() => {});
  byId("copy").textContent = "Copied";
  setTimeout(() => { byId("copy").textContent = "Copy address"; }, 1500);
});
detail.addEventListener("close", () => { if (address.has("image")) go({ image: null }); });
detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || detail.open || /^(?:INPUT|SELECT|TEXTAREA)$/u.test(event.target.tagName)) return;
  event.preventDefault();
  form.elements.q.focus();
});
window.addEventListener("popstate", start);
followTheme();
start();

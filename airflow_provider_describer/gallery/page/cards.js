// One image: as a card of the gallery, and as an entry of its history.

import { badge, element, label, marked, money, nameOf, when } from "./words.js";

export function picture(row, source, isSmall = true) {
  const name = nameOf(row.uri);
  const ending = /\.([A-Za-z0-9]{1,5})$/u.exec(name)?.[1]?.toUpperCase() ?? "";
  const plate = element("span", { class: "plate" }, element("span", {}, row.thumbnail ? "" : `No preview ${ending && `· ${ending}`}`));
  if (row.thumbnail) {
    const image = element("img", { src: source, alt: isSmall ? "" : name, loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => {
      image.remove();
      plate.firstChild.textContent = `No preview ${ending && `· ${ending}`}`;
    });
    plate.append(image);
  }
  return plate;
}

function badges(row) {
  const all = [badge(row.status)];
  if (row.review && row.status !== "withdrawn") all.push(badge(row.review));
  for (const rule of row.failed_rules ?? []) all.push(badge("rejected", `fails ${rule}`));
  return element("div", { class: "badges" }, ...all);
}

function facts(pairs) {
  const list = element("dl", { class: "facts" });
  for (const [term, value] of pairs) {
    if (value !== null && value !== undefined && value !== "") {
      list.append(element("dt", {}, term), element("dd", { dir: "auto", title: String(value) }, String(value)));
    }
  }
  return list;
}

function cost(row) {
  if (row.billed === "unknown") return `${money(row.cost_usd)} (may have been billed)`;
  return row.cost_usd === null && row.billed === "no" ? "not billed" : money(row.cost_usd);
}

const error = (row) => (row.error ? element("p", { class: "error", dir: "auto" }, `${row.error.kind}: ${row.error.message}`) : null);

const prompt = (row) => (row.prompt === null ? "none: the vendor's own" : row.prompt);

export function card(row, source, open) {
  const name = nameOf(row.uri);
  const show = element("button", { type: "button", class: "show", "aria-label": `${name}: show its history` }, picture(row, source), element("bdi", { class: "name", dir: "auto" }, name));
  show.addEventListener("click", () => open(row.uri));
  const text = row.text === null ? null : element("p", { class: "text", dir: "auto", lang: row.lang }, row.text + (row.shortened ? " …" : ""));
  const body = element("div", { class: "body" }, badges(row), text, error(row), facts([
    ["Prompt", prompt(row)], ["Vendor", row.vendor], ["Cost", cost(row)], [row.review ? "Reviewed" : "When", when(row.described_at)],
  ]));
  return element("li", {}, element("article", { class: "card", "aria-label": name }, show, body));
}

export function entry(row, before) {
  const item = element("li", {}, element("time", { datetime: row.described_at }, when(row.described_at)), badges(row));
  if (row.text !== null) {
    item.append(element("p", { class: "text", dir: "auto", lang: row.lang, tabindex: "0", role: "group", "aria-label": `Text of ${when(row.described_at)}` }, ...marked(row.text, before?.text)));
    if (row.shortened) item.append(element("p", {}, "The text is longer than this page shows."));
  }
  const problem = error(row);
  if (problem) item.append(problem);
  item.append(facts([
    ["Prompt", prompt(row)], ["Language", row.lang], ["Vendor", row.vendor], ["Model", row.model], ["Cost", cost(row)],
    ["Review", row.review && `${label(row.review)} by ${row.reviewed_by ?? "unknown"}`], ["DAG", row.dag_id], ["Run", row.run_id],
    ["Task", row.task_id && `${row.task_id}${row.map_index >= 0 ? ` [${row.map_index}]` : ""}, try ${row.try_number}`],
  ]));
  return item;
}

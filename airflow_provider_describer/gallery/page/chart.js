// Cost by day: bars for the eye, and the same numbers as a table.

import { count, element, money } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 92;
const MOST_BARS = 92;
const THICKEST = 28;
const NARROWEST = 160;

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

let watcher = null;

const dayOf = (time) => time.toISOString().slice(0, 10);

// Every day between the first and the last, so that a day without calls is seen; months where there are too many days.
function bars(days) {
  const first = new Date(`${days[0].day}T00:00:00Z`);
  const last = new Date(`${days.at(-1).day}T00:00:00Z`);
  const isLong = (last - first) / 86_400_000 >= MOST_BARS;
  const size = isLong ? 7 : 10;
  const sums = new Map();
  for (const time = new Date(first); time <= last; time.setUTCDate(time.getUTCDate() + 1)) {
    sums.set(dayOf(time).slice(0, size), { cost_usd: 0, calls: 0 });
  }
  for (const day of days) {
    const sum = sums.get(day.day.slice(0, size));
    sum.cost_usd += day.cost_usd;
    sum.calls += day.calls;
  }
  return [...sums].map(([name, sum]) => ({ name, ...sum }));
}

function picture(all, unit, width) {
  const most = Math.max(...all.map((bar) => bar.cost_usd), 0);
  const top = 14;
  const bottom = HEIGHT - 16;
  const step = width / all.length;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" });
  const highest = all.find((bar) => bar.cost_usd === most);
  svg.setAttribute("aria-label", `Cost by ${unit} from ${all[0].name} to ${all.at(-1).name}; most on ${highest.name}: ${money(most)}`);
  svg.append(shape("line", { x1: 0, x2: width, y1: bottom, y2: bottom }));
  all.forEach((bar, at) => {
    const height = most > 0 ? ((bottom - top) * bar.cost_usd) / most : 0;
    const thickness = Math.min(Math.max(step - 3, 1), THICKEST);
    const rect = shape("rect", { x: at * step + (step - thickness) / 2, y: bottom - height, width: thickness, height, rx: Math.min(2, thickness / 2) });
    rect.append(shape("title", {}, `${bar.name}: ${money(bar.cost_usd)}, ${count(bar.calls)} ${bar.calls === 1 ? "call" : "calls"}`));
    svg.append(rect);
  });
  svg.append(shape("text", { x: 0, y: HEIGHT - 2 }, all[0].name));
  if (all.length > 1) svg.append(shape("text", { x: width, y: HEIGHT - 2, class: "end" }, all.at(-1).name));
  svg.append(shape("text", { x: 0, y: 9 }, `up to ${money(most)} a ${unit}`));
  return svg;
}

export function drawChart(figure, days) {
  figure.hidden = !days.some((day) => day.cost_usd > 0);
  if (figure.hidden) return;
  const all = bars(days);
  const unit = all[0].name.length === 7 ? "month" : "day";
  figure.querySelector("figcaption").textContent = `Cost by ${unit}`;
  figure.querySelector("summary").textContent = `Cost by ${unit} as a table`;
  const place = figure.querySelector(".bars");
  const draw = () => place.replaceChildren(picture(all, unit, Math.max(Math.floor(place.clientWidth), NARROWEST)));
  draw();
  watcher?.disconnect();
  watcher = new ResizeObserver(draw);
  watcher.observe(place);
  const head = element("tr", {}, ...[unit === "day" ? "Day (UTC)" : "Month (UTC)", "Calls", "Cost"].map((name) => element("th", { scope: "col" }, name)));
  const rows = all.map((bar) => element("tr", {}, element("th", { scope: "row" }, bar.name), element("td", {}, count(bar.calls)), element("td", {}, money(bar.cost_usd))));
  figure.querySelector("table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows.reverse()));
}

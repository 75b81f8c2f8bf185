// What numbers, times and texts look like, and how elements are made. Texts of others become text nodes, never markup.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function money(usd) {
  if (usd === null || usd === undefined) return "unknown";
  const digits = usd !== 0 && Math.abs(usd) < 1 ? 4 : 2;
  return new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: digits }).format(usd);
}

export const count = (number) => new Intl.NumberFormat("en-US").format(number);

// Times are shown in UTC, as in Airflow's UI by default.
export function when(iso) {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return String(iso ?? "");
  return `${time.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

export function nameOf(uri) {
  const path = uri.replace(/[?#].*$/u, "").replace(/\/+$/u, "");
  return path.slice(path.lastIndexOf("/") + 1) || uri;
}

const TONES = { described: "good", reused: "good", approved: "good", edited: "good", rejected: "bad", failed: "bad", withdrawn: "bad" };
const LABELS = { withdrawn: "rejected in review" };

export const label = (status) => LABELS[status] ?? status;

export const badge = (status, text = label(status)) => element("span", { class: `badge ${TONES[status] ?? "wait"}` }, text);

const MOST_WORDS = 700;

// The text as nodes, with the words marked that the other text does not have in this place.
export function marked(text, other) {
  const mine = text.split(/(\s+)/u);
  const theirs = (other ?? "").split(/(\s+)/u);
  if (!other || text === other || mine.length > MOST_WORDS || theirs.length > MOST_WORDS) return [text];
  const kept = commonWords(mine, theirs);
  const nodes = [];
  mine.forEach((word, at) => {
    const isNew = !kept.has(at) && word.trim() !== "";
    nodes.push(isNew ? element("mark", {}, word) : word);
  });
  return nodes;
}

// The places in `mine` of a longest common subsequence of both.
function commonWords(mine, theirs) {
  const width = theirs.length + 1;
  const lengths = new Uint16Array((mine.length + 1) * width);
  for (let i = mine.length - 1; i >= 0; i -= 1) {
    for (let j = theirs.length - 1; j >= 0; j -= 1) {
      lengths[i * width + j] = mine[i] === theirs[j]
        ? lengths[(i + 1) * width + j + 1] + 1
        : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const kept = new Set();
  for (let i = 0, j = 0; i < mine.length && j < theirs.length;) {
    if (mine[i] === theirs[j]) { kept.add(i); i += 1; j += 1; }
    else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return kept;
}

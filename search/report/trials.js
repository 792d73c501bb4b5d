
// --- tiny pictures: blocks as bars, shortcuts as arcs, what is heard of the past dashed ------------------------------
function drawn(tag, attributes, parent) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent?.append(node);
  return node;
}
const bit = (packed, k) => (parseInt(packed[k >> 2] ?? "0", 16) >> (k & 3)) & 1;
function glyph([widths, edges, past]) {
  const last = widths.length - 1, most = Math.max(...widths);
  const x = (i) => 4 + (96 * i) / last;
  const bars = widths.map((width, i) => `M${x(i).toFixed(1)} 20v${(2 + 11 * Math.sqrt(width / most)).toFixed(1)}`);
  const arc = (a, b, least) => {
    const span = x(b) - x(a), rise = Math.abs(b - a) === 1 ? least : 6 + 16 * (Math.abs(b - a) / last);
    return `M${x(a).toFixed(1)} 20c0 ${-rise} ${span.toFixed(1)} ${-rise} ${span.toFixed(1)} 0`;
  };
  let arcs = "", back = "", k = 0;
  for (let i = 1; i <= last; i++) for (let j = 0; j < i; j++) if (bit(edges, k++)) arcs += arc(j, i, 0);
  for (let i = 0; past && i <= last; i++) for (let j = 0; j <= last; j++) {
    if (!bit(past, i * (last + 1) + j)) continue;
    back += i === j ? `M${x(i).toFixed(1)} 20c-6 -9 6 -9 0 0` : arc(j, i, 5);
  }
  const svg = drawn("svg", { class: "glyph", viewBox: "0 0 104 34", "aria-hidden": "true" });
  if (back) drawn("path", { class: "past", d: back }, svg);
  drawn("path", { d: arcs }, svg);
  drawn("path", { class: "bars", d: bars.join(""), "stroke-width": Math.min(6, 60 / last) }, svg);
  return svg;
}
for (const cell of $$("[data-glyph]")) cell.prepend(glyph(JSON.parse(cell.dataset.glyph)));

// --- the table of all trials: rows are made as they are scrolled to ------------------------------------------------
const CHUNK = 80, collator = new Intl.Collator("en", { numeric: true });
for (const trial of trials) {
  trial.words = `${trial.number} ${data.statuses[trial.status]} ${trial.network}`.toLowerCase();
}
const table = $("#table"), body = $("tbody", table), more = $("#more");
let shown = [], sorting = { key: "loss", sign: 1 };

function statusCell(trial) {
  const cell = make("td"), pill = make("span", "pill");
  const same = trial.duplicate_of === null ? "" : ` of ${trial.duplicate_of}`;
  pill.append(make("span", `key dot status-${trial.status}`), data.statuses[trial.status] + same);
  cell.append(pill);
  return cell;
}
function networkCell(trial) {
  const cell = make("td"), net = make("div", "net");
  net.append(glyph([trial.widths, trial.edges, trial.past]), make("small", "", trial.network));
  cell.append(net);
  return cell;
}
function makeRow(trial) {
  const row = make("tr", trial.number === data.winner ? "winner" : "");
  row.dataset.trial = trial.number;
  for (const key of data.columns) {
    if (key === "status") row.append(statusCell(trial));
    else if (key === "network") row.append(networkCell(trial));
    else row.append(make("td", "n", text(key, trial[key])));
  }
  return row;
}
function extend() {
  const from = body.rows.length;
  body.append(...shown.slice(from, from + CHUNK).map(makeRow));
  more.hidden = body.rows.length >= shown.length;
}
function compare(a, b) {
  let [x, y] = [a[sorting.key], b[sorting.key]];
  if (sorting.key === "status") [x, y] = [data.statuses[x], data.statuses[y]];
  if (x === null || y === null) return (x === null) - (y === null) || a.number - b.number; // what is missing comes last
  const order = typeof x === "string" ? collator.compare(x, y) : x - y;
  return sorting.sign * order || a.number - b.number;
}
function refresh() {
  const words = $("#filter").value.toLowerCase().split(/\s+/).filter(Boolean), status = $("#status").value;
  shown = trials
    .filter((trial) => (status === "" || trial.status === Number(status)) && words.every((w) => trial.words.includes(w)))
    .sort(compare);
  body.replaceChildren();
  extend();
  $("#count").textContent = `${whole.format(shown.length)} of ${whole.format(trials.length)} trial${trials.length === 1 ? "" : "s"}`;
  for (const th of $$("th", table.tHead)) {
    if (th.dataset.key === sorting.key) th.setAttribute("aria-sort", sorting.sign > 0 ? "ascending" : "descending");
    else th.removeAttribute("aria-sort");
  }
}
for (const th of $$("th", table.tHead)) {
  $("button", th).addEventListener("click", () => {
    const key = th.dataset.key, first = key === "score" ? -1 : 1; // of scores the best is the highest
    sorting = { key, sign: sorting.key === key ? -sorting.sign : first };
    refresh();
  });
}
$("#filter").addEventListener("input", refresh);
$("#status").addEventListener("change", refresh);
$(".filters").addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", extend);
new IntersectionObserver((entries) => entries[0].isIntersecting && extend(), { root: table.parentNode, rootMargin: "600px" }).observe(more);
refresh();

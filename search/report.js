"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// --- theme: the system's, until the button is pressed -------------------------------------------------------------
const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
function paint() {
  const dark = chosen ?? system.matches;
  document.documentElement.className = chosen === null ? "" : dark ? "dark" : "light";
  $("#theme").textContent = dark ? "Light" : "Dark";
  $("#theme").setAttribute("aria-label", `Switch to ${dark ? "light" : "dark"} colours`);
}
system.addEventListener("change", paint);
$("#theme").addEventListener("click", () => {
  chosen = !(chosen ?? system.matches);
  paint();
});
paint();

// --- graphs: what a block or a machine hears and feeds -----------------------------------------------------------
for (const svg of $$(".diagram")) {
  const boxes = $$(".box", svg), lines = $$(".line", svg);
  const readout = $(".readout", svg.closest(".graph"));
  const byKey = new Map(boxes.map((box) => [box.dataset.box, box]));
  const show = (box) => {
    clear();
    svg.classList.add("active");
    box.classList.add("self");
    for (const line of lines) {
      const { from, to } = line.dataset;
      line.classList.toggle("hears", to === box.dataset.box);
      line.classList.toggle("feeds", from === box.dataset.box);
      if (to === box.dataset.box) byKey.get(from).classList.add("near");
      if (from === box.dataset.box) byKey.get(to).classList.add("near");
    }
    readout.textContent = box.getAttribute("aria-label");
    readout.classList.add("live");
  };
  const clear = () => {
    svg.classList.remove("active");
    for (const box of boxes) box.classList.remove("self", "near");
    for (const line of lines) line.classList.remove("hears", "feeds");
    readout.textContent = readout.dataset.hint;
    readout.classList.remove("live");
  };
  const settle = () => {
    const box = boxes.find((b) => b === document.activeElement);
    if (box) show(box);
    else clear();
  };
  for (const box of boxes) {
    box.addEventListener("mouseenter", () => show(box));
    box.addEventListener("mouseleave", settle);
    box.addEventListener("focus", () => show(box));
    box.addEventListener("blur", clear);
  }
}

// --- tiny pictures: blocks as bars, shortcuts as arcs -------------------------------------------------------------
function drawn(tag, attributes, parent) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent?.append(node);
  return node;
}
function glyph([widths, edges]) {
  const last = widths.length - 1, most = Math.max(...widths);
  const x = (i) => 4 + (96 * i) / last;
  const bars = widths.map((width, i) => `M${x(i).toFixed(1)} 20v${(2 + 11 * Math.sqrt(width / most)).toFixed(1)}`);
  const arcs = edges.map(([a, b]) => {
    const span = x(b) - x(a), rise = b === a + 1 ? 0 : 6 + 16 * ((b - a) / last);
    return `M${x(a).toFixed(1)} 20c0 ${-rise} ${span.toFixed(1)} ${-rise} ${span.toFixed(1)} 0`;
  });
  const svg = drawn("svg", { class: "glyph", viewBox: "0 0 104 34", "aria-hidden": "true" });
  drawn("path", { d: arcs.join("") }, svg);
  drawn("path", { class: "bars", d: bars.join("") }, svg);
  return svg;
}
for (const cell of $$("[data-glyph]")) cell.prepend(glyph(JSON.parse(cell.dataset.glyph)));

// --- numbers for people ------------------------------------------------------------------------------------------
const digits = (n) => new Intl.NumberFormat("en", { maximumSignificantDigits: n });
const [three, four] = [digits(3), digits(4)], whole = new Intl.NumberFormat("en");
const formats = {
  score: (v) => (data.percent ? `${(100 * v).toFixed(2)} %` : v.toFixed(4).replace("-", "−")),
  loss: (v) => four.format(v),
  learning_rate: (v) => three.format(v),
  seconds: (v) => `${v < 10 ? three.format(Math.round(v * 100) / 100) : whole.format(Math.round(v))} s`,
};
const text = (key, value) => (value === null ? "–" : (formats[key] ?? ((v) => whole.format(v)))(value));

// --- the table of all trials: rows are made as they are scrolled to ------------------------------------------------
const CHUNK = 80, collator = new Intl.Collator("en", { numeric: true });
const trials = data.trials.map((values) => Object.fromEntries(data.fields.map((name, i) => [name, values[i]])));
for (const trial of trials) {
  trial.words = `${trial.number} ${data.statuses[trial.status]} ${trial.network}`.toLowerCase();
}
const table = $("#table"), body = $("tbody", table), more = $("#more");
let shown = [], sorting = { key: "loss", sign: 1 };

function statusCell(trial) {
  const cell = document.createElement("td"), pill = document.createElement("span"), dot = document.createElement("span");
  pill.className = "pill";
  dot.className = `key dot status-${trial.status}`;
  const same = trial.duplicate_of === null ? "" : ` of ${trial.duplicate_of}`;
  pill.append(dot, data.statuses[trial.status] + same);
  cell.append(pill);
  return cell;
}
function makeRow(trial) {
  const row = document.createElement("tr");
  row.dataset.trial = trial.number;
  if (trial.number === data.winner) row.className = "winner";
  for (const key of data.columns) {
    if (key === "status") {
      row.append(statusCell(trial));
      continue;
    }
    const cell = row.insertCell();
    if (key === "network") {
      const net = document.createElement("div"), words = document.createElement("small");
      net.className = "net";
      words.textContent = trial.network;
      net.append(glyph([trial.widths, trial.edges]), words);
      cell.append(net);
    } else {
      cell.className = "n";
      cell.textContent = text(key, trial[key]);
    }
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
  $("#count").textContent = `${whole.format(shown.length)} of ${whole.format(trials.length)} trials`;
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

// --- history: the trial nearest to the pointer, or by arrow keys ---------------------------------------------------
const chart = $("#trial-chart"), plot = $(".plot", chart);
let current = -1;
function point(index) {
  current = Math.max(0, Math.min(trials.length - 1, index));
  const trial = trials[current];
  $(".mark", plot).setAttribute("d", `M${trial.x} ${trial.y}h0`);
  const readout = $(".readout", chart);
  readout.classList.add("live");
  readout.textContent = `Trial ${trial.number}, ${data.statuses[trial.status]}: loss ${text("loss", trial.loss)}, ` +
    `${data.score} ${text("score", trial.score)}; ${trial.network}`;
}
if (trials.length) {
  plot.addEventListener("pointermove", (event) => {
    const { left, top, width, height } = plot.getBoundingClientRect();
    const [px, py] = [event.clientX - left, event.clientY - top];
    const far = (t) => ((t.x * width) / 1000 - px) ** 2 + ((t.y * height) / 1000 - py) ** 2;
    point(trials.reduce((best, trial, i) => (far(trial) < far(trials[best]) ? i : best), 0));
  });
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, PageUp: 50, PageDown: -50 }[event.key];
    if (!step) return;
    event.preventDefault();
    point(current + step);
  });
}

// --- learning curves: a line of the list and its curve --------------------------------------------------------------
for (const pick of $$(".picks li")) {
  const curve = $(`.curve[data-curve="${pick.dataset.curve}"]`);
  const set = (on) => () => {
    curve.classList.toggle("picked", on);
    if (on) curve.parentNode.append(curve); // on top
  };
  for (const type of ["mouseenter", "focus"]) pick.addEventListener(type, set(true));
  for (const type of ["mouseleave", "blur"]) pick.addEventListener(type, set(false));
}

"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

for (const node of $$(".needs-script")) node.hidden = false;
const trials = data.trials.map((values) => Object.fromEntries(data.fields.map((name, i) => [name, values[i]])));

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

// --- numbers for people ------------------------------------------------------------------------------------------
const digits = (n) => new Intl.NumberFormat("en", { maximumSignificantDigits: n });
const [three, four] = [digits(3), digits(4)], whole = new Intl.NumberFormat("en");
const formats = {
  score: (v) => (data.percent ? `${(100 * v).toFixed(2)} %` : v.toFixed(4).replace("-", "−")),
  loss: (v) => four.format(v),
  learning_rate: (v) => three.format(v),
  seconds: (v) => `${v < 10 ? three.format(Math.round(v * 100) / 100) : whole.format(Math.round(v))} s`,
};
const large = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const text = (key, value) => (value === null ? "–" : (formats[key] ?? ((v) => large.format(v)))(value));

function make(tag, className = "", content = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = content;
  return node;
}

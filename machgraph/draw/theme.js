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

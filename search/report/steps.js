
// --- graphs: what a block or a machine hears and feeds -----------------------------------------------------------
function lit(svg, key) {
  const near = new Set([key]);
  for (const line of svg.lines) {
    const { from, to } = line.dataset;
    line.classList.toggle("hears", to === key);
    line.classList.toggle("feeds", from === key);
    if (to === key) near.add(from);
    if (from === key) near.add(to);
  }
  for (const [name, box] of svg.boxes) {
    box.classList.toggle("self", name === key);
    box.classList.toggle("near", key !== null && name !== key && near.has(name));
  }
  svg.classList.toggle("active", key !== null);
}
for (const svg of $$(".diagram")) {
  svg.lines = $$(".line", svg);
  svg.boxes = new Map($$(".box", svg).map((box) => [box.dataset.box, box]));
  const readout = $(".readout", svg.closest(".graph"));
  svg.rest = () => {
    lit(svg, null);
    readout.textContent = readout.dataset.hint;
    readout.classList.remove("live");
  };
  const show = (box) => {
    lit(svg, box.dataset.box);
    readout.textContent = box.getAttribute("aria-label");
    readout.classList.add("live");
  };
  const settle = () => {
    const box = svg.contains(document.activeElement) ? document.activeElement.closest(".box") : null;
    if (box) show(box);
    else svg.rest();
  };
  for (const box of svg.boxes.values()) {
    box.addEventListener("mouseenter", () => show(box));
    box.addEventListener("mouseleave", settle);
    box.addEventListener("focus", () => show(box));
    box.addEventListener("blur", () => svg.rest());
  }
}

// --- the resolvent, step by step: at step k the machine k of the order is computed, all before it have been -------
const player = $(".player");
if (player) {
  const { machines, components, levels } = data.steps, last = machines.length, pace = 900;
  const slider = $("#step"), play = $("#play"), readout = $(".readout", player), diagrams = $$(".diagram", player);
  const place = new Map(machines.map(([key], i) => [key, i + 1]));
  const rows = $$(".stairs .component"), cursor = $(".stairs .cursor"), left = Number(cursor.getAttribute("x"));
  const names = (numbers) => numbers.map((i) => components[i][0]).join(", ") || "nothing";
  let step = null, timer = null; // no step: the whole graph, as it stands there without a script

  function describe(k, v) {
    const at = `V${subscript(v)}`;
    if (k === 0) return `What is given is known; all that a machine writes is in ${at}.`;
    const [, name, level, reads, writes] = machines[k - 1];
    return `Step ${k} of ${last}, level ${level}: ${name} reads ${names(reads)} and writes ${names(writes)}; ` +
      (v === levels.length ? `${at} = 0: the network is solved.` : `what is not known is in ${at}.`);
  }
  const subscript = (n) => String(n).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[d]);

  function paintStep() {
    const v = levels.filter((end) => end <= step).length; // levels that have run
    const written = new Set(step ? machines[step - 1][4] : []);
    for (const svg of diagrams) {
      lit(svg, step ? machines[step - 1][0] : null);
      svg.classList.remove("active");
      svg.classList.add("stepped");
      for (const [key, box] of svg.boxes) {
        box.classList.toggle("done", place.get(key) <= step);
        box.classList.toggle("ahead", place.get(key) > step);
      }
      for (const line of svg.lines) line.classList.toggle("ahead", place.get(line.dataset.from) > step);
    }
    readout.textContent = describe(step, v);
    readout.classList.add("live");
    const known = [], unknown = [];
    components.forEach(([name, final], i) => {
      const now = written.has(i), done = final <= step;
      (done ? known : unknown).push(name);
      rows[i].classList.toggle("known", done && !now);
      rows[i].classList.toggle("now", now);
      $(".sign", rows[i]).textContent = now ? "◐" : done ? "●" : "○";
    });
    cursor.setAttribute("x", left + v * Number(cursor.dataset.wide));
    $("#known").textContent = known.join(", ") || "nothing";
    $("#unknown").textContent = unknown.join(", ") || "nothing";
    slider.value = step;
    slider.setAttribute("aria-valuetext", step ? `${step} of ${last}, ${machines[step - 1][1]}` : "0, what is given");
    $("#at").textContent = `${step} of ${last}`;
    $("#back").disabled = step === 0;
    $("#forward").disabled = step === last;
  }
  function follow() { // the machine of this step, where the picture is larger than its frame
    const svg = diagrams.find((one) => one.getBoundingClientRect().width), frame = $(".scroll", player);
    const box = step && svg?.boxes.get(machines[step - 1][0]).getBoundingClientRect();
    if (!box) return;
    const outer = frame.getBoundingClientRect();
    const gap = (low, high, from, to) => (low < from + 20 ? low - from - 60 : high > to - 20 ? high - to + 60 : 0);
    frame.scrollBy(gap(box.left, box.right, outer.left, outer.right), gap(box.top, box.bottom, outer.top, outer.bottom));
    const row = machines[step - 1][4].map((i) => rows[i].getBoundingClientRect())[0], list = $(".stairs").parentNode;
    const within = list.getBoundingClientRect();
    list.scrollBy(0, gap(row.top, row.bottom, within.top, within.bottom));
  }
  function go(k) {
    step = Math.max(0, Math.min(last, k));
    paintStep();
    follow();
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    readout.setAttribute("aria-live", "polite");
  }
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Pause";
    readout.setAttribute("aria-live", "off"); // else a screen reader lags behind
    go(step === last ? 0 : (step ?? 0) + 1);
    timer = setInterval(() => {
      go(step + 1);
      if (step === last) stop();
    }, pace);
  });
  const by = (k) => {
    stop();
    go(k);
  };
  $("#back").addEventListener("click", () => by((step ?? 0) - 1));
  $("#forward").addEventListener("click", () => by((step ?? 0) + 1));
  slider.addEventListener("input", () => by(Number(slider.value)));
  player.addEventListener("keydown", (event) => {
    const next = { ArrowRight: (step ?? 0) + 1, ArrowLeft: (step ?? 0) - 1, Home: 0, End: last }[event.key];
    if (next === undefined || event.target === slider || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    by(next);
  });
  for (const svg of diagrams) {
    const hint = svg.rest;
    svg.rest = () => (step === null ? hint() : paintStep());
  }
  $("#at").textContent = `0 of ${last}`;
  $("#back").disabled = true;
  for (const node of [$(".controls", player), $(".state")]) node.hidden = false;
  $("#known").textContent = names(components.map((_, i) => i).filter((i) => components[i][1] === 0));
  $("#unknown").textContent = names(components.map((_, i) => i).filter((i) => components[i][1] > 0));
}


// --- charts of trials: the one nearest to the pointer, or by arrow keys --------------------------------------------
function placed({ low, high, logarithmic, flip }, value) {
  let share = 1;
  if (value !== null) share = logarithmic ? Math.log(Math.max(value, low) / low) / Math.log(high / low) : (value - low) / (high - low);
  share = Math.min(Math.max(share, 0), 1);
  return 1000 * (flip ? 1 - share : share);
}
for (const [id, [x, y]] of Object.entries(data.charts)) {
  const chart = $(`#${id}`), plot = $(".plot", chart), readout = $(".readout", chart), everyone = id === "trial-chart";
  const points = trials
    .filter((trial) => everyone || (trial.duplicate_of === null && trial[x.field] !== null && trial[y.field] !== null))
    .map((trial) => ({ trial, x: placed(x, trial[x.field]), y: placed(y, trial[y.field]) }));
  if (!everyone) points.sort((a, b) => a.x - b.x || a.y - b.y);
  if (!points.length) continue;
  let current = -1;
  const point = (index) => {
    current = Math.max(0, Math.min(points.length - 1, index));
    const { trial, x: px, y: py } = points[current];
    $(".mark", plot).setAttribute("d", `M${px} ${py}h0`);
    readout.classList.add("live");
    const cost = everyone ? "" : `, ${x.field} ${text(x.field, trial[x.field])}`;
    readout.textContent = `Trial ${trial.number}, ${data.statuses[trial.status]}: loss ${text("loss", trial.loss)}, ` +
      `${data.score} ${text("score", trial.score)}${cost}; ${trial.network}`;
  };
  plot.addEventListener("pointermove", (event) => {
    const { left, top, width, height } = plot.getBoundingClientRect();
    const [px, py] = [event.clientX - left, event.clientY - top];
    const far = (p) => ((p.x * width) / 1000 - px) ** 2 + ((p.y * height) / 1000 - py) ** 2;
    point(points.reduce((best, one, i) => (far(one) < far(points[best]) ? i : best), 0));
  });
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, PageUp: 50, PageDown: -50 }[event.key];
    if (!step) return;
    event.preventDefault();
    point(current + step);
  });
}
const against = $("#against");
if (against) {
  const choose = () => $$(".cost").forEach((figure) => (figure.hidden = figure.id !== against.value));
  against.addEventListener("change", choose);
  choose();
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

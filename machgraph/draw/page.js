
// --- the parts: machines and groups; the whole is part 0 ---------------------------------------------------------
const { parts, edges, back, left, colours } = data;
const opened = new Set([0, ...data.open]), HEADER = 26, ASIDE = 12, NS = "http://www.w3.org/2000/svg";
const stage = $("#stage"), world = $("#world"), readout = $("#readout");
const members = parts.map(() => []), hears = parts.map(() => new Map()), feeds = parts.map(() => new Map());
parts.forEach((part, i) => part.parent >= 0 && members[part.parent].push(i));
for (const [a, b] of edges) {
  feeds[a].set(b, "");
  hears[b].set(a, "");
}
for (const [a, b, lags] of back) {
  feeds[a].set(b, ` (${lags})`);
  hears[b].set(a, ` (${lags})`);
}
const isGroup = (i) => parts[i].frame !== undefined;
function above(i) { // the part, the group that it is in, and so on up to the whole
  const chain = [i];
  while (parts[chain.at(-1)].parent >= 0) chain.push(parts[chain.at(-1)].parent);
  return chain;
}
function machines(i) {
  return isGroup(i) ? members[i].flatMap(machines) : [i];
}

// --- layout: each group has one of its own, all members closed; it is stretched where one is open -----------------
// A map of one coordinate, increasing, so that nothing that was beside another comes to lie on it. Each interval
// [from, to] becomes at least so long as it is wanted.
function stretched(intervals) {
  const knots = [...new Set(intervals.flatMap(([from, to]) => [from, to]))].sort((a, b) => a - b);
  const gaps = knots.slice(1).map((knot, i) => knot - knots[i]), place = new Map(knots.map((knot, i) => [knot, i]));
  for (const [from, to, wanted] of [...intervals].sort((a, b) => a[1] - a[0] - (b[1] - b[0]))) {
    const first = place.get(from), last = place.get(to);
    const now = gaps.slice(first, last).reduce((sum, gap) => sum + gap, 0);
    if (now < wanted) for (let i = first; i < last; i++) gaps[i] *= wanted / now;
  }
  const ends = [knots[0]];
  gaps.forEach((gap, i) => ends.push(ends[i] + gap));
  return (x) => {
    let i = 0;
    while (i < knots.length - 2 && x > knots[i + 1]) i++;
    if (x <= knots[0] || knots.length < 2) return x;
    if (x >= knots.at(-1)) return ends.at(-1) + x - knots.at(-1);
    return ends[i] + ((x - knots[i]) * (ends[i + 1] - ends[i])) / (knots[i + 1] - knots[i]);
  };
}

const header = (i) => parts[i].lines.join("").replaceAll("…", " …");
function laid(i) { // of an open group: its size, and all that is in it, from its upper left corner
  const { size, boxes, lines, rows } = parts[i].frame, root = i === 0;
  const inner = new Map(boxes.filter(([k]) => opened.has(k)).map(([k]) => [k, laid(k)]));
  const wide = stretched(boxes.map(([k, x, , w]) => [x, x + w, inner.get(k)?.width ?? w]));
  const high = stretched(boxes.map(([k, , y, , h]) => [y, y + h, inner.get(k)?.height ?? h]));
  const level = (first, last) => (first === last ? `${first}` : `${first}–${last}`);
  const labels = rows.map(([, , first, last]) => level(first, last));
  const gutter = 8 + 6.5 * Math.max(...labels.map((label) => label.length));
  const dx = gutter + ASIDE, dy = root ? ASIDE : HEADER + ASIDE;
  const at = new Map(boxes.map(([k, x, y, w, h]) => {
    const [width, height] = inner.has(k) ? [inner.get(k).width, inner.get(k).height] : [w, h];
    const cx = (wide(x) + wide(x + w)) / 2 + dx, cy = (high(y) + high(y + h)) / 2 + dy;
    const [top, bottom] = rows.find(([from, to]) => y >= from - 0.2 && y + h <= to + 0.2) ?? [y, y + h];
    return [k, { x: cx - width / 2, y: cy - height / 2, width, height, cx, from: x + w / 2, top, bottom }];
  }));
  const name = header(i).length * 8.5 + 40;
  const width = Math.max(wide(size[0]) + dx + ASIDE, root ? 0 : name), height = high(size[1]) + dy + ASIDE;
  const drawn = lines.map(([a, b, count, flat]) => {
    const points = [];
    for (let k = 0; k < flat.length; k += 2) points.push([flat[k], flat[k + 1]]);
    // beside its row a line goes where its box goes, with the first bend after and the last one before
    const start = at.get(a), end = at.get(b), turn = 7.5;
    const first = points.findLastIndex(([, y], k) => k % 3 === 0 && y <= start.bottom + 0.2) + 1;
    const last = points.findIndex(([, y], k) => k % 3 === 0 && y >= end.top - turn) - 1;
    const moved = points.map(([x, y], k) => [
      k <= first ? start.cx + x - start.from : k >= last ? end.cx + x - end.from : wide(x) + dx, high(y) + dy,
    ]);
    moved[0][1] = start.y + start.height;
    moved.at(-1)[1] = end.y;
    return { a, b, count, points: moved };
  });
  const bands = rows.map(([top, bottom, first, last], k) => ({
    y: high(top) + dy - 4, height: high(bottom) - high(top) + 8, first, last, label: labels[k],
  }));
  return { width, height, at, inner, lines: drawn, bands };
}

// --- drawing ---------------------------------------------------------------------------------------------------------
function svg(tag, attributes, parent, text) {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}
const short = (x) => Math.round(x * 10) / 10;
const nodes = new Map(), places = new Map(), wires = new Map();
let extent = { width: 1, height: 1 };

function draw() {
  world.replaceChildren();
  for (const map of [nodes, places, wires]) map.clear();
  const frame = laid(0);
  extent = frame;
  fill(0, frame, 0, 0, world);
  $("#less").disabled = opened.size === 1;
  $("#more").disabled = parts.every((_, i) => !isGroup(i) || opened.has(i));
}
function fill(i, frame, x, y, parent) {
  const bands = svg("g", { class: "bands", "aria-hidden": "true" }, parent);
  frame.bands.forEach((band, k) => {
    const g = svg("g", { class: "band" }, bands);
    if (k % 2 === 0) svg("rect", { x: x + 3, y: short(y + band.y), width: short(frame.width - 6), height: short(band.height), rx: 4 }, g);
    svg("text", { x: x + 8, y: short(y + band.y + band.height / 2 + 4) }, g, band.label);
  });
  const lines = svg("g", { class: "lines", "aria-hidden": "true" }, parent);
  for (const { a, b, count, points } of frame.lines) {
    const at = points.map(([px, py]) => [short(px + x), short(py + y)]), [tx, ty] = at.at(-1), arrow = b >= 0;
    if (arrow) at.at(-1)[1] = short(ty - 5);
    const g = svg("g", { class: "line" }, lines);
    svg("path", { style: `--count: ${count}`, d: `M${at[0].join(" ")}C${at.slice(1).map((p) => p.join(" ")).join(" ")}` }, g);
    if (arrow) svg("polygon", { points: `${tx},${ty} ${tx - 3.2},${ty - 7} ${tx + 3.2},${ty - 7}` }, g);
    if (count > 1 && frame.lines.filter((line) => line.b === b).length === 1) {
      svg("text", { x: short(tx + 6), y: short(ty - 4) }, g, `×${count}`);
    }
    wires.set(`${i} ${a} ${b}`, g);
  }
  const order = [...members[i], ...[...frame.at.keys()].filter((k) => k < 0)];
  for (const k of order) {
    const box = frame.at.get(k), bx = short(x + box.x), by = short(y + box.y);
    if (k < 0) {
      svg("circle", { class: "dot", cx: bx + box.width / 2, cy: by + box.height / 2, r: 3.5 }, parent);
      continue;
    }
    const part = parts[k], open = frame.inner.has(k), group = isGroup(k);
    const g = svg("g", {
      class: `part${group ? " group" : ""}${open ? " open" : ""}`, tabindex: 0, role: group ? "button" : "img",
      "aria-label": said(k), "data-part": k,
    }, parent);
    if (group) g.setAttribute("aria-expanded", open);
    g.style.setProperty("--level", colours[(part.level[0] - 1) % colours.length]);
    svg("rect", { x: bx, y: by, width: short(box.width), height: short(box.height), rx: 6 }, g);
    places.set(k, { x: bx, y: by, width: box.width, height: box.height });
    nodes.set(k, g);
    if (open) {
      svg("path", { class: "sign", d: `M${bx + 10} ${by + 14}h8` }, g);
      svg("text", { x: bx + 26, y: by + 18, style: "text-anchor: start" }, g, header(k));
      fill(k, frame.inner.get(k), bx, by, parent);
      continue;
    }
    const words = group ? [...part.lines, `${part.machines} machines`] : part.lines;
    const top = by + box.height / 2 - (16 * words.length) / 2 + 12, middle = short(bx + box.width / 2 + (group ? 7 : 0));
    words.forEach((word, n) => {
      const note = group && n === words.length - 1;
      svg("text", { x: middle, y: short(top + 16 * n), ...(note ? { class: "note" } : {}) }, g, word);
    });
    if (group) svg("path", { class: "sign", d: `M${bx + 7} ${by + 12}h8m-4-4v8` }, g);
  }
}

// --- what is told of a part, and which lines are its -------------------------------------------------------------------
const LISTED = 12;
function listed(names) {
  const some = [...new Set(names)];
  const rest = some.length > LISTED ? [`${some.length - LISTED} more`] : [];
  return [...some.slice(0, LISTED), ...rest].join(", ") || "nothing";
}
function outside(i, near) {
  const inside = new Set(machines(i));
  return [...inside].flatMap((m) => [...near[m]].filter(([other, lags]) => lags || !inside.has(other)));
}
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
function said(i) {
  const { name, level: [first, last], reads, writes } = parts[i];
  const all = left[0], what = isGroup(i) ? `${name}, ${plural(parts[i].machines, "machine")}` : name;
  const levels = first === last ? `level ${first}` : `levels ${first}–${last}`;
  const names = (near) => listed(outside(i, near).map(([other, lags]) => parts[other].name + lags));
  return `${what}, ${levels}: reads ${listed(reads)}; writes ${listed(writes)}; hears ${names(hears)}; ` +
    `feeds ${names(feeds)}. Of ${plural(all, "component")}, ${left[first - 1]} are not final before ${
      first === last ? "it" : "them"}, ${left[last]} after.`;
}
function way(a, b) { // the lines on which something goes from a machine to another, and the boxes between
  const up = above(a), down = above(b), meet = up.find((k) => down.includes(k));
  const out = up.slice(0, up.indexOf(meet)), into = down.slice(0, down.indexOf(meet)), keys = [];
  for (let k = 0; k + 1 < out.length; k++) keys.push(`${out[k + 1]} ${out[k]} -2`);
  keys.push(`${meet} ${out.at(-1)} ${into.at(-1)}`);
  for (let k = into.length - 2; k >= 0; k--) keys.push(`${into[k + 1]} -1 ${into[k]}`);
  return keys;
}
function shown(m) { // what is seen of a machine: the outermost closed group that it is in, or it alone
  return above(m).reverse().find((k) => !opened.has(k));
}
let current = null;
function light(i) {
  for (const node of $$(".hears, .feeds, .self, .near", world)) node.classList.remove("hears", "feeds", "self", "near");
  world.classList.toggle("active", i !== null);
  current = i;
  readout.classList.toggle("live", i !== null);
  if (i === null) {
    readout.textContent = "Point at a box, or go to it with Tab, to see what it reads and writes. A box with + opens by a click or Enter.";
    return;
  }
  readout.textContent = said(i);
  nodes.get(i)?.classList.add("self");
  const inside = new Set(machines(i));
  for (const [near, kind] of [[hears, "hears"], [feeds, "feeds"]]) {
    for (const m of inside) {
      for (const [other, lags] of near[m]) {
        if (lags || inside.has(other)) continue;
        nodes.get(shown(other))?.classList.add("near");
        for (const key of kind === "hears" ? way(other, m) : way(m, other)) wires.get(key)?.classList.add(kind);
      }
    }
  }
  for (const m of inside) nodes.get(shown(m))?.classList.add("near");
}
const partOf = (event) => {
  const node = event.target.closest?.(".part");
  return node ? Number(node.dataset.part) : null;
};
world.addEventListener("pointerover", (event) => {
  const i = partOf(event);
  if (i !== null && i !== current) light(i);
});
stage.addEventListener("pointerleave", () => light(focused()));
world.addEventListener("focusin", (event) => {
  light(partOf(event));
  if (stage.matches(":has(:focus-visible)")) reveal(partOf(event));
});
world.addEventListener("focusout", () => light(null));
function focused() {
  return world.contains(document.activeElement) ? Number(document.activeElement.dataset.part) : null;
}

// --- zoom and pan ------------------------------------------------------------------------------------------------------
const view = { x: 0, y: 0, scale: 1, own: false }; // own: it was moved by hand
function paintView() {
  world.setAttribute("transform", `translate(${short(view.x)} ${short(view.y)}) scale(${view.scale.toFixed(4)})`);
}
function room() {
  const { width, height } = stage.getBoundingClientRect();
  return { width, height };
}
function fit() {
  view.own = false;
  const { width, height } = room();
  view.scale = Math.min(1.4, Math.max(0.05, Math.min((width - 16) / extent.width, (height - 16) / extent.height)));
  view.x = (width - extent.width * view.scale) / 2;
  view.y = Math.max(8, (height - extent.height * view.scale) / 2);
  paintView();
}
function readable() { // at first: as large as can be read, from the top, though not all may fit
  fit();
  if (view.scale >= 0.7) return;
  const { width } = room();
  view.scale = Math.min(1, Math.max(0.7, (width - 16) / extent.width));
  view.x = (width - extent.width * view.scale) / 2;
  view.y = 8;
  const first = places.get(members[0][0]);
  if (extent.width * view.scale > width && first) view.x = width / 2 - (first.x + first.width / 2) * view.scale;
  paintView();
}
function zoom(factor, x, y) {
  const { width, height } = room(), [px, py] = [x ?? width / 2, y ?? height / 2];
  const scale = Math.min(5, Math.max(0.03, view.scale * factor)), by = scale / view.scale;
  Object.assign(view, { scale, own: true, x: px - (px - view.x) * by, y: py - (py - view.y) * by });
  paintView();
}
function pan(dx, dy) {
  Object.assign(view, { x: view.x + dx, y: view.y + dy, own: true });
  paintView();
}
function reveal(i) { // bring a part into sight
  const box = places.get(i), { width, height } = room();
  if (!box) return;
  const [x, y] = [view.x + box.x * view.scale, view.y + box.y * view.scale];
  const [w, h] = [Math.min(box.width * view.scale, width - 24), Math.min(box.height * view.scale, height - 24)];
  pan(x < 12 ? 12 - x : Math.min(0, width - 12 - x - w), y < 12 ? 12 - y : Math.min(0, height - 12 - y - h));
}
const local = (event) => {
  const box = stage.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const step = event.deltaMode === 1 ? 20 : event.deltaMode === 2 ? 400 : 1;
  zoom(Math.exp(-event.deltaY * step * (event.ctrlKey ? 0.01 : 0.0016)), ...local(event));
}, { passive: false });
const fingers = new Map();
let travelled = 0;
stage.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  if (!fingers.size) travelled = 0;
  fingers.set(event.pointerId, local(event));
});
stage.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = local(event), [dx, dy] = [now[0] - before[0], now[1] - before[1]];
  if (fingers.size === 2) { // about the finger that rests
    const [other] = [...fingers].find(([id]) => id !== event.pointerId).slice(1);
    const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
    if (apart(before) > 1) zoom(apart(now) / apart(before), ...other);
  } else pan(dx, dy);
  travelled += Math.abs(dx) + Math.abs(dy);
  if (travelled > 5 && !stage.hasPointerCapture(event.pointerId)) {
    stage.setPointerCapture(event.pointerId);
    stage.classList.add("dragged");
  }
  fingers.set(event.pointerId, now);
});
for (const end of ["pointerup", "pointercancel"]) {
  stage.addEventListener(end, (event) => {
    fingers.delete(event.pointerId);
    if (!fingers.size) stage.classList.remove("dragged");
  });
}
$("#in").addEventListener("click", () => zoom(1.3));
$("#out").addEventListener("click", () => zoom(1 / 1.3));
$("#fit").addEventListener("click", fit);

// --- opening and closing -----------------------------------------------------------------------------------------------
function toggle(i, open = !opened.has(i)) { // the part's upper left corner stays where it is
  const before = places.get(i), had = document.activeElement === nodes.get(i);
  if (open) opened.add(i);
  else for (const k of [...opened]) if (above(k).includes(i)) opened.delete(k);
  draw();
  const after = places.get(i);
  if (before && after) pan((before.x - after.x) * view.scale, (before.y - after.y) * view.scale);
  if (had) nodes.get(i).focus({ preventScroll: true });
  else light(nodes.has(i) ? i : null);
}
function detail(by) { // all groups down to one level more, or less
  const depth = (i) => above(i).length - 1, groups = parts.map((_, i) => i).filter((i) => i && isGroup(i));
  if (by > 0) {
    const next = Math.min(...groups.filter((i) => !opened.has(i)).map(depth));
    for (const i of groups) if (depth(i) <= next) opened.add(i);
  } else {
    const last = Math.max(...groups.filter((i) => opened.has(i)).map(depth));
    for (const i of groups) if (depth(i) >= last) opened.delete(i);
  }
  draw();
  light(null);
  readable();
}
$("#more").addEventListener("click", () => detail(1));
$("#less").addEventListener("click", () => detail(-1));
stage.addEventListener("click", (event) => {
  const i = partOf(event);
  if (travelled > 5 || i === null || !isGroup(i)) return;
  toggle(i);
});
stage.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const i = focused(), step = 60;
  const act = {
    ArrowLeft: () => pan(step, 0), ArrowRight: () => pan(-step, 0), ArrowUp: () => pan(0, step), ArrowDown: () => pan(0, -step),
    "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3), 0: fit,
    ...(i !== null && isGroup(i) ? { Enter: () => toggle(i), " ": () => toggle(i) } : {}),
    ...(i !== null ? { Escape: () => close(i) } : {}),
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
function close(i) { // the group itself if it is open, else the one around
  const k = opened.has(i) ? i : parts[i].parent;
  if (k <= 0) return;
  toggle(k, false);
  nodes.get(k).focus({ preventScroll: true });
}

// --- search --------------------------------------------------------------------------------------------------------------
const find = $("#find"), found = $("#found"), MOST = 8;
let hits = [], chosenHit = 0;
function look() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const matching = parts.map((_, i) => i).filter((i) => i && words.every((word) => parts[i].name.toLowerCase().includes(word)));
  const rank = (i) => [words.join(" ") !== parts[i].name.toLowerCase(), parts[i].name.length];
  hits = words.length ? matching.sort((a, b) => rank(a)[0] - rank(b)[0] || rank(a)[1] - rank(b)[1] || a - b) : [];
  chosenHit = 0;
  list(words.length > 0);
}
function list(visible) {
  found.hidden = !visible;
  find.setAttribute("aria-expanded", visible);
  const rows = hits.slice(0, MOST).map((i, k) => {
    const row = document.createElement("li");
    Object.assign(row, { id: `hit-${k}`, textContent: parts[i].name });
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", k === chosenHit);
    row.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus until then
    row.addEventListener("click", () => go(i));
    return row;
  });
  const note = document.createElement("li");
  note.textContent = hits.length ? `and ${hits.length - MOST} more` : "No machine has this name.";
  found.replaceChildren(...rows, ...(hits.length > MOST || !hits.length ? [note] : []));
  if (visible && hits.length) find.setAttribute("aria-activedescendant", `hit-${chosenHit}`);
  else find.removeAttribute("aria-activedescendant");
}
function go(i) {
  for (const k of above(i).slice(1)) opened.add(k);
  draw();
  list(false);
  const box = places.get(i), { width, height } = room();
  Object.assign(view, { scale: Math.max(view.scale, 0.9), own: true });
  view.x = width / 2 - (box.x + box.width / 2) * view.scale;
  view.y = height / 2 - (box.y + Math.min(box.height / 2, height / 3)) * view.scale;
  paintView();
  nodes.get(i).focus({ preventScroll: true });
}
find.addEventListener("input", look);
find.addEventListener("focus", () => find.value && look());
find.addEventListener("blur", () => list(false));
find.addEventListener("keydown", (event) => {
  const last = Math.min(hits.length, MOST) - 1;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    chosenHit = Math.max(0, Math.min(last, chosenHit + (event.key === "ArrowDown" ? 1 : -1)));
    list(true);
  } else if (event.key === "Enter" && hits.length) go(hits[chosenHit]);
  else if (event.key === "Escape") list(false);
});

draw();
light(null);
readable();
addEventListener("resize", () => view.own || readable()); // a phone's keyboard takes no view away

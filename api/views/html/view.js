// What does the page do? It draws the graph, and answers to the pointer, the keys and the search.

const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const state = {open: new Set(), chosen: null, tab: "block", overlay: "links", devices: 0, hits: [], hit: -1};
const eye = {x: 0, y: 0, scale: 1};
let layout = null, shapes = new Map(), pieces = [];

const dark = () => document.documentElement.dataset.theme === "dark";
const facts = (node) => data.blocks[node.b];
const totals = {
  flops: Math.max(1, ...Object.values(data.blocks).map((b) => b.flops)),
  memory: Math.max(1, ...Object.values(data.blocks).map((b) => b.memory.peak || 0)),
  parameters: Math.max(1, ...Object.values(data.blocks).map((b) => b.parameters.length)),
};
const lossSets = [...new Set(Object.values(data.blocks).map((b) => b.losses.join(" + ")))];
const unitSets = [...new Set(Object.values(data.blocks).map((b) => b.units))];

// What a colour means: the box's detail, its colour, and the legend.
const OVERLAYS = {
  links: {legend: () => [["var(--frame)", "gradient (solid) or stop (dashed)"], ["var(--accent)", "other links"]]},
  losses: {detail: (b) => b.losses.join(" + ") || "no loss", fill: (b) => distinct(lossSets.indexOf(b.losses.join(" + ")), dark()),
    legend: () => lossSets.slice(0, 12).map((set, i) => [distinct(i, dark()), set || "no loss"])},
  units: {detail: (b) => b.units || "one unit", fill: (b) => distinct(unitSets.indexOf(b.units), dark()),
    legend: () => unitSets.map((set, i) => [distinct(i, dark()), set || "one unit"])},
  memory: {detail: (b) => `${size(b.memory.peak || 0)} held at most`, fill: (b) => shade((b.memory.peak || 0) / totals.memory, dark()),
    legend: () => [[shade(0, dark()), "least"], [shade(1, dark()), size(totals.memory)]]},
  flops: {detail: (b) => `${count(b.flops)} flops a step`, fill: (b) => shade(b.flops / totals.flops, dark()),
    legend: () => [[shade(0, dark()), "least"], [shade(1, dark()), `${count(totals.flops)} flops`]]},
  device: {detail: (b, n) => `device ${placement()[n.b] ?? "–"}`, fill: (b, n) => distinct(placement()[n.b] ?? 0, dark()),
    legend: () => [...new Set(Object.values(placement()))].map((d) => [distinct(d, dark()), `device ${d}`])},
};
const placement = () => (data.timelines[state.devices] || {placement: {}}).placement;

// Add a piece of the drawing that lies within a rectangle: what is out of sight is not drawn.
function put(piece, into, left, top, right, bottom) {
  pieces.push({piece, left, top, right, bottom, shown: true});
  into.append(piece);
}

function box(own, dx, dy, into) {
  const {node} = own, overlay = OVERLAYS[state.overlay], known = facts(node);
  const group = drawn("g", {class: `node ${node.k}`, transform: `translate(${(dx + own.x - own.w / 2).toFixed(1)} ${(dy + own.y).toFixed(1)})`});
  const shape = drawn("rect", {class: "box", width: own.w, height: own.h, rx: node.k === "in" || node.k === "out" ? own.h / 2 : 6});
  if (known && overlay.fill) shape.style.fill = overlay.fill(known, node);
  group.append(shape);
  const detail = known && overlay.detail ? overlay.detail(known, node) : node.t;
  group.append(drawn("text", {class: "title", x: own.w / 2, y: own.inner || !detail ? 17 : 16, "text-anchor": "middle"}, node.n));
  if (!own.inner && detail) group.append(drawn("text", {class: "detail", x: own.w / 2, y: 32, "text-anchor": "middle"}, detail));
  if (node.g !== undefined) {
    const sign = drawn("text", {class: "sign", x: 6, y: 17}, own.inner ? "−" : "+");
    group.append(sign, titled(drawn("rect", {class: "toggle", width: 22, height: 24, opacity: 0}), own.inner ? "close" : "open"));
  }
  group.dataset.key = own.key;
  put(group, into, dx + own.x - own.w / 2, dy + own.y, dx + own.x + own.w / 2, dy + own.y + own.h);
  shapes.set(own.key, group);
  if (own.inner) graph(own.inner, dx + own.x - own.inner.w / 2, dy + own.y + HEAD, into);
}

function edgeClass(edge) {
  if (edge.link === undefined) return "edge";
  return `edge link ${edge.link === "stop" ? "stop" : edge.link.startsWith("gradient") ? "" : "other"}`;
}

function graph(placedGraph, dx, dy, into) {
  for (const {edge, points} of placedGraph.edges) {
    const moved = points.map(([x, y]) => [x + dx, y + dy]);
    const path = drawn("path", {class: edgeClass(edge), d: curve(moved)});
    if (edge.link) path.append(drawn("title", {}, edge.link));
    const [ex, ey] = moved[moved.length - 1], group = drawn("g", {});
    group.append(path, drawn("path", {d: `M${ex.toFixed(1)} ${ey.toFixed(1)} l-4 -8 h8 z`, fill: "var(--edge)"}));
    const lines = [...(edge.link && edge.link !== "stop" && edge.link !== "gradient" ? [edge.link] : []), ...(edge.l || [])];
    lines.forEach((line, i) => group.append(drawn("text", {class: "label", x: moved[1][0] + 8, y: moved[1][1] + 10 + 14 * i}, line)));
    const [xs, ys] = [0, 1].map((axis) => moved.map((point) => point[axis]));
    const wide = 8 + 8 * Math.max(0, ...lines.map((line) => line.length));
    put(group, into, Math.min(...xs) - 4, Math.min(...ys), Math.max(...xs) + wide, Math.max(...ys) + 14 * lines.length);
  }
  for (const own of placedGraph.boxes) box(own, dx, dy, into);
}

function draw() {
  layout = placed(data.scene, data.scene.root, "", state.open);
  shapes = new Map();
  pieces = [];
  const world = drawn("g", {id: "world"});
  graph(layout, 0, 0, world);
  at("world").replaceWith(world);
  mark();
  look();
  legend();
}

function legend() {
  at("legend").replaceChildren(...OVERLAYS[state.overlay].legend().flatMap(([colour, text]) => {
    const patch = element("i");
    patch.style.background = colour;
    return [patch, text];
  }));
}

function mark() {
  for (const group of shapes.values()) group.classList.remove("chosen", "found");
  state.hits.forEach(({key}) => shapes.get(key)?.classList.add("found"));
  shapes.get(state.chosen)?.classList.add("chosen");
}

let waiting = false;
function look() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    at("world").setAttribute("transform", `translate(${eye.x.toFixed(1)} ${eye.y.toFixed(1)}) scale(${eye.scale.toFixed(4)})`);
    at("canvas").classList.toggle("far", eye.scale < 0.35);
    cull();
  });
}

// Take what is out of sight out of the drawing: thousands of boxes and texts take longer than a frame.
function cull() {
  const frame = at("canvas").getBoundingClientRect(), near = 60;
  const wide = frame.width || 800, high = frame.height || 600;
  const [left, top] = [(-near - eye.x) / eye.scale, (-near - eye.y) / eye.scale];
  const [right, bottom] = [left + (wide + 2 * near) / eye.scale, top + (high + 2 * near) / eye.scale];
  let changed = false;
  for (const one of pieces) {
    const shown = one.left <= right && one.right >= left && one.top <= bottom && one.bottom >= top;
    changed ||= shown !== one.shown;
    one.shown = shown;
  }
  if (changed) at("world").replaceChildren(...pieces.filter((one) => one.shown).map((one) => one.piece));
}

function fit() {
  const frame = at("canvas").getBoundingClientRect();
  const wide = frame.width || 800, high = frame.height || 600;
  eye.scale = Math.min(1.4, Math.max(0.02, Math.min((wide - 40) / layout.w, (high - 40) / layout.h)));
  if (eye.scale < 0.6 && layout.w * 0.6 < wide) eye.scale = Math.min(0.85, (wide - 40) / layout.w);
  eye.x = (wide - layout.w * eye.scale) / 2;
  eye.y = layout.h * eye.scale > high ? 20 : (high - layout.h * eye.scale) / 2;
  look();
}

function zoom(factor, x, y) {
  const scale = Math.min(4, Math.max(0.01, eye.scale * factor));
  eye.x = x - (x - eye.x) * scale / eye.scale;
  eye.y = y - (y - eye.y) * scale / eye.scale;
  eye.scale = scale;
  look();
}

// Where a box's middle is in the world, by its key.
function middle(key) {
  let here = layout, x = 0, y = 0, box = null;
  for (const part of key.split("/")) {
    if (box) { x += box.x - box.inner.w / 2; y += box.y + HEAD; here = box.inner; }
    box = here.boxes[Number(part)];
  }
  return [x + box.x, y + box.y + Math.min(box.h, 60) / 2];
}

function centre(key) {
  const frame = at("canvas").getBoundingClientRect();
  const [x, y] = middle(key);
  eye.scale = Math.max(eye.scale, 0.6);
  eye.x = (frame.width || 800) / 2 - x * eye.scale;
  eye.y = (frame.height || 600) / 2 - y * eye.scale;
  look();
}

// The block that a box is, or is in.
function blockOf(key) {
  for (const own of [key, ...around(key).reverse()]) {
    const node = nodeAt(data.scene, own);
    if (node.b) return node.b;
  }
  return null;
}

function choose(key, centred) {
  state.chosen = key;
  if (key && centred) centre(key);
  mark();
  panel();
}

function chooseBlock(name) {
  let first = null;
  walk(data.scene, (node, key) => { if (node.b === name && first === null) first = key; });
  if (first === null) return;
  reveal(first);
  choose(first, true);
}

function reveal(key) {
  const before = state.open.size;
  around(key).forEach((own) => state.open.add(own));
  if (state.open.size > before) draw();
}

function toggle(key) {
  if (!key || nodeAt(data.scene, key).g === undefined) return;
  const [x, y] = middle(key);
  if (!state.open.delete(key)) state.open.add(key);
  draw();
  const [nx, ny] = middle(key); // what was under the pointer stays there
  eye.x += (x - nx) * eye.scale;
  eye.y += (y - ny) * eye.scale;
}

const TABS = {
  block: () => state.chosen && !blockOf(state.chosen) ? nodeTab(data, nodeAt(data.scene, state.chosen), [])
    : [...(state.chosen && !nodeAt(data.scene, state.chosen).b ? nodeTab(data, nodeAt(data.scene, state.chosen),
      around(state.chosen).map((key) => nodeAt(data.scene, key).n)) : []), ...blockTab(data, state.chosen && blockOf(state.chosen))],
  gradients: () => flowTab(data, state.chosen && blockOf(state.chosen)),
  memory: () => memoryTab(data, state.chosen && blockOf(state.chosen), chooseBlock),
  time: () => timeTab(data, state.chosen && blockOf(state.chosen), state.devices,
    (block) => distinct(Object.keys(data.blocks).indexOf(block), dark()), chooseBlock),
  program: () => programTab(data),
};

function panel() {
  at("tabs").replaceChildren(...Object.keys(TABS).map((name, index) => {
    const button = element("button", {role: "tab", "aria-selected": String(name === state.tab), title: `key ${index + 1}`}, name);
    button.addEventListener("click", () => { state.tab = name; panel(); });
    return button;
  }));
  at("panel").replaceChildren(...TABS[state.tab]());
}

function search(text) {
  state.hits = found(data.scene, text);
  state.hit = -1;
  results();
  mark();
}

function results() {
  at("results").hidden = !state.hits.length;
  at("results").replaceChildren(...state.hits.map(({name}, index) => {
    const line = element("li", {"aria-selected": String(index === state.hit)}, name);
    line.addEventListener("click", () => hit(index));
    return line;
  }));
}

function hit(index) {
  if (!state.hits.length) return;
  state.hit = (index + state.hits.length) % state.hits.length;
  reveal(state.hits[state.hit].key);
  choose(state.hits[state.hit].key, true);
  results();
  at("results").children[state.hit].scrollIntoView?.({block: "nearest"});
}

function openMore() {
  const keys = closed(data.scene, state.open);
  if (keys.length > 3000) return;
  keys.forEach((key) => state.open.add(key));
  draw();
  fit();
}

function closeAll() {
  state.open.clear();
  if (state.chosen) state.chosen = state.chosen.split("/")[0];
  draw();
  fit();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  draw();
  panel();
}

const KEYS = {
  "/": ["search; Enter goes to the next place", () => at("search").focus()],
  "f": ["fit into the window", fit],
  "e": ["open one level more", openMore],
  "c": ["close everything", closeAll],
  "t": ["dark or light", () => theme(dark() ? "light" : "dark")],
  "+": ["nearer", () => zoom(1.25, at("canvas").clientWidth / 2, at("canvas").clientHeight / 2)],
  "-": ["farther", () => zoom(0.8, at("canvas").clientWidth / 2, at("canvas").clientHeight / 2)],
  "Enter": ["open or close what is chosen", () => toggle(state.chosen)],
  "ArrowUp": ["choose what is above", () => step("up")],
  "ArrowDown": ["choose what is below", () => step("down")],
  "ArrowLeft": ["choose what is left", () => step("left")],
  "ArrowRight": ["choose what is right", () => step("right")],
  "Escape": ["choose nothing", () => { state.hits = []; results(); choose(null); }],
  "?": ["these keys", () => { at("keys").open ? at("keys").close() : at("keys").showModal?.(); }],
};
Object.keys(TABS).forEach((name, index) => {
  KEYS[String(index + 1)] = [`show ${name}`, () => { state.tab = name; panel(); }];
});

function step(direction) {
  const next = state.chosen === null ? "0" : beside(layout, state.chosen, direction);
  if (next !== null) choose(next, true);
}

function pointers() {
  const canvas = at("canvas");
  let held = null, moved = false;
  canvas.addEventListener("pointerdown", (event) => { held = [event.clientX - eye.x, event.clientY - eye.y]; moved = false; });
  window.addEventListener("pointermove", (event) => {
    if (!held) return;
    const [x, y] = [event.clientX - held[0], event.clientY - held[1]];
    if (!moved && Math.abs(x - eye.x) + Math.abs(y - eye.y) < 4) return;
    moved = true;
    canvas.classList.add("moving");
    [eye.x, eye.y] = [x, y];
    look();
  });
  window.addEventListener("pointerup", () => { held = null; canvas.classList.remove("moving"); });
  canvas.addEventListener("click", (event) => {
    if (moved) return;
    const key = event.target.closest?.(".node")?.dataset.key ?? null;
    choose(key);
    if (event.target.classList.contains("toggle")) toggle(key);
  });
  canvas.addEventListener("dblclick", (event) => toggle(event.target.closest?.(".node")?.dataset.key));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const frame = canvas.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.clientX - frame.left, event.clientY - frame.top);
  }, {passive: false});
}

function keyboard() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === at("search")) {
      if (event.key === "Enter") hit(state.hit + (event.shiftKey ? -1 : 1));
      if (event.key === "Escape") { at("search").value = ""; search(""); at("canvas").focus(); }
      return;
    }
    if (["INPUT", "SELECT"].includes(event.target.tagName) || (event.target.tagName === "BUTTON" && event.key === "Enter")) return;
    const known = KEYS[event.key];
    if (!known) return;
    event.preventDefault();
    known[1]();
  });
}

function controls() {
  at("title").textContent = data.name;
  at("subtitle").textContent = `plan ${data.hash.slice(0, 12)} · target ${data.target} · torch ${data.torch}`;
  at("overlay").append(...Object.keys(OVERLAYS).map((name) => element("option", {}, name)));
  at("overlay").addEventListener("change", () => { state.overlay = at("overlay").value; draw(); });
  at("devices").append(...data.timelines.map((t, index) => element("option", {value: String(index)}, String(t.devices))));
  at("devices").addEventListener("change", () => { state.devices = Number(at("devices").value); draw(); panel(); });
  at("search").addEventListener("input", () => search(at("search").value));
  at("open").addEventListener("click", openMore);
  at("close").addEventListener("click", closeAll);
  at("fit").addEventListener("click", fit);
  at("theme").addEventListener("click", KEYS.t[1]);
  at("help").addEventListener("click", KEYS["?"][1]);
  at("keys").append(element("h2", {}, "Keys"), rows(Object.entries(KEYS).map(([key, [what]]) => [key, what])),
    element("p", {class: "soft"}, "Drag to move, turn the wheel to zoom, click to choose, double click to open."));
}

function begin() {
  const asked = typeof matchMedia === "function" && matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = asked ? "dark" : "light";
  controls();
  pointers();
  keyboard();
  draw();
  fit();
  panel();
}

begin();

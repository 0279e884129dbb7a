// Where does everything stand once some boxes are open? Pure functions over the scene; nothing here touches the page.

const HEAD = 26; // height of an open box's title
const EDGE = 12; // room around what is in an open box

// Return a rising function of one axis that makes room: each interval [from, to, size] gets at least its size.
function stretched(intervals) {
  const grown = intervals.filter(([from, to, size]) => size > to - from + 1e-9);
  const cuts = [...new Set(grown.flatMap(([from, to]) => [from, to]))].sort((a, b) => a - b);
  const starts = cuts.map((_, i) => i);
  const factors = cuts.slice(1).map((to, i) => grown.reduce(
    (most, [a, b, size]) => (a <= cuts[i] && b >= to ? Math.max(most, size / (b - a)) : most), 1));
  const shifts = [0];
  factors.forEach((factor, i) => shifts.push(shifts[i] + (factor - 1) * (cuts[i + 1] - cuts[i])));
  return (value) => {
    if (!starts.length || value <= cuts[0]) return value;
    let low = 0, high = cuts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (cuts[middle] <= value) low = middle; else high = middle - 1;
    }
    const inside = low < factors.length ? (value - cuts[low]) * (factors[low] - 1) : 0;
    return value + shifts[low] + inside;
  };
}

// Return the places of a graph's boxes and edges; `open` holds the keys of open boxes, such as "3/0".
function placed(scene, number, key, open) {
  const graph = scene.graphs[number];
  const boxes = graph.nodes.map((node, index) => {
    const own = key === "" ? String(index) : `${key}/${index}`;
    if (node.g === undefined || !open.has(own)) return {node, key: own, w: node.w, h: node.h};
    const inner = placed(scene, node.g, own, open);
    return {node, key: own, inner, w: Math.max(node.w, inner.w + 2 * EDGE), h: HEAD + inner.h + EDGE};
  });
  const across = stretched(boxes.map((b) => [b.node.x - b.node.w / 2, b.node.x + b.node.w / 2, b.w]));
  const down = stretched(boxes.map((b) => [b.node.y, b.node.y + b.node.h, b.h]));
  for (const box of boxes) {
    const {x, y, w, h} = box.node;
    box.x = (across(x - w / 2) + across(x + w / 2)) / 2;
    box.y = (down(y) + down(y + h)) / 2 - box.h / 2;
  }
  const edges = graph.edges.map((edge) => {
    const [from, to] = edge.a < edge.b ? [boxes[edge.a], boxes[edge.b]] : [boxes[edge.b], boxes[edge.a]];
    const points = [[from.x, from.y + from.h]];
    for (let i = 0; i < edge.p.length; i += 2) points.push([across(edge.p[i]), down(edge.p[i + 1])]);
    points.push([to.x, to.y]);
    if (edge.a > edge.b) points.reverse();
    return {edge, points};
  });
  return {w: across(graph.w), h: down(graph.h), boxes, edges};
}

// Call visit(node, key, names) for every node, however deep; names are those of the boxes around it, outermost first.
function walk(scene, visit, number = scene.root, key = "", names = []) {
  scene.graphs[number].nodes.forEach((node, index) => {
    const own = key === "" ? String(index) : `${key}/${index}`;
    visit(node, own, names);
    if (node.g === undefined) return;
    const named = node.k === "fold" ? names : [...names, node.k === "block" && node.p ? `${node.n}: ${node.p}` : node.n];
    walk(scene, visit, node.g, own, named);
  });
}

// Return the places of a text, at most `limit`; all words must occur in the whole name, and one in the node's own.
function found(scene, text, limit = 100) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const hits = [];
  if (!words.length) return hits;
  walk(scene, (node, key, names) => {
    if (hits.length >= limit || node.k === "fold") return;
    const whole = [...names, node.n, node.t || ""].join(".").toLowerCase();
    const own = `${names.length ? names[names.length - 1] + "." : ""}${node.n} ${node.k === "op" ? node.t || "" : node.p || ""}`;
    if (words.every((word) => whole.includes(word)) && words.some((word) => own.toLowerCase().includes(word))) {
      hits.push({key, name: [...names, node.n].join(" › ")});
    }
  });
  return hits;
}

// Return the keys of all boxes around a node.
function around(key) {
  const parts = key.split("/");
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join("/"));
}

// Return the node with a key.
function nodeAt(scene, key) {
  let number = scene.root, node = null;
  for (const part of key.split("/")) {
    node = scene.graphs[number].nodes[Number(part)];
    number = node.g;
  }
  return node;
}

// Return the keys that can be opened on the next level: what is closed, all around it being open.
function closed(scene, open, limit = 3000) {
  const keys = [];
  const look = (number, key) => scene.graphs[number].nodes.forEach((node, index) => {
    const own = key === "" ? String(index) : `${key}/${index}`;
    if (node.g === undefined || keys.length > limit) return;
    if (open.has(own)) look(node.g, own); else keys.push(own);
  });
  look(scene.root, "");
  return keys;
}

// Return the box that an arrow key leads to: along edges up and down, among neighbours left and right.
function beside(layout, key, direction) {
  const boxes = [];
  const gather = (graph, dx, dy) => graph.boxes.forEach((box) => {
    boxes.push({key: box.key, depth: box.key.split("/").length, x: dx + box.x, y: dy + box.y + box.h / 2});
    if (box.inner) gather(box.inner, dx + box.x - box.inner.w / 2, dy + box.y + HEAD);
  });
  gather(layout, 0, 0);
  const here = boxes.find((box) => box.key === key);
  if (!here) return boxes.length ? boxes[0].key : null;
  const [ux, uy] = {up: [0, -1], down: [0, 1], left: [-1, 0], right: [1, 0]}[direction];
  let best = null, least = Infinity;
  for (const box of boxes) {
    const along = (box.x - here.x) * ux + (box.y - here.y) * uy;
    const apart = Math.abs((box.x - here.x) * uy) + Math.abs((box.y - here.y) * ux);
    const cost = along + 3 * apart;
    if (box.depth === here.depth && along > 1 && cost < least) { best = box.key; least = cost; }
  }
  return best;
}

// Return a smooth path through points, vertical at each.
function curve(points) {
  let path = `M${points[0].map((v) => v.toFixed(1)).join(" ")}`;
  for (let i = 1; i < points.length; i++) {
    const [[ax, ay], [bx, by]] = [points[i - 1], points[i]];
    const bend = ((ay + by) / 2).toFixed(1);
    path += ` C${ax.toFixed(1)} ${bend} ${bx.toFixed(1)} ${bend} ${bx.toFixed(1)} ${by.toFixed(1)}`;
  }
  return path;
}

// Return a count with a decimal unit, a size with a binary one.
function scaled(number, base, units) {
  let unit = 0;
  while (number >= base && unit + 1 < units.length) { number /= base; unit += 1; }
  return `${unit ? number.toFixed(number < 10 ? 2 : number < 100 ? 1 : 0) : Math.round(number)}${units[unit]}`;
}
const count = (number) => scaled(number, 1000, ["", " k", " M", " G", " T", " P"]);
const size = (number) => scaled(number, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]);

// Return the colour of a share between 0 and 1, and one of many that are told apart.
const shade = (share, dark) => `hsl(${210 - 190 * Math.min(Math.max(share, 0), 1)} ${dark ? 40 : 70}% ${dark ? 26 : 83}%)`;
const distinct = (index, dark) => `hsl(${(index * 137.5 + 205) % 360} ${dark ? 35 : 60}% ${dark ? 27 : 82}%)`;

if (typeof module !== "undefined") {
  module.exports = {stretched, placed, walk, found, around, nodeAt, closed, beside, curve, count, size, shade, distinct};
}

// What does the panel say? One function a tab, each from the data to elements.

function rows(pairs) {
  const table = element("table");
  for (const [name, value, kind] of pairs) {
    table.append(element("tr", {}, element("th", {}, name), element("td", {class: kind || ""}, value)));
  }
  return table;
}

function listing(head, lines) {
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head.map((name) => element("th", {}, name)))));
  for (const line of lines) {
    table.append(element("tr", {}, ...line.map((cell) => element("td", {class: typeof cell === "number" ? "number" : ""},
      typeof cell === "number" ? cell.toLocaleString("en") : cell))));
  }
  return table;
}

const part = (title, ...content) => [element("h3", {}, title), ...content];
const share = (one, all) => (all ? `${(100 * one / all).toFixed(1)} %` : "–");

function blockTab(data, name) {
  const facts = data.blocks[name];
  if (!facts) return [element("p", {class: "soft"}, "Choose a block in the graph.")];
  const told = [element("h2", {}, name)];
  if (facts.modules.length) told.push(element("p", {class: "soft"}, facts.modules.slice(0, 12).join(", ")
    + (facts.modules.length > 12 ? `, and ${facts.modules.length - 12} more` : "")));
  told.push(...part("local problem", rows(facts.math.map(([what, formula]) => [what, formula, "formula"]))));
  if (facts.estimator) told.push(element("p", {class: "soft"}, `estimator: ${facts.estimator}`));
  told.push(...part("in the spec", element("pre", {},
    facts.spec.map(([number, line]) => `${String(number).padStart(4)}  ${line}`).join("\n"))));
  told.push(...part("share", rows([["time", `${count(facts.flops)} flops of a step, ${share(facts.flops, data.flops)}`],
    ...memoryRows(facts.memory)])));
  told.push(...part("kernels", listing(["kernel", "operators", "calls", "flops a step"],
    facts.kernels.map((k) => [k.name, k.nodes, k.calls, k.calls ? count(k.flops) : ""]))));
  if (facts.boundaries.length) told.push(...part("boundaries", listing(["boundary", "link", "tensors, for one sample"],
    facts.boundaries.map((b) => [`${b.from} → ${b.to}`, b.link, b.tensors.map(([n, t, s]) => `${n} ${t} ${size(s)}`).join("; ")]))));
  const few = facts.parameters.slice(0, 300);
  told.push(...part(`parameters (${facts.parameters.length})`,
    listing(["name", "type", ""], few.map(([n, t, trained]) => [n, t, trained ? "" : "frozen"]))));
  return told;
}

function memoryRows(memory) {
  if (memory.peak === undefined) return [];
  const named = ["parameters", "gradients", "optimizer", "offsets", "activations", "peak"];
  return [["memory", `${(100 * memory.share).toFixed(1)} % of the step's peak, if it stood there`],
    ...named.filter((name) => memory[name]).map((name) => [name, size(memory[name])])];
}

function nodeTab(data, node, names) {
  return [element("h2", {}, node.n), rows([["in", names.join(" › ") || "the network"], ["result", node.t],
    ...(node.f ? [["flops", `${count(node.f)} for one sample`]] : [])])];
}

function flowTab(data, chosen) {
  return [element("h2", {}, "Which losses reach which parameters"),
    element("p", {class: "soft"}, "Read off the kernels: blue from the block's own loss, orange from another block's."),
    flowFigure(data.flow, chosen)];
}

function memoryTab(data, chosen, pick) {
  const m = data.memory, lengths = Object.entries(data.lengths).map(([n, v]) => `${n} = ${v}`).join(", ");
  return [element("h2", {}, "Memory in a step"), element("p", {class: "soft"}, `predicted for ${lengths}; grey stays, blue is `
      + "held by an instruction, orange are gradients"), memoryFigure(m, chosen, pick),
    rows([["at the peak", size(m.total)], ["stays", size(m.resident)], ["the batch", size(m.batch)], ["peak in", m.line],
      ["at", m.node]]),
    ...part("alive at the peak", listing(["name", "role", "size"], m.alive.map(([n, r, s]) => [n, r, size(s)])))];
}

function timeTab(data, chosen, devices, colour, pick) {
  const t = data.timelines[devices];
  if (!t) return [element("p", {}, "The plan has no step.")];
  const table = listing(["devices", "steps in the time of one"], data.timelines.map((one) => [one.devices, `${one.speedup} ×`]));
  return [element("h2", {}, `Four steps on ${t.devices} device${t.devices > 1 ? "s" : ""}`),
    element("p", {class: "soft"}, "A unit of time for each floating-point operation; no transfers and no overheads. A block "
      + "begins the next step as soon as what it reads is there."),
    timelineFigure(t, chosen, colour, pick),
    rows([["a step", `${count(t.work)} flops`], ["longest chain", `${count(t.path)} flops, ${share(t.path, t.work)}`],
      ["crosses", `${size(data.traffic)} a step`]]), ...part("by devices", table)];
}

function programTab(data, chosen) {
  const notes = data.notes.map((note) => element("p", {class: "soft"}, note));
  return [element("h2", {}, "Program"), ...notes, element("pre", {}, data.program)];
}

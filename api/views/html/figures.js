// How do the figures beside the graph look? The flow of gradients, memory in a step, and devices over time.

const SVG = "http://www.w3.org/2000/svg";

// Make an SVG element; text is never read as markup.
function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Make an HTML element with children, which are elements or texts.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function titled(shape, title) {
  shape.append(drawn("title", {}, title));
  return shape;
}

// The matrix of parameters and losses; what comes from another block's loss has a colour of its own.
function flowFigure(flow, chosen) {
  const table = element("table", {class: "matrix"});
  const head = element("tr", {}, element("th", {}, "parameters"));
  flow.losses.forEach((loss) => head.append(element("th", {class: "turned"}, loss)));
  table.append(element("thead", {}, head));
  for (const row of flow.rows) {
    const names = row.parameters.length === 1 ? row.parameters[0]
      : `${row.parameters[0]} … ${row.parameters[row.parameters.length - 1]} (${row.parameters.length})`;
    const name = element("td", {title: row.parameters.slice(0, 60).join("\n")}, `${row.block}: ${names}`);
    const line = element("tr", {}, name);
    if (row.block === chosen) name.style.fontWeight = "600";
    for (const loss of flow.losses) {
      const own = loss.slice(0, loss.lastIndexOf(".")) === row.block;
      const reached = row.losses.includes(loss);
      line.append(element("td", {class: `cell ${reached ? (own ? "reached" : "foreign") : ""}`,
        title: `${loss} ${reached ? "reaches" : "does not reach"} ${row.block}`}, reached ? "●" : ""));
    }
    table.append(line);
  }
  return table;
}

// Bars of what is held during each instruction, over what stays.
function memoryFigure(memory, chosen, pick) {
  const wide = 400, high = 190, most = memory.total || 1;
  const figure = drawn("svg", {class: "figure", viewBox: `0 0 ${wide} ${high}`, role: "img"});
  const y = (bytes) => high - 14 - (bytes / most) * (high - 30);
  const step = wide / Math.max(memory.moments.length, 1);
  figure.append(titled(drawn("rect", {x: 0, y: y(memory.resident), width: wide, height: high - 14 - y(memory.resident),
    fill: "var(--line)"}), `stays from step to step: ${size(memory.resident)}`));
  memory.moments.forEach(([block, line, held, gradients], index) => {
    const top = memory.resident + held;
    const bar = (from, to, fill) => figure.append(titled(drawn("rect", {x: (index * step).toFixed(2), y: y(to).toFixed(2),
      width: Math.max(step - 0.4, 0.5).toFixed(2), height: Math.max(y(from) - y(to), 0).toFixed(2), fill,
      opacity: chosen && block !== chosen ? 0.45 : 1}), `${line}\n${size(held)} held, ${size(gradients)} of them gradients`));
    bar(memory.resident, top - gradients, "var(--frame)");
    bar(top - gradients, top, "var(--accent)");
    if (block && pick) figure.lastChild.addEventListener("click", () => pick(block));
  });
  figure.append(drawn("text", {x: 4, y: 11}, `${size(memory.total)} at the peak`));
  figure.append(drawn("text", {x: 4, y: high - 3}, `${memory.moments.length} instructions of a step →`));
  return figure;
}

// A row for each device, a bar for each call; steps alternate in strength.
function timelineFigure(timeline, chosen, colour, pick) {
  const row = 26, wide = 400, high = timeline.devices * row + 18;
  const end = timeline.slots.reduce((most, slot) => Math.max(most, slot[5]), 1);
  const figure = drawn("svg", {class: "figure", viewBox: `0 0 ${wide} ${high}`, role: "img"});
  const scale = (wide - 20) / end;
  for (let device = 0; device < timeline.devices; device++) {
    figure.append(drawn("text", {x: 2, y: device * row + 18}, String(device)));
  }
  for (const [device, step, kernel, block, from, to] of timeline.slots) {
    const bar = drawn("rect", {x: (18 + from * scale).toFixed(2), y: device * row + 4, rx: 2,
      width: Math.max((to - from) * scale - 0.5, 0.6).toFixed(2), height: row - 8, fill: colour(block),
      stroke: block === chosen ? "var(--accent)" : "none", "stroke-width": 2, opacity: step % 2 ? 0.6 : 1});
    figure.append(titled(bar, `step ${step}: ${kernel}\n${count(to - from)} flops on device ${device}`));
    bar.addEventListener("click", () => pick(block));
  }
  figure.append(drawn("text", {x: 18, y: high - 4}, "floating-point operations →"));
  return figure;
}

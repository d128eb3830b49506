"use strict";
(() => {
  const WIDTH = 220, HEIGHT = 46, COLUMN = 270, ROW = 62, MOST_ROWS = 40;
  // With more boxes than that, a picked one is shown with its own lineage only.
  const MANY = 150;
  // Where all of it would be smaller than that, its end is shown at a size that can be read.
  const LEAST = 0.1, LEGIBLE = 0.5;
  const data = JSON.parse(document.getElementById("data").textContent);
  const svg = document.getElementById("graph");
  const details = document.getElementById("details");
  const nodes = new Map(data.nodes.map((node) => [node.id, node]));
  const parents = new Map(data.nodes.map((node) => [node.id, []]));
  const children = new Map(data.nodes.map((node) => [node.id, []]));
  const boxes = new Map(), lines = [];

  const make = (name, attributes, parent, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  const html = (name, parent, text, className) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    parent.append(element);
    return element;
  };
  const cut = (text, length) => text.length > length ? "…" + text.slice(1 - length) : text;
  const when = (iso) => iso ? iso.slice(0, 16).replace("T", " ") : "";

  const world = make("g", {}, svg);
  const edgeLayer = make("g", {}, world), nodeLayer = make("g", {}, world);
  for (const [from, to] of data.edges) {
    parents.get(to).push(from);
    children.get(from).push(to);
    lines.push([from, to, make("path", { class: "edge" }, edgeLayer)]);
  }
  for (const node of data.nodes) {
    const kinds = ["node", node.kind];
    if (/model|checkpoint/i.test(node.type)) kinds.push("model");
    else if (/data|blend/i.test(node.type)) kinds.push("dataset");
    if (node.missing) kinds.push("missing");
    const box = make("g", { class: kinds.join(" "), tabindex: 0,
      role: "button", "aria-label": node.label, "data-id": node.id }, nodeLayer);
    make("title", {}, box, node.label);
    make("rect", { width: WIDTH, height: HEIGHT, rx: node.kind === "external" ? 22 : 6 }, box);
    make("text", { x: 10, y: 19 }, box, cut(node.label, 32));
    const more = [...node.aliases];
    if (node.iteration !== null) more.push("iteration " + node.iteration);
    else if (node.type) more.push(node.type);
    const made = when(node.created_at), text = more.filter(Boolean).join(" · ");
    const whole = [text, made].filter(Boolean).join(" · ");
    make("text", { x: 10, y: 36, class: "more" }, box, whole.length <= 36 ? whole : cut(text || made, 36));
    box.addEventListener("click", () => { if (!moved) pick(node.id); });
    box.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") pick(node.id); });
    boxes.set(node.id, box);
  }

  // Columns as they were computed, without those that nothing shown stands in; a long one goes on in the next.
  let shown = new Set();
  const place = (ids) => {
    shown = ids;
    const layers = new Map();
    for (const node of data.nodes) {
      boxes.get(node.id).style.display = ids.has(node.id) ? "" : "none";
      if (!ids.has(node.id)) continue;
      if (!layers.has(node.layer)) layers.set(node.layer, []);
      layers.get(node.layer).push(node);
    }
    let column = 0;
    for (const layer of [...layers.keys()].sort((a, b) => a - b)) {
      layers.get(layer).forEach((node, index) => {
        node.x = (column + Math.floor(index / MOST_ROWS)) * COLUMN;
        node.y = index % MOST_ROWS * ROW;
        boxes.get(node.id).setAttribute("transform", `translate(${node.x} ${node.y})`);
      });
      column += Math.ceil(layers.get(layer).length / MOST_ROWS);
    }
    for (const [from, to, path] of lines) {
      const on = ids.has(from) && ids.has(to);
      path.style.display = on ? "" : "none";
      if (!on) continue;
      const a = nodes.get(from), b = nodes.get(to);
      const x1 = a.x + WIDTH, y1 = a.y + HEIGHT / 2, x2 = b.x, y2 = b.y + HEIGHT / 2;
      const bend = Math.max(30, (x2 - x1) / 2);
      path.setAttribute("d", `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`);
    }
    document.getElementById("all").hidden = ids.size === data.nodes.length;
  };
  const everything = () => new Set(nodes.keys());

  const reach = (start, next) => {
    const seen = new Set(), stack = [start];
    while (stack.length) {
      const id = stack.pop();
      if (!seen.has(id)) { seen.add(id); stack.push(...next.get(id)); }
    }
    return seen;
  };
  const rows = (title, entries) => {
    const shown = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
    if (!shown.length) return;
    if (title) html("h3", details, title);
    const list = html("dl", details);
    for (const [key, value, className] of shown) {
      html("dt", list, key);
      html("dd", list, typeof value === "object" ? JSON.stringify(value) : String(value), className);
    }
  };
  const links = (title, ids) => {
    if (!ids.length) return;
    html("h3", details, `${title} (${ids.length})`);
    const list = html("ul", details);
    for (const id of ids.slice(0, 200)) {
      html("button", html("li", list), id).addEventListener("click", () => { pick(id); center(id); });
    }
    if (ids.length > 200) html("li", list, `and ${ids.length - 200} more`, "hint");
  };
  const clear = () => {
    svg.classList.remove("picked");
    for (const box of boxes.values()) box.classList.remove("on", "selected");
    for (const line of lines) line[2].classList.remove("on");
  };
  const pick = (id) => {
    const node = nodes.get(id);
    clear();
    svg.classList.add("picked");
    const on = new Set([...reach(id, parents), ...reach(id, children)]);
    for (const other of on) boxes.get(other).classList.add("on");
    if (data.nodes.length > MANY) { place(on); fit(); center(id); }
    else if (!shown.has(id)) place(everything());
    boxes.get(id).classList.add("selected");
    const up = reach(id, parents), down = reach(id, children);
    for (const [from, to, path] of lines) {
      if ((up.has(from) && up.has(to)) || (down.has(from) && down.has(to))) path.classList.add("on");
    }
    details.replaceChildren();
    html("h2", details, node.label);
    rows("", [["type", node.type], ["iteration", node.iteration], ["path", node.path], ["created", node.created_at],
      ["also", node.aliases.join(", ")], ["data", node.missing, "gone"],
      ["", node.kind === "external" ? "from outside of this store" : ""]]);
    rows("Made by", Object.entries(node.made_by));
    links("Made from", parents.get(id));
    links("Used by", children.get(id));
    rows("Metadata", Object.entries(node.metadata));
    location.replace("#" + encodeURIComponent(id));
  };

  let scale = 1, left = 20, top = 20, drag = null, moved = false;
  const show = () => world.setAttribute("transform", `translate(${left} ${top}) scale(${scale})`);
  // A box that is asked for is brought to the middle, and made large enough to be read.
  const center = (id) => {
    const node = nodes.get(id);
    if (scale >= 0.55) return;
    scale = 0.8;
    left = svg.clientWidth / 2 - (node.x + WIDTH / 2) * scale;
    top = svg.clientHeight / 2 - (node.y + HEIGHT / 2) * scale;
    show();
  };
  const fit = () => {
    if (!data.nodes.length) return;
    const drawn = data.nodes.filter((node) => shown.has(node.id));
    const right = Math.max(...drawn.map((node) => node.x)) + WIDTH;
    const bottom = Math.max(...drawn.map((node) => node.y)) + HEIGHT;
    scale = Math.min(1.2, (svg.clientWidth - 40) / right, (svg.clientHeight - 40) / bottom);
    left = Math.max(20, (svg.clientWidth - right * scale) / 2);
    if (scale < LEAST) {
      scale = LEGIBLE;
      left = svg.clientWidth - 20 - right * scale;
    }
    top = Math.max(20, (svg.clientHeight - bottom * scale) / 2);
    show();
  };
  svg.addEventListener("wheel", (event) => {
    event.preventDefault();
    const area = svg.getBoundingClientRect(), factor = Math.exp(-event.deltaY * 0.0015);
    const x = event.clientX - area.left, y = event.clientY - area.top, next = Math.min(4, Math.max(0.02, scale * factor));
    left = x - (x - left) * next / scale;
    top = y - (y - top) * next / scale;
    scale = next;
    show();
  }, { passive: false });
  svg.addEventListener("pointerdown", (event) => { drag = [event.clientX - left, event.clientY - top, event.clientX, event.clientY]; moved = false; });
  window.addEventListener("pointermove", (event) => {
    if (!drag) return;
    moved = moved || Math.hypot(event.clientX - drag[2], event.clientY - drag[3]) > 4;
    left = event.clientX - drag[0];
    top = event.clientY - drag[1];
    if (moved) show();
  });
  window.addEventListener("pointerup", () => { drag = null; });
  svg.addEventListener("click", (event) => { if (!moved && !event.target.closest(".node")) clear(); });
  document.getElementById("all").addEventListener("click", () => { clear(); place(everything()); fit(); });

  const texts = new Map(data.nodes.map((node) => [node.id, JSON.stringify([node.id, node.type, node.path, node.aliases,
    node.created_at, node.iteration, node.made_by, node.metadata]).toLowerCase()]));
  const search = document.getElementById("search"), count = document.getElementById("count");
  const look = () => {
    if (search.value && shown.size !== data.nodes.length) { clear(); place(everything()); fit(); }
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const hits = data.nodes.filter((node) => words.every((word) => texts.get(node.id).includes(word)));
    svg.classList.toggle("searching", words.length > 0);
    for (const box of boxes.values()) box.classList.remove("hit");
    if (words.length) for (const node of hits) boxes.get(node.id).classList.add("hit");
    count.textContent = words.length ? `${hits.length} of ${data.nodes.length}` : `${data.nodes.length} versions and inputs`;
    return hits;
  };
  search.addEventListener("input", look);
  search.addEventListener("keydown", (event) => {
    const hits = event.key === "Enter" ? look() : [];
    if (hits.length) { pick(hits[0].id); center(hits[0].id); }
    if (event.key === "Escape") { search.value = ""; look(); clear(); }
  });
  document.getElementById("fit").addEventListener("click", fit);
  place(everything());
  fit();
  look();
  const asked = decodeURIComponent(location.hash.slice(1));
  if (nodes.has(asked)) { pick(asked); center(asked); }
})();

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
  // A time with its zone is shown in that of the reader; another as it was recorded.
  const when = (iso) => {
    const date = new Date(iso), two = (number) => String(number).padStart(2, "0");
    if (!iso || isNaN(date) || !/(Z|[+-]\d\d:?\d\d)$/.test(iso)) return iso ? iso.slice(0, 16).replace("T", " ") : "";
    return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`;
  };
  // Versions that one box stands for: the last of them.
  const foldOf = new Map(), folded = new Map();
  for (const ids of data.folds) {
    folded.set(ids[ids.length - 1], ids);
    for (const id of ids) foldOf.set(id, ids);
  }
  const version = (id) => id.slice(id.lastIndexOf(":") + 1);

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
    node.title = make("text", { x: 10, y: 19 }, box, cut(node.label, 32));
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
  const place = (ids, overview = false) => {
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
    const rows = new Map();  // of each column how many
    for (const node of data.nodes) {
      if (ids.has(node.id)) rows.set(node.x, Math.max(rows.get(node.x) || 0, node.y / ROW + 1));
    }
    for (const [id, box] of boxes) {
      const all = folded.get(id), node = nodes.get(id), count = stands.get(id);
      let text = node.label;
      if (overview && count > 1) text = `${nameOf(node)} · ${count} versions`;
      else if (ids.has(id) && all && !all.slice(0, -1).some((other) => ids.has(other))) {
        text = `${nameOf(node)}:${version(all[0])} … ${version(id)}`;
      }
      node.title.textContent = cut(text, 32);
      box.classList.toggle("folded", text !== node.label);
    }
    for (const [from, to, path] of [...lines, ...nameLines]) {
      const on = ids.has(from) && ids.has(to) && overview === nameLinePaths.has(path);
      path.style.display = on ? "" : "none";
      if (on) path.setAttribute("d", way(nodes.get(from), nodes.get(to), rows));
    }
    document.getElementById("all").hidden = ids.size === data.nodes.length;
  };
  // From box to box. Past the columns in between an edge goes through the gaps of their rows, and through no box.
  const way = (a, b, rows) => {
    const x1 = a.x + WIDTH, x2 = b.x, y2 = b.y + HEIGHT / 2;
    let x = x1, y = a.y + HEIGHT / 2, drawn = `M${x} ${y}`;
    const to = (nextX, nextY) => {
      const bend = Math.max(20, (nextX - x) / 2);
      drawn += `C${x + bend} ${y} ${nextX - bend} ${nextY} ${nextX} ${nextY}`;
      [x, y] = [nextX, nextY];
    };
    for (let column = a.x + COLUMN; column < b.x; column += COLUMN) {
      const wanted = y + (y2 - y) * (column + WIDTH / 2 - x) / (x2 - x);
      const below = (rows.get(column) || 0) * ROW;
      let gap = wanted;
      if (wanted < below) gap = Math.round((wanted + (ROW - HEIGHT) / 2) / ROW) * ROW - (ROW - HEIGHT) / 2;
      to(column, gap);
      drawn += `H${column + WIDTH}`;
      x = column + WIDTH;
    }
    to(x2, y2);
    return drawn;
  };

  const type = document.getElementById("type"), latest = document.getElementById("latest"), fold = document.getElementById("fold");
  for (const name of [...new Set(data.nodes.map((node) => node.type).filter(Boolean))].sort()) {
    html("option", type, name).value = name;
  }
  // One box a name: the version that is `latest`, else the last one, stands for all.
  const nameOf = (node) => node.kind === "version" ? node.id.slice(0, node.id.lastIndexOf(":")) : node.id;
  const names = new Map();
  for (const node of data.nodes) {
    const found = names.get(nameOf(node)) || { id: node.id, count: 0 };
    const newer = node.kind === "version" && Number(version(node.id).slice(1)) > Number(version(found.id).slice(1));
    const now = node.aliases.includes("latest") || (newer && !nodes.get(found.id).aliases.includes("latest"));
    names.set(nameOf(node), { id: now ? node.id : found.id, count: found.count + 1 });
  }
  const stands = new Map([...names.values()].map(({ id, count }) => [id, count]));
  const nameLines = [...new Set(data.edges.map(([from, to]) => JSON.stringify(
    [names.get(nameOf(nodes.get(from))).id, names.get(nameOf(nodes.get(to))).id])))].map((pair) => JSON.parse(pair))
    .filter(([from, to]) => from !== to).map(([from, to]) => [from, to, make("path", { class: "edge" }, edgeLayer)]);
  // What the filters let through; a box that was asked for is in it in any case.
  const everything = (asked = []) => new Set(data.nodes.filter((node) => asked.includes(node.id)
    || (!type.value || node.type === type.value)
    && (!latest.checked || node.kind === "version" && node.aliases.includes("latest"))
    && (fold.value !== "fold" || !foldOf.has(node.id) || folded.has(node.id))
    && (fold.value !== "names" || stands.has(node.id))).map((node) => node.id));
  const nameLinePaths = new Set(nameLines.map((line) => line[2]));
  const placeAll = (asked = []) => place(everything(asked), fold.value === "names" && !asked.length);

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
      const text = typeof value === "object" ? JSON.stringify(value) : String(value);
      const cell = html("dd", list, text, className);
      if (className === "copied") copyButton(cell, text, key);
    }
  };
  const copyButton = (parent, text, what) => {
    const button = html("button", parent, "copy", "copy");
    button.setAttribute("aria-label", "copy " + what);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
      } catch {  // no permission, or no such thing on this page
        const area = html("textarea", document.body);
        area.value = text;
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      button.textContent = "copied";
    });
  };
  const link = (text, address) => {
    const anchor = html("a", html("p", details), text);
    anchor.setAttribute("href", address);
    anchor.setAttribute("rel", "noreferrer");
  };
  // `entity/project/name:vN` and the id of the run.
  const wandbLinks = (node) => {
    const found = /^([^/:]+)\/([^/:]+)\/([^/:]+):(v\d+)$/.exec(node.wandb || "");
    if (!found || !data.wandb) return;
    const [entity, project, name, number] = found.slice(1).map(encodeURIComponent);
    const run = node.made_by["W&B run"];
    if (run) link("the run in W&B", `${data.wandb}/${entity}/${project}/runs/${encodeURIComponent(run)}`);
    link("in W&B", `${data.wandb}/${entity}/${project}/artifacts/${encodeURIComponent(node.type || "model")}/${name}/${number}`);
  };
  const facts = (node) => new Map([["type", node.type], ["iteration", node.iteration], ["path", node.path],
    ["created", when(node.created_at)], ["made from", parents.get(node.id).join(", ")], ...Object.entries(node.made_by),
    ...Object.entries(node.metadata)].map(([key, value]) => [key, value === null || value === undefined ? "" :
    typeof value === "object" ? JSON.stringify(value) : String(value)]));
  const compare = (a, b) => {
    const one = facts(nodes.get(a)), other = facts(nodes.get(b));
    const keys = [...new Set([...one.keys(), ...other.keys()])].filter((key) => (one.get(key) || "") !== (other.get(key) || ""));
    const place = document.getElementById("comparison");
    place.replaceChildren();
    if (!keys.length) { html("p", place, "nothing that is recorded differs", "hint"); return; }
    const table = html("table", place, undefined, "compare");
    const head = html("tr", table);
    for (const text of ["", a, b]) html("th", head, text);
    for (const key of keys) {
      const row = html("tr", table);
      for (const text of [key, one.get(key) || "", other.get(key) || ""]) html("td", row, text);
    }
  };
  const comparison = (id) => {
    const name = id.slice(0, id.lastIndexOf(":"));
    const others = data.nodes.filter((node) => node.kind === "version" && node.id !== id);
    others.sort((a, b) => b.id.startsWith(name + ":") - a.id.startsWith(name + ":"));
    if (nodes.get(id).kind !== "version" || !others.length) return;
    html("h3", details, "Compare with");
    const choice = html("select", details);
    choice.id = "compare";
    html("option", choice, "…").value = "";
    for (const node of others.slice(0, 500)) html("option", choice, node.id).value = node.id;
    html("div", details).id = "comparison";
    choice.addEventListener("change", () => { if (choice.value) compare(id, choice.value); });
  };
  // A mapping `metrics`, and numbers whose names say what they are.
  const metrics = (node) => [...Object.entries(node.metadata.metrics || {}), ...Object.entries(node.metadata).filter(
    ([key, value]) => typeof value === "number" && /loss|accuracy|reward|score|perplexity|metric/i.test(key))];
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
    else if (!shown.has(id)) placeAll([id]);
    boxes.get(id).classList.add("selected");
    const up = reach(id, parents), down = reach(id, children);
    for (const [from, to, path] of lines) {
      if ((up.has(from) && up.has(to)) || (down.has(from) && down.has(to))) path.classList.add("on");
    }
    details.replaceChildren();
    html("h2", details, node.label);
    rows("", [["reference", node.id, "copied"], ["path", node.path, "copied"], ["type", node.type],
      ["iteration", node.iteration], ["created", when(node.created_at)],
      ["also", node.aliases.join(", ")], ["data", node.missing, "gone"],
      ["", node.kind === "external" ? "from outside of this store" : ""]]);
    const hub = /^hf:\/\/((?:datasets\/)?[\w.\/-]+)@([0-9a-f]{40})$/.exec(id);
    if (hub) {
      link("on the Hugging Face hub", ["https:", "", "huggingface.co", hub[1], "tree", hub[2]].join("/"));
    }
    wandbLinks(node);
    if (folded.has(id)) links("Stands for", folded.get(id).slice(0, -1).reverse());
    rows("Metrics", metrics(node));
    rows("Made by", Object.entries(node.made_by));
    links("Made from", parents.get(id));
    links("Used by", children.get(id));
    if (node.changed && node.changed.differences.length) {
      const text = (value) => value === null ? "nothing" : typeof value === "object" ? JSON.stringify(value) : String(value);
      const more = node.changed.more ? [["", `and ${node.changed.more} more`]] : [];
      rows(`Changed since ${node.changed.since}`, node.changed.differences
        .map(({what, name, a, b}) => [`${what} ${name}`, `${text(a)} → ${text(b)}`]).concat(more));
    }
    rows("Metadata", Object.entries(node.metadata));
    comparison(id);
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
  // The boxes that were found, as large as they can be and as they can be read.
  const zoom = (found) => {
    const drawn = found.filter((node) => shown.has(node.id));
    if (!drawn.length) return;
    const x = drawn.map((node) => node.x), y = drawn.map((node) => node.y);
    const wide = Math.max(...x) - Math.min(...x) + WIDTH, high = Math.max(...y) - Math.min(...y) + HEIGHT;
    scale = Math.max(LEGIBLE, Math.min(1.2, (svg.clientWidth - 40) / wide, (svg.clientHeight - 40) / high));
    left = Math.max(20, (svg.clientWidth - wide * scale) / 2) - Math.min(...x) * scale;
    top = Math.max(20, (svg.clientHeight - high * scale) / 2) - Math.min(...y) * scale;
    show();
  };
  const fit = () => {
    const drawn = data.nodes.filter((node) => shown.has(node.id));
    if (!drawn.length) return;
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
  const zoomAt = (clientX, clientY, factor) => {
    const area = svg.getBoundingClientRect(), x = clientX - area.left, y = clientY - area.top;
    const next = Math.min(4, Math.max(0.02, scale * factor));
    left = x - (x - left) * next / scale;
    top = y - (y - top) * next / scale;
    scale = next;
    show();
  };
  svg.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomAt(event.clientX, event.clientY, Math.exp(-event.deltaY * 0.0015));
  }, { passive: false });
  // Two fingers: the distance between them is the scale.
  const fingers = new Map();
  const apart = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y) || 1; };
  svg.addEventListener("pointerdown", (event) => { fingers.set(event.pointerId, { x: event.clientX, y: event.clientY }); drag = [event.clientX - left, event.clientY - top, event.clientX, event.clientY]; moved = false; });
  window.addEventListener("pointermove", (event) => {
    const finger = fingers.get(event.pointerId);
    if (finger && fingers.size === 2) {
      const before = apart();
      Object.assign(finger, { x: event.clientX, y: event.clientY });
      const [a, b] = [...fingers.values()];
      zoomAt((a.x + b.x) / 2, (a.y + b.y) / 2, apart() / before);
      moved = true;
      return;
    }
    if (!drag) return;
    moved = moved || Math.hypot(event.clientX - drag[2], event.clientY - drag[3]) > 4;
    left = event.clientX - drag[0];
    top = event.clientY - drag[1];
    if (moved) show();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    window.addEventListener(name, (event) => { fingers.delete(event.pointerId); drag = null; });
  }
  svg.addEventListener("click", (event) => { if (!moved && !event.target.closest(".node")) clear(); });
  document.getElementById("all").addEventListener("click", () => {
    clear();
    search.value = type.value = "";
    latest.checked = false;
    fold.value = "all";
    placeAll();
    fit();
    look();
  });
  for (const filter of [type, latest, fold]) {
    filter.addEventListener("change", () => { clear(); placeAll(); fit(); look(); });
  }

  const texts = new Map(data.nodes.map((node) => [node.id, JSON.stringify([node.id, node.type, node.path, node.aliases,
    node.created_at, node.iteration, node.made_by, node.metadata]).toLowerCase()]));
  const search = document.getElementById("search"), count = document.getElementById("count");
  const look = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const hits = data.nodes.filter((node) => words.every((word) => texts.get(node.id).includes(word)));
    if (words.length) {
      clear();
      // Few that were found leave their fold.
      placeAll(hits.length <= MANY ? hits.map((node) => node.id) : []);
      zoom(hits);
    }
    svg.classList.toggle("searching", words.length > 0);
    for (const box of boxes.values()) box.classList.remove("hit");
    if (words.length) for (const node of hits) boxes.get(node.id).classList.add("hit");
    count.textContent = words.length ? `${hits.length} of ${data.nodes.length}` : shown.size < data.nodes.length
      ? `${shown.size} of ${data.nodes.length} boxes` : `${data.nodes.length} versions and inputs`;
    return hits;
  };
  search.addEventListener("input", look);
  search.addEventListener("keydown", (event) => {
    const hits = event.key === "Enter" ? look() : [];
    if (hits.length) { pick(hits[0].id); center(hits[0].id); }
    if (event.key === "Escape") { search.value = ""; placeAll(); fit(); look(); clear(); }
  });
  document.getElementById("fit").addEventListener("click", fit);
  // As little folded as can be read at first sight.
  fold.value = "all";
  if (data.nodes.length > MANY || data.folds.length) fold.value = "fold";
  if (everything().size > MANY) fold.value = "names";
  placeAll();
  fit();
  look();
  const asked = decodeURIComponent(location.hash.slice(1));
  if (nodes.has(asked)) { pick(asked); center(asked); }
})();

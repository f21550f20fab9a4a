// The map: draws what the layout placed, lets one move about in it, and says what was chosen.

import { $, attributes, s, short } from "./dom.js";
import { CARD, Layout } from "./layout.js";
import { ports } from "./store.js";

const GLYPHS = {
  workload: "M3 6.5 9 3l6 3.5v6L9 16l-6-3.5zM3 6.5 9 10l6-3.5M9 10v6",
  namespace: "M3 5.5h5l1.5 2H15v7.5H3z",
  host: "M3 4.5h12v7H3zM6.5 15h5M9 11.5V15",
  node: "M4 3.5h10v4H4zM4 10.5h10v4H4zM6 5.5h.1M6 12.5h.1",
  world: "M9 2.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 1 0 0-13M2.5 9h13M9 2.5c4.5 4 4.5 9 0 13M9 2.5c-4.5 4-4.5 9 0 13",
  cidr: "M5 3.5H3.5v11H5M13 3.5h1.5v11H13M7 9h.1M11 9h.1",
  name: "M9 2.5a6.5 6.5 0 1 0 0 13M2.5 9H9M9 2.5c-4.5 4-4.5 9 0 13M12 9.5v6M9.5 12.5h5",
  other: "M9 2.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 1 0 0-13M9 12.5h.1M7 7.5a2 2 0 1 1 2 2.5",
};
const SETTLED = 4000; // links that nothing passed for so long are drawn faint, in ms
const CLICK = 4; // what moved less was a click, in pixels
const BOWS = [[0, 0], [1.1, 1.1], [0, 2.2], [2.2, 0], [2.2, 2.2], [3.3, 3.3], [0, 4.4], [4.4, 0], [4.4, 4.4]]; // of a link's ends, in cards
const STEPS = Array.from({ length: 19 }, (_, index) => (index + 1) / 20); // where a link is looked at for what it passes

export class Graph {
  constructor({ onSelect, memory, remember }) {
    this.svg = $("map");
    this.onSelect = onSelect;
    this.remember = remember;
    this.layout = new Layout(memory);
    this.grouped = false;
    this.view = { x: 0, y: 0, scale: 1 };
    this.touched = false;
    this.cards = new Map();
    this.lines = new Map();
    this.world = s("g", { class: "world" });
    this.regions = s("g");
    this.linkLayer = s("g");
    this.names = s("g");
    this.partyLayer = s("g");
    this.world.append(this.regions, this.linkLayer, this.names, this.partyLayer);
    this.svg.append(this.world);
    this.listen();
    new ResizeObserver(() => (this.touched ? this.draw() : this.fit())).observe(this.svg);
  }

  // What there is now. Elements stay, so that focus and transitions do.
  update(store) {
    this.store = store;
    this.links = store.links((edge) => this.ends(edge));
    this.parties = this.shown(store);
    this.svg.classList.toggle("crowd", this.parties.size > 80); // without shadows: they are what takes longest to paint
    const before = this.places?.size ?? 0;
    this.arrange();
    const { places } = this;
    this.drawParties();
    this.drawLinks();
    this.mark();
    if (!this.touched && before !== places.size) this.fit();
    $("map-empty").hidden = this.parties.size > 0;
  }

  // Only when something came, went or was moved: more traffic changes no place.
  arrange() {
    const key = [...this.parties.keys(), "", ...this.links.keys()].join("\n");
    if (key === this.arranged) return;
    this.arranged = key;
    const { places, regions } = this.layout.arrange([...this.parties.values()], [...this.links.values()]);
    this.places = places;
    this.remember(this.layout.memory);
    this.drawRegions(this.grouped ? [] : regions);
  }

  anew() {
    this.arranged = null;
    this.update(this.store);
  }

  // The ends of an edge on the map. Whoever is outside may stand there twice: as a caller, and as one that is called.
  ends({ source, destination }) {
    const parties = this.store.parties;
    const from = this.grouped ? namespaceOf(parties.get(source)) : source;
    const to = this.grouped ? namespaceOf(parties.get(destination)) : destination;
    if (from === to && this.grouped) return null;
    return [from, outside(parties.get(destination)) ? to + AGAIN : to];
  }

  shown(store) {
    const parties = new Map();
    for (const link of this.links.values()) {
      for (const id of [link.source, link.destination]) {
        if (parties.has(id)) continue;
        const found = store.parties.get(id.replace(AGAIN, ""));
        parties.set(id, found ? { ...found, id } : { id, kind: "namespace", name: id.replace(/^namespace:/, ""), namespace: "" });
      }
    }
    return parties;
  }

  drawRegions(regions) {
    this.regions.replaceChildren(...regions.map((r) => s("rect", { class: "region", x: r.x, y: r.y, width: r.width, height: r.height, rx: 16 })));
    this.names.replaceChildren(...regions.map((r) => s("text", { class: "region", x: r.x + 18, y: r.y + 22 }, r.name)));
  }

  drawParties() {
    for (const [id, card] of this.cards) if (!this.parties.has(id)) { card.remove(); this.cards.delete(id); }
    const [incoming, outgoing] = [new Map(), new Map()];
    for (const link of this.links.values()) {
      for (const [of, id] of [[incoming, link.destination], [outgoing, link.source]]) of.has(id) ? of.get(id).push(link) : of.set(id, [link]);
    }
    for (const party of this.parties.values()) {
      let card = this.cards.get(party.id);
      if (!card) {
        card = this.card(party);
        this.cards.set(party.id, card);
        this.partyLayer.append(card);
      }
      const { x, y } = this.places.get(party.id);
      card.setAttribute("transform", `translate(${x} ${y})`);
      this.fillCard(card, party, incoming.get(party.id) ?? [], outgoing.get(party.id) ?? []);
    }
  }

  card(party) {
    return s("g", { class: `party ${outside(party) ? "outside" : ""}`, tabindex: 0, role: "button", "data-party": party.id },
      s("rect", { class: "card", width: CARD.width, height: CARD.height, rx: 11 }),
      s("g", { transform: "translate(11 14)" }, s("path", { class: "glyph", d: GLYPHS[party.kind] ?? GLYPHS.other })),
      s("text", { x: 39, y: 20 }, clip(party.name, 17)),
      s("text", { class: "sub", x: 39, y: 35 }),
      s("rect", { class: "share", x: 12, y: CARD.height - 3, height: 2, rx: 1, width: 0 }),
      s("rect", { class: "share bad", y: CARD.height - 3, height: 2, rx: 1, width: 0 }));
  }

  fillCard(card, party, incoming, outgoing) {
    const sum = (links, part) => links.reduce((total, link) => total + link[part], 0);
    const links = [...incoming, ...outgoing];
    const refused = sum(links, "dropped");
    const all = sum(links, "forwarded") + refused;
    const [rate, sent] = [sum(incoming, "rate"), sum(outgoing, "rate")];
    const served = ports(incoming.flatMap((link) => link.edges));
    const sub = rate >= 0.1 ? `${short(rate)}/s` : sent >= 0.1 && !served.length ? `sends ${short(sent)}/s` : "";
    const says = [sub, served.slice(0, 2).join(", ")].filter(Boolean).join(" · ");
    card.querySelector(".sub").textContent = clip(says, 23);
    card.querySelector("text").setAttribute("y", says ? 20 : 27);
    const width = CARD.width - 24;
    const bad = all ? (refused / all) * width : 0;
    const [good, worse] = card.querySelectorAll(".share");
    attributes(good, { width: all ? width - bad : 0 });
    attributes(worse, { x: 12 + width - bad, width: bad });
    card.setAttribute("aria-label", `${party.kind} ${party.namespace ? `${party.namespace}/` : ""}${party.name}, ${refused} of ${all} flows dropped`);
  }

  drawLinks() {
    for (const [id, line] of this.lines) if (!this.links.has(id)) { line.remove(); this.lines.delete(id); }
    const most = Math.max(1, ...[...this.links.values()].map((link) => link.forwarded + link.dropped));
    for (const link of this.links.values()) {
      let line = this.lines.get(link.id);
      if (!line) {
        line = s("g", { tabindex: 0, role: "button", "data-link": link.id });
        this.lines.set(link.id, line);
        this.linkLayer.append(line);
      }
      this.fillLine(line, link, 1.2 + 2.2 * Math.log1p(link.forwarded + link.dropped) / Math.log1p(most));
    }
  }

  fillLine(line, link, width) {
    const curve = this.curve(link);
    link.curve = curve;
    const d = path(curve);
    const refused = !link.forwarded && !link.redirected && link.dropped > 0;
    line.setAttribute("class", `link${refused ? " refused" : ""}${this.store.live && this.store.now - link.last > 60_000 + SETTLED ? " idle" : ""}`);
    line.setAttribute("aria-label", `${nameOf(this.parties, link.source)} to ${nameOf(this.parties, link.destination)}: ${ports(link.edges).join(", ")}; ${link.forwarded} forwarded, ${link.dropped} dropped`);
    link.stop = this.stopOf(link);
    const look = [d, width.toFixed(1), refused, link.dropped > 0, link.audit > 0, link.redirected > 0, link.stop, ports(link.edges)].join();
    if (look === line.look) return; // most links look as they did a second ago
    line.look = look;
    const parts = [s("path", { class: "hit", d })];
    const good = link.audit && !link.forwarded ? "audited" : link.redirected ? "proxied" : "good";
    if (!refused) parts.push(s("path", { class: good, d, "stroke-width": width }), s("path", { class: "tip", d: tip(curve) }));
    if (link.dropped) {
      const stop = cut(refused ? curve : shifted(curve, 6), link.stop);
      parts.push(s("path", { class: "bad", d: path(stop), "stroke-width": Math.max(1.4, width * 0.7) }));
      const [x, y] = point(stop, 1);
      parts.push(s("path", { class: "cross", d: `M${x - 4} ${y - 4}l8 8M${x + 4} ${y - 4}l-8 8` }));
    }
    parts.push(this.label(link, refused ? cut(curve, link.stop) : curve));
    line.replaceChildren(...parts);
  }

  // How far drops get: near the one whose policy denies them, where a rule tells.
  stopOf(link) {
    for (const edge of link.edges) {
      for (const number of edge.dropped ? Object.keys(edge.rules) : []) {
        const rule = this.store.rules.get(number);
        if (rule && /deny/.test(rule.effect)) return rule.direction === "egress" ? 0.2 : 0.84;
      }
    }
    return 0.6;
  }

  label(link, curve) {
    const all = ports(link.edges);
    const text = all.slice(0, 2).join(", ") + (all.length > 2 ? ` +${all.length - 2}` : "");
    const [x, y] = point(curve, 0.5);
    const width = text.length * 6.4 + 14;
    const tight = Math.abs(curve[6] - curve[0]) < width + 8; // between neighbours it stands above the link
    return s("g", { class: "label", transform: `translate(${x} ${tight ? y - 32 : y})` },
      s("rect", { x: -width / 2, y: -9, width, height: 18, rx: 9 }),
      s("text", { "text-anchor": "middle", y: 3.5 }, text));
  }

  curve({ source, destination }) {
    const [a, b] = [this.places.get(source), this.places.get(destination)];
    if (source === destination) {
      const [x, y] = [a.x + CARD.width * 0.7, a.y];
      return [x, y, x, y - 42, x - 60, y - 42, x - 60, y];
    }
    const ahead = b.x > a.x + CARD.width;
    const behind = b.x + CARD.width < a.x;
    if (!ahead && !behind) { // above one another
      const bend = 46 + Math.abs(b.y - a.y) * 0.12;
      const [x1, x2] = [a.x + CARD.width, b.x + CARD.width];
      return [x1, a.y + CARD.height / 2, x1 + bend, a.y + CARD.height / 2, x2 + bend, b.y + CARD.height / 2, x2 + 5, b.y + CARD.height / 2];
    }
    const [x1, x2] = ahead ? [a.x + CARD.width, b.x - 5] : [a.x, b.x + CARD.width + 5];
    const reach = Math.max(36, Math.abs(x2 - x1) * 0.45) * (ahead ? 1 : -1);
    const [y1, y2] = [a.y + CARD.height / 2 + (ahead ? 0 : 8), b.y + CARD.height / 2 + (ahead ? 0 : 8)];
    const bowed = ([from, to]) => [x1, y1, x1 + reach, y1 + from * CARD.height, x2 - reach, y2 + to * CARD.height, x2, y2];
    return this.past(bowed, source, destination, Math.sign(a.y - b.y) || 1);
  }

  // The first of the curves that passes no other card, the least bent first; else the one that passes the fewest. Of two that
  // are bent alike, that one comes first which goes to the side of `way`, where the link comes from.
  past(bowed, source, destination, way) {
    let [best, least] = [null, Infinity];
    for (const [from, to] of BOWS) {
      for (const side of from || to ? [way, -way] : [0]) {
        const curve = bowed([side * from, side * to]);
        const passed = this.passed(curve, source, destination);
        if (passed < least) [best, least] = [curve, passed];
        if (!passed) return curve;
      }
    }
    return best;
  }

  passed(curve, source, destination) {
    const points = STEPS.map((t) => point(curve, t));
    let count = 0;
    for (const [id, spot] of this.places) {
      if (id === source || id === destination) continue;
      const [left, top] = [spot.x - 5, spot.y - 5];
      const within = ([x, y]) => x > left && x < left + CARD.width + 10 && y > top && y < top + CARD.height + 10;
      if (points.some(within)) count++;
    }
    return count;
  }

  // What is chosen, and what it has to do with.
  select(selection) {
    this.chosen = selection;
    this.mark();
  }

  mark() {
    const { party, link } = this.chosen ?? {};
    const near = new Set();
    for (const one of this.links?.values() ?? []) {
      if (one.id === link || one.source === party || one.destination === party) {
        for (const id of [one.id, one.source, one.destination]) near.add(id);
      }
    }
    this.near = near;
    this.svg.classList.toggle("choosing", near.size > 0);
    for (const [id, card] of this.cards) {
      card.classList.toggle("near", near.has(id));
      card.classList.toggle("selected", id === party);
    }
    for (const [id, line] of this.lines) {
      line.classList.toggle("near", near.has(id));
      line.classList.toggle("selected", id === link);
    }
  }

  // Moving about

  listen() {
    const { svg } = this;
    svg.addEventListener("pointerdown", (event) => this.press(event));
    svg.addEventListener("pointermove", (event) => this.drag(event));
    for (const kind of ["pointerup", "pointercancel"]) svg.addEventListener(kind, (event) => this.release(event));
    svg.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * 0.0016), event.offsetX, event.offsetY);
    }, { passive: false });
    svg.addEventListener("keydown", (event) => this.key(event));
  }

  press(event) {
    if (event.button !== 0) return;
    this.held = { x: event.clientX, y: event.clientY, moved: 0, target: event.target.closest("[data-party], [data-link]") };
    this.svg.setPointerCapture(event.pointerId);
  }

  drag(event) {
    if (!this.held) return;
    const [dx, dy] = [event.clientX - this.held.x, event.clientY - this.held.y];
    this.held.moved += Math.abs(dx) + Math.abs(dy);
    if (this.held.moved < CLICK) return;
    Object.assign(this.held, { x: event.clientX, y: event.clientY });
    this.svg.classList.add("dragging");
    this.touched = true;
    const party = this.held.target?.dataset.party;
    if (party) {
      this.layout.move(party, dx / this.view.scale, dy / this.view.scale);
      this.anew();
    } else {
      this.view.x += dx;
      this.view.y += dy;
      this.draw();
    }
  }

  release(event) {
    const { held } = this;
    this.held = null;
    this.svg.classList.remove("dragging");
    if (!held || held.moved >= CLICK || event.type === "pointercancel") return;
    this.choose(held.target);
  }

  choose(target) {
    if (target?.dataset.party) this.onSelect({ party: target.dataset.party });
    else if (target?.dataset.link) this.onSelect({ link: target.dataset.link });
    else this.onSelect(null);
  }

  // Enter chooses; arrows go to the nearest card that way.
  key(event) {
    const target = event.target.closest("[data-party], [data-link]");
    if (!target) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.choose(target);
    }
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!way || !target.dataset.party) return;
    event.preventDefault();
    const from = this.places.get(target.dataset.party);
    let [best, least] = [null, Infinity];
    for (const [id, spot] of this.places) {
      const [dx, dy] = [spot.x - from.x, spot.y - from.y];
      const [along, aside] = way[0] ? [dx * way[0], Math.abs(dy)] : [dy * way[1], Math.abs(dx)];
      if (along > 4 && along + 2 * aside < least) [best, least] = [id, along + 2 * aside];
    }
    if (best) this.cards.get(best).focus();
  }

  zoom(factor, x, y) {
    const scale = Math.min(2.5, Math.max(0.12, this.view.scale * factor));
    const by = scale / this.view.scale;
    this.touched = true;
    this.view = { x: x - (x - this.view.x) * by, y: y - (y - this.view.y) * by, scale };
    this.draw();
  }

  fit() {
    this.touched = false;
    if (!this.places?.size) return this.draw();
    const spots = [...this.places.values()];
    const [left, top] = [Math.min(...spots.map((p) => p.x)) - 30, Math.min(...spots.map((p) => p.y)) - 48];
    const [right, bottom] = [Math.max(...spots.map((p) => p.x)) + CARD.width + 40, Math.max(...spots.map((p) => p.y)) + CARD.height + 30];
    const { clientWidth: width, clientHeight: height } = this.svg;
    const room = { top: 48, bottom: 30 };
    const scale = Math.min(1.15, width / (right - left), (height - room.top - room.bottom) / (bottom - top));
    this.view = { scale, x: (width - (right - left) * scale) / 2 - left * scale, y: room.top + (height - room.top - room.bottom - (bottom - top) * scale) / 2 - top * scale };
    this.draw();
  }

  draw() {
    const { x, y, scale } = this.view;
    this.world.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
  }
}

const AGAIN = "\u0001";
const outside = (party) => !["workload", "namespace"].includes(party?.kind);

export function namespaceOf(party) {
  if (!party) return "other:unknown";
  return party.namespace ? `namespace:${party.namespace}` : party.id;
}

export const nameOf = (parties, id) => parties.get(id)?.name ?? id.replace(AGAIN, "").replace(/^[a-z]+:/, "");
export const sameParty = (id) => id.replace(AGAIN, "");

const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const path = ([x1, y1, a, b, c, d, x2, y2]) => `M${x1} ${y1}C${a} ${b} ${c} ${d} ${x2} ${y2}`;

// A point of a cubic Bézier curve.
export function point([x1, y1, a, b, c, d, x2, y2], t) {
  const u = 1 - t;
  const [k0, k1, k2, k3] = [u * u * u, 3 * u * u * t, 3 * u * t * t, t * t * t];
  return [k0 * x1 + k1 * a + k2 * c + k3 * x2, k0 * y1 + k1 * b + k2 * d + k3 * y2];
}

// Its beginning, up to t (de Casteljau).
function cut([x1, y1, a, b, c, d, x2, y2], t) {
  const mix = (p, q) => p + (q - p) * t;
  const [ax, ay, bx, by, cx, cy] = [mix(x1, a), mix(y1, b), mix(a, c), mix(b, d), mix(c, x2), mix(d, y2)];
  const [px, py, qx, qy] = [mix(ax, bx), mix(ay, by), mix(bx, cx), mix(by, cy)];
  return [x1, y1, ax, ay, px, py, mix(px, qx), mix(py, qy)];
}

const shifted = ([x1, y1, a, b, c, d, x2, y2], by) => [x1, y1 + by, a, b + by, c, d + by, x2, y2 + by];

function tip([, , , , c, d, x, y]) {
  const angle = Math.atan2(y - d, x - c);
  const corner = (turn) => `${x - 8 * Math.cos(angle + turn)} ${y - 8 * Math.sin(angle + turn)}`;
  return `M${x} ${y}L${corner(0.42)}L${corner(-0.42)}z`;
}

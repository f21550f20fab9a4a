// Brings the parts of the page together.

import { Refused, Stream, enter, get } from "./api.js";
import { Details } from "./details.js";
import { $, h, short } from "./dom.js";
import { Filter } from "./filter.js";
import { Graph } from "./graph.js";
import { Store } from "./store.js";
import { Table } from "./table.js";
import { Timeline } from "./timeline.js";
import { Traffic } from "./traffic.js";

const REFRESH = 4000; // of the timeline, in ms
const CROWD = 70; // from so many workloads on, namespaces are shown first

// What the browser remembers between visits: theme, places, sizes. Never flows, never the token.
const memory = {
  read(name, fallback) {
    try { return JSON.parse(localStorage.getItem(`axoneme.${name}`)) ?? fallback; } catch { return fallback; }
  },
  write(name, value) {
    try { localStorage.setItem(`axoneme.${name}`, JSON.stringify(value)); } catch { /* then it is forgotten */ }
  },
};

class App {
  constructor() {
    this.store = new Store();
    this.graph = new Graph({ onSelect: (what) => this.select(what), memory: memory.read("layout", {}), remember: (layout) => memory.write("layout", layout) });
    this.traffic = new Traffic(this.graph);
    this.table = new Table({ onSelect: (row) => this.selectFlow(row) });
    this.timeline = new Timeline({ onRange: (times) => this.look(times) });
    this.filter = new Filter({ store: this.store, onChange: () => this.restart() });
    this.details = new Details({ store: this.store, onSelect: (what) => this.select(what), onFilter: (word) => this.filter.add(word) });
    this.theme(memory.read("theme", null));
    this.size(memory.read("table", null));
    this.listen();
  }

  async start() {
    if (await this.tokenOfAddress()) return;
    try {
      const status = await get("status");
      this.store.status = status;
      this.filter.keys = status.keys;
      $("node").textContent = status.node;
      document.title = `${status.node} · Axoneme`;
    } catch (error) {
      if (error instanceof Refused) return this.login();
      this.state("lost");
      setTimeout(() => this.start(), 2000);
      return;
    }
    this.restart();
    clearInterval(this.refreshing);
    this.refreshing = setInterval(() => this.refresh(), REFRESH);
  }

  // `axoneme ui` prints an address with the token behind the #, which browsers keep to themselves.
  async tokenOfAddress() {
    const token = new URLSearchParams(location.hash.slice(1)).get("token");
    if (!token) return false;
    history.replaceState(null, "", location.pathname);
    await enter(token).catch(() => null);
    return false;
  }

  login() {
    $("login").showModal();
    $("token").focus();
  }

  // Live, or a stretch of the past, with the filter that is set.
  restart() {
    this.stream?.close();
    this.store.clear();
    if (this.timeline.range) return this.look(this.timeline.times());
    this.live();
    this.refresh();
  }

  live() {
    this.stream?.close();
    this.stream = new Stream(this.filter.text, {
      onData: (kind, data) => this.take(kind, data),
      onState: (state) => { this.state(state); if (state === "lost") this.check(); },
    });
    $("live").setAttribute("aria-pressed", "true");
    this.state("live");
  }

  // Why a stream does not come: the filter is wrong, a token is needed, or the agent is away.
  async check() {
    try {
      await get("timeline", { q: this.filter.text, buckets: 10 });
    } catch (error) {
      if (error instanceof Refused) { this.stream?.close(); if (!$("login").open) this.login(); }
      else if (error.status === 400) { this.stream?.close(); this.filter.complain(error.message); this.state("live"); this.empty(); }
    }
  }

  take(kind, data) {
    if (kind === "snapshot") {
      this.store.load(data, { live: true });
      if (this.first === undefined) {
        this.first = false;
        if ([...this.store.parties.values()].filter((party) => party.kind === "workload").length > CROWD) this.group(true, false);
      }
      this.show(0);
    } else {
      this.store.tick(data);
      this.show(data.rows.length);
      this.traffic.emit(this.passed(data.edges));
    }
  }

  passed(edges) {
    const sums = new Map();
    for (const edge of edges) {
      const ends = this.graph.ends(edge);
      if (!ends) continue;
      const id = ends.join("\u0000");
      const [good, bad] = sums.get(id) ?? [0, 0];
      sums.set(id, [good + edge.forwarded + edge.redirected + edge.audit, bad + edge.dropped]);
    }
    return [...sums].map(([id, [good, bad]]) => [id, good, bad]);
  }

  show(fresh) {
    if (document.hidden && fresh) return;
    this.graph.update(this.store);
    this.table.update(this.store.rows, fresh);
    this.counts();
    this.empty();
    this.reselect();
  }

  counts() {
    const { status, rows, matched } = this.store;
    $("counts").textContent = `${short(rows.length)} of ${short(matched)} flows` + (status && this.store.live ? ` · ${short(status.rate)}/s · the agent remembers ${short(status.flows)} of ${short(status.capacity)}` : "");
    $("lost").textContent = status?.lost ? `${short(status.lost)} events were lost` : "";
  }

  empty() {
    const why = this.filter.text ? [h("b", {}, "Nothing passes the filter"), h("span", {}, this.store.live === false ? "in this stretch of time" : "within the last five minutes")]
      : this.store.live === false ? [h("b", {}, "Nothing happened then")]
      : [h("b", {}, "It is quiet"), h("span", {}, "Flows appear here as soon as workloads talk to somebody."), h("code", {}, "axoneme workload run web -l app=web -- python3 -m http.server")];
    $("map-empty").replaceChildren(...why);
    $("map-empty").hidden = this.store.edges.size > 0;
    $("rows-empty").replaceChildren(h("span", {}, this.filter.text ? "No flow passes the filter" : "No flows yet"));
    $("rows-empty").hidden = this.store.rows.length > 0;
  }

  // The past

  async look(times) {
    if (!times) return;
    this.stream?.close();
    $("live").setAttribute("aria-pressed", "false");
    $("live").querySelector("span").textContent = "Back to now";
    this.looking?.abort();
    this.looking = new AbortController();
    try {
      const data = await get("window", { since: times[0], until: times[1], q: this.filter.text }, this.looking.signal);
      this.store.load(data, { live: false });
      const seconds = Math.max(0.001, (times[1] - times[0]) / 1000);
      for (const edge of this.store.edges.values()) Object.assign(edge, { rate: (edge.forwarded + edge.dropped) / seconds, bad: edge.dropped / seconds });
      this.table.top();
      this.show(0);
    } catch (error) {
      if (error.name !== "AbortError") this.failed(error);
    }
  }

  now() {
    if (!this.timeline.range) return;
    this.looking?.abort();
    this.timeline.range = null;
    this.restart();
  }

  async refresh() {
    if (document.hidden || $("login").open) return;
    try {
      this.timeline.update(await get("timeline", { q: this.filter.text, buckets: 120 }));
    } catch (error) {
      this.failed(error);
    }
  }

  failed(error) {
    if (error instanceof Refused) this.login();
    else if (error.status === 400) this.filter.complain(error.message);
  }

  state(state) {
    const button = $("live");
    button.classList.toggle("lost", state === "lost");
    button.querySelector("span").textContent = state === "lost" ? "Reconnecting" : "Live";
  }

  // What is chosen

  select(what) {
    this.chosen = what;
    this.details.current = null;
    if (!what) { this.details.close(); this.table.select(null); }
    this.graph.select(what);
    this.reselect(true);
  }

  selectFlow(row) {
    this.chosen = { flow: row.n };
    this.details.current = row.n;
    const [from, to] = row.reply ? [row.destination, row.source] : [row.source, row.destination];
    const ends = this.graph.ends({ source: from.id, destination: to.id });
    this.graph.select(ends && { link: ends.join("\u0000") });
    this.details.flow(row);
  }

  // The panel follows what it is about, unless it shows an explanation that one reads.
  reselect(anew = false) {
    if (!this.chosen || this.chosen.flow !== undefined) return;
    if (!anew && $("details").querySelector(".why *")) return;
    if (this.chosen.party) this.details.party(this.chosen.party, this.graph);
    if (this.chosen.link) this.details.link(this.chosen.link, this.graph);
  }

  group(on, draw = true) {
    this.graph.grouped = on;
    $("by-namespace").setAttribute("aria-pressed", String(on));
    $("by-workload").setAttribute("aria-pressed", String(!on));
    if (!draw) return;
    this.select(null);
    this.graph.touched = false;
    this.graph.update(this.store);
    this.graph.fit();
  }

  // Looks

  theme(chosen) {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const apply = () => (document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light"));
    system.addEventListener("change", apply);
    apply();
    this.toggleTheme = () => {
      chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      memory.write("theme", chosen);
      apply();
    };
  }

  size(height) {
    if (height) document.documentElement.style.setProperty("--table", `${Math.max(90, Math.min(height, innerHeight - 260))}px`);
  }

  resize(height) {
    this.size(height);
    memory.write("table", height);
  }

  listen() {
    $("live").addEventListener("click", () => (this.timeline.range ? this.now() : this.timeline.set(this.timeline.widened(this.timeline.count - 12, this.timeline.count - 1))));
    $("theme").addEventListener("click", () => this.toggleTheme());
    $("help").addEventListener("click", () => this.help());
    $("fit").addEventListener("click", () => this.graph.fit());
    $("tidy").addEventListener("click", () => { this.graph.layout.tidy(); this.graph.anew(); this.graph.fit(); });
    $("by-workload").addEventListener("click", () => this.group(false));
    $("by-namespace").addEventListener("click", () => this.group(true));
    $("login-form").addEventListener("submit", (event) => { event.preventDefault(); this.unlock(); });
    document.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("visibilitychange", () => { if (!document.hidden && this.store.now) this.show(0); });
    this.splitter();
  }

  splitter() {
    const bar = $("splitter");
    bar.addEventListener("pointerdown", (event) => bar.setPointerCapture(event.pointerId));
    bar.addEventListener("pointermove", (event) => { if (bar.hasPointerCapture(event.pointerId)) this.resize(innerHeight - event.clientY - 3); });
    bar.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 30, ArrowDown: -30 }[event.key];
      if (step) { event.preventDefault(); this.resize($("flows").clientHeight + step); }
    });
  }

  async unlock() {
    $("login-error").textContent = "";
    try {
      await enter($("token").value);
      $("token").value = "";
      $("login").close();
      this.start();
    } catch (error) {
      $("login-error").textContent = error.status === 403 ? "This is not the token." : error.message;
      $("token").select();
    }
  }

  key(event) {
    if (event.target.closest("input, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      "/": () => this.filter.input.focus(), t: () => this.toggleTheme(), f: () => this.graph.fit(), l: () => $("live").click(),
      n: () => this.group(!this.graph.grouped), "?": () => this.help(), "+": () => this.zoom(1.25), "-": () => this.zoom(0.8),
      Escape: () => (this.chosen ? this.select(null) : this.now()),
    };
    if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
  }

  zoom(factor) {
    const { clientWidth, clientHeight } = $("map");
    this.graph.zoom(factor, clientWidth / 2, clientHeight / 2);
  }

  help() {
    const keys = { "/": "filter", "↑ ↓ ← →": "on the map: from card to card; in the table: rows; on the bars: back in time", Enter: "choose", Escape: "let go; go back to now", l: "live, or stop and look", n: "workloads or namespaces", f: "show everything", "+ −": "closer, further away", t: "light or dark" };
    $("keys").querySelector(".keys").replaceChildren(
      ...Object.entries(keys).flatMap(([key, what]) => [h("kbd", {}, key), h("span", {}, what)]),
      ...Object.entries(this.filter.keys).flatMap(([key, what]) => [h("b", {}, `${key}:`), h("span", {}, what)]),
      h("b", {}, "-key:"), h("span", {}, "not so"));
    $("keys").showModal();
  }
}

new App().start();

// What the page knows: parties and edges with their recent past, rows, and which stretch of time is looked at.

export const MOST_ROWS = 5000;
// Edges that nothing was heard of for so long are gone from a live map, in ms.
const FORGET = 300_000;
// The time over which rates are an average, in seconds.
const MEMORY = 10;

export const VERDICTS = ["forwarded", "dropped", "audit", "redirected"];

const edgeKey = (edge) => `${edge.source}\u0000${edge.destination}\u0000${edge.protocol}\u0000${edge.port}\u0000${edge.l7}`;

export class Store {
  constructor() {
    this.clear();
    this.rules = new Map();
    this.status = null;
  }

  clear() {
    this.parties = new Map();
    this.edges = new Map();
    this.rows = [];
    this.matched = 0;
    this.now = 0;
    this.selected = null;
  }

  // What the map starts with, or a stretch of the past.
  load(data, { live }) {
    const { selected } = this;
    this.clear();
    this.selected = selected;
    this.learn(data);
    for (const edge of data.edges) this.edges.set(edgeKey(edge), { ...edge, rate: 0, bad: 0 });
    this.rows = data.rows;
    this.matched = data.matched;
    this.live = live;
  }

  // One second more.
  tick(data) {
    this.learn(data);
    const decay = Math.exp(-1 / MEMORY);
    for (const edge of this.edges.values()) {
      edge.rate *= decay;
      edge.bad *= decay;
    }
    for (const news of data.edges) this.add(news, 1 - decay);
    for (const [key, edge] of this.edges) if (data.now - edge.last > FORGET) this.edges.delete(key);
    this.rows = data.rows.concat(this.rows);
    if (this.rows.length > MOST_ROWS) this.rows.length = MOST_ROWS;
    this.matched += data.matched;
  }

  add(news, weight) {
    const key = edgeKey(news);
    let edge = this.edges.get(key);
    if (!edge) {
      edge = { ...news, forwarded: 0, dropped: 0, audit: 0, redirected: 0, reasons: {}, rules: {}, rate: 0, bad: 0 };
      this.edges.set(key, edge);
    }
    for (const verdict of VERDICTS) edge[verdict] += news[verdict];
    edge.rate += weight * (news.forwarded + news.dropped);
    edge.bad += weight * news.dropped;
    edge.last = Math.max(edge.last, news.last);
    for (const part of ["reasons", "rules"]) {
      for (const [name, count] of Object.entries(news[part])) edge[part][name] = (edge[part][name] ?? 0) + count;
    }
  }

  learn(data) {
    this.now = data.now;
    for (const party of data.parties) this.parties.set(party.id, party);
    for (const [number, rule] of Object.entries(data.rules)) this.rules.set(number, rule);
    if (data.status) this.status = { ...this.status, ...data.status };
  }

  // Edges between the same two ends are one link of the map. `ends` says what the ends of an edge are there; null: nothing.
  links(ends) {
    const links = new Map();
    for (const edge of this.edges.values()) {
      const found = ends(edge);
      if (!found) continue;
      const [source, destination] = found;
      const id = `${source}\u0000${destination}`;
      let link = links.get(id);
      if (!link) {
        link = { id, source, destination, edges: [], forwarded: 0, dropped: 0, audit: 0, redirected: 0, rate: 0, bad: 0, last: 0 };
        links.set(id, link);
      }
      link.edges.push(edge);
      for (const part of [...VERDICTS, "rate", "bad"]) link[part] += edge[part];
      link.last = Math.max(link.last, edge.last);
    }
    return links;
  }
}

// What is spoken at which port, the application's protocol rather than the transport's where it is known.
export function ports(edges) {
  const found = new Map();
  for (const { l7, protocol, port } of edges) if (l7 || !found.has(port || protocol)) found.set(port || protocol, `${l7 || protocol}${port ? ` ${port}` : ""}`);
  return [...found.values()];
}

// The panel at the side: a workload, a link or a flow, and why.

import { get } from "./api.js";
import { $, ago, exact, h, short } from "./dom.js";
import { asked, explanation } from "./explain.js";
import { nameOf, sameParty } from "./graph.js";
import { ports } from "./store.js";

const REASONS = { 0: "unknown", 132: "Invalid source ip", 133: "Policy denied", 181: "Policy denied by denylist", 189: "Authentication required" };

export class Details {
  constructor({ store, onSelect, onFilter, reasons }) {
    Object.assign(this, { store, onSelect, onFilter });
    this.reasons = { ...REASONS, ...reasons };
    this.box = $("details");
  }

  close() {
    this.box.hidden = true;
    this.box.replaceChildren();
  }

  show(...parts) {
    const scroll = this.box.scrollTop;
    const close = h("button", { class: "quiet close", type: "button", "aria-label": "Close", onclick: () => this.onSelect(null) }, "✕");
    this.box.replaceChildren(close, ...parts.flat().filter(Boolean));
    this.box.hidden = false;
    this.box.scrollTop = scroll;
  }

  party(id, graph) {
    const party = graph.parties.get(id) ?? this.store.parties.get(id);
    if (!party) return this.close();
    const links = [...graph.links.values()];
    const [incoming, outgoing] = [links.filter((l) => l.destination === id), links.filter((l) => l.source === id)];
    this.show(
      h("h2", {}, party.name),
      h("div", { class: "kind" }, [KINDS[party.kind] ?? party.kind, party.namespace].filter(Boolean).join(" in ")),
      numbers([...incoming, ...outgoing]),
      h("div", { class: "actions" }, this.filterButton(party)),
      this.peers("Calls", outgoing, "destination", graph),
      this.peers("Called by", incoming, "source", graph),
      facts({ identity: party.identity || null }),
      party.labels?.length ? h("h3", {}, "Labels") : null,
      h("div", { class: "chips" }, ...(party.labels ?? []).map((label) => h("span", { class: "tag" }, label))));
  }

  filterButton(party) {
    const key = { workload: `pod:${party.namespace}/${party.name}`, namespace: `ns:${party.name}`, name: `name:${party.name}`, cidr: `ip:${party.name}` }[party.kind];
    return key ? h("button", { class: "secondary", type: "button", onclick: () => this.onFilter(key) }, "Only its flows") : null;
  }

  peers(title, links, other, graph) {
    if (!links.length) return null;
    const sorted = [...links].sort((a, b) => b.dropped - a.dropped || b.forwarded - a.forwarded);
    return [h("h3", {}, title), h("ul", { class: "peers" }, ...sorted.map((link) => h("li", {},
      h("button", { type: "button", onclick: () => this.onSelect({ link: link.id }) },
        h("span", {}, nameOf(graph.parties, link[other])), h("small", {}, link.dropped ? `${short(link.dropped)} dropped` : `${short(link.forwarded)} flows`),
        h("small", {}, ports(link.edges).slice(0, 3).join(", ")), h("small", {}, link.rate >= 0.1 ? `${short(link.rate)}/s` : ""),
        meter(link)))))];
  }

  link(id, graph) {
    const link = graph.links.get(id);
    if (!link) return this.close();
    const rules = new Map();
    for (const edge of link.edges) for (const [number, count] of Object.entries(edge.rules)) rules.set(number, (rules.get(number) ?? 0) + count);
    this.show(
      h("h2", {}, nameOf(graph.parties, link.source), " → ", nameOf(graph.parties, link.destination)),
      h("div", { class: "kind" }, [this.namespaces(link), `last seen ${ago(link.last, this.store.now)}`].filter(Boolean).join(" · ")),
      numbers([link]),
      this.whyButtons(link),
      h("div", { class: "why" }),
      h("h3", {}, "Ports"),
      h("ul", { class: "peers" }, ...link.edges.map((edge) => h("li", {}, h("button", { type: "button", onclick: () => this.onFilter(portFilter(edge)) },
        h("span", {}, ports([edge])[0]), h("small", {}, edge.dropped ? `${short(edge.dropped)} dropped` : `${short(edge.forwarded)} flows`),
        this.reasonsOf(edge), meter(edge))))),
      rules.size ? h("h3", {}, "Rules that decided") : null,
      ...[...rules].sort((a, b) => b[1] - a[1]).map(([number]) => this.rule(number)));
  }

  namespaces({ source, destination }) {
    const [from, to] = [source, destination].map((id) => this.store.parties.get(sameParty(id))?.namespace);
    return from && to ? (from === to ? `in ${from}` : `${from} to ${to}`) : from || to || "";
  }

  reasonsOf(edge) {
    const words = Object.entries(edge.reasons).map(([number, count]) => `${this.reasons[number] ?? `reason ${number}`} ×${short(count)}`);
    return h("small", {}, words.join(", "));
  }

  rule(number) {
    const rule = this.store.rules.get(number);
    if (!rule) return null;
    const own = rule.effect === "allow" ? "forwarded" : /deny/.test(rule.effect) ? "dropped" : "";
    return h("section", { class: `side ${own}` },
      h("header", {}, h("span", {}, rule.policy || rule.effect), h("small", { class: "note" }, rule.direction)),
      h("p", { class: "where" }, rule.text));
  }

  // A question about each port; most links have one.
  whyButtons(link) {
    if (!this.store.status?.explains) return null;
    const [source, destination] = [link.source, link.destination].map((id) => this.store.parties.get(sameParty(id)));
    const able = source && destination && [source, destination].every((party) => ["workload", "cidr", "host"].includes(party.kind) || party.kind === "world");
    const ports = link.edges.filter((edge) => edge.port).slice(0, 4);
    if (!able || !ports.length) return null;
    const ask = (party) => (party.kind === "workload" ? `${party.namespace}/${party.name}` : party.kind === "cidr" ? party.name : `reserved:${party.kind}`);
    return h("div", { class: "actions" }, ...ports.map((edge) =>
      h("button", { class: "secondary", type: "button", onclick: () => this.why(ask(source), ask(destination), edge.port, edge.protocol) }, ports.length > 1 ? `Why? ${edge.port}` : "Why?")));
  }

  async why(source, destination, port, protocol, seen) {
    const place = this.box.querySelector(".why");
    place.replaceChildren(h("p", { class: "note" }, "Asking the policies …"));
    try {
      place.replaceChildren(await explanation(source, destination, port, protocol, seen));
    } catch (error) {
      place.replaceChildren(h("p", { class: "note" }, error.status === 404 ? "No plugin that runs explains policies." : `The policies do not say: ${error.message}`));
    }
  }

  async flow(row) {
    const show = (whole) => this.show(
      h("h2", {}, nameOf(this.store.parties, row.source.id), " → ", nameOf(this.store.parties, row.destination.id)),
      h("div", { class: "kind" }, exact(row.t)),
      h("p", { class: `verdict-line ${row.verdict}` }, [row.verdict, row.reason].filter(Boolean).join(": ")),
      facts({
        source: `${row.source.ip}${row.source.port ? `:${row.source.port}` : ""}`,
        destination: `${row.destination.ip}${row.destination.port ? `:${row.destination.port}` : ""}`,
        protocol: row.protocol, what: row.summary, direction: row.direction, "decided by": row.policies.join(", "),
      }),
      h("div", { class: "why" }),
      whole ? h("details", { class: "whole" }, h("summary", {}, "Everything the agent knows of it"), h("pre", { tabindex: 0 }, JSON.stringify(JSON.parse(whole.flow), null, 2))) : null);
    show(null);
    const whole = await get("flow", { n: row.n }).catch(() => null);
    if (this.current !== row.n) return;
    show(whole);
    const transport = ["TCP", "UDP", "SCTP"].includes(row.protocol) ? row.protocol : row.protocol === "DNS" ? "UDP" : "TCP";
    if (this.store.status?.explains && row.destination.port) {
      const [from, to] = row.reply ? [row.destination, row.source] : [row.source, row.destination];
      await this.why(asked(from), asked(to), to.port, transport, row.verdict);
    }
  }
}

const KINDS = { workload: "Workload", namespace: "Namespace", world: "Outside", name: "Name outside", cidr: "Prefix", host: "This machine", node: "Other machines", other: "Others" };

const portFilter = (edge) => (edge.port ? `port:${edge.port}` : `proto:${edge.protocol.toLowerCase()}`);

function numbers(links) {
  const sum = (part) => links.reduce((total, link) => total + link[part], 0);
  const dropped = sum("dropped");
  return h("div", { class: "numbers" },
    h("div", {}, h("b", {}, short(sum("forwarded"))), h("span", {}, "forwarded")),
    h("div", { class: dropped ? "hot" : "" }, h("b", {}, short(dropped)), h("span", {}, "dropped")),
    h("div", {}, h("b", {}, `${short(sum("rate"))}/s`), h("span", {}, "now")));
}

function meter({ forwarded, dropped }) {
  const all = forwarded + dropped || 1;
  const part = (count, kind) => {
    const bar = h("i", { class: kind });
    bar.style.width = `${(100 * count) / all}%`;
    return bar;
  };
  return h("span", { class: "meter" }, part(forwarded, ""), part(dropped, "bad"));
}

function facts(values) {
  const known = Object.entries(values).filter(([, value]) => value);
  return known.length ? h("dl", { class: "facts" }, ...known.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))])) : null;
}

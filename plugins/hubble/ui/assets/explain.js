// What the policies say about a flow, side by side: who decided, what else was looked at, and what would let it through.

import { get } from "./api.js";
import { h } from "./dom.js";

// How the agent is asked for one end: a workload by name, everybody else by address.
export const asked = ({ id, name, namespace, ip }) => (id.startsWith("workload:") ? `${namespace}/${name}` : ip || name);

// `seen`: what became of the flow; the policies of now may say something else.
export async function explanation(source, destination, port, protocol, seen = "") {
  const answer = await get("explain", { source, destination, port: `${port}/${protocol}` });
  const denied = answer.sides.some((side) => side.verdict !== "allowed");
  const changed = seen && (seen === "dropped") !== denied;
  return h("div", {},
    h("p", { class: `answer ${denied ? "dropped" : "forwarded"}` }, changed ? `As the policies are now, they ${denied ? "deny" : "allow"} it` : `The policies ${denied ? "deny" : "allow"} it`),
    ...answer.sides.map(side));
}

function side(one) {
  const allowed = one.verdict === "allowed";
  return h("section", { class: `side ${allowed ? "forwarded" : "dropped"}` },
    h("header", {}, h("span", {}, one.direction === "egress" ? "Leaving " : "Entering ", one.subject?.name ?? ""),
      h("span", { class: `verdict ${allowed ? "forwarded" : "dropped"}` }, one.verdict)),
    one.error ? h("p", {}, one.error) : null,
    one.rule ? rule(one.rule) : null,
    one.auth ? h("p", {}, `Authentication: ${text(one.auth)}`) : null,
    one.proxy ? h("p", {}, `By the proxy: ${text(one.proxy)}`) : null,
    considered(one),
    one.suggestion_yaml ? h("details", { open: true }, h("summary", {}, "A rule that would allow it"), h("pre", { tabindex: 0 }, one.suggestion_yaml)) : null,
    one.suggestion_none ? h("p", { class: "note" }, one.suggestion_none) : null);
}

function rule({ policy, path, file, line, text: words }) {
  return h("div", {},
    policy ? h("p", {}, h("b", {}, policy), ` ${path}`) : null,
    file ? h("p", { class: "where" }, line ? `${file}:${line}` : file) : null,
    words?.startsWith("{") ? h("details", {}, h("summary", {}, "The rule"), h("pre", { tabindex: 0 }, pretty(words))) : words ? h("p", { class: "where" }, words) : null);
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}

function considered({ considered: rules = [], considered_total: total = rules.length }) {
  const others = rules.filter((one) => one.outcome !== "decides");
  if (!others.length) return null;
  return h("details", {},
    h("summary", {}, `${others.length} other ${others.length === 1 ? "rule" : "rules"} looked at`),
    h("ul", {}, ...others.map((one) => h("li", {}, h("b", {}, one.rule.policy), ` ${one.rule.path}: ${one.why}`))),
    total > rules.length ? h("p", { class: "note" }, `and ${total - rules.length} more`) : null);
}

const text = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

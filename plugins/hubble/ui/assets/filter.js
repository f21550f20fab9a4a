// The filter: text, suggestions for its keys and values, and buttons for verdicts that write into it.

import { $, h } from "./dom.js";
import { VERDICTS } from "./store.js";

export class Filter {
  constructor({ onChange, store }) {
    Object.assign(this, { onChange, store });
    this.input = $("filter");
    this.list = $("suggestions");
    this.keys = {};
    this.input.addEventListener("input", () => this.suggest());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.input.addEventListener("blur", () => setTimeout(() => (this.list.hidden = true), 150));
    $("search").addEventListener("submit", (event) => { event.preventDefault(); this.apply(); });
    this.buttons = VERDICTS.map((verdict) => h("button", { type: "button", class: verdict, "aria-pressed": "false", onclick: () => this.toggle(`verdict:${verdict}`) }, verdict));
    $("verdicts").append(...this.buttons);
  }

  get text() {
    return this.input.value.trim();
  }

  set(text) {
    this.input.value = text;
    this.apply();
  }

  add(word) {
    if (!this.words().includes(word)) this.set([...this.words(), word].join(" "));
  }

  toggle(word) {
    const words = this.words();
    this.set((words.includes(word) ? words.filter((one) => one !== word) : [...words, word]).join(" "));
  }

  words() {
    return this.text.split(/\s+/).filter(Boolean);
  }

  apply() {
    this.list.hidden = true;
    const words = this.words();
    this.buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(words.includes(`verdict:${VERDICTS[i]}`))));
    this.complain("");
    this.onChange(this.text);
  }

  complain(message) {
    $("filter-error").hidden = !message;
    $("filter-error").textContent = message;
    this.input.setAttribute("aria-invalid", String(Boolean(message)));
  }

  // Keys for a word that is begun, then the values that are known.
  options() {
    const word = this.input.value.slice(0, this.input.selectionStart).split(/\s+/).pop();
    const minus = word.startsWith("-") ? "-" : "";
    const [key, value] = word.slice(minus.length).split(":");
    if (value === undefined) return Object.entries(this.keys).filter(([name]) => key && name.startsWith(key)).map(([name, help]) => [`${minus}${name}:`, help]);
    return (this.values()[key] ?? []).filter((one) => one.startsWith(value) && one !== value).slice(0, 8).map((one) => [`${minus}${key}:${one}`, ""]);
  }

  values() {
    const workloads = [...this.store.parties.values()].filter((party) => party.kind === "workload").map((party) => `${party.namespace}/${party.name}`);
    return {
      ns: this.store.status?.namespaces ?? [], verdict: VERDICTS, pod: workloads, from: workloads, to: workloads,
      proto: ["tcp", "udp", "icmp", "http", "dns", "kafka"], dir: ["ingress", "egress"], reason: ["policy_denied", "policy_deny", "auth_required"],
    };
  }

  suggest() {
    this.complain("");
    this.at = -1;
    const options = this.options();
    this.list.hidden = !options.length;
    this.list.replaceChildren(...options.map(([word, help]) => h("li", { role: "option", "aria-selected": "false", "data-word": word, onmousedown: (event) => { event.preventDefault(); this.take(word); } }, h("b", {}, word), h("span", {}, help))));
  }

  take(word) {
    const { value, selectionStart: at } = this.input;
    const begin = value.slice(0, at).replace(/\S*$/, "");
    const end = value.slice(at).replace(/^\S*/, "");
    const space = word.endsWith(":") ? "" : " ";
    this.input.value = begin + word + space + end.trimStart();
    this.input.setSelectionRange((begin + word + space).length, (begin + word + space).length);
    this.suggest();
    if (space) this.apply();
  }

  key(event) {
    const options = [...this.list.children];
    if (event.key === "Escape") {
      if (!this.list.hidden) this.list.hidden = true;
      else this.input.blur();
      event.stopPropagation();
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !this.list.hidden) {
      event.preventDefault();
      this.at = (this.at + (event.key === "ArrowDown" ? 1 : -1) + options.length) % options.length;
      options.forEach((option, i) => option.setAttribute("aria-selected", String(i === this.at)));
    } else if ((event.key === "Enter" || event.key === "Tab") && !this.list.hidden && this.at >= 0) {
      event.preventDefault();
      this.take(options[this.at].dataset.word);
    }
  }
}

// The flows, newest first: as many elements as fit on the screen, however many rows there are.

import { $, exact, h, short } from "./dom.js";

const HEIGHT = 34;

export class Table {
  constructor({ onSelect }) {
    this.onSelect = onSelect;
    this.rows = [];
    this.held = 0; // rows that came while one looks further down
    this.chosen = null; // a flow's number
    this.box = $("rows");
    this.spacer = this.box.querySelector(".spacer");
    this.shown = new Map();
    this.box.addEventListener("scroll", () => this.scrolled());
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.choose(Number(row.dataset.n));
    });
    $("newer").addEventListener("click", () => this.top());
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  // `fresh`: how many of the rows are new, at the top.
  update(rows, fresh = 0) {
    this.rows = rows;
    const away = this.box.scrollTop > HEIGHT;
    this.spacer.style.height = `${rows.length * HEIGHT}px`;
    if (away && fresh) {
      this.held += fresh;
      this.box.scrollTop += fresh * HEIGHT; // what one reads stays where it is
    }
    $("newer").hidden = !this.held;
    $("newer").textContent = `${short(this.held)} newer`;
    $("rows-empty").hidden = rows.length > 0;
    this.box.setAttribute("aria-rowcount", rows.length);
    this.draw();
  }

  top() {
    this.held = 0;
    $("newer").hidden = true;
    this.box.scrollTop = 0;
    this.draw();
  }

  scrolled() {
    if (this.box.scrollTop <= HEIGHT && this.held) this.top();
    else this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / HEIGHT) - 4);
    const last = Math.min(this.rows.length, first + Math.ceil(this.box.clientHeight / HEIGHT) + 8);
    const wanted = new Map();
    for (let index = first; index < last; index++) wanted.set(this.rows[index].n, index);
    for (const [number, element] of this.shown) {
      if (!wanted.has(number)) {
        element.remove();
        this.shown.delete(number);
      }
    }
    for (const [number, index] of wanted) {
      let element = this.shown.get(number);
      if (!element) {
        element = line(this.rows[index]);
        this.shown.set(number, element);
        this.box.append(element);
      }
      element.style.transform = `translateY(${index * HEIGHT}px)`;
      element.setAttribute("aria-rowindex", index + 1);
      element.setAttribute("aria-selected", String(number === this.chosen));
    }
    if (this.chosen !== null) this.box.setAttribute("aria-activedescendant", `flow-${this.chosen}`);
  }

  select(number) {
    this.chosen = number;
    this.draw();
  }

  choose(number) {
    const row = this.rows.find((one) => one.n === number);
    if (!row) return;
    this.select(number);
    this.onSelect(row);
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / HEIGHT) - 1);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || !this.rows.length) return;
    event.preventDefault();
    const now = this.rows.findIndex((row) => row.n === this.chosen);
    const next = Math.min(this.rows.length - 1, Math.max(0, now < 0 ? 0 : now + step));
    const [top, height] = [next * HEIGHT, this.box.clientHeight];
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + HEIGHT > this.box.scrollTop + height) this.box.scrollTop = top + HEIGHT - height;
    this.choose(this.rows[next].n);
  }
}

function line(row) {
  const why = row.verdict === "dropped" ? row.reason : "";
  const by = row.policies.join(", ");
  return h("div", { class: `row ${row.verdict}`, role: "row", id: `flow-${row.n}`, "data-n": row.n },
    h("span", { class: "when", role: "gridcell" }, exact(row.t)),
    h("span", { role: "gridcell" }, h("span", { class: `verdict ${row.verdict}` }, row.verdict)),
    h("span", { role: "gridcell", title: row.source.ip }, end(row.source)),
    h("span", { role: "gridcell", title: row.destination.ip }, end(row.destination), port(row)),
    h("span", { role: "gridcell" }, h("span", { class: "tag" }, row.protocol || "—")),
    h("span", { class: "what", role: "gridcell", title: row.summary }, row.reply ? `↩ ${row.summary}` : row.summary),
    h("span", { class: why ? "by reason" : "by", role: "gridcell", title: by }, [why, by].filter(Boolean).join(" · ")));
}

const end = ({ name, namespace, kind, ip }) => {
  const outside = ["world", "cidr", "other"].includes(kind) && ip;
  return [outside ? ip : name, h("small", {}, namespace ? `  ${namespace}` : outside ? `  ${name}` : "")];
};
const port = ({ destination }) => (destination.port ? h("small", {}, `  :${destination.port}`) : null);

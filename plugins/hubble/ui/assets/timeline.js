// All that the agent remembers, as bars over time. Drag, or arrows, to look at a stretch of it; Escape goes back to now.

import { $, clock, s } from "./dom.js";

const LEAST = 2; // bars of a stretch

export class Timeline {
  constructor({ onRange }) {
    this.onRange = onRange;
    this.data = null;
    this.range = null; // [first, last] bar, or null while live
    this.box = $("timeline");
    this.svg = s("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
    this.box.append(this.svg);
    this.box.addEventListener("pointerdown", (event) => this.press(event));
    this.box.addEventListener("pointermove", (event) => this.drag(event));
    this.box.addEventListener("pointerup", () => this.release());
    this.box.addEventListener("keydown", (event) => this.key(event));
  }

  // While a stretch is looked at, the bars stand still: they are what was chosen from.
  update(data) {
    if (this.range && this.data) return;
    this.data = data;
    this.draw();
  }

  get count() {
    return this.data?.forwarded.length ?? 0;
  }

  draw() {
    const { data, count } = this;
    if (!data) return;
    const most = Math.max(1, ...data.forwarded.map((good, i) => good + data.dropped[i]));
    const height = (number) => (number ? Math.max(1.5, 38 * Math.sqrt(number / most)) : 0);
    this.svg.setAttribute("viewBox", `0 0 ${count} 42`);
    const bars = [s("line", { class: "base", x1: 0, x2: count, y1: 41.5, y2: 41.5, "vector-effect": "non-scaling-stroke" })];
    data.forwarded.forEach((good, i) => {
      const total = good + data.dropped[i];
      const all = height(total);
      const bad = data.dropped[i] ? Math.min(all, Math.max(2, (all * data.dropped[i]) / total)) : 0;
      if (all) bars.push(s("rect", { class: "bar-good", x: i + 0.12, y: 41 - all, width: 0.76, height: all - bad }));
      if (bad) bars.push(s("rect", { class: "bar-bad", x: i + 0.12, y: 41 - bad, width: 0.76, height: bad }));
    });
    if (this.range) {
      const [first, last] = this.range;
      bars.push(s("rect", { class: "window", x: first, y: 0, width: last - first + 1, height: 42 }));
      for (const x of [first, last + 1]) bars.push(s("rect", { class: "edge", x: x - 0.12, y: 0, width: 0.24, height: 42 }));
    }
    this.svg.replaceChildren(...bars);
    this.tell();
  }

  // Beginning and end of what is looked at, in ms; null while live.
  times(range = this.range) {
    if (!range || !this.data) return null;
    return [this.data.from + range[0] * this.data.width, this.data.from + (range[1] + 1) * this.data.width];
  }

  tell() {
    const times = this.times();
    const text = times ? `${clock(times[0])} – ${clock(times[1])}` : this.data ? `since ${clock(this.data.from)}` : "";
    $("range").textContent = text;
    this.box.setAttribute("aria-valuemax", this.count);
    this.box.setAttribute("aria-valuenow", this.range ? this.range[1] : this.count);
    this.box.setAttribute("aria-valuetext", times ? `from ${clock(times[0])} to ${clock(times[1])}` : "live");
  }

  set(range) {
    this.range = range;
    this.draw();
    this.onRange(this.times());
  }

  bar(event) {
    const { left, width } = this.box.getBoundingClientRect();
    return Math.min(this.count - 1, Math.max(0, Math.floor(((event.clientX - left) / width) * this.count)));
  }

  press(event) {
    if (!this.count) return;
    this.from = this.bar(event);
    this.box.setPointerCapture(event.pointerId);
  }

  drag(event) {
    if (this.from === undefined) return;
    const now = this.bar(event);
    this.range = this.widened(Math.min(this.from, now), Math.max(this.from, now));
    this.draw();
  }

  release() {
    if (this.from === undefined) return;
    const range = this.range ?? this.widened(this.from, this.from);
    this.from = undefined;
    this.set(range);
  }

  widened(first, last) {
    const missing = Math.max(0, LEAST - (last - first + 1));
    const end = Math.min(this.count - 1, last + missing);
    return [Math.max(0, Math.min(first, end - LEAST + 1)), end];
  }

  // Left and right move the stretch, with Shift its end.
  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (step === undefined || !this.count) return;
    event.preventDefault();
    if (!this.range) return this.set(this.widened(this.count - 12, this.count - 1));
    let [first, last] = this.range;
    if (event.shiftKey) last = Math.min(this.count - 1, Math.max(first, last + step));
    else {
      const by = Math.max(-first, Math.min(this.count - 1 - last, step));
      [first, last] = [first + by, last + by];
    }
    this.set(this.widened(first, last));
  }
}

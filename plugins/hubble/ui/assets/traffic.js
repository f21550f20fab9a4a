// Dots that travel along the links: one for every few flows that really passed, red ones that end where they were dropped.
//
// They are drawn on a canvas over the map. Nothing is drawn while nothing moves, nor for people who want no motion.

import { $ } from "./dom.js";
import { point } from "./graph.js";

const MOST = 360; // dots at once
const TRIP = 1500; // ms that one takes
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

export class Traffic {
  constructor(graph) {
    this.graph = graph;
    this.canvas = $("traffic");
    this.context = this.canvas.getContext("2d");
    this.dots = [];
    this.running = false;
  }

  // What passed within the last second, by link: [[link, forwarded, dropped], …].
  emit(passed) {
    if (STILL.matches || document.hidden) return;
    const now = performance.now();
    for (const [id, forwarded, dropped] of passed) {
      for (const [count, bad] of [[forwarded, false], [dropped, true]]) {
        const number = Math.min(5, Math.ceil(Math.log2(count + 1)));
        for (let i = 0; i < number && this.dots.length < MOST; i++) this.dots.push({ id, bad, at: now + ((i + Math.random()) / number) * 1000 });
      }
    }
    if (!this.running && this.dots.length) {
      this.running = true;
      requestAnimationFrame((time) => this.frame(time));
    }
  }

  frame(now) {
    const { canvas, context } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    const { x, y, scale } = this.graph.view;
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * x, ratio * y);
    this.dots = this.dots.filter((dot) => now - dot.at < TRIP);
    const style = getComputedStyle(document.documentElement);
    const colours = [style.getPropertyValue("--forwarded"), style.getPropertyValue("--dropped")];
    for (const dot of this.dots) this.dot(dot, now, colours);
    this.running = this.dots.length > 0;
    if (this.running) requestAnimationFrame((time) => this.frame(time));
  }

  dot(dot, now, colours) {
    const link = this.graph.links?.get(dot.id);
    const curve = link?.curve;
    const t = (now - dot.at) / TRIP;
    if (!curve || t < 0) return;
    const eased = t * t * (3 - 2 * t);
    const [x, y] = point(curve, dot.bad ? eased * link.stop : eased);
    const faint = this.graph.near?.size && !this.graph.near.has(dot.id) ? 0.15 : 1;
    this.context.globalAlpha = faint * (dot.bad ? 1 - t * 0.5 : Math.min(1, 4 * t, 4 * (1 - t)));
    this.context.fillStyle = colours[dot.bad ? 1 : 0];
    this.context.beginPath();
    this.context.arc(x, y, dot.bad ? 3.2 : 2.6, 0, 2 * Math.PI);
    this.context.fill();
  }
}

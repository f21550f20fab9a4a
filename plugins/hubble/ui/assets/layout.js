// Where everything is on the map: namespaces side by side, inside of them workloads in columns, callers left of whom they call.
//
// A layout is remembered. What has a place keeps it, what is new gets one, so that nothing jumps while one looks at it; `tidy`
// forgets all of that. The same input gives the same picture: there is no chance in it.

export const CARD = { width: 178, height: 46 };
const GAP = { x: 72, y: 22 };
const REGION = { x: 70, y: 28, side: 18, top: 36, bottom: 18 };
const TALLEST = 7;

export class Layout {
  constructor(memory) {
    this.memory = memory; // { level: {id: column}, order: {id: number}, moved: {id: [dx, dy]} }
    this.memory.level ??= {};
    this.memory.order ??= {};
    this.memory.moved ??= {};
    this.count = Math.max(0, ...Object.values(this.memory.order)) + 1;
  }

  tidy() {
    this.memory.level = {};
    this.memory.order = {};
    this.memory.moved = {};
    this.count = 1;
  }

  move(id, dx, dy) {
    const [x, y] = this.memory.moved[id] ?? [0, 0];
    this.memory.moved[id] = [x + dx, y + dy];
  }

  // parties: [{id, namespace}], links: [{source, destination}] → {places: Map id → {x, y}, regions: [{name, x, y, width, height}]}
  arrange(parties, links) {
    const clusters = this.clusters(parties);
    const home = new Map();
    for (const cluster of clusters.values()) for (const id of cluster.ids) home.set(id, cluster.id);
    for (const cluster of clusters.values()) {
      this.inside(cluster, links.filter((l) => home.get(l.source) === cluster.id && home.get(l.destination) === cluster.id));
    }
    const between = links.map((l) => ({ source: home.get(l.source), destination: home.get(l.destination) })).filter((l) => l.source !== l.destination);
    return this.place(clusters, between);
  }

  clusters(parties) {
    const clusters = new Map();
    for (const { id, namespace } of [...parties].sort((a, b) => (a.id < b.id ? -1 : 1))) {
      const name = namespace ? `region:${namespace}` : `alone:${id}`;
      if (!clusters.has(name)) clusters.set(name, { id: name, name: namespace, ids: [], boxed: Boolean(namespace) });
      clusters.get(name).ids.push(id);
    }
    return clusters;
  }

  inside(cluster, links) {
    const columns = this.columns(cluster.ids, links, TALLEST);
    const tallest = Math.max(...columns.map((column) => column.length));
    cluster.inner = new Map();
    columns.forEach((column, x) => {
      const offset = ((tallest - column.length) * (CARD.height + GAP.y)) / 2;
      column.forEach((id, y) => cluster.inner.set(id, { x: x * (CARD.width + GAP.x), y: offset + y * (CARD.height + GAP.y) }));
    });
    const pad = cluster.boxed ? REGION : { side: 0, top: 0, bottom: 0 };
    cluster.width = columns.length * (CARD.width + GAP.x) - GAP.x + 2 * pad.side;
    cluster.height = tallest * (CARD.height + GAP.y) - GAP.y + pad.top + pad.bottom;
    cluster.pad = pad;
  }

  place(clusters, links) {
    const places = new Map();
    const regions = [];
    const columns = this.columns([...clusters.keys()], links, 4);
    const heights = columns.map((column) => column.reduce((sum, id) => sum + clusters.get(id).height + REGION.y, -REGION.y));
    const tallest = Math.max(0, ...heights);
    let x = 0;
    columns.forEach((column, index) => {
      const width = Math.max(...column.map((id) => clusters.get(id).width));
      let y = (tallest - heights[index]) / 2;
      for (const id of column) {
        const cluster = clusters.get(id);
        const left = x + (width - cluster.width) / 2;
        for (const [party, spot] of cluster.inner) {
          const [dx, dy] = this.memory.moved[party] ?? [0, 0];
          places.set(party, { x: left + cluster.pad.side + spot.x + dx, y: y + cluster.pad.top + spot.y + dy });
        }
        if (cluster.boxed) regions.push(region(cluster, places));
        y += cluster.height + REGION.y;
      }
      x += width + REGION.x;
    });
    return { places, regions };
  }

  // Columns of ids: each one right of those that call it, as far as there are no circles; in a column near to whom they talk to.
  columns(ids, links, tallest) {
    const level = this.levels(ids, links);
    const columns = [];
    for (const id of ids) (columns[level.get(id)] ??= []).push(id);
    const filled = columns.filter(Boolean);
    this.sort(filled, links);
    return filled.flatMap((column) => (column.length > tallest + 2 ? pieces(column, tallest) : [column]));
  }

  levels(ids, links) {
    const known = this.memory.level;
    const members = new Set(ids);
    const next = new Map(ids.map((id) => [id, []]));
    for (const { source, destination } of links) if (members.has(source) && members.has(destination) && source !== destination) next.get(source).push(destination);
    const fresh = depths(ids, next);
    const level = new Map();
    for (const id of ids) {
      level.set(id, known[id] ?? fresh.get(id));
      known[id] ??= level.get(id);
    }
    return level;
  }

  // A few passes of "as high as the mean of my neighbours", then whoever had a place already goes first, in its old order.
  sort(columns, links) {
    const spot = new Map();
    const note = () => columns.forEach((column) => column.forEach((id, y) => spot.set(id, y - column.length / 2)));
    note();
    const near = new Map();
    for (const { source, destination } of links) {
      for (const [a, b] of [[source, destination], [destination, source]]) near.set(a, [...(near.get(a) ?? []), b]);
    }
    for (let pass = 0; pass < 6; pass++) {
      for (const column of columns) {
        const mean = (id) => {
          const others = (near.get(id) ?? []).filter((other) => spot.has(other));
          return others.length ? others.reduce((sum, other) => sum + spot.get(other), 0) / others.length : spot.get(id);
        };
        const means = new Map(column.map((id) => [id, mean(id)]));
        column.sort((a, b) => means.get(a) - means.get(b) || (a < b ? -1 : 1));
      }
      note();
    }
    const { order } = this.memory;
    for (const column of columns) {
      column.sort((a, b) => (order[a] ?? Infinity) - (order[b] ?? Infinity) || 0);
      for (const id of column) order[id] ??= this.count++;
    }
  }
}

// The longest way to each from one that nobody calls; links that would close a circle do not count.
function depths(ids, next) {
  const state = new Map();
  const order = [];
  const kept = new Map(ids.map((id) => [id, []]));
  const called = new Set([...next.values()].flat());
  const visit = (root) => {
    const stack = [[root, 0]];
    state.set(root, 1);
    while (stack.length) {
      const top = stack[stack.length - 1];
      const target = next.get(top[0])[top[1]++];
      if (target === undefined) {
        state.set(top[0], 2);
        order.push(top[0]);
        stack.pop();
      } else if (state.get(target) !== 1) {
        kept.get(top[0]).push(target);
        if (!state.has(target)) {
          state.set(target, 1);
          stack.push([target, 0]);
        }
      }
    }
  };
  for (const id of [...ids.filter((one) => !called.has(one)), ...ids]) if (!state.has(id)) visit(id);
  const depth = new Map(ids.map((id) => [id, 0]));
  for (const id of order.reverse()) for (const target of kept.get(id)) depth.set(target, Math.max(depth.get(target), depth.get(id) + 1));
  return depth;
}

function pieces(column, size) {
  const parts = [];
  for (let start = 0; start < column.length; start += size) parts.push(column.slice(start, start + size));
  return parts;
}

function region(cluster, places) {
  const spots = cluster.ids.map((id) => places.get(id));
  const left = Math.min(...spots.map((spot) => spot.x)) - REGION.side;
  const top = Math.min(...spots.map((spot) => spot.y)) - REGION.top;
  const right = Math.max(...spots.map((spot) => spot.x)) + CARD.width + REGION.side;
  const bottom = Math.max(...spots.map((spot) => spot.y)) + CARD.height + REGION.bottom;
  return { name: cluster.name, x: left, y: top, width: right - left, height: bottom - top };
}

// What the agent is asked, and what it tells by itself.

export class Refused extends Error {}

async function answer(response) {
  const body = await response.json().catch(() => ({}));
  if (response.status === 401) throw new Refused("a token is needed");
  if (!response.ok) {
    const error = new Error(body.hint ? `${body.error}: ${body.hint}` : body.error ?? `the agent answers ${response.status}`);
    error.status = response.status;
    throw error;
  }
  return body;
}

const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== "")).toString();

export async function get(name, values = {}, signal = undefined) {
  return answer(await fetch(`api/${name}?${query(values)}`, { signal }));
}

export async function enter(token) {
  return answer(await fetch("api/session", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }) }));
}

// Server-sent events until `close`. EventSource itself does not tell why it was refused, so that is asked for.
export class Stream {
  constructor(filter, { onData, onState }) {
    this.closed = false;
    this.source = new EventSource(`api/stream?${query({ q: filter })}`);
    for (const kind of ["snapshot", "tick"]) {
      this.source.addEventListener(kind, (event) => { onState("live"); onData(kind, JSON.parse(event.data)); });
    }
    this.source.onerror = () => { if (!this.closed) onState("lost"); };
  }

  close() {
    this.closed = true;
    this.source.close();
  }
}

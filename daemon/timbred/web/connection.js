// A connection to the daemon that comes back by itself, and says within two seconds when the daemon is gone.

/** Milliseconds. Together the first three are the longest that a daemon which has stopped goes unnoticed. */
export const ASK_EVERY = 500;
export const SILENT_AFTER = 1250;
export const LOOK_EVERY = 200;
const GIVE_UP_AFTER = 6000;
const CONNECT_WITHIN = 2500;
const WAITS = [150, 300, 600, 1000];

export class Connection {
  /** `client` is the name under which the daemon knows this page, also after a lost connection. */
  constructor(client, { question = { type: "ping" } } = {}) {
    this.client = client;
    this.question = question;
    this.state = "connecting";
    this.hearers = { event: [], state: [], open: [] };
    this.tries = 0;
    this.socket = null;
    this.askedAt = null;
    this.triedAt = 0;
    this.lookedAt = 0;
  }

  /** `event` hears each event, `state` each change of state, `open` each new connection. */
  on(what, hearer) {
    this.hearers[what].push(hearer);
    return this;
  }

  start() {
    this.connect();
    setInterval(() => this.look(), LOOK_EVERY);
  }

  get open() {
    return this.state === "open";
  }

  /** Whether it went out. */
  send(request) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(request));
    return true;
  }

  connect() {
    const socket = new WebSocket(`ws://${location.host}/ws?client=${encodeURIComponent(this.client)}`);
    this.socket = socket;
    this.triedAt = performance.now();
    this.askedAt = null;
    socket.addEventListener("open", () => socket === this.socket && this.opened());
    socket.addEventListener("message", ({ data }) => socket === this.socket && this.heard(JSON.parse(data)));
    socket.addEventListener("close", () => socket === this.socket && this.closed());
  }

  opened() {
    this.tries = 0;
    this.ask();
    this.become("open");
    this.tell("open");
  }

  closed() {
    this.socket = null;
    this.become("gone");
    const wait = WAITS[Math.min(this.tries, WAITS.length - 1)];
    this.tries += 1;
    setTimeout(() => this.socket ?? this.connect(), wait);
  }

  heard(event) {
    this.askedAt = null;
    if (this.state !== "open") this.become("open");
    this.tell("event", event);
  }

  ask() {
    if (this.send(this.question)) this.askedAt ??= performance.now();
    this.lookedAt = performance.now();
  }

  /** Looks whether a question has waited too long. A page in the background looks seldom, but never judges unasked. */
  look() {
    const now = performance.now();
    const state = this.socket?.readyState;
    if (state === WebSocket.CONNECTING && now - this.triedAt > CONNECT_WITHIN) this.abandon();
    if (state !== WebSocket.OPEN) return;
    if (this.askedAt !== null) {
      if (now - this.askedAt > GIVE_UP_AFTER) this.abandon();
      else if (now - this.askedAt > SILENT_AFTER) this.become("silent");
    } else if (now - this.lookedAt >= ASK_EVERY) this.ask();
  }

  abandon() {
    const socket = this.socket;
    this.closed();
    socket.close();
  }

  become(state) {
    if (state === this.state) return;
    this.state = state;
    this.tell("state", state);
  }

  tell(what, ...about) {
    for (const hearer of this.hearers[what]) hearer(...about);
  }
}

/**
 * The name of this page at the daemon: the same after a reload of the tab, another one in a copy of the tab.
 */
export async function nameOfThisPage(remembered) {
  const before = remembered.get("client", null);
  const name = before !== null && (await isFree(before)) ? before : fresh();
  if (name !== before) {
    remembered.set("client", name);
    await isFree(name);
  }
  return { name, kept: name === before };
}

const fresh = () => "panel-" + Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("");

/** Whether no other tab goes by this name; if so, none can from now on. Without locks nobody can tell. */
function isFree(name) {
  if (!navigator.locks) return Promise.resolve(false);
  return new Promise((resolve) => {
    const held = () => {
      resolve(true);
      return new Promise(() => {});
    };
    // a page that is just being reloaded may still hold it for a moment
    const options = { signal: AbortSignal.timeout(600) };
    navigator.locks.request(`timbred.${name}`, options, held).catch(() => resolve(false));
  });
}

// A WebSocket connection to the daemon that reconnects automatically and detects a lost daemon within two seconds.

/** The sum of the first three is the longest time until a stopped daemon is detected. */
export const PING_INTERVAL_MS = 500;
export const SILENT_AFTER_MS = 1250;
export const CHECK_INTERVAL_MS = 200;
const RECONNECT_AFTER_MS = 6000;
const CONNECT_TIMEOUT_MS = 2500;
const RETRY_DELAYS_MS = [150, 300, 600, 1000];

export class Connection {
  /** `client` is the page's name at the daemon, which it keeps after a lost connection. */
  constructor(client, { pingRequest = { type: "ping" } } = {}) {
    this.client = client;
    this.pingRequest = pingRequest;
    this.state = "connecting";
    this.listeners = { event: [], state: [], open: [], close: [] };
    this.tries = 0;
    this.socket = null;
    this.pingedAt = null;
    this.connectStartedAt = 0;
    this.lastPingAt = 0;
  }

  /** Adds a listener: `event` for each event, `state` for each change of state, `open` and `close` for each connection. */
  on(name, listener) {
    this.listeners[name].push(listener);
    return this;
  }

  start() {
    this.connect();
    setInterval(() => this.checkAnswer(), CHECK_INTERVAL_MS);
  }

  get open() {
    return this.state === "open";
  }

  /** Sends a request; returns whether it was sent. */
  send(request) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(request));
    return true;
  }

  connect() {
    const socket = new WebSocket(`ws://${location.host}/ws?client=${encodeURIComponent(this.client)}`);
    this.socket = socket;
    this.connectStartedAt = performance.now();
    this.pingedAt = null;
    socket.addEventListener("open", () => socket === this.socket && this.opened());
    socket.addEventListener("message", ({ data }) => socket === this.socket && this.received(JSON.parse(data)));
    socket.addEventListener("close", () => socket === this.socket && this.closed());
  }

  opened() {
    this.tries = 0;
    this.ping();
    this.setState("open");
    this.emit("open");
  }

  closed() {
    this.socket = null;
    this.setState("closed");
    this.emit("close");
    const wait = RETRY_DELAYS_MS[Math.min(this.tries, RETRY_DELAYS_MS.length - 1)];
    this.tries += 1;
    setTimeout(() => this.socket ?? this.connect(), wait);
  }

  received(event) {
    this.pingedAt = null;
    if (this.state !== "open") this.setState("open");
    this.emit("event", event);
  }

  ping() {
    if (this.send(this.pingRequest)) this.pingedAt ??= performance.now();
    this.lastPingAt = performance.now();
  }

  /** Checks for an overdue answer. A page in the background is checked seldom, and only after a ping. */
  checkAnswer() {
    const now = performance.now();
    const state = this.socket?.readyState;
    if (state === WebSocket.CONNECTING && now - this.connectStartedAt > CONNECT_TIMEOUT_MS) this.abandon();
    if (state !== WebSocket.OPEN) return;
    if (this.pingedAt !== null) {
      if (now - this.pingedAt > RECONNECT_AFTER_MS) this.abandon();
      else if (now - this.pingedAt > SILENT_AFTER_MS) this.setState("silent");
    } else if (now - this.lastPingAt >= PING_INTERVAL_MS) this.ping();
  }

  abandon() {
    const socket = this.socket;
    this.closed();
    socket.close();
  }

  setState(state) {
    if (state === this.state) return;
    this.state = state;
    this.emit("state", state);
  }

  emit(name, ...values) {
    for (const listener of this.listeners[name]) listener(...values);
  }
}

/**
 * Returns the name of this page at the daemon: the same after a reload of the tab, another one in a copy of the tab.
 */
export async function nameOfThisPage(storage) {
  const stored = storage.get("client", null);
  const name = stored !== null && (await isFree(stored)) ? stored : randomName();
  if (name !== stored) {
    storage.set("client", name);
    await isFree(name);
  }
  return { name, kept: name === stored };
}

const randomName = () => "panel-" + Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("");

/** Resolves to true and reserves the name if no other tab uses it; false without the Web Locks API. */
function isFree(name) {
  if (!navigator.locks) return Promise.resolve(false);
  return new Promise((resolve) => {
    const held = () => {
      resolve(true);
      return new Promise(() => {});
    };
    // a page that is being reloaded may still hold the lock for a moment
    const options = { signal: AbortSignal.timeout(600) };
    navigator.locks.request(`timbred.${name}`, options, held).catch(() => resolve(false));
  });
}

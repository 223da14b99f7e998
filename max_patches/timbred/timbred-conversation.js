"use strict";
// Exchange of messages between a device and timbred, with repetition and timeouts. It has no socket and no clock:
// `send` sends a message, `tell` outputs a message to the patch, `now` is the time in milliseconds.

const vocabulary = require("./timbred-vocabulary.js");

/** Milliseconds. */
const PING_EVERY = 500;
const AWAY_AFTER = 1500;
const GIVE_UP_AFTER = 8000;
const ASK_AGAIN_AFTER = 5000;

const UNKNOWN = "unknown", HERE = "here", AWAY = "away";
/** Index among the values after the id. */
const TAKE_ID = vocabulary.events.take.indexOf("take_id") - 1;
const ENDS = new Set(["done", "cancelled", "fail"]);

class Conversation {
  /**
   * @param send `(address, values)`
   * @param tell `(name, ...values)`: outputs a message to the patch
   * @param session unique text with which all ids begin
   */
  constructor(send, tell, session, name, place, now) {
    this.send = send;
    this.tell = tell;
    this.session = session;
    this.name = name;
    this.place = place;
    this.count = 0;
    this.pending = new Map();
    this.begin(now);
  }

  /** Reset the connection, at the start and after a change of host or port. */
  begin(now) {
    this.state = UNKNOWN;
    this.heardAt = now;
    this.pingedAt = -Infinity;
    this.tick(now);
  }

  /** Send a request with an id: `generate`, `vary`. Every answer carries `tag`. */
  request(tag, name, values, now) {
    const id = this.session + "-" + ++this.count;
    const entry = { tag, name, values, id, heardAt: now, since: now, takes: new Set() };
    if (this.state === AWAY) return this.tell("fail", tag, "timeout", this.absent());
    this.pending.set(id, entry);
    this.ask(entry, now);
    return id;
  }

  /** Send a request without an id. */
  say(name, values) {
    if (this.state === AWAY) return this.tell("fail", name, "timeout", this.absent());
    this.send(vocabulary.root + name, values);
  }

  /** Cancel the requests with this tag, or all: `*`. */
  cancel(tag) {
    const entries = [...this.pending.values()].filter((entry) => tag === "*" || entry.tag === tag);
    if (!entries.length && tag !== "*") this.tell("fail", tag, "bad-request", "cancel: no running request has that name");
    for (const entry of entries) this.say("cancel", [entry.id]);
  }

  /** Handle a received message: `{address, values}`. */
  receive({ address, values }, now) {
    if (!address.startsWith(vocabulary.root)) return;
    const name = address.slice(vocabulary.root.length);
    this.heardAt = now;
    if (this.state !== HERE) this.connected(now);
    if (name === "pong") return;
    if (name === "welcome") return this.tell("link", 1, String(values[1]));
    const entry = this.pending.get(values[0]);
    if (entry) this.answer(entry, name, values.slice(1), now);
    else this.other(name, values);
  }

  answer(entry, name, values, now) {
    entry.heardAt = now;
    if (name === "take") {
      const takeId = values[TAKE_ID];
      if (entry.takes.has(takeId)) return;
      entry.takes.add(takeId);
    }
    if (ENDS.has(name)) this.pending.delete(entry.id);
    this.tell(name, entry.tag, ...values);
  }

  /** Output an event of a request without an id. Late events of ended requests are dropped. */
  other(name, values) {
    if (typeof values[0] === "string" && values[0].startsWith(this.session + "-")) return;
    this.tell(name, ...values);
  }

  /** Handle a refused connection: no program listens on that port. */
  refused() {
    this.lost();
    this.giveUp([...this.pending.values()]);
  }

  /** Ping, repeat and time out requests. Called several times per second. */
  tick(now) {
    if (now - this.pingedAt >= PING_EVERY) {
      this.pingedAt = now;
      this.send(vocabulary.root + "ping", []);
    }
    const silent = now - this.heardAt;
    if (silent >= AWAY_AFTER) this.lost();
    if (silent >= GIVE_UP_AFTER) this.giveUp([...this.pending.values()]);
    for (const entry of this.pending.values()) {
      if (this.state === HERE && now - Math.max(entry.heardAt, entry.since) >= ASK_AGAIN_AFTER) this.ask(entry, now);
    }
  }

  /** Send a request, possibly again: with the same id it is never run twice, and lost answers are repeated. */
  ask(entry, now) {
    entry.since = now;
    this.send(vocabulary.root + entry.name, [entry.id, ...entry.values]);
  }

  connected(now) {
    this.state = HERE;
    this.send(vocabulary.root + "hello", [this.name]);
    for (const entry of this.pending.values()) if (entry.since < now) this.ask(entry, now);
  }

  lost() {
    if (this.state === AWAY) return;
    this.state = AWAY;
    this.tell("link", 0, this.absent());
  }

  giveUp(entries) {
    for (const entry of entries) {
      this.pending.delete(entry.id);
      this.tell("fail", entry.tag, "timeout", "timbred exited during this request; send it again when it is running");
    }
  }

  absent() {
    return `timbred doesn't answer on ${this.place}: start it with "timbred serve", or set the port from its ready line`;
  }
}

exports.Conversation = Conversation;
exports.AWAY_AFTER = AWAY_AFTER;
exports.ASK_AGAIN_AFTER = ASK_AGAIN_AFTER;
exports.GIVE_UP_AFTER = GIVE_UP_AFTER;

// The requests of all clients: one line for each, updated with its progress.

import { createElement, write } from "./dom.js";
import { clock, seconds } from "./format.js";

const MAX_LINES = 200;

export class Activity {
  /** `titleOf` returns the titles of this page's own requests. */
  constructor(element, allClients, { titleOf }) {
    this.titleOf = titleOf;
    this.lines = new Map();
    this.count = 0;
    this.list = createElement("ol", { class: "activity", id: "lines", "aria-label": "Requests of all clients, the newest first" });
    this.nothing = createElement("p", { class: "hint", text: "No requests yet. The requests of all clients are shown here." });
    element.append(this.nothing, this.list);
    allClients.on("event", (event) => this.handle(event));
  }

  handle(event) {
    const words = describe(event, this.titleOf(event.id) ?? nameOf(event.id));
    if (!words) return;
    const place = placeOf(event) ?? `event ${(this.count += 1)}`;
    const line = this.lines.get(place) ?? this.add(place);
    line.element.dataset.kind = event.type;
    line.done = ["done", "cancelled", "fail"].includes(event.type);
    write(line.words, words);
    write(line.time, clock());
    if (line.done) this.lines.set(`${place} ended ${(this.count += 1)}`, line) && this.lines.delete(place);
  }

  /** Adds a line of this page itself. */
  note(kind, words) {
    const line = this.add(`note ${(this.count += 1)}`);
    line.element.dataset.kind = kind;
    write(line.words, words);
    write(line.time, clock());
  }

  add(place) {
    const line = { time: createElement("time"), words: createElement("span") };
    line.element = createElement("li", {}, line.time, line.words);
    this.lines.set(place, line);
    this.list.prepend(line.element);
    this.nothing.hidden = true;
    if (this.list.children.length > MAX_LINES) {
      const last = this.list.lastElementChild;
      for (const [name, one] of this.lines) if (one.element === last) this.lines.delete(name);
      last.remove();
    }
    return line;
  }
}

const REQUEST_EVENTS = ["queued", "started", "progress", "warning", "preview", "take", "done", "cancelled", "fail"];

function placeOf(event) {
  return event.id !== undefined && REQUEST_EVENTS.includes(event.type) ? `request ${event.id}` : null;
}

/** Returns a request's name: for another page its first letters and a number, for other clients the request's id. */
const nameOf = (id) => String(id ?? "").replace(/^panel-(\w{4})\w*-.*-(\d+)$/, "another panel ($1) $2");

function describe(event, name) {
  switch (event.type) {
    case "queued":
      return `${name}: waiting${event.position ? `, ${event.position} ahead` : ""}`;
    case "started":
      return `${name}: rendering with ${event.model}`;
    case "progress":
      return `${name}: ${Math.round(event.fraction * 100)} %${event.eta_s ? `, ${seconds(event.eta_s)} left` : ""}`;
    case "warning":
      return `${name}: ${event.key}: ${event.message}`;
    case "preview":
      return `${name}: a preview`;
    case "take":
      return `${name}: take ${event.take_id}, ${seconds(event.seconds)}`;
    case "done":
      return event.takes === undefined ? "" : `${name}: done, ${event.path.split(/[\\/]/).pop()}`;
    case "cancelled":
      return `${name}: cancelled`;
    case "fail":
      return `${name}: ${event.code}: ${event.message}`;
    case "playing":
      return `voice ${event.voice} plays ${event.take}`;
    case "flowing":
      return `voice ${event.voice} continues with ${event.take}${event.late ? " (late)" : ""}`;
    case "ended":
      return `voice ${event.voice}: ${event.reason}`;
    case "loaded":
    case "unloaded":
      return `model ${event.model}: ${event.type}`;
    default:
      return "";
  }
}

// What everybody asks of the daemon, as it happens: one line for each request, rewritten as it gets on.

import { make, write } from "./elements.js";
import { clock, seconds } from "./words.js";

const MOST_LINES = 200;

export class Activity {
  /** `titleOf` tells what this page's own requests are called. */
  constructor(element, everybody, { titleOf }) {
    this.titleOf = titleOf;
    this.lines = new Map();
    this.count = 0;
    this.list = make("ol", { class: "activity", id: "lines", "aria-label": "What everybody asks, the newest first" });
    this.nothing = make("p", { class: "hint", text: "Nothing yet. What any client asks of timbred is shown here." });
    element.append(this.nothing, this.list);
    everybody.on("event", (event) => this.hear(event));
  }

  hear(event) {
    const words = told(event, this.titleOf(event.id) ?? nameOf(event.id));
    if (!words) return;
    const place = placeOf(event) ?? `event ${(this.count += 1)}`;
    const line = this.lines.get(place) ?? this.add(place);
    line.element.dataset.kind = event.type;
    line.done = ["done", "cancelled", "fail"].includes(event.type);
    write(line.words, words);
    write(line.time, clock());
    if (line.done) this.lines.set(`${place} ended ${(this.count += 1)}`, line) && this.lines.delete(place);
  }

  /** A line of this page's own. */
  note(kind, words) {
    const line = this.add(`note ${(this.count += 1)}`);
    line.element.dataset.kind = kind;
    write(line.words, words);
    write(line.time, clock());
  }

  add(place) {
    const line = { time: make("time"), words: make("span") };
    line.element = make("li", {}, line.time, line.words);
    this.lines.set(place, line);
    this.list.prepend(line.element);
    this.nothing.hidden = true;
    if (this.list.children.length > MOST_LINES) {
      const last = this.list.lastElementChild;
      for (const [name, one] of this.lines) if (one.element === last) this.lines.delete(name);
      last.remove();
    }
    return line;
  }
}

const MADE = ["queued", "started", "progress", "warning", "preview", "take", "done", "cancelled", "fail"];

function placeOf(event) {
  return event.id !== undefined && MADE.includes(event.type) ? `request ${event.id}` : null;
}

/** Another page's request by that page's first letters and its number; any other client's by its own name for it. */
const nameOf = (id) => String(id ?? "").replace(/^panel-(\w{4})\w*-.*-(\d+)$/, "another panel ($1) $2");

function told(event, name) {
  switch (event.type) {
    case "queued":
      return `${name}: waits${event.position ? `, ${event.position} before it` : ""}`;
    case "started":
      return `${name}: ${event.model} works on it`;
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
      return `voice ${event.voice} flows on with ${event.take}${event.late ? " (late)" : ""}`;
    case "ended":
      return `voice ${event.voice}: ${event.reason}`;
    case "loaded":
    case "unloaded":
      return `model ${event.model}: ${event.type}`;
    default:
      return "";
  }
}

// How the daemon is, at the top: memory, queue, voices, rate, time; and the tempo that bars are counted in.

import { Field } from "./fields.js";
import { make, write } from "./elements.js";
import { sayNow } from "./saying.js";
import { duration, kilohertz, memory } from "./words.js";

const TOLD = [
  ["memory", "Memory"],
  ["queue", "Queue"],
  ["voices", "Voices"],
  ["models", "Models"],
  ["rate", "Rate"],
  ["uptime", "Up"],
];

export class Gauges {
  constructor(element, connection, { told }) {
    this.values = new Map();
    for (const [name, label] of TOLD) {
      const value = make("dd", { "data-gauge": name });
      this.values.set(name, value);
      element.append(make("div", {}, make("dt", { text: label }), value));
    }
    this.meter = make("span", { class: "meter", "aria-hidden": "true" }, make("span"));
    this.used = make("span");
    this.values.get("memory").append(this.meter, this.used);
    connection.on("event", (event) => event.type === "status.reply" && (this.show(event), told(event)));
  }

  show(status) {
    const { device_memory_used: used, device_memory_total: total } = status;
    write(this.used, total ? `${memory(used)} / ${memory(total)}` : memory(used));
    this.meter.firstChild.style.transform = `scaleX(${total ? Math.min(1, used / total) : 0})`;
    write(this.values.get("queue"), queue(status));
    write(this.values.get("voices"), `${status.voices_playing}${status.underruns ? `, ${status.underruns} underruns` : ""}`);
    write(this.values.get("models"), String(status.models_resident));
    write(this.values.get("rate"), kilohertz(status.sample_rate));
    write(this.values.get("uptime"), duration(status.uptime_s));
  }
}

function queue({ jobs_running: running, jobs_queued: waiting }) {
  if (!running && !waiting) return "idle";
  return waiting ? `${running} running, ${waiting} waiting` : `${running} running`;
}

export class Tempo {
  constructor(form, connection, key) {
    this.connection = connection;
    this.field = new Field(key, { label: "Tempo" });
    this.field.control.setAttribute("aria-keyshortcuts", "t");
    form.append(this.field.element);
    form.addEventListener("submit", (event) => event.preventDefault());
    this.field.control.addEventListener("change", () => this.ask());
    connection.on("event", (event) => this.hear(event)).on("open", () => this.refresh());
  }

  refresh() {
    this.connection.send({ type: "settings/tempo" });
  }

  ask() {
    const bpm = this.field.value;
    if (bpm === undefined || bpm === this.now) return this.refresh();
    this.field.fail("");
    if (!this.connection.send({ type: "tempo", bpm })) this.field.fail("timbred isn't there");
    return undefined;
  }

  hear(event) {
    if (event.type === "done" && event.id === "tempo") {
      this.field.fail("");
      this.refresh();
    }
    if (event.type === "settings/tempo") this.show(event.value);
    if (event.type === "fail" && (event.id === "tempo" || event.id === "settings/tempo")) {
      this.field.fail(event.message);
      sayNow(event.message);
    }
  }

  /** What a user is just typing isn't overwritten. */
  show(value) {
    const typing = document.activeElement === this.field.control && this.field.value !== this.now;
    this.now = value;
    if (!typing) this.field.value = value;
  }
}

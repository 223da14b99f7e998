// The status bar: memory, queue, voices, models, rate and uptime of the daemon; and the tempo.

import { Field } from "./fields.js";
import { createElement, write } from "./dom.js";
import { announceNow } from "./live_region.js";
import { duration, kilohertz, memory } from "./format.js";

const STATUS_FIELDS = [
  ["memory", "Memory"],
  ["queue", "Queue"],
  ["voices", "Voices"],
  ["models", "Models"],
  ["rate", "Rate"],
  ["uptime", "Up"],
];

export class StatusBar {
  constructor(element, connection, { onStatus }) {
    this.values = new Map();
    for (const [name, label] of STATUS_FIELDS) {
      const value = createElement("dd", { "data-status": name });
      this.values.set(name, value);
      element.append(createElement("div", {}, createElement("dt", { text: label }), value));
    }
    this.meter = createElement("span", { class: "meter", "aria-hidden": "true" }, createElement("span"));
    this.used = createElement("span");
    this.values.get("memory").append(this.meter, this.used);
    connection.on("event", (event) => event.type === "status.reply" && (this.show(event), onStatus(event)));
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
    connection.on("event", (event) => this.handle(event)).on("open", () => this.refresh());
  }

  refresh() {
    this.connection.send({ type: "settings/tempo" });
  }

  ask() {
    const bpm = this.field.value;
    if (bpm === undefined || bpm === this.now) return this.refresh();
    this.field.fail("");
    if (!this.connection.send({ type: "tempo", bpm })) this.field.fail("timbred isn't connected");
    return undefined;
  }

  handle(event) {
    if (event.type === "done" && event.id === "tempo") {
      this.field.fail("");
      this.refresh();
    }
    if (event.type === "settings/tempo") this.show(event.value);
    if (event.type === "fail" && (event.id === "tempo" || event.id === "settings/tempo")) {
      this.field.fail(event.message);
      announceNow(event.message);
    }
  }

  /** Shows the tempo, unless the user is typing one. */
  show(value) {
    const typing = document.activeElement === this.field.control && this.field.value !== this.now;
    this.now = value;
    if (!typing) this.field.value = value;
  }
}

// A form field for one key of a request, built from the daemon's declaration of the key.

import { uniqueId, createElement, set, write } from "./dom.js";
import { allowed, fallback, range, stride } from "./schema.js";

export class Field {
  /** `changed` is called with the field after each input. */
  constructor(key, { label = words(key.name), changed = () => {} } = {}) {
    this.key = key;
    const id = uniqueId(`key-${key.name}`);
    this.help = createElement("small", { id: `${id}-help`, class: "help" });
    this.failure = createElement("small", { id: `${id}-failure`, class: "failure" });
    this.control = this.makeControl(id);
    this.control.addEventListener("input", () => {
      this.fail("");
      changed(this);
    });
    this.control.addEventListener("change", () => changed(this));
    this.element = createElement(
      "div",
      { class: `field ${key.kind}`, "data-key": key.name },
      createElement("div", { class: "field-header" }, createElement("label", { for: id, text: label, title: key.about }), this.help),
      this.control,
      this.failure,
    );
    this.limit(null);
  }

  makeControl(id) {
    const { key } = this;
    const shared = { id, name: key.name, "aria-describedby": `${id}-help ${id}-failure`, title: key.about };
    if (key.kind === "choice" || key.kind === "boolean") return this.makeChoice(shared);
    const control = createElement("input", {
      ...shared,
      type: "text",
      autocomplete: "off",
      spellcheck: key.kind === "text" ? null : "false",
      inputmode: key.kind === "integer" ? "numeric" : key.kind === "number" ? "decimal" : null,
      maxlength: key.longest ?? null,
    });
    if (key.kind !== "text") this.makeSpin(control);
    return control;
  }

  makeChoice(shared) {
    const { key } = this;
    const offered = key.kind === "boolean" ? [["on", "on"], ["off", "off"]] : key.choices.map((one) => [String(one), String(one)]);
    const options = [["", ""], ...offered].map(([value, text]) => createElement("option", { value, text }));
    return createElement("select", shared, ...options);
  }

  makeSpin(control) {
    const { key } = this;
    set(control, "role", "spinbutton");
    set(control, "aria-valuemin", key.low);
    set(control, "aria-valuemax", key.high);
    control.addEventListener("keydown", (event) => {
      const way = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.step(way * stride(key) * (event.shiftKey ? 10 : 1));
    });
  }

  step(by) {
    const from = Number.parseFloat(this.control.value || this.control.placeholder);
    const { low = -Infinity, high = Infinity } = this.limits;
    const start = Number.isFinite(from) ? from + by : Math.max(low, 0);
    const value = Math.min(high, Math.max(low, start));
    this.value = String(Number(value.toFixed(4)));
    for (const kind of ["input", "change"]) this.control.dispatchEvent(new Event(kind, { bubbles: true }));
  }

  /** Shows the limits and the default of a model; `before` overrides the default. */
  limit(model, before = "") {
    const { key, control } = this;
    const unset = before || fallback(key, model);
    this.limits = range(key, model);
    write(this.help, allowed(key, model));
    if (control.tagName === "SELECT") write(control.options[0], onOff(key, unset) || "—");
    else set(control, "placeholder", unset);
    if (control.getAttribute("role") === "spinbutton") {
      set(control, "aria-valuemin", this.limits.low);
      set(control, "aria-valuemax", this.limits.high);
    }
  }

  /** The value to send; undefined uses the daemon's default. */
  get value() {
    const text = this.control.value.trim();
    if (text === "") return undefined;
    if (this.key.kind === "boolean") return text === "on";
    if (this.key.kind === "number" || this.key.kind === "integer" || this.key.choices.some((one) => typeof one === "number")) {
      const number = Number(text);
      return Number.isFinite(number) ? number : text;
    }
    return text;
  }

  set value(value) {
    this.control.value = value === undefined || value === null ? "" : typeof value === "boolean" ? (value ? "on" : "off") : String(value);
    if (this.control.getAttribute("role") === "spinbutton") {
      const number = Number.parseFloat(this.control.value);
      set(this.control, "aria-valuenow", Number.isFinite(number) ? number : null);
    }
  }

  fail(message) {
    write(this.failure, message);
    set(this.control, "aria-invalid", message ? "true" : null);
  }
}

/** Returns the label of a key. */
export const words = (name) => name.replaceAll("_", " ").replace(/(\d)$/, " $1");

const onOff = (key, text) => (key.kind === "boolean" ? ({ false: "off", true: "on" }[text] ?? text) : text);

// The list of models: state, licence and memory; loading, unloading, and the default.

import { createElement, set, write } from "./dom.js";
import { announceNow, announce } from "./live_region.js";
import { kilohertz, memory, seconds } from "./format.js";

const STATES = { resident: "in memory", loading: "loading", available: "installed", missing: "not installed" };

export class ModelList {
  /** `defaultModel` returns its name; `changed` is called with each model's description. */
  constructor(element, connection, { defaultModel, changed }) {
    this.connection = connection;
    this.defaultModel = defaultModel;
    this.changed = changed;
    this.models = new Map();
    this.cards = new Map();
    this.requestedModel = null;
    this.list = createElement("ul", { class: "models", "aria-label": "Models" });
    element.append(this.list);
    connection.on("event", (event) => this.handle(event)).on("open", () => this.refresh());
  }

  refresh() {
    this.connection.send({ type: "models" });
  }

  handle(event) {
    if (event.type === "model") this.show(event);
    if (event.type === "loaded" || event.type === "unloaded") this.ended(event.model, `${event.model}: ${event.type}`);
    if (event.type === "fail" && (event.id === "load" || event.id === "unload")) this.failed(event);
    if (event.type === "fail" && event.id === "settings/models.default") this.failed(event);
    if (event.type === "settings/models.default") for (const model of this.models.values()) this.show(model);
  }

  ended(name, text) {
    const card = this.cards.get(name);
    if (card) write(card.failure, "");
    if (this.requestedModel === name) this.requestedModel = null;
    announce(text);
    this.refresh();
  }

  failed(event) {
    const card = this.cards.get(this.requestedModel) ?? [...this.cards.values()][0];
    if (card) write(card.failure, `${event.code}: ${event.message}`);
    announceNow(event.message);
    this.requestedModel = null;
    this.refresh();
  }

  ask(request, model) {
    this.requestedModel = model.name;
    write(this.cards.get(model.name).failure, "");
    if (!this.connection.send(request)) {
      write(this.cards.get(model.name).failure, "timbred isn't connected: nothing was sent");
      return;
    }
    if (request.type === "load") this.show({ ...model, state: "loading" });
  }

  show(model) {
    this.models.set(model.name, model);
    const card = this.cards.get(model.name) ?? this.add(model);
    const isDefault = model.name === this.defaultModel();
    card.element.dataset.state = model.state;
    write(card.state, STATES[model.state]);
    write(card.facts, [`up to ${seconds(model.max_seconds)}`, kilohertz(model.native_rate), model.channels === 1 ? "mono" : "stereo", model.memory_mb ? memory(model.memory_mb) : null].filter(Boolean).join(" · "));
    write(card.licence, model.licence);
    card.load.hidden = model.state === "resident" || model.state === "loading";
    card.unload.hidden = model.state !== "resident";
    card.choose.hidden = isDefault;
    card.chosen.hidden = !isDefault;
    this.changed(model);
  }

  add(model) {
    const now = () => this.models.get(model.name);
    const button = (label, request) => createElement("button", { type: "button", class: "small", "aria-label": `${label}: ${model.name}`, onclick: () => this.ask(request(), now()) }, label);
    const card = {
      state: createElement("span", { class: "state" }),
      facts: createElement("p", { class: "facts" }),
      licence: createElement("p", { class: "facts licence" }),
      load: button("Load", () => ({ type: "load", model: model.name })),
      unload: button("Unload", () => ({ type: "unload", model: model.name })),
      choose: button("Make the default", () => ({ type: "settings/models.default", value: model.name })),
      chosen: createElement("span", { class: "default", text: "default" }),
      failure: createElement("p", { class: "failure" }),
    };
    card.element = createElement(
      "li",
      { "data-model": model.name },
      createElement("div", { class: "head" }, createElement("strong", { text: model.name }), card.chosen, card.state),
      card.facts,
      card.licence,
      createElement("div", { class: "row" }, card.load, card.unload, card.choose),
      card.failure,
    );
    this.cards.set(model.name, card);
    this.list.append(card.element);
    return card;
  }
}

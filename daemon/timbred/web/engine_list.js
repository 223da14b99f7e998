// The list of engines: device, state, models in memory, memory and requests of each.

import { createElement, write } from "./dom.js";
import { many, memory } from "./format.js";

const STATES = { starting: "starting", up: "ready", failed: "can't be started" };

export class EngineList {
  /** Asks for the engines with each status of the daemon while `element` is visible, and at each connection. */
  constructor(element, connection) {
    this.element = element;
    this.connection = connection;
    this.cards = new Map();
    this.list = createElement("ul", { class: "models engines", "aria-label": "Engines" });
    element.prepend(this.list);
    connection.on("event", (event) => this.handle(event)).on("open", () => this.restart());
  }

  /** Forgets the engines of an earlier daemon. */
  restart() {
    this.cards.clear();
    this.list.replaceChildren();
    this.refresh();
  }

  refresh() {
    this.connection.send({ type: "engines" });
  }

  handle(event) {
    if (event.type === "status.reply" && !this.element.hidden) this.refresh();
    if (event.type === "engine") this.show(event);
  }

  show(engine) {
    const card = this.cards.get(engine.number) ?? this.add(engine.number);
    card.element.dataset.state = engine.state;
    write(card.title, `Engine ${engine.number}: ${engine.device}`);
    write(card.state, engine.jobs ? `${STATES[engine.state]}, ${many(engine.jobs, "request")}` : STATES[engine.state]);
    const place = engine.where === "local" ? null : engine.where;
    const used = engine.memory_total ? `${memory(engine.memory_used)} of ${memory(engine.memory_total)}` : null;
    write(card.facts, [engine.name, place, used].filter(Boolean).join(" · "));
    write(card.models, engine.models ? `in memory: ${engine.models}` : "no model in memory");
    write(card.failure, engine.trouble);
  }

  add(number) {
    const card = {
      title: createElement("strong"),
      state: createElement("span", { class: "state" }),
      facts: createElement("p", { class: "facts" }),
      models: createElement("p", { class: "facts" }),
      failure: createElement("p", { class: "failure" }),
    };
    card.element = createElement(
      "li",
      { "data-engine": number },
      createElement("div", { class: "head" }, card.title, card.state),
      card.facts,
      card.models,
      card.failure,
    );
    this.cards.set(number, card);
    this.list.append(card.element);
    return card;
  }
}

// The daemon's voices on its audio device: list, playback, changes and stops.

import * as api from "./api.js";
import { Field } from "./fields.js";
import { icon, createElement, write } from "./dom.js";
import { announceNow } from "./live_region.js";
import { many } from "./format.js";

const PLAY_KEYS = ["voice", "gain", "pan", "speed", "loop", "at", "fade", "out"];
const SET_KEYS = ["gain", "pan", "speed"];

export class VoiceList {
  /** `allClients` receives the events of all clients, `connection` those of this page. */
  constructor(element, connection, allClients, { playKeys, setKeys, prompt, selected }) {
    this.connection = connection;
    this.setKeys = setKeys;
    this.prompt = prompt;
    this.selected = selected;
    this.playing = new Map();
    this.fields = new Map();
    this.build(element, playKeys);
    connection.on("event", (event) => this.handle(event));
    allClients.on("event", (event) => this.handleNotification(event)).on("open", () => this.clearAll());
  }

  build(element, playKeys) {
    const named = new Map(playKeys.map((key) => [key.name, key]));
    for (const name of PLAY_KEYS.filter((name) => named.has(name))) this.fields.set(name, new Field(named.get(name)));
    this.fields.get("voice").value = 1;
    this.selectedTake = createElement("p", { class: "selected-take" });
    this.failure = createElement("p", { class: "failure", id: "voices-failure" });
    this.others = createElement("p", { class: "facts" });
    this.list = createElement("ul", { class: "voices", "aria-label": "Voices that are playing" });
    const play = createElement("button", { type: "submit", class: "primary", id: "voice-play" }, "Play the take ", createElement("kbd", { "aria-hidden": "true", text: "B" }));
    const flow = createElement("button", { type: "button", id: "voice-flow", onclick: () => this.flow() }, "Flow with the prompt");
    element.append(
      createElement("p", { class: "hint", text: "Voices play on the daemon's audio device, in time with the tempo, for all clients." }),
      createElement(
        "form",
        { novalidate: true, onsubmit: (event) => (event.preventDefault(), this.play(this.selected())) },
        this.selectedTake,
        createElement("div", { class: "keys" }, ...[...this.fields.values()].map((field) => field.element)),
        createElement("div", { class: "row" }, play, flow),
      ),
      this.failure,
      this.list,
      this.others,
    );
  }

  /** Shows the take that would be played. */
  showSelected(take) {
    write(this.selectedTake, take ? `Selected take: ${take.prompt}` : "No take is selected");
  }

  get keys() {
    return Object.fromEntries([...this.fields].map(([name, field]) => [name, field.value]).filter(([, value]) => value !== undefined));
  }

  play(take) {
    if (!take) return this.fail("Select a take first, with the arrow keys in the history");
    return this.ask({ type: "play", ...this.keys, take: take.take_id });
  }

  flow() {
    const prompt = this.prompt();
    if (!prompt) return this.fail("Type a prompt first: a flow plays continuous sound from a prompt");
    const { loop, ...keys } = this.keys;
    return this.ask({ type: "flow", ...keys, prompt });
  }

  /** Sends a request; `fields` are those that a failure may name. */
  ask(request, fields = this.fields) {
    this.requestFields = fields;
    this.fail("");
    for (const field of fields.values()) field.fail("");
    if (!this.connection.send(request)) this.fail("timbred isn't connected: nothing was sent");
  }

  stopAll() {
    return this.connection.send({ type: "stop", voice: "*" });
  }

  fail(message) {
    write(this.failure, message);
    if (message) announceNow(message);
  }

  handle(event) {
    if (event.type !== "fail" || !["play", "stop", "set", "flow"].includes(event.id)) return;
    this.fail(`${event.code}: ${event.message}`);
    this.requestFields?.get(/^(\w+):/.exec(event.message)?.[1])?.fail(event.message);
  }

  handleNotification(event) {
    if (event.type === "playing" || event.type === "flowing") this.started(event);
    if (event.type === "ended") this.ended(event);
  }

  started(event) {
    const card = this.playing.get(event.voice) ?? this.add(event.voice);
    card.take = event.take;
    write(card.name, event.take);
    api.take(event.take).then(
      (take) => card.take === event.take && write(card.name, take.prompt),
      () => undefined, // a file that isn't a take is shown by its path
    );
  }

  ended(event) {
    const card = this.playing.get(event.voice);
    if (event.reason === "replaced" || !card || card.take !== event.take) return;
    this.playing.delete(event.voice);
    card.element.remove();
  }

  clearAll() {
    this.playing.clear();
    this.list.replaceChildren();
  }

  /** Shows the number of voices that started before this page was opened. */
  count(voices) {
    const unknown = voices - this.playing.size;
    write(this.others, unknown > 0 ? `${many(unknown, "voice")} more, started before this page was opened` : voices ? "" : "Nothing is playing.");
  }

  add(voice) {
    const name = createElement("span", { class: "prompt" });
    const fields = new Map(this.setKeys.filter((key) => SET_KEYS.includes(key.name)).map((key) => [key.name, new Field(key)]));
    for (const field of fields.values()) field.control.addEventListener("change", () => this.change(voice, field, fields));
    const stop = createElement("button", { type: "button", class: "small", "aria-label": `Stop voice ${voice}`, onclick: () => this.ask({ type: "stop", voice }) }, icon("stop"), " Stop");
    const element = createElement("li", { "data-voice": voice }, createElement("div", { class: "head" }, createElement("strong", { text: String(voice) }), name, stop), createElement("div", { class: "keys" }, ...[...fields.values()].map((field) => field.element)));
    const card = { element, name, take: "" };
    this.playing.set(voice, card);
    const after = [...this.playing.keys()].sort((one, other) => one - other).indexOf(voice);
    this.list.insertBefore(element, this.list.children[after] ?? null);
    return card;
  }

  change(voice, field, fields) {
    if (field.value !== undefined) this.ask({ type: "set", voice, [field.key.name]: field.value }, fields);
  }
}

// The daemon's voices, on its own sound device: what sounds on each, how loud and where; played, changed, ended.

import * as asking from "./asking.js";
import { Field } from "./fields.js";
import { icon, make, write } from "./elements.js";
import { sayNow } from "./saying.js";
import { many } from "./words.js";

const PLAYED_WITH = ["voice", "gain", "pan", "speed", "loop", "at", "fade", "out"];
const CHANGED_WITH = ["gain", "pan", "speed"];

export class Voices {
  /** `everybody` tells the voices of all clients; `connection` answers this page alone. */
  constructor(element, connection, everybody, { playKeys, setKeys, prompt, selected }) {
    this.connection = connection;
    this.setKeys = setKeys;
    this.prompt = prompt;
    this.selected = selected;
    this.sounding = new Map();
    this.fields = new Map();
    this.build(element, playKeys);
    connection.on("event", (event) => this.hear(event));
    everybody.on("event", (event) => this.hearAll(event)).on("open", () => this.forgetAll());
  }

  build(element, playKeys) {
    const named = new Map(playKeys.map((key) => [key.name, key]));
    for (const name of PLAYED_WITH.filter((one) => named.has(one))) this.fields.set(name, new Field(named.get(name)));
    this.fields.get("voice").value = 1;
    this.what = make("p", { class: "what" });
    this.failure = make("p", { class: "failure", id: "voices-failure" });
    this.others = make("p", { class: "facts" });
    this.list = make("ul", { class: "voices", "aria-label": "Voices that sound" });
    const play = make("button", { type: "submit", class: "primary", id: "voice-play" }, "Play the take ", make("kbd", { "aria-hidden": "true", text: "B" }));
    const flow = make("button", { type: "button", id: "voice-flow", onclick: () => this.flow() }, "Flow with the prompt");
    element.append(
      make("p", { class: "hint", text: "Voices sound on the daemon's own device, in time with the tempo, for all clients." }),
      make(
        "form",
        { novalidate: true, onsubmit: (event) => (event.preventDefault(), this.play(this.selected())) },
        this.what,
        make("div", { class: "keys" }, ...[...this.fields.values()].map((field) => field.element)),
        make("div", { class: "row" }, play, flow),
      ),
      this.failure,
      this.list,
      this.others,
    );
  }

  /** The take that would be played. */
  offer(take) {
    write(this.what, take ? `The take in the middle: ${take.prompt}` : "No take is chosen");
  }

  get keys() {
    return Object.fromEntries([...this.fields].map(([name, field]) => [name, field.value]).filter(([, value]) => value !== undefined));
  }

  play(take) {
    if (!take) return this.fail("Choose a take first: arrow keys in the history");
    return this.ask({ type: "play", ...this.keys, take: take.take_id });
  }

  flow() {
    const prompt = this.prompt();
    if (!prompt) return this.fail("Type a prompt first: a flow is an endless sound from words");
    const { loop, ...keys } = this.keys;
    return this.ask({ type: "flow", ...keys, prompt });
  }

  /** `fields` are those that a refusal may name. */
  ask(request, fields = this.fields) {
    this.asked = fields;
    this.fail("");
    for (const field of fields.values()) field.fail("");
    if (!this.connection.send(request)) this.fail("timbred isn't there: nothing was asked");
  }

  stopAll() {
    return this.connection.send({ type: "stop", voice: "*" });
  }

  fail(message) {
    write(this.failure, message);
    if (message) sayNow(message);
  }

  hear(event) {
    if (event.type !== "fail" || !["play", "stop", "set", "flow"].includes(event.id)) return;
    this.fail(`${event.code}: ${event.message}`);
    this.asked?.get(/^(\w+):/.exec(event.message)?.[1])?.fail(event.message);
  }

  hearAll(event) {
    if (event.type === "playing" || event.type === "flowing") this.sounds(event);
    if (event.type === "ended") this.ended(event);
  }

  sounds(event) {
    const card = this.sounding.get(event.voice) ?? this.add(event.voice);
    card.take = event.take;
    write(card.name, event.take);
    asking.take(event.take).then(
      (take) => card.take === event.take && write(card.name, take.prompt),
      () => undefined, // a file that is no take keeps its path as name
    );
  }

  ended(event) {
    const card = this.sounding.get(event.voice);
    if (event.reason === "replaced" || !card || card.take !== event.take) return;
    this.sounding.delete(event.voice);
    card.element.remove();
  }

  forgetAll() {
    this.sounding.clear();
    this.list.replaceChildren();
  }

  /** How many voices the daemon says are sounding: some may have begun before this page was there. */
  count(voices) {
    const unknown = voices - this.sounding.size;
    write(this.others, unknown > 0 ? `${many(unknown, "voice")} more, begun before this page came` : voices ? "" : "Nothing sounds.");
  }

  add(voice) {
    const name = make("span", { class: "prompt" });
    const fields = new Map(this.setKeys.filter((key) => CHANGED_WITH.includes(key.name)).map((key) => [key.name, new Field(key)]));
    for (const field of fields.values()) field.control.addEventListener("change", () => this.change(voice, field, fields));
    const stop = make("button", { type: "button", class: "small", "aria-label": `Stop voice ${voice}`, onclick: () => this.ask({ type: "stop", voice }) }, icon("stop"), " Stop");
    const element = make("li", { "data-voice": voice }, make("div", { class: "head" }, make("strong", { text: String(voice) }), name, stop), make("div", { class: "keys" }, ...[...fields.values()].map((field) => field.element)));
    const card = { element, name, take: "" };
    this.sounding.set(voice, card);
    const after = [...this.sounding.keys()].sort((one, other) => one - other).indexOf(voice);
    this.list.insertBefore(element, this.list.children[after] ?? null);
    return card;
  }

  change(voice, field, fields) {
    if (field.value !== undefined) this.ask({ type: "set", voice, [field.key.name]: field.value }, fields);
  }
}

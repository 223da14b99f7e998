// The form for a request: the prompt, the visible keys, and all other keys on demand; new, or from a take.

import { Field } from "./fields.js";
import { icon, createElement, set, write } from "./dom.js";
import { localStore } from "./storage.js";
import { announceNow } from "./live_region.js";
import { VISIBLE_KEYS, groupKeys } from "./schema.js";
import { Completion, WordList } from "./word_list.js";

const MAX_PROMPTS = 50;
const PARTS = ["start", "end", "low", "high"];
const MAX_SEED = 2147483647;

export class Composer {
  constructor(element, keys, requests, { defaultModel, selected }) {
    this.requests = requests;
    this.wordList = new WordList(requests.connection, { onKind: (kind) => this.renderKind(kind), onWord: (word) => this.addWord(word) });
    this.defaultModel = defaultModel;
    this.selected = selected;
    this.models = new Map();
    this.fields = new Map();
    this.from = null;
    this.locked = false;
    this.lastSeed = null;
    this.prompts = localStore.get("prompts", []);
    this.recalled = -1;
    this.build(element, keys);
  }

  build(element, keys) {
    const byName = new Map(keys.map((key) => [key.name, key]));
    this.prompt = createElement("textarea", {
      id: "prompt",
      rows: 1,
      maxlength: byName.get("prompt").longest,
      placeholder: "rain on a tin roof, warm analog pad, dry rim shot…",
      "aria-describedby": "prompt-failure prompt-help",
      "aria-keyshortcuts": "p",
      autocomplete: "off",
      enterkeyhint: "go",
    });
    this.completion = new Completion(this.prompt, { words: () => this.wordList.words, onInsert: () => this.textChanged() });
    this.failure = createElement("p", { id: "prompt-failure", class: "failure" });
    this.go = createElement("button", { type: "submit", class: "submit", id: "generate" }, "Generate ", createElement("kbd", { text: "⏎" }));
    this.origin = createElement("p", { class: "origin", hidden: true });
    const visibleFields = VISIBLE_KEYS.filter((name) => byName.has(name)).map((name) => this.field(byName.get(name)).element);
    this.buildSeed();
    this.buildModels();
    const form = createElement(
      "form",
      { novalidate: true, onsubmit: (event) => this.onSubmit(event) },
      this.origin,
      createElement("label", { for: "prompt", class: "visually-hidden", text: "Prompt: a description of the sound" }),
      createElement("div", { class: "prompt-row" }, this.prompt, this.go, this.completion.list),
      createElement("small", { id: "prompt-help", class: "visually-hidden", text: "Enter renders it; Arrow up recalls earlier prompts; Arrow down and Tab complete a word that the model knows" }),
      this.failure,
      createElement("div", { class: "keys visible-keys" }, ...visibleFields),
      createElement("div", { class: "disclosures" }, this.wordList.element, this.keysPanel(keys)),
    );
    this.prompt.addEventListener("keydown", (event) => this.onPromptKeydown(event));
    this.prompt.addEventListener("input", () => this.onPromptInput());
    element.append(form);
    this.fields.get("preview").value = true;
  }

  field(key) {
    const element = new Field(key, { changed: () => this.updateCount() });
    this.fields.set(key.name, element);
    return element;
  }

  keysPanel(keys) {
    this.number = createElement("span", { class: "count" });
    const groups = groupKeys(keys).map(([title, group]) =>
      createElement(
        "fieldset",
        {},
        createElement("legend", { text: title }),
        createElement("div", { class: "keys" }, ...group.map((key) => this.field(key).element)),
      ),
    );
    const reset = createElement("button", { type: "button", class: "small", onclick: () => this.reset() }, "Reset all keys");
    return createElement("details", { class: "disclosure", id: "all-keys" }, createElement("summary", {}, "All keys ", this.number), ...groups, reset);
  }

  addWord(word) {
    this.prompt.value = `${this.prompt.value.trim()} ${word}`.trim();
    this.textChanged();
  }

  /** Renders a kind of sound with the keys as they are, and plays it. */
  renderKind(kind) {
    this.forgetOrigin();
    this.prompt.value = kind;
    this.textChanged();
    this.prompt.form.requestSubmit();
    if (this.last?.title === kind) this.last.listen = true;
  }

  buildSeed() {
    const field = this.fields.get("seed");
    this.lockButton = createElement(
      "button",
      { type: "button", class: "lock", id: "seed-lock", "aria-pressed": "false", "aria-keyshortcuts": "l", onclick: () => this.lock(!this.locked) },
      icon("open"),
    );
    set(this.lockButton, "aria-label", "Lock the seed");
    set(this.lockButton, "title", "Lock the seed: use the same one again (L)");
    field.control.after(this.lockButton);
    field.element.classList.add("with-button");
  }

  /** Builds the selection of a model from those that the daemon lists. */
  buildModels() {
    const field = this.fields.get("model");
    const choice = createElement("select", { id: field.control.id, name: "model", "aria-describedby": field.control.getAttribute("aria-describedby") });
    choice.append(createElement("option", { value: "", text: "the default" }));
    choice.addEventListener("change", () => this.applyModel());
    field.control.replaceWith(choice);
    field.control = choice;
  }

  /** Stores a model's description from a `model` event. */
  addModel(model) {
    const { control } = this.fields.get("model");
    if (!this.models.has(model.name)) control.append(createElement("option", { value: model.name }));
    this.models.set(model.name, model);
    const option = [...control.options].find((option) => option.value === model.name);
    write(option, model.state === "missing" ? `${model.name} (not installed)` : model.name);
    this.applyModel();
  }

  /** Updates the fields to the limits of the selected model. */
  applyModel() {
    const { control } = this.fields.get("model");
    write(control.options[0], `${this.defaultModel() || "the default"}`);
    const model = this.models.get(control.value || this.defaultModel());
    control.title = model ? `${model.title}. ${model.licence}` : "";
    this.wordList.show(model);
    const recipe = this.from?.recipe?.parameters ?? {};
    for (const field of this.fields.values()) if (field.key.name !== "model") field.limit(model ?? null, textOf(recipe[field.key.name]));
    this.showLastSeed();
    this.updateCount();
  }

  updateCount() {
    const changed = [...this.fields.values()].filter((field) => field.value !== undefined && !VISIBLE_KEYS.includes(field.key.name));
    write(this.number, changed.length ? `${changed.length} set: ${changed.map((field) => field.key.name).join(", ")}` : "");
  }

  reset() {
    for (const field of this.fields.values()) {
      field.value = undefined;
      field.fail("");
    }
    this.fields.get("preview").value = true;
    this.lock(false);
    this.updateCount();
  }

  /** Locks or unlocks the seed: locked, each request uses that of the selected or the last take. */
  lock(on) {
    const field = this.fields.get("seed");
    this.locked = on;
    if (on && field.value === undefined) field.value = this.from?.seed ?? this.selected()?.seed ?? this.lastSeed ?? randomSeed();
    if (!on) field.value = undefined;
    set(this.lockButton, "aria-pressed", String(on));
    this.lockButton.replaceChildren(icon(on ? "lock" : "open"));
  }

  /** Stores the seed of a new take. */
  storeSeed(take) {
    this.lastSeed = take.seed;
    this.showLastSeed();
  }

  showLastSeed() {
    set(this.fields.get("seed").control, "placeholder", this.lastSeed === null ? "random" : `last ${this.lastSeed}`);
  }

  focus() {
    this.prompt.focus();
    this.prompt.select();
  }

  // ---- from a take

  /** Starts the next request from this take's recipe; only changes are sent. */
  startFrom(take) {
    this.startFresh();
    this.from = take;
    this.prompt.value = take.prompt;
    this.origin.hidden = false;
    this.origin.replaceChildren(
      "Varying ",
      createElement("strong", { text: take.prompt }),
      ` (${take.model}, seed ${take.seed}): change the prompt or keys, then press Enter. `,
      createElement("button", { type: "button", class: "small", onclick: () => this.startFresh() }, icon("cross"), " New sound"),
    );
    if (this.locked) this.fields.get("seed").value = take.seed;
    this.applyModel();
    this.fitHeight();
    this.focus();
  }

  /** Starts the next request from this take's sound; `part` (start, end, low, high) is regenerated. */
  repaint(take, part = {}) {
    this.startFresh();
    for (const name of PARTS) this.fields.get(name).value = part[name];
    this.fields.get("init").value = take.take_id;
    this.origin.hidden = false;
    this.origin.replaceChildren(
      "From the sound of ",
      createElement("strong", { text: take.prompt }),
      `${describePart(part)}: describe the new sound, then press Enter. `,
      createElement("button", { type: "button", class: "small", onclick: () => this.startFresh() }, icon("cross"), " New sound"),
    );
    if (!this.prompt.value.trim()) this.prompt.value = take.prompt;
    this.updateCount();
    this.focus();
  }

  startFresh() {
    this.forgetOrigin();
    this.focus();
  }

  forgetOrigin() {
    this.from = null;
    this.origin.hidden = true;
    for (const name of ["init", ...PARTS]) this.fields.get(name).value = undefined;
    this.applyModel();
  }

  /** Varies a take: its recipe with another seed. With the seed locked something else must be changed first. */
  vary(take) {
    if (this.locked) {
      this.startFrom(take);
      announceNow("The seed is locked: change the prompt or a key, then press Enter");
      return;
    }
    const request = { type: "vary", take: take.take_id, seed: randomSeed(), preview: this.fields.get("preview").value };
    const count = this.fields.get("takes").value;
    this.sendRequest(count === undefined ? request : { ...request, takes: count }, take.prompt);
  }

  // ---- sending

  onSubmit(event) {
    event.preventDefault();
    const prompt = this.prompt.value.replaceAll(/\s+/g, " ").trim();
    if (!prompt) return this.fail("Type a description of a sound, for example: rain on tin");
    const keys = Object.fromEntries([...this.fields].map(([name, field]) => [name, field.value]).filter(([, value]) => value !== undefined));
    this.storePrompt(prompt);
    if (!this.from) return this.sendRequest({ type: "generate", prompt, ...keys }, prompt);
    const changed = prompt === this.from.prompt ? keys : { prompt, ...keys };
    const seed = this.locked || keys.seed !== undefined ? {} : { seed: randomSeed() };
    return this.sendRequest({ type: "vary", take: this.from.take_id, ...changed, ...seed }, prompt);
  }

  sendRequest(request, title) {
    this.fail("");
    for (const field of this.fields.values()) field.fail("");
    try {
      this.last = this.requests.ask(request, title);
    } catch (error) {
      this.fail(error.message);
    }
  }

  fail(message) {
    write(this.failure, message);
    set(this.prompt, "aria-invalid", message ? "true" : null);
    if (message) announceNow(message);
  }

  /** Shows a failure that names a key at that key too. */
  showFailure(job) {
    const named = /^(\w+):/.exec(job.failure.message)?.[1];
    const field = this.fields.get(named);
    if (job !== this.last || job.failure.code !== "bad-request" || !field) return;
    field.fail(job.failure.message);
    const disclosure = field.element.closest("details");
    if (disclosure) disclosure.open = true;
    field.control.focus();
  }

  // ---- the prompt

  onPromptKeydown(event) {
    if (this.completion.press(event)) return;
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.prompt.form.requestSubmit();
    } else if (event.key === "ArrowUp" && this.prompt.selectionEnd === 0) this.recallPrompt(1, event);
    else if (event.key === "ArrowUp" && this.recalled >= 0) this.recallPrompt(1, event);
    else if (event.key === "ArrowDown" && this.recalled >= 0) this.recallPrompt(-1, event);
  }

  recallPrompt(offset, event) {
    const next = this.recalled + offset;
    if (next >= this.prompts.length) return;
    event.preventDefault();
    this.recalled = Math.max(-1, next);
    this.prompt.value = this.recalled < 0 ? "" : this.prompts[this.recalled];
    this.fitHeight();
  }

  storePrompt(prompt) {
    this.completion.close();
    this.prompts = [prompt, ...this.prompts.filter((other) => other !== prompt)].slice(0, MAX_PROMPTS);
    this.recalled = -1;
    localStore.set("prompts", this.prompts);
  }

  onPromptInput() {
    this.textChanged();
    this.completion.update();
  }

  textChanged() {
    this.recalled = -1;
    this.fail("");
    this.fitHeight();
  }

  fitHeight() {
    this.prompt.style.height = "auto";
    this.prompt.style.height = `${Math.min(this.prompt.scrollHeight + 2, 240)}px`;
  }
}

const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] & MAX_SEED;

function describePart({ start, end, low, high }) {
  const when = start === undefined && end === undefined ? "" : `, ${start ?? 0} s to ${end === undefined ? "its end" : `${end} s`}`;
  const where = low === undefined && high === undefined ? "" : `, ${low ?? 0} Hz to ${high === undefined ? "the top" : `${high} Hz`}`;
  return when + where;
}

const textOf = (value) => (value === undefined || value === null ? "" : String(value));

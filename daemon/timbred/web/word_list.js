// The words that a model knows, by group, and the completion of the prompt with them.

import { createElement, set, uniqueId, write } from "./dom.js";

const MAX_SUGGESTIONS = 6;
const MAX_FRAGMENT_WORDS = 3;
const MIN_FRAGMENT_LETTERS = 2;

/** Lists the words of the selected model; they are requested once for each model. */
export class WordList {
  /** `onKind` is called with a kind of sound that was clicked, `onWord` with a word that describes one. */
  constructor(connection, { onKind, onWord }) {
    this.connection = connection;
    this.onKind = onKind;
    this.onWord = onWord;
    this.groups = new Map();
    this.arriving = new Map();
    this.model = null;
    this.title = createElement("summary");
    this.list = createElement("div", { class: "word-groups" });
    this.element = createElement("details", { class: "disclosure", hidden: true, id: "known-words" }, this.title, this.list);
    connection.on("event", (event) => this.handle(event));
  }

  /** All words, kinds of sounds first. */
  get words() {
    const groups = this.groups.get(this.model) ?? [];
    return [...new Set([...groups].sort((a, b) => b.kinds - a.kinds).flatMap((group) => group.words))];
  }

  /** Shows the words of a model; null hides the list. */
  show(model) {
    const name = model?.knows ? model.name : null;
    if (name === this.model) return;
    this.model = name;
    if (name && !this.groups.has(name)) this.connection.send({ type: "words", model: name });
    this.draw();
  }

  handle(event) {
    if (event.type === "known") {
      const groups = this.arriving.get(event.model) ?? [];
      const last = groups.at(-1);
      const words = event.words.split(", ");
      if (last?.name === event.group) last.words.push(...words);
      else groups.push({ name: event.group, kinds: Boolean(event.kinds), words });
      this.arriving.set(event.model, groups);
    }
    if (event.type === "done" && event.id === "words") {
      for (const [model, groups] of this.arriving) this.groups.set(model, groups);
      this.arriving.clear();
      this.draw();
    }
  }

  draw() {
    const groups = this.groups.get(this.model) ?? [];
    this.element.hidden = !groups.length;
    write(this.title, `Words that ${this.model} knows`);
    this.list.replaceChildren(...groups.map((group) => this.drawGroup(group)));
  }

  drawGroup({ name, kinds, words }) {
    const heading = createElement("h3", { id: uniqueId("words"), text: name });
    const press = kinds ? this.onKind : this.onWord;
    const title = kinds ? "Render and play it" : "Add it to the prompt";
    const buttons = words.map((word) => createElement("button", { type: "button", class: "small", title, onclick: () => press(word) }, word));
    return createElement("div", { class: "word-group", role: "group", "aria-labelledby": heading.id }, heading, createElement("div", { class: "words" }, ...buttons));
  }
}

/** Suggests words at the end of a text field's text: Tab or Enter inserts one, the arrow keys choose, Escape closes. */
export class Completion {
  /** `words` returns the known words; `onInsert` is called after a change of the field. */
  constructor(field, { words, onInsert }) {
    this.field = field;
    this.words = words;
    this.onInsert = onInsert;
    this.suggestions = [];
    this.chosen = -1;
    this.list = createElement("ul", { class: "completions", id: "completions", role: "listbox", "aria-label": "Words that the model knows", hidden: true });
    for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-controls": "completions", "aria-expanded": "false" })) set(field, name, value);
    field.addEventListener("blur", () => this.close());
  }

  get open() {
    return this.suggestions.length > 0;
  }

  /** Updates the suggestions to the text before the cursor. */
  update() {
    const { selectionStart, selectionEnd, value } = this.field;
    const isAtEnd = selectionStart === selectionEnd && !/^\S/.test(value.slice(selectionEnd));
    this.show(isAtEnd ? suggest(value.slice(0, selectionEnd), this.words()) : []);
  }

  close() {
    this.show([]);
  }

  show(suggestions) {
    this.suggestions = suggestions;
    this.list.hidden = !this.open;
    set(this.field, "aria-expanded", String(this.open));
    this.list.replaceChildren(
      ...suggestions.map((suggestion, index) => {
        const option = createElement("li", { id: `completion-${index}`, role: "option", "aria-selected": "false", text: suggestion.word });
        option.addEventListener("pointerdown", (event) => (event.preventDefault(), this.insert(suggestion)));
        return option;
      }),
    );
    this.choose(-1);
  }

  choose(index) {
    this.chosen = index;
    [...this.list.children].forEach((option, place) => set(option, "aria-selected", String(place === index)));
    set(this.field, "aria-activedescendant", index < 0 ? null : `completion-${index}`);
  }

  /** Handles a key while suggestions are shown; returns whether it was one of theirs. */
  press(event) {
    if (!this.open || event.isComposing || event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return false;
    const count = this.suggestions.length;
    if (event.key === "ArrowDown") this.choose((this.chosen + 1) % count);
    else if (event.key === "ArrowUp" && this.chosen >= 0) this.choose(this.chosen - 1);
    else if (event.key === "Escape") this.close();
    else if (event.key === "Tab") this.insert(this.suggestions[Math.max(0, this.chosen)]);
    else if (event.key === "Enter" && this.chosen >= 0) this.insert(this.suggestions[this.chosen]);
    else return false;
    event.preventDefault();
    event.stopPropagation();
    return true;
  }

  insert({ word, fragment }) {
    const { field } = this;
    const end = field.selectionEnd;
    field.setRangeText(word, end - fragment.length, end, "end");
    this.close();
    this.onInsert();
  }
}

/** Returns the words that complete the end of a text, each with the part of the text that it replaces; long parts first. */
export function suggest(text, words) {
  const found = new Map();
  for (let count = MAX_FRAGMENT_WORDS; count > 0; count -= 1) {
    const fragment = new RegExp(`(?:^|\\s)((?:\\S+\\s+){${count - 1}}\\S*)$`).exec(text)?.[1] ?? "";
    const start = fragment.toLowerCase();
    if (start.trim().length < MIN_FRAGMENT_LETTERS) continue;
    for (const word of words) if (word !== start && word.startsWith(start) && !found.has(word)) found.set(word, fragment);
  }
  return [...found].slice(0, MAX_SUGGESTIONS).map(([word, fragment]) => ({ word, fragment }));
}

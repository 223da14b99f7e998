// The keys of the keyboard: one table, from which they work, are shown and are documented.

import { icon, make } from "./elements.js";
import { always } from "./memory.js";

/** [key as shown, what it does, name of the deed]; `Ctrl` is the Command key on a Mac. */
export const SHORTCUTS = [
  ["P", "go to the prompt", "prompt"],
  ["Enter", "in the prompt: make the sound", null],
  ["Arrow up", "in the empty prompt: earlier prompts", null],
  ["Space", "listen to the take in the middle, or pause", "listen"],
  ["O", "listen around and around", "around"],
  ["V", "more like this: the take's recipe with another seed", "vary"],
  ["E", "change and vary: bring the take's recipe into the prompt", "edit"],
  ["R", "repaint: start from the take's sound; Shift and drag on its picture marks the part", "repaint"],
  ["L", "lock or unlock the seed", "lock"],
  ["S", "star the take, or take the star away", "star"],
  ["A", "find takes like it", "alike"],
  ["B", "play it on a voice of the daemon", "voice"],
  ["C", "copy the path of its file", "copy"],
  ["J", "next take in the history", "next"],
  ["K", "the take before it", "previous"],
  ["/", "search the history", "search"],
  ["1 2 3 4", "history, models, voices, activity", "tab"],
  ["T", "go to the tempo", "tempo"],
  ["X", "cancel the newest request", "cancel"],
  ["Shift X", "cancel all requests of this page", "cancelAll"],
  ["Ctrl .", "stop all: every voice, every request of this page, the listening; works while typing too", "stopAll"],
  ["Esc", "leave a field; close this table", null],
  ["?", "this table", "help"],
];

const KEYS = new Map(
  SHORTCUTS.filter(([, , deed]) => deed).flatMap(([shown, , deed]) => {
    if (shown === "1 2 3 4") return shown.split(" ").map((key) => [key, deed]);
    return [[shown === "Space" ? " " : shown.toLowerCase(), deed]];
  }),
);

const WRITABLE = "input:not([type=checkbox]), textarea, select, [contenteditable]";
const PRESSED_BY_SPACE = "button, a, summary, [role=tab], input[type=checkbox]";

export class Shortcuts {
  /** `deeds`: functions by name; each gets the key. */
  constructor(dialog, deeds) {
    this.dialog = dialog;
    this.deeds = deeds;
    this.single = always.get("single-keys", true);
    this.build();
    document.addEventListener("keydown", (event) => this.pressed(event));
  }

  build() {
    const rows = SHORTCUTS.map(([key, words]) => make("tr", {}, make("th", { scope: "row" }, make("kbd", { text: key })), make("td", { text: words })));
    const single = make("input", { type: "checkbox", id: "single-keys", onchange: ({ target }) => this.setSingle(target.checked) });
    single.checked = this.single;
    this.dialog.append(
      make("form", { method: "dialog", class: "head" }, make("h2", { id: "help-title", text: "Keys" }), make("button", { class: "icon-only", "aria-label": "Close" }, icon("cross"))),
      make("table", { id: "shortcuts" }, make("tbody", {}, ...rows)),
      make("label", { class: "check" }, single, " Single letters work (Ctrl . and Space always do)"),
    );
  }

  setSingle(on) {
    this.single = on;
    always.set("single-keys", on);
  }

  open() {
    if (!this.dialog.open) this.dialog.showModal();
  }

  pressed(event) {
    if (event.key === "." && (event.ctrlKey || event.metaKey)) return this.do("stopAll", event);
    if (event.key === "Escape") return this.leave(event);
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || this.dialog.open) return undefined;
    if (event.target.matches(WRITABLE)) return undefined;
    if (event.key === " " && event.target.matches(PRESSED_BY_SPACE)) return undefined;
    const name = event.shiftKey && event.key.toLowerCase() === "x" ? "shift x" : event.key.toLowerCase();
    const deed = KEYS.get(name);
    if (!deed || (!this.single && name !== " ") || (event.repeat && !["next", "previous"].includes(deed))) return undefined;
    return this.do(deed, event);
  }

  do(deed, event) {
    event.preventDefault();
    this.deeds[deed](event.key);
  }

  leave(event) {
    if (this.dialog.open || !event.target.matches(WRITABLE)) return;
    event.target.blur();
  }
}

// Keyboard shortcuts: one table for their actions, the help dialog and the documentation.

import { icon, createElement } from "./dom.js";
import { localStore } from "./storage.js";

/** [key as shown, its effect, name of the action]; `Ctrl` is the Command key on a Mac. */
export const SHORTCUTS = [
  ["P", "go to the prompt", "prompt"],
  ["Enter", "in the prompt: render the sound", null],
  ["Arrow up", "in the empty prompt: earlier prompts", null],
  ["Space", "play or pause the selected take", "playPause"],
  ["O", "loop playback", "loop"],
  ["V", "more like this: the take's recipe with another seed", "vary"],
  ["E", "edit and vary: load the take's recipe into the prompt", "edit"],
  ["R", "repaint: start from the take's sound; Shift and drag on its picture selects the part", "repaint"],
  ["L", "lock or unlock the seed", "lock"],
  ["S", "star the take, or remove its star", "star"],
  ["A", "find similar takes", "findSimilar"],
  ["B", "play it on a voice of the daemon", "voice"],
  ["C", "copy the path of its file", "copy"],
  ["J", "next take in the history", "next"],
  ["K", "previous take in the history", "previous"],
  ["/", "search the history", "search"],
  ["1 2 3 4", "history, models, voices, activity", "tab"],
  ["T", "go to the tempo", "tempo"],
  ["X", "cancel the newest request", "cancel"],
  ["Shift X", "cancel all requests of this page", "cancelAll"],
  ["Ctrl .", "stop all: every voice, every request of this page, local playback; also while typing", "stopAll"],
  ["Esc", "leave a field; close this table", null],
  ["?", "this table", "help"],
];

const KEYS = new Map(
  SHORTCUTS.filter(([, , action]) => action).flatMap(([shown, , action]) => {
    if (shown === "1 2 3 4") return shown.split(" ").map((key) => [key, action]);
    return [[shown === "Space" ? " " : shown.toLowerCase(), action]];
  }),
);

const TEXT_INPUTS = "input:not([type=checkbox]), textarea, select, [contenteditable]";
const PRESSED_BY_SPACE = "button, a, summary, [role=tab], input[type=checkbox]";

export class Shortcuts {
  /** `actions`: functions by name; each is called with the key. */
  constructor(dialog, actions) {
    this.dialog = dialog;
    this.actions = actions;
    this.single = localStore.get("single-keys", true);
    this.build();
    document.addEventListener("keydown", (event) => this.onKeydown(event));
  }

  build() {
    const rows = SHORTCUTS.map(([key, words]) => createElement("tr", {}, createElement("th", { scope: "row" }, createElement("kbd", { text: key })), createElement("td", { text: words })));
    const single = createElement("input", { type: "checkbox", id: "single-keys", onchange: ({ target }) => this.setSingle(target.checked) });
    single.checked = this.single;
    this.dialog.append(
      createElement("form", { method: "dialog", class: "head" }, createElement("h2", { id: "help-title", text: "Keys" }), createElement("button", { class: "icon-only", "aria-label": "Close" }, icon("cross"))),
      createElement("table", { id: "shortcuts" }, createElement("tbody", {}, ...rows)),
      createElement("label", { class: "check" }, single, " Single letters work (Ctrl . and Space always do)"),
    );
  }

  setSingle(on) {
    this.single = on;
    localStore.set("single-keys", on);
  }

  open() {
    if (!this.dialog.open) this.dialog.showModal();
  }

  onKeydown(event) {
    if (event.key === "." && (event.ctrlKey || event.metaKey)) return this.do("stopAll", event);
    if (event.key === "Escape") return this.leave(event);
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || this.dialog.open) return undefined;
    if (event.target.matches(TEXT_INPUTS)) return undefined;
    if (event.key === " " && event.target.matches(PRESSED_BY_SPACE)) return undefined;
    const name = event.shiftKey && event.key.toLowerCase() === "x" ? "shift x" : event.key.toLowerCase();
    const action = KEYS.get(name);
    if (!action || (!this.single && name !== " ") || (event.repeat && !["next", "previous"].includes(action))) return undefined;
    return this.do(action, event);
  }

  do(action, event) {
    event.preventDefault();
    this.actions[action](event.key);
  }

  leave(event) {
    if (this.dialog.open || !event.target.matches(TEXT_INPUTS)) return;
    event.target.blur();
  }
}

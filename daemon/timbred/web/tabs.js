// Tabs: one panel is visible; Tab reaches its tab, arrow keys the others.

import { find, createElement, set } from "./dom.js";

export class Tabs {
  /** `names`: [id of the panel, label] for each; its shortcut is its number. */
  constructor(element, names) {
    this.tabs = names.map(([id, label], index) =>
      createElement(
        "button",
        { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": id, "aria-keyshortcuts": index + 1, "data-panel": id, onclick: () => this.show(id) },
        label,
      ),
    );
    element.append(...this.tabs);
    element.addEventListener("keydown", (event) => this.onKeydown(event));
    this.show(names[0][0]);
  }

  get shown() {
    return this.tabs.find((tab) => tab.getAttribute("aria-selected") === "true").dataset.panel;
  }

  show(id, { focus = false } = {}) {
    for (const tab of this.tabs) {
      const on = tab.dataset.panel === id;
      set(tab, "aria-selected", String(on));
      set(tab, "tabindex", on ? 0 : -1);
      find(tab.dataset.panel).hidden = !on;
      if (on && focus) tab.focus();
    }
  }

  onKeydown(event) {
    const direction = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    const current = this.tabs.findIndex((tab) => tab.dataset.panel === this.shown);
    this.show(this.tabs[(current + direction + this.tabs.length) % this.tabs.length].dataset.panel, { focus: true });
  }
}

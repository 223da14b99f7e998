// Announcements for screen readers.

import { find } from "./dom.js";

export function announce(text) {
  find("said").textContent = text;
}

export function announceNow(text) {
  find("said-now").textContent = text;
}

// Announcements for screen readers.

import { find } from "./dom.js";

export function announce(text) {
  find("announcements").textContent = text;
}

export function announceNow(text) {
  find("urgent-announcements").textContent = text;
}

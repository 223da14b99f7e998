// What screen readers are told, besides what stands where the eye looks.

import { find } from "./elements.js";

export function say(text) {
  find("said").textContent = text;
}

export function sayNow(text) {
  find("said-now").textContent = text;
}

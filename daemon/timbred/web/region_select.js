// Selection of a part of a sound with the mouse on its picture: a range of time and frequency.

import { createElement } from "./dom.js";
import { hertz } from "./fft.js";

const MIN_REGION_PX = 6;

/**
 * Converts a rectangle on the picture to a part of the sound. Edges are fractions of the picture, 0 to 1, from the left and
 * the top. An edge at the picture's border is left open; a rectangle that extends below the spectrogram means all frequencies.
 */
export function partOf({ left, right, top, bottom }, duration, rate) {
  const part = {};
  if (left > 0) part.start = Number((left * duration).toFixed(2));
  if (right < 1) part.end = Number((right * duration).toFixed(2));
  if (bottom < 1) part.low = Math.round(hertz(1 - bottom, rate));
  if (top > 0 && bottom <= 1) part.high = Math.round(hertz(1 - top, rate));
  return part;
}

/** Handles rectangles that are drawn with Shift held; `marked` is called with their edges. */
export class RegionSelect {
  constructor(scope, upper, marked) {
    this.scope = scope;
    this.upper = upper;
    this.marked = marked;
    this.frame = createElement("div", { class: "region", hidden: true });
    scope.append(this.frame);
    scope.addEventListener("pointermove", (event) => this.from && this.drawn(event));
    scope.addEventListener("pointerup", (event) => this.from && this.ended(event));
    scope.addEventListener("pointercancel", () => this.forget());
  }

  begin(event) {
    event.preventDefault();
    this.scope.setPointerCapture(event.pointerId);
    this.from = [event.clientX, event.clientY];
    this.drawn(event);
  }

  corners(event) {
    const box = this.scope.getBoundingClientRect();
    const inside = (value, most) => Math.min(most, Math.max(0, value));
    const [x, y] = [event.clientX, event.clientY].map((value, way) => [value, this.from[way]].sort((one, other) => one - other));
    return {
      left: inside(x[0] - box.left, box.width),
      right: inside(x[1] - box.left, box.width),
      top: inside(y[0] - box.top, box.height),
      bottom: inside(y[1] - box.top, box.height),
    };
  }

  drawn(event) {
    const { left, right, top, bottom } = this.corners(event);
    this.frame.hidden = false;
    Object.assign(this.frame.style, { left: `${left}px`, width: `${right - left}px`, top: `${top}px`, height: `${bottom - top}px` });
  }

  ended(event) {
    const { left, right, top, bottom } = this.corners(event);
    this.from = null;
    if (right - left < MIN_REGION_PX || bottom - top < MIN_REGION_PX) return this.forget();
    const { clientWidth: width } = this.scope;
    const { clientHeight: tall } = this.upper;
    this.places = { left: left / width, right: right >= width - 1 ? 1 : right / width, top: top / tall, bottom: bottom / tall };
    return this.marked(this.places);
  }

  /** Moves the frame with its part of the sound after the picture was resized. */
  follow() {
    if (!this.places) return;
    const { left, right, top, bottom } = this.places;
    const tall = this.upper.clientHeight;
    const down = Math.min(bottom * tall, this.scope.clientHeight);
    Object.assign(this.frame.style, { left: `${100 * left}%`, width: `${100 * (right - left)}%`, top: `${top * tall}px`, height: `${down - top * tall}px` });
  }

  forget() {
    this.from = null;
    this.places = null;
    this.frame.hidden = true;
  }
}

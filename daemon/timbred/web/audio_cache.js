// A cache of fetched and decoded sounds, so that browsing takes needs no second fetch.

import { bytes } from "./api.js";
import { decode } from "./audio_decode.js";

const MAX_SOUNDS = 12;

export class AudioCache {
  constructor() {
    this.kept = new Map();
  }

  /** Returns the sound at an address; repeated calls fetch it once. */
  get(url, rate) {
    const known = this.kept.get(url);
    this.kept.delete(url);
    const sound = known ?? bytes(url).then((found) => decode(found, rate));
    this.kept.set(url, sound);
    sound.catch(() => this.kept.delete(url));
    if (this.kept.size > MAX_SOUNDS) this.kept.delete(this.kept.keys().next().value);
    return sound;
  }
}

/** Returns the address of a preview, which is a file in the takes folder but not a take. */
export function addressInside(folder, path) {
  if (!path.startsWith(folder)) throw new Error(`${path} isn't inside ${folder}`);
  const parts = path.slice(folder.length).split(/[\\/]/).filter(Boolean);
  return `/takes/${parts.map(encodeURIComponent).join("/")}`;
}

// A cache of fetched and decoded sounds, so that browsing takes needs no second fetch.

import { bytes } from "./api.js";
import { decode } from "./audio_decode.js";

const MAX_SOUNDS = 12;

export class AudioCache {
  constructor() {
    this.sounds = new Map();
  }

  /** Returns the sound at an address; repeated calls fetch it once. */
  get(url, rate) {
    const cached = this.sounds.get(url);
    this.sounds.delete(url);
    const sound = cached ?? bytes(url).then((content) => decode(content, rate));
    this.sounds.set(url, sound);
    sound.catch(() => this.sounds.delete(url));
    if (this.sounds.size > MAX_SOUNDS) this.sounds.delete(this.sounds.keys().next().value);
    return sound;
  }
}

/** Returns the address of a preview, which is a file in the takes folder but not a take. */
export function addressInside(folder, path) {
  if (!path.startsWith(folder)) throw new Error(`${path} isn't inside ${folder}`);
  const parts = path.slice(folder.length).split(/[\\/]/).filter(Boolean);
  return `/takes/${parts.map(encodeURIComponent).join("/")}`;
}

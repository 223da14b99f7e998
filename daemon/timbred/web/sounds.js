// Sounds that were fetched and decoded, the latest kept so that flipping through takes costs nothing.

import { bytes } from "./asking.js";
import { decode } from "./sound.js";

const KEPT = 12;

export class Sounds {
  constructor() {
    this.kept = new Map();
  }

  /** The sound behind an address; asked for twice it is fetched once. */
  get(url, rate) {
    const known = this.kept.get(url);
    this.kept.delete(url);
    const sound = known ?? bytes(url).then((found) => decode(found, rate));
    this.kept.set(url, sound);
    sound.catch(() => this.kept.delete(url));
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
    return sound;
  }
}

/** The address of an early rendering, which is a file of the takes folder and no take. */
export function addressInside(folder, path) {
  if (!path.startsWith(folder)) throw new Error(`${path} isn't inside ${folder}`);
  const parts = path.slice(folder.length).split(/[\\/]/).filter(Boolean);
  return `/takes/${parts.map(encodeURIComponent).join("/")}`;
}

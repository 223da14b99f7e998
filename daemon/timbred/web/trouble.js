// Why no engine or no player can be started, as the daemon's status tells it: a line at the top until one is up.

import { write } from "./elements.js";

const STAYS = {
  engine: "no sound can be made",
  player: "files are made, but nothing can be played",
};

export class Trouble {
  constructor(element, connection) {
    this.element = element;
    connection.on("event", (event) => event.type === "status.reply" && this.show(event));
  }

  show(status) {
    write(this.element, sentences(status).join(" "));
  }
}

/** One sentence for each process that can't be started: what that means, the reason with its remedy, and what is done. */
export function sentences(status) {
  return Object.keys(STAYS)
    .filter((part) => status[`${part}_trouble`])
    .map((part) => `The ${part} can't be started, so ${STAYS[part]}: ${status[`${part}_trouble`]}. timbred tries again by itself.`);
}

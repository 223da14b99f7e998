// Alerts about an engine or a player that can't be started: a line at the top until one runs.

import { write } from "./dom.js";

const CONSEQUENCES = {
  engine: "no sound can be rendered",
  player: "files are written, but nothing can be played",
};

export class ProcessAlerts {
  constructor(element, connection) {
    this.element = element;
    connection.on("event", (event) => event.type === "status.reply" && this.show(event));
  }

  show(status) {
    write(this.element, sentences(status).join(" "));
  }
}

/** Returns a sentence for each process that can't be started: the consequence, and the reason with its remedy. */
export function sentences(status) {
  return Object.keys(CONSEQUENCES)
    .filter((part) => status[`${part}_trouble`])
    .map((part) => `The ${part} can't be started, so ${CONSEQUENCES[part]}: ${status[`${part}_trouble`]}. timbred retries automatically.`);
}

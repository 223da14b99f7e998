// Cards of the active and the failed requests.

import { icon, createElement, set, write } from "./dom.js";
import { isLive } from "./requests.js";
import { announceNow, announce } from "./live_region.js";
import { many, seconds } from "./format.js";

const CANCELLED_CARD_MS = 1500;

export class JobCards {
  constructor(element, requests, { onFailure }) {
    this.element = element;
    this.requests = requests;
    this.onFailure = onFailure;
    this.cards = new Map();
    requests.on("change", (job) => this.show(job)).on("end", (job) => this.ended(job));
  }

  show(job) {
    const hasCard = this.requests.jobs.has(job.id) && job.state !== "done";
    if (!hasCard) return this.remove(job);
    const card = this.cards.get(job.id) ?? this.add(job);
    card.element.dataset.state = job.state;
    write(card.state, stateOf(job));
    card.bar.style.transform = `scaleX(${job.fraction})`;
    set(card.progress, "aria-valuenow", Math.round(job.fraction * 100));
    set(card.progress, "aria-valuetext", stateOf(job));
    card.cancel.hidden = !isLive(job);
    card.again.hidden = isLive(job);
    card.dismiss.hidden = isLive(job);
    write(card.failure, job.failure ? `${job.failure.code}: ${job.failure.message}` : "");
    return undefined;
  }

  add(job) {
    const bar = createElement("div", { class: "fill" });
    const progress = createElement(
      "div",
      { class: "progress", role: "progressbar", "aria-label": `${job.title}: progress`, "aria-valuemin": 0, "aria-valuemax": 100 },
      bar,
    );
    const state = createElement("span", { class: "state" });
    const button = (label, name, press) => createElement("button", { type: "button", class: "small", "aria-label": `${label}: ${job.title}`, onclick: press }, name ? icon(name) : label, name ? ` ${label}` : "");
    const cancel = button("Cancel", "cross", () => this.requests.cancel(job));
    const again = button("Again", "loop", () => this.again(job));
    const dismiss = button("Dismiss", "cross", () => this.requests.forget(job));
    const failure = createElement("p", { class: "failure" });
    const element = createElement(
      "article",
      { class: "card", "data-request": job.id },
      createElement("div", { class: "head" }, createElement("strong", { text: job.title }), state, cancel, again, dismiss),
      progress,
      failure,
    );
    const card = { element, bar, progress, state, cancel, again, dismiss, failure };
    this.cards.set(job.id, card);
    this.element.append(element);
    return card;
  }

  again(job) {
    try {
      this.requests.again(job);
    } catch (error) {
      job.failure = { code: error.code, message: error.message };
      this.requests.jobs.set(job.id, job);
      this.show(job);
      announceNow(error.message);
    }
  }

  ended(job) {
    if (job.failure) {
      announceNow(`${job.title}: ${job.failure.message}`);
      this.onFailure(job);
    } else if (job.state === "cancelled") {
      announce(`cancelled: ${job.title}`);
      setTimeout(() => this.requests.forget(job), CANCELLED_CARD_MS);
    } else {
      announce(`done: ${job.title}, ${many(job.takes.length, "take")}`);
    }
  }

  remove(job) {
    const card = this.cards.get(job.id);
    this.cards.delete(job.id);
    card?.element.remove();
  }
}

export function stateOf(job) {
  switch (job.state) {
    case "asked":
      return "sending";
    case "queued":
      return `waiting, ${job.position ? `${many(job.position, "request")} ahead` : "next"}${job.eta ? `, ${seconds(job.eta)}` : ""}`;
    case "started":
      if (!job.steps || job.stage === "loading") return job.stage === "loading" ? "loading the model" : "starting";
      return `step ${job.step} of ${job.steps}${job.eta ? `, ${seconds(job.eta)} left` : ""}`;
    case "lost":
      return "lost";
    default:
      return job.state;
  }
}

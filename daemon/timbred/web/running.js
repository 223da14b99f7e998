// Cards of the requests under way, and of those that failed.

import { icon, make, set, write } from "./elements.js";
import { isLive } from "./requests.js";
import { sayNow, say } from "./saying.js";
import { many, seconds } from "./words.js";

const SHOWN_AFTER_CANCEL = 1500;

export class Running {
  constructor(element, requests, { onFailure }) {
    this.element = element;
    this.requests = requests;
    this.onFailure = onFailure;
    this.cards = new Map();
    requests.on("change", (job) => this.show(job)).on("end", (job) => this.ended(job));
  }

  show(job) {
    const wanted = this.requests.jobs.has(job.id) && job.state !== "done";
    if (!wanted) return this.remove(job);
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
    const bar = make("div", { class: "fill" });
    const progress = make(
      "div",
      { class: "progress", role: "progressbar", "aria-label": `${job.title}: progress`, "aria-valuemin": 0, "aria-valuemax": 100 },
      bar,
    );
    const state = make("span", { class: "state" });
    const button = (label, name, press) => make("button", { type: "button", class: "small", "aria-label": `${label}: ${job.title}`, onclick: press }, name ? icon(name) : label, name ? ` ${label}` : "");
    const cancel = button("Cancel", "cross", () => this.requests.cancel(job));
    const again = button("Again", "loop", () => this.again(job));
    const dismiss = button("Dismiss", "cross", () => this.requests.forget(job));
    const failure = make("p", { class: "failure" });
    const element = make(
      "article",
      { class: "card", "data-request": job.id },
      make("div", { class: "head" }, make("strong", { text: job.title }), state, cancel, again, dismiss),
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
      sayNow(error.message);
    }
  }

  ended(job) {
    if (job.failure) {
      sayNow(`${job.title}: ${job.failure.message}`);
      this.onFailure(job);
    } else if (job.state === "cancelled") {
      say(`cancelled: ${job.title}`);
      setTimeout(() => this.requests.forget(job), SHOWN_AFTER_CANCEL);
    } else {
      say(`done: ${job.title}, ${many(job.takes.length, "take")}`);
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
      return "asking";
    case "queued":
      return `waits, ${job.position ? `${many(job.position, "request")} before it` : "next"}${job.eta ? `, ${seconds(job.eta)}` : ""}`;
    case "started":
      if (!job.steps || job.stage === "loading") return job.stage === "loading" ? "loading the model" : "starting";
      return `step ${job.step} of ${job.steps}${job.eta ? `, ${seconds(job.eta)} left` : ""}`;
    case "lost":
      return "lost";
    default:
      return job.state;
  }
}

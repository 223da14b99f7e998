// The requests of this page, from the question to their one end; kept over lost connections and reloads of the tab.

import { Refused } from "./asking.js";

const LIVE = ["asked", "queued", "started"];
const REMEMBERED = "requests";
const MOST_ENDED = 100;

export const isLive = (job) => LIVE.includes(job.state);

export class Requests {
  /** `memory` keeps what is under way; see `memory.js`. */
  constructor(connection, memory) {
    this.connection = connection;
    this.memory = memory;
    this.jobs = new Map();
    this.hearers = { change: [], take: [], end: [] };
    this.count = 0;
    this.began = Date.now().toString(36);
    connection.on("event", (event) => this.hear(event));
  }

  /** `change` hears a job that has changed, `take` a job and its new take, `end` a job that has ended. */
  on(what, hearer) {
    this.hearers[what].push(hearer);
    return this;
  }

  get live() {
    return [...this.jobs.values()].filter(isLive);
  }

  /**
   * Asks for a sound; `title` is what the musician calls it.
   * Throws Refused when there is no connection.
   */
  ask(request, title) {
    const id = `${this.connection.client}-${this.began}-${(this.count += 1)}`;
    const job = this.remember({ id, request: { ...request, id }, title, state: "asked" });
    if (!this.connection.send(job.request)) {
      this.jobs.delete(id);
      throw new Refused("gone", "timbred isn't there, so nothing was asked. Start it with: timbred serve");
    }
    this.changed(job);
    return job;
  }

  remember(told) {
    const job = { fraction: 0, step: 0, steps: 0, eta: 0, stage: "", position: 0, preview: "", takes: [], warnings: [], failure: null, ...told };
    job.since = Date.now();
    this.jobs.set(job.id, job);
    return job;
  }

  cancel(job) {
    this.connection.send({ type: "cancel", id: job.id });
  }

  cancelAll() {
    if (this.live.length) this.connection.send({ type: "cancel", id: "*" });
  }

  again(job) {
    this.forget(job);
    const { id, ...request } = job.request;
    return this.ask(request, job.title);
  }

  forget(job) {
    this.jobs.delete(job.id);
    job.told = null;
    this.changed(job);
  }

  /**
   * After a connection was lost: what was under way is asked again by its id, which the same run of the daemon answers with
   * where it stands and never carries out twice. Another run knows nothing of it: it is marked as lost.
   */
  resume(run) {
    const sameRun = this.run === undefined ? this.memory.get("run", run) === run : this.run === run;
    if (this.run === undefined) this.recall();
    this.run = run;
    this.memory.set("run", run);
    for (const job of this.live) {
      if (sameRun) this.connection.send(job.request);
      else this.end(job, "lost", { code: "gone", message: "timbred was started anew meanwhile and doesn't know this request: ask again" });
    }
  }

  recall() {
    for (const told of this.memory.get(REMEMBERED, [])) if (!this.jobs.has(told.id)) this.changed(this.remember(told));
  }

  hear(event) {
    const job = this.jobs.get(event.id);
    if (!job) return;
    this[`on_${event.type}`]?.(job, event);
  }

  on_queued(job, event) {
    Object.assign(job, { state: "queued", position: event.position, eta: event.eta_s });
    this.changed(job);
  }

  on_started(job, event) {
    Object.assign(job, { state: "started", model: event.model });
    this.changed(job);
  }

  on_progress(job, event) {
    const { fraction, step, steps, eta_s: eta, stage } = event;
    Object.assign(job, { state: "started", fraction, step, steps, eta, stage: stage ?? "denoising" });
    this.changed(job);
  }

  on_warning(job, event) {
    job.warnings = [...job.warnings.filter((told) => told.key !== event.key), event];
    this.changed(job);
  }

  on_preview(job, event) {
    job.preview = event.path;
    this.changed(job);
  }

  on_take(job, event) {
    if (job.takes.some((take) => take.take_id === event.take_id)) return;
    job.takes.push(event);
    for (const hearer of this.hearers.take) hearer(job, event);
  }

  on_done(job) {
    job.fraction = 1;
    this.end(job, "done");
  }

  on_cancelled(job) {
    this.end(job, "cancelled");
  }

  on_fail(job, event) {
    // a cancel that came too late fails by its own type's name, not by this id
    this.end(job, "failed", { code: event.code, message: event.message, retry: event.retry_after_s });
  }

  /** What is under way is written down; of what has ended only the latest are known. */
  keep(job) {
    job.told = job.state;
    const live = this.live;
    this.memory.set(REMEMBERED, live.map(({ id, request, title, state }) => ({ id, request, title, state })));
    const ended = [...this.jobs.values()].filter((one) => one.state === "done");
    for (const one of ended.slice(0, -MOST_ENDED)) this.jobs.delete(one.id);
  }

  end(job, state, failure = null) {
    if (!isLive(job)) return;
    Object.assign(job, { state, failure });
    this.changed(job);
    for (const hearer of this.hearers.end) hearer(job);
  }

  changed(job) {
    if (job.state !== job.told) this.keep(job);
    for (const hearer of this.hearers.change) hearer(job);
  }
}

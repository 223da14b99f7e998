// The requests of this page until their terminal event; they survive lost connections and reloads of the tab.

import { ApiError } from "./api.js";

const LIVE_STATES = ["asked", "queued", "started"];
const STORAGE_KEY = "requests";
const MAX_ENDED_JOBS = 100;

export const isLive = (job) => LIVE_STATES.includes(job.state);

export class Requests {
  /** `memory` stores the active requests; see `storage.js`. */
  constructor(connection, memory) {
    this.connection = connection;
    this.memory = memory;
    this.jobs = new Map();
    this.listeners = { change: [], take: [], end: [] };
    this.count = 0;
    this.pageId = Date.now().toString(36);
    connection.on("event", (event) => this.handle(event));
  }

  /** Adds a listener: `change` for a changed job, `take` for a job and its new take, `end` for a job that has ended. */
  on(what, listener) {
    this.listeners[what].push(listener);
    return this;
  }

  get live() {
    return [...this.jobs.values()].filter(isLive);
  }

  /**
   * Sends a request; `title` is shown for it.
   * Throws ApiError without a connection.
   */
  ask(request, title) {
    const id = `${this.connection.client}-${this.pageId}-${(this.count += 1)}`;
    const job = this.addJob({ id, request: { ...request, id }, title, state: "asked" });
    if (!this.connection.send(job.request)) {
      this.jobs.delete(id);
      throw new ApiError("not-connected", "timbred isn't running, so nothing was sent. Start it with: timbred serve");
    }
    this.changed(job);
    return job;
  }

  addJob(entry) {
    const job = { fraction: 0, step: 0, steps: 0, eta: 0, stage: "", position: 0, preview: "", takes: [], warnings: [], failure: null, ...entry };
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
    job.storedState = null;
    this.changed(job);
  }

  /**
   * Resumes after a lost connection: active requests are sent again under their ids. The same run of the daemon answers with
   * their state and never renders them twice. Another run doesn't know them, so they are marked as lost.
   */
  resume(run) {
    const sameRun = this.run === undefined ? this.memory.get("run", run) === run : this.run === run;
    if (this.run === undefined) this.restoreJobs();
    this.run = run;
    this.memory.set("run", run);
    for (const job of this.live) {
      if (sameRun) this.connection.send(job.request);
      else this.end(job, "lost", { code: "not-connected", message: "timbred was restarted and doesn't know this request: press Again" });
    }
  }

  restoreJobs() {
    for (const entry of this.memory.get(STORAGE_KEY, [])) if (!this.jobs.has(entry.id)) this.changed(this.addJob(entry));
  }

  handle(event) {
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
    job.warnings = [...job.warnings.filter((entry) => entry.key !== event.key), event];
    this.changed(job);
  }

  on_preview(job, event) {
    job.preview = event.path;
    this.changed(job);
  }

  on_take(job, event) {
    if (job.takes.some((take) => take.take_id === event.take_id)) return;
    job.takes.push(event);
    for (const listener of this.listeners.take) listener(job, event);
  }

  on_done(job) {
    job.fraction = 1;
    this.end(job, "done");
  }

  on_cancelled(job) {
    this.end(job, "cancelled");
  }

  on_fail(job, event) {
    // a cancel that comes too late fails under the id `cancel`, not this one
    this.end(job, "failed", { code: event.code, message: event.message, retry: event.retry_after_s });
  }

  /** Stores the active requests, and drops the oldest ended ones. */
  storeJobs(job) {
    job.storedState = job.state;
    const live = this.live;
    this.memory.set(STORAGE_KEY, live.map(({ id, request, title, state }) => ({ id, request, title, state })));
    const ended = [...this.jobs.values()].filter((other) => other.state === "done");
    for (const other of ended.slice(0, -MAX_ENDED_JOBS)) this.jobs.delete(other.id);
  }

  end(job, state, failure = null) {
    if (!isLive(job)) return;
    Object.assign(job, { state, failure });
    this.changed(job);
    for (const listener of this.listeners.end) listener(job);
  }

  changed(job) {
    if (job.state !== job.storedState) this.storeJobs(job);
    for (const listener of this.listeners.change) listener(job);
  }
}

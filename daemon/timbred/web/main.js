// The panel: everything made, and told of each other.

import { Activity } from "./activity.js";
import * as asking from "./asking.js";
import { Composer } from "./composer.js";
import { Connection, nameOfThisPage } from "./connection.js";
import { find, set, write } from "./elements.js";
import { Gauges, Tempo } from "./gauges.js";
import { History } from "./history.js";
import { always, thisTab } from "./memory.js";
import { Models } from "./models.js";
import { Requests, isLive } from "./requests.js";
import { Running } from "./running.js";
import { say, sayNow } from "./saying.js";
import { Shortcuts } from "./shortcuts.js";
import { Sounds } from "./sounds.js";
import { Stage } from "./stage.js";
import { Tabs } from "./tabs.js";
import { keysOf } from "./vocabulary.js";
import { Trouble } from "./trouble.js";
import { Voices } from "./voices.js";

const LINK_WORDS = { connecting: "connecting", open: "connected", silent: "no answer", gone: "not running" };
const GONE_WORDS = {
  silent: "timbred doesn't answer. If it stays so, end it and start it again: timbred serve",
  gone: "timbred isn't running, or has ended. Start it with: timbred serve. This page comes back by itself.",
};
const SLOWLY = 4000;
const WIDE = window.matchMedia("(min-width: 60rem)");

async function begin() {
  const [session, schema, page] = await Promise.all([asking.session(), asking.vocabulary(), nameOfThisPage(thisTab)]);
  const own = new Connection(page.name, { question: { type: "status" } });
  const everybody = new Connection(`${page.name}-all`);
  const panel = new Panel(own, everybody, session, schema);
  own.on("state", (state) => panel.linked(state)).on("open", () => panel.opened());
  everybody.on("open", () => everybody.send({ type: "notify", on: 1 }));
  own.start();
  everybody.start();
  window.timbred = panel;
}

class Panel {
  constructor(own, everybody, session, schema) {
    this.own = own;
    this.everybody = everybody;
    this.defaultModel = "";
    this.version = session.version;
    this.sounds = new Sounds();
    this.requests = new Requests(own, thisTab);
    this.buildViews(session, schema);
    this.listen();
    this.shortcuts = new Shortcuts(find("help"), this.deeds());
    find("stop-all").addEventListener("click", () => this.stopAll());
    find("stop-all").title = "Stop all (Ctrl .)";
    find("help-open").addEventListener("click", () => this.shortcuts.open());
    setInterval(() => this.slowly(), SLOWLY);
    if (WIDE.matches) this.composer.focus();
  }

  buildViews(session, schema) {
    const { own, everybody, sounds, requests } = this;
    const selected = () => this.stage.take;
    const actions = {
      vary: (take) => take && this.composer.vary(take),
      edit: (take) => take && this.composer.startFrom(take),
      repaint: (take, part) => take && this.composer.repaint(take, part),
      alike: (take) => take && this.alike(take),
      star: (take) => take && this.star(take),
      play: (take) => (this.tabs.show("voices"), this.voices.play(take)),
    };
    const defaultModel = () => this.defaultModel;
    this.composer = new Composer(find("composer"), keysOf(schema, "generate"), requests, { defaultModel, selected });
    this.stage = new Stage(find("stage"), { sounds, takesFolder: session.takes_folder, actions });
    this.history = new History(find("history"), { sounds, actions, choose: (take) => this.went(take) });
    this.models = new Models(find("models"), own, { defaultModel, changed: (model) => this.composer.know(model) });
    this.voices = new Voices(find("voices"), own, everybody, {
      playKeys: keysOf(schema, "play"),
      setKeys: keysOf(schema, "set"),
      prompt: () => this.composer.prompt.value.trim(),
      selected,
    });
    this.activity = new Activity(find("activity"), everybody, { titleOf: (id) => requests.jobs.get(id)?.title });
    this.gauges = new Gauges(find("gauges"), own, { told: (status) => this.told(status) });
    this.trouble = new Trouble(find("trouble"), own);
    this.tempo = new Tempo(find("tempo"), own, keysOf(schema, "tempo").find((key) => key.name === "bpm"));
    this.running = new Running(find("running"), requests, { onFailure: (job) => this.composer.failed(job) });
    this.actions = actions;
    const tabs = [["history", "History"], ["models", "Models"], ["voices", "Voices"], ["activity", "Activity"]];
    this.tabs = new Tabs(find("tabs"), tabs);
  }

  listen() {
    this.requests
      .on("change", (job) => this.jobChanged(job))
      .on("take", (job, take) => this.taken(job, take))
      .on("end", (job) => job.state !== "done" && this.stage.leave(job));
    this.own.on("event", (event) => this.heard(event));
    this.everybody.on("event", (event) => this.heardOfOthers(event));
  }

  // ---- the link

  linked(state) {
    document.body.dataset.link = state;
    write(find("link-words"), LINK_WORDS[state]);
    const gone = GONE_WORDS[state] ?? "";
    find("gone").hidden = !gone;
    write(find("gone"), gone);
    this.activity.note(state === "open" ? "open" : "fail", state === "open" ? "connected" : GONE_WORDS[state] ?? state);
    if (state === "open") say("connected");
  }

  /** A new connection: everything that may have changed meanwhile is asked again. */
  async opened() {
    this.own.send({ type: "hello", name: "panel" });
    this.own.send({ type: "settings/models.default" });
    this.history.refresh();
    try {
      const { run, version } = await asking.session();
      this.requests.resume(run);
      if (version !== this.version) this.outdated(version);
    } catch (error) {
      sayNow(error.message);
    }
  }

  /** The daemon that has come back is another version than the one that this page is from. */
  outdated(version) {
    find("gone").hidden = false;
    write(find("gone"), `timbred is version ${version} now, this page is from ${this.version}: load it again (F5)`);
  }

  slowly() {
    this.history.age();
    this.tempo.refresh();
    if ([...this.models.models.values()].some((model) => model.state === "loading")) this.models.refresh();
  }

  told(status) {
    this.voices.count(status.voices_playing);
    const resident = `${status.models_resident} ${status.device_memory_used}`;
    if (resident !== this.resident) this.models.refresh();
    this.resident = resident;
  }

  heard(event) {
    if (event.type !== "settings/models.default") return;
    this.defaultModel = String(event.value);
    this.composer.chosen();
  }

  async heardOfOthers(event) {
    if (event.type !== "take") return;
    try {
      this.history.arrived(await asking.take(event.take_id));
    } catch (error) {
      this.activity.note("fail", error.message);
    }
  }

  // ---- requests and takes

  /** The request asked last is watched, until its user goes to another take. */
  jobChanged(job) {
    if (job.state === "asked") {
      this.watched = job.id;
      if (!WIDE.matches) find("running").scrollIntoView({ block: "start" });
    }
    if (job.id === this.watched && !isLive(job) && job.state !== "done") this.watched = this.requests.live.at(-1)?.id;
    if (job.id === this.watched && job.state === "started") this.stage.follow(job);
  }

  async taken(job, event) {
    this.composer.heard(event);
    if (event.index !== 0) return;
    try {
      const take = await asking.take(event.take_id);
      this.history.arrived(take);
      if (job.id === this.watched) await this.choose(take, { listen: this.stage.atOnce });
    } catch (error) {
      this.stage.blank(error.message);
    }
  }

  went(take) {
    this.watched = null;
    return this.choose(take);
  }

  choose(take, options = {}) {
    this.history.chosen = take.take_id;
    this.history.mark();
    this.voices.offer(take);
    always.set("chosen", take.take_id);
    return this.stage.show(take, options);
  }

  async star(take) {
    try {
      const told = await asking.star(take.take_id, !take.starred);
      take.starred = told.starred;
      this.history.starred(told);
      this.stage.starred(told);
      say(told.starred ? "starred" : "the star is gone");
    } catch (error) {
      this.stage.fail(error.message);
    }
  }

  alike(take) {
    this.tabs.show("history");
    return this.history.alike(take);
  }

  stopAll() {
    this.stage.listening.stop();
    this.requests.cancelAll();
    const sent = this.voices.stopAll();
    (sent ? say : sayNow)(sent ? "All is stopped" : "The listening is stopped; timbred isn't there");
  }

  deeds() {
    const { stage, history, actions } = this;
    return {
      prompt: () => this.composer.focus(),
      listen: () => stage.toggle(),
      around: () => stage.listening.loop(!stage.listening.looped),
      vary: () => actions.vary(stage.take),
      edit: () => actions.edit(stage.take),
      repaint: () => actions.repaint(stage.take),
      lock: () => this.composer.lock(!this.composer.locked),
      star: () => actions.star(stage.take),
      alike: () => actions.alike(stage.take),
      voice: () => actions.play(stage.take),
      copy: () => stage.take && stage.copied(),
      next: () => history.move(1),
      previous: () => history.move(-1),
      search: () => (this.tabs.show("history"), history.search.focus()),
      tab: (key) => this.tabs.show(["history", "models", "voices", "activity"][Number(key) - 1], { focus: true }),
      tempo: () => (this.tempo.field.control.focus(), this.tempo.field.control.select()),
      cancel: () => this.requests.live.length && this.requests.cancel(this.requests.live.at(-1)),
      cancelAll: () => this.requests.cancelAll(),
      stopAll: () => this.stopAll(),
      help: () => this.shortcuts.open(),
    };
  }
}

begin().catch((error) => {
  set(find("gone"), "hidden", false);
  write(find("gone"), `The panel can't begin: ${error.message}`);
  throw error;
});

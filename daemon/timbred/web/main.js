// Entry point of the panel: creates its parts and connects them.

import { Activity } from "./activity.js";
import * as api from "./api.js";
import { Composer } from "./composer.js";
import { Connection, nameOfThisPage } from "./connection.js";
import { find, set, write } from "./dom.js";
import { EngineList } from "./engine_list.js";
import { StatusBar, Tempo } from "./status_bar.js";
import { History } from "./history.js";
import { localStore, tabStorage } from "./storage.js";
import { ModelList } from "./model_list.js";
import { Requests, isLive } from "./requests.js";
import { JobCards } from "./job_cards.js";
import { announce, announceNow } from "./live_region.js";
import { Shortcuts } from "./shortcuts.js";
import { AudioCache } from "./audio_cache.js";
import { TakeView } from "./take_view.js";
import { Tabs } from "./tabs.js";
import { keysOf } from "./schema.js";
import { ProcessAlerts } from "./process_alerts.js";
import { VoiceList } from "./voice_list.js";

const CONNECTION_STATES = { connecting: "connecting", open: "connected", silent: "no answer", closed: "not running" };
const CONNECTION_ALERTS = {
  silent: "timbred doesn't answer. If this persists, stop it and start it again: timbred serve",
  closed: "timbred isn't running. Start it with: timbred serve. This page then reconnects by itself.",
};
const REFRESH_INTERVAL_MS = 4000;
const WIDE_LAYOUT = window.matchMedia("(min-width: 60rem)");

async function start() {
  const [session, schema, page] = await Promise.all([api.session(), api.vocabulary(), nameOfThisPage(tabStorage)]);
  const own = new Connection(page.name, { pingRequest: { type: "status" } });
  const allClients = new Connection(`${page.name}-all`);
  const panel = new Panel(own, allClients, session, schema);
  own.on("state", (state) => panel.showConnection(state)).on("open", () => panel.opened()).on("close", () => panel.reportDenial());
  allClients.on("open", () => allClients.send({ type: "notify", on: 1 }));
  own.start();
  allClients.start();
  window.timbred = panel;
}

class Panel {
  constructor(own, allClients, session, schema) {
    this.own = own;
    this.allClients = allClients;
    this.defaultModel = "";
    this.version = session.version;
    this.sounds = new AudioCache();
    this.requests = new Requests(own, tabStorage);
    this.buildViews(session, schema);
    this.connectEvents();
    this.shortcuts = new Shortcuts(find("help"), this.shortcutActions());
    find("stop-all").addEventListener("click", () => this.stopAll());
    find("stop-all").title = "Stop all (Ctrl .)";
    find("help-open").addEventListener("click", () => this.shortcuts.open());
    setInterval(() => this.refreshSlowly(), REFRESH_INTERVAL_MS);
    if (WIDE_LAYOUT.matches) this.composer.focus();
  }

  buildViews(session, schema) {
    const { own, allClients, sounds, requests } = this;
    const selected = () => this.takeView.take;
    const actions = {
      vary: (take) => take && this.composer.vary(take),
      edit: (take) => take && this.composer.startFrom(take),
      repaint: (take, part) => take && this.composer.repaint(take, part),
      findSimilar: (take) => take && this.findSimilar(take),
      star: (take) => take && this.star(take),
      play: (take) => (this.tabs.show("voices"), this.voices.play(take)),
    };
    const defaultModel = () => this.defaultModel;
    this.composer = new Composer(find("composer"), keysOf(schema, "generate"), requests, { defaultModel, selected });
    this.takeView = new TakeView(find("take-view"), { sounds, takesFolder: session.takes_folder, actions });
    this.history = new History(find("history"), { sounds, actions, choose: (take) => this.select(take) });
    this.models = new ModelList(find("models"), own, { defaultModel, changed: (model) => this.composer.addModel(model) });
    this.engines = new EngineList(find("models"), own);
    this.voices = new VoiceList(find("voices"), own, allClients, {
      playKeys: keysOf(schema, "play"),
      setKeys: keysOf(schema, "set"),
      prompt: () => this.composer.prompt.value.trim(),
      selected,
    });
    this.activity = new Activity(find("activity"), allClients, { titleOf: (id) => requests.jobs.get(id)?.title });
    this.statusBar = new StatusBar(find("status-bar"), own, { onStatus: (status) => this.updateStatus(status) });
    this.processAlerts = new ProcessAlerts(find("process-alerts"), own);
    this.tempo = new Tempo(find("tempo"), own, keysOf(schema, "tempo").find((key) => key.name === "bpm"));
    this.running = new JobCards(find("active-requests"), requests, { onFailure: (job) => this.composer.showFailure(job) });
    this.actions = actions;
    const tabs = [["history", "History"], ["models", "Models"], ["voices", "Voices"], ["activity", "Activity"]];
    this.tabs = new Tabs(find("tabs"), tabs);
  }

  connectEvents() {
    this.requests
      .on("change", (job) => this.jobChanged(job))
      .on("take", (job, take) => this.handleTake(job, take))
      .on("end", (job) => job.state !== "done" && this.takeView.unfollow(job));
    this.own.on("event", (event) => this.handle(event));
    this.allClients.on("event", (event) => this.handleNotification(event));
  }

  // ---- connection

  showConnection(state) {
    document.body.dataset.connection = state;
    write(find("connection-state"), CONNECTION_STATES[state]);
    const alert = CONNECTION_ALERTS[state] ?? "";
    find("connection-alert").hidden = !alert;
    write(find("connection-alert"), alert);
    this.activity.note(state === "open" ? "open" : "fail", state === "open" ? "connected" : CONNECTION_ALERTS[state] ?? state);
    if (state === "open") announce("connected");
  }

  /** Reports, after a failed connection, that the daemon runs but doesn't let this browser in any more. */
  async reportDenial() {
    const failure = await api.session().then(() => null, (error) => error);
    if (failure?.code !== "access-denied" || this.own.open) return;
    write(find("connection-state"), failure.code);
    write(find("connection-alert"), failure.message);
  }

  /** Handles a new connection: queries everything that may have changed meanwhile. */
  async opened() {
    this.own.send({ type: "hello", name: "panel" });
    this.own.send({ type: "settings/models.default" });
    this.history.refresh();
    try {
      const { run, version } = await api.session();
      this.requests.resume(run);
      if (version !== this.version) this.outdated(version);
    } catch (error) {
      announceNow(error.message);
    }
  }

  /** Reports that the daemon was restarted with another version than this page's. */
  outdated(version) {
    find("connection-alert").hidden = false;
    write(find("connection-alert"), `timbred is version ${version} now, this page is from ${this.version}: reload it (F5)`);
  }

  refreshSlowly() {
    this.history.age();
    this.tempo.refresh();
    if ([...this.models.models.values()].some((model) => model.state === "loading")) this.models.refresh();
  }

  updateStatus(status) {
    this.voices.count(status.voices_playing);
    const resident = `${status.models_resident} ${status.device_memory_used}`;
    if (resident !== this.resident) this.models.refresh();
    this.resident = resident;
  }

  handle(event) {
    if (event.type !== "settings/models.default") return;
    this.defaultModel = String(event.value);
    this.composer.applyModel();
  }

  async handleNotification(event) {
    if (event.type !== "take") return;
    try {
      this.history.addNew(await takeOf(event));
    } catch (error) {
      this.activity.note("fail", error.message);
    }
  }

  // ---- requests and takes

  /** Shows the newest request until the user selects another take. */
  jobChanged(job) {
    if (job.state === "asked") {
      this.watched = job.id;
      if (!WIDE_LAYOUT.matches) find("active-requests").scrollIntoView({ block: "start" });
    }
    if (job.id === this.watched && !isLive(job) && job.state !== "done") this.watched = this.requests.live.at(-1)?.id;
    if (job.id === this.watched && job.state === "started") this.takeView.follow(job);
  }

  async handleTake(job, event) {
    this.composer.storeSeed(event);
    if (event.index !== 0) return;
    try {
      const take = await takeOf(event);
      this.history.addNew(take);
      if (job.id === this.watched) await this.choose(take, { listen: job.listen || this.takeView.autoplay });
    } catch (error) {
      this.takeView.blank(error.message);
    }
  }

  select(take) {
    this.watched = null;
    return this.choose(take);
  }

  choose(take, options = {}) {
    this.history.chosen = take.take_id;
    this.history.mark();
    this.voices.showSelected(take);
    localStore.set("chosen", take.take_id);
    return this.takeView.show(take, options);
  }

  async star(take) {
    try {
      const starred = await api.star(take.take_id, !take.starred);
      take.starred = starred.starred;
      this.history.starred(starred);
      this.takeView.starred(starred);
      announce(starred.starred ? "starred" : "star removed");
    } catch (error) {
      this.takeView.fail(error.message);
    }
  }

  findSimilar(take) {
    this.tabs.show("history");
    return this.history.findSimilar(take);
  }

  stopAll() {
    this.takeView.player.stop();
    this.requests.cancelAll();
    const sent = this.voices.stopAll();
    (sent ? announce : announceNow)(sent ? "Everything is stopped" : "Local playback is stopped; timbred isn't connected");
  }

  shortcutActions() {
    const { takeView, history, actions } = this;
    return {
      prompt: () => this.composer.focus(),
      playPause: () => takeView.toggle(),
      loop: () => takeView.player.loop(!takeView.player.looped),
      vary: () => actions.vary(takeView.take),
      edit: () => actions.edit(takeView.take),
      repaint: () => actions.repaint(takeView.take),
      lock: () => this.composer.lock(!this.composer.locked),
      star: () => actions.star(takeView.take),
      findSimilar: () => actions.findSimilar(takeView.take),
      voice: () => actions.play(takeView.take),
      copy: () => takeView.take && takeView.copyPath(),
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

/** Returns the stored take of an event, with how much of its prompt the model knows. */
const takeOf = async (event) => ({ ...(await api.take(event.take_id)), knows: event.knows });

start().catch((error) => {
  set(find("connection-alert"), "hidden", false);
  write(find("connection-alert"), `The panel can't start: ${error.message}`);
  throw error;
});

// The selected take: pictures, playback and actions; while a request is rendered, its progress and preview.

import { dragOut } from "./drag_export.js";
import { clear, drawNoise, drawSpectrum, drawWave } from "./canvas.js";
import { icon, createElement, set, write } from "./dom.js";
import { AudioPlayer } from "./audio_player.js";
import { RegionSelect, partOf } from "./region_select.js";
import { localStore } from "./storage.js";
import { isLive } from "./requests.js";
import { stateOf } from "./job_cards.js";
import { announce, announceNow } from "./live_region.js";
import { addressInside } from "./audio_cache.js";
import { kilohertz, moment, seconds } from "./format.js";

const NOISE_INTERVAL_MS = 90;
const SEEK_STEP_S = 0.1;
const UNKNOWN_BELOW = 0.25;
const KNOWN_FROM = 0.75;
const REDUCED_MOTION = window.matchMedia("(prefers-reduced-motion: reduce)");

export class TakeView {
  /** `actions`: vary, edit, repaint, findSimilar, star, play (on a voice); each is called with the take. */
  constructor(element, { sounds, takesFolder, actions }) {
    this.sounds = sounds;
    this.takesFolder = takesFolder;
    this.actions = actions;
    this.take = null;
    this.job = null;
    this.previewed = "";
    this.shown = null;
    this.turn = 0;
    this.player = new AudioPlayer({ onChange: () => this.showPlayback() });
    this.autoplay = localStore.get("listen-at-once", false);
    this.build(element);
    new ResizeObserver(() => this.redraw()).observe(this.scope);
  }

  build(element) {
    this.title = createElement("h2", { text: "No sound yet" });
    this.star = this.button("Star", "star", "s", () => this.actions.star(this.take), { class: "icon-only star", "aria-pressed": "false" });
    this.about = createElement("p", { class: "about", text: "Type a description of a sound, then press Enter." });
    this.spectrum = createElement("canvas", { class: "spectrum", "aria-hidden": "true" });
    this.noise = createElement("canvas", { class: "noise", "aria-hidden": "true" });
    this.wave = createElement("canvas", { class: "wave", "aria-hidden": "true" });
    this.head = createElement("div", { class: "playhead", hidden: true });
    this.percentage = createElement("p", { class: "percentage", "aria-hidden": "true", hidden: true });
    this.scope = createElement(
      "div",
      { class: "scope", id: "scope", role: "slider", tabindex: 0, "aria-label": "Position in the sound", "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0 },
      createElement("div", { class: "spectrogram" }, this.spectrum, this.noise, this.percentage),
      this.wave,
      this.head,
    );
    this.failure = createElement("p", { class: "failure", id: "take-failure" });
    this.known = createElement("p", { class: "known", id: "known" });
    element.append(createElement("div", { class: "top" }, createElement("div", {}, this.title, this.about, this.known), this.star), this.scope, this.failure, this.transport(), this.exportRow());
    this.regionSelect = new RegionSelect(this.scope, this.scope.firstChild, (corners) => this.repaintRegion(corners));
    this.scope.addEventListener("pointerdown", (event) => this.onPointerdown(event));
    this.scope.addEventListener("keydown", (event) => this.onKeydown(event));
    this.enable(false);
  }

  button(label, picture, key, press, more = {}) {
    const name = more.class?.includes("icon-only") ? null : ` ${label} `;
    return createElement(
      "button",
      { type: "button", "aria-keyshortcuts": key, "aria-label": label, title: `${label} (${key})`, onclick: press, ...more },
      picture ? icon(picture) : null,
      name,
      name ? createElement("kbd", { "aria-hidden": "true", text: key === "Space" ? "␣" : key.toUpperCase() }) : null,
    );
  }

  transport() {
    this.playButton = this.button("Listen", "play", "Space", () => this.toggle(), { class: "primary", id: "listen" });
    this.loopButton = this.button("Loop playback", "loop", "o", () => this.player.loop(!this.player.looped), { class: "icon-only", "aria-pressed": "false", id: "loop-playback" });
    this.time = createElement("output", { class: "time", text: "0:00.00", "aria-label": "Time" });
    this.varyButton = this.button("More like this", null, "v", () => this.actions.vary(this.take), { id: "vary" });
    this.editButton = this.button("Edit and vary", null, "e", () => this.actions.edit(this.take), { id: "edit" });
    this.findSimilarButton = this.button("Find similar", null, "a", () => this.actions.findSimilar(this.take), { id: "find-similar" });
    this.repaintButton = this.button("Repaint", null, "r", () => this.actions.repaint(this.take), { id: "repaint", title: "Start from this sound (R). Shift and drag on the picture to select the part to regenerate" });
    this.voiceButton = this.button("Play on a voice", null, "b", () => this.actions.play(this.take), { id: "play-on-voice" });
    const autoplay = createElement("input", { type: "checkbox", id: "autoplay", onchange: ({ target }) => this.setAutoplay(target.checked) });
    autoplay.checked = this.autoplay;
    return createElement(
      "div",
      { class: "transport" },
      createElement("div", { class: "row" }, this.playButton, this.loopButton, this.time, createElement("label", { class: "check" }, autoplay, " play new takes automatically")),
      createElement("div", { class: "row" }, this.varyButton, this.editButton, this.repaintButton, this.findSimilarButton, this.voiceButton),
    );
  }

  exportRow() {
    this.drag = createElement(
      "a",
      { class: "button drag", draggable: "true", id: "drag", href: "#", download: "", title: "Drag the file into your DAW or a folder; a click saves it", ondragstart: (event) => dragOut(event, this.take) },
      icon("drag"),
      " Drag to the DAW, or save",
    );
    this.copy = this.button("Copy path", null, "c", () => this.copyPath(), { id: "copy-path" });
    this.path = createElement("span", { class: "path", id: "path", tabindex: -1, role: "group", "aria-label": "Path of the file" });
    return createElement("div", { class: "export row" }, this.drag, this.copy, this.path);
  }

  setAutoplay(on) {
    this.autoplay = on;
    localStore.set("listen-at-once", on);
  }

  enable(on) {
    for (const control of [this.playButton, this.loopButton, this.star, this.varyButton, this.editButton, this.repaintButton, this.findSimilarButton, this.voiceButton, this.copy]) control.disabled = !on;
    set(this.drag, "aria-disabled", !on || null);
    this.drag.hidden = !on;
  }

  // ---- a take

  /** Shows a take; `listen` plays it once it is loaded. */
  async show(take, { listen = false } = {}) {
    this.take = take;
    this.job = null;
    this.shown = null;
    this.regionSelect.forget();
    this.describe(take);
    if (!take.url || take.missing) {
      this.blank(take.missing ? `The file is missing: ${take.path}. Its recipe is stored: More like this renders a new take from it.` : "This take has no file.");
      return;
    }
    await this.load(take.url, take.rate, listen, () => this.take === take && !this.job);
  }

  describe(take) {
    this.enable(true);
    const { steps, guidance, scheduler } = take.recipe.parameters ?? {};
    const settings = [take.model, `seed ${take.seed}`, steps && `${steps} steps`, guidance !== undefined && `guidance ${guidance}`, scheduler].filter(Boolean);
    const format = [seconds(take.seconds), kilohertz(take.rate), take.channels === 1 ? "mono" : "stereo"];
    write(this.title, take.prompt);
    write(this.about, [...format, ...settings].join(" · "));
    write(this.known, describeKnown(take));
    write(this.path, take.path);
    this.drag.href = take.url ? `${take.url}?save` : "#";
    this.drag.download = take.name;
    this.drag.hidden = !take.url || take.missing;
    this.starred(take);
  }

  starred(take) {
    if (take.take_id !== this.take?.take_id) return;
    this.take.starred = take.starred;
    set(this.star, "aria-pressed", String(take.starred));
  }

  async load(url, rate, listen, isCurrent) {
    this.scope.setAttribute("aria-busy", "true");
    try {
      const sound = await this.sounds.get(url, rate);
      if (!isCurrent()) return;
      this.fail("");
      this.draw(sound);
      this.player.take(sound);
      if (listen) await this.player.play(0);
    } catch (error) {
      if (isCurrent()) this.blank(error.message);
    } finally {
      this.scope.removeAttribute("aria-busy");
    }
  }

  draw(sound) {
    this.shown = sound;
    drawSpectrum(this.spectrum, sound);
    drawWave(this.wave, sound);
    if (!this.job) this.clearNoise();
    const length = sound.frames / sound.rate;
    set(this.scope, "aria-valuemax", length.toFixed(2));
  }

  redraw() {
    if (this.shown) this.draw(this.shown);
    this.regionSelect.follow();
  }

  blank(message) {
    this.shown = null;
    for (const canvas of [this.spectrum, this.wave, this.noise]) clear(canvas);
    this.player.take(null);
    this.fail(message);
  }

  fail(message) {
    write(this.failure, message);
    if (message) announceNow(message);
  }

  copyPath() {
    const { path } = this.take;
    navigator.clipboard?.writeText(path).then(
      () => announce("The path is copied"),
      () => this.selectPath(),
    ) ?? this.selectPath();
  }

  /** Selects the path for the user to copy, where the clipboard can't be used. */
  selectPath() {
    this.path.focus();
    getSelection().selectAllChildren(this.path);
    announce("The path is selected: copy it");
  }

  // ---- a request in progress

  /** Shows the progress of a request; `show` then shows its take. */
  follow(job) {
    if (this.job !== job) {
      this.job = job;
      this.previewed = "";
      this.fail("");
      this.regionSelect.forget();
      this.player.take(null);
      this.shown = null;
      clear(this.spectrum);
      clear(this.wave);
      write(this.title, job.title);
      write(this.known, "");
      this.enable(false);
      write(this.path, "");
      this.animate();
    }
    const words = [stateOf(job), ...job.warnings.map((warning) => `${warning.key}: ${warning.message}`)].join(". ");
    write(this.about, words);
    this.percentage.hidden = false;
    write(this.percentage, `${Math.round(job.fraction * 100)} %`);
    if (job.preview && job.preview !== this.previewed) this.preview(job);
  }

  async preview(job) {
    this.previewed = job.preview;
    const url = addressInside(this.takesFolder, job.preview);
    await this.load(url, 48_000, false, () => this.job === job);
    if (this.job === job) this.playButton.disabled = false;
  }

  /** Shows the previous take again after a request that ended without one. */
  unfollow(job) {
    if (this.job !== job) return;
    this.job = null;
    this.clearNoise();
    if (this.take) this.show(this.take);
    else {
      this.blank("");
      write(this.title, "No sound yet");
      write(this.about, "");
    }
  }

  animate() {
    const job = this.job;
    if (!job || !isLive(job)) return;
    this.turn += 1;
    drawNoise(this.noise, job.fraction, this.turn);
    setTimeout(() => this.job === job && requestAnimationFrame(() => this.animate()), REDUCED_MOTION.matches ? 10 * NOISE_INTERVAL_MS : NOISE_INTERVAL_MS);
  }

  clearNoise() {
    clear(this.noise);
    this.percentage.hidden = true;
  }

  // ---- playback

  toggle() {
    if (this.playButton.disabled) return;
    this.player.toggle();
  }

  showPlayback() {
    const { player } = this;
    this.playButton.replaceChild(icon(player.playing ? "pause" : "play"), this.playButton.firstChild);
    set(this.playButton, "aria-label", player.playing ? "Pause" : "Listen");
    set(this.loopButton, "aria-pressed", String(player.looped));
    this.head.hidden = !player.sound;
    this.tick();
  }

  tick() {
    const { player } = this;
    const position = player.position;
    write(this.time, `${moment(position)} / ${moment(player.duration)}`);
    this.head.style.left = `${player.duration ? (100 * position) / player.duration : 0}%`;
    set(this.scope, "aria-valuenow", position.toFixed(2));
    set(this.scope, "aria-valuetext", `${position.toFixed(1)} of ${player.duration.toFixed(1)} seconds`);
    if (player.playing && !this.ticking) {
      this.ticking = true;
      requestAnimationFrame(() => {
        this.ticking = false;
        this.tick();
      });
    }
  }

  onPointerdown(event) {
    if (!this.player.sound) return;
    if (event.shiftKey && !this.job) {
      this.regionSelect.begin(event);
      return;
    }
    const { left, width } = this.scope.getBoundingClientRect();
    this.player.seek(((event.clientX - left) / width) * this.player.duration);
  }

  repaintRegion(corners) {
    const { rate, frames } = this.shown;
    this.actions.repaint(this.take, partOf(corners, frames / rate, rate));
  }

  onKeydown(event) {
    const { player } = this;
    const target = { ArrowRight: player.position + SEEK_STEP_S, ArrowLeft: player.position - SEEK_STEP_S, Home: 0, End: player.duration }[event.key];
    if (target === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    player.seek(target);
  }
}

/** Says how much of its prompt the model of a take knows; empty if it knows it, or can't tell. */
function describeKnown({ knows, model }) {
  if (knows === undefined || knows >= KNOWN_FROM) return "";
  if (knows < UNKNOWN_BELOW) return `nearest sound: ${model} doesn't know this`;
  return `${model} knows ${Math.round(100 * knows)} % of this`;
}

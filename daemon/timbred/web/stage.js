// The sound in the middle: seen, heard, varied, kept; and while it is being made, the noise that it comes out of.

import { dragOut } from "./dragging.js";
import { clear, drawNoise, drawSpectrum, drawWave } from "./drawing.js";
import { icon, make, set, write } from "./elements.js";
import { Listening } from "./listening.js";
import { Marking, partOf } from "./marking.js";
import { always } from "./memory.js";
import { isLive } from "./requests.js";
import { stateOf } from "./running.js";
import { say, sayNow } from "./saying.js";
import { addressInside } from "./sounds.js";
import { kilohertz, moment, seconds } from "./words.js";

const NOISE_EVERY = 90;
const STEP = 0.1;
const STILL = window.matchMedia("(prefers-reduced-motion: reduce)");

export class Stage {
  /** `actions`: vary, edit, repaint, alike, star, play (on a voice); each gets the take. */
  constructor(element, { sounds, takesFolder, actions }) {
    this.sounds = sounds;
    this.takesFolder = takesFolder;
    this.actions = actions;
    this.take = null;
    this.job = null;
    this.previewed = "";
    this.shown = null;
    this.turn = 0;
    this.listening = new Listening();
    this.listening.changed = () => this.played();
    this.atOnce = always.get("listen-at-once", false);
    this.build(element);
    new ResizeObserver(() => this.redraw()).observe(this.scope);
  }

  build(element) {
    this.title = make("h2", { text: "No sound yet" });
    this.star = this.button("Star", "star", "s", () => this.actions.star(this.take), { class: "icon-only star", "aria-pressed": "false" });
    this.about = make("p", { class: "about", text: "Type what you want to hear, then Enter." });
    this.spectrum = make("canvas", { class: "spectrum", "aria-hidden": "true" });
    this.noise = make("canvas", { class: "noise", "aria-hidden": "true" });
    this.wave = make("canvas", { class: "wave", "aria-hidden": "true" });
    this.head = make("div", { class: "playhead", hidden: true });
    this.coming = make("p", { class: "coming", "aria-hidden": "true", hidden: true });
    this.scope = make(
      "div",
      { class: "scope", id: "scope", role: "slider", tabindex: 0, "aria-label": "Place in the sound", "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0 },
      make("div", { class: "upper" }, this.spectrum, this.noise, this.coming),
      this.wave,
      this.head,
    );
    this.failure = make("p", { class: "failure", id: "stage-failure" });
    element.append(make("div", { class: "top" }, make("div", {}, this.title, this.about), this.star), this.scope, this.failure, this.transport(), this.way());
    this.marking = new Marking(this.scope, this.scope.firstChild, (places) => this.marked(places));
    this.scope.addEventListener("pointerdown", (event) => this.pointed(event));
    this.scope.addEventListener("keydown", (event) => this.moved(event));
    this.enable(false);
  }

  button(label, picture, key, press, more = {}) {
    const name = more.class?.includes("icon-only") ? null : ` ${label} `;
    return make(
      "button",
      { type: "button", "aria-keyshortcuts": key, "aria-label": label, title: `${label} (${key})`, onclick: press, ...more },
      picture ? icon(picture) : null,
      name,
      name ? make("kbd", { "aria-hidden": "true", text: key === "Space" ? "␣" : key.toUpperCase() }) : null,
    );
  }

  transport() {
    this.playButton = this.button("Listen", "play", "Space", () => this.toggle(), { class: "primary", id: "listen" });
    this.loopButton = this.button("Around and around", "loop", "o", () => this.listening.loop(!this.listening.looped), { class: "icon-only", "aria-pressed": "false", id: "around" });
    this.time = make("output", { class: "time", text: "0:00.00", "aria-label": "Time" });
    this.varyButton = this.button("More like this", null, "v", () => this.actions.vary(this.take), { id: "vary" });
    this.editButton = this.button("Change and vary", null, "e", () => this.actions.edit(this.take), { id: "edit" });
    this.alikeButton = this.button("Find alike", null, "a", () => this.actions.alike(this.take), { id: "alike" });
    this.repaintButton = this.button("Repaint", null, "r", () => this.actions.repaint(this.take), { id: "repaint", title: "Start from this sound (R). Shift and drag on the picture marks the part to be made anew" });
    this.voiceButton = this.button("Play on a voice", null, "b", () => this.actions.play(this.take), { id: "play-on-voice" });
    const atOnce = make("input", { type: "checkbox", id: "listen-at-once", onchange: ({ target }) => this.setAtOnce(target.checked) });
    atOnce.checked = this.atOnce;
    return make(
      "div",
      { class: "transport" },
      make("div", { class: "row" }, this.playButton, this.loopButton, this.time, make("label", { class: "check" }, atOnce, " play new takes at once")),
      make("div", { class: "row" }, this.varyButton, this.editButton, this.repaintButton, this.alikeButton, this.voiceButton),
    );
  }

  way() {
    this.drag = make(
      "a",
      { class: "button drag", draggable: "true", id: "drag", href: "#", download: "", title: "Drag the file into your DAW or a folder; a click saves it", ondragstart: (event) => dragOut(event, this.take) },
      icon("drag"),
      " Drag to the DAW, or save",
    );
    this.copy = this.button("Copy path", null, "c", () => this.copied(), { id: "copy-path" });
    this.path = make("span", { class: "path", id: "path", tabindex: -1, role: "group", "aria-label": "Path of the file" });
    return make("div", { class: "way row" }, this.drag, this.copy, this.path);
  }

  setAtOnce(on) {
    this.atOnce = on;
    always.set("listen-at-once", on);
  }

  enable(on) {
    for (const one of [this.playButton, this.loopButton, this.star, this.varyButton, this.editButton, this.repaintButton, this.alikeButton, this.voiceButton, this.copy]) one.disabled = !on;
    set(this.drag, "aria-disabled", !on || null);
    this.drag.hidden = !on;
  }

  // ---- a take

  /** Shows a take; `listen` plays it as soon as it is there. */
  async show(take, { listen = false } = {}) {
    this.take = take;
    this.job = null;
    this.shown = null;
    this.marking.forget();
    this.describe(take);
    if (!take.url || take.missing) {
      this.blank(take.missing ? `The file is gone: ${take.path}. Its recipe is still here: more like this makes it again.` : "This take was never a file.");
      return;
    }
    await this.load(take.url, take.rate, listen, () => this.take === take && !this.job);
  }

  describe(take) {
    this.enable(true);
    const { steps, guidance, scheduler } = take.recipe.parameters ?? {};
    const how = [take.model, `seed ${take.seed}`, steps && `${steps} steps`, guidance && `guidance ${guidance}`, scheduler].filter(Boolean);
    const what = [seconds(take.seconds), kilohertz(take.rate), take.channels === 1 ? "mono" : "stereo"];
    write(this.title, take.prompt);
    write(this.about, [...what, ...how].join(" · "));
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

  async load(url, rate, listen, stillWanted) {
    this.scope.setAttribute("aria-busy", "true");
    try {
      const sound = await this.sounds.get(url, rate);
      if (!stillWanted()) return;
      this.fail("");
      this.draw(sound);
      this.listening.take(sound);
      if (listen) await this.listening.play(0);
    } catch (error) {
      if (stillWanted()) this.blank(error.message);
    } finally {
      this.scope.removeAttribute("aria-busy");
    }
  }

  draw(sound) {
    this.shown = sound;
    drawSpectrum(this.spectrum, sound);
    drawWave(this.wave, sound);
    if (!this.job) this.calm();
    const length = sound.frames / sound.rate;
    set(this.scope, "aria-valuemax", length.toFixed(2));
  }

  redraw() {
    if (this.shown) this.draw(this.shown);
    this.marking.follow();
  }

  blank(message) {
    this.shown = null;
    for (const canvas of [this.spectrum, this.wave, this.noise]) clear(canvas);
    this.listening.take(null);
    this.fail(message);
  }

  fail(message) {
    write(this.failure, message);
    if (message) sayNow(message);
  }

  copied() {
    const { path } = this.take;
    navigator.clipboard?.writeText(path).then(
      () => say("The path is copied"),
      () => this.markPath(),
    ) ?? this.markPath();
  }

  /** Without leave to use the clipboard the path is marked, ready for the user's own copying. */
  markPath() {
    this.path.focus();
    getSelection().selectAllChildren(this.path);
    say("The path is marked: copy it");
  }

  // ---- while it is being made

  /** Shows how a request gets on; its take, when it comes, is shown by `show`. */
  follow(job) {
    if (this.job !== job) {
      this.job = job;
      this.previewed = "";
      this.fail("");
      this.marking.forget();
      this.listening.take(null);
      this.shown = null;
      clear(this.spectrum);
      clear(this.wave);
      write(this.title, job.title);
      this.enable(false);
      write(this.path, "");
      this.animate();
    }
    const words = [stateOf(job), ...job.warnings.map((told) => `${told.key}: ${told.message}`)].join(". ");
    write(this.about, words);
    this.coming.hidden = false;
    write(this.coming, `${Math.round(job.fraction * 100)} %`);
    if (job.preview && job.preview !== this.previewed) this.preview(job);
  }

  async preview(job) {
    this.previewed = job.preview;
    const url = addressInside(this.takesFolder, job.preview);
    await this.load(url, 48_000, false, () => this.job === job);
    if (this.job === job) this.playButton.disabled = false;
  }

  /** The request that was shown has ended without a take: what was there before comes back. */
  leave(job) {
    if (this.job !== job) return;
    this.job = null;
    this.calm();
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
    setTimeout(() => this.job === job && requestAnimationFrame(() => this.animate()), STILL.matches ? 10 * NOISE_EVERY : NOISE_EVERY);
  }

  calm() {
    clear(this.noise);
    this.coming.hidden = true;
  }

  // ---- listening

  toggle() {
    if (this.playButton.disabled) return;
    this.listening.toggle();
  }

  played() {
    const { listening } = this;
    this.playButton.replaceChild(icon(listening.playing ? "pause" : "play"), this.playButton.firstChild);
    set(this.playButton, "aria-label", listening.playing ? "Pause" : "Listen");
    set(this.loopButton, "aria-pressed", String(listening.looped));
    this.head.hidden = !listening.sound;
    this.tick();
  }

  tick() {
    const { listening } = this;
    const at = listening.position;
    write(this.time, `${moment(at)} / ${moment(listening.duration)}`);
    this.head.style.left = `${listening.duration ? (100 * at) / listening.duration : 0}%`;
    set(this.scope, "aria-valuenow", at.toFixed(2));
    set(this.scope, "aria-valuetext", `${at.toFixed(1)} of ${listening.duration.toFixed(1)} seconds`);
    if (listening.playing && !this.ticking) {
      this.ticking = true;
      requestAnimationFrame(() => {
        this.ticking = false;
        this.tick();
      });
    }
  }

  pointed(event) {
    if (!this.listening.sound) return;
    if (event.shiftKey && !this.job) {
      this.marking.begin(event);
      return;
    }
    const { left, width } = this.scope.getBoundingClientRect();
    this.listening.seek(((event.clientX - left) / width) * this.listening.duration);
  }

  marked(places) {
    const { rate, frames } = this.shown;
    this.actions.repaint(this.take, partOf(places, frames / rate, rate));
  }

  moved(event) {
    const { listening } = this;
    const to = { ArrowRight: listening.position + STEP, ArrowLeft: listening.position - STEP, Home: 0, End: listening.duration }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    listening.seek(to);
  }
}

// Playback in the browser: one sound at a time, from any position, optionally looped.

export class AudioPlayer {
  /** `onChange` is called when playback starts, stops, seeks or loops. */
  constructor({ onChange }) {
    this.context = null;
    this.sound = null;
    this.source = null;
    this.offset = 0;
    this.startedAt = 0;
    this.looped = false;
    this.changed = onChange;
  }

  get playing() {
    return this.source !== null;
  }

  get duration() {
    return this.sound ? this.sound.frames / this.sound.rate : 0;
  }

  /** The position in seconds. */
  get position() {
    if (!this.playing) return this.offset;
    const at = this.offset + this.context.currentTime - this.startedAt;
    return this.looped ? at % this.duration : Math.min(at, this.duration);
  }

  /** The loudest sample of the recent output, 0 to 1. */
  get level() {
    if (!this.playing) return 0;
    const recent = new Float32Array(this.meter.fftSize);
    this.meter.getFloatTimeDomainData(recent);
    return recent.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  }

  take(sound) {
    this.halt();
    this.sound = sound;
    this.offset = 0;
    this.changed();
  }

  async play(from = this.offset) {
    if (!this.sound) return;
    this.halt();
    this.open();
    await this.context.resume();
    if (this.playing || !this.sound) return;
    const source = this.context.createBufferSource();
    source.buffer = this.buffer();
    source.loop = this.looped;
    source.connect(this.meter);
    source.addEventListener("ended", () => source === this.source && this.finished());
    this.offset = from >= this.duration - 0.005 ? 0 : from;
    this.startedAt = this.context.currentTime;
    this.source = source;
    source.start(0, this.offset);
    this.changed();
  }

  pause() {
    const at = this.position;
    this.halt();
    this.offset = at;
    this.changed();
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  seek(to) {
    const at = Math.min(Math.max(0, to), this.duration);
    if (this.playing) return this.play(at);
    this.offset = at;
    return this.changed();
  }

  loop(on) {
    const at = this.position;
    this.looped = on;
    if (this.playing) this.play(at);
    this.changed();
  }

  stop() {
    this.halt();
    this.offset = 0;
    this.changed();
  }

  finished() {
    this.source = null;
    this.offset = 0;
    this.changed();
  }

  halt() {
    const source = this.source;
    this.source = null;
    if (!source) return;
    source.stop();
    source.disconnect();
  }

  /** Opens the audio output at the first playback: browsers allow it only after a user action. */
  open() {
    if (this.context) return;
    this.context = new AudioContext();
    this.meter = this.context.createAnalyser();
    this.meter.connect(this.context.destination);
  }

  buffer() {
    const { rate, frames, channels } = this.sound;
    const buffer = this.context.createBuffer(channels.length, Math.max(1, frames), rate);
    channels.forEach((samples, index) => buffer.copyToChannel(samples, index));
    return buffer;
  }
}

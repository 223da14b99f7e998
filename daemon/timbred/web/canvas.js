// Drawing on canvases: waveform, spectrogram, and noise during denoising.

import { outline } from "./audio_decode.js";
import { FLOOR_DB, channelSpectrogram, height } from "./fft.js";

const COLOURS = ["#07080b", "#1a1030", "#431a5c", "#7a2165", "#b5364f", "#e2653a", "#f9a242", "#fde9a6"].map((hex) => [
  Number.parseInt(hex.slice(1, 3), 16),
  Number.parseInt(hex.slice(3, 5), 16),
  Number.parseInt(hex.slice(5, 7), 16),
]);

const PALETTE = Array.from({ length: 256 }, (_, index) => {
  const place = (index / 255) * (COLOURS.length - 1);
  const below = Math.min(COLOURS.length - 2, Math.floor(place));
  return COLOURS[below].map((from, part) => Math.round(from + (COLOURS[below + 1][part] - from) * (place - below)));
});

const FREQUENCY_LABELS_HZ = [100, 1000, 10_000];

/** Resizes the canvas to the screen's resolution; returns its size in pixels. */
export function fit(canvas, sharpest = 2) {
  const sharp = Math.min(sharpest, window.devicePixelRatio || 1);
  const [width, tall] = [Math.max(1, Math.round(canvas.clientWidth * sharp)), Math.max(1, Math.round(canvas.clientHeight * sharp))];
  if (canvas.width !== width || canvas.height !== tall) [canvas.width, canvas.height] = [width, tall];
  return { width, tall, sharp, pen: canvas.getContext("2d") };
}

export function clear(canvas) {
  const { width, tall, pen } = fit(canvas);
  pen.clearRect(0, 0, width, tall);
}

/** Draws the waveform: peaks, and RMS inside. */
export function drawWave(canvas, sound, { colour = "#ffb547", core = "#ffd894", centre = true } = {}) {
  const { width, tall, pen, sharp } = fit(canvas);
  const { low, high, power } = outline(sound, width);
  const middle = tall / 2;
  const scale = middle - sharp;
  pen.clearRect(0, 0, width, tall);
  if (centre) {
    pen.fillStyle = "#ffffff1f";
    pen.fillRect(0, Math.round(middle), width, 1);
  }
  for (let column = 0; column < width; column += 1) {
    const top = middle - high[column] * scale;
    pen.fillStyle = colour;
    pen.fillRect(column, top, 1, Math.max(sharp, middle - low[column] * scale - top));
    pen.fillStyle = core;
    pen.fillRect(column, middle - power[column] * scale, 1, 2 * power[column] * scale);
  }
}

/** Draws the spectrogram: time to the right, log frequency upwards. */
export function drawSpectrum(canvas, sound) {
  const { width, tall, pen, sharp } = fit(canvas, 1);
  const levels = channelSpectrogram(sound.channels, sound.rate, width, tall);
  const picture = pen.createImageData(width, tall);
  for (let row = 0; row < tall; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const level = levels[column * tall + (tall - 1 - row)];
      const [red, green, blue] = PALETTE[Math.round(255 * (1 - level / FLOOR_DB) ** 1.25)];
      picture.data.set([red, green, blue, 255], 4 * (row * width + column));
    }
  }
  pen.putImageData(picture, 0, 0);
  drawMarks(pen, width, tall, sharp, sound.rate);
}

function drawMarks(pen, width, tall, sharp, rate) {
  pen.font = `${11 * sharp}px ui-monospace, monospace`;
  pen.textBaseline = "middle";
  for (const frequency of FREQUENCY_LABELS_HZ.filter((one) => one < rate / 2)) {
    const y = tall * (1 - height(frequency, rate));
    pen.fillStyle = "#ffffff2e";
    pen.fillRect(0, Math.round(y), width, 1);
    pen.fillStyle = "#fffc";
    pen.fillText(frequency >= 1000 ? `${frequency / 1000} kHz` : `${frequency} Hz`, 6 * sharp, y - 8 * sharp);
  }
}

/** Draws noise that decreases with progress: `fraction` 0 is all noise, 1 is none. */
export function drawNoise(canvas, fraction, turn) {
  const { width, tall, pen } = fit(canvas, 1);
  const grain = 3;
  const [columns, rows] = [Math.ceil(width / grain), Math.ceil(tall / grain)];
  const picture = pen.createImageData(columns, rows);
  let seed = (turn * 2654435761) >>> 0 || 1;
  const strength = Math.max(0, 1 - fraction) ** 0.7;
  for (let index = 0; index < columns * rows; index += 1) {
    seed = (seed ^ (seed << 13)) >>> 0;
    seed ^= seed >>> 17;
    seed = (seed ^ (seed << 5)) >>> 0;
    const value = seed & 255;
    const [red, green, blue] = PALETTE[value];
    picture.data.set([red, green, blue, Math.round(235 * strength * (value / 255) ** (2 * fraction))], 4 * index);
  }
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d").putImageData(picture, 0, 0);
  pen.clearRect(0, 0, width, tall);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, 0, 0, columns * grain, rows * grain);
}

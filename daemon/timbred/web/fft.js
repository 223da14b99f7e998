// The spectrum of a sound: a fast Fourier transform (radix 2, decimation in time) and columns of decibels over log frequency.

export class Fft {
  /** `size` is a power of two. */
  constructor(size) {
    this.size = size;
    this.bits = Math.log2(size);
    if (!Number.isInteger(this.bits)) throw new Error(`${size} isn't a power of two`);
    this.cosines = Float64Array.from({ length: size / 2 }, (_, index) => Math.cos((2 * Math.PI * index) / size));
    this.sines = Float64Array.from({ length: size / 2 }, (_, index) => Math.sin((2 * Math.PI * index) / size));
    this.reversed = Uint32Array.from({ length: size }, (_, index) => this.reverse(index));
    this.real = new Float64Array(size);
    this.imaginary = new Float64Array(size);
  }

  reverse(index) {
    let turned = 0;
    for (let bit = 0; bit < this.bits; bit += 1) if (index & (1 << bit)) turned |= 1 << (this.bits - 1 - bit);
    return turned;
  }

  /** Squared magnitudes of bins 0 to size / 2, for `size` real samples. */
  power(samples, into = new Float64Array(this.size / 2 + 1)) {
    const { real, imaginary, size } = this;
    for (let index = 0; index < size; index += 1) {
      real[index] = samples[this.reversed[index]];
      imaginary[index] = 0;
    }
    for (let half = 1; half < size; half *= 2) this.combine(half);
    for (let bin = 0; bin <= size / 2; bin += 1) into[bin] = real[bin] ** 2 + imaginary[bin] ** 2;
    return into;
  }

  combine(half) {
    const { real, imaginary, size, cosines, sines } = this;
    const step = size / (2 * half);
    for (let start = 0; start < size; start += 2 * half) {
      for (let index = 0; index < half; index += 1) {
        const [cosine, sine] = [cosines[index * step], -sines[index * step]];
        const [one, other] = [start + index, start + index + half];
        const turnedReal = real[other] * cosine - imaginary[other] * sine;
        const turnedImaginary = real[other] * sine + imaginary[other] * cosine;
        real[other] = real[one] - turnedReal;
        imaginary[other] = imaginary[one] - turnedImaginary;
        real[one] += turnedReal;
        imaginary[one] += turnedImaginary;
      }
    }
  }
}

export const LOWEST_HZ = 40;
export const FLOOR_DB = -84;

/** `channelSpectrogram` of one channel. */
export const spectrogram = (samples, ...rest) => channelSpectrogram([samples], ...rest);

/**
 * The power of all channels together: decibels under the loudest, `columns` times `rows` of them (column by column, low to high), on a logarithmic axis from
 * LOWEST_HZ to half the rate.
 */
export function channelSpectrogram(channels, rate, columns, rows, size = 2048) {
  const fourier = new Fft(size);
  const window = Float64Array.from({ length: size }, (_, index) => 0.5 - 0.5 * Math.cos((2 * Math.PI * index) / size));
  const edges = Float64Array.from({ length: rows + 1 }, (_, row) => (hertz(row / rows, rate) * size) / rate);
  const piece = new Float64Array(size);
  const power = new Float64Array(size / 2 + 1);
  const sum = new Float64Array(size / 2 + 1);
  const levels = new Float32Array(columns * rows);
  let loudest = 1e-12;
  for (let column = 0; column < columns; column += 1) {
    sum.fill(0);
    for (const samples of channels) {
      const start = Math.round(((column + 0.5) * samples.length) / columns - size / 2);
      for (let index = 0; index < size; index += 1) piece[index] = (samples[start + index] ?? 0) * window[index];
      fourier.power(piece, power);
      for (let bin = 0; bin < sum.length; bin += 1) sum[bin] += power[bin];
    }
    for (let row = 0; row < rows; row += 1) {
      const value = strongest(sum, edges[row], edges[row + 1]);
      levels[column * rows + row] = value;
      if (value > loudest) loudest = value;
    }
  }
  for (let index = 0; index < levels.length; index += 1) {
    levels[index] = Math.max(FLOOR_DB, 10 * Math.log10(levels[index] / loudest + 1e-12));
  }
  return levels;
}

/** The frequency at a height from 0 to 1. */
export const hertz = (height, rate) => LOWEST_HZ * (rate / 2 / LOWEST_HZ) ** height;

/** The height from 0 to 1 of a frequency. */
export const height = (frequency, rate) => Math.log(frequency / LOWEST_HZ) / Math.log(rate / 2 / LOWEST_HZ);

function strongest(power, from, to) {
  const [first, last] = [Math.ceil(from), Math.floor(to)];
  if (last < first) {
    const below = Math.floor(from);
    const part = (from + to) / 2 - below;
    return power[below] * (1 - part) + power[Math.min(below + 1, power.length - 1)] * part;
  }
  let most = 0;
  for (let bin = first; bin <= last && bin < power.length; bin += 1) if (power[bin] > most) most = power[bin];
  return most;
}

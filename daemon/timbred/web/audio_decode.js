// Decoding of audio files. WAV and AIFF are read here bit-exactly; the browser decodes all other formats.

/** @typedef {{rate: number, frames: number, channels: Float32Array[]}} Sound */

/** Decodes a file; `rate` is used for formats that the browser decodes. */
export async function decode(bytes, rate) {
  const view = new DataView(bytes);
  const kind = bytes.byteLength >= 12 ? letters(view, 0) + letters(view, 8) : "";
  if (kind === "RIFFWAVE" || kind === "RF64WAVE") return readWave(view);
  if (kind === "FORMAIFF" || kind === "FORMAIFC") return readAiff(view);
  const decoded = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, index) => decoded.getChannelData(index));
  return { rate: decoded.sampleRate, frames: decoded.length, channels };
}

const letters = (view, at) => String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset + at, 4));

function* chunks(view, little) {
  let at = 12;
  while (at + 8 <= view.byteLength) {
    const size = Math.min(view.getUint32(at + 4, little), view.byteLength - at - 8);
    yield [letters(view, at), at + 8, size];
    at += 8 + size + (size % 2);
  }
}

function readWave(view) {
  let form = null;
  for (const [name, at, size] of chunks(view, true)) {
    if (name === "fmt ") form = waveForm(view, at, size);
    if (name === "data" && form) return samples(view, at, size, { ...form, little: true });
  }
  throw new Error("this WAV file has no audio data");
}

function waveForm(view, at, size) {
  const tag = view.getUint16(at, true);
  const kind = tag === 0xfffe && size >= 26 ? view.getUint16(at + 24, true) : tag;
  return {
    float: kind === 3,
    count: view.getUint16(at + 2, true),
    rate: view.getUint32(at + 4, true),
    bits: view.getUint16(at + 14, true),
  };
}

function readAiff(view) {
  let form = null;
  for (const [name, at, size] of chunks(view, false)) {
    if (name === "COMM") form = aiffForm(view, at, size);
    if (name === "SSND" && form) return samples(view, at + 8, size - 8, form);
  }
  throw new Error("this AIFF file has no audio data");
}

function aiffForm(view, at, size) {
  const coding = size >= 22 ? letters(view, at + 18) : "NONE";
  return {
    float: coding.toLowerCase() === "fl32" || coding.toLowerCase() === "fl64",
    little: coding === "sowt",
    count: view.getUint16(at, false),
    bits: view.getUint16(at + 6, false),
    rate: extended(view, at + 8),
  };
}

/** Reads the 80-bit float of AIFF's rate. */
function extended(view, at) {
  const exponent = (view.getUint16(at, false) & 0x7fff) - 16383;
  return (view.getUint32(at + 2, false) + view.getUint32(at + 6, false) / 2 ** 32) * 2 ** (exponent - 31);
}

function samples(view, start, size, { float, little, count, bits, rate }) {
  const width = bits / 8;
  const read = reader(view, float, bits, little);
  const frames = Math.floor(size / (width * count));
  const channels = Array.from({ length: count }, () => new Float32Array(frames));
  for (let channel = 0; channel < count; channel += 1) {
    const into = channels[channel];
    let at = start + channel * width;
    for (let frame = 0; frame < frames; frame += 1, at += width * count) into[frame] = read(at);
  }
  return { rate, frames, channels };
}

function reader(view, float, bits, little) {
  if (float && bits === 32) return (at) => view.getFloat32(at, little);
  if (float && bits === 64) return (at) => view.getFloat64(at, little);
  if (bits === 16) return (at) => view.getInt16(at, little) / 32768;
  if (bits === 24) {
    const [low, middle, high] = little ? [0, 1, 2] : [2, 1, 0];
    return (at) => (view.getInt8(at + high) * 65536 + view.getUint8(at + middle) * 256 + view.getUint8(at + low)) / 8388608;
  }
  if (bits === 32) return (at) => view.getInt32(at, little) / 2147483648;
  throw new Error(`samples of ${bits} bits can't be read`);
}

/** Returns minimum, maximum and RMS of each of `columns` sections, over all channels. */
export function outline(sound, columns) {
  const low = new Float32Array(columns);
  const high = new Float32Array(columns);
  const power = new Float32Array(columns);
  for (let column = 0; column < columns; column += 1) {
    const from = Math.floor((column * sound.frames) / columns);
    const to = Math.max(from + 1, Math.floor(((column + 1) * sound.frames) / columns));
    let [lowest, highest, sum, counted] = [0, 0, 0, 0];
    for (const channel of sound.channels) {
      for (let frame = from; frame < to && frame < sound.frames; frame += 1) {
        const value = channel[frame];
        if (value < lowest) lowest = value;
        if (value > highest) highest = value;
        sum += value * value;
        counted += 1;
      }
    }
    low[column] = lowest;
    high[column] = highest;
    power[column] = Math.sqrt(sum / Math.max(1, counted));
  }
  return { low, high, power };
}

// The keys of a request, read from the daemon's own schema: names, kinds, ranges and help are never written twice.

/**
 * The keys of one request.
 * Each: name, about, fallback (in words), kind (number, integer, boolean, text, choice), low, high, choices, longest.
 */
export function keysOf(schema, request) {
  const { properties, required } = schema.$defs[`request.${request}`];
  return Object.entries(properties)
    .filter(([name]) => name !== "type")
    .map(([name, property]) => ({ ...readKey(property), name, fallback: property["x-default"] ?? "", required: required.includes(name) }));
}

function readKey(property) {
  const parts = flat(property);
  const about = [property, ...parts].find((part) => part.description)?.description ?? "";
  const number = parts.find((part) => part.type === "number" || part.type === "integer");
  const choices = parts.flatMap((part) => part.enum ?? []);
  const text = parts.find((part) => part.type === "string");
  if (number) {
    return { about, kind: number.type, low: number.minimum, high: number.maximum, choices, words: choices.length > 0 || text !== undefined };
  }
  if (choices.length) return { about, kind: "choice", choices };
  if (parts.some((part) => part.type === "boolean")) return { about, kind: "boolean", choices: [] };
  return { about, kind: "text", choices: [], longest: text?.maxLength };
}

function flat(property) {
  return property.anyOf ? property.anyOf.flatMap(flat) : [property];
}

/** What a key allows, in words; a model may allow less. */
export function allowed(key, model) {
  const { low, high } = range(key, model);
  if (low === undefined || high >= 2 ** 31 - 1) return "";
  const numbers = `${low} – ${high}`;
  return key.choices.length ? `${numbers}, ${key.choices.join(", ")}` : numbers;
}

/** The lowest and highest number: the daemon's, and within that the model's. */
export function range(key, model) {
  if (key.name !== "seconds" || !model) return key;
  return { low: key.low, high: Math.min(key.high, model.max_seconds) };
}

const OF_THE_MODEL = { seconds: "default_seconds", steps: "steps", guidance: "guidance", scheduler: "scheduler", channels: "channels" };

/** What is taken when nothing is said, in words. */
export function fallback(key, model) {
  const told = model?.[OF_THE_MODEL[key.name]];
  if (told) return String(told);
  const words = key.fallback.replaceAll("`", "");
  return key.kind === "boolean" ? words.replace(/^0\b/, "off").replace(/^1\b/, "on") : words;
}

/** How far an arrow key goes. */
export function stride(key) {
  if (key.kind === "integer") return key.high - key.low > 10_000 && key.high < 2 ** 31 - 1 ? 100 : 1;
  const span = key.high - key.low;
  if (span <= 1) return 0.05;
  if (span <= 2) return 0.1;
  return span <= 50 || key.name === "seconds" ? 0.5 : 1;
}

const GROUPS = [
  ["Length in bars", ["bars", "bpm", "beats_per_bar"]],
  ["Words", ["prompt2", "mix", "weights", "transcription", "noise"]],
  ["Denoising", ["scheduler", "eta", "exact", "rank", "priority", "by"]],
  ["From a sound", ["init", "strength", "start", "end", "low", "high", "extend"]],
  ["The file", ["format", "bits", "rate", "channels", "loudness", "peak", "trim", "fade_in", "fade_out", "name", "folder"]],
  ["Playing", ["to", "voice", "gain", "pan", "speed", "out", "at", "fade"]],
];

export const IN_SIGHT = ["model", "seconds", "takes", "steps", "guidance", "seed", "loop", "preview", "negative"];

const ELSEWHERE = ["id", "prompt", "inline"];

/** Keys in groups; what this page has never heard of is offered too. */
export function grouped(keys) {
  const named = new Set([...IN_SIGHT, ...ELSEWHERE, ...GROUPS.flatMap(([, names]) => names)]);
  const rest = keys.filter((key) => !named.has(key.name)).map((key) => key.name);
  const byName = new Map(keys.map((key) => [key.name, key]));
  return [...GROUPS, ["More", rest]]
    .map(([title, names]) => [title, names.filter((name) => byName.has(name)).map((name) => byName.get(name))])
    .filter(([, found]) => found.length);
}

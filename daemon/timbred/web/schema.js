// The keys of a request, read from the daemon's schema: names, types, ranges and help.

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

/** Describes the allowed values of a key; a model may allow fewer. */
export function allowed(key, model) {
  const { low, high } = range(key, model);
  if (low === undefined || high >= 2 ** 31 - 1) return "";
  const numbers = `${low} – ${high}`;
  return key.choices.length ? `${numbers}, ${key.choices.join(", ")}` : numbers;
}

/** Returns the lowest and highest allowed number, limited by the model. */
export function range(key, model) {
  if (key.name !== "seconds" || !model) return key;
  return { low: key.low, high: Math.min(key.high, model.max_seconds) };
}

const MODEL_DEFAULTS = { seconds: "default_seconds", steps: "steps", guidance: "guidance", scheduler: "scheduler", channels: "channels" };

/** Describes the default of a key. */
export function fallback(key, model) {
  const modelDefault = model?.[MODEL_DEFAULTS[key.name]];
  if (modelDefault || (modelDefault === 0 && key.low === 0)) return String(modelDefault);
  const words = key.fallback.replaceAll("`", "");
  return key.kind === "boolean" ? words.replace(/^0\b/, "off").replace(/^1\b/, "on") : words;
}

/** Returns the step of an arrow key. */
export function stride(key) {
  if (key.kind === "integer") return key.high - key.low > 10_000 && key.high < 2 ** 31 - 1 ? 100 : 1;
  const span = key.high - key.low;
  if (span <= 1) return 0.05;
  if (span <= 2) return 0.1;
  return span <= 50 || key.name === "seconds" ? 0.5 : 1;
}

const KEY_GROUPS = [
  ["Length in bars", ["bars", "bpm", "beats_per_bar"]],
  ["Prompt", ["prompt2", "mix", "weights", "transcription", "noise"]],
  ["Denoising", ["scheduler", "eta", "exact", "rank", "priority", "by"]],
  ["Init audio", ["init", "strength", "start", "end", "low", "high", "extend"]],
  ["File", ["format", "bits", "rate", "channels", "loudness", "peak", "trim", "fade_in", "fade_out", "name", "folder"]],
  ["Playback", ["to", "voice", "gain", "pan", "speed", "out", "at", "fade"]],
];

export const VISIBLE_KEYS = ["model", "seconds", "takes", "steps", "guidance", "seed", "loop", "preview", "negative"];

const HIDDEN_KEYS = ["id", "prompt", "inline"];

/** Returns the keys in groups; keys unknown to this page are in the last one. */
export function groupKeys(keys) {
  const named = new Set([...VISIBLE_KEYS, ...HIDDEN_KEYS, ...KEY_GROUPS.flatMap(([, names]) => names)]);
  const rest = keys.filter((key) => !named.has(key.name)).map((key) => key.name);
  const byName = new Map(keys.map((key) => [key.name, key]));
  return [...KEY_GROUPS, ["More", rest]]
    .map(([title, names]) => [title, names.filter((name) => byName.has(name)).map((name) => byName.get(name))])
    .filter(([, group]) => group.length);
}

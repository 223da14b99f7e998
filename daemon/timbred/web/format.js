// Formatting of numbers and times.

export const seconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;

export function duration(value) {
  if (value < 90) return seconds(value);
  const minutes = Math.floor(value / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Formats megabytes, from 10,000 on in GB. */
export const memory = (mb) => (mb >= 10_000 ? `${(mb / 1000).toFixed(1)} GB` : `${Math.round(mb)} MB`);

export const kilohertz = (hz) => `${Number((hz / 1000).toFixed(2))} kHz`;

export const many = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

export const clock = (time = new Date()) => time.toLocaleTimeString("en-GB");

/** Formats the time since a unix time. */
export function ago(unix, now = Date.now() / 1000) {
  const elapsed = Math.max(0, now - unix);
  if (elapsed < 60) return "now";
  if (elapsed < 3600) return `${Math.floor(elapsed / 60)} min`;
  if (elapsed < 86_400) return `${Math.floor(elapsed / 3600)} h`;
  if (elapsed < 7 * 86_400) return `${Math.floor(elapsed / 86_400)} d`;
  return new Date(unix * 1000).toISOString().slice(0, 10);
}

/** Formats a position in a sound: 0:01.25 */
export function moment(value) {
  const minutes = Math.floor(value / 60);
  return `${minutes}:${(value - 60 * minutes).toFixed(2).padStart(5, "0")}`;
}

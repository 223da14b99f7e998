// Questions over HTTP: answers are JSON, refusals are errors with the daemon's own code and message.

export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function answered(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refused("gone", "timbred doesn't answer; when it is back, ask again");
  }
  const found = await answer.json();
  if (!answer.ok) throw new Refused(found.code, found.message);
  return found;
}

export const session = () => answered("/panel/session");

export const vocabulary = () => answered("/schema.json");

export const take = (id) => answered(`/panel/takes/${encodeURIComponent(id)}`);

export function takes({ search = "", starred = false, like = null, before = null, limit = 50 } = {}) {
  const asked = new URLSearchParams({ search, limit: String(limit) });
  if (starred) asked.set("starred", "1");
  if (like !== null) asked.set("like", like);
  if (before !== null) asked.set("before", before);
  return answered(`/panel/takes?${asked}`);
}

export const star = (id, on) => answered(`/panel/takes/${encodeURIComponent(id)}/star`, { method: on ? "PUT" : "DELETE" });

/** A file's bytes. */
export async function bytes(url) {
  let answer;
  try {
    answer = await fetch(url);
  } catch {
    throw new Refused("gone", "timbred doesn't answer, so the file can't be fetched");
  }
  if (answer.ok) return answer.arrayBuffer();
  if (answer.headers.get("content-type")?.startsWith("application/json")) {
    const { code, message } = await answer.json();
    throw new Refused(code, message);
  }
  throw new Refused("bad-audio", `the file isn't there (${answer.status})`);
}

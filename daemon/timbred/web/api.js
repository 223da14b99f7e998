// HTTP requests to the daemon. Responses are JSON; failures become errors with the daemon's code and message.

export class ApiError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function fetchJson(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ApiError("not-connected", "timbred doesn't respond; try again when it is running");
  }
  const content = await response.json();
  if (!response.ok) throw new ApiError(content.code, content.message);
  return content;
}

export const session = () => fetchJson("/panel/session");

export const vocabulary = () => fetchJson("/schema.json");

export const take = (id) => fetchJson(`/panel/takes/${encodeURIComponent(id)}`);

export function takes({ search = "", starred = false, like = null, before = null, limit = 50 } = {}) {
  const parameters = new URLSearchParams({ search, limit: String(limit) });
  if (starred) parameters.set("starred", "1");
  if (like !== null) parameters.set("like", like);
  if (before !== null) parameters.set("before", before);
  return fetchJson(`/panel/takes?${parameters}`);
}

export const star = (id, on) => fetchJson(`/panel/takes/${encodeURIComponent(id)}/star`, { method: on ? "PUT" : "DELETE" });

/** Fetches a file's bytes. */
export async function bytes(url) {
  let response;
  try {
    response = await fetch(url);
  } catch {
    throw new ApiError("not-connected", "timbred doesn't respond, so the file can't be loaded");
  }
  if (response.ok) return response.arrayBuffer();
  if (response.headers.get("content-type")?.startsWith("application/json")) {
    const { code, message } = await response.json();
    throw new ApiError(code, message);
  }
  throw new ApiError("bad-audio", `the file doesn't exist (${response.status})`);
}

// Dragging a take out of the browser: hosts and file managers get the file, text fields its path.

const TYPES = { wav: "audio/wav", flac: "audio/flac", aiff: "audio/aiff", ogg: "audio/ogg" };

/** Returns the data of a drag by format: Chromium's for files at an address, and the file on this disk. */
export function carried(take, origin) {
  const ending = take.name.split(".").pop().toLowerCase();
  const address = new URL(take.url, origin).href;
  return {
    DownloadURL: `${TYPES[ending] ?? "application/octet-stream"}:${take.name}:${address}?save`,
    "text/uri-list": fileAddress(take.path),
    "text/plain": take.path,
  };
}

export function dragOut(event, take) {
  if (!take?.url || take.missing) {
    event.preventDefault();
    return;
  }
  event.dataTransfer.effectAllowed = "copy";
  for (const [format, value] of Object.entries(carried(take, location.origin))) event.dataTransfer.setData(format, value);
}

/** Returns the file:///... address of a path on this machine, also on Windows. */
export function fileAddress(path) {
  const parts = path.replaceAll("\\", "/").split("/").map(encodeURIComponent);
  return `file://${path.startsWith("/") ? "" : "/"}${parts.join("/").replace("%3A/", ":/")}`;
}

"""Sounds as files over HTTP: whole or in part, never run as a page, never out of date."""

import mimetypes
from pathlib import Path

from starlette.responses import FileResponse

TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".aiff": "audio/aiff", ".ogg": "audio/ogg"}
"""What the kinds of files that timbred writes are called; the system's own table knows some by other names."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # whatever lies in the folder, it is no page of the daemon's and runs no script as one
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
"""For what is never changed: a take's name is used once."""

ASK_AGAIN = {"Cache-Control": "no-cache"}
"""For what may change: the copy that a browser has is used only after asking."""


def file_of(path: Path, *, keep: bool, save: bool = False) -> FileResponse:
    """A file, whole or the ranges that were asked for.

    Args:
        path: must be a file.
        keep: it never changes, so that it needs to be fetched once only.
        save: the browser shall store it under its name instead of showing it.
    """
    kind = TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return FileResponse(
        path,
        media_type=kind,
        filename=path.name,
        content_disposition_type="attachment" if save else "inline",
        headers={**HEADERS, **(FOREVER if keep else ASK_AGAIN)},
    )

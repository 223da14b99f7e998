"""The panel: one page with its styles and scripts, as package files. `timbred.transports.web_api` serves it."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

PAGE = "index.html"

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Content types by file extension."""


@dataclass(frozen=True)
class Asset:
    """One file of the page. `mark` is its HTTP ETag, which changes with the content."""

    content: bytes
    type: str
    mark: str


def assets() -> dict[str, Asset]:
    """Return every file of the page by its name."""
    assets_by_name: dict[str, Asset] = {}
    for file in files(__name__).iterdir():
        extension = "." + file.name.rpartition(".")[2]
        if extension in CONTENT_TYPES:
            content = file.read_bytes()
            assets_by_name[file.name] = Asset(
                content, CONTENT_TYPES[extension], f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            )
    return assets_by_name

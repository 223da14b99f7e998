"""The panel: one page with its styles and scripts, as they lie in this package. Who serves it: `transports.panel`."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

PAGE = "index.html"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The panel's kinds of files and what they are called over HTTP."""


@dataclass(frozen=True)
class Asset:
    """One file of the page. `mark` changes with its content, and is an HTTP ETag."""

    content: bytes
    type: str
    mark: str


def assets() -> dict[str, Asset]:
    """Every file of the page by its name."""
    found: dict[str, Asset] = {}
    for file in files(__name__).iterdir():
        ending = "." + file.name.rpartition(".")[2]
        if ending in TYPES:
            content = file.read_bytes()
            found[file.name] = Asset(content, TYPES[ending], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found

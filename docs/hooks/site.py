"""Hooks of the documentation site: pages that lie outside of `docs`, and links to files that are no pages."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "training/README.md": "training.md",
    "training/LOG.md": "training-log.md",
}
"""Pages by their path in the repository, and their path in the site."""

ASSETS = ("training/curves.svg",)
"""Pictures outside of `docs` that pages show; they keep their paths."""

LINK = re.compile(r"(?P<image>!?)\[(?P<label>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures from outside of `docs`."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    for asset in ASSETS:
        files.append(File.generated(config, asset, abs_src_path=str(ROOT / asset)))
    return files


def on_page_markdown(markdown: str, page: Page, **_options: Any) -> str:
    """Point links at pages of the site; a link to any other file becomes its label."""
    place = page.file.src_uri
    source = next((path for path, uri in PAGES.items() if uri == place), f"docs/{place}")
    parts = CODE.split(markdown)
    for number in range(0, len(parts), 2):
        parts[number] = LINK.sub(lambda match: _link_in_site(match, source, place), parts[number])
    return "".join(parts)


def _link_in_site(match: re.Match[str], source: str, place: str) -> str:
    target, _, anchor = match["target"].partition("#")
    if not target or "://" in target:
        return match.group()
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path in PAGES:
        uri = PAGES[path]
    elif path.startswith("docs/"):
        uri = path.removeprefix("docs/")
    elif path in ASSETS:
        uri = path
    else:
        return match["label"]
    link = posixpath.relpath(uri, posixpath.dirname(place) or ".") + (f"#{anchor}" if anchor else "")
    return f"{match['image']}[{match['label']}]({link})"

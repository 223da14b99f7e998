"""The panel's guide tells what the page does: its keys, its errors, its addresses; and nothing more."""

import re
from pathlib import Path

from timbred.errors import CODES
from timbred.transports.web_api import WebApi, assets

PAGE = (Path(__file__).parents[2] / "docs" / "panel.md").read_text("utf-8")


def table(heading: str, column: str) -> list[tuple[str, str]]:
    """The rows of the first table under a heading whose first column is called so."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = part.partition(f"| {column} |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `(.+?)` \| (.+?) \|$", rows, re.MULTILINE)


def test_panel_guide_keys_are_the_pages_own() -> None:
    source = assets()["shortcuts.js"].content.decode()
    declared = source.partition("SHORTCUTS = [")[2].partition("\n];")[0]
    assert table("Keys", "Key") == re.findall(r'^  \["(.+?)", "(.+?)", (?:"\w+"|null)\],$', declared, re.MULTILINE)
    assert declared.count("\n  [") == len(table("Keys", "Key"))


def test_panel_guide_has_a_remedy_for_every_error_code() -> None:
    assert [code for code, _ in table("Troubleshooting", "Code")] == list(CODES)


def test_panel_guide_addresses_are_served() -> None:
    served = {route.path for route in WebApi(Path(), None).routes()}
    notifications = set(re.findall(r"`(?:GET |PUT`, `DELETE )(/panel/[\w/]+)", PAGE))
    as_told = {re.sub(r"\{id\}", "ID", re.sub(r"\{name\}", "NAME", path)) for path in served}
    assert notifications == as_told - {"/panel/NAME"}

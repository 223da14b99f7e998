"""The guide's pages for Max and Live say what the devices have and say."""

import re

import pytest

from max_patches.generate import DEVICES, PICTURES, ROOT, files
from timbred.errors import CODES

PAGES = ("max", "ableton-live")


def read(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_pages_have_each_error_code_with_its_remedy(page: str) -> None:
    table = read(page).partition("## Error codes")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", table, re.MULTILINE))
    assert set(CODES) <= set(rows)
    assert set(rows) - set(CODES) <= {"timeout"}


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_what_was_not_tested(page: str) -> None:
    assert re.search(r"not\s+been\s+opened\s+in\s+(Max|Live)", read(page))


def test_pages_show_every_generated_picture() -> None:
    shown = {name for page in PAGES for name in re.findall(r"\(pictures/([\w-]+\.svg)\)", read(page))}
    assert shown == {path.name for path in files() if path.parent == PICTURES}


def test_pages_explain_what_the_scripts_print() -> None:
    said = "".join((ROOT / "max_patches/timbred" / name).read_text("utf-8") for name in SCRIPTS_THAT_SPEAK)
    lines = re.findall(r"^\| `([^`]+)` \|", read("ableton-live").partition("| Message |")[2].partition("\n\n")[0], re.M)
    assert len(lines) >= 7
    for line in lines:
        words = re.sub(r"127\.0\.0\.1:7770|11\.3\.25|\.\.\.", "", line)
        first = max(re.split(r"  +", words), key=len).strip()
        longest = max((part for part in re.split(r"Live | on $", first)), key=len).strip()
        assert longest.rstrip() in said, line


SCRIPTS_THAT_SPEAK = ("timbred-desk.js", "timbred-clips.js", "timbred-conversation.js")


@pytest.mark.parametrize(("module", "kind"), DEVICES, ids=lambda part: getattr(part, "NAME", part))
def test_pages_name_every_button_and_knob(module: object, kind: str) -> None:
    text = read("ableton-live").lower()
    build = getattr(module, "build")  # noqa: B009
    for box in build().faces:
        if box.maxclass in ("live.text", "live.comment") and not re.search(
            r"[A-G]#?1$|^-$|connecting|no init|come from", box.text
        ):
            assert f"**{box.text.lower()}**" in text or f"`{box.text}`" in text, box.text

"""The patches of the Pure Data bridge as files: made from the vocabulary, whole, and readable when opened."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bridges.puredata.source.help import NOT_FROM_PD, key_line
from bridges.puredata.source.patch import Patch, escaped
from tests.bridges.puredata_files import Box, Canvas, read
from tests.patience import TIMEOUT_S
from timbred.errors import CODES
from timbred.protocol import messages as m
from timbred.protocol.describe import keys_of
from timbred.protocol.schema import REQUESTS

FOLDER = Path(__file__).parents[2] / "bridges" / "puredata"
PATCHES = sorted(FOLDER.glob("*.pd"))
CANVASES = [pytest.param(canvas, id=f"{path.name}/{canvas.name}") for path in PATCHES for canvas in read(path)]
WITHOUT_CORDS = ("text", "declare", "table", "define")


def test_puredata_source_makes_the_files(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "bridges.puredata.source", str(tmp_path)],
        cwd=FOLDER.parents[1],
        check=True,
        timeout=TIMEOUT_S,
    )
    made = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert "timbred.pd" in made
    for name, text in made.items():
        assert (FOLDER / name).read_text("utf-8") == text, f"{name}: run python -m bridges.puredata.source"


@pytest.mark.parametrize("canvas", CANVASES)
def test_puredata_source_places_boxes_apart_and_in_sight(canvas: Canvas) -> None:
    for one, other in itertools.combinations(canvas.boxes, 2):
        assert not one.covers(other), f"{one} and {other}"
    for box in canvas.boxes:
        assert box.x + box.width <= canvas.width, box
        assert box.y + box.height <= canvas.height, box


@pytest.mark.parametrize("canvas", CANVASES)
def test_puredata_source_connects_every_cord_and_box(canvas: Canvas) -> None:
    ends = [end for cord in canvas.cords for end in (cord[0], cord[2])]
    assert all(end < len(canvas.boxes) for end in ends)
    assert len(set(canvas.cords)) == len(canvas.cords)
    for number, box in enumerate(canvas.boxes):
        assert number in ends or _stands_alone(box), box


def _stands_alone(box: Box) -> bool:
    if box.kind in ("text", "floatatom", "bng", "tgl", "hsl"):
        return True
    return (box.kind == "msg" and box.text.startswith(";")) or box.text.startswith(("pd ", "table ", "text define "))


def test_puredata_source_help_names_every_request_key_and_code() -> None:
    words = " ".join(box.text for canvas in read(FOLDER / "timbred-help.pd") for box in canvas.boxes)
    for entry in REQUESTS:
        assert f"{entry.name}/NAME" in words if entry.family else f"{entry.name}" in words
    for code in CODES:
        assert f"{code}: " in words
    for key in keys_of(m.Generate):
        assert f"@{key.name}: " in words or key.name in NOT_FROM_PD
    seconds = next(key for key in keys_of(m.Generate) if key.name == "seconds")
    assert key_line(seconds) == "@seconds: length in seconds (a number from 0.05 to 600; default the model's)"


def test_patch_refuses_an_invalid_drawing() -> None:
    with pytest.raises(ValueError, match="neither a box nor a cord"):
        Patch(100, 100).draw("20 20 somewhere")
    with pytest.raises(ValueError, match="no box is called"):
        Patch(100, 100).draw("20 20 a: inlet\na > b")
    with pytest.raises(ValueError, match="two boxes"):
        Patch(100, 100).draw("20 20 a: inlet\n20 50 a: outlet")


def test_escaped_text_is_read_by_pd() -> None:
    assert escaped("0, $1 20") == "0 \\, \\$1 20"
    assert escaped("; pd dsp 1") == " \\; pd dsp 1"


@pytest.mark.parametrize("guide", ["puredata", "supercollider"])
def test_puredata_source_guides_have_every_error_code(guide: str) -> None:
    text = (FOLDER.parents[1] / "docs" / f"{guide}.md").read_text("utf-8")
    reported = set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE))
    assert reported == {*CODES, "timeout"}

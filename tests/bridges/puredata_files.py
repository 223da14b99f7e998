"""Reads Pure Data's files as far as a picture of the patch goes: boxes, their sizes on the screen, cords."""

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

CHARACTER, LINE, EDGE = 7, 15, 6
"""Pixels of Pd's font at size 12, and of a box around its text."""

LONGEST_LINE = 60
"""Characters after which Pd wraps a box's text by itself."""

_COMMAND = re.compile(r"(#[XNA].*?[^\\]);\n", re.DOTALL)


@dataclass(frozen=True)
class Box:
    """A box and the rectangle that it covers."""

    kind: str
    text: str
    x: int
    y: int
    width: int
    height: int

    def covers(self, other: "Box") -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


@dataclass
class Canvas:
    """A patch or a part of one."""

    name: str
    width: int
    height: int
    boxes: list[Box] = field(default_factory=list[Box])
    cords: list[tuple[int, int, int, int]] = field(default_factory=list[tuple[int, int, int, int]])
    face: tuple[int, int] | None = None


def read(path: Path) -> list[Canvas]:
    """All canvases of a file, the outermost last."""
    open_canvases: list[Canvas] = []
    found: list[Canvas] = []
    for command in _COMMAND.findall(path.read_text("utf-8")):
        words = command.replace("\n", " ").split(" ")
        match words[:2]:
            case ["#N", "canvas"]:
                name = words[6] if len(words) > 7 else path.name
                open_canvases.append(Canvas(name, int(words[4]), int(words[5])))
            case ["#X", "connect"]:
                source, outlet, target, inlet = map(int, words[2:6])
                open_canvases[-1].cords.append((source, outlet, target, inlet))
            case ["#X", "restore"]:
                inner = open_canvases.pop()
                found.append(inner)
                open_canvases[-1].boxes.append(_text_box("obj", int(words[2]), int(words[3]), " ".join(words[4:])))
            case ["#X", "coords"]:
                open_canvases[-1].face = int(words[6]), int(words[7])
            case ["#X", kind]:
                open_canvases[-1].boxes.append(_box(kind, words[2:], path.parent))
            case other:
                raise AssertionError(f"what is {other} in {path}?")
    return [*found, *open_canvases]


def _box(kind: str, words: list[str], folder: Path) -> Box:
    x, y, *rest = words
    if kind == "floatatom":
        return Box(kind, "", int(x), int(y), int(rest[0]) * CHARACTER + EDGE, LINE + EDGE)
    if kind == "obj" and rest[0] in ("bng", "tgl"):
        return Box(rest[0], "", int(x), int(y), int(rest[1]), int(rest[1]))
    if kind == "obj" and rest[0] == "hsl":
        return Box("hsl", "", int(x), int(y), int(rest[1]), int(rest[2]))
    if kind == "obj" and (face := _face(folder / f"{rest[0]}.pd")):
        return Box("obj", " ".join(rest), int(x), int(y), *face)
    return _text_box(kind, int(x), int(y), " ".join(rest))


def _face(path: Path) -> tuple[int, int] | None:
    return read(path)[-1].face if path.exists() else None


def _text_box(kind: str, x: int, y: int, text: str) -> Box:
    shown = re.sub(r"\\([$,;\\])", r"\1", text.replace(" \\,", ",").replace(" \\;", ";\n" if kind == "msg" else ";"))
    wide = LONGEST_LINE
    if found := re.search(r", f (\d+)$", shown):
        wide, shown = int(found[1]), shown[: found.start()]
    lines = [line for part in shown.split("\n") for line in textwrap.wrap(part, wide) or [""]]
    columns = max(3, *map(len, lines))
    return Box(kind, shown, x, y, columns * CHARACTER + EDGE, len(lines) * LINE + EDGE)

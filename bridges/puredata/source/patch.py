"""Construction of Pure Data patches from a text notation.

A drawing has a line for each box, with its position in pixels from the upper left corner, and a line for each chain
of cords. A number after a dot is the index of an outlet or inlet other than the first.

    20 40 in: inlet                 an object, here called `in`
    20 70 hello( connect $1 $2      a message
    20 99 # A comment.              a comment
    in > hello > out.1              cords

Dollar signs, commas and semicolons are written as Pd shows them; `escaped` converts them to the file's form.
"""

import itertools
import re
import textwrap
from dataclasses import dataclass, field

FONT_SIZE = 12
COMMENT_WIDTH = 100
"""Maximum length of a line of a comment."""

_COLOURS = "#fcfcfc #000000 #000000"
_BOX = re.compile(r"(\d+) (\d+) (?:(\w+)([:(]) |# )(.+)")
_END = re.compile(r"(\w+)(?:\.(\d+))?")


@dataclass
class Patch:
    """A patch, or a part of one, `width` by `height` pixels."""

    width: int
    height: int
    name: str = ""
    face: tuple[int, int, int, int] | None = None
    """The visible area as a box on another patch: left, top, width, height."""
    _lines: list[str] = field(default_factory=list[str])
    _cords: list[str] = field(default_factory=list[str])
    _numbers: dict[str, int] = field(default_factory=dict[str, int])

    def draw(self, drawing: str) -> None:
        """Add boxes and cords.

        Raises:
            ValueError: A line is neither a box nor a chain, or a cord ends at an unknown box.
        """
        for line in filter(None, map(str.strip, drawing.splitlines())):
            if match := _BOX.fullmatch(line):
                x, y, name, kind, text = match.groups()
                self._draw_box(int(x), int(y), name, kind, text)
            elif " > " in line:
                self._draw_cords(line.split(" > "))
            else:
                raise ValueError(f"neither a box nor a cord: {line!r}")

    def _draw_box(self, x: int, y: int, name: str | None, kind: str | None, text: str) -> None:
        if kind is None:
            self.comment(x, y, text)
        else:
            self._add(f"#X {'msg' if kind == '(' else 'obj'} {x} {y} {escaped(text)}", name or "")

    def _draw_cords(self, ends: list[str]) -> None:
        for source, target in itertools.pairwise(ends):
            box, outlet = self._end(source)
            other, inlet = self._end(target)
            self._cords.append(f"#X connect {box} {outlet} {other} {inlet};")

    def _end(self, text: str) -> tuple[int, int]:
        match = _END.fullmatch(text.strip())
        if match is None or match[1] not in self._numbers:
            raise ValueError(f"no box is called {text!r}")
        return self._numbers[match[1]], int(match[2] or 0)

    def comment(self, x: int, y: int, text: str, width: int = COMMENT_WIDTH) -> None:
        """Add a comment, in lines of at most `width` characters. Semicolons, which would end a line, become commas."""
        text = text.replace(";", ",")
        longest = max(len(line) for line in textwrap.wrap(text, width))
        self._add(f"#X text {x} {y} {escaped(text)}, f {longest + 1}")

    def number(self, name: str, x: int, y: int, sends: str = "", receives: str = "") -> None:
        """Add a number box. It sends to the name `sends` and receives from the name `receives`."""
        self._add(f"#X floatatom {x} {y} 5 0 0 0 - {_named(receives, '-')} {_named(sends, '-')} 0", name)

    def toggle(self, name: str, x: int, y: int, size: int = 20, sends: str = "", receives: str = "") -> None:
        """Add a toggle; `sends` and `receives` as for `number`."""
        names = f"{_named(sends)} {_named(receives)} empty"
        self._add(f"#X obj {x} {y} tgl {size} 0 {names} 17 7 0 {FONT_SIZE} {_COLOURS} 0 1", name)

    def button(self, name: str, x: int, y: int, size: int = 20, sends: str = "") -> None:
        """Add a button that sends a bang."""
        names = f"{_named(sends)} empty empty"
        self._add(f"#X obj {x} {y} bng {size} 250 50 0 {names} 17 7 0 {FONT_SIZE} {_COLOURS}", name)

    def slider(self, name: str, x: int, y: int, width: int, height: int, sends: str = "", receives: str = "") -> None:
        """Add a horizontal slider from 0 to 1."""
        names = f"{_named(sends)} {_named(receives)} empty"
        self._add(f"#X obj {x} {y} hsl {width} {height} 0 1 0 0 {names} -2 -8 0 {FONT_SIZE} {_COLOURS} 0 1", name)

    def part(self, name: str, x: int, y: int, inner: "Patch") -> None:
        """Add a subpatch."""
        whole = "\n".join(inner.lines(f"#N canvas 100 100 {inner.width} {inner.height} {inner.name} 0;"))
        self._add(f"{whole}\n#X restore {x} {y} pd {inner.name}", name)

    def lines(self, head: str) -> list[str]:
        """Return the lines of the file, after its first line `head`."""
        if self.face is None:
            return [head, *self._lines, *self._cords]
        x, y, width, height = self.face
        return [head, *self._lines, *self._cords, f"#X coords 0 -1 1 1 {width} {height} 2 {x} {y};"]

    def text(self) -> str:
        """Return the text of the file."""
        return "\n".join(self.lines(f"#N canvas 60 60 {self.width} {self.height} {FONT_SIZE};")) + "\n"

    def _add(self, line: str, name: str = "") -> None:
        if name in self._numbers:
            raise ValueError(f"two boxes are called {name!r}")
        number = len(self._lines)
        if name:
            self._numbers[name] = number
        self._lines.append(line + ";")


def _named(name: str, none: str = "empty") -> str:
    return escaped(name) or none


def escaped(text: str) -> str:
    r"""Return a text as it is written in a file.

    >>> print(escaped("0, $1 20"))
    0 \, \$1 20
    """
    text = text.replace("\\", "\\\\").replace("$", "\\$")
    return re.sub(r"([,;])", r" \\\1", text)

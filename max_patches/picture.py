"""Drawing of a device's presentation view, from the description from which the device is built.

It is a drawing, not a screenshot: Live's fonts and colours depend on its theme.
"""

from collections.abc import Callable
from html import escape

from max_patches.objects import SIGNAL
from max_patches.patcher import (
    BLOB,
    CHOICE,
    DECIBELS,
    DEVICE_HEIGHT,
    NOTE,
    NUMBER,
    PERCENT,
    SEMITONES,
    TIME,
    TWO_PLACES,
    Box,
    Parameter,
    Patch,
    Rectangle,
)

SURFACE, FIELD, LINE, INK, QUIET, ACCENT, BUTTON = (
    "#8c8c8c", "#2a2a2a", "#1e1e1e", "#0d0d0d", "#d8d8d8", "#ffb532", "#b4b4b4",
)  # fmt: skip
TITLE = 18.0
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

EXAMPLES = {
    "timbred instrument": {
        "textedit": ("warm analog pad, slow and wide", ""),
        "umenu": ("warm analog pad, 41", "default"),
        "number": ("1207959552", "7770"),
        "connecting to timbred": "1 take",
        "progress": (0.0,),
    },
    "timbred instrument, away": {
        "textedit": ("warm analog pad, slow and wide", ""),
        "umenu": ("warm analog pad, 41", "default"),
        "number": ("1207959552", "7780"),
        "connecting to timbred": "timbred doesn't answer on 127.0.0.1:7780: "
        'start it with "timbred serve", or set the port from its ready line',
        "progress": (0.0,),
    },
    "timbred clip": {
        "textedit": ("dusty shaker loop, tape hiss", ""),
        "umenu": ("dusty shaker loop, 7", "default"),
        "number": ("7", "7770"),
        "connecting to timbred": "62 %, 2 s left",
        "progress": (0.62,),
        "tempo, meter and key come from Live": "124 bpm  ·  4/4  ·  A minor",
    },
    "timbred drum": {
        "textedit": (
            "deep punchy kick drum", "tight snare with a short tail", "closed hi-hat, dry", "open hi-hat, bright",
            "wooden rim click", "low tom", "glass shaker", "vinyl crackle hit",
        ),
        "umenu": ("default", "deep punchy kick, 3"),
        "number": ("7770",),
        "-": "1/1",
        "connecting to timbred": "35 %, 1 s left",
        "progress": (0.0, 0.35, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    },
}  # fmt: skip
"""The field values of each picture, in the order of the fields."""


class _Example:
    """Values of the fields, in order."""

    def __init__(self, name: str) -> None:
        self.words = EXAMPLES[name]
        self._given: dict[str, int] = {}

    def next(self, kind: str) -> str:
        listed = self.words.get(kind, ())
        index = self._given.get(kind, 0)
        self._given[kind] = index + 1
        return str(listed[index]) if isinstance(listed, tuple) and index < len(listed) else ""

    def label(self, text: str) -> str:
        return str(self.words.get(text, text))


def draw(patch: Patch, scene: str = "") -> str:
    """Return the device as SVG, with a title bar as in Live. `scene` is one of `EXAMPLES`; if empty, the device's."""
    example = _Example(scene or patch.name)
    width, height = patch.width, DEVICE_HEIGHT + TITLE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * width:g}" height="{2 * height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="Arial, Helvetica, sans-serif" font-size="9">',
        f"<title>{escape(patch.name)}</title>",
        _rectangle((0, 0, width, height), SURFACE, radius=5),
        _rectangle((0, 0, width, TITLE), "#787878", radius=5),
        f'<circle cx="10" cy="9" r="4.5" fill="{ACCENT}"/>',
        _words(patch.name, (20, 1, width - 24, 16), INK, bold=True),
        f'<g transform="translate(0 {TITLE:g})">',
        *(_drawn(box, example) for box in patch.faces),
        "</g></svg>\n",
    ]
    return "\n".join(parts)


def draw_patching(patch: Patch) -> str:
    """Return a patch as SVG, as Max shows it: boxes and cords."""
    width = max(box.place[0] + box.place[2] for box in patch.boxes) + 20
    height = max(box.place[1] + box.place[3] for box in patch.boxes) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{1.5 * width:g}" height="{1.5 * height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="Arial, Helvetica, sans-serif" font-size="10">',
        f"<title>{escape(patch.name)}</title>",
        _rectangle((0, 0, width, height), "#e5e5e5", radius=0),
        *(_cord(source, outlet, destination, inlet) for (source, outlet), (destination, inlet) in patch.cords),
        *map(_patching_box, patch.boxes),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _cord(source: Box, outlet: int, destination: Box, inlet: int) -> str:
    x, y = _hole(source, outlet, len(source.ports.outlets))
    to_x, to_y = _hole(destination, inlet, destination.ports.inlets)
    signal = source.ports.outlets[outlet] == SIGNAL
    colour, width = ("#c8b400", 2.0) if signal else ("#707070", 1.0)
    y += source.place[3]
    bend = max(12.0, abs(to_y - y) / 2)
    path = f"M{x:g} {y:g}C{x:g} {y + bend:g} {to_x:g} {to_y - bend:g} {to_x:g} {to_y:g}"
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'


def _hole(box: Box, index: int, count: int) -> tuple[float, float]:
    x, y, w, _ = box.place
    return (x + 8 + (w - 16) * (index / (count - 1) if count > 1 else 0), y)


def _patching_box(box: Box) -> str:
    if box.maxclass == "comment":
        return _words(box.text, box.place, INK)
    fill = "#bdbdbd" if box.maxclass == "message" else FIELD
    words = box.text or {"multislider": "", "ezdac~": "audio"}.get(box.maxclass, box.maxclass)
    ink = INK if box.maxclass == "message" else QUIET
    return _rectangle(box.place, fill, radius=4 if box.maxclass == "message" else 2) + _words(words, box.place, ink)


def _drawn(box: Box, example: _Example) -> str:
    assert box.face is not None
    return _FACES[box.maxclass](box, box.face, example)


def _rectangle(face: Rectangle, fill: str, *, radius: float = 2, line: str = "none") -> str:
    x, y, w, h = face
    place = f'x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius:g}"'
    return f'<rect {place} fill="{fill}" stroke="{line}" stroke-width="0.7"/>'


def _words(words: str, face: Rectangle, colour: str, *, anchor: str = "start", bold: bool = False) -> str:
    x, y, w, h = face
    at = {"start": x + 3, "middle": x + w / 2, "end": x + w - 3}[anchor]
    weight = ' font-weight="bold"' if bold else ""
    place = f'x="{at:g}" y="{y + h / 2 + 3.3:g}"'
    return f'<text {place} fill="{colour}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'


def _lines(words: str, across: float) -> list[str]:
    text_lines = [""]
    for word in words.split():
        if text_lines[-1] and (len(text_lines[-1]) + len(word) + 1) * 5.0 > across:
            text_lines.append(word)
        else:
            text_lines[-1] = f"{text_lines[-1]} {word}".strip()
    return text_lines


def _textedit(_: Box, face: Rectangle, example: _Example) -> str:
    x, y, w, _h = face
    svg_parts = [_rectangle(face, FIELD, line=LINE)]
    for index, words in enumerate(_lines(example.next("textedit"), w - 6)):
        svg_parts.append(_words(words, (x, y + 1 + 12 * index, w, 14), QUIET))
    return "".join(svg_parts)


def _comment(box: Box, face: Rectangle, example: _Example) -> str:
    anchor = "end" if box.attributes.get("textjustification") == 2 else "start"
    return _words(example.label(box.text), face, INK, anchor=anchor)


def _text(box: Box, face: Rectangle, _: _Example) -> str:
    on = box.attributes["mode"] == 1 and box.parameter is not None and bool(box.parameter.initial)
    fill = ACCENT if on else BUTTON
    return _rectangle(face, fill, line=LINE) + _words(box.text, face, INK, anchor="middle")


def _tab(box: Box, face: Rectangle, _: _Example) -> str:
    assert box.parameter is not None
    x, y, w, h = face
    step = w / len(box.parameter.choices)
    svg_parts: list[str] = []
    for index, words in enumerate(box.parameter.choices):
        place = (x + step * index, y, step - 1, h)
        svg_parts += [
            _rectangle(place, BUTTON if index else ACCENT, line=LINE),
            _words(words, place, INK, anchor="middle"),
        ]
    return "".join(svg_parts)


def _menu(box: Box, face: Rectangle, example: _Example) -> str:
    x, y, w, h = face
    words = example.next("umenu") if box.parameter is None else box.parameter.choices[0]
    arrow = f'<path d="M{x + w - 10:g} {y + h / 2 - 2:g} l6 0 l-3 4 z" fill="{ACCENT}"/>'
    fitting = words[: int((w - 10) / 4.6)]
    return _rectangle(face, FIELD, line=LINE) + _words(fitting, face, QUIET) + arrow


def _field(box: Box, face: Rectangle, example: _Example) -> str:
    words = example.next("number") if box.parameter is None else written(box.parameter)
    return _rectangle(face, FIELD, line=LINE) + _words(words, face, ACCENT, anchor="middle")


def _dial(box: Box, face: Rectangle, _: _Example) -> str:
    assert box.parameter is not None
    x, y, w, h = face
    middle = x + w / 2
    small = '<g font-size="8">'
    ring = f'<path d="M{middle - 6:g} {y + 22:g} a8 8 0 1 1 12 0" fill="none" stroke="{FIELD}" stroke-width="2.4"/>'
    hand = f'<path d="M{middle:g} {y + 17:g} l-5 4" stroke="{ACCENT}" stroke-width="2"/>'
    return (
        small + _words(box.parameter.name, (x, y - 4, w, 14), INK, anchor="middle")
        + ring + hand + _words(written(box.parameter), (x, y + h - 12, w, 14), INK, anchor="middle") + "</g>"
    )  # fmt: skip


def _bar(_: Box, face: Rectangle, example: _Example) -> str:
    x, y, w, h = face
    full = float(example.next("progress") or 0)
    return _rectangle(face, FIELD) + (_rectangle((x, y, w * full, h), ACCENT) if full else "")


def _waveform(_: Box, face: Rectangle, __: _Example) -> str:
    x, y, w, h = face
    middle = y + h / 2
    lines: list[str] = []
    for index in range(int(w) - 4):
        part = index / w
        high = (h / 2 - 3) * (1 - part) ** 0.7 * (0.55 + 0.45 * (((index * 37) % 101) / 101)) * min(1.0, 0.1 + part * 9)
        lines.append(f"M{x + 2 + index:g} {middle - high:.1f}V{middle + high:.1f}")
    return _rectangle(face, FIELD, line=LINE) + f'<path d="{"".join(lines)}" stroke="{ACCENT}" stroke-width="0.8"/>'


def _gain(_: Box, face: Rectangle, __: _Example) -> str:
    x, y, w, h = face
    meters = "".join(
        _rectangle((x + 6 + 9 * channel, y + 4, 7, h - 24), FIELD)
        + _rectangle((x + 6 + 9 * channel, y + 4 + (h - 24) * 0.38, 7, (h - 24) * 0.62), "#5fc35f")
        for channel in range(2)
    )
    handle = f'<path d="M{x + 32:g} {y + 26:g} l8 -4 l0 8 z" fill="{INK}"/>'
    number = (x + 4, y + h - 17, w - 8, 14.0)
    return meters + handle + _rectangle(number, FIELD) + _words("0 dB", number, ACCENT, anchor="middle")


def _drop(box: Box, face: Rectangle, _: _Example) -> str:
    x, y, w, h = face
    border = (
        f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="none" stroke="{LINE}" stroke-dasharray="2 2"/>'
    )
    return border + _words(str(box.attributes["legend"]), face, INK, anchor="middle")


_FACES: dict[str, Callable[[Box, Rectangle, _Example], str]] = {
    "live.comment": _comment,
    "live.dial": _dial,
    "live.drop": _drop,
    "live.gain~": _gain,
    "live.menu": _menu,
    "live.numbox": _field,
    "live.tab": _tab,
    "live.text": _text,
    "multislider": _bar,
    "number": _field,
    "textedit": _textedit,
    "umenu": _menu,
    "waveform~": _waveform,
}


def written(parameter: Parameter) -> str:
    """Return a parameter's initial value as Live displays it.

    >>> written(Parameter("Root", 1, 0, 127, 60, NOTE))
    'C3'
    """
    assert parameter.kind not in (BLOB, CHOICE)
    value = parameter.initial or 0.0
    if parameter.unit == NOTE:
        return f"{NAMES[int(value) % 12]}{int(value) // 12 - 2}"
    if parameter.unit == TIME and value >= 1000:
        return f"{value / 1000:.2f} s"
    return _WRITTEN[parameter.unit].format(value)


_WRITTEN = {
    NUMBER: "{:.0f}",
    TWO_PLACES: "{:.2f}",
    TIME: "{:g} ms",
    PERCENT: "{:.0%}",
    DECIBELS: "{:.1f} dB",
    SEMITONES: "{:g} st",
}

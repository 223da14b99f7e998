"""Construction of Max patchers: boxes, patch cords, the presentation view, and the parameters that Live stores."""

import itertools
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from max_patches.objects import Ports, ports

FLOAT, INTEGER, CHOICE, BLOB = range(4)
"""Kinds of parameters, in Max's numbers."""

AUTOMATED, STORED = 0, 1
"""Visibility of a parameter in Live: automated, or only stored."""

NUMBER, TWO_PLACES, TIME, HERTZ, DECIBELS, PERCENT, PAN, SEMITONES, NOTE = range(9)
"""Units of a parameter's value, as Max numbers them."""

DEVICE_HEIGHT = 169
"""Pixels that Live gives a device."""

_LETTER = 6.6
_GAP = 24.0
_LEFT = 20.0

Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True)
class Parameter:
    """A parameter that Live stores and automates: `low` to `high`, or one of `choices`."""

    name: str
    kind: int = FLOAT
    low: float = 0.0
    high: float = 1.0
    initial: float | None = None
    unit: int = NUMBER
    choices: tuple[str, ...] = ()
    exponent: float = 1.0
    visibility: int = AUTOMATED
    short: str = ""

    def saved(self) -> dict[str, Any]:
        """Return the object as Max saves it."""
        saved: dict[str, Any] = {
            "parameter_longname": self.name,
            "parameter_shortname": self.short or self.name,
            "parameter_type": self.kind,
            "parameter_invisible": self.visibility,
        }
        if self.kind == BLOB:
            return saved
        saved["parameter_mmax"] = float(len(self.choices) - 1) if self.choices else self.high
        if self.choices:
            saved["parameter_enum"] = list(self.choices)
        else:
            saved |= {"parameter_mmin": self.low, "parameter_unitstyle": self.unit}
        if self.exponent != 1.0:
            saved["parameter_exponent"] = self.exponent
        if self.initial is not None:
            saved |= {"parameter_initial_enable": 1, "parameter_initial": [self.initial]}
        return saved


@dataclass
class Box:
    """An object in a patch. `face` is its rectangle in the presentation view: x, y, width, height."""

    id: str
    maxclass: str
    text: str
    ports: Ports
    place: Rectangle
    face: Rectangle | None = None
    parameter: Parameter | None = None
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    colours: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def name(self) -> str:
        """The object's name: `route` for a box in which `route take done` was typed."""
        return self.text.split()[0] if self.maxclass == "newobj" else self.maxclass

    def saved(self) -> dict[str, Any]:
        """Return the object as Max saves it."""
        saved: dict[str, Any] = {
            "id": self.id,
            "maxclass": self.maxclass,
            "numinlets": self.ports.inlets,
            "numoutlets": len(self.ports.outlets),
            "patching_rect": list(self.place),
        }
        if self.ports.outlets:
            saved["outlettype"] = list(self.ports.outlets)
        if self.text:
            saved["text"] = self.text
        if self.face is not None:
            saved |= {"presentation": 1, "presentation_rect": list(self.face)}
        return saved | self.attributes | self._stored()

    def _stored(self) -> dict[str, Any]:
        kept: dict[str, Any] = {name: {"expression": colour} for name, colour in self.colours.items()}
        saved: dict[str, Any] = {}
        if self.parameter is not None:
            kept["valueof"] = self.parameter.saved()
            saved["varname"] = self.parameter.name
            if self.maxclass == "newobj":
                saved["saved_object_attributes"] = {"parameter_enable": 1, "parameter_mappable": 0}
            else:
                saved["parameter_enable"] = 1
        if kept:
            saved["saved_attribute_attributes"] = kept
        return saved


Outlet = tuple[Box, int]
Inlet = tuple[Box, int]


class Patch:
    """A patcher under construction. Boxes are laid out in rows, so that the patch is readable."""

    def __init__(self, name: str, width: float = 0.0) -> None:
        self.name = name
        self.width = width
        self.boxes: list[Box] = []
        self.cords: list[tuple[Outlet, Inlet]] = []
        self._top = 20.0
        self._next = _LEFT
        self._tallest = 0.0

    @contextmanager
    def row(self, words: str = "") -> Generator[None]:
        """Place the boxes that are added inside side by side, below a heading."""
        if words:
            self._begin_row()
            self.add("comment", text=words, wide=max(60.0, len(words) * _LETTER))
        self._begin_row()
        yield
        self._begin_row()

    def _begin_row(self) -> None:
        if self._tallest:
            self._top += self._tallest + _GAP / 2
        self._next, self._tallest = _LEFT, 0.0

    def box(self, text: str, **attributes: Any) -> Box:
        """Add an object box."""
        return self.add("newobj", text=text, **attributes)

    def typed(self, *texts: str) -> list[Box]:
        """Add several object boxes side by side."""
        return [self.box(text) for text in texts]

    def message(self, text: str) -> Box:
        """Add a message box."""
        return self.add("message", text=text)

    def add(
        self,
        maxclass: str,
        *,
        text: str = "",
        face: Rectangle | None = None,
        parameter: Parameter | None = None,
        colours: Mapping[str, str] | None = None,
        wide: float = 0.0,
        **attributes: Any,
    ) -> Box:
        """Add any object; `wide` is its width in the patch if it has no other."""
        width = wide or (face[2] if face else max(40.0, len(text) * _LETTER + 16))
        height = face[3] if face else 22.0
        box = Box(
            id=f"obj-{len(self.boxes) + 1}",
            maxclass=maxclass,
            text=text,
            ports=ports(maxclass, text),
            place=(self._next, self._top, width, height),
            face=face,
            parameter=parameter,
            attributes=attributes,
            colours=dict(colours or {}),
        )
        self.boxes.append(box)
        self._next += width + _GAP
        self._tallest = max(self._tallest, height)
        return box

    def cord(self, *stations: Box | tuple[Box, int]) -> None:
        """Connect boxes in a chain; `(box, 2)` is outlet 2 of the first. Cords end at left inlets; see `into`."""
        for source, destination in itertools.pairwise(stations):
            outlet = source if isinstance(source, tuple) else (source, 0)
            self.cords.append((outlet, (destination[0] if isinstance(destination, tuple) else destination, 0)))

    def into(self, source: Box | Outlet, destination: Box, inlet: int) -> None:
        """Connect an outlet to an inlet other than the left one."""
        self.cords.append((source if isinstance(source, tuple) else (source, 0), (destination, inlet)))

    @property
    def faces(self) -> list[Box]:
        """Return the visible boxes in the order in which they were added."""
        return [box for box in self.boxes if box.face is not None]

    @property
    def parameters(self) -> list[Box]:
        """Return the parameters that Live stores."""
        return [box for box in self.boxes if box.parameter is not None]

    def saved(self, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the patcher as Max saves it."""
        across = max((box.place[0] + box.place[2] for box in self.boxes), default=0.0) + _LEFT
        down = max((box.place[1] + box.place[3] for box in self.boxes), default=0.0) + _LEFT
        patcher: dict[str, Any] = {
            "fileversion": 1,
            "appversion": {"major": 8, "minor": 5, "revision": 0, "architecture": "x64", "modernui": 1},
            "classnamespace": "box",
            "rect": [60.0, 90.0, across, down],
            "bglocked": 0,
            "openinpresentation": 1 if self.faces else 0,
            "default_fontsize": 10.0,
            "default_fontface": 0,
            "default_fontname": "Arial",
            "gridonopen": 1,
            "gridsize": [8.0, 8.0],
            "boxes": [{"box": box.saved()} for box in self.boxes],
            "lines": [{"patchline": _line(*cord)} for cord in self.cords],
        }
        if self.parameters:
            patcher["parameters"] = _banks(self.parameters)
        return {"patcher": patcher | dict(extra or {})}


def _line(source: Outlet, destination: Inlet) -> dict[str, Any]:
    return {"source": [source[0].id, source[1]], "destination": [destination[0].id, destination[1]]}


def _banks(boxes: Sequence[Box]) -> dict[str, Any]:
    """Return the parameters by box, and in banks of eight for Push."""
    entries: dict[str, Any] = {}
    shown: list[str] = []
    for box in boxes:
        assert box.parameter is not None
        saved = box.parameter.saved()
        entries[box.id] = [saved["parameter_longname"], saved["parameter_shortname"], 0]
        if box.parameter.visibility == AUTOMATED:
            shown.append(box.parameter.name)
    banks = [shown[start : start + 8] for start in range(0, len(shown), 8)]
    entries["parameterbanks"] = {
        str(index): {"index": index, "name": "", "parameters": bank + ["-"] * (8 - len(bank))}
        for index, bank in enumerate(banks)
    }
    return entries


def as_json(patcher: Mapping[str, Any]) -> str:
    """Return the text of a patcher's file."""
    return json.dumps(patcher, indent=1, ensure_ascii=False) + "\n"


def device_extra(code: bytes, width: float, needed: Sequence[str]) -> dict[str, Any]:
    """Return the attributes of a device: its size, its dependencies, and the project that Max expects."""
    return {
        "devicewidth": width,
        "openrect": [0.0, 0.0, width, float(DEVICE_HEIGHT)],
        "latency": 0,
        "dependency_cache": [
            {"name": name, "type": "TEXT" if name.endswith(".js") else "JSON", "implicit": 1} for name in needed
        ],
        "project": {
            "version": 1,
            "creationdate": 3590052493,
            "modificationdate": 3590052493,
            "viewrect": [0.0, 0.0, 300.0, 500.0],
            "autoorganize": 1,
            "hideprojectwindow": 1,
            "showdependencies": 1,
            "autolocalize": 0,
            "contents": {"patchers": {}},
            "layout": {},
            "searchpath": {},
            "detailsvisible": 0,
            "amxdtype": int.from_bytes(code, "big"),
            "readonly": 0,
            "devpathtype": 0,
            "devpath": ".",
            "sortmode": 0,
            "viewmode": 0,
        },
    }

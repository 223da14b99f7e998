"""Writes `timbred_vocabulary.py`: a sound's parameters as TouchDesigner shows them, from timbred's own declarations.

python bridges/touchdesigner/write_vocabulary.py > bridges/touchdesigner/timbred_vocabulary.py
"""

import sys
from dataclasses import dataclass
from typing import Any

from msgspec import inspect

from timbred.protocol import messages as m
from timbred.protocol.coercion import fields_of
from timbred.protocol.describe import Key, keys_of
from timbred.protocol.keys import PlaybackKeys
from timbred.protocol.schema import EVENTS

NOT_SHOWN = ("id", "port", "inline", "prompt")
"""Keys of `generate` that the component fills in, or shows by itself."""

ELSEWHERE = {("to", "none")}
"""Choices that OSC hasn't got: without a file there is nothing to load."""

UNSET = -1
"""What stands in a number's place until it is given: no key takes it."""

AS_DECLARED = "default"
"""A menu's first entry: the key isn't sent."""

ON_ITS_OWN_PAGE = frozenset(fields_of(PlaybackKeys)) | {"voice", "to"}


@dataclass(frozen=True)
class Shown:
    """One parameter: TouchDesigner's name and style for a key."""

    key: str
    name: str
    page: str
    style: str
    default: str | int | float
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    help: str = ""


def shown(key: Key) -> Shown:
    """How a key of `generate` is shown."""
    kind = _core(fields_of(m.Generate)[key.name].type)
    default = f"; default {key.default}" if key.default else ""
    common: dict[str, Any] = {
        "key": key.name,
        "name": key.name.replace("_", "").capitalize(),
        "page": "Playing" if key.name in ON_ITS_OWN_PAGE else "Sound",
        "help": f"{key.about} ({key.allowed}{default})" if key.about else f"{key.allowed}{default}",
    }
    match kind:
        case inspect.BoolType() if key.default == "0":
            return Shown(style="Toggle", default=0, **common)
        case inspect.BoolType():
            return Shown(style="Menu", default=AS_DECLARED, choices=(AS_DECLARED, "0", "1"), **common)
        case inspect.LiteralType(values=values):
            fitting = [str(value) for value in values if (key.name, value) not in ELSEWHERE]
            return Shown(style="Menu", default=AS_DECLARED, choices=(AS_DECLARED, *fitting), **common)
        case inspect.FloatType(ge=low, le=high) | inspect.IntType(ge=low, le=high) if low is not None:
            style = "Float" if isinstance(kind, inspect.FloatType) else "Int"
            value = _number(key.default)
            if value is None or not low <= value <= (high or value):
                return Shown(style=style, default=UNSET, low=min(UNSET, low), high=high, **common)
            return Shown(style=style, default=value, low=low, high=high, **common)
        case _:
            return Shown(style="StrMenu" if key.name == "model" else "Str", default="", **common)


def _core(kind: inspect.Type) -> inspect.Type:
    """The kind below its notes; text where more than one may come."""
    if isinstance(kind, inspect.Metadata):
        return _core(kind.type)
    if isinstance(kind, inspect.UnionType):
        kinds = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        return _core(kinds[0]) if len(kinds) == 1 else inspect.StrType()
    return kind


def _number(text: str) -> int | float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else value


def written() -> str:
    """The whole file."""
    rows = [shown(key) for key in keys_of(m.Generate) if key.name not in NOT_SHOWN]
    rows.sort(key=lambda row: row.page != "Sound")
    lines = [f"    {_row(row)},\n" for row in rows]
    events = {
        entry.address: [name for name in entry.kind.__struct_fields__ if name not in entry.kind.json_only]
        for entry in reversed(EVENTS)  # of two that share an address, the first is the one of sounds
        if not entry.family
    }
    told = [f"    {_literal(address)}: {_literal(tuple(names))},\n" for address, names in sorted(events.items())]
    head = _HEAD.format(unset=UNSET, as_declared=AS_DECLARED)
    return head + "".join(lines) + "]\n" + _EVENTS + "".join(told) + "}\n"


def _row(row: Shown) -> str:
    values = {name: value for name, value in vars(row).items() if value not in (None, ())}
    return "{" + ", ".join(f'"{name}": {_literal(value)}' for name, value in values.items()) + "}"


def _literal(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"  # pyright: ignore[reportUnknownVariableType]
    return repr(value)


_HEAD = '''"""The parameters of a sound, as the component shows them.

Written by `write_vocabulary.py` from timbred's own declarations: don't change it here.
"""

# ruff: noqa: E501
# fmt: off

UNSET = {unset}
"""What stands in a number's place until it is given."""

AS_DECLARED = "{as_declared}"
"""A menu's first entry: the key isn't sent."""

PARAMETERS = [
'''

_EVENTS = """
EVENTS = {
"""


if __name__ == "__main__":
    sys.stdout.write(written())

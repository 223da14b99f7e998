"""Names, orders, ranges and choices from timbred's declarations for the patches and their JavaScript."""

import json
from dataclasses import dataclass
from typing import Any

from msgspec import inspect

from timbred.config import NAMED
from timbred.errors import CODES
from timbred.protocol import messages as m
from timbred.protocol.coercion import fields_of
from timbred.protocol.schema import EVENTS, REQUESTS, ROOT


@dataclass(frozen=True)
class Allowed:
    """Allowed values of a key: `low` to `high`, or one of `choices`."""

    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    about: str = ""


def allowed(key: str) -> Allowed:
    """Return the allowed values of a key of `generate`."""
    return _allowed(fields_of(m.Generate)[key].type)


def bounds(key: str) -> tuple[float, float, str]:
    """Lowest and highest value of a number, and what it is."""
    found = allowed(key)
    assert found.low is not None, key
    assert found.high is not None, key
    return found.low, found.high, found.about


def _allowed(kind: inspect.Type) -> Allowed:
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            found = _allowed(inner)
            return Allowed(found.low, found.high, found.choices, (extra or {}).get("description", found.about))
        case inspect.UnionType(types=types):
            inner = [one for one in map(_allowed, types) if one != Allowed()]
            return inner[0] if inner else Allowed()
        case inspect.IntType(ge=low, le=high) | inspect.FloatType(ge=low, le=high):
            return Allowed(low, high)
        case inspect.LiteralType(values=values):
            return Allowed(choices=tuple(map(str, values)))
        case _:
            return Allowed()


def port() -> int:
    """Return timbred's default OSC port."""
    return int(NAMED["osc.port"].default)


def script() -> str:
    """`timbred-vocabulary.js`: what the JavaScript needs to know."""
    requests = {
        entry.name: {"id": entry.has_id, "family": bool(entry.family), "positional": list(entry.positional)}
        for entry in REQUESTS
    }
    events = {
        entry.name: [name for name in entry.kind.__struct_fields__ if name not in entry.kind.json_only]
        for entry in EVENTS
        if not entry.family and entry.kind is not m.Acknowledged
    }
    keys = {key: _range(allowed(key)) for key in fields_of(m.Generate) if _range(allowed(key))}
    parts = {"root": ROOT, "port": port(), "codes": list(CODES), "requests": requests, "events": events, "keys": keys}
    lines = [f"exports.{name} = {_literal(value)};" for name, value in parts.items()]
    head = "// Made by `python -m max_patches.generate` from timbred's declarations; changes here are lost. ES5."
    return "\n".join([head, *lines, ""])


def _range(found: Allowed) -> dict[str, Any]:
    if found.choices:
        return {"choices": list(found.choices)}
    return {"low": found.low, "high": found.high} if found.low is not None else {}


def _literal(value: Any) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    rows = [f"    {json.dumps(name)}: {json.dumps(inner)}" for name, inner in value.items()]
    return "{\n" + ",\n".join(rows) + "\n}"

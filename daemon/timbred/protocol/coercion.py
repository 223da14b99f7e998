"""Conversion of received values to the types that the fields of requests declare.

Senders differ: Pd has only floats and symbols, Max sends ints, a browser sends JSON. A value that can be read as the
declared type is accepted; any other is refused with the value and the allowed ones.
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from msgspec import inspect

from timbred.errors import BadRequest
from timbred.protocol import messages as m
from timbred.protocol.schema import REQUESTS, ROOT, RequestEntry, find_request

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_MAX_SHOWN_CHARACTERS = 60


def shown(raw: object) -> str:
    """Return a value as an error message shows it: shortened, and never raw bytes."""
    if isinstance(raw, bytes | bytearray):
        return f"a blob of {len(raw)} bytes"
    if not isinstance(raw, str):
        return repr(raw)[:_MAX_SHOWN_CHARACTERS]
    return repr(raw if len(raw) <= _MAX_SHOWN_CHARACTERS else raw[:_MAX_SHOWN_CHARACTERS] + "...")


def describe_type(kind: inspect.Type) -> str:  # noqa: PLR0911  one return for each kind of value
    """Describe the values that a field allows: `a number from 0 to 1`."""
    match kind:
        case inspect.Metadata(type=inner):
            return describe_type(inner)
        case inspect.UnionType(types=types):
            return " or ".join(describe_type(one) for one in types if not isinstance(one, inspect.NoneType))
        case inspect.BoolType():
            return "0 or 1"
        case inspect.IntType(ge=low, le=high):
            return "a whole number" + _range(low, high)
        case inspect.FloatType(ge=low, le=high):
            return "a number" + _range(low, high)
        case inspect.LiteralType(values=values):
            words = [str(value) for value in values]
            return "one of " + ", ".join(words) if len(words) > 1 else words[0]
        case inspect.StrType(max_length=longest):
            return "text" if longest is None else f"text of at most {longest} characters"
        case inspect.VarTupleType():
            return "a list of objects"
        case _:
            raise TypeError(f"no description for {kind}")


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" from {low:g} to {high:.10g}"


class _ValueRefused(Exception):
    """The value isn't of this type; another type of the union may accept it."""


def coerce(name: str, kind: inspect.Type, raw: object) -> Any:
    """Convert a received value to the type of the field `name`.

    Raises:
        BadRequest: The value isn't allowed; names the field, the value and the allowed ones.
    """
    try:
        return _convert(kind, raw)
    except _ValueRefused:
        raise BadRequest(f"{name}: got {shown(raw)}, allowed is {describe_type(kind)}") from None


def _convert(kind: inspect.Type, raw: object) -> Any:
    match kind:
        case inspect.Metadata(type=inner):
            return _convert(inner, raw)
        case inspect.UnionType(types=types):
            return _convert_to_first(types, raw)
        case inspect.BoolType():
            return _flag(raw)
        case inspect.IntType(ge=low, le=high) | inspect.FloatType(ge=low, le=high):
            return _number(raw, low, high, whole=isinstance(kind, inspect.IntType))
        case inspect.LiteralType():
            return _choice(kind.values, raw)
        case inspect.StrType(max_length=longest):
            return _text(raw, longest)
        case _:
            raise TypeError(f"no reader for {kind}")


def _convert_to_first(types: tuple[inspect.Type, ...], raw: object) -> Any:
    """Convert to the first type of a union that accepts the value.

    Only text becomes text, so that the number 5 stays a number; text such as "5" stays text where text is allowed.
    """
    members = [member for member in types if not isinstance(member, inspect.NoneType)]
    if not isinstance(raw, str):
        members = [member for member in members if not isinstance(member, inspect.StrType)]
    elif any(isinstance(member, inspect.StrType) for member in members):
        whole = [member for member in members if isinstance(member, inspect.IntType)]
        members = [*(member for member in members if not isinstance(member, inspect.IntType)), *whole]
    for member in members:
        try:
            return _convert(member, raw)
        except _ValueRefused:
            continue
    raise _ValueRefused


def _number(raw: object, low: float | None = None, high: float | None = None, *, whole: bool = False) -> int | float:
    """Convert to a finite number from `low` to `high`; to an int if it must be whole."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise _ValueRefused
    if whole and isinstance(raw, int):
        value = raw  # not by way of a float, which large ints don't fit
    else:
        try:
            value = float(raw)
        except (ValueError, OverflowError):
            raise _ValueRefused from None
        if not math.isfinite(value) or (whole and not value.is_integer()):
            raise _ValueRefused
        value = int(value) if whole else value
    if (low is not None and value < low) or (high is not None and value > high):
        raise _ValueRefused
    return value


def _flag(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, int | float) and raw in (0, 1):
        return bool(raw)
    word = raw.lower() if isinstance(raw, str) else ""
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise _ValueRefused


def _choice(values: tuple[object, ...], raw: object) -> object:
    for value in values:
        if isinstance(value, str) and isinstance(raw, str) and raw.lower() == value:
            return value
        if isinstance(value, int) and _equals_number(raw, value):
            return value
    raise _ValueRefused


def _equals_number(raw: object, value: int) -> bool:
    try:
        return _number(raw) == value
    except _ValueRefused:
        return False


def _text(raw: object, longest: int | None) -> str:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        raw = atom(raw)
    if not isinstance(raw, str) or "\x00" in raw or (longest is not None and len(raw) > longest):
        raise _ValueRefused
    return raw


def atom(raw: object) -> str:
    """Return an OSC argument as a word of a text: Pd sends `808` as the float 808.0.

    >>> atom(808.0), atom(0.5), atom("kick")
    ('808', '0.5', 'kick')
    """
    if isinstance(raw, float):
        return f"{raw:.7g}"
    return str(raw)


@cache
def fields_of(kind: type[m.Message]) -> dict[str, inspect.Field]:
    """Return a message's fields by name, in declared order."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return {field.name: field for field in info.fields}


@cache
def key_names(entry: RequestEntry) -> frozenset[str]:
    """Return the names of a request's keys, including other spellings."""
    return frozenset((*fields_of(entry.kind), *(other for other, _ in entry.spellings)))


def entry_named(name: object) -> tuple[RequestEntry, dict[str, str]]:
    """Return the declaration of a request, and the key that a family's name gives.

    Raises:
        BadRequest: There is no such request; lists the requests there are.
    """
    if isinstance(name, str) and (declared := find_request(name)) is not None:
        return declared
    known = ", ".join(entry.address.removeprefix(ROOT) for entry in REQUESTS)
    raise BadRequest(f"there is no request {shown(name)}; there are {known}")


def build(entry: RequestEntry, raw: Mapping[str, Any]) -> m.Request:
    """Build a request from received values by key.

    Raises:
        BadRequest: An unknown key, a missing one, or a value of the wrong type or out of range.
    """
    fields = fields_of(entry.kind)
    if entry.spellings:
        raw = _replace_spellings(entry, raw)
    for key in raw:
        if key not in fields:
            raise BadRequest(f"{key}: {entry.name} has no such key; it has {', '.join(fields)}")
    values = {key: coerce(key, fields[key].type, value) for key, value in raw.items() if value is not None}
    for name, field in fields.items():
        if field.required and name not in values:
            raise BadRequest(f"{name}: {entry.name} needs it: {describe_type(field.type)}")
    prompt = values.get("prompt")
    if isinstance(prompt, str) and not prompt.strip():
        raise BadRequest(f"prompt: {entry.name} is empty; describe the sound, as in: warm analog pad")
    return entry.kind(**values)


def _replace_spellings(entry: RequestEntry, raw: Mapping[str, Any]) -> Mapping[str, Any]:
    keys = dict(raw)
    for other, declared in entry.spellings:
        if other not in keys:
            continue
        if declared in keys:
            raise BadRequest(f"{other}: it is another spelling of {declared}; give one of them")
        keys[declared] = keys.pop(other)
    return keys

"""From names and raw values, as any transport delivers them, to a request."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from msgspec import inspect

from timbred.errors import BadRequest
from timbred.protocol import messages as m
from timbred.protocol import values
from timbred.protocol.vocabulary import REQUESTS, ROOT, RequestEntry, find_request


@cache
def fields_of(kind: type[m.Message]) -> dict[str, inspect.Field]:
    """A message's fields by name, as declared."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return {field.name: field for field in info.fields}


def is_key(entry: RequestEntry, name: str) -> bool:
    """Tell whether a request has a key of this name, or spells one so."""
    return name in fields_of(entry.kind) or any(name == other for other, _ in entry.spellings)


def entry_named(name: object) -> tuple[RequestEntry, dict[str, str]]:
    """The declaration of a request, and what its name already says of it.

    Raises:
        BadRequest: there is no such request; lists those there are.
    """
    if isinstance(name, str) and (found := find_request(name)) is not None:
        return found
    known = ", ".join(entry.address.removeprefix(ROOT) for entry in REQUESTS)
    raise BadRequest(f"there is no request {values.shown(name)}; there are {known}")


def build(entry: RequestEntry, raw: Mapping[str, Any]) -> m.Request:
    """The request that `raw` stands for.

    Raises:
        BadRequest: an unknown key, a missing one, or a value of the wrong kind or out of range.
    """
    fields = fields_of(entry.kind)
    if entry.spellings:
        raw = _respelled(entry, raw)
    for key in raw:
        if key not in fields:
            raise BadRequest(f"{key}: {entry.name} has no such key; it has {', '.join(fields)}")
    read = {key: values.read(key, fields[key].type, value) for key, value in raw.items() if value is not None}
    for name, field in fields.items():
        if field.required and name not in read:
            raise BadRequest(f"{name}: {entry.name} needs it: {values.describe(field.type)}")
    _require_words(entry, read)
    return entry.kind(**read)


def _respelled(entry: RequestEntry, raw: Mapping[str, Any]) -> Mapping[str, Any]:
    found = dict(raw)
    for other, declared in entry.spellings:
        if other not in found:
            continue
        if declared in found:
            raise BadRequest(f"{other}: it is another spelling of {declared}; give one of them")
        found[declared] = found.pop(other)
    return found


def _require_words(entry: RequestEntry, read: Mapping[str, Any]) -> None:
    prompt = read.get("prompt")
    if isinstance(prompt, str) and not prompt.strip():
        raise BadRequest(f"prompt: {entry.name} got no words; say what you want to hear, as in: warm analog pad")

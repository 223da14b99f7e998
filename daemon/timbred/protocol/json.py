"""JSON messages, as ZeroMQ frames and WebSocket texts carry them.

A request is one object: `type`, then the keys that `vocabulary` declares. An event is one object: `type`,
then its fields by name.
"""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec

from timbred.errors import BadRequest
from timbred.protocol import coercion
from timbred.protocol import messages as m
from timbred.protocol.boundary import Incoming, id_place
from timbred.protocol.coercion import build, entry_named, is_key
from timbred.protocol.inline_keys import read_words
from timbred.protocol.schema import EVENTS, RequestEntry, find_request, name_of

LONGEST = 1 << 20
"""Bytes that a request may have."""

WORD_FIELDS = ("prompt", "negative", "prompt2", "transcription")
"""Fields whose texts are words for a model, in which the name of a key after an `@` isn't meant as a word."""

_UNREADABLE = "json"
_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def read(frame: bytes | memoryview) -> Incoming:
    """The request or refusal that a frame holds. Never raises."""
    try:
        if len(frame) > LONGEST:
            raise BadRequest(f"this message has {len(frame)} bytes, allowed are {LONGEST}")
        found = _decoder.decode(frame)
    except BadRequest as refusal:
        return Incoming(refusal, _UNREADABLE)
    except RecursionError:
        return Incoming(BadRequest("this JSON is nested too deep; a request is one flat object"), _UNREADABLE)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Incoming(BadRequest(f"this is no JSON: {error}; a request is one object"), _UNREADABLE)
    if not isinstance(found, dict):
        return Incoming(BadRequest(f"got {coercion.shown(found)}; a request is one JSON object"), _UNREADABLE)
    return read_object(cast("dict[str, Any]", found))


def read_object(found: dict[str, Any]) -> Incoming:
    """The request or refusal that a JSON object stands for. Never raises."""
    raw = dict(found)
    name = raw.pop("type", None)
    place = _id(name, raw)
    try:
        if name is None:
            raise BadRequest('type: a request needs it, as in {"type": "status"}')
        entry, said = entry_named(name)
        if raw.get("port") is not None:
            raise BadRequest("port: it is for OSC; here answers come back on the same connection")
        return Incoming(build(entry, {**_with_plain_words(entry, raw), **said}), place)
    except BadRequest as refusal:
        return Incoming(refusal, place)


def _with_plain_words(entry: RequestEntry, raw: dict[str, Any]) -> dict[str, Any]:
    """The request with its texts as words: refuse an `@key` inside one, and take off quotes around a literal `@`."""
    texts = {name: raw[name] for name in WORD_FIELDS if isinstance(raw.get(name), str) and is_key(entry, name)}
    return {**raw, **{name: read_words(name, text, lambda key: is_key(entry, key)) for name, text in texts.items()}}


def _id(name: object, raw: dict[str, Any]) -> m.Id:
    own = raw.get("id")
    known = find_request(name) if isinstance(name, str) else None
    if isinstance(own, str | int | float) and not isinstance(own, bool) and (known is None or known[0].has_id):
        return id_place(own)
    return id_place(name) if isinstance(name, str) else _UNREADABLE


def as_object(event: m.Event) -> dict[str, Any]:
    """An event as a JSON object: `type` first, then its fields; a field without a value is left out."""
    found: dict[str, Any] = {"type": name_of(event)}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if value is not None:
            found[name] = value
    return found


def encode_event(event: m.Event, client: str | None = None) -> bytes:
    """An event as JSON in UTF-8; with `client`, for those who hear everybody's events."""
    found = as_object(event)
    if client is not None:
        found["client"] = client
    return _encoder.encode(found)


def read_event(found: dict[str, Any]) -> m.Event | None:
    """The event that an object from a daemon stands for; None for one that this version doesn't know.

    Fields that a later version added are left out.

    >>> read_event({"type": "synced", "n": 3, "new": 1})
    Synced(n=3)
    """
    name = str(found.get("type"))
    family = name.partition("/")[0]
    kinds = [entry.kind for entry in EVENTS if name == entry.name or (entry.family and family == entry.name)]
    if m.Done in kinds and "takes" not in found:
        kinds.remove(m.Done)
    for kind in kinds:
        try:
            return msgspec.convert({key: found[key] for key in kind.__struct_fields__ if key in found}, kind)
        except msgspec.ValidationError:
            continue
    return None


def encode_request(request: m.Request, name: str) -> bytes:
    """A request as the JSON object that a daemon reads; `name` is its name on the wire."""
    return _encoder.encode({"type": name, **msgspec.structs.asdict(request)})


def encode_done(end: m.Done, takes: Iterable[m.Take]) -> bytes:
    """The whole reply of a sound: `done` with the list of its takes, in order."""
    found = as_object(end)
    found["takes"] = [as_object(take) for take in sorted(takes, key=lambda take: take.index)]
    return _encoder.encode(found)


def encode_list(name: str, events: Sequence[m.Event]) -> bytes:
    """The whole reply of a question that is answered by several events, in a list called `name`."""
    found: dict[str, Any] = {"type": "done", "id": name, name: [as_object(event) for event in events]}
    if name == "takes":
        found["path"] = ""
    return _encoder.encode(found)

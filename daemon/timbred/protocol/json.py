"""JSON messages, as ZeroMQ frames and WebSocket texts carry them.

A request is one object: `type`, then the keys that `schema` declares. An event is one object: `type`, then its fields
by name.
"""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec

from timbred.errors import BadRequest
from timbred.protocol import coercion
from timbred.protocol import messages as m
from timbred.protocol.boundary import Incoming, answer_id
from timbred.protocol.coercion import build, entry_named, key_names
from timbred.protocol.inline_keys import read_words
from timbred.protocol.schema import EVENTS, RequestEntry, find_request, name_of

MAX_REQUEST_BYTES = 1 << 20
"""Maximum size of a request."""

WORD_FIELDS = ("prompt", "negative", "prompt2", "transcription")
"""Fields that hold text for a model; an `@` before the name of a key in one is refused."""

_UNREADABLE = "json"
_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def read(frame: bytes | memoryview) -> Incoming:
    """Read the request in a frame, or its refusal. Never raises."""
    try:
        if len(frame) > MAX_REQUEST_BYTES:
            raise BadRequest(f"the message has {len(frame)} bytes; at most {MAX_REQUEST_BYTES} are allowed")
        decoded = _decoder.decode(frame)
    except BadRequest as refusal:
        return Incoming(refusal, _UNREADABLE)
    except RecursionError:
        return Incoming(BadRequest("the JSON is nested too deeply; send one flat object"), _UNREADABLE)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Incoming(BadRequest(f"the message is not valid JSON: {error}; send one object"), _UNREADABLE)
    if not isinstance(decoded, dict):
        return Incoming(BadRequest(f"got {coercion.shown(decoded)}; send one JSON object"), _UNREADABLE)
    return read_object(cast("dict[str, Any]", decoded))


def read_object(fields: dict[str, Any]) -> Incoming:
    """Read the request in a JSON object, or its refusal. Never raises."""
    raw = dict(fields)
    name = raw.pop("type", None)
    place = _id(name, raw)
    try:
        if name is None:
            raise BadRequest('type: it is required, as in {"type": "status"}')
        entry, family_key = entry_named(name)
        if raw.get("port") is not None:
            raise BadRequest("port: it is allowed over OSC only; here answers arrive on the same connection")
        return Incoming(build(entry, {**_unquote_texts(entry, raw), **family_key}), place)
    except BadRequest as refusal:
        return Incoming(refusal, place)


def _unquote_texts(entry: RequestEntry, raw: dict[str, Any]) -> dict[str, Any]:
    """Return the request with quotes around a literal `@` removed; refuse an `@key` inside a text."""
    keys = key_names(entry)
    texts = {name: raw[name] for name in WORD_FIELDS if isinstance(raw.get(name), str) and name in keys}
    return {**raw, **{name: read_words(name, text, keys.__contains__) for name, text in texts.items()}}


def _id(name: object, raw: dict[str, Any]) -> m.Id:
    own = raw.get("id")
    known = find_request(name) if isinstance(name, str) else None
    if isinstance(own, str | int | float) and not isinstance(own, bool) and (known is None or known[0].has_id):
        return answer_id(own)
    return answer_id(name) if isinstance(name, str) else _UNREADABLE


def as_object(event: m.Event) -> dict[str, Any]:
    """Return an event as a JSON object: `type` first, then its fields; a field without a value is left out."""
    fields: dict[str, Any] = {"type": name_of(event)}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if value is not None:
            fields[name] = value
    return fields


def encode_event(event: m.Event, client: str | None = None) -> bytes:
    """Encode an event as JSON in UTF-8, with the field `client` if it is given."""
    fields = as_object(event)
    if client is not None:
        fields["client"] = client
    return _encoder.encode(fields)


def read_event(fields: dict[str, Any]) -> m.Event | None:
    """Read the event in an object from a daemon; None if this version doesn't define it.

    Unknown fields, which a later version added, are ignored.

    >>> read_event({"type": "synced", "n": 3, "new": 1})
    Synced(n=3)
    """
    name = str(fields.get("type"))
    family = name.partition("/")[0]
    kinds = [entry.kind for entry in EVENTS if name == entry.name or (entry.family and family == entry.name)]
    if m.Done in kinds and "takes" not in fields:
        kinds.remove(m.Done)
    for kind in kinds:
        try:
            return msgspec.convert({key: fields[key] for key in kind.__struct_fields__ if key in fields}, kind)
        except msgspec.ValidationError:
            continue
    return None


def encode_request(request: m.Request, name: str) -> bytes:
    """Encode a request as a JSON object; `name` is its name on the wire."""
    return _encoder.encode({"type": name, **msgspec.structs.asdict(request)})


def encode_done(end: m.Done, takes: Iterable[m.Take]) -> bytes:
    """Encode the whole reply to a sound's request: `done` with the list of its takes, in order."""
    fields = as_object(end)
    fields["takes"] = [as_object(take) for take in sorted(takes, key=lambda take: take.index)]
    return _encoder.encode(fields)


def encode_list(name: str, events: Sequence[m.Event]) -> bytes:
    """Encode the whole reply to a request that is answered by several events, in a list called `name`."""
    fields: dict[str, Any] = {"type": "done", "id": name, name: [as_object(event) for event in events]}
    if name == "takes":
        fields["path"] = ""
    return _encoder.encode(fields)

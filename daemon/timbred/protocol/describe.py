"""Generation of the protocol's reference page and JSON Schema from the declarations.

python -m timbred.protocol.describe > docs/protocol.md
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from timbred.config import NAMED
from timbred.errors import CODES
from timbred.protocol import coercion, json, osc, osc_packets
from timbred.protocol import messages as m
from timbred.protocol.coercion import fields_of
from timbred.protocol.keys import MAX_PROMPT_CHARACTERS, PlaybackKeys, Recipe
from timbred.protocol.schema import EVENTS, PROTOCOL_VERSION, REQUESTS, ROOT, EventEntry, RequestEntry


@dataclass(frozen=True)
class Key:
    """Description of one argument or field.

    `allowed` and `default` are texts; `default` is empty if there is none.
    """

    name: str
    allowed: str
    default: str
    about: str
    required: bool


def keys_of(kind: type[m.Message]) -> list[Key]:
    """Describe the arguments of a request, or the fields of an event, in declared order."""
    return [_key(field) for field in fields_of(kind).values()]


def _key(field: inspect.Field) -> Key:
    about, default = _notes(field.type)
    if not default and not field.required and isinstance(field.default, int | float | str):
        default = str(field.default)
    return Key(field.name, coercion.describe_type(field.type), default, about, field.required)


def _notes(kind: inspect.Type) -> tuple[str, str]:
    """Return a field's description and the text for its default; an outer annotation overrides an inner one."""
    if isinstance(kind, inspect.Metadata):
        about, default = _notes(kind.type)
        about = (kind.extra_json_schema or {}).get("description", about)
        return about, (kind.extra or {}).get("default", default)
    if isinstance(kind, inspect.UnionType):
        notes = [_notes(member) for member in kind.types]
        return next((about for about, _ in notes if about), ""), next((default for _, default in notes if default), "")
    return "", ""


def osc_tags(kind: type[m.Event]) -> str:
    """Return the OSC type tags of an event, as `,sif`; `?` stands for an id, which is `s` or `i`.

    >>> osc_tags(m.Queued)
    ',?if'
    """
    fields = fields_of(kind)
    return "," + "".join(tag_of(field.type) for name, field in fields.items() if name not in kind.json_only)


def tag_of(kind: inspect.Type) -> str:
    """Return the OSC type tag of a value of this type; `?` if it may have several."""
    match kind:
        case inspect.Metadata(type=inner):
            return tag_of(inner)
        case inspect.UnionType(types=types):
            tags = {tag_of(member) for member in types if not isinstance(member, inspect.NoneType)}
            return tags.pop() if len(tags) == 1 else "?"
        case inspect.FloatType():
            return "f"
        case inspect.IntType() | inspect.BoolType():
            return "i"
        case _:
            return "s"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of all messages, with one definition in `$defs` for each.

    `requests` and `events` refer to the definitions. A property's `x-default` describes its default as text.
    """
    requests = {f"request.{entry.name}": _schema(entry.name, entry.kind) for entry in REQUESTS}
    events: dict[str, Any] = {}
    for entry in EVENTS:
        place = f"event.{entry.name}"
        schema = _event_schema(entry)
        events[place] = {"anyOf": [events[place], schema]} if place in events else schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"timbred wire protocol, version {PROTOCOL_VERSION}",
        "requests": [{"$ref": f"#/$defs/{name}"} for name in requests],
        "events": [{"$ref": f"#/$defs/{name}"} for name in events],
        "$defs": {**requests, **events},
    }


def _schema(name: str, kind: type[m.Message]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    schema: dict[str, Any] = _inline_references(components.pop(kind.__name__), components)
    properties = {key: value for key, value in schema["properties"].items() if not _is_osc_only(kind, key)}
    for key in keys_of(kind):
        if key.default and key.name in properties:
            properties[key.name] = {**properties[key.name], "x-default": key.default}
    schema["properties"] = {"type": {"const": name}, **properties}
    schema["required"] = ["type", *schema.get("required", [])]
    return schema


def _inline_references(schema: Any, components: dict[str, Any]) -> Any:
    """Replace references in a schema by the objects that they refer to."""
    if isinstance(schema, list):
        return [_inline_references(item, components) for item in schema]
    if not isinstance(schema, dict):
        return schema
    named = str(schema.get("$ref", "")).rpartition("/")[2]
    if named in components:
        return _inline_references(components[named], components)
    return {key: _inline_references(value, components) for key, value in schema.items()}


def _event_schema(entry: EventEntry) -> dict[str, Any]:
    schema = _schema(entry.name, entry.kind)
    schema["properties"]["client"] = {
        "description": "id of the client that sent the request; on PUB only",
        "type": "string",
    }
    if entry.kind is m.Done:
        takes = schema["properties"]["takes"]
        listed = {"type": "array", "items": {"$ref": "#/$defs/event.take"}}
        schema["properties"]["takes"] = {"description": takes["description"], "anyOf": [{"type": "integer"}, listed]}
    return schema


def _is_osc_only(kind: type[m.Message], key: str) -> bool:
    return issubclass(kind, m.Request) and key == "port"


def protocol_reference() -> str:
    """Return the reference page as Markdown."""
    parts = [
        _INTRODUCTION.format(version=PROTOCOL_VERSION, **_facts()),
        _ENDPOINTS.format(**{name.replace(".", "_"): setting.default for name, setting in NAMED.items()}),
        "## Requests\n",
        _table(("Request", "What it does", "Answered by"), (_summary_row(entry) for entry in REQUESTS)),
        *(_request(entry) for entry in REQUESTS),
        _KEYS_OF_A_SOUND,
        _key_table(_own_keys(Recipe, PlaybackKeys), at_sign=True),
        _KEYS_OF_PLAYING,
        _key_table(_own_keys(PlaybackKeys, m.Request), at_sign=True),
        _EVENTS,
        _table(("Event", "Meaning"), ((f"`{e.address}`{_ends(e)}", _doc(e.kind)) for e in EVENTS)),
        *(_event(entry) for entry in EVENTS),
        _ERRORS,
        _table(("Code", "Meaning"), ((f"`{code}`", error.meaning) for code, error in CODES.items())),
    ]
    return "\n".join(parts)


def _facts() -> dict[str, object]:
    return {
        "datagram": f"{osc.MAX_DATAGRAM_BYTES:,}",
        "ahead": f"{osc.MAX_TIME_TAG_AHEAD_S:g}",
        "deep": osc_packets.MAX_BUNDLE_DEPTH,
        "expanded": osc.MAX_PATTERN_ADDRESSES,
        "json": f"{json.MAX_REQUEST_BYTES:,}",
        "prompt": f"{MAX_PROMPT_CHARACTERS:,}",
    }


def _doc(kind: type[m.Message]) -> str:
    return " ".join((kind.__doc__ or "").split())


def _own_keys(kind: type[m.Message], base: type[m.Message]) -> list[Key]:
    """Return the keys that a message adds to those of its base."""
    inherited = fields_of(base)
    return [key for key in keys_of(kind) if key.name not in inherited]


def _summary_row(entry: RequestEntry) -> tuple[str, ...]:
    answers = ", ".join(f"`{name}`" for name in entry.answers)
    return f"[`{entry.name}`](#{entry.name})", _doc(entry.kind), answers


def _request(entry: RequestEntry) -> str:
    named = (*entry.positional, *([entry.rest] if entry.rest else []))
    line = " ".join([entry.address, *(name.upper() for name in named)])
    lines = [f"\n### {entry.name}\n", _doc(entry.kind), "", f"    {line}", f"    {_json_example(entry)}", ""]
    own = [key for key in _keys_to_list(entry) if key.name not in ("port", entry.family)]
    if own:
        lines.append(_key_table(own, positional=named))
    for other, declared in entry.spellings:
        lines.append(f"\n`{other}` is an alias of `{declared}`.")
    if issubclass(entry.kind, Recipe):
        lines.append("\nAlso all [keys of a sound](#keys-of-a-sound) and [keys of playing](#keys-of-playing).")
    elif issubclass(entry.kind, PlaybackKeys):
        lines.append("\nAlso all [keys of playing](#keys-of-playing).")
    return "\n".join(lines)


def _keys_to_list(entry: RequestEntry) -> list[Key]:
    named = {*entry.positional, entry.rest}
    base = next((kind for kind in (Recipe, PlaybackKeys) if issubclass(entry.kind, kind)), m.Request)
    shared = {key.name for key in keys_of(base)} - named
    keys = {key.name: key for key in keys_of(entry.kind) if key.name not in shared}
    first = [keys[name] for name in (*entry.positional, entry.rest) if name in keys]
    return first + [key for key in keys.values() if key.name not in named]


def _json_example(entry: RequestEntry) -> str:
    named = (*entry.positional, *([entry.rest] if entry.rest else []))
    required = [name for name in named if fields_of(entry.kind)[name].required]
    examples = {name: _EXAMPLES[name] for name in required}
    return msgspec.json.encode({"type": _wire_name(entry), **examples}).decode()


def _wire_name(entry: RequestEntry | EventEntry) -> str:
    return entry.address.removeprefix(ROOT)


_EXAMPLES: dict[str, str | int | float] = {
    "id": "a1",
    "prompt": "warm analog pad",
    "take": "a take id",
    "on": 1,
    "model": "pocket",
    "voice": 1,
    "bpm": 128,
    "n": 1,
}


def _event(entry: EventEntry) -> str:
    suffix = " (of a request that generates no audio)" if entry.kind is m.Acknowledged else ""
    keys = keys_of(entry.kind)
    by_osc = [key.name for key in keys if key.name not in entry.kind.json_only]
    lines = [f"\n### {entry.address}{suffix}\n", _doc(entry.kind), ""]
    tags = osc_tags(entry.kind)
    lines.append(f"    {' '.join([entry.address, tags, *by_osc])}".rstrip(" ,"))
    fields = ", ".join(f'"{key.name}": ...' for key in keys)
    lines.append(f'    {{"type": "{_wire_name(entry)}"{", " if fields else ""}{fields}}}')
    notes = [
        (f"`{key.name}`" + (" (JSON only)" if key.name in entry.kind.json_only else ""), key.about)
        for key in keys
        if key.about or key.name in entry.kind.json_only
    ]
    return "\n".join([*lines, "", _table(("Field", "Meaning"), notes)] if notes else lines)


def _ends(entry: EventEntry) -> str:
    return " (ends the request)" if entry.terminal else ""


def _key_table(keys: Iterable[Key], positional: tuple[str, ...] = (), *, at_sign: bool = False) -> str:
    rows: list[tuple[str, ...]] = []
    for key in keys:
        spelled = f"`{key.name}`" if key.name in positional and not at_sign else f"`@{key.name}`"
        default = "required" if key.required else key.default
        rows.append((spelled, key.about, key.allowed, default))
    return _table(("Key", "Meaning", "Allowed", "Default"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


_INTRODUCTION = """\
# timbred's protocol, version {version}

This page is generated from the declarations in `daemon/timbred/protocol` by `python -m timbred.protocol.describe`.

A client sends **requests** and receives **events**. Names are the same on every transport. Over OSC a request is
one message: the address, the required arguments, then any number of `@key value` pairs:

    /timbred/generate a1 warm analog pad @seconds 4 @seed 7 @negative low quality

Over ZeroMQ and the WebSocket it is one JSON object:

    {{"type": "generate", "id": "a1", "prompt": "warm analog pad", "seconds": 4, "seed": 7, "negative": "low quality"}}

The client receives

    /timbred/queued a1 0 0.9
    /timbred/started a1 pocket
    /timbred/progress a1 0.5 4 8 0.3
    /timbred/take a1 0 /home/you/Music/timbred/warm-analog-pad.wav 4.0 48000 1 7 0.31 TAKE_ID
    /timbred/done a1 1 /home/you/Music/timbred/warm-analog-pad.wav

or, in JSON, `{{"type": "queued", "id": "a1", "position": 0, "eta_s": 0.9}}` and so on.

- **Ids**: the client chooses the id (`a1`), text or a whole number. The same id sent again by the same client is the
  same request: it is answered with its current state and never run twice. With another prompt or other keys it is
  refused with `bad-request`, which names the difference.
- **Prompts** may be one string, or several words and numbers, as Pd and Max send them. The maximum length is {prompt}
  characters.
- **Values** extend to the next `@key` and need no quotes. Each key may be given once.
- **Keys inside one string** are recognised: `kick drum @seconds 0.3 @seed 7` may be one argument, for senders that
  have a single text field. An `@` at the beginning of a word starts a key; an unknown key is refused. Text in double
  quotes is literal, and the quotes are removed: `"dinner @ eight" @seed 7`. A quoted key alone (`"@seed"`) is
  refused, because it is ambiguous. Ids are never divided. Paths are divided only before the name of a key. In JSON,
  keys are fields: `@seconds` inside `prompt`, `negative`, `prompt2` or `transcription` is refused unless it is in
  double quotes; any other `@` is part of the text.
- **Address patterns** of OSC 1.0 (`?`, `*`, `[a-c]`, `[!a-c]`, `{{ping,status}}`) match every address, settings
  included, at most {expanded} in one packet. Requests with an id can't be addressed by a pattern.
- `ping`, `status`, `models` and `engines` have no arguments; over OSC, any arguments are ignored.
- **Flow control**: requests of all connections are processed in turn. A TCP connection or WebSocket that doesn't read
  its answers isn't read from until it has read them, and is closed after 60 s, or when 4 MB of events are queued for
  it. At most 1,000 events are queued for a ZeroMQ client, and further events are lost; datagrams that arrive faster
  than they can be answered are lost. A client with 128 pending requests that read files is answered `busy`.
- **Numbers** may be any of OSC's `i f h d`, or text that reads as a number. Booleans may be `T F`, 0/1, or words.
- **Invalid values are never ignored or clamped**: they are answered by `fail` with code `bad-request`, which states
  the key, the value received and the values allowed. A request without an id fails with its type in the id's place.
- **Exactly one terminal event** ends a request: `done`, `cancelled` or `fail`.
- `@port` with a port number on any OSC request sends its answers to that port on the sender's host.
- **Bundles** may be nested {deep} levels deep. Their time tag may lie up to {ahead} s in the future; the requests are
  then accepted at that time.
- OSC answers contain only `i`, `f` and `s`, in datagrams of at most {datagram} bytes. A JSON request may have at most
  {json} bytes.
- A DEALER receives events as they happen. A REQ gets one reply: the terminal event, with the `take` events in
  `takes`. With `"inline": true` the samples follow each take as one more frame: float32, little-endian, interleaved.
- PUB sends every event: its name as topic, then the JSON object with the additional field `client`, the id of the
  client that sent the request.
"""

_ENDPOINTS = """\
## Endpoints

All are bound to `{host}` by default (setting `host`). Beyond loopback, ZeroMQ clients need a trusted CURVE key, HTTP
and WebSocket clients a token, and OSC clients an allowed address; others are refused with `access-denied`
([access](access.md)).

| Endpoint | Port | Setting |
| --- | --- | --- |
| OSC over UDP, and OSC over TCP (SLIP as in OSC 1.1, or size prefixes as in OSC 1.0) | {osc_port} | `osc.port` |
| ZeroMQ requests: DEALER or REQ connect to it | {zmq_requests} | `zmq.requests` |
| ZeroMQ events: SUB connects to it | {zmq_events} | `zmq.events` |
| HTTP: [the panel](panel.md) at `/`, OSCQuery at each address, `/ws` (WebSocket; `/ws?client=NAME` to reconnect as \
the same client), `/takes/...`, `/schema.json`, `/status` | {http_port} | `http.port` |
"""

_KEYS_OF_A_SOUND = """
## Keys of a sound

For `generate`, `vary` and `flow`. Defaults come from the model's card or from the session.
"""

_KEYS_OF_PLAYING = """
## Keys of playing

For `play` and `flow`, and for `generate` and `vary` with `@to play` or `@to both`.
"""

_EVENTS = """
## Events

OSC arguments are in the order shown here. `?` in the type tags is an id: `s` or `i`, as the client sent it.
"""

_ERRORS = """
## Errors

`fail` has one of these codes, and a message with the cause and the remedy.
"""


if __name__ == "__main__":
    sys.stdout.write(protocol_reference())

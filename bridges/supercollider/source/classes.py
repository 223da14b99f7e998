"""Generation of the Quark's methods: one for each request, with an argument for each key."""

from collections.abc import Iterable

from timbred.errors import CODES
from timbred.protocol.describe import Key, keys_of
from timbred.protocol.schema import EVENTS, REQUESTS, RequestEntry

NOT_FROM_HERE = ("id", "port", "inline")
"""Fields that the Quark sets itself or that don't apply: ids; sclang's own port receives the answers; no samples."""

OTHER_NAMES = {"settings": "setting"}
"""Method names that differ from the request's name."""

ABOUT_VOICES = ("play", "stop", "set", "flow")
"""Requests whose answers have a voice in place of an id."""

NOT_OFFERED = ("sync", "ping", "hello")
"""Requests without a method; `Timbred.default.send` can send them."""

HEAD = """// Generated from timbred's protocol by: python -m bridges.supercollider.source

"""


def methods_file() -> str:
    """Return the file with a class method and an instance method for each request."""
    offered = [entry for entry in REQUESTS if entry.name not in NOT_OFFERED]
    on_class = "\n".join(_class_method(entry) for entry in offered)
    on_instance = "\n".join(_method(entry) for entry in offered)
    return f"{HEAD}+ Timbred {{\n{on_class}\n{on_instance}}}\n"


def positional(entry: RequestEntry) -> list[str]:
    """Return the arguments before the actions: those without a key over OSC, except the id."""
    named = [*entry.positional, *([entry.family] if entry.family else []), *([entry.rest] if entry.rest else [])]
    order = [entry.family, *named] if entry.family else named
    return list(dict.fromkeys(name for name in order if name and not (entry.has_id and name == "id")))


def keys(entry: RequestEntry) -> list[Key]:
    """Return the keys, which are keyword arguments."""
    taken = {*positional(entry), *NOT_FROM_HERE}
    return [key for key in keys_of(entry.kind) if key.name not in taken]


def actions(entry: RequestEntry) -> list[str]:
    """Return the names of the callback arguments."""
    return ["action", "progress", "fail", "server"] if entry.has_id else ["action"]


def arguments(entry: RequestEntry) -> list[str]:
    """Return all arguments of a method, in order. `action` is second, so that it can be a trailing block."""
    before = positional(entry)
    if entry.name == "vary":
        return ["take", *actions(entry), "prompt", *(key.name for key in keys(entry))]
    return [*before, *actions(entry), *(key.name for key in keys(entry))]


def method_name(entry: RequestEntry) -> str:
    """Return the method's name."""
    return OTHER_NAMES.get(entry.name, entry.name)


def _class_method(entry: RequestEntry) -> str:
    names = ", ".join(arguments(entry))
    head = f"\t*{method_name(entry)} {{ |{names}|\n"
    return f"{head}\t\t^this.default.{method_name(entry)}({names})\n\t}}\n"


def _method(entry: RequestEntry) -> str:
    head = f"\t{method_name(entry)} {{ |{', '.join(arguments(entry))}|\n"
    named = ", ".join(f"{key.name}: {key.name}" for key in keys(entry))
    table = f"({named})"
    if entry.name == "vary":
        body = (
            "this.request(\\vary, [this.takeNamed(take), prompt].reject(_.isNil), "
            + table
            + ", action, progress, fail, server)"
        )
    elif entry.has_id:
        body = f"this.request(\\{entry.name}, [prompt], {table}, action, progress, fail, server)"
    elif entry.name in ABOUT_VOICES:
        values = "".join(_argument(name) for name in positional(entry)[1:])
        body = f"this.forVoice(\\{entry.name}, voice, [{values}], {table}, action)"
    elif entry.family:
        body = f'this.ask(("{entry.name}/" ++ name).asSymbol, [value].reject(_.isNil), {table}, action)'
    elif entry.name == "cancel":
        body = 'this.send(\\cancel, if(id.isKindOf(TimbredRequest)) { id.id } { id ? "*" })'
    else:
        values = ", ".join(f"this.class.plain({name})" for name in positional(entry))
        given = f"[{values}]" if entry.name != "words" else "if(model.isNil) { [] } { [this.class.plain(model)] }"
        body = f"this.ask(\\{entry.name}, {given}, {table}, action)"
    return f"{head}\t\t^{body}\n\t}}\n"


def _argument(name: str) -> str:
    return "this.takeNamed(take)" if name == "take" else f"this.class.plain({name})"


def vocabulary_file() -> str:
    """Return the file of the class with keys, ranges, events and codes."""
    requests = "\n".join(f"\t\t\t{entry.name}: [{_symbols(key.name for key in keys(entry))}]," for entry in REQUESTS)
    ranges: dict[str, str] = {}
    for entry in REQUESTS:
        for key in keys(entry):
            ranges.setdefault(key.name, key.allowed)
    allowed = "\n".join(f"\t\t\t{name}: {quoted(text)}," for name, text in ranges.items())
    codes = _symbols(CODES)
    events = _symbols(dict.fromkeys(entry.name for entry in EVENTS))
    return f"""{HEAD}// The protocol's requests, key ranges, events and error codes.
TimbredVocabulary {{
	// the keys of each request
	*requests {{
		^(
{requests}
		)
	}}

	// the allowed values of each key, as text
	*ranges {{
		^(
{allowed}
		)
	}}

	*events {{ ^[{events}] }}

	*codes {{ ^[{codes}] }}
}}
"""


def _symbols(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def quoted(text: str) -> str:
    """Return a string literal of sclang."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

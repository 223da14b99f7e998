"""Generation of the help page of the class Timbred: a hand-written part, and every method with its arguments."""

from pathlib import Path

from bridges.supercollider.source.classes import NOT_OFFERED, arguments, method_name
from bridges.supercollider.source.reference import plain
from timbred.protocol.describe import Key, keys_of
from timbred.protocol.schema import REQUESTS, RequestEntry

BY_HAND = Path(__file__).parent / "Timbred.txt"

PLACE = "REQUESTS\n"

OUR_OWN: dict[str, str] = {
    "progress": "A function of the progress, 0 to 1, and the remaining seconds.",
    "fail": "A function of the error's code and message.",
    "server": "The server of the buffers. Default: the default server.",
}
"""Arguments that the Quark adds to a request's own."""

ACTIONS: dict[str, str] = {
    "generate": "A function of the link::Classes/Buffer:: and the link::Classes/TimbredTake::, "
    "called for each take once the server has read it.",
    "vary": "As in code::generate::.",
    "models": "A function of each model's name, state, native rate, channels, maximum seconds, licence and MB.",
    "words": "A function of each group's model, name, 1 for kinds of sounds, and words separated by commas.",
    "takes": "A function of each link::Classes/TimbredTake::.",
    "status": "A function of the fields of code::status.reply::, in the protocol's order.",
    "settings": "A function of the current value.",
}
"""Descriptions of the actions of requests; without an entry, the action receives voice events or `done`."""

MORE: dict[str, str] = {
    "generate": """returns:: a link::Classes/TimbredRequest::
discussion::
With code::scsynth: true:: the server reads the file itself, into a buffer whose number is sent with the request;
code::buffer: n:: sets that number.
code::
// four takes, the best first if the model supports ranking
Timbred.generate("a deep kick drum", seconds: 0.5, takes: 4) { |buffer, take| take.postln };

// in a Routine
fork {
	var request = Timbred.generate("warm pad", seconds: 2);
	request.wait.postln
};
::""",
    "vary": "discussion:: Without code::take:: it starts from the last take.",
    "flow": """discussion:: Call it again with another prompt to change the sound.
code::
Timbred.flow(1, "wind in wires");
Timbred.stop(1, fade: 3);
::""",
}
"""Text after a method's arguments."""


def page() -> str:
    """Return the page in SuperCollider's help format."""
    sounds_first = sorted(REQUESTS, key=lambda entry: not entry.has_id)
    methods = "\n".join(_method(entry) for entry in sounds_first if entry.name not in NOT_OFFERED)
    return BY_HAND.read_text("utf-8").replace(PLACE, methods)


def _method(entry: RequestEntry) -> str:
    known = {key.name: key for key in keys_of(entry.kind)}
    about = plain(" ".join((entry.kind.__doc__ or "").split()).partition(". ")[0].rstrip(".") + ".")
    lines = [f"METHOD:: {method_name(entry)}", about]
    for name in arguments(entry):
        lines += [f"ARGUMENT:: {name}", _about(entry, name, known.get(name))]
    return "\n".join([*lines, *([MORE[entry.name]] if entry.name in MORE else [])]) + "\n"


def _about(entry: RequestEntry, name: str, key: Key | None) -> str:
    if name == "action":
        return ACTIONS.get(entry.name, "A function of the answer.")
    if name in OUR_OWN:
        return OUR_OWN[name]
    assert key is not None
    text = plain(f"{key.about} ({key.allowed})" if key.about else key.allowed)
    first = text[0].upper()
    return first + text[1:] + (f". Default: {plain(key.default)}." if key.default else ".")

"""The help page of the class Timbred: what is written by hand, and every method with every argument."""

from pathlib import Path

from bridges.supercollider.source.classes import NOT_OFFERED, arguments, method_name
from bridges.supercollider.source.reference import plain
from timbred.protocol.describe import Key, keys_of
from timbred.protocol.schema import REQUESTS, RequestEntry

BY_HAND = Path(__file__).parent / "Timbred.txt"

PLACE = "REQUESTS\n"

OUR_OWN: dict[str, str] = {
    "progress": "A function of the fraction done, 0 to 1, and the seconds that are left.",
    "fail": "A function of the error's code and message.",
    "server": "Where the buffers are; the default server where nothing is said.",
}
"""Arguments that the Quark adds to a request's own."""

ACTIONS: dict[str, str] = {
    "generate": "A function of the link::Classes/Buffer:: and the link::Classes/TimbredTake::, "
    "called for each take once the server has read it.",
    "vary": "As in code::generate::.",
    "models": "A function of each model's name, state, native rate, channels, longest seconds, licence and megabytes.",
    "takes": "A function of each link::Classes/TimbredTake::.",
    "status": "A function of what the daemon answers, in the protocol's order.",
    "settings": "A function of the value now in force.",
}
"""The events that a request's action receives; without an entry those of a voice, or `done`."""

MORE: dict[str, str] = {
    "generate": """returns:: a link::Classes/TimbredRequest::
discussion::
code::scsynth: true:: lets the server read the file by itself, into a buffer whose number is sent with the request;
code::buffer: n:: chooses that number.
code::
// four variations, the best first where the model can tell
Timbred.generate("a deep kick drum", seconds: 0.5, takes: 4) { |buffer, take| take.postln };

// in a Routine
fork {
	var request = Timbred.generate("warm pad", seconds: 2);
	request.wait.postln
};
::""",
    "vary": "discussion:: Without code::take:: it starts from the last one.",
    "flow": """discussion:: Once more with other words: another course.
code::
Timbred.flow(1, "wind in wires");
Timbred.stop(1, fade: 3);
::""",
}
"""Text after a method's arguments."""


def page() -> str:
    """The page in SuperCollider's help language."""
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
        return ACTIONS.get(entry.name, "A function of what is answered.")
    if name in OUR_OWN:
        return OUR_OWN[name]
    assert key is not None
    text = plain(f"{key.about} ({key.allowed})" if key.about else key.allowed)
    first = text[0] if text.startswith("dB") else text[0].upper()
    return first + text[1:] + (f". Default: {plain(key.default)}." if key.default else ".")

"""The Max objects that the patches use, with their inlets and outlets, as Max saves them.

Outlet types are named as in Max: "signal", "bang", "int", "float", "list", or "" for any message.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

ANY = ""
SIGNAL = "signal"
BANG = "bang"

Arguments = Sequence[str]


@dataclass(frozen=True)
class Ports:
    """An object's inlets, and the type of each outlet."""

    inlets: int
    outlets: tuple[str, ...]


def _fixed(inlets: int, *outlets: str) -> Callable[[Arguments], Ports]:
    return lambda _: Ports(inlets, outlets)


def _route(arguments: Arguments) -> Ports:
    return Ports(len(arguments) + 1, (ANY,) * (len(arguments) + 1))


def _select(arguments: Arguments) -> Ports:
    return Ports(2 if len(arguments) == 1 else len(arguments) + 1, (BANG,) * len(arguments) + (ANY,))


_TRIGGERED = {"b": BANG, "i": "int", "f": "float", "l": ANY, "a": ANY, "s": ANY}


def _trigger(arguments: Arguments) -> Ports:
    return Ports(1, tuple(_TRIGGERED.get(word, ANY) for word in arguments))


def _unpack(arguments: Arguments) -> Ports:
    return Ports(
        1, tuple("float" if "." in word else "int" if word.lstrip("-").isdigit() else ANY for word in arguments)
    )


def _play(arguments: Arguments) -> Ports:
    channels = int(arguments[1]) if len(arguments) > 1 else 1
    return Ports(1, (SIGNAL,) * channels + (BANG,))


_PLAIN: dict[str, Callable[[Arguments], Ports]] = {
    "*~": _fixed(2, SIGNAL),
    "+": _fixed(2, "float"),
    "-": _fixed(2, "float"),
    "/": _fixed(2, "float"),
    "==": _fixed(2, "int"),
    "adsr~": _fixed(5, SIGNAL, SIGNAL, ANY, ANY),
    "append": _fixed(1, ANY),
    "buffer~": _fixed(1, "float", BANG),
    "deferlow": _fixed(1, ANY),
    "dac~": _fixed(2),
    "delay": _fixed(2, BANG),
    "dspstate~": _fixed(1, "int", "float", "int", "int"),
    "expr": _fixed(1, "float"),
    "f": _fixed(2, "float"),
    "gate": _fixed(2, ANY),
    "groove~": _fixed(3, SIGNAL, SIGNAL, SIGNAL),
    "in": _fixed(0, ANY),
    "js": _fixed(1, ANY, ANY, ANY, ANY),
    "live.thisdevice": _fixed(1, BANG, "int", "int"),
    "loadbang": _fixed(1, BANG),
    "maximum": _fixed(2, "float", "int"),
    "midiin": _fixed(1, "int"),
    "midiparse": _fixed(1, ANY, ANY, ANY, "int", "int", "int", "int", ANY),
    "node.script": _fixed(1, ANY, ANY),
    "out~": _fixed(1),
    "pattr": _fixed(1, ANY, ANY, ANY),
    "play~": _play,
    "plugin~": _fixed(2, SIGNAL, SIGNAL),
    "plugout~": _fixed(2, SIGNAL, SIGNAL),
    "poly~": _fixed(2, SIGNAL, SIGNAL),
    "prepend": _fixed(1, ANY),
    "print": _fixed(1),
    "random": _fixed(2, "int"),
    "route": _route,
    "sel": _select,
    "sig~": _fixed(1, SIGNAL),
    "sprintf": _fixed(1, ANY),
    "t": _trigger,
    "thispoly~": _fixed(1, "int", "int", "int"),
    "timbred": _fixed(1, ANY, ANY, ANY, ANY),
    "udpreceive": _fixed(1, ANY),
    "udpsend": _fixed(1),
    "unpack": _unpack,
    "zl": _fixed(2, ANY, ANY),
}
"""Objects in object boxes."""

INTERFACE: dict[str, Ports] = {
    "button": Ports(1, (BANG,)),
    "comment": Ports(1, ()),
    "ezdac~": Ports(2, ()),
    "inlet": Ports(0, (ANY,)),
    "live.comment": Ports(1, ()),
    "live.dial": Ports(1, (ANY, "float")),
    "live.drop": Ports(1, (ANY, ANY)),
    "live.gain~": Ports(2, (SIGNAL, SIGNAL, ANY, "float", "list")),
    "live.menu": Ports(1, (ANY, ANY, "float")),
    "live.numbox": Ports(1, (ANY, "float")),
    "live.tab": Ports(1, (ANY, ANY, "float")),
    "live.text": Ports(1, (ANY, ANY)),
    "message": Ports(2, (ANY,)),
    "multislider": Ports(1, (ANY, ANY)),
    "number": Ports(1, (ANY, BANG)),
    "outlet": Ports(1, ()),
    "panel": Ports(1, ()),
    "textedit": Ports(1, (ANY, "int", ANY, ANY)),
    "umenu": Ports(1, ("int", ANY, ANY)),
    "waveform~": Ports(5, ("float", "float", "float", "float", "list", ANY)),
}
"""User interface objects, whose class is their name."""

NOT_IN_MAX = ("timbred",)
"""Abstractions of this project."""


def ports(maxclass: str, text: str) -> Ports:
    """Return the inlets and outlets of a box with this text.

    Raises:
        KeyError: The object isn't in the tables.
    """
    if maxclass != "newobj":
        return INTERFACE[maxclass]
    name, *arguments = text.split()
    return _PLAIN[name](_before_attributes(arguments))


def _before_attributes(words: Sequence[str]) -> Sequence[str]:
    marked = next((index for index, word in enumerate(words) if word.startswith("@")), len(words))
    return words[:marked]

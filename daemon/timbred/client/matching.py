"""Which event answers which request. Does no I/O."""

from timbred.protocol import messages as m
from timbred.protocol.vocabulary import REQUESTS, RequestEntry, answers, is_terminal

_ENTRY_OF = {entry.kind: entry for entry in REQUESTS}
_SHARED = ("voice", "model", "name", "n")
"""Fields by which a question without an id and its answer belong together."""


def entry_of(request: m.Request) -> RequestEntry:
    """The request's declaration."""
    return _ENTRY_OF[type(request)]


def wire_name(request: m.Request) -> str:
    """The request's name on the wire.

    >>> wire_name(m.Setting(name="tempo"))
    'settings/tempo'
    """
    entry = entry_of(request)
    return f"{entry.name}/{getattr(request, entry.family)}" if entry.family else entry.name


def belongs(request: m.Request, event: m.Event) -> bool:
    """Whether an event speaks of this request.

    >>> belongs(m.Play(voice=1, take="a"), m.Playing(voice=2, take="b", frame=0, beat=0.0))
    False
    """
    entry = entry_of(request)
    if entry.has_id:
        return getattr(event, "id", None) == getattr(request, "id", None)
    if isinstance(event, m.Fail | m.Done | m.Acknowledged | m.Take):
        return str(event.id) == wire_name(request)
    return answers(entry, event) and all(_agree(request, event, name) for name in _SHARED)


def _agree(request: m.Request, event: m.Event, name: str) -> bool:
    asked, told = getattr(request, name, None), getattr(event, name, None)
    return asked in (None, "*") or told is None or str(asked) == str(told)


def ends(request: m.Request, event: m.Event) -> bool:
    """Whether an event that belongs to a request is its last."""
    return is_terminal(event) and belongs(request, event)

"""Declaration of every address: its name, its message type, the order of OSC arguments, and the events that answer it.

Decoders, encoders, the JSON schema, the reference page and the bridges' tables are derived from it.
"""

from dataclasses import dataclass

from timbred.protocol import messages as m

PROTOCOL_VERSION = 1
ROOT = "/timbred/"


@dataclass(frozen=True)
class RequestEntry:
    """Declaration of one request.

    Attributes:
        name: Its name on the wire, without `/timbred/`.
        kind: Its message type.
        answers: Names of the events that answer it.
        positional: Names of the OSC arguments before any `@key`.
        rest: The field that takes the further arguments, joined by spaces.
        spellings: Aliases of keys: (alias, declared name).
        family: The field whose value is part of the address, as in `settings/tempo`; empty if there is none.
    """

    name: str
    kind: type[m.Request]
    answers: tuple[str, ...]
    positional: tuple[str, ...] = ()
    rest: str | None = None
    spellings: tuple[tuple[str, str], ...] = ()
    family: str = ""

    @property
    def address(self) -> str:
        """The OSC address; a family's ends with the name of its field in upper case."""
        return ROOT + self.name + ("/" + self.family.upper() if self.family else "")

    @property
    def has_id(self) -> bool:
        """True if the client gives this request an id, which its events repeat."""
        return issubclass(self.kind, m.Generate | m.Vary)


@dataclass(frozen=True)
class EventEntry:
    """Declaration of one event.

    Attributes:
        name: Its name on the wire, without `/timbred/`.
        kind: Its message type.
        terminal: True if it ends a request.
        private: True if it answers one client only and is not sent to clients that subscribe to all events.
        asker: True if it is sent to the client that made the request only, and not published.
        family: The field whose value is part of the address; empty if there is none.
    """

    name: str
    kind: type[m.Event]
    terminal: bool = False
    private: bool = False
    asker: bool = False
    family: str = ""

    @property
    def address(self) -> str:
        """The OSC address; a family's ends with the name of its field in upper case."""
        return ROOT + self.name + ("/" + self.family.upper() if self.family else "")


_RENDER_ANSWERS = (
    "queued",
    "started",
    "warning",
    "progress",
    "preview",
    "take",
    "buffered",
    "done",
    "cancelled",
    "fail",
)

REQUESTS: tuple[RequestEntry, ...] = (
    RequestEntry("hello", m.Hello, ("welcome",), positional=("name",)),
    RequestEntry("notify", m.Notify, ("done",), positional=("on",)),
    RequestEntry("generate", m.Generate, _RENDER_ANSWERS, positional=("id",), rest="prompt"),
    RequestEntry("vary", m.Vary, _RENDER_ANSWERS, positional=("id", "take"), rest="prompt"),
    RequestEntry("cancel", m.Cancel, ("cancelled", "fail"), positional=("id",)),
    RequestEntry("status", m.Status, ("status.reply",)),
    RequestEntry("models", m.Models, ("model",)),
    RequestEntry("words", m.KnownWords, ("known", "done", "fail"), positional=("model",)),
    RequestEntry("loras", m.Loras, ("lora", "done")),
    RequestEntry("engines", m.Engines, ("engine",)),
    RequestEntry("load", m.Load, ("loaded", "fail"), positional=("model",), spellings=(("name", "model"),)),
    RequestEntry("unload", m.Unload, ("unloaded", "fail"), positional=("model",), spellings=(("name", "model"),)),
    RequestEntry("takes", m.Takes, ("take", "done", "fail")),
    RequestEntry("play", m.Play, ("playing", "ended", "fail"), positional=("voice", "take")),
    RequestEntry("stop", m.Stop, ("ended", "done", "fail"), positional=("voice",)),
    RequestEntry("set", m.Set, ("done", "fail"), positional=("voice",)),
    RequestEntry("flow", m.Flow, ("flowing", "ended", "warning", "fail"), positional=("voice",), rest="prompt"),
    RequestEntry("tempo", m.Tempo, ("done", "fail"), positional=("bpm",)),
    RequestEntry("settings", m.Setting, ("settings", "fail"), positional=("value",), family="name"),
    RequestEntry("sync", m.Sync, ("synced",), positional=("n",)),
    RequestEntry("ping", m.Ping, ("pong",)),
)

EVENTS: tuple[EventEntry, ...] = (
    EventEntry("queued", m.Queued),
    EventEntry("started", m.Started),
    EventEntry("warning", m.Warned),
    EventEntry("progress", m.Progress),
    EventEntry("preview", m.Preview),
    EventEntry("take", m.Take),
    EventEntry("buffered", m.Buffered, asker=True),
    EventEntry("done", m.Done, terminal=True),
    EventEntry("done", m.Acknowledged, terminal=True, private=True),
    EventEntry("cancelled", m.Cancelled, terminal=True),
    EventEntry("fail", m.Fail, terminal=True),
    EventEntry("playing", m.Playing, terminal=True),
    EventEntry("ended", m.Ended, terminal=True),
    EventEntry("flowing", m.Flowing, terminal=True),
    EventEntry("welcome", m.Welcome, terminal=True, private=True),
    EventEntry("status.reply", m.StatusReply, terminal=True, private=True),
    EventEntry("model", m.Model, private=True),
    EventEntry("known", m.KnownGroup, private=True),
    EventEntry("lora", m.Lora, private=True),
    EventEntry("engine", m.Engine, private=True),
    EventEntry("loaded", m.Loaded, terminal=True),
    EventEntry("unloaded", m.Unloaded, terminal=True),
    EventEntry("settings", m.SettingNow, terminal=True, private=True, family="name"),
    EventEntry("synced", m.Synced, terminal=True, private=True),
    EventEntry("pong", m.Pong, terminal=True, private=True),
)

REQUEST_OF: dict[type[m.Request], RequestEntry] = {entry.kind: entry for entry in REQUESTS}
REQUEST_NAMED: dict[str, RequestEntry] = {entry.name: entry for entry in REQUESTS}
EVENT_OF: dict[type[m.Event], EventEntry] = {entry.kind: entry for entry in EVENTS}
EVENT_NAMES: frozenset[str] = frozenset(entry.name for entry in EVENTS if not entry.family)

_MATCHING_FIELDS = ("voice", "model", "name", "n")
"""Fields that match the answer of a request without an id to the request."""


def find_request(name: str) -> tuple[RequestEntry, dict[str, str]] | None:
    """Return the declaration of a request by its name on the wire, and the key that a family's name gives.

    >>> find_request("settings/tempo")[1]
    {'name': 'tempo'}
    """
    entry = REQUEST_NAMED.get(name)
    if entry is not None:
        return None if entry.family else (entry, {})
    family, _, member = name.partition("/")
    entry = REQUEST_NAMED.get(family)
    return (entry, {entry.family: member}) if entry is not None and entry.family and member else None


def name_of(event: m.Event) -> str:
    """Return an event's name on the wire."""
    entry = EVENT_OF[type(event)]
    return f"{entry.name}/{getattr(event, entry.family)}" if entry.family else entry.name


def answers(entry: RequestEntry, event: m.Event) -> bool:
    """Tell if an event is one of those that answer this kind of request."""
    return EVENT_OF[type(event)].name in entry.answers


def is_terminal(event: m.Event) -> bool:
    """Tell if an event ends its request."""
    return EVENT_OF[type(event)].terminal


def entry_of(request: m.Request) -> RequestEntry:
    """Return the declaration of a request."""
    return REQUEST_OF[type(request)]


def wire_name(request: m.Request) -> str:
    """Return a request's name on the wire.

    >>> wire_name(m.Setting(name="tempo"))
    'settings/tempo'
    """
    entry = entry_of(request)
    return f"{entry.name}/{getattr(request, entry.family)}" if entry.family else entry.name


def belongs(request: m.Request, event: m.Event) -> bool:
    """Tell if an event belongs to a request.

    >>> belongs(m.Play(voice=1, take="a"), m.Playing(voice=2, take="b", frame=0, beat=0.0))
    False
    """
    entry = entry_of(request)
    if entry.has_id:
        return getattr(event, "id", None) == getattr(request, "id", None)
    if isinstance(event, m.Fail | m.Done | m.Acknowledged | m.Take):
        return str(event.id) == wire_name(request)
    return answers(entry, event) and all(_matches(request, event, name) for name in _MATCHING_FIELDS)


def _matches(request: m.Request, event: m.Event, name: str) -> bool:
    requested, answered = getattr(request, name, None), getattr(event, name, None)
    return requested in (None, "*") or answered is None or str(requested) == str(answered)


def ends(request: m.Request, event: m.Event) -> bool:
    """Tell if an event is the last one of a request."""
    return is_terminal(event) and belongs(request, event)

"""Messages of clients and events of the daemon: one frozen type each.

The fields carry their ranges and their help; the decoders, the JSON schema and the reference page are
derived from them. Addresses and the order of OSC arguments are declared in `schema`.
"""

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from timbred.protocol.keys import (
    Message,
    ModelName,
    PathOrTake,
    PlaybackKeys,
    Prompt,
    Recipe,
    Request,
    ServerKeys,
    Voice,
    Words,
)

Id = Annotated[str, Meta(max_length=200)] | int
"""A client's own name for a request."""


class Hello(Request, frozen=True, kw_only=True):
    """Introduces a client, and says where its answers go."""

    name: Annotated[str, Meta(max_length=120, description="a name for the logs")] = ""


class Notify(Request, frozen=True, kw_only=True):
    """Asks for everybody's events too, or no more."""

    on: Annotated[bool, Meta(description="1: send me everybody's events")]


class Generate(ServerKeys, frozen=True, kw_only=True):
    """Makes a sound from words."""

    id: Id
    prompt: Prompt


class Vary(ServerKeys, frozen=True, kw_only=True):
    """Makes a sound from a stored take's recipe, with what is named changed."""

    id: Id
    take: PathOrTake
    prompt: Prompt | None = None


class Cancel(Request, frozen=True, kw_only=True):
    """Ends a request that is waiting or running; `*` ends all of this client's."""

    id: Id


class Status(Request, frozen=True, kw_only=True):
    """Asks how the daemon is."""


class Models(Request, frozen=True, kw_only=True):
    """Asks for the models there are."""


class Load(Request, frozen=True, kw_only=True):
    """Makes a model resident."""

    model: ModelName


class Unload(Request, frozen=True, kw_only=True):
    """Frees a model's memory."""

    model: ModelName


class Takes(Request, frozen=True, kw_only=True):
    """Looks through the stored takes, newest first."""

    search: Annotated[Words, Meta(description="words that the prompt has")] | None = None
    like: Annotated[str, Meta(max_length=64, description="take id to look for similar ones")] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="at most so many", extra={"default": "20"})] = 20


class Play(PlaybackKeys, frozen=True, kw_only=True):
    """Plays a take or a file on a voice."""

    voice: Voice
    take: PathOrTake
    loop: Annotated[bool, Meta(description="around and around", extra={"default": "0"})] | None = None


class Stop(Request, frozen=True, kw_only=True):
    """Ends a voice; `*` ends all."""

    voice: Voice | Literal["*"]
    at: Annotated[str, Meta(max_length=40, description="`now`, `beat`, `bar` or a number of beats")] | None = None
    fade: Annotated[float, Meta(ge=0, le=60, description="seconds of fade")] | None = None


class Set(Request, frozen=True, kw_only=True):
    """Changes a sounding voice."""

    voice: Voice
    gain: Annotated[float, Meta(ge=-120, le=24, description="dB")] | None = None
    pan: Annotated[float, Meta(ge=-1, le=1, description="left -1 to right 1")] | None = None
    speed: Annotated[float, Meta(ge=0.05, le=20, description="playback speed")] | None = None
    fade: Annotated[float, Meta(ge=0, le=60, description="seconds to get there")] | None = None


class Flow(Recipe, frozen=True, kw_only=True):
    """Starts continuous playback on a voice, rendered segment by segment, or changes its parameters.

    `fade` is the duration of the crossfade between segments (1 s by default); with `prompt2`, the duration in which
    `mix` reaches its value. `stop` ends it.
    """

    voice: Voice = msgspec.field()  # pyright: ignore[reportGeneralTypeIssues]  required here, a key elsewhere
    prompt: Prompt


class Tempo(Request, frozen=True, kw_only=True):
    """Sets the session's tempo while Link is off."""

    bpm: Annotated[float, Meta(ge=20, le=999, description="beats a minute")]


class Setting(Request, frozen=True, kw_only=True):
    """Reads a setting or, with a value, changes it while the daemon runs. NAME is part of the address."""

    name: Annotated[str, Meta(max_length=100, description="the setting's name, as in `settings/tempo`")]
    value: Annotated[Words, Meta(description="what it shall be; without it the setting is only told")] | None = None


class Sync(Request, frozen=True, kw_only=True):
    """Asks for an answer once everything sent before has been taken in."""

    n: int


class Ping(Request, frozen=True, kw_only=True):
    """Asks whether the daemon is there."""


class Event(Message, frozen=True, kw_only=True):
    """Base of all events. The order of the fields is the order of the OSC arguments."""

    json_only: ClassVar[tuple[str, ...]] = ()
    """Fields that OSC doesn't carry."""


class HeardText(msgspec.Struct, frozen=True, kw_only=True):
    """Says how a text that is longer than the model's text encoders read at once will be read."""

    key: Annotated[str, Meta(description="the text's key: `prompt`, `negative`, `prompt2`, `transcription`")]
    characters: Annotated[int, Meta(description="characters of the text")]
    heard: Annotated[int, Meta(description="how many of them the model reads, from the first on")]
    parts: Annotated[int, Meta(description="parts that the text is read in")]


HeardTexts = Annotated[
    tuple[HeardText, ...],
    Meta(
        description="one object for each text that is longer than the model's text encoders read at once, with its "
        "`key`, its `characters`, how many of them are `heard`, and in how many `parts`; left out when there is none"
    ),
]


class Queued(Event, frozen=True, kw_only=True):
    """The request was taken in and waits."""

    json_only = ("texts",)

    id: Id
    position: Annotated[int, Meta(description="requests before it")]
    eta_s: Annotated[float, Meta(description="seconds until it is done, as far as known; 0 when unknown")]
    texts: HeardTexts | None = None


class Started(Event, frozen=True, kw_only=True):
    """The engine works on the request."""

    json_only = ("texts",)

    id: Id
    model: str
    texts: HeardTexts | None = None


class Progress(Event, frozen=True, kw_only=True):
    """Reports the progress of a request. Step 0 means that its model is still being loaded."""

    json_only = ("stage",)

    id: Id
    fraction: Annotated[float, Meta(description="0 to 1")]
    step: int
    steps: int
    eta_s: Annotated[float, Meta(description="seconds until it is done, from measured step times")]
    stage: Annotated[str, Meta(description="`loading` or `denoising`")] = "denoising"


class Warned(Event, frozen=True, kw_only=True):
    """Something about a request isn't as it might seem; the request goes on.

    Comes for each text that is longer than the model's text encoders read at once.
    """

    json_only = ("characters", "heard", "parts")

    id: Annotated[Id, Meta(description="the request's, or `flow`")]
    key: Annotated[str, Meta(description="the key that it is about: `prompt`, `negative`, `prompt2`, `transcription`")]
    message: Annotated[str, Meta(description="what isn't as it might seem, and what to do")]
    characters: Annotated[int, Meta(description="characters of the text")] = 0
    heard: Annotated[int, Meta(description="how many of them the model reads, from the first on")] = 0
    parts: Annotated[int, Meta(description="parts that the text is read in")] = 1


class Preview(Event, frozen=True, kw_only=True):
    """An early, rough rendering is there."""

    id: Id
    path: str


class Take(Event, frozen=True, kw_only=True):
    """A finished sound: its file is complete under its final name."""

    id: Id
    index: Annotated[int, Meta(description="0 is the first and, where ranked, the best")]
    path: Annotated[str, Meta(description="empty with `to none`")]
    seconds: float
    rate: int
    channels: int
    seed: int
    score: Annotated[float, Meta(description="likeness to the prompt, -1 to 1; 0 when not ranked")]
    take_id: str


class Buffered(Event, frozen=True, kw_only=True):
    """A take is in a buffer of the scsynth that was named. May come after `done`. Only who asked for it hears it."""

    id: Id
    index: Annotated[int, Meta(description="the take's")]
    buffer: Annotated[int, Meta(description="number of the buffer")]
    path: str


class Done(Event, frozen=True, kw_only=True):
    """The request ended well."""

    id: Id
    takes: Annotated[int, Meta(description="how many; a ZeroMQ REQ gets the list of `take` events here")]
    path: Annotated[str, Meta(description="the best take's file")]


class Acknowledged(Event, frozen=True, kw_only=True):
    """`done` of a request that makes no sound: `notify`, `set`, `tempo`."""

    id: str


class Cancelled(Event, frozen=True, kw_only=True):
    """The request was ended by `cancel`."""

    id: Id


class Fail(Event, frozen=True, kw_only=True):
    """The request could not be done."""

    json_only = ("retry_after_s",)

    id: Annotated[Id, Meta(description="the request's type when it has no id")]
    code: str
    message: Annotated[str, Meta(description="what went wrong, which value, what to do")]
    retry_after_s: Annotated[float, Meta(description="with `busy`: when to try again")] | None = None


class Playing(Event, frozen=True, kw_only=True):
    """A voice begins to sound."""

    voice: int
    take: Annotated[str, Meta(description="the take id or path that was asked for")]
    frame: Annotated[int, Meta(description="frame of the device, from its opening, modulo 2147483648")]
    beat: Annotated[float, Meta(description="beat of the session that this is")]


class Ended(Event, frozen=True, kw_only=True):
    """The sound on a voice has ended."""

    voice: int
    take: Annotated[str, Meta(description="the take id or path that was asked for")]
    frame: Annotated[int, Meta(description="the first frame of the device without it, modulo 2147483648")]
    reason: Annotated[str, Meta(description="`finished`, `stopped` or `replaced`")]


class Flowing(Event, frozen=True, kw_only=True):
    """An endless sound goes on with its next piece."""

    voice: int
    take: Annotated[str, Meta(description="take id of the piece")]
    frame: Annotated[int, Meta(description="frame of the device, from its opening, modulo 2147483648")]
    late: Annotated[bool, Meta(description="1: the next piece isn't ready, so this one is repeated")]


class Welcome(Event, frozen=True, kw_only=True):
    """Answer to `hello`."""

    client_id: str
    version: str
    http_port: int


ProcessState = Literal["starting", "up", "failed"]
"""A child process of the daemon: not ready yet, ready, or known not to start; it is tried again all the same."""


class StatusReply(Event, frozen=True, kw_only=True):
    """Answer to `status`."""

    json_only = ("late", "lead", "engine", "engine_trouble", "player", "player_trouble", "faults")

    jobs_queued: int
    jobs_running: int
    models_resident: int
    device_memory_used: Annotated[float, Meta(description="MB")]
    device_memory_total: Annotated[float, Meta(description="MB")]
    voices_playing: int
    sample_rate: int
    underruns: Annotated[int, Meta(description="times that sound wasn't mixed in time")]
    uptime_s: float
    late: Annotated[int, Meta(description="blocks that the sound driver called late, whoever's fault it was")] = 0
    lead: Annotated[float, Meta(description="ms that sound is mixed ahead now; raised by underruns")] = 0.0
    engine: Annotated[ProcessState, Meta(description="the engine's process")] = "starting"
    engine_trouble: Annotated[str, Meta(description="why no engine can be started; empty: it can")] = ""
    player: Annotated[ProcessState, Meta(description="the player's process")] = "starting"
    player_trouble: Annotated[str, Meta(description="why no player can be started; empty: it can")] = ""
    faults: Annotated[
        str, Meta(description="background tasks of the daemon that failed, with the reason; divided by semicolons")
    ] = ""


class Model(Event, frozen=True, kw_only=True):
    """One of the models there are."""

    json_only = ("title", "default_seconds", "steps", "guidance", "scheduler", "ranks", "knows")

    name: str
    state: Annotated[Literal["resident", "loading", "available", "missing"], Meta(description="where its weights are")]
    native_rate: int
    channels: int
    max_seconds: float
    licence: str
    memory_mb: float
    title: Annotated[str, Meta(description="what it is, in words")] = ""
    default_seconds: Annotated[float, Meta(description="length where none is asked for")] = 0.0
    steps: Annotated[int, Meta(description="denoising steps where none are asked for")] = 0
    guidance: Annotated[float, Meta(description="guidance where none is asked for")] = 0.0
    scheduler: Annotated[str, Meta(description="scheduler where none is asked for")] = ""
    ranks: Annotated[bool, Meta(description="whether it can order takes by likeness to the prompt")] = False
    knows: Annotated[str, Meta(description="words it was taught, divided by commas; empty: any")] = ""


class Loaded(Event, frozen=True, kw_only=True):
    """The model is resident."""

    model: str


class Unloaded(Event, frozen=True, kw_only=True):
    """The model's memory is free again."""

    model: str


class SettingNow(Event, frozen=True, kw_only=True):
    """A setting and the value now in force. NAME is part of the address."""

    json_only = ("name",)

    name: str
    value: str | int | float


class Synced(Event, frozen=True, kw_only=True):
    """Answer to `sync`."""

    n: int


class Pong(Event, frozen=True, kw_only=True):
    """Answer to `ping`."""

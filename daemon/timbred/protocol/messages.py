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
"""A request's id, chosen by the client."""


class Hello(Request, frozen=True, kw_only=True):
    """Registers a client and the port for its answers."""

    name: Annotated[str, Meta(max_length=120, description="client name for the log")] = ""


class Notify(Request, frozen=True, kw_only=True):
    """Subscribes to the events of all clients, or unsubscribes."""

    on: Annotated[bool, Meta(description="1: receive the events of all clients; 0: only your own")]


class Generate(ServerKeys, frozen=True, kw_only=True):
    """Generates audio from a text prompt."""

    id: Id
    prompt: Prompt


class Vary(ServerKeys, frozen=True, kw_only=True):
    """Generates audio from a stored take's recipe, with the given parameters changed."""

    id: Id
    take: PathOrTake
    prompt: Prompt | None = None


class Cancel(Request, frozen=True, kw_only=True):
    """Cancels a waiting or running request; `*` cancels all requests of this client."""

    id: Id


class Status(Request, frozen=True, kw_only=True):
    """Reports the daemon's status."""


class Models(Request, frozen=True, kw_only=True):
    """Lists the models."""


class KnownWords(Request, frozen=True, kw_only=True):
    """Lists the words that a model knows, for menus and completion: one event for each group."""

    model: Annotated[ModelName, Meta(extra={"default": "the default model"})] | None = None


class Loras(Request, frozen=True, kw_only=True):
    """Lists the LoRAs."""


class Engines(Request, frozen=True, kw_only=True):
    """Lists the engines."""


class Load(Request, frozen=True, kw_only=True):
    """Loads a model."""

    model: ModelName


class Unload(Request, frozen=True, kw_only=True):
    """Unloads a model and frees its memory."""

    model: ModelName


class Takes(Request, frozen=True, kw_only=True):
    """Lists stored takes, newest first."""

    search: (
        Annotated[
            Words,
            Meta(
                description="words that the prompt contains; `bpm:97`, `bpm:90-100`, `key:Cm` and the name of a key, "
                "`C minor`, find takes by what was measured"
            ),
        ]
        | None
    ) = None
    like: Annotated[str, Meta(max_length=64, description="id of a take; lists the most similar takes")] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="maximum number of takes", extra={"default": "20"})] = 20


class Play(PlaybackKeys, frozen=True, kw_only=True):
    """Plays a take or an audio file on a voice."""

    voice: Voice
    take: PathOrTake
    loop: Annotated[bool, Meta(description="repeat until stopped", extra={"default": "0"})] | None = None


class Stop(Request, frozen=True, kw_only=True):
    """Stops a voice; `*` stops all voices."""

    voice: Voice | Literal["*"]
    at: (
        Annotated[str, Meta(max_length=40, description="when to stop: `now`, `beat`, `bar` or the number of a beat")]
        | None
    ) = None
    fade: Annotated[float, Meta(ge=0, le=60, description="fade-out in seconds")] | None = None


class Set(Request, frozen=True, kw_only=True):
    """Changes the gain, pan or speed of a playing voice."""

    voice: Voice
    gain: Annotated[float, Meta(ge=-120, le=24, description="gain in dB")] | None = None
    pan: Annotated[float, Meta(ge=-1, le=1, description="-1 left, 0 centre, 1 right")] | None = None
    speed: Annotated[float, Meta(ge=0.05, le=20, description="playback speed; 1 is the original")] | None = None
    fade: Annotated[float, Meta(ge=0, le=60, description="seconds in which the new values are reached")] | None = None


class Flow(Recipe, frozen=True, kw_only=True):
    """Starts continuous playback on a voice, rendered segment by segment, or changes its parameters.

    `fade` is the duration of the crossfade between segments (1 s by default); with `prompt2`, the duration in which
    `mix` reaches its value. `stop` ends it.
    """

    voice: Voice = msgspec.field()  # pyright: ignore[reportGeneralTypeIssues]  required here, a key elsewhere
    prompt: Prompt


class Tempo(Request, frozen=True, kw_only=True):
    """Sets the session's tempo; not available while Link is on."""

    bpm: Annotated[float, Meta(ge=20, le=999, description="beats per minute")]


class Setting(Request, frozen=True, kw_only=True):
    """Reads a setting or, with a value, changes it while the daemon runs. NAME is part of the address."""

    name: Annotated[str, Meta(max_length=100, description="name of the setting, as in `settings/tempo`")]
    value: Annotated[Words, Meta(description="new value; without it the setting is only read")] | None = None


class Sync(Request, frozen=True, kw_only=True):
    """Answered once all earlier requests of this client have been accepted."""

    n: int


class Ping(Request, frozen=True, kw_only=True):
    """Tests the connection."""


class Event(Message, frozen=True, kw_only=True):
    """Base of all events. The order of the fields is the order of the OSC arguments."""

    json_only: ClassVar[tuple[str, ...]] = ()
    """Fields that OSC doesn't carry."""


class HeardText(msgspec.Struct, frozen=True, kw_only=True):
    """Describes how the model reads a text that is longer than its text encoders' input."""

    key: Annotated[str, Meta(description="the text's key: `prompt`, `negative`, `prompt2`, `transcription`")]
    characters: Annotated[int, Meta(description="length of the text in characters")]
    heard: Annotated[int, Meta(description="number of characters, from the start, that the model reads")]
    parts: Annotated[int, Meta(description="number of parts in which the text is encoded")]


HeardTexts = Annotated[
    tuple[HeardText, ...],
    Meta(
        description="one object for each text that is longer than the model's text encoders' input, with the fields "
        "`key`, `characters`, `heard` (characters read) and `parts`; omitted if there is none"
    ),
]


class Queued(Event, frozen=True, kw_only=True):
    """The request was accepted and is queued."""

    json_only = ("texts",)

    id: Id
    position: Annotated[int, Meta(description="number of requests before it")]
    eta_s: Annotated[float, Meta(description="estimated seconds until it is done; 0 if unknown")]
    texts: HeardTexts | None = None


class Started(Event, frozen=True, kw_only=True):
    """An engine has started the request."""

    json_only = ("texts",)

    id: Id
    model: str
    texts: HeardTexts | None = None


class Progress(Event, frozen=True, kw_only=True):
    """Progress of a request. Step 0: the model is being loaded."""

    json_only = ("stage",)

    id: Id
    fraction: Annotated[float, Meta(description="0 to 1")]
    step: int
    steps: int
    eta_s: Annotated[float, Meta(description="estimated seconds until it is done, from measured step times")]
    stage: Annotated[str, Meta(description="`loading` or `denoising`")] = "denoising"


class Warned(Event, frozen=True, kw_only=True):
    """A part of the request may not have the expected effect; the request continues.

    Sent for each text that is longer than the model's text encoders' input, where the model of a varied take has
    changed, and for a prompt of which the model knows little.
    """

    json_only = ("characters", "heard", "parts")

    id: Annotated[Id, Meta(description="id of the request, or `flow`")]
    key: Annotated[str, Meta(description="key concerned: `prompt`, `negative`, `prompt2`, `transcription`, `model`")]
    message: Annotated[str, Meta(description="the problem and the remedy")]
    characters: Annotated[int, Meta(description="length of the text in characters")] = 0
    heard: Annotated[int, Meta(description="number of characters, from the start, that the model reads")] = 0
    parts: Annotated[int, Meta(description="number of parts in which the text is encoded")] = 1


class Preview(Event, frozen=True, kw_only=True):
    """A rough rendering of an unfinished take is available."""

    id: Id
    path: str


class Take(Event, frozen=True, kw_only=True):
    """A finished take: its file is complete under its final name.

    What wasn't measured, or couldn't be, is omitted.
    """

    json_only = ("tempo", "key", "downbeat", "fit", "unmeasured", "knows")

    id: Id
    index: Annotated[int, Meta(description="0 is the first take or, if ranked, the best")]
    path: Annotated[str, Meta(description="path of the file; empty with `@to none`")]
    seconds: float
    rate: int
    channels: int
    seed: int
    score: Annotated[float, Meta(description="similarity to the prompt, -1 to 1; 0 if not ranked")]
    take_id: str
    tempo: Annotated[float, Meta(description="measured tempo in beats per minute")] | None = None
    key: Annotated[str, Meta(description="measured key, such as `C minor`")] | None = None
    downbeat: (
        Annotated[float, Meta(description="measured seconds from the beginning to the first beat of a bar")] | None
    ) = None
    fit: (
        Annotated[float, Meta(description="with `fit`: how closely tempo and key keep to the request, 0 to 1")] | None
    ) = None
    unmeasured: (
        Annotated[str, Meta(description="why `tempo`, `key` or `downbeat` can't be measured, separated by semicolons")]
        | None
    ) = None
    knows: (
        Annotated[float, Meta(description="how much of the prompt the model knows, 0 to 1, where it can tell")] | None
    ) = None


class Buffered(Event, frozen=True, kw_only=True):
    """A take is in a buffer of the given scsynth. May arrive after `done`. Sent to the requesting client only."""

    id: Id
    index: Annotated[int, Meta(description="index of the take")]
    buffer: Annotated[int, Meta(description="buffer number")]
    path: str


class Done(Event, frozen=True, kw_only=True):
    """The request succeeded."""

    id: Id
    takes: Annotated[int, Meta(description="number of takes; for a ZeroMQ REQ, the list of `take` events")]
    path: Annotated[str, Meta(description="file of the best take")]


class Acknowledged(Event, frozen=True, kw_only=True):
    """`done` of a request that generates no audio: `notify`, `set`, `tempo`, `words`."""

    id: str


class Cancelled(Event, frozen=True, kw_only=True):
    """The request was cancelled."""

    id: Id


class Fail(Event, frozen=True, kw_only=True):
    """The request failed."""

    json_only = ("retry_after_s",)

    id: Annotated[Id, Meta(description="id of the request; its type if it has no id")]
    code: str
    message: Annotated[str, Meta(description="the cause, the value concerned, and the remedy")]
    retry_after_s: Annotated[float, Meta(description="with `busy`: seconds after which to retry")] | None = None


class Playing(Event, frozen=True, kw_only=True):
    """A voice starts to play."""

    voice: int
    take: Annotated[str, Meta(description="requested take id or path")]
    frame: Annotated[int, Meta(description="first frame, counted from the opening of the device, modulo 2147483648")]
    beat: Annotated[float, Meta(description="session beat at that frame")]


class Ended(Event, frozen=True, kw_only=True):
    """The sound on a voice has ended."""

    voice: int
    take: Annotated[str, Meta(description="requested take id or path")]
    frame: Annotated[int, Meta(description="first frame after its end, counted as in `playing`")]
    reason: Annotated[str, Meta(description="`finished`, `stopped` or `replaced`")]


class Flowing(Event, frozen=True, kw_only=True):
    """The next segment of continuous playback (`flow`) starts."""

    voice: int
    take: Annotated[str, Meta(description="take id of the segment")]
    frame: Annotated[int, Meta(description="first frame, counted as in `playing`")]
    late: Annotated[bool, Meta(description="1: the next segment isn't ready, so this one is repeated")]


class Welcome(Event, frozen=True, kw_only=True):
    """Answer to `hello`."""

    client_id: str
    version: str
    http_port: int


ProcessState = Literal["starting", "up", "failed"]
"""State of a child process: not ready yet, ready, or unable to start. Failed starts are retried."""


class StatusReply(Event, frozen=True, kw_only=True):
    """Answer to `status`."""

    json_only = ("late", "lead", "engine", "engine_trouble", "player", "player_trouble", "faults", "denied")

    jobs_queued: int
    jobs_running: int
    models_resident: int
    device_memory_used: Annotated[float, Meta(description="MB")]
    device_memory_total: Annotated[float, Meta(description="MB")]
    voices_playing: int
    sample_rate: int
    underruns: Annotated[int, Meta(description="number of times that audio was not mixed in time")]
    uptime_s: float
    late: Annotated[int, Meta(description="number of blocks that the audio driver requested late, for any reason")] = 0
    lead: Annotated[float, Meta(description="milliseconds that audio is mixed ahead; raised after underruns")] = 0.0
    engine: Annotated[
        ProcessState, Meta(description="state of the engines: `up` if any is, `failed` if none can be started")
    ] = "starting"
    engine_trouble: Annotated[str, Meta(description="why no engine can be started; empty if one can")] = ""
    player: Annotated[ProcessState, Meta(description="state of the player process")] = "starting"
    player_trouble: Annotated[str, Meta(description="why the player can't be started; empty if it can")] = ""
    faults: Annotated[
        str, Meta(description="background tasks of the daemon that failed, with the reasons; separated by semicolons")
    ] = ""
    denied: Annotated[
        int, Meta(description="number of refused attempts to connect or to send a request from another machine")
    ] = 0


class Model(Event, frozen=True, kw_only=True):
    """A model and its defaults."""

    json_only = ("title", "selling", "default_seconds", "steps", "guidance", "scheduler", "ranks", "knows", "engines")

    name: str
    state: Annotated[Literal["resident", "loading", "available", "missing"], Meta(description="state of its weights")]
    native_rate: int
    channels: int
    max_seconds: float
    licence: str
    memory_mb: float
    title: Annotated[str, Meta(description="short description")] = ""
    selling: Annotated[str, Meta(description="whether sounds made with it may be sold; empty: see its licence")] = ""
    default_seconds: Annotated[float, Meta(description="default length in seconds")] = 0.0
    steps: Annotated[int, Meta(description="default number of denoising steps")] = 0
    guidance: Annotated[float, Meta(description="default guidance")] = 0.0
    scheduler: Annotated[str, Meta(description="default scheduler")] = ""
    ranks: Annotated[bool, Meta(description="1: its takes can be ranked by similarity to the prompt")] = False
    knows: Annotated[str, Meta(description="words in its training prompts, separated by commas; empty: any")] = ""
    engines: Annotated[str, Meta(description="numbers of the engines that have it in memory, separated by commas")] = ""


class KnownGroup(Event, frozen=True, kw_only=True):
    """A group of words that a model knows. A large group comes in several events."""

    model: str
    group: Annotated[str, Meta(description="name of the group: a family of sounds, or `effects`, `chords`...")]
    kinds: Annotated[bool, Meta(description="1: its words are kinds of sounds; 0: they describe a sound")]
    words: Annotated[str, Meta(description="the words, separated by a comma and a space")]


class Lora(Event, frozen=True, kw_only=True):
    """A LoRA: an addition to a model, for the key `lora`."""

    json_only = ("remark",)

    name: str
    model: Annotated[str, Meta(description="model that it was made for; empty if unknown")]
    rank: Annotated[int, Meta(description="highest rank of its matrices")]
    licence: str
    state: Annotated[
        Literal["available", "missing", "invalid"],
        Meta(description="`missing`: its model isn't installed; `invalid`: it can't be used"),
    ]
    remark: Annotated[str, Meta(description="why it can't be used; empty if it can")] = ""


class Engine(Event, frozen=True, kw_only=True):
    """An engine: where it runs, what it has in its memory and how many requests it renders."""

    json_only = ("name", "trouble")

    number: Annotated[int, Meta(description="number of the engine, from 1")]
    where: Annotated[str, Meta(description="`local`, or the address of its Ray cluster and the machine")]
    device: Annotated[str, Meta(description="its device, such as `cuda:0`")]
    state: Annotated[ProcessState, Meta(description="state of its process")]
    models: Annotated[str, Meta(description="models in its memory, separated by commas")]
    memory_used: Annotated[float, Meta(description="MB")]
    memory_total: Annotated[float, Meta(description="MB")]
    jobs: Annotated[int, Meta(description="number of requests that it renders")]
    name: Annotated[str, Meta(description="name and precision of its device")] = ""
    trouble: Annotated[str, Meta(description="why it can't be started; empty if it can")] = ""


class Loaded(Event, frozen=True, kw_only=True):
    """The model is loaded."""

    model: str


class Unloaded(Event, frozen=True, kw_only=True):
    """The model is unloaded and its memory is free."""

    model: str


class SettingNow(Event, frozen=True, kw_only=True):
    """A setting and its current value. NAME is part of the address."""

    json_only = ("name",)

    name: str
    value: str | int | float


class Synced(Event, frozen=True, kw_only=True):
    """Answer to `sync`."""

    n: int


class Pong(Event, frozen=True, kw_only=True):
    """Answer to `ping`."""

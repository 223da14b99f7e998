"""Base types of messages, and the keys that several requests share: of playback and of sounds.

A key carries its range and its help; `messages` has the requests and events themselves.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from timbred.filenames import MAX_FOLDER_UNITS

MAX_PROMPT_CHARACTERS = 2000
"""Longest prompt taken, in characters."""

Prompt = Annotated[str, Meta(max_length=MAX_PROMPT_CHARACTERS, description="what to hear, in words")]
ModelName = Annotated[str, Meta(max_length=200, description="a name from `models`")]
PathOrTake = Annotated[str, Meta(max_length=4096, description="a take id, or the path of a file")]
Words = Annotated[str, Meta(max_length=MAX_PROMPT_CHARACTERS)]
Port = Annotated[
    int,
    Meta(ge=1, le=65535, description="answers to this request go to this port on the sender's own host (OSC)"),
]
VOICE_COUNT = 64
Voice = Annotated[int, Meta(ge=1, le=VOICE_COUNT)]
SchedulerName = Literal["ddim", "dpm++2m", "dpm++2m-karras", "euler", "euler-a", "heun", "lms", "pndm", "unipc"]
Format = Literal["wav", "flac", "aiff", "ogg"]
Destination = Literal["file", "play", "both", "none"]
Priority = Literal["live", "normal", "background"]
Off = Literal["off"]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Base of all messages."""


class Request(Message, frozen=True, kw_only=True):
    """Base of all requests."""

    port: Port | None = None


class PlaybackKeys(Request, frozen=True, kw_only=True):
    """Keys of `play`, which `generate` and `flow` accept too."""

    gain: Annotated[float, Meta(ge=-120, le=24, description="dB", extra={"default": "0"})] | None = None
    pan: Annotated[float, Meta(ge=-1, le=1, description="left -1 to right 1", extra={"default": "0"})] | None = None
    speed: (
        Annotated[
            float,
            Meta(ge=0.05, le=20, description="playback speed, 1 is as recorded", extra={"default": "1"}),
        ]
        | None
    ) = None
    out: Annotated[int, Meta(ge=1, le=256, description="first output channel", extra={"default": "1"})] | None = None
    at: (
        Annotated[
            str,
            Meta(
                max_length=40,
                description="`now`, `beat`, `bar` or a number of beats",
                extra={"default": "now"},
            ),
        ]
        | None
    ) = None
    fade: Annotated[float, Meta(ge=0, le=60, description="seconds of fade or crossfade")] | None = None


class Recipe(PlaybackKeys, frozen=True, kw_only=True):
    """The parameters of a sound; what isn't given comes from the model's card or the session."""

    model: Annotated[ModelName, Meta(extra={"default": "`models.default`"})] | None = None
    seconds: (
        Annotated[float, Meta(ge=0.05, le=600, description="length in seconds", extra={"default": "the model's"})]
        | None
    ) = None
    bars: Annotated[float, Meta(ge=0.0625, le=256, description="length in bars of the session's tempo")] | None = None
    bpm: (
        Annotated[
            float,
            Meta(ge=20, le=999, description="tempo that `bars` are counted in", extra={"default": "`tempo`"}),
        ]
        | None
    ) = None
    beats_per_bar: (
        Annotated[float, Meta(ge=1, le=32, description="meter that `bars` are counted in", extra={"default": "4"})]
        | None
    ) = None
    negative: (
        Annotated[Words, Meta(description="what not to hear, in words", extra={"default": "the model's"})] | None
    ) = None
    steps: (
        Annotated[int, Meta(ge=1, le=1000, description="denoising steps", extra={"default": "the model's"})] | None
    ) = None
    guidance: (
        Annotated[
            float,
            Meta(ge=0, le=50, description="how strictly the prompt rules", extra={"default": "the model's"}),
        ]
        | None
    ) = None
    eta: (
        Annotated[float, Meta(ge=0, le=1, description="noise added in `ddim` steps", extra={"default": "0"})] | None
    ) = None
    scheduler: (
        Annotated[SchedulerName, Meta(description="how noise is taken away", extra={"default": "the model's"})] | None
    ) = None
    seed: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=2147483647,
                description="same seed, same sound",
                extra={"default": "random, and reported"},
            ),
        ]
        | None
    ) = None
    exact: (
        Annotated[bool, Meta(description="each take made alone with deterministic kernels", extra={"default": "0"})]
        | None
    ) = None
    takes: (
        Annotated[int, Meta(ge=1, le=16, description="variations from one request", extra={"default": "1"})] | None
    ) = None
    rank: (
        Annotated[
            bool,
            Meta(
                description="best first, by likeness to the prompt",
                extra={"default": "1 where the model can"},
            ),
        ]
        | None
    ) = None
    init: Annotated[PathOrTake, Meta(description="sound to start from: take id or path")] | None = None
    strength: Annotated[float, Meta(ge=0, le=1, description="how far `init` may be changed")] | None = None
    start: Annotated[float, Meta(ge=0, le=600, description="repaint `init` from here, seconds")] | None = None
    end: Annotated[float, Meta(ge=0, le=600, description="repaint `init` up to here, seconds")] | None = None
    low: Annotated[float, Meta(ge=0, le=96000, description="repaint `init` above this, Hz")] | None = None
    high: Annotated[float, Meta(ge=0, le=96000, description="repaint `init` below this, Hz")] | None = None
    extend: (
        Annotated[float, Meta(ge=0.05, le=600, description="seconds to add after `init`, which stays as it is")] | None
    ) = None
    prompt2: Annotated[Words, Meta(description="a second prompt to mix towards")] | None = None
    mix: (
        Annotated[float, Meta(ge=0, le=1, description="how far towards `prompt2`", extra={"default": "0.5"})] | None
    ) = None
    weights: Annotated[Words, Meta(description="weights of words, as `word:1.4 word:0.6`")] | None = None
    noise: Annotated[str, Meta(max_length=64, description="take id whose starting noise is reused")] | None = None
    transcription: Annotated[Words, Meta(description="what is said, for models that speak")] | None = None
    loop: Annotated[bool, Meta(description="the end meets the start without a seam", extra={"default": "0"})] | None = (
        None
    )
    rate: (
        Annotated[
            int,
            Meta(
                ge=8000,
                le=192000,
                description="Hz of the file",
                extra={"default": "`audio.rate`; `init`'s if it stays"},
            ),
        ]
        | None
    ) = None
    format: (
        Annotated[Format, Meta(description="kind of file", extra={"default": "wav; `init`'s if it stays"})] | None
    ) = None
    bits: (
        Annotated[
            Literal[16, 24, 32],
            Meta(description="bits of a sample; 32 is float", extra={"default": "24; `init`'s if it stays"}),
        ]
        | None
    ) = None
    channels: (
        Annotated[
            Literal[1, 2],
            Meta(description="channels of the file", extra={"default": "the model's; `init`'s if it stays"}),
        ]
        | None
    ) = None
    loudness: (
        Annotated[float, Meta(ge=-70, le=0, description="LUFS (BS.1770) to normalise to", extra={"default": "off"})]
        | Off
        | None
    ) = None
    peak: (
        Annotated[
            float,
            Meta(
                ge=-60,
                le=0,
                description="dBFS to normalise the peak to",
                extra={"default": "-1; none where `init` stays"},
            ),
        ]
        | Off
        | None
    ) = None
    trim: Annotated[bool, Meta(description="cut silence at both ends", extra={"default": "0"})] | None = None
    fade_in: (
        Annotated[
            float,
            Meta(
                ge=0,
                le=60,
                description="seconds of fade at the start",
                extra={"default": "0.002 at most, against a click; shorter or none where it would soften the attack"},
            ),
        ]
        | None
    ) = None
    fade_out: (
        Annotated[
            float,
            Meta(
                ge=0,
                le=60,
                description="seconds of fade at the end",
                extra={"default": "0.01 at most; shorter where the sound ends with its peak"},
            ),
        ]
        | None
    ) = None
    to: Annotated[Destination, Meta(description="where the sound goes", extra={"default": "file"})] | None = None
    name: (
        Annotated[str, Meta(max_length=120, description="a slug for the file", extra={"default": "the prompt"})] | None
    ) = None
    folder: Annotated[str, Meta(max_length=MAX_FOLDER_UNITS, description="a folder inside the takes folder")] | None = (
        None
    )
    priority: (
        Annotated[Priority, Meta(description="who goes first when the engine is busy", extra={"default": "normal"})]
        | None
    ) = None
    preview: (
        Annotated[bool, Meta(description="an early, rough rendering while it is denoising", extra={"default": "0"})]
        | None
    ) = None
    voice: (
        Annotated[Voice, Meta(description="the voice to play on, with `to play` or `both`; else a free one")] | None
    ) = None
    by: (
        Annotated[
            str, Meta(max_length=40, description="a deadline, `bar 33` or seconds from now: as many steps as fit")
        ]
        | None
    ) = None
    inline: (
        Annotated[
            bool,
            Meta(description="samples follow each take in the same ZeroMQ message", extra={"default": "0"}),
        ]
        | None
    ) = None


class ServerKeys(Recipe, frozen=True, kw_only=True):
    """Keys that put the takes into buffers of a SuperCollider server, on the sender's own host."""

    scsynth: (
        Annotated[
            int,
            Meta(ge=1, le=65535, description="UDP port of the scsynth that reads the take by itself (OSC)"),
        ]
        | None
    ) = None
    buffer: (
        Annotated[
            int,
            Meta(ge=0, le=1_000_000, description="number of the buffer for the first take, with `scsynth`"),
        ]
        | None
    ) = None

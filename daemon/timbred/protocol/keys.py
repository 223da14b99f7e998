"""Base types of messages, and the keys that several requests share: generation and playback parameters.

Each key declares its range, default and description. `messages` declares the requests and events.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from timbred.filenames import MAX_FOLDER_UNITS

MAX_PROMPT_CHARACTERS = 2000
"""Maximum length of a prompt."""

Prompt = Annotated[str, Meta(max_length=MAX_PROMPT_CHARACTERS, description="text that describes the sound")]
ModelName = Annotated[str, Meta(max_length=200, description="name of a model, as listed by `models`")]
PathOrTake = Annotated[str, Meta(max_length=4096, description="take id, or path of an audio file")]
Words = Annotated[str, Meta(max_length=MAX_PROMPT_CHARACTERS)]
Port = Annotated[
    int,
    Meta(ge=1, le=65535, description="send the answers to this port on the sender's host (OSC)"),
]
VOICE_COUNT = 64
Voice = Annotated[int, Meta(ge=1, le=VOICE_COUNT)]
SchedulerName = Literal[
    "cosine-dpm", "ddim", "dpm++2m", "dpm++2m-karras", "edm-dpm", "edm-euler", "euler", "euler-a", "flow-euler", "heun",
    "lms", "ping-pong", "pndm", "unipc",
]  # fmt: skip
Language = Literal[
    "ar", "az", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hr", "ht", "hu",
    "id", "is", "it", "ja", "ko", "la", "lt", "ms", "ne", "nl", "no", "pa", "pl", "pt", "ro", "ru", "sa", "sk", "sr",
    "sv", "sw", "ta", "te", "th", "tl", "tr", "uk", "unknown", "ur", "vi", "yue", "zh",
]  # fmt: skip
"""Languages of lyrics, by their codes in ISO 639, that ACE-Step was trained with."""

Task = Literal["complete", "cover", "extract", "lego", "repaint", "text2music"]
TRACKS = (
    "backing_vocals", "bass", "brass", "drums", "fx", "guitar", "keyboard", "percussion", "strings", "synth", "vocals",
    "woodwinds",
)  # fmt: skip
"""Names of tracks that ACE-Step was trained with."""

MAX_LYRICS_CHARACTERS = 8192
"""Maximum length of lyrics: about 2048 tokens in European languages."""

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

    gain: Annotated[float, Meta(ge=-120, le=24, description="gain in dB", extra={"default": "0"})] | None = None
    pan: (
        Annotated[float, Meta(ge=-1, le=1, description="-1 left, 0 centre, 1 right", extra={"default": "0"})] | None
    ) = None
    speed: (
        Annotated[
            float,
            Meta(ge=0.05, le=20, description="playback speed; 1 is the original", extra={"default": "1"}),
        ]
        | None
    ) = None
    out: Annotated[int, Meta(ge=1, le=256, description="first output channel", extra={"default": "1"})] | None = None
    at: (
        Annotated[
            str,
            Meta(
                max_length=40,
                description="when to start: `now`, `beat`, `bar` or the number of a beat",
                extra={"default": "now"},
            ),
        ]
        | None
    ) = None
    fade: Annotated[float, Meta(ge=0, le=60, description="fade-in or crossfade in seconds")] | None = None


class Recipe(PlaybackKeys, frozen=True, kw_only=True):
    """The parameters of a generation. Defaults come from the model's card or the session."""

    model: Annotated[ModelName, Meta(extra={"default": "`models.default`"})] | None = None
    seconds: (
        Annotated[float, Meta(ge=0.05, le=600, description="length in seconds", extra={"default": "the model's"})]
        | None
    ) = None
    bars: Annotated[float, Meta(ge=0.0625, le=256, description="length in bars at the session's tempo")] | None = None
    bpm: (
        Annotated[
            float,
            Meta(
                ge=20,
                le=999,
                description="tempo of the music and of `bars`, in beats per minute; to models that read it, in words "
                "to others",
                extra={"default": "with `bars`: `tempo`"},
            ),
        ]
        | None
    ) = None
    beats_per_bar: (
        Annotated[
            float,
            Meta(
                ge=1,
                le=32,
                description="beats per bar for `bars`, in quarter notes",
                extra={"default": "`signature`'s, else the setting"},
            ),
        ]
        | None
    ) = None
    key: (
        Annotated[
            str,
            Meta(
                max_length=40,
                description="musical key: `C minor`, `F# major`, `Bb dorian`; to models that read it, in words to "
                "others",
            ),
        ]
        | None
    ) = None
    signature: (
        Annotated[
            str,
            Meta(
                max_length=40,
                description="time signature: `4/4`, `6/8`; also sets `beats_per_bar`, in quarter notes (6/8: 3)",
                extra={"default": "4/4"},
            ),
        ]
        | None
    ) = None
    in_words: (
        Annotated[
            bool,
            Meta(
                description="append `key`, `bpm` and `signature` in words to the prompt, for models that don't read "
                "them otherwise",
                extra={"default": "1 if one of the three is named"},
            ),
        ]
        | None
    ) = None
    measure: (
        Annotated[
            bool,
            Meta(
                description="measure tempo, key and downbeat of the takes", extra={"default": "1 with `bars` or `fit`"}
            ),
        ]
        | None
    ) = None
    fit: (
        Annotated[
            bool,
            Meta(
                description="order the takes by how closely their measured tempo and key keep to `bpm` and `key`, "
                "closest first",
                extra={"default": "0"},
            ),
        ]
        | None
    ) = None
    negative: (
        Annotated[
            Words,
            Meta(description="negative prompt, text that describes what to avoid", extra={"default": "the model's"}),
        ]
        | None
    ) = None
    steps: (
        Annotated[int, Meta(ge=1, le=1000, description="number of denoising steps", extra={"default": "the model's"})]
        | None
    ) = None
    guidance: (
        Annotated[
            float,
            Meta(
                ge=0,
                le=50,
                description="guidance scale; higher values follow the prompt more closely",
                extra={"default": "the model's"},
            ),
        ]
        | None
    ) = None
    eta: (
        Annotated[
            float, Meta(ge=0, le=1, description="amount of noise that each `ddim` step adds", extra={"default": "0"})
        ]
        | None
    ) = None
    scheduler: (
        Annotated[SchedulerName, Meta(description="noise schedule and solver", extra={"default": "the model's"})] | None
    ) = None
    seed: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=2147483647,
                description="random seed; the same seed gives the same sound",
                extra={"default": "random, reported in `take`"},
            ),
        ]
        | None
    ) = None
    exact: (
        Annotated[bool, Meta(description="render each take alone with deterministic kernels", extra={"default": "0"})]
        | None
    ) = None
    takes: Annotated[int, Meta(ge=1, le=16, description="number of takes", extra={"default": "1"})] | None = None
    rank: (
        Annotated[
            bool,
            Meta(
                description="order the takes by similarity to the prompt, best first",
                extra={"default": "1 if there is a CLAP"},
            ),
        ]
        | None
    ) = None
    init: Annotated[PathOrTake, Meta(description="init audio, a take id or the path of an audio file")] | None = None
    strength: Annotated[float, Meta(ge=0, le=1, description="how much `init` is changed")] | None = None
    start: (
        Annotated[float, Meta(ge=0, le=600, description="start of the region of `init` to regenerate, in seconds")]
        | None
    ) = None
    end: (
        Annotated[float, Meta(ge=0, le=600, description="end of the region of `init` to regenerate, in seconds")] | None
    ) = None
    low: (
        Annotated[float, Meta(ge=0, le=96000, description="lower limit of the band of `init` to regenerate, in Hz")]
        | None
    ) = None
    high: (
        Annotated[float, Meta(ge=0, le=96000, description="upper limit of the band of `init` to regenerate, in Hz")]
        | None
    ) = None
    regions: (
        Annotated[Words, Meta(description="several regions of `init` to regenerate, in seconds, as `0.5-1.25 3-3.5`")]
        | None
    ) = None
    extend: (
        Annotated[float, Meta(ge=0.05, le=600, description="seconds to append to `init`, which is preserved")] | None
    ) = None
    prompt2: Annotated[Words, Meta(description="second prompt, mixed with the first")] | None = None
    mix: (
        Annotated[float, Meta(ge=0, le=1, description="proportion of `prompt2` in the mix", extra={"default": "0.5"})]
        | None
    ) = None
    weights: Annotated[Words, Meta(description="weights of words in the prompt, as `word:1.4 word:0.6`")] | None = None
    noise: Annotated[str, Meta(max_length=64, description="id of a take whose initial noise is reused")] | None = None
    embeddings: (
        Annotated[
            str,
            Meta(
                max_length=4096,
                description="path of a safetensors file with tensors instead of texts and noise, as `prompt_embeds`",
            ),
        ]
        | None
    ) = None
    lyrics: (
        Annotated[str, Meta(max_length=MAX_LYRICS_CHARACTERS, description="what is sung, for models that sing")] | None
    ) = None
    language: (
        Annotated[Language, Meta(description="language of `lyrics`, by its code", extra={"default": "en"})] | None
    ) = None
    task: (
        Annotated[
            Task,
            Meta(
                description="what is made of `init`: a part is repainted, it is covered, a track is extracted, added "
                "(`lego`) or completed",
                extra={"default": "text2music; repaint for parts of `init`"},
            ),
        ]
        | None
    ) = None
    track: (
        Annotated[
            str,
            Meta(
                max_length=200,
                description=f"track to extract or to add, several to complete with: {', '.join(TRACKS)}",
            ),
        ]
        | None
    ) = None
    reference: (
        Annotated[
            PathOrTake,
            Meta(description="sound whose timbre is taken, a take id or the path of an audio file; it isn't heard"),
        ]
        | None
    ) = None
    transcription: Annotated[Words, Meta(description="text to speak, for speech models")] | None = None
    lora: (
        Annotated[
            Words,
            Meta(
                description="LoRAs and their weights from -4 to 4, as `name:0.8 other:0.3`; `none` for none",
                extra={"default": "none"},
            ),
        ]
        | None
    ) = None
    loop: Annotated[bool, Meta(description="render a seamless loop", extra={"default": "0"})] | None = None
    rate: (
        Annotated[
            int,
            Meta(
                ge=8000,
                le=192000,
                description="sample rate of the file in Hz",
                extra={"default": "`audio.rate`; `init`'s where it is preserved"},
            ),
        ]
        | None
    ) = None
    format: (
        Annotated[Format, Meta(description="file format", extra={"default": "wav; `init`'s where it is preserved"})]
        | None
    ) = None
    bits: (
        Annotated[
            Literal[16, 24, 32],
            Meta(description="bits per sample; 32 is float", extra={"default": "24; `init`'s where it is preserved"}),
        ]
        | None
    ) = None
    channels: (
        Annotated[
            Literal[1, 2],
            Meta(
                description="number of channels of the file",
                extra={"default": "the model's; `init`'s where it is preserved"},
            ),
        ]
        | None
    ) = None
    loudness: (
        Annotated[float, Meta(ge=-70, le=0, description="target loudness in LUFS (BS.1770)", extra={"default": "off"})]
        | Off
        | None
    ) = None
    peak: (
        Annotated[
            float,
            Meta(
                ge=-60,
                le=0,
                description="target peak level in dBFS",
                extra={"default": "-1; off where `init` is preserved"},
            ),
        ]
        | Off
        | None
    ) = None
    trim: Annotated[bool, Meta(description="remove silence at both ends", extra={"default": "0"})] | None = None
    fade_in: (
        Annotated[
            float,
            Meta(
                ge=0,
                le=60,
                description="fade-in in seconds",
                extra={"default": "at most 0.002, to prevent a click; less or 0 if it would soften the attack"},
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
                description="fade-out in seconds",
                extra={"default": "at most 0.01; less if the sound ends with its peak"},
            ),
        ]
        | None
    ) = None
    to: (
        Annotated[
            Destination, Meta(description="destination; `none` for inline samples only", extra={"default": "file"})
        ]
        | None
    ) = None
    name: Annotated[str, Meta(max_length=120, description="file name", extra={"default": "from the prompt"})] | None = (
        None
    )
    folder: Annotated[str, Meta(max_length=MAX_FOLDER_UNITS, description="subfolder of the takes folder")] | None = None
    priority: Annotated[Priority, Meta(description="priority in the queue", extra={"default": "normal"})] | None = None
    preview: (
        Annotated[bool, Meta(description="send a rough rendering during denoising", extra={"default": "0"})] | None
    ) = None
    voice: (
        Annotated[Voice, Meta(description="voice to play on, with `@to play` or `@to both`; default a free one")] | None
    ) = None
    by: (
        Annotated[
            str, Meta(max_length=40, description="deadline, `bar 33` or seconds from now; sets the number of steps")
        ]
        | None
    ) = None
    inline: (
        Annotated[
            bool,
            Meta(description="append the samples to each take in the same ZeroMQ message", extra={"default": "0"}),
        ]
        | None
    ) = None


class ServerKeys(Recipe, frozen=True, kw_only=True):
    """Keys that read the takes into buffers of a SuperCollider server on the sender's host."""

    scsynth: (
        Annotated[
            int,
            Meta(ge=1, le=65535, description="UDP port of an scsynth that reads the takes into its buffers (OSC)"),
        ]
        | None
    ) = None
    buffer: (
        Annotated[
            int,
            Meta(ge=0, le=1_000_000, description="buffer number for the first take, with `scsynth`"),
        ]
        | None
    ) = None

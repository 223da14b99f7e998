"""`weights`: how much single words of the prompt count. Pure."""

import math
import re
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from timbred.audio import Decibels, Lufs, SampleRate, Seconds, bars_to_seconds
from timbred.audiofile.reader import AudioHeader
from timbred.dsp.splice import EditedPart
from timbred.dsp.streaming import can_stream
from timbred.errors import BadRequest
from timbred.ipc.engine_messages import InitAudio, NoiseSource, PromptInputs, RenderOrder, Repaint
from timbred.models.registry import Card
from timbred.protocol.keys import Recipe
from timbred.protocol.messages import Generate
from timbred.render_settings import (
    AUTOMATIC_FADE_IN,
    AUTOMATIC_FADE_OUT,
    CONTAINERS,
    HIGHEST_RATE,
    LOWEST_RATE,
    RenderSettings,
    check,
)

LEAST, MOST = 0.0, 3.0


def read_weights(text: str, prompt: str) -> tuple[tuple[str, float], ...]:
    """The weights of words, each a word of the prompt.

    >>> read_weights("bright:1.4 bell:0.6", "a bright bell")
    (('bright', 1.4), ('bell', 0.6))

    Raises:
        BadRequest: a word that the prompt doesn't have, or a weight that isn't a number from 0 to 3.
    """
    found = tuple(_one(pair, prompt) for pair in text.split())
    if not found:
        raise BadRequest("weights: got no words; write them as in: @weights bright:1.4 bell:0.6")
    words = [word for word, _ in found]
    for word in words:
        if words.count(word) > 1:
            raise BadRequest(f"weights: {word!r} has two weights; give it one")
    return found


def _one(pair: str, prompt: str) -> tuple[str, float]:
    word, colon, number = pair.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not colon or not word or not LEAST <= weight <= MOST:
        raise BadRequest(f"weights: got {pair!r}, allowed is word:weight with a weight from {LEAST:g} to {MOST:g}")
    if not has_word(prompt, word):
        raise BadRequest(f"weights: {word!r} isn't a word of the prompt {prompt[:80]!r}")
    return word, weight


def has_word(prompt: str, word: str) -> bool:
    """Whether a text has a word, as a whole and in any case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE) is not None


OF_INIT = ("strength", "start", "end", "low", "high", "extend")
"""Keys that say what to do with `init`."""

NOT_WITH_EXTEND = (
    *("strength", "start", "end", "low", "high"),
    *("seconds", "bars", "bpm", "beats_per_bar", "trim"),
)
"""Keys that a sound can't have that is continued: all of it is kept, and its length is what it adds."""

LONGEST = 600.0
"""Seconds that a continued sound may last in all."""

LONGEST_WINDOW = 10.24
"""Seconds that a continued sound is made in at once, at most: what the published models learnt from."""

PEAK = -1.0
"""Level in dBFS where nothing is said; what stays of `init` is left alone."""

STRENGTH = 0.5
"""How far `init` is changed where nothing is said; a part that is repainted is made anew altogether."""

NOT_KEYS = (
    "hears",
    "rendered_seconds",
    "window",
    "noise_source",
    "playing",
    "server_buffer",
    "automatic_fades",
    "keeps_bits",
)
"""Fields of `Parameters` that are no keys of `generate`."""

PLAYED = ("play", "both")
"""Values of `to` that want a voice."""

PLAY_KEYS = ("voice", "gain", "pan", "speed", "out", "at", "fade")

KEPT_FORMATS: dict[str, Literal["wav", "flac", "aiff"]] = {
    "WAV": "wav", "WAVEX": "wav", "RF64": "wav", "AIFF": "aiff", "FLAC": "flac",
}  # fmt: skip
"""Formats in which a sound of these kinds (libsndfile's names) stays as it is; all others become wav."""

KEPT_BITS: dict[str, Literal[16, 24]] = {"PCM_S8": 16, "PCM_U8": 16, "PCM_16": 16, "PCM_24": 24}
"""Bits that hold samples of these kinds (libsndfile's names) exactly; all others need 32, which are float."""

HIGHEST = 96_000.0
"""Hz; above every model's highest band."""

STEPS: dict[str, tuple[int, int]] = {
    "ddim": (1, 999),
    "dpm++2m": (1, 990),
    "dpm++2m-karras": (1, 940),
    "lms": (1, 990),
    "pndm": (4, 999),
    "unipc": (1, 990),
}
"""Fewest and most steps of the schedulers that can't take 1 to 1000: with more, two steps fall on one noise level."""


@dataclass(frozen=True)
class Session:
    """What the session lends to requests that don't say: rate in Hz, tempo in beats a minute."""

    rate: int = 48000
    tempo: float = 120.0
    beats_per_bar: float = 4.0


@dataclass(frozen=True)
class ServerBuffer:
    """Where a SuperCollider server puts the takes: its UDP port, and the number of the first take's buffer."""

    port: int
    number: int


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Everything about one request, nothing left open. Names as in the protocol; `seconds` is exact.

    `automatic_fades` names those of `fade_in` and `fade_out` that nobody asked for: their values are upper limits.
    `keeps_bits` says that `init` stays in the file, at its own rate and in a format that nobody chose: then its samples
    must stay bit for bit.
    """

    model: str
    prompt: str
    negative: str
    transcription: str
    prompt2: str
    mix: float | None
    weights: str
    noise: str
    init: str
    strength: float | None
    start: float | None
    end: float | None
    low: float | None
    high: float | None
    extend: float | None
    window: float
    preview: bool
    seconds: float
    bars: float | None
    bpm: float | None
    beats_per_bar: float | None
    steps: int
    guidance: float
    eta: float
    scheduler: str
    seed: int
    exact: bool
    takes: int
    rank: bool
    hears: bool
    loop: bool
    rate: int
    format: Literal["wav", "flac", "aiff", "ogg"]
    bits: Literal[16, 24, 32] | None
    channels: Literal[1, 2] | None
    loudness: float | None
    peak: float | None
    trim: bool
    fade_in: float
    fade_out: float
    automatic_fades: frozenset[str]
    keeps_bits: bool
    to: Literal["file", "play", "both", "none"]
    playing: Generate | None
    server_buffer: ServerBuffer | None
    name: str
    folder: str
    priority: Literal["live", "normal", "background"]
    inline: bool
    rendered_seconds: float
    noise_source: NoiseSource | None

    @property
    def seeds(self) -> tuple[int, ...]:
        """One seed for each take: counted up from `seed`, so that each take can be made again alone."""
        return tuple((self.seed + index) % 2**31 for index in range(self.takes))

    @property
    def beats(self) -> float | None:
        """Length in beats, when the length was asked for in bars."""
        return None if self.bars is None or self.beats_per_bar is None else self.bars * self.beats_per_bar

    @property
    def repaint(self) -> Repaint | None:
        """The part of `init` that is made anew, when not all of it is."""
        if all(edge is None for edge in (self.start, self.end, self.low, self.high)):
            return None
        return Repaint(
            start=self.start or 0.0,
            end=self.seconds if self.end is None else self.end,
            low=self.low or 0.0,
            high=HIGHEST if self.high is None else self.high,
        )

    @property
    def anew(self) -> EditedPart | None:
        """The part of the whole that is made anew, where the rest is `init` as it is."""
        if self.extend is not None:
            return EditedPart(self.seconds - self.extend, self.seconds)
        part = self.repaint
        return (
            None
            if part is None
            else EditedPart(part.start, part.end, part.low, inf if self.high is None else part.high)
        )

    @property
    def words(self) -> PromptInputs:
        """What the text encoders get."""
        return PromptInputs(
            prompt=self.prompt,
            negative=self.negative,
            transcription=self.transcription,
            prompt2=self.prompt2,
            mix=self.mix or 0.0,
            weights=read_weights(self.weights, self.prompt) if self.weights else (),
        )

    def order(self, given: bytes | None = None) -> RenderOrder:
        """What the engine is told. `given` are the samples of `init`, mono, at the model's native rate."""
        return RenderOrder(
            words=self.words,
            noise=self.noise_source,
            given=None
            if given is None
            else InitAudio(samples=given, strength=self.strength or 0.0, repaint=self.repaint),
            preview=self.preview,
            seconds=self.rendered_seconds,
            steps=self.steps,
            guidance=self.guidance,
            eta=self.eta,
            scheduler=self.scheduler,
            seeds=self.seeds,
            exact=self.exact,
            rank=self.rank,
            hear=self.hears,
            early=self.early,
            loop=self.loop,
            window=0.0 if self.extend is None else self.window,
        )

    @property
    def early(self) -> bool:
        """Whether the sound is heard from its first piece on. One that is to be equal bit for bit is made at once, for
        pieces are equal within rounding; so is one that has `init` in it as it is."""
        if self.anew is not None:
            return False
        return self.to in PLAYED and self.takes == 1 and not self.exact and can_stream(self.render_settings())

    def render_settings(self) -> RenderSettings:
        """How each take is finished."""
        return RenderSettings(
            seconds=None if self.trim else Seconds(self.seconds),
            trim=self.trim,
            fade_in=None if "fade_in" in self.automatic_fades else Seconds(self.fade_in),
            fade_out=None if "fade_out" in self.automatic_fades else Seconds(self.fade_out),
            loudness=None if self.loudness is None else Lufs(self.loudness),
            peak=None if self.peak is None else Decibels(self.peak),
            rate=SampleRate(self.rate),
            channels=self.channels,
            format=self.format,
            bits=self.bits,
            loop=self.loop,
        )

    def for_recipe(self) -> dict[str, Any]:
        """The keys of `generate` that this comes to, every one said outright."""
        kept = {name: value for name, value in vars(self).items() if name not in NOT_KEYS}
        for words in ("transcription", "prompt2", "weights", "noise", "init"):
            if not kept[words]:
                del kept[words]
        for fade in self.automatic_fades:
            del kept[fade]
        if self.bars is not None or self.extend is not None:
            del kept["seconds"]
        if self.extend is not None:
            kept["strength"] = None
        for level in ("loudness", "peak"):
            kept[level] = "off" if kept[level] is None else kept[level]
        return kept


def resolve(
    request: Generate,
    card: Card,
    session: Session,
    random_seed: int,
    noise_source: NoiseSource | None = None,
    init_seconds: float | None = None,
    init_head: AudioHeader | None = None,
) -> Parameters:
    """What a request comes to with this model in this session. `noise_source` is what `noise` names, `init_seconds`
    how long `init` is, `init_head` what its file says of its samples.

    Raises:
        BadRequest: naming the key, what came, and what is allowed.
    """
    _refuse_what_cannot_be_done(request, card)
    _refuse_what_does_not_go_with_init(request)
    seconds, bars, bpm, beats_per_bar = _length(request, card, session, init_seconds)
    scheduler = request.scheduler or card.scheduler
    if request.eta and scheduler != "ddim":
        raise BadRequest(f"eta: got {request.eta:g}, but only the scheduler ddim uses it, not {scheduler}")
    steps = _or(request.steps, card.steps)
    fewest, most = STEPS.get(scheduler, (1, 1000))
    if not fewest <= steps <= most:
        raise BadRequest(f"steps: got {steps}, {scheduler} takes {fewest} to {most}")
    kept = init_head if request.extend is not None or repaints(request) else None
    if kept is not None:
        _refuse_what_cannot_be_done_to_channels(request, kept)
    rate, file_format, bits = _file(request, session, kept)
    check(file_format, bits, rate, request.channels or card.channels)
    prompt, transcription = _words(request, card)
    loop = bool(request.loop)
    keeps_start, keeps_end = _kept_ends(request, seconds, init_seconds)
    return Parameters(
        model=card.name,
        prompt=prompt,
        negative=_or(request.negative, card.negative),
        transcription=transcription,
        prompt2=request.prompt2 or "",
        mix=_or(request.mix, 0.5) if request.prompt2 else None,
        weights=_weights(request),
        noise=request.noise or "",
        init=request.init or "",
        strength=_strength(request),
        **_edges(request, seconds),
        extend=request.extend,
        window=min(card.max_seconds, LONGEST_WINDOW),
        preview=bool(request.preview),
        noise_source=noise_source,
        seconds=seconds,
        bars=bars,
        bpm=bpm,
        beats_per_bar=beats_per_bar,
        steps=steps,
        guidance=_guidance(request, card),
        eta=_or(request.eta, 0.0),
        scheduler=scheduler,
        seed=_or(request.seed, random_seed),
        exact=bool(request.exact),
        takes=_or(request.takes, 1),
        rank=_or(request.rank, card.ranks),
        hears=card.ranks,
        loop=loop,
        rate=rate,
        format=file_format,
        bits=bits,
        channels=request.channels,
        loudness=_level(request.loudness, None),
        peak=_level(request.peak, None if request.extend is not None or repaints(request) else PEAK),
        trim=bool(request.trim),
        fade_in=_or(request.fade_in, 0.0 if keeps_start else AUTOMATIC_FADE_IN),
        fade_out=_or(request.fade_out, 0.0 if keeps_end else AUTOMATIC_FADE_OUT),
        automatic_fades=_automatic_fades(request, keeps_start, keeps_end),
        keeps_bits=kept is not None and (request.format, request.bits) == (None, None) and rate == kept.rate,
        to=request.to or "file",
        playing=request if request.to in PLAYED else None,
        server_buffer=_server_buffer(request),
        name=request.name or "",
        folder=request.folder or "",
        priority=request.priority or "normal",
        inline=bool(request.inline),
        rendered_seconds=seconds if request.extend is not None else _rendered(seconds, loop, card),
    )


def _or(given: Any, default: Any) -> Any:
    return default if given is None else given


def _server_buffer(request: Generate) -> ServerBuffer | None:
    if request.scsynth is None and request.buffer is None:
        return None
    if request.scsynth is None or request.buffer is None:
        raise BadRequest("scsynth, buffer: give both or none, as in: @scsynth 57110 @buffer 12")
    if request.to not in (None, "file", "both"):
        raise BadRequest(f"scsynth: the server reads a file, but to is {request.to}; use `to file` or `to both`")
    return ServerBuffer(request.scsynth, request.buffer)


def _weights(request: Generate) -> str:
    if request.weights is None:
        return ""
    read_weights(request.weights, request.prompt)
    return request.weights


def _guidance(request: Generate, card: Card) -> float:
    """The model's own; where its weights hold the guidance, a negative prompt still needs some to be heard."""
    usual = card.guidance if not request.negative else _or(card.negative_guidance, card.guidance)
    return _or(request.guidance, usual)


def _strength(request: Generate) -> float | None:
    if request.init is None:
        return None
    return _or(request.strength, 1.0 if repaints(request) else STRENGTH)


def repaints(request: Recipe) -> bool:
    """Whether a part of `init` is made anew, and the rest of it stays."""
    return any(getattr(request, key) is not None for key in ("start", "end", "low", "high"))


def _kept_ends(request: Generate, seconds: float, init_seconds: float | None) -> tuple[bool, bool]:
    """Whether the sound begins, and ends, as `init` does: then neither is faded."""
    if request.extend is not None:
        return True, False
    if not repaints(request) or init_seconds is None:
        return False, False
    banded = request.low is not None or request.high is not None
    ends_before = request.end is not None and request.end < seconds
    return banded or bool(request.start), (banded or ends_before) and seconds > init_seconds - 1e-6


def _file(
    request: Generate, session: Session, kept: AudioHeader | None
) -> tuple[int, Literal["wav", "flac", "aiff", "ogg"], Literal[16, 24, 32] | None]:
    """Rate, format and bits of the file. Where `init` stays, they are its own unless others are asked for.

    Raises:
        BadRequest: its rate is none that files of ours have.
    """
    if kept is None:
        return request.rate or session.rate, request.format or "wav", request.bits
    rate = request.rate or kept.rate
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise BadRequest(
            f"rate: init has {rate} Hz, files may have {LOWEST_RATE} to {HIGHEST_RATE}; name one, as in: @rate 48000"
        )
    file_format = request.format or KEPT_FORMATS.get(kept.kind, "wav")
    own_bits: Literal[16, 24, 32] = KEPT_BITS.get(kept.subtype, 32)
    holds = own_bits in CONTAINERS[file_format].subtypes
    return rate, file_format, request.bits or (own_bits if holds else None)


def _refuse_what_cannot_be_done_to_channels(request: Generate, kept: AudioHeader) -> None:
    if kept.channels <= 2 or request.channels is not None:
        return
    if isinstance(request.loudness, float):
        raise BadRequest(
            f"loudness: it is measured of 1 or 2 channels, init has {kept.channels}; name @channels or @peak"
        )
    if request.to in PLAYED:
        raise BadRequest(f"to: voices play 1 or 2 channels, init has {kept.channels}; name @channels, or use `to file`")


def _automatic_fades(request: Generate, keeps_start: bool, keeps_end: bool) -> frozenset[str]:
    """The fades that aren't asked for, at ends that aren't those of `init`."""
    kept = {"fade_in": keeps_start, "fade_out": keeps_end}
    return frozenset(key for key, is_kept in kept.items() if not is_kept and getattr(request, key) is None)


def _edges(request: Generate, seconds: float) -> dict[str, Any]:
    """The edges of the part that is repainted.

    Raises:
        BadRequest: the part is empty, or lies outside the sound.
    """
    start, end = _or(request.start, 0.0), _or(request.end, seconds)
    if start >= seconds or end > seconds + 1e-6 or start >= end:
        raise BadRequest(f"start, end: got {start:g} to {end:g} s, the sound has 0 to {seconds:g} s")
    low, high = _or(request.low, 0.0), _or(request.high, HIGHEST)
    if low >= high:
        raise BadRequest(f"low, high: got {low:g} to {high:g} Hz; low must be the lower one")
    return {key: getattr(request, key) for key in ("start", "end", "low", "high")}


def _level(given: float | str | None, default: float | None) -> float | None:
    if given is None:
        return default
    return None if isinstance(given, str) else given


def _refuse_what_cannot_be_done(request: Generate, card: Card) -> None:
    for key in PLAY_KEYS:
        if getattr(request, key) is not None and request.to not in PLAYED:
            raise BadRequest(f"{key}: it goes with `to play` or `to both`; leave it out")
    if request.trim and request.loop:
        raise BadRequest("trim: a loop has its exact length; leave one of the two out")
    if request.rank and not card.ranks:
        raise BadRequest(f"rank: {card.name} can't compare sounds with words; leave it out")
    if request.weights is not None and card.speaks:
        raise BadRequest(f"weights: {card.name} speaks and has none; leave it out")
    if request.mix is not None and not (request.prompt2 or "").strip():
        raise BadRequest("mix: it goes with prompt2; say what to mix towards, as in: @prompt2 church bell")
    if request.noise is not None and (request.takes or 1) > 1:
        raise BadRequest(f"takes: got {request.takes}, but with noise there is only one: they would all be the same")
    if request.to == "none" and not request.inline:
        raise BadRequest("to: got none, which goes with `inline` over ZeroMQ; otherwise the sound would be lost")


def _refuse_what_does_not_go_with_init(request: Generate) -> None:
    for key in OF_INIT:
        if getattr(request, key) is not None and request.init is None:
            raise BadRequest(f"{key}: it goes with init; name the sound to start from, as in: @init take")
    for key in NOT_WITH_EXTEND:
        if request.extend is not None and getattr(request, key) not in (None, False):
            raise BadRequest(f"{key}: it doesn't go with extend, which keeps all of init and adds to it; leave one out")
    if request.init is not None and (request.noise is not None or request.loop):
        raise BadRequest(f"init: it doesn't go with {'noise' if request.noise is not None else 'loop'}; leave one out")


def _words(request: Generate, card: Card) -> tuple[str, str]:
    if request.transcription is not None and not card.speaks:
        raise BadRequest(f"transcription: {card.name} doesn't speak; leave it out")
    if card.speaks and not (request.transcription or "").strip():
        raise BadRequest(f"transcription: {card.name} speaks; say what, as in: @transcription hello from the stage")
    return request.prompt.strip(), request.transcription or ""


def _length(
    request: Generate, card: Card, session: Session, init_seconds: float | None
) -> tuple[float, float | None, float | None, float | None]:
    """Seconds, and the bars, tempo and meter they were counted in, if they were."""
    if request.extend is not None:
        there = init_seconds or 0.0
        if there + request.extend > LONGEST:
            raise BadRequest(
                f"extend: got {request.extend:g} s after the {there:g} s of init, together they may last {LONGEST:g} s"
            )
        return there + request.extend, None, None, None
    if request.bars is None:
        for key in ("bpm", "beats_per_bar"):
            if getattr(request, key) is not None:
                raise BadRequest(f"{key}: it goes with bars; say how many, as in: @bars 2")
        seconds = _or(request.seconds, _or(init_seconds, card.default_seconds))
        if init_seconds is not None and seconds > init_seconds + 1e-6:
            raise BadRequest(f"seconds: got {seconds:g}, but init has only {init_seconds:g}; ask for that or less")
        if request.seconds is None and seconds > card.max_seconds:
            raise BadRequest(
                f"init: it lasts {seconds:g} s, {card.name} makes up to {card.max_seconds:g}; "
                f"take its beginning with @seconds {card.max_seconds:g}"
            )
        if seconds > card.max_seconds:
            raise BadRequest(f"seconds: got {seconds:g}, {card.name} makes 0.05 to {card.max_seconds:g}")
        return seconds, None, None, None
    if request.seconds is not None:
        raise BadRequest("seconds: the length is already given in bars; leave one of them out")
    bpm, beats_per_bar = _or(request.bpm, session.tempo), _or(request.beats_per_bar, session.beats_per_bar)
    seconds = bars_to_seconds(request.bars, bpm, beats_per_bar)
    if not 0.05 <= seconds <= card.max_seconds:
        raise BadRequest(
            f"bars: {request.bars:g} bars of {beats_per_bar:g} beats at {bpm:g} bpm last {seconds:.4g} s, "
            f"{card.name} makes 0.05 to {card.max_seconds:g} s"
        )
    return seconds, request.bars, bpm, beats_per_bar


def _rendered(seconds: float, loop: bool, card: Card) -> float:
    """Seconds that the model makes: at least its shortest; a loop is made at its own length."""
    return seconds if loop else max(card.min_seconds, seconds)

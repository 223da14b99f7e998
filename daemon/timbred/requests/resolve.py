"""Resolution of requests: defaults from the model's card and the session, and validation of combinations. Pure."""

from dataclasses import dataclass
from typing import Any, Literal

from timbred.audio import Decibels, Lufs, SampleRate, Seconds, bars_to_seconds
from timbred.audiofile.files import AudioHeader
from timbred.dsp.pipeline import can_stream
from timbred.dsp.splice import EditedPart
from timbred.errors import BadRequest
from timbred.ipc.engine_messages import InitAudio, LoraUse, NoiseSource, PromptInputs, RenderOrder, Repaint
from timbred.models.registry import Card
from timbred.protocol.messages import Generate
from timbred.render_settings import (
    AUTOMATIC_FADE_IN_S,
    AUTOMATIC_FADE_OUT_S,
    CONTAINERS_BY_FORMAT,
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    RenderSettings,
    check,
)
from timbred.requests.key_checks import check_capabilities, check_init_keys, check_steps, init_fields, read_weights
from timbred.requests.loras import format_loras
from timbred.requests.musical import RequestedMusic, resolve_music, resolve_song

MAX_EXTENDED_SECONDS = 600.0
"""Seconds that an outpainted sound may last in all."""

MAX_WINDOW_SECONDS = 10.24
"""Longest outpainting window in seconds: the length that the published models were trained on."""

DEFAULT_PEAK_DBFS = -1.0
"""Default of `peak`; there is none where a part of the init audio is kept."""

INTERNAL_FIELDS = (
    *("inputs", "seeds", "beats", "repaint", "edited_parts"),
    *("wants_embeddings", "rendered_seconds", "window", "noise_source", "init_channels"),
    *("playing", "server_buffer", "automatic_fades", "keeps_bits", "loras"),
)
"""Fields of `Parameters` that aren't keys of `generate`."""

PLAYED = ("play", "both")
"""Values of `to` with which the sound is played."""

PLAY_KEYS = ("voice", "gain", "pan", "speed", "out", "at", "fade")
"""Keys that go only with a sound that is played."""

KEPT_FORMATS: dict[str, Literal["wav", "flac", "aiff"]] = {
    "WAV": "wav", "WAVEX": "wav", "RF64": "wav", "AIFF": "aiff", "FLAC": "flac",
}  # fmt: skip
"""Format of the file for init audio of each kind (libsndfile's names) of which a part is kept; wav for others."""

KEPT_BITS: dict[str, Literal[16, 24]] = {"PCM_S8": 16, "PCM_U8": 16, "PCM_16": 16, "PCM_24": 24}
"""Bits that hold samples of each kind (libsndfile's names) exactly; others need 32-bit float."""


@dataclass(frozen=True)
class Session:
    """Defaults of the session: sample rate in Hz, tempo in beats per minute, beats of a bar."""

    rate: int = 48000
    tempo: float = 120.0
    beats_per_bar: float = 4.0


@dataclass(frozen=True)
class ServerBuffer:
    """Buffers of a SuperCollider server for the takes: its UDP port, and the number of the first take's buffer."""

    port: int
    number: int


@dataclass(frozen=True)
class GivenSamples:
    """Init audio and a reference: float32 little-endian, interleaved, at the model's rate and in its channels."""

    init: bytes | None = None
    reference: bytes | None = None


NO_SAMPLES = GivenSamples()
"""No given sounds."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """A request with all defaults filled in. Fields are named as the keys of the protocol.

    Attributes:
        seconds: Exact length of the delivered sound.
        bpm: Tempo in beats per minute; None if none is known.
        key: Musical key; empty for none.
        signature: Time signature; empty for none.
        in_words: True if the prompt of the model has key, tempo and signature in words; None if there are none.
        measure: True if tempo, key and downbeat of the takes are measured.
        fit: True if the takes are ordered by how closely they keep to the tempo and the key.
        beats: Length in beats, if it was requested in bars.
        rendered_seconds: Length that the model renders: at least its minimum, except for loops and outpainting.
        inputs: Inputs of the text encoders.
        seeds: Seed of each take: `seed` plus its index, so that each take can be rendered again alone.
        repaint: The inpainted parts of the init audio; none if all of it is changed.
        edited_parts: The parts of the sound that are rendered, if the rest is unchanged init audio.
        window: Longest outpainting window in seconds.
        wants_embeddings: True if the engine computes embeddings of the takes.
        automatic_fades: Those of `fade_in` and `fade_out` that weren't requested: their values are upper limits.
        keeps_bits: True if the kept part of the init audio has to be bit-exact: neither rate nor format were requested.
        playing: The request, if the sound is played.
        server_buffer: Where a SuperCollider server reads the takes; None if it doesn't.
        noise_source: Where the starting noise of another take comes from; None for noise of the own seed.
        init_channels: Channels in which the engine takes init audio: the model's.
        lora: The LoRAs as in the recipe, each with its hash.
        loras: The same for the engine.
    """

    model: str
    inputs: PromptInputs
    prompt: str
    negative: str
    transcription: str
    prompt2: str
    mix: float | None
    weights: str
    noise: str
    embeddings: str
    init: str
    reference: str
    lyrics: str
    language: str
    task: str
    track: str
    strength: float | None
    start: float | None
    end: float | None
    low: float | None
    high: float | None
    regions: str
    repaint: tuple[Repaint, ...]
    extend: float | None
    edited_parts: tuple[EditedPart, ...]
    window: float
    preview: bool
    seconds: float
    bars: float | None
    bpm: float | None
    beats_per_bar: float | None
    beats: float | None
    key: str
    signature: str
    in_words: bool | None
    measure: bool
    fit: bool
    steps: int
    guidance: float
    eta: float
    scheduler: str
    seed: int
    seeds: tuple[int, ...]
    exact: bool
    takes: int
    rank: bool
    wants_embeddings: bool
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
    init_channels: int
    lora: str
    loras: tuple[LoraUse, ...]

    def order(self, samples: GivenSamples = NO_SAMPLES) -> RenderOrder:
        """Return the order for the engine."""
        return RenderOrder(
            inputs=self.inputs,
            noise=self.noise_source,
            loras=self.loras,
            init_audio=None
            if samples.init is None
            else InitAudio(
                samples=samples.init,
                channels=self.init_channels,
                strength=self.strength or 0.0,
                repaint=self.repaint,
            ),
            reference=None
            if samples.reference is None
            else InitAudio(samples=samples.reference, channels=self.init_channels, strength=0.0),
            preview=self.preview,
            seconds=self.rendered_seconds,
            steps=self.steps,
            guidance=self.guidance,
            eta=self.eta,
            scheduler=self.scheduler,
            seeds=self.seeds,
            exact=self.exact,
            rank=self.rank,
            embed_takes=self.wants_embeddings,
            is_streamed=self.is_streamed,
            loop=self.loop,
            window=0.0 if self.extend is None else self.window,
        )

    @property
    def is_streamed(self) -> bool:
        """True if the sound is played while it is rendered.

        Not one with `exact`, since pieces equal the whole only within rounding, nor one that keeps init audio.
        """
        if self.edited_parts:
            return False
        return self.to in PLAYED and self.takes == 1 and not self.exact and can_stream(self.render_settings())

    def render_settings(self) -> RenderSettings:
        """Return the settings of postprocessing."""
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
        """Return all keys of `generate` with their values."""
        kept = {name: value for name, value in vars(self).items() if name not in INTERNAL_FIELDS}
        texts = ("transcription", "prompt2", "weights", "noise", "embeddings", "init", "lora", "key", "signature")
        texts += ("reference", "regions", "lyrics", "language", "task", "track")
        kept = {name: value for name, value in kept.items() if value or name not in texts}
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
    loras: tuple[LoraUse, ...] = (),
) -> Parameters:
    """Resolve a request for one model and session.

    Args:
        request: The request.
        card: The model's card.
        session: Defaults of the session.
        random_seed: The seed to use if the request has none.
        noise_source: The source of starting noise that `noise` names.
        init_seconds: Length of the init audio.
        init_head: Header of its file.
        loras: The LoRAs that `lora` names.

    Raises:
        BadRequest: Names the key, its value, and what is allowed.
    """
    check_capabilities(request, card)
    _check_combinations(request, card)
    check_init_keys(request)
    music, song = resolve_music(request, session.tempo), resolve_song(request)
    seconds, bars, beats_per_bar = _length(request, card, session, music, init_seconds)
    init = init_fields(request, seconds)
    keeps_init = bool(init["edited_parts"])
    sampling = _sampling_fields(request, card, random_seed)
    file = _file_fields(request, card, session, init_head if keeps_init else None)
    inputs = _prompt_inputs(request, card)
    if music.key or music.bpm or music.signature:
        inputs = music.apply(inputs, card)
    if song.lyrics or song.task:
        inputs = song.apply(inputs)
    return Parameters(
        model=card.name,
        inputs=inputs,
        prompt=request.prompt.strip(),
        negative=inputs.negative,
        transcription=inputs.transcription,
        prompt2=request.prompt2 or "",
        mix=inputs.mix if inputs.prompt2 else None,
        weights=request.weights or "",
        **init,
        **vars(song),
        window=_window(card),
        preview=bool(request.preview),
        **{key: getattr(request, key) or "" for key in ("noise", "embeddings", "init", "reference")},
        noise_source=noise_source,
        init_channels=card.channels,
        lora=format_loras(loras) if loras else "",
        loras=loras,
        seconds=seconds,
        bars=bars,
        bpm=music.bpm,
        beats_per_bar=beats_per_bar,
        key=music.key,
        signature=music.signature,
        in_words=music.in_words if music.key or music.signature or music.bpm is not None else None,
        measure=music.measure,
        fit=music.fit,
        beats=None if bars is None or beats_per_bar is None else bars * beats_per_bar,
        rendered_seconds=seconds if request.extend is not None or request.loop else max(card.min_seconds, seconds),
        **sampling,
        rank=_or(request.rank, True),
        wants_embeddings=True,
        **file,
        loop=bool(request.loop),
        loudness=None if request.loudness == "off" else request.loudness,
        peak=None if request.peak == "off" else _or(request.peak, None if keeps_init else DEFAULT_PEAK_DBFS),
        trim=bool(request.trim),
        **_fade_fields(request, seconds, init_seconds, init["edited_parts"]),
        to=request.to or "file",
        playing=request if request.to in PLAYED else None,
        server_buffer=_server_buffer(request),
        name=request.name or "",
        folder=request.folder or "",
        priority=request.priority or "normal",
        inline=bool(request.inline),
    )


def _window(card: Card) -> float:
    """Return the longest outpainting window: networks of mel spectrograms, which know bands, take any length."""
    return min(card.max_seconds, MAX_WINDOW_SECONDS) if "bands" in card.capabilities else card.max_seconds


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _server_buffer(request: Generate) -> ServerBuffer | None:
    if request.scsynth is None and request.buffer is None:
        return None
    if request.scsynth is None or request.buffer is None:
        raise BadRequest("scsynth, buffer: give both or none, as in: @scsynth 57110 @buffer 12")
    if request.to not in (None, "file", "both"):
        raise BadRequest(f"scsynth: the server reads a file, but to is {request.to}; use `to file` or `to both`")
    return ServerBuffer(request.scsynth, request.buffer)


def _sampling_fields(request: Generate, card: Card, random_seed: int) -> dict[str, Any]:
    """Return the fields of `Parameters` for the sampler and the takes.

    Raises:
        BadRequest: The scheduler doesn't support the number of steps, or doesn't use `eta`.
    """
    scheduler = request.scheduler or card.scheduler
    if request.eta and scheduler != "ddim":
        raise BadRequest(f"eta: got {request.eta:g}, but only the scheduler ddim uses it, not {scheduler}")
    steps = _or(request.steps, card.steps)
    check_steps(steps, scheduler)
    # a model with guidance in its weights still needs some for a negative prompt
    guidance = _or(card.negative_guidance, card.guidance) if request.negative else card.guidance
    seed, takes = _or(request.seed, random_seed), _or(request.takes, 1)
    return {
        "scheduler": scheduler,
        "steps": steps,
        "guidance": _or(request.guidance, guidance),
        "eta": _or(request.eta, 0.0),
        "seed": seed,
        "seeds": tuple((seed + index) % 2**31 for index in range(takes)),
        "takes": takes,
        "exact": bool(request.exact),
    }


def _fade_fields(
    request: Generate, seconds: float, init_seconds: float | None, parts: tuple[EditedPart, ...]
) -> dict[str, Any]:
    """Return the fields of `Parameters` for the fades. Those that weren't requested are automatic.

    An end at which the sound is the unchanged init audio gets no fade.
    """
    keeps_start, keeps_end = request.extend is not None, False
    if request.extend is None and init_seconds is not None and parts:
        banded = request.low is not None or request.high is not None
        ends_before = parts[-1].end < seconds
        keeps_start = banded or parts[0].start > 0
        keeps_end = (banded or ends_before) and seconds > init_seconds - 1e-6
    automatic = {
        "fade_in": request.fade_in is None and not keeps_start,
        "fade_out": request.fade_out is None and not keeps_end,
    }
    return {
        "fade_in": _or(request.fade_in, 0.0 if keeps_start else AUTOMATIC_FADE_IN_S),
        "fade_out": _or(request.fade_out, 0.0 if keeps_end else AUTOMATIC_FADE_OUT_S),
        "automatic_fades": frozenset(key for key, is_automatic in automatic.items() if is_automatic),
    }


def _file_fields(request: Generate, card: Card, session: Session, kept: AudioHeader | None) -> dict[str, Any]:
    """Return the fields of `Parameters` for the file. Where init audio is kept, its own properties are the defaults.

    Raises:
        BadRequest: No file of the format can have these properties.
    """
    rate, file_format, bits = request.rate or session.rate, request.format or "wav", request.bits
    keeps_bits = False
    if kept is not None:
        _check_kept_channels(request, kept)
        rate = request.rate or kept.rate
        if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
            raise BadRequest(
                f"rate: init has {rate} Hz, files may have {MIN_RATE_HZ} to {MAX_RATE_HZ}; name one, as in: @rate 48000"
            )
        file_format = request.format or KEPT_FORMATS.get(kept.kind, "wav")
        own_bits = KEPT_BITS.get(kept.subtype, 32)
        holds = own_bits in CONTAINERS_BY_FORMAT[file_format].subtypes
        bits = request.bits or (own_bits if holds else None)
        keeps_bits = (request.format, request.bits) == (None, None) and rate == kept.rate
    check(file_format, bits, rate, request.channels or card.channels)
    return {
        "rate": rate,
        "format": file_format,
        "bits": bits,
        "channels": request.channels,
        "keeps_bits": keeps_bits,
    }


def _check_kept_channels(request: Generate, kept: AudioHeader) -> None:
    if kept.channels <= 2 or request.channels is not None:
        return
    if isinstance(request.loudness, float):
        raise BadRequest(
            f"loudness: it is measured of 1 or 2 channels, init has {kept.channels}; name @channels or @peak"
        )
    if request.to in PLAYED:
        raise BadRequest(f"to: voices play 1 or 2 channels, init has {kept.channels}; name @channels, or use `to file`")


def _check_combinations(request: Generate, card: Card) -> None:
    for key in PLAY_KEYS:
        if getattr(request, key) is not None and request.to not in PLAYED:
            raise BadRequest(f"{key}: it goes with `to play` or `to both`; leave it out")
    if request.trim and request.loop:
        raise BadRequest("trim: a loop has its exact length; leave one of the two out")
    if request.weights is not None and card.speaks:
        raise BadRequest(f"weights: {card.name} speaks and has none; leave it out")
    if request.mix is not None and not (request.prompt2 or "").strip():
        raise BadRequest("mix: it goes with prompt2; say what to mix towards, as in: @prompt2 church bell")
    if request.noise is not None and (request.takes or 1) > 1:
        raise BadRequest(f"takes: got {request.takes}, but with noise there is only one: they would all be the same")
    if request.to == "none" and not request.inline:
        raise BadRequest("to: got none, which goes with `inline` over ZeroMQ; otherwise the sound would be lost")


def _prompt_inputs(request: Generate, card: Card) -> PromptInputs:
    """Return the inputs of the text encoders.

    Raises:
        BadRequest: A transcription is missing or not supported, or the weights don't fit the prompt.
    """
    if request.transcription is not None and not card.speaks:
        raise BadRequest(f"transcription: {card.name} doesn't speak; leave it out")
    if card.speaks and not (request.transcription or "").strip():
        raise BadRequest(f"transcription: {card.name} speaks; say what, as in: @transcription hello from the stage")
    return PromptInputs(
        prompt=request.prompt.strip(),
        negative=_or(request.negative, card.negative),
        transcription=request.transcription or "",
        prompt2=request.prompt2 or "",
        mix=_or(request.mix, 0.5) if request.prompt2 else 0.0,
        weights=() if request.weights is None else read_weights(request.weights, request.prompt),
    )


def _length(
    request: Generate, card: Card, session: Session, music: RequestedMusic, init_seconds: float | None
) -> tuple[float, float | None, float | None]:
    """Return the seconds, and the bars and beats of a bar if the length was requested in bars."""
    if request.extend is not None:
        kept_seconds = init_seconds or 0.0
        longest = MAX_EXTENDED_SECONDS if "windows" in card.capabilities else card.max_seconds
        reason = (
            "" if "windows" in card.capabilities else f": {card.name} can't render beyond its longest sound (windows)"
        )
        if kept_seconds + request.extend > longest:
            raise BadRequest(
                f"extend: got {request.extend:g} s after the {kept_seconds:g} s of init, "
                f"together they may last {longest:g} s{reason}"
            )
        return kept_seconds + request.extend, None, None
    if request.bars is None:
        if request.beats_per_bar is not None:
            raise BadRequest("beats_per_bar: it goes with bars; say how many, as in: @bars 2")
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
        return seconds, None, None
    if request.seconds is not None:
        raise BadRequest("seconds: the length is already given in bars; leave one of them out")
    bpm, beats_per_bar = _or(music.bpm, session.tempo), _or(music.beats_per_bar, session.beats_per_bar)
    seconds = bars_to_seconds(request.bars, bpm, beats_per_bar)
    if not 0.05 <= seconds <= card.max_seconds:
        raise BadRequest(
            f"bars: {request.bars:g} bars of {beats_per_bar:g} beats at {bpm:g} bpm last {seconds:.4g} s, "
            f"{card.name} makes 0.05 to {card.max_seconds:g} s"
        )
    return seconds, request.bars, beats_per_bar

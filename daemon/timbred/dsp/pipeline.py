"""The steps from a rendered clip to the samples of a file, for whole clips and for sounds that arrive in pieces.

A loop has an exact length, and its end meets its start without a seam. Another sample rate has an exact number of
frames; soxr's linear-phase VHQ converter makes it. The level is integrated loudness (ITU-R BS.1770-4, by pyloudnorm)
or peak.

A sound that is played while it is rendered arrives in pieces. Only the steps are applied to it that need no more than
a piece: fit, fade, resample, channels and level. Sounds that need a step over the whole (trim, a target loudness, a
loop's crossfade) are not streamed. The level depends on the loudest sample of the whole, which is nearly always in one
of the loudest regions of the spectrogram; the engine renders these first. All pieces get one gain, which differs from
that of the finished take only by the error of this estimate. If another region is louder, the player's limiter holds
the peak; the file isn't affected.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, gcd
from typing import Any, NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

from timbred.audio import Clip, Decibels, Lufs, Recipe, SampleRate, Samples, amplitude, frames_in, require_sound
from timbred.dsp.fades import (
    Lengths,
    add_fades,
    correlate,
    crossfade,
    fade,
    fade_curve,
    fade_in_examined,
    fade_in_lengths,
    fade_out_examined,
    fade_out_lengths,
    fit,
    limit_fades,
    mean_power,
    trim,
)
from timbred.render_settings import AUTOMATIC_FADE_IN_S, AUTOMATIC_FADE_OUT_S, RenderSettings, bits_of, check_settings

MAX_CROSSFADE_S = 0.25
"""Longest crossfade, also limited to half the loop: longer ones smear rhythms."""

MIN_CROSSFADE_S = 0.005
"""Surplus below which a crossfade would click; the ends are then bent over the same time."""

ATTACK_POWER_RATIO = 4.0
"""A start of more than this many times the power of the audio after the end (6 dB) is an attack."""

ATTACK_FADE_S = 0.002
"""Length of an attack's fade in."""

SURPLUS_DIVISOR = 4
"""Without a requested length, at most one part in so many of the clip is used for the crossfade."""


def loop(clip: Clip, settings: RenderSettings) -> Clip:
    """Turn the clip into a loop of the exact length at the clip's own rate, and set its `loop`.

    A clip that already loops, or settings that ask for no loop, leave the clip unchanged.

    Frames after the loop's end are crossfaded into its start, so that the audio continues across the end. With too few
    such frames both ends are bent towards each other over a few milliseconds. A clip that is shorter than the loop is
    faded at both edges and followed by silence. Without a requested length, up to a quarter of the clip is used for the
    crossfade.
    """
    if not settings.loop or clip.loop:
        return clip
    if settings.frames is None:
        frames = clip.frames - _default_surplus(clip)
    else:
        frames = max(1, round(settings.frames * clip.rate / settings.rate))
    return replace(clip.with_samples(_close(clip, frames, settings)), loop=True)


def _default_surplus(clip: Clip) -> int:
    return min(frames_in(MAX_CROSSFADE_S, clip.rate), clip.frames // SURPLUS_DIVISOR)


def _close(clip: Clip, frames: int, settings: RenderSettings) -> Samples:
    surplus = clip.frames - frames
    if surplus < 0:
        return np.pad(add_fades(clip.samples, settings, clip.rate), ((0, -surplus), (0, 0)))
    length = min(surplus, frames_in(MAX_CROSSFADE_S, clip.rate), frames // 2)
    if length < frames_in(MIN_CROSSFADE_S, clip.rate):
        return bend_ends(clip.samples[:frames], frames_in(MIN_CROSSFADE_S, clip.rate))
    return crossfade_ends(clip.samples, frames, length, frames_in(ATTACK_FADE_S, clip.rate))


def crossfade_ends(samples: Samples, frames: int, length: int, attack_fade: int) -> Samples:
    """Return the first `frames`, with the `length` frames after them faded out over the start.

    Sine and cosine gains are corrected by the correlation of both parts, so that the power stays even. A start that is
    far louder than the audio after the end is an attack: it fades in within `attack_fade` frames, while the audio after
    the end fades out at the normal rate.
    """
    following, start = samples[frames : frames + length], samples[:length]
    steps = np.arange(length)[:, None] * (np.pi / 2)
    fade_out = np.cos(steps / length)
    if mean_power(start) > ATTACK_POWER_RATIO * mean_power(following):
        fade_in = np.sin(np.minimum(steps / max(attack_fade, 1), np.pi / 2))
        blend = following * fade_out + start * fade_in
    else:
        fade_in = np.sin(steps / length)
        blend = crossfade(following, start, fade_out, fade_in, correlate(following, start))
    return np.concatenate([blend.astype(np.float32), samples[length:frames]])


def bend_ends(samples: Samples, reach: int) -> Samples:
    """Spread the step from the end to the start over `reach` frames on either side."""
    reach = min(reach, samples.shape[0] // 2)
    if reach < 2:
        return samples
    step = samples[0] - (2 * samples[-1] - samples[-2])
    curve = fade_curve(reach)[:, None] * (step / 2)
    result = samples.copy()
    result[-reach:] += curve
    result[:reach] -= curve[::-1]
    return result


CONTEXT_FRAMES = 2048
"""Frames, at the lower rate, that the converter's filter reaches at most on either side."""


def resample(clip: Clip, settings: RenderSettings) -> Clip:
    """Convert the clip to the file's rate and exact length.

    Nothing is shifted: frame n is at the time n / rate before and after. A loop is converted with its ends wrapped
    around, so that no seam is added.
    """
    frames = settings.frames or max(1, round(clip.frames * settings.rate / clip.rate))
    if clip.rate == settings.rate and clip.frames == frames:
        return clip
    convert = _resample_loop if clip.loop else _resample_one_shot
    return clip.with_samples(convert(clip, frames, settings.rate), settings.rate)


def resample_to_frames(clip: Clip, frames: int, rate: float) -> Samples:
    """Convert the clip's samples to any rate, also a fractional one, as `frames` frames; loops as in `resample`."""
    if clip.rate == rate and clip.frames == frames:
        return clip.samples
    return (_resample_loop if clip.loop else _resample_one_shot)(clip, frames, rate)


def _resample_one_shot(clip: Clip, frames: int, rate: float) -> Samples:
    """Convert a sound followed by silence, as soxr rounds the number of frames."""
    silence = ceil(clip.rate / rate) * 4
    padded = np.pad(clip.samples, ((0, silence), (0, 0)))
    return _convert_rate(padded, clip.rate, rate, 0, frames)


def _resample_loop(clip: Clip, frames: int, rate: float) -> Samples:
    """Convert a loop. Its period in frames becomes a whole number of frames, so the ratio of both is used.

    The context is a number of frames that corresponds to a whole number of frames of the result: only then is the cut
    exact.
    """
    period = clip.frames
    unit = period // gcd(period, frames)
    reach = CONTEXT_FRAMES * ceil(max(1.0, clip.rate / rate))
    context = ceil(reach / unit) * unit
    wrapped = clip.samples[np.arange(-context, period + context) % period]
    return _convert_rate(wrapped, period, frames, context * frames // period, frames)


def _convert_rate(samples: Samples, rate_in: float, rate_out: float, start: int, frames: int) -> Samples:
    """Convert samples, and return `frames` frames of the result from `start` on; silence follows if it is too short."""
    converted: NDArray[Any] = samples
    if rate_in != rate_out:
        converted = soxr.resample(samples, rate_in, rate_out, quality="VHQ")
    part = converted[start : start + frames]
    return np.pad(part, ((0, frames - part.shape[0]), (0, 0)))


OPPOSITE_CORRELATION = -0.5
"""Correlation of a channel with the sum of the louder ones below which its polarity is inverted before summing."""

Polarities = NDArray[np.float64]
"""1 or -1 for each channel, shape (channels,)."""


def convert_channels(clip: Clip, settings: RenderSettings) -> Clip:
    """Convert the clip to the requested number of channels.

    One channel is copied into two at the same level; two or more become one by their mean, so that nothing can clip.
    More than two channels become two through their mean. Channels of opposite polarity cancel each other in this mean.
    """
    count = settings.channels
    if count is None or count == clip.channels:
        return clip
    mean = clip.samples.mean(axis=1, keepdims=True, dtype=np.float64)
    return clip.with_samples(np.repeat(mean, count, axis=1))


def mix_to_mono(samples: NDArray[Any], signs: Polarities) -> NDArray[np.float64]:
    """Return the mean of channels with these polarities, shape (frames,), as a model gets it."""
    return samples @ (signs / samples.shape[1])


def find_polarities(samples: NDArray[Any]) -> Polarities:
    """Return the polarity with which each channel of (frames, channels) is summed, so that none cancels another.

    All are 1 except for channels that are nearly the inverse of the sum of the louder ones: a balanced line recorded as
    stereo, or a cable with its wires swapped. The plain mean of such channels would be close to silence.
    """
    count = samples.shape[1]
    signs = np.ones(count)
    if count == 1:
        return signs
    products = np.einsum("fi,fj->ij", samples, samples, dtype=np.float64, optimize=True)
    order = np.argsort(-products.diagonal(), kind="stable")  # the loudest first: its polarity is kept
    for rank, channel in enumerate(order[1:], start=1):
        louder = order[:rank]
        power = signs[louder] @ products[np.ix_(louder, louder)] @ signs[louder] * products[channel, channel]
        if signs[louder] @ products[louder, channel] < OPPOSITE_CORRELATION * np.sqrt(max(power, 0.0)):
            signs[channel] = -1.0
    return signs


SILENCE_DBFS = -120.0
"""Peak below which a clip counts as silent: raising it would only raise rounding errors."""

BLOCK_S = 0.4
"""Length of the blocks that BS.1770 measures."""


def level(clip: Clip, settings: RenderSettings) -> Clip:
    """Bring the clip to the requested loudness or peak by one gain for the whole clip.

    If loudness is requested, `peak` is its ceiling: a gain that would raise the loudest sample above it is reduced, and
    the sound stays quieter than requested rather than being compressed. With `peak` off the ceiling is full scale, and
    32-bit float files have none. A silent clip is returned unchanged.
    """
    peak = float(np.abs(clip.samples).max(initial=0.0))
    if peak < amplitude(SILENCE_DBFS):
        return clip
    if settings.loudness is not None:
        gain = min(_gain_to_loudness(clip, settings.loudness), _ceiling(settings) / peak)
    elif settings.peak is not None:
        gain = amplitude(settings.peak) / peak
    else:
        return clip
    return clip.with_samples(clip.samples * np.float64(gain))


def measure_loudness(samples: Samples, rate: int) -> Lufs | None:
    """Return the integrated loudness of samples of shape (frames, channels); None for silence.

    A sound shorter than one block of 0.4 s is repeated: padding it with silence would measure the silence. The
    standard's absolute gate of -70 LUFS is applied relative to the sound's own peak, so that a very quiet sound has a
    loudness too.
    """
    from pyloudnorm import Meter  # imports scipy, which takes most of a second

    peak = float(np.abs(samples).max(initial=0.0))
    if peak < amplitude(SILENCE_DBFS):
        return None
    repeats = int(np.ceil(BLOCK_S * rate / samples.shape[0])) if samples.shape[0] < BLOCK_S * rate else 1
    repeated = np.tile(samples.astype(np.float64) / peak, (repeats, 1))
    loudness = float(Meter(rate, block_size=BLOCK_S).integrated_loudness(repeated))
    return Lufs(loudness + measure_peak(samples)) if np.isfinite(loudness) else None


def measure_peak(samples: Samples) -> Decibels:
    """Return the level of the loudest sample in dBFS; -inf for digital silence."""
    peak = float(np.abs(samples).max(initial=0.0))
    return Decibels(20.0 * float(np.log10(peak)) if peak > 0 else -np.inf)


def _gain_to_loudness(clip: Clip, target: Lufs) -> float:
    loudness = measure_loudness(clip.samples, clip.rate)
    return 1.0 if loudness is None else amplitude(target - loudness)


def _ceiling(settings: RenderSettings) -> float:
    if settings.peak is not None:
        return amplitude(settings.peak)
    return np.inf if bits_of(settings) == 32 else 1.0


STEPS_16_BIT = 32_768
"""Steps of a 16-bit sample from 0 to full scale."""


def dither(clip: Clip, settings: RenderSettings) -> Clip:
    """Quantise the clip to 16 bits with dither, if the file has 16 bits. The same recipe gives the same noise.

    Samples that are exact 16-bit values already are unchanged: those of a continued 16-bit file, and silence.

    Triangular noise two steps wide makes the error independent of the sound (Lipshitz, Wannamaker and Vanderkooy,
    1992). Digital silence stays silent.
    """
    if bits_of(settings) != 16 or not clip.samples.any():
        return clip
    generator = np.random.default_rng(dither_seed(clip.recipe))
    noise = generator.random(clip.samples.shape, np.float32) - generator.random(clip.samples.shape, np.float32)
    exact = clip.samples * np.float32(STEPS_16_BIT)
    steps = np.where(exact == np.rint(exact), exact, np.rint(exact + noise))
    return clip.with_samples(np.clip(steps, -STEPS_16_BIT, STEPS_16_BIT - 1) / np.float32(STEPS_16_BIT))


def dither_seed(recipe: Recipe) -> int:
    """Derive a seed from everything in the recipe except its date."""
    parameters = {name: value for name, value in recipe.items() if name != "created"}
    text = json.dumps(parameters, sort_keys=True, default=str)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


class PipelineStep(NamedTuple):
    """One step: a pure function of the clip and the settings."""

    name: str
    apply: Callable[[Clip, RenderSettings], Clip]


PIPELINE_STEPS: tuple[PipelineStep, ...] = (
    PipelineStep("trim", trim),
    PipelineStep("fit", fit),
    PipelineStep("loop", loop),
    PipelineStep("fade", fade),
    PipelineStep("resample", resample),
    PipelineStep("channels", convert_channels),
    PipelineStep("level", level),
    PipelineStep("dither", dither),
)
"""Every step, in order."""


def run_pipeline(clip: Clip, settings: RenderSettings) -> Clip:
    """Apply every step; the result has the rate, channels, level and number of frames of the settings.

    Raises:
        BadRequest: the settings contradict each other or the format.
        ModelError: the clip has no samples, or samples that are NaN or infinite.
    """
    check_settings(settings)
    require_sound(clip)
    for step in PIPELINE_STEPS:
        clip = step.apply(clip, settings)
    return clip


@dataclass(frozen=True, eq=False)
class StreamPiece:
    """A rendered part of a sound.

    Attributes:
        samples: shape (frames, channels).
        rate: in Hz.
        first: the number of its first frame.
        frames: frames of the whole sound.
        peak: the loudest sample of the whole sound as far as it is known.
        last: True for the sound's last piece.
    """

    samples: Samples
    rate: int
    first: int
    frames: int
    peak: float
    last: bool


class StreamedSound:
    """Processes the pieces of one sound in order.

    Args:
        settings: the settings of the take.
        first: the first piece; `process` must still be called with it.
        rate: the output device's, in Hz.

    Attributes:
        frames: frames of the whole sound at the device's rate.
    """

    def __init__(self, settings: RenderSettings, first: StreamPiece, rate: int) -> None:
        self._settings = settings
        self._gain = _gain(settings, first.peak)
        self._frames = _total_frames(settings, first)
        self._edges = _StreamedFades(settings, first.rate, self._frames, first.samples.shape[1])
        self._frames_received = 0
        self._frames_returned = 0
        self.frames = round(self._frames * rate / first.rate)
        self._stream = None
        if rate != first.rate:
            count = first.samples.shape[1]
            self._stream = soxr.ResampleStream(first.rate, rate, count, dtype="float32", quality="VHQ")

    @property
    def done(self) -> bool:
        """True if all frames were returned."""
        return self._frames_returned >= self.frames

    def process(self, piece: StreamPiece) -> Samples:
        """Return the frames that can be played once this piece has arrived, shape (frames, channels).

        The fades and the converter hold some frames back until the next piece. After the last piece exactly `frames`
        frames have been returned in all.

        Raises:
            ValueError: the piece doesn't begin where the last one ended.
        """
        if piece.first != self._frames_received:
            raise ValueError(f"the piece begins with frame {piece.first}; the next one is {self._frames_received}")
        self._frames_received += piece.samples.shape[0]
        last = piece.last or self._frames_received >= self._frames
        if self.done:
            return piece.samples[:0]
        samples = self._edges.process(piece.samples[: max(0, self._frames - piece.first)], last) * np.float32(
            self._gain
        )
        if self._stream is not None:
            samples = self._stream.resample_chunk(np.ascontiguousarray(samples), last=last)
        samples = self._fit_frames(samples, last)
        self._frames_returned += samples.shape[0]
        clip = Clip(np.ascontiguousarray(samples, dtype=np.float32), SampleRate(piece.rate))
        return convert_channels(clip, self._settings).samples

    def _fit_frames(self, samples: Samples, last: bool) -> Samples:
        left = self.frames - self._frames_returned
        missing = max(0, left - samples.shape[0]) if last else 0
        return np.pad(samples[:left], ((0, missing), (0, 0)))


class _StreamedFades:
    """The fades of a sound that arrives in pieces, equal to those of `trim_fade.add_fades` on the whole.

    No frame is returned before the fade in is known, and none of the end before the fade out is. A sound so short that
    both depend on the same frames is held back as a whole.
    """

    def __init__(self, settings: RenderSettings, rate: int, frames: int, channels: int) -> None:
        self._settings = settings
        self._rate = rate
        self._frames = frames
        self._held = np.zeros((0, channels), np.float32)
        self._frames_returned = 0
        self._leads: Lengths | None = None
        self._tails: Lengths | None = None
        lead = frames_in(AUTOMATIC_FADE_IN_S if settings.fade_in is None else settings.fade_in, rate)
        tail = frames_in(AUTOMATIC_FADE_OUT_S if settings.fade_out is None else settings.fade_out, rate)
        if settings.fade_in is not None and settings.fade_out is not None:
            lead, tail = limit_fades(lead, tail, frames)
            self._leads, self._tails = np.full(channels, lead), np.full(channels, tail)
        self._examined = fade_in_examined(settings, rate), fade_out_examined(settings, rate)
        self._is_whole = self._leads is None and max(lead + tail, sum(self._examined)) > frames

    def process(self, samples: Samples, last: bool) -> Samples:
        """Add samples, and return the frames whose fades are known; `last` marks the last call."""
        self._held = np.concatenate([self._held, samples])
        if self._is_whole:
            return add_fades(self._next(len(self._held)), self._settings, self._rate) if last else self._next(0)
        received = self._frames_returned + len(self._held)
        if self._leads is None and (last or received >= self._examined[0]):
            self._leads = fade_in_lengths(self._held, self._settings, self._rate)
        if self._tails is None and (last or self._settings.fade_out is not None):
            self._tails = fade_out_lengths(self._held, self._settings, self._rate)
        if self._leads is None:
            return self._next(0)
        known = received if self._tails is not None else min(received, self._frames - self._examined[1])
        places = np.arange(self._frames_returned, max(self._frames_returned, known))
        ready = self._next(len(places)).copy()
        self._fade(ready, self._leads, places)
        if self._tails is not None:
            self._fade(ready, self._tails, self._frames - 1 - places)
        return ready

    def _next(self, count: int) -> Samples:
        """Return the next `count` of the frames that are held back."""
        ready, self._held = self._held[:count], self._held[count:]
        self._frames_returned += count
        return ready

    @staticmethod
    def _fade(samples: Samples, lengths: Lengths, distances: NDArray[np.int64]) -> None:
        """Fade each channel over its length; `distances` are in frames from the sound's edge."""
        for channel, length in enumerate(lengths):
            inside = distances < length
            samples[inside, channel] *= fade_curve(int(length))[distances[inside]]


def _gain(settings: RenderSettings, peak: float) -> float:
    if settings.peak is None or peak < amplitude(SILENCE_DBFS):
        return 1.0
    return amplitude(settings.peak) / peak


def _total_frames(settings: RenderSettings, piece: StreamPiece) -> int:
    """Return the frames of the whole sound under these settings, at the piece's rate."""
    if settings.frames is None:
        return piece.frames
    return min(piece.frames, -(-settings.frames * piece.rate // settings.rate))


def can_stream(settings: RenderSettings) -> bool:
    """Return whether a sound with these settings can be played while it is rendered."""
    return not settings.trim and not settings.loop and settings.loudness is None

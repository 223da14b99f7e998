"""Measurement of tempo, key and downbeat of a sound, and how closely they keep to what was asked.

Beats are tracked by librosa (Ellis, Beat Tracking by Dynamic Programming, 2007) in the onset strength of mel bands; the
tempo is the slope of a line through them, which is finer than a frame. The key is the one of 24 whose profile
(Krumhansl and Kessler, 1982) correlates best with the mean chroma (Krumhansl, Cognitive Foundations of Musical Pitch,
1990). The downbeat is the loudest beat of the bar, where its low frequencies count as much as all.

librosa is imported by the first call of `prepare` or `measure`: with its compiler it takes seconds of a core once and
150 MB, and further measurements take some milliseconds a second of sound. Call it in a worker thread.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Clip, SampleRate
from timbred.dsp.pipeline import RenderSettings, find_polarities, mix_to_mono, resample
from timbred.music import MusicalKey, key_name

log = logging.getLogger(__name__)

ANALYSIS_RATE_HZ = 22050
HOP_SAMPLES = 256
"""Samples from one frame of the onset strength to the next: 11.6 ms."""

LEAD_FRAMES = 16
"""Silent frames before the sound, so that an onset at its very beginning is one."""

ONSET_DELAY_FRAMES = 1.0
"""Frames by which an onset is detected too late."""

FFT_SAMPLES = 1024
MEL_BANDS = 96
"""Length of the spectra of which the onset strength is taken, and the bands of each."""

ACCENT_SECONDS = 0.1
"""Seconds from a beat on in which its level is taken."""

MAX_ONSET_SHARE = 3.0
"""Largest onset strength, as a share of its root mean square."""

MAX_BEAT_REACH_FRAMES = 5
"""Frames from a tracked beat within which its onset is sought."""

CHROMA_FFT_SAMPLES, CHROMA_HOP_SAMPLES = 8192, 2048
"""Length of the spectra of which the chroma is taken (2.7 Hz a bin), and the distance between them."""

MAX_MEASURED_SECONDS = 120.0
"""Seconds of a sound, from its beginning, that are measured."""

MIN_LEVEL = 1e-4
"""Peak of the quietest sound that isn't silent (-80 dBFS)."""

MIN_TEMPO_SECONDS = 1.0
MIN_KEY_SECONDS = 0.25
"""Length of the shortest sounds of which tempo and key are measured."""

MIN_BEATS = 4
"""Fewest beats of a tempo."""

MIN_TEMPO_BPM, MAX_TEMPO_BPM = 40.0, 220.0
"""Range of measured tempos."""

MIN_PULSE_CLARITY = 0.35
"""Least autocorrelation of the onset strength at the period of a beat, 0 to 1; noise has less."""

OFFBEAT_SHARE = 0.85
"""Onset strength between the beats, as a share of that on them, from which on the tempo is taken for its double."""

MAX_DOUBLED_BPM = 190.0
"""Highest tempo that equal onsets between the beats are taken for."""

EMPTY_BEAT_SHARE = 0.1
"""Onset strength of every second beat, as a share of the others', below which the tempo is taken for its half."""

MIN_KEY_CORRELATION = 0.55
"""Least correlation of a sound's chroma with a key's profile."""

MIN_CHROMA_CONTRAST = 0.2
"""Least deviation of the chroma, as a share of its mean; noise has less."""

MIN_DOWNBEAT_ACCENT = 1.15
"""Least level of the strongest beat of the bar, as a share of the next one's."""

MAX_DOWNBEAT_HZ = 200.0
"""Upper edge of the low frequencies of a downbeat: bass drum and bass."""

MAX_TEMPO_ERROR = 0.1
"""Relative deviation of a tempo at which its fit is 0."""

OCTAVE_FIT = 0.9
"""Fit of a tempo that is exactly the double or the half of what was asked: the beat is counted differently."""

PROFILES: Mapping[str, tuple[float, ...]] = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
"""Weights of the twelve degrees from the tonic on (Krumhansl and Kessler, 1982)."""

MODE_PROFILES: Mapping[str, tuple[str, tuple[tuple[int, int], ...]]] = {
    "major": ("major", ()),
    "ionian": ("major", ()),
    "lydian": ("major", ((5, 6),)),
    "mixolydian": ("major", ((10, 11),)),
    "minor": ("minor", ()),
    "aeolian": ("minor", ()),
    "dorian": ("minor", ((8, 9),)),
    "phrygian": ("minor", ((1, 2),)),
    "locrian": ("minor", ((1, 2), (6, 7))),
}
"""Profile of each mode: that of major or minor, in which the degrees that differ exchange their weights."""


@dataclass(frozen=True)
class Measurement:
    """Tempo, key and downbeat as measured in a sound.

    Attributes:
        tempo: Beats per minute; None if it has no regular pulse.
        key: Name of a major or minor key; empty if it has none.
        downbeat: Seconds from the beginning to the first beat of a bar; None if no beat is stronger than the others.
        reasons: Why a value is missing, by its name.
        chroma: Mean energy of the twelve pitch classes from C on, largest 1; empty without a key.
    """

    tempo: float | None = None
    key: str = ""
    downbeat: float | None = None
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    chroma: tuple[float, ...] = ()

    @property
    def values(self) -> dict[str, float | str]:
        """The measured values by name, without the missing ones."""
        named = {"tempo": self.tempo, "key": self.key or None, "downbeat": self.downbeat}
        return {name: value for name, value in named.items() if value is not None}


class _Unmeasurable(Exception):
    """A value can't be measured; the message says why."""


def prepare() -> None:
    """Import librosa and compile what `measure` uses, unless it was done before.

    Raises:
        ImportError: librosa can't be imported.
    """
    pulses = np.zeros(4 * ANALYSIS_RATE_HZ, dtype=np.float32)
    pulses[:: ANALYSIS_RATE_HZ // 2] = 1.0
    _track_beats(_onset_strength(pulses))
    _mean_chroma(pulses[:ANALYSIS_RATE_HZ])


def measure(clip: Clip, beats_per_bar: float = 4.0) -> Measurement:
    """Measure tempo, key and downbeat of a sound. Values that it doesn't have are missing, with the reason.

    Args:
        clip: The sound.
        beats_per_bar: Beats of a bar, for the downbeat; without a downbeat if it isn't a whole number.
    """
    try:
        return _measure(_analysed_samples(clip), beats_per_bar)
    except _Unmeasurable as reason:
        return _nothing(str(reason))
    except Exception as error:  # the sound is good even where its measurement fails
        log.exception("a sound can't be measured")
        return _nothing(f"the measurement failed: {error}")


def score_fit(measurement: Measurement, bpm: float | None, key: MusicalKey | None) -> float:
    """Return how closely a sound keeps to a tempo and a key, 0 to 1: the mean of the fits of those that were asked."""
    fits: list[float] = []
    if bpm is not None:
        fits.append(0.0 if measurement.tempo is None else tempo_fit(measurement.tempo, bpm))
    if key is not None:
        fits.append(key_fit(measurement.chroma, key))
    return sum(fits) / len(fits) if fits else 0.0


def tempo_fit(tempo: float, bpm: float) -> float:
    """Return how closely a tempo keeps to another, 0 to 1. Double and half tempo count for `OCTAVE_FIT`.

    >>> tempo_fit(120.0, 120.0), tempo_fit(60.0, 120.0), tempo_fit(90.0, 120.0)
    (1.0, 0.9, 0.0)
    """

    def closeness(other: float) -> float:
        return max(0.0, 1.0 - abs(tempo / other - 1.0) / MAX_TEMPO_ERROR)

    return max(closeness(bpm), OCTAVE_FIT * closeness(2 * bpm), OCTAVE_FIT * closeness(bpm / 2))


def key_fit(chroma: tuple[float, ...], key: MusicalKey) -> float:
    """Return the correlation of a chroma with the profile of a key, 0 to 1; 0 without a chroma."""
    if not chroma:
        return 0.0
    return max(0.0, _correlation(np.array(chroma), np.roll(mode_profile(key.mode), key.pitch_class)))


def mode_profile(mode: str) -> NDArray[np.float64]:
    """Return the weights of the twelve degrees of a mode, from the tonic on."""
    name, exchanges = MODE_PROFILES[mode]
    profile = np.array(PROFILES[name])
    for one, other in exchanges:
        profile[[one, other]] = profile[[other, one]]
    return profile


def _nothing(reason: str) -> Measurement:
    return Measurement(reasons=dict.fromkeys(("tempo", "key", "downbeat"), reason))


def _analysed_samples(clip: Clip) -> NDArray[np.float32]:
    """Return the beginning of a sound in mono at `ANALYSIS_RATE_HZ`."""
    beginning = clip.with_samples(clip.samples[: int(MAX_MEASURED_SECONDS * clip.rate)])
    if not beginning.samples.size or float(np.abs(beginning.samples).max()) < MIN_LEVEL:
        raise _Unmeasurable("the sound is silent")
    mono = clip.with_samples(mix_to_mono(beginning.samples, find_polarities(beginning.samples))[:, None])
    resampled = resample(mono, RenderSettings(rate=SampleRate(ANALYSIS_RATE_HZ))).samples[:, 0]
    peak = float(np.abs(resampled).max()) if resampled.size else 0.0
    if peak < MIN_LEVEL:
        raise _Unmeasurable("the sound is silent")
    return np.ascontiguousarray(resampled / peak, dtype=np.float32)


def _measure(samples: NDArray[np.float32], beats_per_bar: float) -> Measurement:
    reasons: dict[str, str] = {}
    tempo = downbeat = None
    key, chroma = "", ()
    try:
        beats = _measure_beats(samples)
        tempo = round(beats.tempo, 2)
        downbeat = round(_find_downbeat(samples, beats, beats_per_bar), 4)
    except _Unmeasurable as reason:
        reasons["downbeat"] = str(reason)
        if tempo is None:
            reasons["tempo"] = str(reason)
    try:
        key, chroma = _measure_key(samples)
    except _Unmeasurable as reason:
        reasons["key"] = str(reason)
    return Measurement(tempo=tempo, key=key, downbeat=downbeat, reasons=reasons, chroma=chroma)


@dataclass(frozen=True)
class _Beats:
    """A regular pulse: beats at `first + n * period`, both in frames of the onset strength."""

    first: float
    period: float
    count: int

    @property
    def tempo(self) -> float:
        return 60.0 * ANALYSIS_RATE_HZ / HOP_SAMPLES / self.period

    def sample(self, number: int) -> int:
        """Return the sample at which a beat begins; negative before the sound."""
        frame = self.first + number * self.period - LEAD_FRAMES - ONSET_DELAY_FRAMES
        return round(frame * HOP_SAMPLES)

    @property
    def frames(self) -> NDArray[np.int64]:
        return np.round(self.first + self.period * np.arange(self.count)).astype(np.int64)


def _onset_strength(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the onset strength of a sound, from `LEAD_FRAMES` before its beginning on."""
    import librosa

    lead = np.zeros(HOP_SAMPLES * LEAD_FRAMES, dtype=np.float32)
    strength: Any = librosa.onset.onset_strength(
        y=np.concatenate([lead, samples]),
        sr=ANALYSIS_RATE_HZ,
        hop_length=HOP_SAMPLES,
        n_fft=FFT_SAMPLES,
        n_mels=MEL_BANDS,
    )
    return np.asarray(strength, dtype=np.float64)


def _track_beats(onsets: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the frames of the beats that librosa tracks."""
    import librosa

    _, frames = librosa.beat.beat_track(
        onset_envelope=onsets.astype(np.float32),
        sr=ANALYSIS_RATE_HZ,
        hop_length=HOP_SAMPLES,
        trim=False,
        units="frames",
    )
    return np.asarray(frames, dtype=np.int64)


def _measure_beats(samples: NDArray[np.float32]) -> _Beats:
    if len(samples) < MIN_TEMPO_SECONDS * ANALYSIS_RATE_HZ:
        raise _Unmeasurable(f"the sound is shorter than {MIN_TEMPO_SECONDS:g} s")
    onsets = _onset_strength(samples)
    # one cymbal must not outweigh all beats
    onsets = np.minimum(onsets, MAX_ONSET_SHARE * math.sqrt(float(np.mean(onsets**2))))
    if float(onsets.max()) <= 0.0:
        raise _Unmeasurable("the sound has no onsets")
    tracked = _track_beats(onsets)
    if len(tracked) < MIN_BEATS:
        raise _Unmeasurable(f"the sound has fewer than {MIN_BEATS} beats")
    beats = _count_octave(_fit_line(onsets, tracked), onsets)
    if not MIN_TEMPO_BPM <= beats.tempo <= MAX_TEMPO_BPM or _pulse_clarity(onsets, beats.period) < MIN_PULSE_CLARITY:
        raise _Unmeasurable("the sound has no regular pulse")
    return beats


def _fit_line(onsets: NDArray[np.float64], tracked: NDArray[np.int64]) -> _Beats:
    """Fit a regular pulse to tracked beats, each weighted by the onset near it."""
    spacing = float(np.median(np.diff(tracked)))
    numbers = np.round((tracked - tracked[0]) / spacing)
    reach = max(1, min(MAX_BEAT_REACH_FRAMES, int(spacing / 6)))
    positions = np.array([_peak_near(onsets, int(frame), reach) for frame in tracked])
    weights = np.sqrt(_strength_at(onsets, tracked, reach)) + 1e-6
    period, first = np.polyfit(numbers, positions, 1, w=weights)
    return _Beats(float(first), float(period), int(numbers[-1]) + 1)


def _peak_near(onsets: NDArray[np.float64], frame: int, reach: int) -> float:
    """Return the position of the largest onset near a frame, between frames by a parabola through three of them."""
    low = max(0, frame - reach)
    peak = low + int(np.argmax(onsets[low : frame + reach + 1]))
    if not 0 < peak < len(onsets) - 1 or onsets[peak] <= 0.0:
        return float(frame)
    before, here, after = onsets[peak - 1 : peak + 2]
    curvature = before - 2 * here + after
    return peak + (0.0 if curvature >= 0 else float(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5)))


def _strength_at(onsets: NDArray[np.float64], frames: NDArray[Any], reach: int) -> NDArray[np.float64]:
    """Return the largest onset within `reach` frames of each frame; 0 outside the sound."""
    padded = np.pad(onsets, reach + 1)
    centres = np.clip(np.round(frames).astype(np.int64) + reach + 1, 0, len(padded) - 1)
    offsets = np.arange(-reach, reach + 1)
    return padded[np.clip(centres[:, None] + offsets, 0, len(padded) - 1)].max(axis=1)


def _count_octave(beats: _Beats, onsets: NDArray[np.float64]) -> _Beats:
    """Double the tempo if the onsets between the beats are as strong, or halve it if every second beat has none."""
    reach = 2
    on_beats = _strength_at(onsets, beats.frames, reach)
    between = _strength_at(onsets, beats.frames[:-1] + beats.period / 2, reach)
    if between.mean() >= OFFBEAT_SHARE * on_beats.mean() and 2 * beats.tempo <= MAX_DOUBLED_BPM:
        return _Beats(beats.first, beats.period / 2, 2 * beats.count - 1)
    even, odd = float(on_beats[::2].mean()), float(on_beats[1::2].mean())
    if min(even, odd) < EMPTY_BEAT_SHARE * max(even, odd) and beats.tempo / 2 >= MIN_TEMPO_BPM:
        first = beats.first if even >= odd else beats.first + beats.period
        return _Beats(first, 2 * beats.period, (beats.count + (1 if even >= odd else 0)) // 2)
    return beats


def _pulse_clarity(onsets: NDArray[np.float64], period: float) -> float:
    """Return the autocorrelation of the onset strength at a period in frames, 0 to 1."""
    varying = onsets - onsets.mean()
    lag = round(period)
    energy = float(varying @ varying)
    near = [float(varying[:-one] @ varying[one:]) for one in range(max(1, lag - 1), lag + 2) if one < len(varying)]
    share = len(varying) / max(1, len(varying) - lag)
    return max(near, default=0.0) * share / max(energy, 1e-12)


def _find_downbeat(samples: NDArray[np.float32], beats: _Beats, beats_per_bar: float) -> float:
    """Return the seconds to the first beat of a bar."""
    per_bar = round(beats_per_bar)
    if per_bar != beats_per_bar:
        raise _Unmeasurable(f"a bar of {beats_per_bar:g} beats has no beat on each downbeat")
    if beats.count < max(2, per_bar):
        raise _Unmeasurable("the sound is shorter than a bar")
    strengths = np.array([_accent(samples, beats, number) for number in range(beats.count)])
    by_place = np.array([strengths[place::per_bar].mean(axis=0) for place in range(per_bar)])
    accents = (by_place / np.maximum(by_place.mean(axis=0), 1e-12)).sum(axis=1)
    place = int(np.argmax(accents))
    others = np.delete(accents, place)
    if others.size and accents[place] < MIN_DOWNBEAT_ACCENT * float(others.max()):
        raise _Unmeasurable("no beat of the bar is stronger than the others")
    return max(0, beats.sample(place)) / ANALYSIS_RATE_HZ


def _accent(samples: NDArray[np.float32], beats: _Beats, number: int) -> tuple[float, float]:
    """Return the level of a beat's beginning, of its low frequencies and of all."""
    first = max(0, beats.sample(number))
    length = int(min(ACCENT_SECONDS * ANALYSIS_RATE_HZ, beats.period * HOP_SAMPLES / 2))
    spectrum = np.abs(np.fft.rfft(samples[first : first + length], n=length))
    low = int(MAX_DOWNBEAT_HZ * length / ANALYSIS_RATE_HZ) + 1
    return float(np.sqrt((spectrum[:low] ** 2).sum())), float(np.sqrt((spectrum**2).sum()))


def _measure_key(samples: NDArray[np.float32]) -> tuple[str, tuple[float, ...]]:
    """Return the name of the key and the chroma."""
    if len(samples) < MIN_KEY_SECONDS * ANALYSIS_RATE_HZ:
        raise _Unmeasurable(f"the sound is shorter than {MIN_KEY_SECONDS:g} s")
    chroma = _mean_chroma(samples)
    if float(chroma.std()) < MIN_CHROMA_CONTRAST * float(chroma.mean()):
        raise _Unmeasurable("the sound has no pitches that stand out")
    correlations = {
        (pitch_class, mode): _correlation(chroma, np.roll(profile, pitch_class))
        for mode, profile in PROFILES.items()
        for pitch_class in range(12)
    }
    pitch_class, mode = max(correlations, key=correlations.__getitem__)
    if correlations[pitch_class, mode] < MIN_KEY_CORRELATION:
        raise _Unmeasurable("the sound's pitches belong to no major or minor key")
    return key_name(pitch_class, mode), tuple(round(float(value), 4) for value in chroma)


def _mean_chroma(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean magnitude of the twelve pitch classes, from C on; largest 1, or all 0."""
    import librosa

    padded = np.pad(samples, max(0, 2 * CHROMA_FFT_SAMPLES - len(samples)) // 2 + 1)
    spectrum = np.abs(librosa.stft(padded, n_fft=CHROMA_FFT_SAMPLES, hop_length=CHROMA_HOP_SAMPLES))
    pitches, magnitudes = librosa.piptrack(S=spectrum, sr=ANALYSIS_RATE_HZ, n_fft=CHROMA_FFT_SAMPLES)
    voiced = pitches > 0
    # the deviation of the tuning from A = 440 Hz, as a share of a semitone, of the stronger half of the pitches
    strong = voiced & (magnitudes >= (np.median(magnitudes[voiced]) if voiced.any() else 0.0))
    tuning: Any = librosa.pitch_tuning(pitches[strong]) if strong.any() else 0.0
    chroma: Any = librosa.feature.chroma_stft(
        S=spectrum, sr=ANALYSIS_RATE_HZ, n_fft=CHROMA_FFT_SAMPLES, tuning=float(tuning), norm=None
    )
    mean = np.asarray(chroma, dtype=np.float64).mean(axis=1)
    return mean / max(float(mean.max()), 1e-12)


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.corrcoef(one, other)[0, 1]) if float(one.std()) > 0.0 else 0.0

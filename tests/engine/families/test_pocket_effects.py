import numpy as np
import pytest
import torch

from timbred.engine.codecs.bands import HOP, Frames, analyse, loudest_level, synthesise
from timbred.engine.families.pocket_effects import EFFECTS, Audio, apply_effects, change_frames
from timbred.models.pocket import EFFECT_NAMES, SAMPLE_RATE
from training.pocket import effects as words


def _tone(seconds: float, hertz: float = 440.0, end: float | None = None) -> Audio:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = 0.3 * np.sin(2 * np.pi * hertz * time) * (time < (seconds if end is None else end))
    return np.stack((tone, tone)).astype(np.float32)


def _level(audio: Audio, first: float, last: float) -> float:
    return float(np.sqrt(np.mean(audio[:, round(first * SAMPLE_RATE) : round(last * SAMPLE_RATE)] ** 2)) + 1e-9)


def _share_above(audio: Audio, hertz: float) -> float:
    power = np.abs(np.fft.rfft(audio.mean(0))) ** 2
    return float(power[np.fft.rfftfreq(audio.shape[1], 1 / SAMPLE_RATE) > hertz].sum() / power.sum())


def test_effects_have_names_and_words() -> None:
    assert tuple(EFFECTS) == EFFECT_NAMES == tuple(words.EFFECTS)


@pytest.mark.parametrize("name", EFFECT_NAMES)
def test_effects_keep_length_and_are_repeatable(name: str) -> None:
    audio = _tone(0.9, end=0.4) + np.random.default_rng(0).normal(0, 0.05, (2, round(0.9 * SAMPLE_RATE)))
    audio = audio.astype(np.float32)
    changed = apply_effects(audio, (name,), 5)
    assert changed.shape == audio.shape
    assert bool(np.isfinite(changed).all())
    assert (changed == apply_effects(audio, (name,), 5)).all()
    assert not np.allclose(changed, audio, atol=1e-3)


@pytest.mark.parametrize("name", ["reverb", "delay"])
def test_effects_reverb_and_delay_sound_after_the_end(name: str) -> None:
    audio = _tone(1.5, end=0.3)
    assert _level(apply_effects(audio, (name,), 2), 0.45, 1.2) > 0.01 > _level(audio, 0.45, 1.2)


def test_effects_filter_the_treble() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (2, SAMPLE_RATE)).astype(np.float32)
    shares = {name: _share_above(apply_effects(noise, (name,), 3), 4000) for name in ("dark", "muffled", "bright")}
    assert shares["muffled"] < shares["dark"] < 0.1 < _share_above(noise, 4000) < shares["bright"]


def test_effects_backwards_ends_with_the_attack() -> None:
    audio = _tone(1.0) * np.exp(-6 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    changed = apply_effects(audio, ("backwards",), 1)
    assert _level(changed, 0.0, 0.1) < 0.2 * _level(changed, 0.6, 0.75)


def test_change_frames_keeps_pitch_and_level() -> None:
    frames = analyse(torch.from_numpy(_tone(1.0)))
    changed = change_frames(frames, ("reverb",), 4)
    assert changed.energy.shape == frames.energy.shape
    assert loudest_level(changed.energy) == pytest.approx(loudest_level(frames.energy), abs=0.1)
    sound = synthesise(changed, SAMPLE_RATE).mean(0).numpy()
    assert np.abs(np.fft.rfft(sound)).argmax() == pytest.approx(440, abs=2)


def test_change_frames_of_a_circle_sound_on_over_its_seam() -> None:
    audio = _tone(1.0)
    audio[:, : round(0.8 * SAMPLE_RATE)] = 0.0
    frames = analyse(torch.from_numpy(audio))
    first = slice(0, round(0.1 * SAMPLE_RATE) // HOP)
    levels = [loudest_level(change_frames(frames, ("reverb",), 4, circle).energy[first]) for circle in (False, True)]
    assert levels[1] > levels[0] + 20


def test_frames_changed_has_a_share_of_a_difference() -> None:
    frames = analyse(torch.from_numpy(_tone(0.2)))
    louder = Frames(frames.energy + 6.0, frames.offset, frames.tonality, frames.balance, frames.width)
    assert torch.allclose(frames.changed(louder, frames, 0.5).energy, frames.energy + 3.0)
    assert torch.allclose(louder.changed(frames, louder).energy, frames.energy)
    lowest = louder.changed(frames, Frames(frames.energy + 500.0, *list(vars(frames).values())[1:]))
    assert float(lowest.energy.min()) == float(frames.energy.min()) == pytest.approx(-96.0, abs=0.01)


@pytest.mark.parametrize("name", ["tremolo", "chorus"])
def test_effects_repeat_with_a_circle(name: str) -> None:
    audio = _tone(3.0)
    once, again = np.split(apply_effects(audio, (name,), 3, 1.5), 2, axis=1)
    settled = slice(round(0.1 * SAMPLE_RATE), None)  # the copies of the chorus begin late
    assert np.allclose(once[:, settled], again[:, settled], atol=2e-3)
    once, again = np.split(apply_effects(audio, (name,), 3), 2, axis=1)
    assert not np.allclose(once[:, settled], again[:, settled], atol=2e-2)

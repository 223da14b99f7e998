"""Flows in the mixer alone: each segment is replaced on its frame, and repeats itself when none follows."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.player.test_mixer import NOW, RATE, in_blocks, largest_step, mixer, noise, sine, start
from timbred.audio import Samples
from timbred.ipc.player_messages import Handover, Moment
from timbred.player.beat_grid import BeatGrid
from timbred.player.mixer.mixer import Mixer
from timbred.player.mixer.voice import EndVoice, StartVoice, VoiceFinished, VoiceStarted, VoiceStopped

FRAMES = 12_000
OVERLAP = 2_400
HANDOVER = Handover(overlap=OVERLAP / RATE)


def piece(samples: Samples, play: int = 1, voice: int = 1, handover: Handover = HANDOVER, **keys: Any) -> StartVoice:
    return start(samples, play=play, voice=voice, handover=handover, **keys)


def began(subject: Mixer) -> list[tuple[int, int, bool]]:
    return [(one.play, one.frame, one.repeated) for one in subject.take_events() if isinstance(one, VoiceStarted)]


@given(st.lists(st.integers(8, 700), min_size=1, max_size=5))
@settings(deadline=None, max_examples=15)
def test_mixer_crossfades_segments_on_their_frame(sizes: list[int]):
    subject = mixer()
    sounds = [noise(FRAMES, seed=seed) for seed in range(3)]
    subject.play(piece(sounds[0]), NOW)
    subject.follow_up(piece(sounds[1], play=2))
    out = in_blocks(subject, 10_000, sizes)
    subject.follow_up(piece(sounds[2], play=3))
    out = np.concatenate((out, in_blocks(subject, 20_000, sizes)))
    step = FRAMES - OVERLAP
    assert np.array_equal(out[:step], sounds[0][:step])
    assert np.array_equal(out[FRAMES : 2 * step], sounds[1][OVERLAP:step])
    assert np.array_equal(out[FRAMES + step : 3 * step], sounds[2][OVERLAP:step])
    happened = subject.take_events()
    assert [(one.play, one.frame) for one in happened if isinstance(one, VoiceStarted)][:3] == [
        (1, 0),
        (2, step),
        (3, 2 * step),
    ]
    overs = [one for one in happened if isinstance(one, VoiceFinished)]
    assert overs == [VoiceFinished(1, FRAMES, "replaced"), VoiceFinished(2, FRAMES + step, "replaced")]


def test_mixer_repeats_a_segment_without_a_successor_and_is_never_silent():
    subject, sound = mixer(), sine(FRAMES, hertz=440)
    subject.play(piece(sound), NOW)
    out = subject.render(100_000)
    step = FRAMES - OVERLAP
    assert began(subject) == [(1, number * step, number > 0) for number in range(11)]
    assert largest_step(out) <= 1.5 * largest_step(sound)
    loudness = np.sqrt(np.mean(out[: 100_000 // 480 * 480, 0].reshape(-1, 480) ** 2, axis=1))
    assert loudness.min() > 0.05


def test_mixer_starts_the_successor_of_a_repeat_at_its_end():
    subject = mixer()
    subject.play(piece(noise(FRAMES)), NOW)
    subject.render(15_000)
    subject.follow_up(piece(noise(FRAMES, seed=1), play=2))
    subject.render(15_000)
    step = FRAMES - OVERLAP
    happened = subject.take_events()
    assert [one for one in happened if isinstance(one, VoiceFinished)] == [
        VoiceFinished(1, 2 * step + OVERLAP, "replaced")
    ]
    assert [one.play for one in happened if isinstance(one, VoiceStarted)] == [1, 1, 2, 2]


def test_mixer_replaces_a_flow_at_once_and_drops_its_successor():
    subject = mixer()
    subject.play(piece(noise(FRAMES)), NOW)
    subject.follow_up(piece(noise(FRAMES), play=2))
    subject.render(1_000)
    subject.play(piece(noise(FRAMES), play=3, fade=0.01), NOW)
    subject.render(5_000)
    overs = [one for one in subject.take_events() if isinstance(one, VoiceFinished)]
    assert overs == [VoiceFinished(2, 1_000, "replaced"), VoiceFinished(1, 1_480, "replaced")]


def test_mixer_stop_ends_both_segments_of_a_crossfade_and_the_successor_without_a_click():
    subject, sound = mixer(), sine(FRAMES, hertz=440)
    subject.play(piece(sound), NOW)
    subject.follow_up(piece(sound, play=2))
    before = subject.render(FRAMES - OVERLAP + 1_000)
    subject.follow_up(piece(sound, play=3))
    subject.stop(EndVoice(9, 0), NOW)
    out = np.concatenate((before, subject.render(2_000)))
    assert largest_step(out) <= 2 * largest_step(sound)
    assert not out[-1_000:].any()
    happened = subject.take_events()
    assert VoiceStopped(9, (1, 2, 3)) in happened
    assert {one.play: one.reason for one in happened if isinstance(one, VoiceFinished)} == dict.fromkeys(
        (1, 2, 3), "stopped"
    )
    assert not subject.layers
    assert not subject.following


def test_mixer_stop_is_immediate_during_a_long_fade():
    subject = mixer()
    subject.play(start(sine(48_000), loop=True), NOW)
    subject.stop(EndVoice(1, 1, 60.0), NOW)
    subject.render(4_800)
    subject.stop(EndVoice(2, 0), NOW)
    subject.render(480)
    assert not subject.render(100).any()


def test_mixer_never_plays_the_successor_of_a_stopped_flow():
    subject = mixer()
    subject.play(piece(noise(FRAMES)), NOW)
    subject.render(100)
    subject.stop(EndVoice(9, 1), NOW)
    subject.render(100)
    subject.follow_up(piece(noise(FRAMES), play=2))
    assert not subject.render(20_000)[1_000:].any()
    assert VoiceFinished(2, 200, "stopped") in subject.take_events()


def test_mixer_replaces_the_successor_of_a_replaced_flow():
    subject = mixer()
    subject.play(piece(noise(FRAMES)), NOW)
    subject.render(1000)
    subject.play(start(noise(FRAMES), play=2), NOW)
    subject.render(8)
    subject.follow_up(piece(noise(FRAMES), play=3))
    subject.render(FRAMES)
    overs = [(one.play, one.reason) for one in subject.take_events() if isinstance(one, VoiceFinished)]
    assert overs[:2] == [(3, "replaced"), (1, "replaced")]


def test_mixer_changes_segments_of_bars_on_the_grid_and_follows_a_changed_tempo():
    subject = mixer(bpm=240)  # 12,000 frames a beat
    bars = Handover(overlap=0.1, beats=4)
    sound = noise(4 * 12_000 + 4_800)
    subject.play(piece(sound, handover=bars), Moment(kind="number", number=4))
    subject.render(200_000)
    assert [frame for _, frame, _ in began(subject)] == [48_000, 96_000, 144_000, 192_000]
    subject.follow(subject.grid.with_tempo(300, 4, subject.frame))  # faster: the piece is cut on the beat
    subject.render(100_000)
    frames = [frame for _, frame, _ in began(subject)]
    assert frames == [subject.grid.frame_of(beat) for beat in (20, 24)]
    subject.follow(subject.grid.with_tempo(200, 4, subject.frame))  # slower: it doesn't reach, and goes on all the same
    out = subject.render(300_000)
    assert np.abs(out.reshape(-1, 1000, 2)).max(axis=(1, 2)).min() > 0.05


def test_mixer_keeps_gain_pan_and_speed_of_a_flow_between_segments():
    subject = mixer()
    subject.play(piece(np.full((FRAMES, 2), 0.1, np.float32), gain=-6.0), NOW)
    subject.change(1, -20.0, 1.0, None, None)
    subject.follow_up(piece(np.full((FRAMES, 2), 0.1, np.float32), play=2))
    out = subject.render(FRAMES + 100)
    np.testing.assert_allclose(out[-50:], [[0.0, 0.01]] * 50, atol=1e-6)


@pytest.mark.parametrize("speed", [0.05, 0.7, 3.0, 20.0])
def test_mixer_flow_at_any_speed_is_never_silent(speed: float):
    subject = mixer()
    subject.play(piece(noise(FRAMES), speed=speed), NOW)
    out = subject.render(60_000)
    assert np.abs(out.reshape(-1, 1000, 2)).max(axis=(1, 2)).min() > 0.01


def test_mixer_flow_continues_on_the_new_grid_when_the_beat_jumps():
    subject = mixer(bpm=240)
    subject.play(piece(noise(52_800), handover=Handover(overlap=0.1, beats=4)), Moment(kind="number", number=0))
    subject.render(24_000)
    subject.follow(BeatGrid(RATE, 240, frame=subject.frame, beat=1002.0))
    subject.render(100_000)
    assert [frame for _, frame, _ in began(subject)][1:] == [48_000, 96_000]

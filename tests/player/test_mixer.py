"""The mixer alone, without a device: exact samples, exact frames, no step that the sound itself hasn't got."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timbred.audio import Samples
from timbred.errors import BadRequest, Busy
from timbred.ipc.player_messages import Moment
from timbred.player.beat_grid import BeatGrid
from timbred.player.mixer.mixer import DEFAULT_CROSSFADE_S, MAX_LAYERS, MAX_WAITING_COMMANDS, Mixer
from timbred.player.mixer.voice import (
    EndVoice,
    ReadHead,
    StartVoice,
    VoiceFinished,
    VoiceSource,
    VoiceStarted,
    VoiceStopped,
)

RATE = 48_000
NOW = Moment()


def sine(frames: int, channels: int = 2, hertz: float = 440.0, level: float = 0.4) -> Samples:
    wave = level * np.sin(2 * np.pi * hertz * np.arange(frames) / RATE)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def noise(frames: int, channels: int = 2, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).uniform(-0.2, 0.2, (frames, channels)).astype(np.float32)


def mixer(channels: int = 2, limit: bool = False, bpm: float = 120.0) -> Mixer:
    return Mixer(RATE, channels, BeatGrid(RATE, bpm), limit)


def start(
    samples: Samples, play: int = 1, voice: int = 1, loop: bool = False, rate: float = RATE, **keys: Any
) -> StartVoice:
    return StartVoice(play, voice, VoiceSource(samples, rate, loop), **keys)


def beat(number: float) -> Moment:
    return Moment(kind="number", number=number)


def largest_step(samples: Samples) -> float:
    return float(np.abs(np.diff(samples, axis=0)).max())


def in_blocks(subject: Mixer, frames: int, sizes: list[int]) -> Samples:
    blocks: list[Samples] = []
    while sum(map(len, blocks)) < frames:
        blocks.append(subject.render(min(sizes[len(blocks) % len(sizes)], frames - sum(map(len, blocks)))))
    return np.concatenate(blocks)


@given(st.lists(st.integers(8, 700), min_size=1, max_size=5), st.booleans())
@settings(deadline=None, max_examples=15)
def test_mixer_plays_a_sound_unchanged_in_any_blocks(sizes: list[int], limit: bool):
    subject, sound = mixer(limit=limit), noise(3000)
    subject.play(start(sound), NOW)
    out = in_blocks(subject, 4000, sizes)
    received = out[subject.latency :]
    assert np.array_equal(received[:3000], sound)
    assert not received[3000:].any()
    assert subject.take_events() == [
        VoiceStarted(1, subject.latency, BeatGrid(RATE, 120).beat_at(subject.latency)),
        VoiceFinished(1, subject.latency + 3000, "finished"),
    ]


@given(st.integers(1, 3000), st.lists(st.integers(8, 700), min_size=1, max_size=5))
@settings(deadline=None, max_examples=15)
def test_mixer_loops_without_a_gap(length: int, sizes: list[int]):
    subject, sound = mixer(), noise(length)
    subject.play(start(sound, loop=True), NOW)
    out = in_blocks(subject, 7000, sizes)
    assert np.array_equal(out, sound[np.arange(7000) % length])


@given(st.lists(st.integers(0, 8_000), min_size=1, max_size=20, unique=True), st.integers(16, 600))
@settings(deadline=None, max_examples=20)
def test_mixer_starts_on_the_exact_frame(frames: list[int], size: int):
    subject = mixer()
    for number, frame in enumerate(frames):
        impulse = np.ones((1, 2), np.float32) * 0.01
        subject.play(start(impulse, play=number, voice=number + 1), beat(frame / 24_000))
    out = in_blocks(subject, 9_000, [size])
    assert sorted(np.flatnonzero(out[:, 0]).tolist()) == sorted(frames)
    reported = {
        happened.play: happened.frame for happened in subject.take_events() if isinstance(happened, VoiceStarted)
    }
    assert reported == dict(enumerate(frames))


def test_mixer_moves_waiting_starts_with_the_tempo():
    subject = mixer(bpm=120)
    subject.play(start(np.full((1, 2), 0.1, np.float32)), beat(2))
    subject.render(24_000)  # one beat is gone, one is to come
    subject.follow(subject.grid.with_tempo(60, 4, subject.frame))
    subject.render(48_000)
    assert not subject.take_events()
    subject.render(1)
    assert subject.take_events()[0] == VoiceStarted(1, 72_000, 2.0)


@pytest.mark.parametrize("fade", [None, 0.0, 0.005, 0.05])
@pytest.mark.parametrize("moment", [7000, 7013, 7100])
def test_mixer_stop_makes_no_step_larger_than_the_sounds_own(fade: float | None, moment: int):
    subject, sound = mixer(), sine(48_000, hertz=880)
    subject.play(start(sound, loop=True), NOW)
    before = subject.render(moment)
    subject.stop(EndVoice(5, 1, fade), NOW)
    out = np.concatenate((before, subject.render(6000)))
    assert largest_step(out) <= largest_step(sound) * 1.001
    assert not out[-100:].any()
    assert [type(one) for one in subject.take_events()] == [VoiceStarted, VoiceStopped, VoiceFinished]


def test_mixer_replacement_crossfades_with_equal_power():
    subject = mixer()
    old, new = noise(40_000, seed=1), noise(40_000, seed=2)
    subject.play(start(old, play=1), NOW)
    subject.play(start(new, play=2), beat(0.5))
    out = subject.render(20_000)
    length = round(DEFAULT_CROSSFADE_S * RATE)
    inside = out[12_000 : 12_000 + length]
    assert np.sqrt(np.mean(inside**2)) == pytest.approx(np.sqrt(np.mean(old**2)), rel=0.05)
    assert np.array_equal(out[:12_000], old[:12_000])
    assert np.array_equal(out[12_000 + length :], new[length : 20_000 - 12_000])
    assert [one for one in subject.take_events() if isinstance(one, VoiceFinished)] == [
        VoiceFinished(1, 12_000 + length, "replaced")
    ]


@pytest.mark.parametrize("body", [0.0, 0.3])
def test_mixer_keeps_the_attack_of_a_drum_that_replaces_a_sound(body: float):
    """A click of a millisecond, alone or over a louder swell: it comes in at once, while the old sound is faded out."""
    moments = np.arange(24_000) / RATE
    click = 0.25 * np.sin(2 * np.pi * 3_000 * moments) * np.exp(-2_000 * moments)
    swell = body * np.sin(2 * np.pi * 60 * moments) * np.minimum(1, moments / 0.01)
    drum = np.repeat((click + swell)[:, None], 2, axis=1).astype(np.float32)
    subject, old = mixer(), sine(48_000, hertz=220, level=0.1)
    subject.play(start(old, play=1), NOW)
    subject.play(start(drum, play=2), beat(0.5))
    out = subject.render(20_000)
    faded = out[12_000:14_000] - drum[:2_000]
    length = round(DEFAULT_CROSSFADE_S * RATE)
    assert np.abs(faded[:48] - old[12_000:12_048]).max() < 0.002
    assert not np.abs(faded[length:]).max() > 1e-6


def test_mixer_plays_inverted_channels_audibly_on_one_output():
    """Their mean would be silence; other stereo is heard as its mean."""
    wave = sine(4_800, channels=1)[:, 0]
    for right, expected in ((-wave, wave), (wave, wave), (0 * wave, wave / 2)):
        subject = mixer(channels=1)
        subject.play(start(np.stack([wave, right], axis=1)), NOW)
        assert np.allclose(subject.render(4_800)[:, 0], expected, atol=1e-7)


def test_mixer_replaces_a_loop_by_a_loop_without_a_step():
    subject = mixer()
    subject.play(start(sine(24_000, hertz=330), play=1, loop=True), NOW)
    subject.play(start(sine(24_000, hertz=440), play=2, loop=True), beat(0.37))
    out = subject.render(48_000)
    assert largest_step(out) <= 1.5 * largest_step(sine(24_000, hertz=440))


@pytest.mark.parametrize("change", [{"gain": -40.0}, {"pan": 1.0}, {"pan": -0.3, "gain": 3.0}])
def test_mixer_changes_are_gradual(change: dict[str, float]):
    subject, sound = mixer(), sine(48_000)
    subject.play(start(sound, loop=True), NOW)
    before = subject.render(3333)
    assert subject.change(1, change.get("gain"), change.get("pan"), None, None)
    out = np.concatenate((before, subject.render(3000)))
    assert largest_step(out) <= 1.5 * largest_step(sound)
    assert not subject.change(2, -3.0, None, None, None), "voice 2 is silent"


def test_mixer_pan_and_gain_reach_their_targets():
    subject, sound = mixer(), sine(48_000)
    subject.play(start(sound, pan=1.0, gain=-20.0), NOW)
    out = subject.render(1000)
    assert np.abs(out[:, 0]).max() < 1e-7
    np.testing.assert_allclose(out[:, 1], sound[:1000, 1] * 0.1, atol=1e-7)


@given(st.floats(0.25, 4.0))
@settings(deadline=None, max_examples=20)
def test_mixer_speed_changes_the_pitch(speed: float):
    subject = mixer()
    subject.play(start(sine(48_000, hertz=200), speed=speed, loop=True), NOW)
    out = subject.render(24_000)
    expected = 0.4 * np.sin(2 * np.pi * 200 * speed * np.arange(24_000) / RATE)
    np.testing.assert_allclose(out[:, 0], expected, atol=2e-3)


def test_mixer_speed_changes_without_a_step():
    subject, sound = mixer(), sine(48_000, hertz=200)
    subject.play(start(sound, loop=True), NOW)
    before = subject.render(5000)
    subject.change(1, None, None, 2.0, 0.05)
    out = np.concatenate((before, subject.render(10_000)))
    assert largest_step(out) <= 2.01 * largest_step(sound)


@given(
    st.lists(st.integers(1, 700), min_size=1, max_size=6), st.floats(0.1, 8.0), st.floats(0, 2_999), st.booleans(),
    st.integers(1, 800),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_read_head_reads_ahead_what_it_reads_frame_by_frame(
    sizes: list[int], step: float, position: float, loop: bool, ahead: int
):
    sound = VoiceSource(noise(3_000), RATE, loop)
    by_steps, steadily = ReadHead(sound, position), ReadHead(sound, position)
    for size in sizes * 3:
        expected = by_steps.read_at(np.full(size, step))
        got = steadily.read_steadily(size, step, ahead)
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert steadily.at_end == by_steps.at_end
        distance = abs(steadily.position - by_steps.position)
        assert min(distance, sound.frames - distance) < 1e-6


@given(st.lists(st.tuples(st.floats(0.25, 4.0), st.integers(1, 400), st.booleans()), min_size=1, max_size=12))
@settings(deadline=None, max_examples=40)
def test_read_head_drops_what_was_read_ahead_when_step_or_position_changes(moves: list[tuple[float, int, bool]]):
    ramp = np.arange(40_000, dtype=np.float32)[:, None]
    head, place = ReadHead(VoiceSource(ramp, RATE), 1.0), 1.0
    for step, frames, gliding in moves:
        got = head.read_at(np.full(frames, step)) if gliding else head.read_steadily(frames, step, 512)
        np.testing.assert_allclose(got[:, 0], place + step * np.arange(frames), atol=0.01)
        place += step * frames
        assert head.position == pytest.approx(place)


def test_read_head_reads_nothing_of_a_growing_sound_before_it_exists():
    whole = noise(4_000)
    growing = VoiceSource(np.zeros_like(whole), RATE, ready_frames=0)
    growing.add(whole[:1_000])
    head, expected = ReadHead(growing), ReadHead(VoiceSource(whole, RATE))
    for _ in range(9):
        np.testing.assert_array_equal(head.read_steadily(64, 1.5, 512), expected.read_steadily(64, 1.5, 512))
    growing.add(whole[1_000:])
    for _ in range(20):
        got = head.read_steadily(64, 1.5, 512)
        np.testing.assert_allclose(got, expected.read_steadily(64, 1.5, 512), atol=1e-6)


def test_mixer_keeps_the_pitch_of_a_sound_of_another_rate():
    subject = mixer()
    half = sine(48_000, hertz=400)  # at 24 kHz these are 200 Hz
    subject.play(start(half, rate=24_000.0), NOW)
    out = subject.render(24_000)
    expected = 0.4 * np.sin(2 * np.pi * 200 * np.arange(24_000) / RATE)
    np.testing.assert_allclose(out[2:, 0], expected[2:], atol=1e-3)  # before its beginning there is silence


def test_mixer_copies_mono_to_two_channels_and_mixes_stereo_to_one():
    subject, sound = mixer(channels=4), noise(100, channels=1)
    subject.play(start(sound, out=3), NOW)
    out = subject.render(100)
    assert not out[:, :2].any()
    assert np.array_equal(out[:, 2:], np.repeat(sound, 2, axis=1))
    single, both = mixer(channels=1), noise(100)
    single.play(start(both), NOW)
    np.testing.assert_allclose(single.render(100)[:, 0], both.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize(("channels", "out"), [(8, 1), (2, 2), (1, 3)])
def test_mixer_refuses_channels_that_the_device_lacks(channels: int, out: int):
    with pytest.raises(BadRequest, match="channel"):
        mixer().play(start(noise(10, channels), out=out), NOW)


def test_mixer_refuses_a_past_beat_and_continues_the_others():
    subject, sound = mixer(), noise(48_000)
    subject.play(start(sound), NOW)
    subject.render(30_000)
    with pytest.raises(BadRequest, match="beat 1 is past"):
        subject.play(start(noise(10), play=2, voice=2), beat(1))
    assert np.array_equal(subject.render(1000), sound[30_000:31_000])


def test_mixer_stop_of_all_removes_waiting_starts():
    subject = mixer()
    subject.play(start(noise(48_000), play=1), NOW)
    subject.play(start(noise(48_000), play=2, voice=2), beat(1))
    subject.render(100)
    subject.stop(EndVoice(9, 0), NOW)
    subject.render(48_000)
    happened = subject.take_events()
    assert VoiceStopped(9, (1, 2)) in happened
    assert [one.play for one in happened if isinstance(one, VoiceFinished)] == [2, 1]
    assert not subject.layers
    assert not subject.waiting_commands


def test_mixer_refuses_too_many_waiting_starts_as_busy():
    subject = mixer()
    for number in range(MAX_WAITING_COMMANDS):
        subject.play(start(noise(1), play=number), beat(100))
    with pytest.raises(Busy):
        subject.play(start(noise(1)), beat(100))


def test_mixer_bounds_a_flood_of_replacements_without_a_step():
    subject, sound = mixer(), sine(48_000, level=0.05)
    for number in range(200):
        subject.play(start(sound, play=number, loop=True, fade=60.0), NOW)
        subject.render(32)
    subject.render(1000)
    assert len(subject.layers) <= MAX_LAYERS


def test_mixer_plays_64_voices():
    subject, sounds = mixer(), [noise(500, seed=voice) for voice in range(64)]
    for voice, sound in enumerate(sounds):
        subject.play(start(sound, play=voice, voice=voice + 1), beat(0))
    np.testing.assert_allclose(subject.render(500), np.sum(sounds, axis=0), atol=1e-4)


def test_mixer_start_stays_on_the_bar_when_the_beat_count_jumps():
    subject = mixer()
    subject.render(1000)
    subject.play(start(noise(1)), Moment(kind="bar"))
    subject.follow(BeatGrid(RATE, 120, frame=subject.frame, beat=1001.3))
    subject.render(200_000)
    began = subject.take_events()[0]
    assert isinstance(began, VoiceStarted)
    assert began.beat == pytest.approx(1004.0, abs=1e-3)


def test_mixer_gain_is_gradual_and_kept_on_a_new_device():
    subject = mixer()
    subject.play(start(np.full((4000, 2), 0.5, np.float32)), NOW)
    assert subject.render(1000)[-1] == pytest.approx([0.5, 0.5], abs=0.01)
    subject.set_level(-6.0206)
    received = subject.render(1000)
    assert largest_step(received) < 0.01
    assert received[-1] / subject.render(1)[0] == pytest.approx(1.0, abs=0.01)
    quiet = Mixer(RATE, 2, BeatGrid(RATE, 120.0), False, -6.0206)
    quiet.play(start(np.full((4000, 2), 0.5, np.float32)), NOW)
    assert quiet.render(100)[0] == pytest.approx([0.25, 0.25], abs=0.001)


@pytest.mark.parametrize("at", [5_000, 47_990])
@pytest.mark.parametrize("moving", [False, True])
def test_mixer_exchanges_a_sound_without_a_step(at: int, moving: bool):
    subject, sound = mixer(), sine(48_000, hertz=200)
    subject.play(start(sound, loop=True), NOW)
    before = subject.render(at)
    subject.change(1, None, None, 2.0, 0.1 if moving else 0.002)
    during = subject.render(2_000)
    [layer] = subject.layers
    subject.exchange(1, VoiceSource(sine(24_000, hertz=400), RATE / 2, loop=True))
    assert layer.head.sound.frames == 24_000
    out = np.concatenate((before, during, subject.render(20_000)))
    assert largest_step(out) <= 2.05 * largest_step(sound)
    if not moving:
        places = np.arange(-8_000, 0) + int(layer.head.position)
        assert np.array_equal(out[-8_000:], layer.head.sound.samples[places % 24_000]), "each frame as it is"


def test_mixer_stop_removes_waiting_starts_and_not_later_ones():
    subject, bar = mixer(), Moment(kind="bar")
    subject.render(100)
    subject.play(StartVoice(1, 1, VoiceSource(sine(100), RATE)), bar)
    subject.stop(EndVoice(2, 0), NOW)
    subject.play(StartVoice(3, 1, VoiceSource(sine(100), RATE)), bar)
    subject.render(1)
    assert [one for one in subject.take_events() if isinstance(one, VoiceFinished)] == [
        VoiceFinished(1, subject.frame - 1, "stopped")
    ]
    assert [waiting.order.play for waiting in subject.waiting_commands if isinstance(waiting.order, StartVoice)] == [3]

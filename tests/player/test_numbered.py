"""The recording that tells which frame each frame is: whatever breaks the sound is seen, once."""

import numpy as np
import pytest

from benchmarks.numbered import LOOP_FRAMES, find_breaks, numbered_loop
from timbred.audio import Samples


def recorded(damage: str) -> Samples:
    whole = np.tile(numbered_loop(1)[:, 0], 3)
    before, after = whole[:50_000], whole[50_000:]
    return {
        "none": whole,
        "silence": np.concatenate((before, np.zeros(128, np.float32), after)),
        "lost": np.concatenate((before, after[128:])),
        "repeated": np.concatenate((before, before[-128:], after)),
        "softer": np.concatenate((before, after[:1] * np.float32(0.999), after[1:])),
        "not there": np.concatenate((before, after[:3], np.full(1, np.nan, np.float32), after[4:])),
        "twice": np.concatenate((before, after[1:10_000], after[10_001:])),
    }[damage]


@pytest.mark.parametrize(
    ("damage", "places", "tenths", "foreign"),
    [
        ("none", 0, 0, 0),
        ("silence", 1, 1, 128),
        ("lost", 1, 1, 0),
        ("repeated", 1, 1, 0),
        ("softer", 1, 1, 1),
        ("not there", 1, 1, 1),
        ("twice", 2, 2, 0),
    ],
)
def test_numbered_recording_counts_each_fault_once(damage: str, places: int, tenths: int, foreign: int):
    sound = recorded(damage)
    waited = np.concatenate((np.zeros(777, np.float32), sound))
    found = find_breaks(waited)
    assert (len(found.broken_frames), found.broken_tenths, found.foreign_count) == (places, tenths, foreign)
    assert found.frames == len(sound)
    if places:
        assert abs(found.broken_frames[0] - 777 - 50_000) < 5


def test_numbered_frames_are_unique_and_never_silent():
    loop = numbered_loop()
    assert loop.shape == (LOOP_FRAMES, 2)
    assert len(np.unique(loop[:, 0])) == LOOP_FRAMES
    assert loop.all()
    np.testing.assert_array_equal(loop[:, 0], loop[:, 1])


def test_numbered_recording_of_silence_is_all_foreign():
    assert find_breaks(np.zeros(1000, np.float32)).foreign_count == 1000

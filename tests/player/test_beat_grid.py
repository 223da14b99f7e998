"""Beats, frames and moments: pure decisions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.errors import BadRequest
from timbred.ipc.player_messages import Moment
from timbred.player.beat_grid import BeatGrid, StartTime, move_start, read_moment, resolve_moment
from timbred.player.process.devices import DeviceClock

TEMPOS = st.floats(20, 999)
FRAMES = st.integers(0, 10**9)


@given(TEMPOS, FRAMES)
def test_beat_grid_places_a_beat_on_its_frame(bpm: float, frame: int):
    grid = BeatGrid(48_000, bpm)
    assert abs(grid.frame_of(grid.beat_at(frame)) - frame) <= 1


@given(TEMPOS, TEMPOS, FRAMES)
def test_beat_grid_keeps_the_beat_at_which_the_tempo_changes(before: float, after: float, frame: int):
    grid = BeatGrid(48_000, before)
    assert grid.with_tempo(after, 3, frame).beat_at(frame) == grid.beat_at(frame)


@given(TEMPOS, FRAMES, st.sampled_from(["beat", "bar"]))
def test_beat_grid_next_beat_or_bar_is_never_past_and_never_far(bpm: float, frame: int, kind: str):
    grid = BeatGrid(48_000, bpm)
    found = resolve_moment(read_moment(kind), grid, frame)
    assert found is not None
    assert found.beat % found.unit == 0
    assert -1 <= grid.frame_of(found.beat) - frame <= found.unit * grid.frames_per_beat + 1


@given(st.floats(-1000, 1000), st.integers(0, 10**6))
def test_beat_grid_is_kept_when_the_beat_count_jumps(jump: float, frame: int):
    before = BeatGrid(48_000, 120)
    after = BeatGrid(48_000, 120, beat=jump)
    waiting = resolve_moment(Moment(kind="bar"), before, frame)
    assert waiting is not None
    found = move_start(waiting, before, after, frame)
    if abs(jump) >= 0.02:
        assert found.beat % 4 == 0
        assert after.beat_at(frame) - 1e-3 <= found.beat <= after.beat_at(frame) + 8
    assert move_start(StartTime(17.0, 0.0), before, after, frame).beat == 17.0


def test_resolve_moment_of_now_has_no_beat():
    assert resolve_moment(read_moment("now"), BeatGrid(48_000, 120), 10) is None


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "bar 3", ""])
def test_read_moment_refuses_other_values(text: str):
    with pytest.raises(BadRequest, match="at: got"):
        read_moment(text)


@given(st.integers(0, 2**31), st.sampled_from([64, 128, 1024]), st.floats(0, 0.9))
def test_device_clock_learns_from_late_observations(seed: int, block: int, laziness: float):
    chance = np.random.default_rng(seed)
    learned, taken = DeviceClock(48_000), 0
    for number in range(60):
        began = 100 + number * block / 48_000
        taken += block
        learned.observe(taken, began + (laziness * chance.random() if number % 7 else 0.0) * block / 48_000)
    assert learned.is_settled
    moment = 100 + 60 * block / 48_000
    assert learned.frame_at(moment) == pytest.approx(60 * block, abs=0.01)

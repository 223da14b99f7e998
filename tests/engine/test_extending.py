"""A sound continued in windows: what was there stays, lengths are exact, and no join is heard."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.test_equal_to_diffusers import loudened, order
from timbred.engine import checkpoint
from timbred.engine.adapters.extending import JOIN, Window, joined, windows
from timbred.engine.adapters.families import make_resident
from timbred.engine.adapters.latent_diffusion import LatentDiffusion
from timbred.engine.sampling import StoppedByRequest
from timbred.engine.wire import Given, RenderOrder

RATE = 16000


@given(st.integers(1, 5000), st.integers(1, 20000), st.integers(200, 3000))
def test_windows_add_up_and_none_is_too_long(there: int, more: int, longest: int):
    plan = windows(there, there + more, longest)
    assert sum(window.new for window in plan) == more
    so_far = there
    for window in plan:
        assert 1 <= window.known <= so_far
        assert window.known + window.new <= longest
        so_far += window.new


def test_windows_know_as_much_as_there_is_room_for():
    assert windows(1000, 1900, 800) == [Window(400, 400), Window(400, 400), Window(700, 100)]
    assert windows(100, 500, 800) == [Window(100, 400)]


@given(alike=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_join_keeps_the_power(alike: float, seed: int):
    chance = np.random.default_rng(seed)
    old = chance.standard_normal((2, 6000)).astype(np.float32)
    new = chance.standard_normal((2, 6000)).astype(np.float32)
    new[:, :4000] = alike * old[:, -4000:] + np.sqrt(1 - alike**2) * new[:, :4000]
    both = joined(old, new, 4000, 2000)
    assert both.shape == (2, 8000)
    assert np.array_equal(both[:, :4000], old[:, :4000])
    assert np.array_equal(both[:, 6000:], new[:, 4000:])
    assert np.mean(both[:, 4000:6000] ** 2) == pytest.approx(1.0, abs=0.15)


def test_a_join_of_the_same_is_the_same():
    sine = np.sin(np.arange(5000) / 20).astype(np.float32)[None]
    assert np.abs(joined(sine[:, :4000], sine[:, 1000:], 3000, 1600) - sine).max() < 1e-5


@pytest.fixture(scope="module", params=["audioldm2", "audioldm"])
def model(request: pytest.FixtureRequest) -> LatentDiffusion:
    folder: Path = request.getfixturevalue(request.param)
    found = checkpoint.inspect(folder, "tiny", "")
    return loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))


def sound(seconds: float) -> np.ndarray:
    moments = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * 440 * moments)).astype("<f4")


def continuation(seconds: float = 2.0, seeds: tuple[int, ...] = (3,), steps: int = 3) -> RenderOrder:
    """Half a second that is continued to `seconds`, in windows of 0.8."""
    given = Given(samples=sound(0.5).tobytes(), strength=1.0)
    return order(given=given, seconds=seconds, window=0.8, seeds=seeds, steps=steps)


def test_what_was_there_stays_to_the_bit_up_to_the_join(model: LatentDiffusion):
    told: list[int] = []
    made = model.render(continuation(seeds=(3, 4)), told.append, lambda: False).waveforms
    assert made.shape == (2, 2 * RATE)
    kept = round((0.5 - JOIN) * RATE)
    assert np.array_equal(made[0, :kept], sound(0.5)[:kept])
    assert np.array_equal(made[1, :kept], made[0, :kept])
    assert not np.allclose(made[0, RATE:], made[1, RATE:])
    assert told == list(range(1, 13)), "four windows of three steps"


def test_no_join_clicks(model: LatentDiffusion):
    """Nowhere is a step larger than the steps away from the joins."""
    made = model.render(continuation(), lambda _: None, lambda: False).waveforms[0]
    steps = np.abs(np.diff(made))
    plan = windows(RATE // 2, 2 * RATE, round(0.8 * RATE))
    ends = RATE // 2 + np.cumsum([0, *(window.new for window in plan[:-1])])
    for end in ends:
        near = steps[end - round(JOIN * RATE) - 50 : end + 50]
        assert near.max() <= max(steps[: end - round(JOIN * RATE)].max(), steps[end:].max()) * 1.05


def test_it_is_the_same_in_company(model: LatentDiffusion):
    alone = model.render(continuation(), lambda _: None, lambda: False).waveforms
    run, other = model.begin(continuation()), model.begin(order(seconds=0.8 + 160 / RATE, steps=9, seeds=(8,)))
    assert run.shape == other.shape
    while not run.sampling.done:
        model.advance([run] if other.sampling.done else [run, other])
        if run.sampling.done:
            model.go_on(run)
    assert run.step == run.steps == 12
    assert np.abs(model.finish(run).waveforms - alone).max() < 1e-4


@pytest.mark.parametrize("after", [1, 5])
def test_it_can_be_stopped_in_any_window(model: LatentDiffusion, after: int):
    told: list[int] = []
    with pytest.raises(StoppedByRequest):
        model.render(continuation(), told.append, lambda: len(told) >= after)
    assert len(told) == after


def test_a_sound_shorter_than_a_row_can_be_continued(model: LatentDiffusion):
    given = Given(samples=sound(0.5)[:300].tobytes(), strength=1.0)
    made = model.render(order(given=given, seconds=0.3, window=0.8), lambda _: None, lambda: False).waveforms
    assert made.shape == (1, round(0.3 * RATE))
    assert np.isfinite(made).all()

"""A sound continued in windows: lengths are exact, levels stay, and from one window to the next nothing is heard."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.families.test_latent_diffusion import loudened, order
from timbred.engine.codecs.mel import Analysis
from timbred.engine.diffusion.init_audio import RETURNED_OVERLAP_S, Outpainting, OutpaintWindow, plan_windows
from timbred.engine.diffusion.sampler import SamplingStopped
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import InitAudio, RenderOrder
from timbred.models import checkpoint

RATE = 16000
ROW = 640
ANALYSIS = Analysis(RATE, 160, 1024, 8, 0.0, 8000.0)


@given(st.integers(1, 5000), st.integers(1, 20000), st.integers(2, 3000))
def test_plan_windows_adds_up_to_the_length_within_the_limit(there: int, more: int, longest: int):
    plan = plan_windows(there, more, longest)
    assert sum(window.new for window in plan) == more
    so_far = there
    for window in plan:
        assert 1 <= window.known <= so_far
        assert window.new >= 1
        assert window.rows <= longest
        so_far = window.known + window.new
    assert plan[-1].surplus == 0


def test_plan_windows_gives_windows_as_much_context_as_fits():
    assert plan_windows(100, 90, 80) == [OutpaintWindow(40, 30, 10), OutpaintWindow(40, 30, 10), OutpaintWindow(50, 30)]
    assert plan_windows(10, 40, 80) == [OutpaintWindow(10, 40)]


def rows(count: int, takes: int = 2) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float32)[None, None, :, None].expand(takes, 3, count, 4)


def extension(plan: list[OutpaintWindow]) -> Outpainting:
    return Outpainting(rows(plan[0].known), plan, 10 * ROW, 40 * ROW, 4, ANALYSIS)


def test_outpaint_window_begins_with_the_end_of_the_original_and_its_mirror_image():
    under_way = extension([OutpaintWindow(3, 2, 1), OutpaintWindow(2, 5)])
    assert under_way.init_latents[0, 0, :, 0].tolist() == [0, 1, 2, 2, 1, 0]
    under_way.add_window(rows(6), torch.zeros(2, 24, 8))
    assert under_way.init_latents[1, 2, :, 1].tolist() == [3, 4, 4, 3, 3, 4, 4]


def test_outpaint_window_drops_the_spare_part_and_joins_the_rest():
    under_way = extension([OutpaintWindow(3, 2, 1), OutpaintWindow(5, 5)])
    under_way.add_window(rows(6), torch.zeros(2, 24, 8))
    assert under_way.mel is not None
    assert under_way.mel.shape == (2, 20, 8)
    whole = under_way.join_mel(torch.ones(2, 40, 8))
    assert whole.shape == (2, 40, 8)
    curve = whole[0, :, 0]
    assert curve[:10].eq(0).all()
    assert curve[20:].eq(1).all()
    assert curve.diff().max() <= 0.101
    assert under_way.join_mel(torch.ones(1, 40, 8)).shape == (1, 40, 8), "a preview is of the first take"


@pytest.fixture(scope="module", params=["audioldm2", "audioldm"])
def model(request: pytest.FixtureRequest) -> LatentDiffusion:
    folder: Path = request.getfixturevalue(request.param)
    found = checkpoint.inspect(folder, "tiny", "")
    return loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))


def sound(seconds: float, level: float = 0.3) -> np.ndarray:
    moments = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * 440 * moments)).astype("<f4")


def continuation(
    seconds: float = 2.0, seeds: tuple[int, ...] = (3,), steps: int = 3, level: float = 0.3, there: float = 0.7
) -> RenderOrder:
    """Less than a second that is continued to `seconds`, in windows of 0.8."""
    given = InitAudio(samples=sound(there, level).tobytes(), strength=1.0)
    return order(init_audio=given, seconds=seconds, window=0.8, seeds=seeds, steps=steps)


def test_outpainting_begins_before_the_originals_end_and_ends_with_the_whole(model: LatentDiffusion):
    reported: list[int] = []
    sounds = model.render(continuation(seeds=(3, 4)), reported.append, lambda: False)
    known = plan_windows(round(0.7 * RATE) // ROW, 33, 20)[0].known * ROW
    assert sounds.first_frame == round(0.7 * RATE) - min(known, round(RETURNED_OVERLAP_S * RATE))
    assert sounds.mono.shape == (2, 2 * RATE - sounds.first_frame)
    assert np.isfinite(sounds.mono).all()
    assert not np.allclose(sounds.mono[0, RATE:], sounds.mono[1, RATE:])
    assert reported == list(range(1, 13)), "four windows of three steps"


def test_outpainting_is_independent_of_the_level(model: LatentDiffusion):
    loud, quiet = (model.render(continuation(level=level), lambda _: None, lambda: False) for level in (0.4, 0.004))
    assert np.abs(loud.mono).max() > 1e-3
    assert np.allclose(100 * quiet.mono, loud.mono, atol=1e-3)


def test_outpainting_of_an_original_is_independent_of_the_level(model: LatentDiffusion):
    loud, quiet = (
        model.render(
            order(init_audio=InitAudio(samples=sound(0.5, level).tobytes(), strength=0.6)),
            lambda _: None,
            lambda: False,
        )
        for level in (0.4, 0.004)
    )
    assert np.allclose(100 * quiet.mono, loud.mono, atol=1e-3)


def test_outpainting_does_not_lift_silence(model: LatentDiffusion):
    made = model.render(continuation(level=0.0), lambda _: None, lambda: False).mono
    assert np.isfinite(made).all()


def test_outpainting_joins_windows_without_clicks(model: LatentDiffusion):
    """Nowhere does a step stand out of all others: one spectrogram goes through the vocoder."""
    steps = np.abs(np.diff(model.render(continuation(4.0), lambda _: None, lambda: False).mono[0]))
    assert steps.max() <= 2.5 * np.percentile(steps, 99)


def test_outpainting_in_a_batch_equals_it_alone(model: LatentDiffusion):
    alone = model.render(continuation(), lambda _: None, lambda: False).mono
    run, other = model.begin(continuation()), model.begin(order(seconds=0.8, steps=9, seeds=(8,)))
    assert run.shape == other.shape
    while not run.sampler.done:
        model.advance([run] if other.sampler.done else [run, other])
        if run.sampler.done:
            model.begin_next_window(run)
    assert run.step == run.steps == 12
    assert np.abs(model.decode(run).mono - alone).max() < 1e-4


def test_outpainting_preview_has_the_finished_length(model: LatentDiffusion):
    run = model.begin(continuation(seeds=(3, 4)))
    lengths = list[int]()
    while not run.sampler.done:
        model.advance([run])
        early = model.preview(run)
        assert early.mono.shape[0] == 1
        lengths.append(early.first_frame + early.mono.shape[1])
        if run.sampler.done:
            model.begin_next_window(run)
    assert lengths == sorted(lengths)
    assert 0 <= lengths[0] - (round(0.7 * RATE) + 8 * ROW) < 160
    assert lengths[-1] == 2 * RATE


@pytest.mark.parametrize("after", [1, 5])
def test_outpainting_can_be_stopped_in_any_window(model: LatentDiffusion, after: int):
    reported: list[int] = []
    with pytest.raises(SamplingStopped):
        model.render(continuation(), reported.append, lambda: len(reported) >= after)
    assert len(reported) == after


@pytest.mark.parametrize("frames", [1, 300, 640, 900])
def test_outpainting_continues_a_sound_of_about_one_row(model: LatentDiffusion, frames: int):
    given = InitAudio(samples=sound(0.5)[-frames:].tobytes(), strength=1.0)
    sounds = model.render(order(init_audio=given, seconds=0.3, window=0.8), lambda _: None, lambda: False)
    assert 0 <= sounds.first_frame < frames
    assert sounds.mono.shape == (1, round(0.3 * RATE) - sounds.first_frame)
    assert np.isfinite(sounds.mono).all()

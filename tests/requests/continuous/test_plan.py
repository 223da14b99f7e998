"""What the pieces of an endless sound are: their lengths, seeds and mixes. Pure."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.integration.daemons import hollow_checkpoint
from timbred.errors import BadRequest
from timbred.models.checkpoint import read_tensor_inputs
from timbred.models.registry import build, pocket_card
from timbred.protocol.messages import Flow
from timbred.requests.continuous.plan import DEFAULT_CROSSFADE_S, MIN_DEFAULT_SECONDS, UNUSED_KEYS, FlowPlan, mix_so_far
from timbred.requests.resolve import Session
from timbred.storage.paths import AllowedFolders

SESSION = Session(48_000, 120.0, 4.0)


def course(seed: int = 7, began: float = 100.0, mix_before: float = 0.0, **keys: Any) -> FlowPlan:
    words: dict[str, Any] = {"voice": 1, "prompt": "pad", **keys}
    return FlowPlan(Flow(**words), pocket_card(), seed, began, mix_before)


@pytest.mark.parametrize("name", ["prompt_embeds", "latents"])
def test_flow_plan_takes_embeddings_without_latents(tmp_path: Path, name: str):
    entry = build(tmp_path, {"hollow": str(hollow_checkpoint(tmp_path / "hollow"))})["hollow"]
    inputs = read_tensor_inputs(entry.checkpoint(), "hollow", MIN_DEFAULT_SECONDS)
    wanted = {name, *inputs[name].needs}
    tensors = {
        one: np.ones([axis if isinstance(axis, int) else 8 for axis in inputs[one].axes], np.float32) for one in wanted
    }
    save_file(tensors, tmp_path / "given.safetensors")
    plan, allowed = course(embeddings="given.safetensors"), AllowedFolders([tmp_path])
    if name == "latents":
        with pytest.raises(BadRequest, match="all segments of a flow would be the same"):
            plan.check_embeddings(entry, allowed, SESSION)
        return
    files = plan.check_embeddings(entry, allowed, SESSION)
    assert files.embeddings is not None
    assert files.embeddings.path == tmp_path / "given.safetensors"
    assert course().check_embeddings(entry, allowed, SESSION).is_empty


def test_flow_plan_piece_is_as_long_as_the_model_renders_well():
    ordered = course().segment(0, 100.0, SESSION, 44_100)
    assert (ordered.parameters.seconds, ordered.parameters.rate) == (MIN_DEFAULT_SECONDS, 44_100)
    assert (ordered.handover.overlap, ordered.handover.beats) == (DEFAULT_CROSSFADE_S, None)
    assert ordered.duration_s == MIN_DEFAULT_SECONDS - DEFAULT_CROSSFADE_S
    assert (ordered.parameters.to, ordered.parameters.inline, ordered.parameters.priority) == ("none", True, "live")


@given(st.floats(0.1, 5.0), st.floats(0, 60))
def test_flow_plan_crossfade_is_at_most_half_of_a_piece(seconds: float, fade: float):
    ordered = course(seconds=seconds, fade=fade).segment(0, 100.0, SESSION, 48_000)
    assert 0 < ordered.handover.overlap <= max(seconds / 2, 0.02)
    assert ordered.duration_s == pytest.approx(seconds - ordered.handover.overlap)


def test_flow_plan_gives_each_piece_a_seed_except_while_mix_moves():
    still = course(seed=2**31 - 1)
    assert [still.segment(number, 100.0, SESSION, 48_000).parameters.seed for number in range(3)] == [2**31 - 1, 0, 1]
    moving = course(prompt2="bell", mix=1, fade=10)
    seeds = [moving.segment(number, 100.0 + 4 * number, SESSION, 48_000).parameters.seed for number in range(4)]
    assert seeds == [7, 7, 7, 10], "after ten seconds it has arrived"


def test_flow_plan_moves_mix_within_the_given_seconds_from_its_last_value():
    moving = course(prompt2="bell", mix=0.8, fade=10, mix_before=0.2)
    assert [round(moving.mix_at(moment), 3) for moment in (90, 100, 105, 110, 200)] == [0.2, 0.2, 0.5, 0.8, 0.8]
    assert course(prompt2="bell", mix=0.8).mix_at(100.0) == 0.8, "without seconds it is there at once"
    assert course(prompt2="bell").mix_at(100.0) == 0.5
    assert course().mix_at(100.0) == 0.0


def test_mix_so_far_is_where_a_changed_flow_continues():
    before = course(prompt2="bell", mix=1, fade=10)
    again = Flow(voice=1, prompt="pad", prompt2="bell", mix=0)
    back = Flow(voice=1, prompt="bell", prompt2="pad", mix=1)
    other = Flow(voice=1, prompt="drum", prompt2="bell", mix=1)
    assert mix_so_far(again, before, 103.0) == pytest.approx(0.3)
    assert mix_so_far(back, before, 103.0) == pytest.approx(0.7)
    assert mix_so_far(other, before, 103.0) == 0.0
    assert mix_so_far(again, None, 103.0) == 0.0


def test_flow_plan_replaces_pieces_for_anything_except_a_moving_mix():
    before = course()
    assert course(prompt2="bell", mix=1, fade=5).continues(before)
    assert not course(prompt2="bell", mix=1).continues(before)
    assert not course(prompt="bell", prompt2="drum", mix=1, fade=5).continues(before)
    assert not course(prompt2="bell", mix=1, fade=5, gain=-3).continues(before)


def test_flow_plan_piece_of_bars_is_longer_by_its_crossfade():
    ordered = course(bars=2, fade=0.5).segment(0, 100.0, SESSION, 48_000)
    assert (ordered.parameters.seconds, ordered.parameters.bars) == (4.5, None)
    assert (ordered.handover.overlap, ordered.handover.beats, ordered.duration_s) == (0.5, 8.0, 4.0)
    assert course(bars=2, bpm=125).segment(0, 0.0, SESSION, 48_000).handover.beats is None, (
        "another tempo, another grid"
    )
    with pytest.raises(BadRequest, match=r"^bars: 5 bars last 10 s.*10 s there are; ask for fewer"):
        course(bars=5).segment(0, 100.0, SESSION, 48_000)


@pytest.mark.parametrize("key", UNUSED_KEYS)
def test_flow_plan_refuses_keys_of_files_and_variations(key: str):
    values: dict[str, Any] = {"format": "wav", "bits": 16, "channels": 1, "noise": "a", "to": "play", "name": "a"}
    values |= {"folder": "a", "by": "3", "rate": 48_000, "takes": 2}
    with pytest.raises(BadRequest, match=f"^{key}: it does not apply to continuous playback"):
        course(**{key: values.get(key, 1)})

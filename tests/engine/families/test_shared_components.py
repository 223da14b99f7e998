"""Eviction of models, and components that several models share."""

import gc
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import checkpoints
from timbred.engine.device import count_module_bytes
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import SharedComponents
from timbred.engine.memory.device_memory import DeviceMemory, Resident, choose_evicted
from timbred.engine.model_manager import make_resident
from timbred.models import checkpoint

RESIDENTS = st.lists(
    st.builds(Resident, st.uuids().map(str), st.integers(1, 100), st.floats(0, 100), st.booleans()), max_size=8
)


@given(RESIDENTS, st.integers(0, 200), st.integers(0, 400))
def test_choose_evicted_keeps_models_in_use_and_orders_the_rest_by_age(
    residents: list[Resident], needed: int, budget: int
):
    leaving = choose_evicted(residents, needed, budget)
    by_name = {one.name: one for one in residents}
    assert not any(by_name[name].in_use for name in leaving)
    ages = [by_name[name].last_used for name in leaving]
    assert ages == sorted(ages)
    staying = [one for one in residents if one.name not in leaving]
    free = [one for one in staying if not one.in_use]
    assert sum(one.size_bytes for one in staying) + needed <= budget or not free


@given(RESIDENTS, st.integers(0, 200), st.integers(0, 400))
def test_choose_evicted_is_empty_without_need(residents: list[Resident], needed: int, budget: int):
    leaving = choose_evicted(residents, needed, budget)
    if leaving:
        last = next(one for one in residents if one.name == leaving[-1])
        staying = sum(one.size_bytes for one in residents if one.name not in leaving)
        assert staying + last.size_bytes + needed > budget


def resident(folder: Path, shared: SharedComponents) -> LatentDiffusion:
    found = checkpoint.inspect(folder, folder.name, "")
    return make_resident(found, folder.name, torch.device("cpu"), torch.float32, lambda _: None, shared)


def test_shared_components_holds_equal_components_once(audioldm2: Path, tmp_path: Path):
    sibling = Path(shutil.copytree(audioldm2, tmp_path / "sibling"))
    other_unet = checkpoints.audioldm2(tmp_path / "other", seed=1) / "unet"
    shutil.rmtree(sibling / "unet")
    shutil.copytree(other_unet, sibling / "unet")
    shared = SharedComponents()
    one, two = resident(audioldm2, shared), resident(sibling, shared)
    assert one.pipeline.text_encoder_2 is two.pipeline.text_encoder_2
    assert one.pipeline.vae is two.pipeline.vae
    assert one.pipeline.unet is not two.pipeline.unet
    together = sum((one.stages.tensors | two.stages.tensors).values())
    assert together < 0.8 * (one.weight_bytes + two.weight_bytes)


def _load_and_drop(folder: Path, shared: SharedComponents, files: tuple[Path, ...]) -> bool:
    """Load a model that is freed on return, and tell if its decoder was shared meanwhile."""
    model = resident(folder, shared)
    return shared.find("AutoencoderKL", files) is model.pipeline.vae


def test_shared_components_drops_what_no_model_holds(audioldm: Path):
    shared = SharedComponents()
    files = (audioldm / "vae" / "config.json", audioldm / "vae" / "diffusion_pytorch_model.safetensors")
    assert _load_and_drop(audioldm, shared, files)
    gc.collect()
    assert shared.find("AutoencoderKL", files) is None


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_device_memory_load_leaves_running_jobs_unchanged(
    audioldm2: Path, monkeypatch: pytest.MonkeyPatch, precision: torch.dtype
):
    """The libraries can make a precision the whole process's default while they load; it stays as it is."""
    defaults: list[torch.dtype] = []
    plainly = torch.set_default_dtype

    def set_default(kind: torch.dtype) -> None:
        defaults.append(kind)
        plainly(kind)

    monkeypatch.setattr(torch, "set_default_dtype", set_default)
    found = checkpoint.inspect(audioldm2, "tiny", "")
    model = make_resident(found, "tiny", torch.device("cpu"), precision, lambda _: None)
    assert set(defaults) <= {torch.float32}
    full = resident(audioldm2, SharedComponents())
    for part, exactly in zip(model.modules, full.modules, strict=True):
        kept = "wo" if precision is torch.float16 and type(part).__name__ == "T5EncoderModel" else None
        for (name, weight), other in zip(part.named_parameters(), exactly.parameters(), strict=True):
            expected = other if kept in name.split(".") else other.to(precision)
            assert weight.dtype == expected.dtype, name
            assert torch.equal(weight, expected), name
    language = model.pipeline.language_model
    assert language.lm_head.weight is language.transformer.wte.weight


def test_device_memory_forgets_evicted_models_and_counts_loaded_ones_once():
    one, two = torch.nn.Linear(4, 4), torch.nn.Linear(8, 8)
    places = DeviceMemory(torch.device("cpu"), 10**6)
    places.add([one, two])
    places.add([two, one])
    assert places.total_bytes == places.used_bytes == count_module_bytes(one) + count_module_bytes(two)
    assert places.size_bytes(two) == count_module_bytes(two)
    places.drop([one, torch.nn.Linear(2, 2)])
    assert places.total_bytes == count_module_bytes(two)

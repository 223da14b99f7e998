"""LoRA files: listed, converted from others' layouts, and refused with the reason before anything loads them."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.disks import mounted
from tests.loras import denoiser_layers, random_lora
from timbred.errors import BadRequest, UnknownModel, from_foreign
from timbred.models.lora import LoraRegistry, add
from timbred.models.registry import build


@pytest.fixture
def registry(tmp_path: Path, audioldm: Path) -> LoraRegistry:
    return LoraRegistry(tmp_path / "loras", build(tmp_path / "models", {"tiny": str(audioldm)}))


@pytest.fixture
def source(tmp_path: Path, audioldm: Path) -> Path:
    return random_lora(audioldm, tmp_path / "from" / "warm.safetensors")


def test_add_copies_the_file_and_lists_it(registry: LoraRegistry, source: Path) -> None:
    added = add(source, "warm", registry, "tiny", "CC0-1.0")
    assert added.path == registry.folder / "warm.safetensors"
    for name, tensor in load_file(source).items():
        torch.testing.assert_close(load_file(added.path)[name], tensor, rtol=0, atol=0)
    (entry,) = registry.entries()
    assert (entry.name, entry.model, entry.rank, entry.licence, entry.state, entry.remark) == (
        *("warm", "tiny", 2, "CC0-1.0", "available"),
        "",
    )
    assert [path.name for path in registry.folder.iterdir()] == ["warm.safetensors"]


def test_add_finds_the_only_model_that_a_lora_fits(registry: LoraRegistry, source: Path) -> None:
    assert add(source, "warm", registry).facts.model == "tiny"


def test_add_asks_for_the_model_where_several_fit(tmp_path: Path, audioldm: Path, source: Path) -> None:
    models = build(tmp_path / "models", {"tiny": str(audioldm), "other": str(audioldm)})
    with pytest.raises(BadRequest, match=r"fits tiny, other; say which it was made for with --model"):
        add(source, "warm", LoraRegistry(tmp_path / "loras", models))


def test_add_names_an_unknown_model(registry: LoraRegistry, source: Path) -> None:
    with pytest.raises(UnknownModel, match="there is no model 'nothing'"):
        add(source, "warm", registry, "nothing")


def test_add_refuses_a_model_that_uses_none(registry: LoraRegistry, source: Path) -> None:
    with pytest.raises(BadRequest, match=r"pocket can't use LoRAs; name the model that warm was made for"):
        add(source, "warm", registry, "pocket")


def test_add_reads_the_scale_of_pefts_configuration(registry: LoraRegistry, source: Path) -> None:
    tensors = {f"base_model.model.{name}": tensor for name, tensor in load_file(source).items()}
    folder = source.parent / "peft"
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "lora_alpha": 8, "r": 2, "bias": "none", "base_model_name_or_path": "tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert set(add(folder, "plain", registry).facts.scales.values()) == {4.0}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_rslora": True}))
    scales = add(folder, "stabilised", registry).facts.scales
    assert set(scales.values()) == {8 / 2**0.5}
    layer = next(iter(scales))
    (folder / "adapter_config.json").write_text(json.dumps({**config, "alpha_pattern": {layer: 2}}))
    assert add(folder, "pattern", registry).facts.scales[layer] == 1.0


def test_add_reads_diffusers_layout(registry: LoraRegistry, source: Path) -> None:
    tensors = {f"unet.{name}": tensor for name, tensor in load_file(source).items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.r": 2})}
    save_file(tensors, source, metadata)
    assert set(add(source, "warm", registry).facts.scales.values()) == {3.0}


@pytest.mark.parametrize("change", [{"use_dora": True}, {"bias": "all"}, {"peft_type": "LOHA"}, {"lora_alpha": "x"}])
def test_add_refuses_what_is_no_plain_lora(registry: LoraRegistry, source: Path, change: dict[str, object]) -> None:
    (source.parent / "adapter_config.json").write_text(json.dumps(change))
    with pytest.raises(BadRequest, match=r"timbred adds plain LoRAs only|configuration of .* can't be read"):
        add(source, "warm", registry, "tiny")
    assert registry.paths() == {}


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_add_refuses_pickles(registry: LoraRegistry, source: Path, kind: str) -> None:
    if kind == "pickle":
        source.write_bytes(pickle.dumps({"weight": [1.0]}))
    else:
        torch.save({"weight": torch.ones(1)}, source)
    with pytest.raises(BadRequest, match="is a pickle, which can run code"):
        add(source, "warm", registry, "tiny")


def test_add_refuses_a_lora_of_another_model(registry: LoraRegistry, source: Path, audioldm2: Path) -> None:
    random_lora(audioldm2, source)
    with pytest.raises(BadRequest, match=r"lora: warm doesn't fit tiny"):
        add(source, "warm", registry, "tiny")
    with pytest.raises(BadRequest, match=r"fits none of the installed models"):
        add(source, "warm", registry)


def test_add_refuses_wrong_shapes(registry: LoraRegistry, source: Path, audioldm: Path) -> None:
    layer, (outputs, inputs) = next(iter(denoiser_layers(audioldm).items()))
    down, up = torch.ones(2, inputs), torch.ones(outputs, 2)
    for wrong_down, wrong_up, said in (
        (torch.ones(2, inputs + 1), up, "doesn't fit tiny"),
        (down, torch.ones(outputs + 1, 2), "doesn't fit tiny"),
        (down, torch.ones(outputs, 3), "must be the rank"),
        (down[:, :, None, None], up[:, :, None, None], "doesn't fit tiny"),
    ):
        save_file({f"{layer}.lora_A.weight": wrong_down, f"{layer}.lora_B.weight": wrong_up}, source)
        with pytest.raises(BadRequest, match=said):
            add(source, "warm", registry, "tiny")


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_add_refuses_values_that_are_not_finite(
    registry: LoraRegistry, source: Path, kind: torch.dtype, value: float
) -> None:
    tensors = {name: tensor.to(kind) for name, tensor in load_file(source).items()}
    save_file(tensors, source)
    add(source, "fine", registry, "tiny")
    next(iter(tensors.values()))[0, 0] = value
    save_file(tensors, source)
    with pytest.raises(BadRequest, match="not finite numbers"):
        add(source, "warm", registry, "tiny")


def test_add_refuses_other_tensors(registry: LoraRegistry, source: Path) -> None:
    save_file({**load_file(source), "text_encoder.weight": torch.ones(2)}, source)
    with pytest.raises(BadRequest, match=r"it has a tensor 'text_encoder.weight'"):
        add(source, "warm", registry, "tiny")


def test_add_refuses_the_name_of_another_lora(registry: LoraRegistry, source: Path, audioldm: Path) -> None:
    add(source, "warm", registry, "tiny")
    add(source, "warm", registry, "tiny")  # the same again
    random_lora(audioldm, source, seed=2)
    with pytest.raises(BadRequest, match="there is another LoRA warm already"):
        add(source, "warm", registry, "tiny")
    with pytest.raises(BadRequest, match="is the same file as 'warm' on some systems"):
        add(source, "Warm", registry, "tiny")


def test_add_names_a_full_disk_and_leaves_nothing(registry: LoraRegistry, source: Path, audioldm: Path) -> None:
    random_lora(audioldm, source, rank=64)
    registry.folder.mkdir()
    with mounted(registry.folder, "4k"):
        with pytest.raises(OSError, match="No space left") as caught:
            add(source, "warm", registry, "tiny")
        assert str(from_foreign(caught.value)).startswith(f"the disk of {registry.folder / 'warm.safetensors'} is full")
        assert list(registry.folder.iterdir()) == []


@pytest.mark.parametrize("name", ["", "none", "a b", "../up", "a:b", "a#b", "CON"])
def test_add_refuses_names_that_requests_or_files_cannot_have(registry: LoraRegistry, source: Path, name: str) -> None:
    with pytest.raises(BadRequest, match="name"):
        add(source, name, registry, "tiny")


def test_registry_lists_unusable_files_with_their_reason(
    registry: LoraRegistry, source: Path, tmp_path: Path, stable_audio: Path
) -> None:
    assert registry.entries() == []
    add(source, "warm", registry, "tiny")
    (registry.folder / "damaged.safetensors").write_bytes(b"\x10")
    (registry.folder / "foreign.safetensors").write_bytes(source.read_bytes())
    (registry.folder / "notes.txt").write_text("not a LoRA")
    states = {entry.name: (entry.state, entry.remark) for entry in registry.entries()}
    assert states.keys() == {"damaged", "foreign", "warm"}
    assert states["warm"] == ("available", "")
    assert states["damaged"][0] == states["foreign"][0] == "invalid"
    assert "timbred loras pull foreign --from" in states["foreign"][1]
    without = LoraRegistry(registry.folder, build(tmp_path / "models", {}))
    assert {entry.state for entry in without.entries() if entry.name == "warm"} == {"missing"}
    replaced = LoraRegistry(registry.folder, build(tmp_path / "models", {"tiny": str(stable_audio)}))
    (warm,) = [entry for entry in replaced.entries() if entry.name == "warm"]
    assert warm.state == "invalid"
    assert "doesn't fit tiny" in warm.remark


def test_registry_names_all_loras_for_an_unknown_one(registry: LoraRegistry, source: Path) -> None:
    with pytest.raises(BadRequest, match=r"there is no LoRA 'cold'; there are none; add one with"):
        registry.find("cold")
    add(source, "warm", registry, "tiny")
    with pytest.raises(BadRequest, match=r"there is no LoRA 'cold'; there are warm"):
        registry.find("cold")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=12))
def test_lora_damaged_in_any_way_is_refused_with_a_reason(
    registry: LoraRegistry, source: Path, place: int, content: bytes
) -> None:
    original = source.read_bytes()
    damaged = source.with_name("damaged.safetensors")
    damaged.write_bytes(original[:place] + content + original[place + len(content) :])
    try:
        add(damaged, f"d{place}", registry, "tiny")
    except BadRequest as error:
        assert str(error)
    finally:
        for path in registry.paths().values():
            path.unlink()

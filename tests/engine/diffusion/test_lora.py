"""LoRAs in the denoiser: equal to peft's merged weights, each row its own, and no effect on anything else."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft.tuners.lora import LoraLayer

from tests.adapters import adapt, save_peft
from tests.engine.families.test_latent_diffusion import loudened
from timbred.engine.compile.compiled_calls import CALLS_BEFORE_COMPILING, CompileQueue
from timbred.engine.diffusion.denoiser import LoraAdditions, ResidentLora, WeightedLora, load_lora
from timbred.engine.diffusion.denoiser import LoraLayer as Addition
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.errors import ModelError
from timbred.ipc.engine_messages import LoraUse, PromptInputs, RenderOrder
from timbred.models import checkpoint
from timbred.models.lora import LoraRegistry, add
from timbred.models.registry import build

MERGED_TOLERANCE = 1e-4
BATCH_TOLERANCE = 1e-5
CONVOLUTIONS = ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "to_q", "to_out.0", "conv_in"]

Samples = NDArray[np.float32]


def load_model(folder: Path) -> LatentDiffusion:
    found = checkpoint.inspect(folder, "tiny", "")
    model = make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None)
    return loudened(model) if hasattr(model.pipeline, "vocoder") else model


def order(model: LatentDiffusion, **changes: Any) -> RenderOrder:
    plain: dict[str, Any] = {
        "inputs": PromptInputs(prompt="a kick drum"),
        "seconds": 0.4,
        "steps": 3,
        "guidance": 3.0,
        "eta": 0.0,
        "scheduler": model.spec.facts.schedulers[0],
        "seeds": (7,),
    }
    return RenderOrder(**{**plain, **changes})


def render(model: LatentDiffusion, wanted: RenderOrder) -> Samples:
    return model.render(wanted, lambda _: None, lambda: False).waveforms


def render_together(model: LatentDiffusion, orders: Sequence[RenderOrder]) -> list[Samples]:
    generations = [model.begin(wanted) for wanted in orders]
    assert len({generation.shape for generation in generations}) == 1, "they must share a batch"
    while not generations[0].sampler.done:
        model.advance(generations)
    return [model.decode(generation).waveforms for generation in generations]


@pytest.fixture(params=["audioldm2", "audioldm", "stable_audio", "stable_audio_3", "ace_step"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture
def use(tmp_path: Path, folder: Path) -> Callable[..., tuple[LoraUse, Any]]:
    """Return a function that adds a random LoRA, and returns it with a network that peft has added it to."""
    models = build(tmp_path / "models", {"tiny": str(folder)})
    registry = LoraRegistry(tmp_path / "loras", models)

    def make(name: str = "warm", weight: float = 1.0, **kind: Any) -> tuple[LoraUse, Any]:
        network = copy.deepcopy(load_model(folder).denoiser.network)
        config = adapt(network, **kind)
        lora = add(save_peft(network, config, tmp_path / name), name, registry, "tiny")
        return LoraUse(name=name, path=str(lora.path), hash=lora.facts.hash, weight=weight), network

    return make


def merge(network: Any, weight: float) -> Any:
    """Merge the LoRA of a network into its weights, by peft."""
    for module in network.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(weight)
            module.merge()
    return network


def test_lora_equals_pefts_merged_weights(folder: Path, use: Callable[..., tuple[LoraUse, Any]]) -> None:
    model = load_model(folder)
    plain = render(model, order(model))
    for layers, weight in ((["to_q", "to_k", "to_v", "to_out.0"], 0.8), (CONVOLUTIONS, -0.5)):
        lora, network = use(f"lora{len(layers)}", weight, layers=layers)
        made = render(model, order(model, loras=(lora,)))
        reference = load_model(folder)
        reference.denoiser.network = merge(network, weight)
        reference.use_compile_queue(reference.stages.compile_queue)
        expected = render(reference, order(reference))
        np.testing.assert_allclose(made, expected, atol=MERGED_TOLERANCE)
        assert np.abs(made - plain).max() > 10 * MERGED_TOLERANCE, "it must be heard"


def test_lora_requests_of_one_batch_have_their_own(folder: Path, use: Callable[..., tuple[LoraUse, Any]]) -> None:
    model = load_model(folder)
    warm, _ = use("warm", 0.8, seed=1)
    cold, _ = use("cold", -1.2, seed=2, rank=2)
    orders = [
        order(model, loras=(warm,)),
        order(model, loras=(cold,), seeds=(8, 9)),
        order(model, loras=(warm, cold), seeds=(10,)),
        order(model, loras=(warm,), seeds=(11,)),
    ]
    together = render_together(model, orders)
    for wanted, made in zip(orders, together, strict=True):
        alone = render(model, wanted)
        np.testing.assert_allclose(made, alone, atol=BATCH_TOLERANCE)
        assert np.abs(made - render(model, order(model, seeds=wanted.seeds))).max() > 10 * BATCH_TOLERANCE


def test_lora_leaves_requests_without_it_unchanged(folder: Path, use: Callable[..., tuple[LoraUse, Any]]) -> None:
    model = load_model(folder)
    before = render(model, order(model))
    warm, _ = use()
    render(model, order(model, loras=(warm,)))
    np.testing.assert_array_equal(render(model, order(model)), before)
    silent = LoraUse(name=warm.name, path=warm.path, hash=warm.hash, weight=0.0)
    np.testing.assert_array_equal(render(model, order(model, loras=(silent,))), before)


@pytest.mark.parametrize("folder", ["audioldm2"], indirect=True)
def test_lora_is_heard_where_packed_calls_are_ready(
    folder: Path, use: Callable[..., tuple[LoraUse, Any]], tmp_path: Path
) -> None:
    plain, packed = load_model(folder), load_model(folder)
    queue = CompileQueue("auto", torch.device("cpu"), tmp_path / "compiled")
    packed.use_compile_queue(queue)
    for _ in range(CALLS_BEFORE_COMPILING // 3 + 1):
        render(packed, order(packed))
    queue.wait()
    assert queue.counts.packed == 1
    before = render(packed, order(packed))
    warm, _ = use()
    cold, _ = use("cold", seed=2)
    for lora in (warm, cold, warm):
        made = render(packed, order(packed, loras=(lora,)))
        np.testing.assert_allclose(made, render(plain, order(plain, loras=(lora,))), atol=BATCH_TOLERANCE)
        assert np.abs(made - before).max() > 10 * MERGED_TOLERANCE
    np.testing.assert_array_equal(render(packed, order(packed)), before)


def test_lora_requests_dont_share_a_batch_with_requests_without(
    folder: Path, use: Callable[..., tuple[LoraUse, Any]]
) -> None:
    model = load_model(folder)
    warm, _ = use()
    assert model.begin(order(model, loras=(warm,))).shape != model.begin(order(model)).shape


def test_lora_batch_may_be_split(folder: Path, use: Callable[..., tuple[LoraUse, Any]]) -> None:
    model = load_model(folder)
    warm, _ = use("warm", 0.8, seed=1)
    cold, _ = use("cold", -1.2, seed=2)
    orders = [order(model, loras=(warm,)), order(model, loras=(cold,), seeds=(8,))]
    whole = render_together(model, orders)
    called: list[int] = []
    call_plain = model.denoiser.compiled_calls.call_plain

    def run_out_of_memory(*inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs[0]) > 1:
            raise torch.OutOfMemoryError("allocate memory")
        called.append(len(inputs[0]))
        return call_plain(*inputs)

    model.denoiser.compiled_calls.call_plain = run_out_of_memory
    for made, expected in zip(render_together(model, orders), whole, strict=True):
        np.testing.assert_allclose(made, expected, atol=BATCH_TOLERANCE)
    assert called


def test_lora_that_changed_on_disk_is_refused(folder: Path, use: Callable[..., tuple[LoraUse, Any]]) -> None:
    model = load_model(folder)
    warm, _ = use()
    content = bytearray(Path(warm.path).read_bytes())
    content[-1] ^= 1
    Path(warm.path).write_bytes(content)
    with pytest.raises(ModelError, match="has changed on disk"):
        load_lora(warm, model.denoiser.network, torch.device("cpu"), torch.float32)


def test_lora_counts_in_the_models_memory(folder: Path, use: Callable[..., tuple[LoraUse, Any]]) -> None:
    model = load_model(folder)
    before = model.copied_bytes
    warm, _ = use(rank=4)
    render(model, order(model, loras=(warm,)))
    assert model.copied_bytes > before


def test_lora_additions_refuse_layers_that_mix_rows() -> None:
    layer = torch.nn.Linear(4, 4)
    lora = ResidentLora((Addition(layer, torch.ones(1, 4), torch.ones(4, 1), 1.0),))
    with torch.inference_mode(), LoraAdditions([(WeightedLora(lora, 1.0),), ()]):
        layer(torch.ones(2, 4))
        with pytest.raises(ModelError, match="mixes the rows"):
            layer(torch.ones(3, 4))

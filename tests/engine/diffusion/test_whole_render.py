"""Renders whose steps are recorded as one call: equal to single steps, within the memory, and only where they help."""

import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from tests import checkpoints
from tests.engine.families.renders import init_audio, load, stereo_sound, wave_order
from tests.engine.recorded_calls import RecordedCall
from timbred.engine.compile import compiled_calls
from timbred.engine.compile.compiled_calls import CompileQueue
from timbred.engine.diffusion import whole_render
from timbred.engine.diffusion.sampler import DiscreteSampling, FlowSampling, LinearSteps
from timbred.engine.diffusion.whole_render import MAX_WHOLE_STEPS_COUNT, RenderInputs, WholeRenders, run_steps
from timbred.engine.families.base import LatentDiffusion
from timbred.ipc.engine_messages import PromptInputs, RenderOrder, Repaint

CPU = torch.device("cpu")
SAMPLE_TOLERANCE = 1e-5


class RecordingQueue(CompileQueue):
    """A compile queue as on CUDA, on any machine, whose compiler never comes to an end."""

    @property
    def records_graphs(self) -> bool:
        return True

    @property
    def uses_inductor(self) -> bool:
        return True

    def submit(self, task: Callable[[], None], rank: int = 0) -> None: ...


@pytest.fixture(autouse=True)
def recorded_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[RecordedCall]]:
    for module in (whole_render, compiled_calls):
        monkeypatch.setattr(module, "CudaGraphCall", RecordedCall)
    monkeypatch.setattr(RecordedCall, "replays", 0)
    monkeypatch.setattr(RecordedCall, "fails_with", None)
    yield RecordedCall


@pytest.fixture
def model(stable_audio_3: Path) -> LatentDiffusion:
    return recording(load(stable_audio_3))


@pytest.fixture(scope="module")
def plain(stable_audio_3: Path) -> LatentDiffusion:
    return load(stable_audio_3)


def recording(model: LatentDiffusion, **limits: Any) -> LatentDiffusion:
    model.use_compile_queue(RecordingQueue("auto", CPU, None, **limits))
    return model


def order(**changes: Any) -> RenderOrder:
    return wave_order(**{"scheduler": "ping-pong", "guidance": 1.0, "steps": 8, **changes})


def latents(model: LatentDiffusion, wanted: RenderOrder) -> torch.Tensor:
    """Latents after all steps, which are run at once where possible."""
    generation = model.begin(wanted)
    while not generation.sampler.done:
        model.advance([generation], at_once=True)
    return generation.sampler.latents


def assert_equal_latents(model: LatentDiffusion, plain: LatentDiffusion, wanted: RenderOrder) -> None:
    expected = latents(plain, wanted)
    assert expected.abs().max() > 0.1
    assert (latents(model, wanted) - expected).abs().max() < SAMPLE_TOLERANCE


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scheduler": "flow-euler"},
        {"guidance": 4.0, "inputs": PromptInputs(prompt="a bell", negative="hum")},
        {"seeds": (1, 2, 3)},
        {"seeds": (1, 2), "guidance": 2.0, "scheduler": "flow-euler"},
        {"steps": 1},
        {"init_audio": init_audio(stereo_sound(0.4), 0.6)},
        {"init_audio": init_audio(stereo_sound(0.4), 1.0, Repaint(start=0.1, end=0.25, low=0.0, high=96_000.0))},
    ],
    ids=str,
)
def test_whole_render_equals_single_steps(model: LatentDiffusion, plain: LatentDiffusion, changes: dict[str, Any]):
    """Twice: as it is recorded, and with another seed, prompt and scale, which a replay takes as inputs."""
    assert_equal_latents(model, plain, order(**changes))
    other = {key: value + 1.0 if key == "guidance" else value for key, value in changes.items()}
    seeds = tuple(seed + 100 for seed in changes.get("seeds", (7,)))
    inputs = PromptInputs(prompt="rain on a roof", negative="hiss" if "inputs" in changes else "")
    assert_equal_latents(model, plain, order(**{**other, "seeds": seeds, "inputs": inputs}))
    assert RecordedCall.replays == 2
    assert model.whole_renders.ready_count == 1


def test_whole_render_uses_the_generators_as_single_steps_do(model: LatentDiffusion, plain: LatentDiffusion):
    """Also where the last step's noise has no weight."""
    generations = [subject.begin(order(seeds=(3, 4))) for subject in (model, plain)]
    model.advance([generations[0]], at_once=True)
    while not generations[1].sampler.done:
        plain.advance([generations[1]])
    assert generations[0].sampler.done
    for one, other in zip(generations[0].generators, generations[1].generators, strict=True):
        assert torch.equal(one.get_state(), other.get_state())


def test_whole_render_ends_with_a_decodable_generation(model: LatentDiffusion, plain: LatentDiffusion):
    sounds = [subject.render(order(), lambda _: None, lambda: False, at_once=True) for subject in (model, plain)]
    assert np.abs(sounds[0].waveforms - sounds[1].waveforms).max() < 1e-4
    generation = model.begin(order())
    model.advance([generation], at_once=True)
    assert (generation.step, generation.steps) == (8, 8)
    whole = model.decode(generation).waveforms
    assert np.array_equal(model.preview(generation).waveforms, whole)


def test_whole_render_equals_single_steps_at_random(model: LatentDiffusion, plain: LatentDiffusion):
    """Renders of different kinds, replayed in any order, each with its own inputs."""
    chance = random.Random(5)
    for _ in range(8):
        wanted = order(
            seeds=tuple(chance.randrange(1000) for _ in range(chance.randint(1, 2))),
            steps=chance.choice([4, 8]),
            guidance=chance.choice([1.0, 2.0, 5.0]),
            scheduler=chance.choice(["ping-pong", "flow-euler"]),
        )
        assert_equal_latents(model, plain, wanted)
    assert RecordedCall.replays == 8


@pytest.mark.parametrize("changes", [{"steps": MAX_WHOLE_STEPS_COUNT + 1}, {"exact": True}, {"steps": 30}], ids=str)
def test_whole_render_is_not_used_for_long_and_exact_renders(
    model: LatentDiffusion, plain: LatentDiffusion, changes: dict[str, Any]
):
    assert_equal_latents(model, plain, order(**changes))
    assert (RecordedCall.replays, model.whole_renders.ready_count) == (0, 0)


def test_whole_render_is_not_used_after_the_first_step(model: LatentDiffusion):
    generation = model.begin(order())
    model.advance([generation])
    model.advance([generation], at_once=True)
    assert generation.step == 2


def test_whole_render_is_not_used_for_a_batch(model: LatentDiffusion):
    generations = [model.begin(order(seeds=(seed,))) for seed in range(2)]
    model.advance(generations, at_once=True)
    assert [generation.step for generation in generations] == [1, 1]


@pytest.mark.parametrize("family", ["audioldm2", "stable_audio"])
def test_whole_render_is_not_used_for_steps_that_are_no_sums(family: str, request: pytest.FixtureRequest):
    model = recording(load(request.getfixturevalue(family)))
    wanted = wave_order(scheduler=model.spec.facts.schedulers[0], seconds=0.3, steps=2)
    generation = model.begin(wanted)
    model.advance([generation], at_once=True)
    assert generation.step == 1
    assert model.whole_renders.ready_count == 0


@pytest.mark.parametrize("turbo", [True, False])
def test_whole_render_of_ace_step_is_used_without_momentum(tmp_path: Path, turbo: bool):
    """The guidance of its base model remembers earlier steps."""
    folder = checkpoints.ace_step(tmp_path / "ace", turbo=turbo)
    wanted = wave_order(scheduler="flow-euler", seconds=1.0, steps=4, guidance=7.0)
    assert_equal_latents(recording(load(folder)), load(folder), wanted)
    assert RecordedCall.replays == turbo


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted"), torch.OutOfMemoryError("full")], ids=repr)
def test_whole_render_falls_back_to_single_steps_with_one_line(
    model: LatentDiffusion, plain: LatentDiffusion, error: Exception, caplog: pytest.LogCaptureFixture
):
    RecordedCall.fails_with = error
    with caplog.at_level(logging.WARNING):
        for seed in (1, 2, 3):
            assert_equal_latents(model, plain, order(seeds=(seed,)))
    lines = [record.message for record in caplog.records if "step by step" in record.message]
    assert len(lines) == 1
    assert str(error) in lines[0]


def test_whole_render_raises_an_error_of_the_device(model: LatentDiffusion):
    """Single steps would fail too, and the process must end."""
    RecordedCall.fails_with = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        latents(model, order())


def test_whole_render_that_is_not_finite_is_repeated_step_by_step(
    model: LatentDiffusion, plain: LatentDiffusion, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    replay = RecordedCall.__call__

    def overflow(call: RecordedCall, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.full_like(inputs[2], torch.inf) if call.has_own_memory else replay(call, *inputs)

    monkeypatch.setattr(RecordedCall, "__call__", overflow)
    assert_equal_latents(model, plain, order(seeds=(5,)))
    assert "not finite" in caplog.text


def test_whole_renders_are_dropped_by_bytes_the_least_recently_used_first(model: LatentDiffusion):
    queue = model.stages.compile_queue
    for steps in (2, 3):
        latents(model, order(steps=steps))
    assert model.whole_renders.ready_count == 2
    assert model.copied_bytes == queue.copied_bytes == model.whole_renders.ready_bytes > 0
    queue.max_bytes = queue.copied_bytes
    latents(model, order(steps=2))
    latents(model, order(steps=1))
    assert queue.copied_bytes <= queue.max_bytes
    replays, recorded = RecordedCall.replays, model.whole_renders.ready_count
    latents(model, order(steps=2))  # is still there
    assert (RecordedCall.replays, model.whole_renders.ready_count) == (replays + 1, recorded)
    assert queue.free_bytes(1)
    assert queue.free_bytes(10**12)
    assert model.whole_renders.ready_count == 0


def test_whole_renders_larger_than_the_limit_are_not_recorded(stable_audio_3: Path, caplog: pytest.LogCaptureFixture):
    model = recording(load(stable_audio_3), max_bytes=1_000)
    for _ in range(2):
        latents(model, order())
    assert (model.whole_renders.ready_count, RecordedCall.replays) == (0, 0)
    assert caplog.text.count("are more than 1000") == 1


def test_whole_renders_need_room_for_models(stable_audio_3: Path):
    model = recording(load(stable_audio_3), has_room=lambda: False)
    assert latents(model, order()).isfinite().all()
    assert model.whole_renders.ready_count == 0


def test_whole_renders_are_few(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(whole_render, "MAX_WHOLE_RENDERS_COUNT", 2)
    for steps in (1, 2, 3):
        latents(model, order(steps=steps))
    assert model.whole_renders.ready_count == 2


def test_whole_renders_are_dropped_when_the_weights_move(model: LatentDiffusion, plain: LatentDiffusion):
    model.move_to_device()
    latents(model, order())
    network = model.denoiser.network
    model.stages.device_memory.move_others_to_host([part for part in model.modules if part is not network])
    assert model.whole_renders.ready_count == 0
    assert_equal_latents(model, plain, order())
    assert model.whole_renders.ready_count == 1


def test_whole_render_is_recorded_anew_from_compiled_calls(
    model: LatentDiffusion, plain: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
):
    latents(model, order())
    calls, compiled = model.denoiser.compiled_calls, list[int]()
    monkeypatch.setattr(calls, "has_compiled", lambda _inputs: True)  # pyright: ignore[reportUnknownLambdaType]

    def call_compiled(*inputs: torch.Tensor) -> torch.Tensor:
        compiled.append(len(inputs))
        return calls.call_plain(*inputs)

    monkeypatch.setattr(calls, "call_without_graph", call_compiled)
    for _ in range(2):
        assert_equal_latents(model, plain, order())
    assert len(compiled) == 8  # its steps, once
    assert model.whole_renders.ready_count == 1


def test_whole_renders_are_off_without_graphs(stable_audio_3: Path):
    """On a CPU, and with `engine.compile` off."""
    model = load(stable_audio_3)
    for queue in (CompileQueue("auto", CPU, None), RecordingQueue("off", CPU, None)):
        model.use_compile_queue(queue)
        generation = model.begin(order())
        assert not WholeRenders(model.denoiser, queue).run(generation)
        assert generation.step == 0


def flow_inputs(steps: int, seed: int = 0, guided: bool = False) -> RenderInputs:
    """Inputs of a render by a small network, with ping-pong steps."""
    generator = torch.Generator().manual_seed(seed)
    sigmas = torch.linspace(1.0, 0.0, steps + 1)
    signal = 1.0 - sigmas[1:]
    weights = torch.stack([signal, -signal * sigmas[:-1], sigmas[1:]], dim=1)
    return RenderInputs(
        LinearSteps(weights, sigmas[:-1], True),
        torch.randn(2, 4, 6, generator=generator),
        torch.randn(steps, 2, 4, 6, generator=generator),
        torch.tensor(3.0) if guided else None,
        {"states": torch.randn(4 if guided else 2, 4, generator=generator)},
    )


def evaluate_small(rows: torch.Tensor, levels: torch.Tensor, conditioning: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.tanh(rows * levels[:, None, None] + conditioning["states"][..., None])


def join_plainly(without: torch.Tensor, with_prompt: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return without + scale * (with_prompt - without)


@pytest.mark.parametrize("guided", [False, True])
@torch.no_grad()
def test_run_steps_reads_no_value_on_the_cpu(guided: bool):
    """Traced with tensors that have no values, as a graph is recorded, and equal with others."""
    example, other = flow_inputs(4, guided=guided), flow_inputs(4, seed=1, guided=guided)

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        return run_steps(evaluate_small, join_plainly, example.unflatten(tensors))

    graph = make_fx(call, tracing_mode="fake")(*example.flatten())
    expected = run_steps(evaluate_small, join_plainly, other)
    assert (graph(*other.flatten()) - expected).abs().max() < SAMPLE_TOLERANCE


@torch.no_grad()
def test_run_steps_compiled_as_one_call_equals_single_steps():
    """By inductor's front end, without its compiler: the whole loop becomes one graph."""
    example, graphs = flow_inputs(8), list[Any]()

    def backend(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        return run_steps(evaluate_small, join_plainly, example.unflatten(tensors))

    compiled = torch.compile(call, backend=backend, fullgraph=True)
    for seed in (1, 2):
        other = flow_inputs(8, seed)
        expected = run_steps(evaluate_small, join_plainly, other)
        assert (compiled(*other.flatten()) - expected).abs().max() < SAMPLE_TOLERANCE
    assert len(graphs) == 1


def test_linear_steps_are_unknown_for_other_kinds_of_schedulers(plain: LatentDiffusion):
    sampler = plain.begin(order()).sampler
    assert FlowSampling().linear_steps(sampler.scheduler) is not None
    assert DiscreteSampling().linear_steps(sampler.scheduler) is None

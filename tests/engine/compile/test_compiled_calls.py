"""Calls made faster in the background: equal to the plain ones, remembered over a restart, and never in the way."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import graph_module

from tests.engine.compile.small_calls import Small, small_calls
from tests.engine.families.test_latent_diffusion import loudened, order, ours
from tests.patience import TIMEOUT_S
from tests.processes import python_path
from timbred.engine.compile import compiled_calls
from timbred.engine.compile.compiled_calls import (
    CALLS_BEFORE_COMPILING,
    MAX_COUNTED_SHAPES,
    MAX_PACKED_SHAPES,
    MAX_PENDING_SHAPES,
    CompiledCalls,
    CompileQueue,
)
from timbred.engine.compile.traced_calls import MAX_RECORDED_SHAPES, CompileCache, Shape, can_pack, module_key
from timbred.engine.device import precision_of
from timbred.engine.families import base
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import PromptInputs
from timbred.models import checkpoint, registry

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]
TIMES = CALLS_BEFORE_COMPILING // 4 + 1
"""Renders of 4 steps after which their shapes are worth preparing."""


def load(folder: Path) -> LatentDiffusion:
    found = checkpoint.inspect(folder, "tiny", "")
    return loudened(make_resident(found, "tiny", CPU, torch.float32, lambda _: None))


def forbidden(*_inputs: object) -> Any:
    pytest.fail("the plain call was used")


def only_fast(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.denoiser.compiled_calls, "call_plain", forbidden)


@pytest.mark.parametrize(("family", "guidance"), [("audioldm2", 3.0), ("audioldm", 1.0)])
def test_compiled_calls_with_packed_weights_sound_equal(
    family: str,
    guidance: float,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    folder: Path = request.getfixturevalue(family)
    plain, fast = load(folder), load(folder)
    compile_queue = CompileQueue("auto", CPU, tmp_path)
    fast.use_compile_queue(compile_queue)
    wanted = order(guidance=guidance)
    for _ in range(TIMES):
        ours(fast, wanted)
    compile_queue.wait()
    assert compile_queue.counts.packed == 1
    only_fast(fast, monkeypatch)
    for prompt in ("a kick drum", "heavy rain"):  # of other lengths, but filled up to the same
        one = order(guidance=guidance, inputs=PromptInputs(prompt=prompt))
        expected = ours(plain, one)
        assert np.abs(expected).max() > 0.01
        assert np.abs(ours(fast, one) - expected).max() < 1e-4


def test_compiled_calls_pack_the_decoder_too(audioldm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = load(audioldm2)
    compile_queue = CompileQueue("auto", CPU, tmp_path)
    model.use_compile_queue(compile_queue)
    latents = torch.randn((1, *model.latent_layout.shape(0.5)))
    expected = model.codec.decode(latents)
    for _ in range(CALLS_BEFORE_COMPILING):
        model.codec.decode(latents)
    compile_queue.wait()
    monkeypatch.setattr(model.codec.compiled_calls, "call_plain", forbidden)
    assert np.abs(model.codec.decode(latents) - expected).max() < 1e-4


def test_can_pack_accepts_pocket():
    entry = registry.build(registry.pocket_folder(), {})["pocket"]
    model = make_resident(entry.checkpoint(), "pocket", CPU, torch.float32, lambda _: None)
    assert can_pack(model.pipeline.generator)
    assert can_pack(model.pipeline.vae)
    assert not can_pack(torch.nn.Linear(2, 2).to(torch.bfloat16))


def test_compiled_calls_are_not_used_for_exact(audioldm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = load(audioldm)
    compile_queue = CompileQueue("auto", CPU, tmp_path)
    model.use_compile_queue(compile_queue)
    for _ in range(TIMES):
        ours(model, order())
    compile_queue.wait()
    only_fast(model, monkeypatch)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(pytest.fail.Exception, match="plain call"):
            ours(model, order())
    finally:
        torch.use_deterministic_algorithms(False)


def test_compiled_calls_prepare_the_shapes_of_earlier_runs(
    audioldm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = load(audioldm)
    compile_queue = CompileQueue("auto", CPU, tmp_path)
    first.use_compile_queue(compile_queue)
    for _ in range(TIMES):
        ours(first, order())
    compile_queue.wait()
    again = load(audioldm)
    compile_queue = CompileQueue("auto", CPU, tmp_path)
    again.use_compile_queue(compile_queue)
    compile_queue.wait()
    assert compile_queue.counts.packed == 1
    only_fast(again, monkeypatch)
    assert np.isfinite(ours(again, order())).all()


def test_compiled_calls_rehearse_the_path_of_the_first_sound(
    audioldm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = load(audioldm)
    first.use_compile_queue(CompileQueue("auto", CPU, tmp_path))
    first.warm_up()  # there is nothing to go by yet
    for _ in range(TIMES):
        ours(first, order())
    first.stages.compile_queue.wait()
    again = load(audioldm)
    again.use_compile_queue(CompileQueue("auto", CPU, tmp_path))
    only_fast(again, monkeypatch)
    monkeypatch.setattr(base, "COMPILED_CALLS_TIMEOUT_S", 300.0)
    again.warm_up()
    assert again.denoiser.compiled_calls.ready_count == 1
    assert np.array_equal(ours(again, order()), ours(again, order()))


def test_precision_of_a_module_is_read_from_its_weights():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    assert precision_of(module) == torch.float32
    assert precision_of(module.to(torch.bfloat16)) == torch.bfloat16


def test_compiled_calls_prepare_nothing_when_off(audioldm: Path, tmp_path: Path):
    model = load(audioldm)
    compile_queue = CompileQueue("off", CPU, tmp_path)
    model.use_compile_queue(compile_queue)
    for _ in range(TIMES):
        ours(model, order())
    compile_queue.wait()
    assert compile_queue.counts == compiled_calls.CallCounts()
    assert list(tmp_path.iterdir()) == []


def test_compiled_calls_never_use_moved_weights_from_their_old_place(audioldm: Path, tmp_path: Path):
    model = load(audioldm)
    compile_queue = CompileQueue("auto", CPU, tmp_path)
    model.use_compile_queue(compile_queue)
    for _ in range(TIMES):
        ours(model, order())
    compile_queue.wait()
    before = ours(model, order())
    with torch.no_grad():
        for weight in model.pipeline.unet.parameters():
            weight.mul_(1.2)
    model.denoiser.compiled_calls.drop_all()
    assert np.abs(ours(model, order()) - before).max() > 1e-4


def test_compiled_calls_pack_only_the_latest_shape_at_a_start(audioldm: Path, tmp_path: Path):
    """The others would take the steps' time for what may never come."""
    model, compile_queue = load(audioldm), CompileQueue("auto", CPU, tmp_path)
    model.use_compile_queue(compile_queue)
    for seconds in (0.3, 0.6):
        for _ in range(TIMES):
            ours(model, order(seconds=seconds))
        compile_queue.wait()
    assert model.denoiser.compiled_calls.ready_count == 2
    again, another = load(audioldm), CompileQueue("auto", CPU, tmp_path)
    again.use_compile_queue(another)
    another.wait()
    assert again.denoiser.compiled_calls.ready_count == 1
    assert again.denoiser.compiled_calls.latest_shapes == model.denoiser.compiled_calls.latest_shapes


def test_module_key_is_independent_of_the_models_folder():
    one, other = Small(), Small()
    one.config["_name_or_path"], other.config["_name_or_path"] = "here", "there"
    assert module_key(one) == module_key(other)
    other.config["channels"] = 5
    assert module_key(one) != module_key(other)


COMPILES = """
import json, pathlib, sys, torch
from dataclasses import asdict
from tests.engine.compile.small_calls import small_calls
from timbred.engine.compile.compiled_calls import CALLS_BEFORE_COMPILING, CompileQueue
compile_queue = CompileQueue("on", torch.device("cpu"), pathlib.Path(sys.argv[1]))
calls, given = small_calls(compile_queue), torch.ones(2, 4, 6, 6)
calls.request_earlier_shapes()
compile_queue.wait()
ready = [calls.ready_count]
for _ in range(CALLS_BEFORE_COMPILING):
    calls(given)
compile_queue.wait()
difference = float((calls(given) - calls.call_plain(given)).abs().max())
print(json.dumps([asdict(compile_queue.counts), [*ready, calls.ready_count], difference]))
"""


QUICK_INDUCTOR = {
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of processes that import torch
    "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",  # one kernel is compiled
    "TORCHINDUCTOR_VEC_ISA_OK": "0",  # no trial of each vector instruction set
}
"""Settings with which inductor compiles one small kernel soonest; that and how artefacts are kept stays the same."""


def compiled_in_a_process(cache: Path, **environment: str) -> Any:
    own = {"TORCHINDUCTOR_CACHE_DIR": str(cache / "scratch"), "PYTHONPATH": python_path(ROOT)}
    reported = {**os.environ, **QUICK_INDUCTOR, **own, **environment}
    command = [sys.executable, "-c", COMPILES, str(cache / "kept")]
    done = subprocess.run(
        command, env=reported, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_compile_cache_is_read_after_a_restart(tmp_path: Path, require_host: Callable[[str], str]):
    require_host("c++")
    counts, ready, difference = compiled_in_a_process(tmp_path)
    assert (counts["compiled"], counts["read"], counts["failed"]) == (1, 0, 0)
    assert ready == [0, 1]
    assert difference < 1e-5
    scratch = str(tmp_path / "another-scratch")  # all that is kept is in the folder that we named
    counts, ready, difference = compiled_in_a_process(tmp_path, TORCHINDUCTOR_CACHE_DIR=scratch)
    assert (counts["compiled"], counts["read"], counts["failed"]) == (0, 1, 0)
    assert ready == [1, 1]
    assert difference < 1e-5


def test_compiled_calls_use_the_plain_call_without_a_compiler(tmp_path: Path):
    counts, ready, difference = compiled_in_a_process(tmp_path, CXX=str(tmp_path / "no compiler"))
    assert (counts["compiled"], counts["read"], counts["failed"]) == (0, 0, 1)
    assert ready == [0, 0]
    assert difference == 0.0


def test_compile_cache_skips_damaged_files(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    disk_cache = CompileCache(tmp_path)
    shapes = (Shape((2, 4), "float32"),)
    disk_cache.record_shapes(shapes)
    compiled = next(tmp_path.glob("*.json")).with_suffix(".compiled")
    (tmp_path / "other.json").write_text('[{"size": "?", "kind": "float32"}]')
    (tmp_path / "more.json").write_text('[{"size": [1], "kind": "os"}]')
    assert disk_cache.recorded_shapes(8) == [shapes]
    compiled.write_bytes(b"no artefact")
    assert disk_cache.read(shapes) is None
    assert "compiled again" in caplog.text
    assert compiled.read_bytes() == b"no artefact"  # left for `write` to replace: another version may have made it


class Recorder(CompileQueue):
    """A compile queue as on CUDA, on any machine."""

    @property
    def records_graphs(self) -> bool:
        return True

    @property
    def uses_inductor(self) -> bool:
        return False


def test_compiled_calls_are_recorded_once_for_a_few_batch_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What CUDA does with a recording is not seen here; when one is made, and with which rows, is."""
    recorded: list[tuple[int, ...]] = []

    class Recording:
        def __init__(self, call: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...]) -> None:
            recorded.append(tuple(inputs[0].shape))
            self.call = call

        def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
            return self.call(*inputs)

    monkeypatch.setattr(compiled_calls, "CudaGraphCall", Recording)
    calls = small_calls(Recorder("auto", CPU, tmp_path))
    for rows in (5, 5, 6, 1, 1, 5):
        given = torch.randn(rows, 4, 6, 6)
        found = calls(given)
        assert found.shape == given.shape
        assert torch.allclose(found, calls.call_plain(given), atol=1e-6)
    assert recorded == [(6, 4, 6, 6), (1, 4, 6, 6)]


def test_compiled_calls_leave_unrecordable_modules_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tries: list[int] = []

    class Refusing:
        def __init__(self, _call: object, inputs: tuple[torch.Tensor, ...]) -> None:
            tries.append(len(inputs))
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(compiled_calls, "CudaGraphCall", Refusing)
    calls = small_calls(Recorder("auto", CPU, tmp_path))
    given = torch.randn(2, 4, 6, 6)
    for _ in range(4):
        assert torch.equal(calls(given), calls.call_plain(given))
    assert tries == [1]


def test_compile_queue_is_busy_while_a_task_runs(tmp_path: Path):
    compile_queue = CompileQueue("auto", torch.device("cpu"), tmp_path)
    busy: list[bool] = []
    assert not compile_queue.is_busy
    compile_queue.submit(lambda: busy.append(compile_queue.is_busy))
    compile_queue.wait()
    assert busy == [True]


def call_often(calls: CompiledCalls, length: int) -> None:
    for _ in range(CALLS_BEFORE_COMPILING):
        calls(torch.ones(1, 4, length, 6))


def test_compiled_calls_of_many_lengths_stay_within_the_limit(tmp_path: Path):
    """Of all that is kept for each length nothing grows with the number of lengths."""
    compile_queue, module = CompileQueue("auto", CPU, tmp_path), Small().eval()
    calls = compile_queue.compiled_calls(Small.__call__, module)
    call_often(calls, 4)
    compile_queue.wait()
    once = compile_queue.copied_bytes
    assert once > 0
    compile_queue.max_bytes = 3 * once
    kept: list[tuple[int, int, int]] = []
    for length in range(5, 45):
        call_often(calls, length)
        compile_queue.wait()
        assert compile_queue.copied_bytes <= compile_queue.max_bytes
        sources = getattr(graph_module, "_loader").eval_cache  # noqa: B009  has no other name
        kept.append((calls.ready_count, len(FakeTensorMode.cache), len(sources)))
    assert set(kept[3:]) == {kept[3]}
    assert kept[3] == (3, 0, 0)
    assert calls(torch.ones(1, 4, 44, 6)).shape == (1, 4, 44, 6)
    assert compile_queue.counts.failed == 0


def test_compiled_calls_limit_applies_to_all_modules_together(tmp_path: Path):
    compile_queue, modules = CompileQueue("auto", CPU, tmp_path), [Small().eval() for _ in range(2)]
    one, other = (compile_queue.compiled_calls(Small.__call__, module) for module in modules)
    call_often(one, 4)
    compile_queue.wait()
    compile_queue.max_bytes = compile_queue.copied_bytes
    call_often(other, 4)
    compile_queue.wait()
    assert (one.ready_count, other.ready_count) == (0, 1)


def test_compile_queue_keeps_only_the_latest_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    most = min(MAX_PENDING_SHAPES, MAX_PACKED_SHAPES)
    compile_queue = CompileQueue("auto", CPU, tmp_path)
    calls = small_calls(compile_queue)
    held, begun = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        held.wait(TIMEOUT_S)

    compile_queue.submit(hold)
    assert begun.wait(TIMEOUT_S)
    for length in range(4, 4 + 3 * MAX_PENDING_SHAPES):
        call_often(calls, length)
    held.set()
    compile_queue.wait()
    assert compile_queue.counts.packed == most == calls.ready_count
    monkeypatch.setattr(compiled_calls, "MIN_UNUSED_S", 0.0)
    call_often(calls, 4)  # it was withdrawn, and is worth it again
    compile_queue.wait()
    assert compile_queue.counts.packed == most + 1


def test_compiled_calls_count_only_the_latest_shapes(tmp_path: Path):
    calls = small_calls(CompileQueue("auto", CPU, tmp_path))
    for length in range(4, 4 + 2 * MAX_COUNTED_SHAPES):
        calls(torch.ones(1, 1, length, 1).expand(1, 4, length, 1))
    assert len(calls._call_counts) == MAX_COUNTED_SHAPES  # pyright: ignore[reportPrivateUsage]


def test_compile_cache_forgets_the_oldest_shapes(tmp_path: Path):
    disk_cache, foreign = CompileCache(tmp_path), tmp_path / "notes.json"
    foreign.write_text("[]")
    os.utime(foreign, ns=(0, 0))
    for number in range(1, MAX_RECORDED_SHAPES + 6):
        disk_cache.record_shapes((Shape((number,), "float32"),))
        newest = max(tmp_path.glob("*.json"), key=lambda file: (file.stat().st_mtime_ns, file.name))
        os.utime(newest, ns=(number, number))
    assert len(list(tmp_path.glob("*.json"))) == MAX_RECORDED_SHAPES + 1, "what it didn't write stays"
    assert disk_cache.recorded_shapes(1) == [(Shape((MAX_RECORDED_SHAPES + 5,), "float32"),)]

"""Checks of `python -m benchmarks gpu`: equality of the faster paths with plain calls, and handling of full memory."""

import gc
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from msgspec import structs

from benchmarks.measurement import Measurement
from benchmarks.subject import Subject
from timbred.engine.batching import is_out_of_memory, to_timbred_error
from timbred.engine.compile.compiled_calls import CompileQueue
from timbred.engine.compile.traced_calls import Call, CompileCache, Shapes, Traced
from timbred.engine.families.base import LatentDiffusion
from timbred.errors import OutOfMemory
from timbred.ipc.engine_messages import RenderOrder

BATCH_TAKES = 8
"""Takes of the batch that doesn't fit into the limited memory."""

ROOM_TAKES = 2.5
"""Takes whose activations fit into the limited memory."""

MAX_DOUBLINGS_COUNT = 12
"""Doublings of a sound's length until it must have run out of memory."""

EQUAL_AFTERWARDS = 0.01
"""Largest RMS of the difference, relative to the sound's, of a sound before and after memory was full."""


class GraphQueue(CompileQueue):
    """Records calls as CUDA graphs, and compiles nothing."""

    def compile(self, call: Call, module: torch.nn.Module, shapes: Shapes, disk_cache: CompileCache) -> Traced | None:
        """Leave a call as it is recorded."""
        del call, module, shapes, disk_cache
        return None


def denoise(model: LatentDiffusion, order: RenderOrder, at_once: bool = False) -> torch.Tensor:
    """Return the final latents of an order, float32, on the CPU; `at_once` as for the model's `advance`."""
    generation = model.begin(order)
    while not generation.sampler.done:
        model.advance([generation], at_once)
    return generation.sampler.latents.float().cpu()


def largest_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def rms_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the RMS of the difference, relative to that of the expected values."""
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def check_step_graphs(model: LatentDiffusion, order: RenderOrder, expected: torch.Tensor) -> Measurement:
    """Compare the latents of recorded calls with those of plain calls.

    Raises:
        RuntimeError: No call was recorded.
    """
    model.use_compile_queue(GraphQueue("auto", model.device, None))
    denoise(model, order)
    found = denoise(model, order)
    recorded_count = model.denoiser.compiled_calls.ready_count
    if not recorded_count:
        raise RuntimeError("no call was recorded")
    return Measurement(largest_difference(found, expected), f"{recorded_count} recorded shapes")


def check_whole_render(model: LatentDiffusion, order: RenderOrder, expected: torch.Tensor) -> Measurement:
    """Compare the latents of a render that is recorded as one graph with those of plain calls.

    Raises:
        RuntimeError: It was not recorded.
    """
    model.use_compile_queue(GraphQueue("auto", model.device, None))
    denoise(model, order, at_once=True)
    latents = denoise(model, order, at_once=True)
    if not model.whole_renders.ready_count:
        raise RuntimeError("the render was not recorded")
    return Measurement(largest_difference(latents, expected), f"{order.steps} steps in one graph")


class _WarningCounter(logging.Handler):
    """Counts log messages."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count a message."""
        del record
        self.count += 1


@contextmanager
def _count_warnings() -> Generator[_WarningCounter]:
    """Count the memory warnings of the engine."""
    counter, log = _WarningCounter(), logging.getLogger("timbred.engine.memory")
    log.addHandler(counter)
    try:
        yield counter
    finally:
        log.removeHandler(counter)


@contextmanager
def limit_memory(model: LatentDiffusion, order: RenderOrder) -> Generator[None]:
    """Leave memory for `ROOM_TAKES` takes of an order.

    On CUDA the allocator is limited; on a CPU the network refuses larger batches, because other parts of the process
    use the same memory.
    """
    if model.device.type == "cuda":
        yield from _limit_allocator(model, order)
    else:
        yield from _limit_network(model, order)


def _limit_allocator(model: LatentDiffusion, order: RenderOrder) -> Generator[None]:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    held_bytes = torch.cuda.memory_allocated()
    _render(model, order)
    take_bytes = torch.cuda.max_memory_allocated() - held_bytes
    torch.cuda.empty_cache()
    total_bytes = torch.cuda.get_device_properties(model.device).total_memory
    torch.cuda.set_per_process_memory_fraction((held_bytes + ROOM_TAKES * take_bytes) / total_bytes)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _limit_network(model: LatentDiffusion, order: RenderOrder) -> Generator[None]:
    rows = 1 if order.guidance <= 1.0 else 2
    max_values = int(ROOM_TAKES * rows * model.begin(order).sampler.latents.numel())

    def refuse(_network: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        latents = next(value for value in (*inputs, *named.values()) if isinstance(value, torch.Tensor))
        if latents.numel() > max_values:
            raise torch.OutOfMemoryError(f"{latents.numel()} values are more than {max_values}")

    handle = model.denoiser.network.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _render(model: LatentDiffusion, order: RenderOrder) -> torch.Tensor:
    """Return the takes of an order, (takes, frames, channels)."""
    return torch.from_numpy(model.render(order, lambda _: None, lambda: False).waveforms)


def check_out_of_memory(model: LatentDiffusion, subject: Subject) -> Measurement:
    """Count failures of three requirements with little memory.

    A batch that doesn't fit is rendered in parts; a sound that is too long fails with `out-of-memory`; and the next
    sound equals the one before.
    """
    model.use_compile_queue(CompileQueue("off", model.device, None))
    order = subject.order(0)
    before = _render(model, order)
    failures: list[str] = []
    with limit_memory(model, order):
        with _count_warnings() as warnings:
            takes = _render(model, structs.replace(order, seeds=tuple(range(BATCH_TAKES))))
        if len(takes) != BATCH_TAKES or not torch.isfinite(takes).all():
            failures.append(f"{len(takes)} of {BATCH_TAKES} takes")
        if not warnings.count:
            failures.append("no batch was split")
        seconds = _find_failing_length(model, order)
        if seconds is None:
            failures.append("no length was too long")
        after = _render(model, order)
    difference = rms_difference(after, before)
    if difference > EQUAL_AFTERWARDS:
        failures.append(f"the next sound differs by {difference:.2g}")
    simulated = "" if model.device.type == "cuda" else ", simulated by a network that refuses larger batches"
    found = "; ".join(failures) or f"{BATCH_TAKES} takes in parts, {seconds:g} s refused, the next sound equal"
    return Measurement(len(failures), found + simulated)


def _find_failing_length(model: LatentDiffusion, order: RenderOrder) -> float | None:
    """Return the first length, doubled from that of an order, that fails with `out-of-memory`."""
    seconds = order.seconds
    for _ in range(MAX_DOUBLINGS_COUNT):
        seconds *= 2
        try:
            _render(model, structs.replace(order, seconds=seconds, steps=1))
        except Exception as error:
            if is_out_of_memory(error) and isinstance(to_timbred_error(error), OutOfMemory):
                return seconds
            raise
    return None

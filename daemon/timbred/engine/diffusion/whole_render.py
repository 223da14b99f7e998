"""Whole renders: all denoising steps of a generation recorded as one CUDA graph.

Starting a graph for each step leaves the work between two steps to the CPU, which takes longer than the steps of a
small model. A recorded render has everything that differs between generations as its inputs: the conditioning, the
latents, the noise of each step, drawn beforehand from each take's generator, the guidance scale, and the schedule.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from timbred.engine.batching import is_fatal
from timbred.engine.compile.compiled_calls import CompileQueue, Inputs
from timbred.engine.compile.traced_calls import CudaGraphCall, Shape
from timbred.engine.diffusion.conditioning import Tensors
from timbred.engine.diffusion.denoiser import Denoiser
from timbred.engine.diffusion.generation import Generation
from timbred.engine.diffusion.sampler import LinearSteps
from timbred.errors import first_line
from timbred.process_memory import RecentDict

log = logging.getLogger("timbred.engine.compile")

MAX_WHOLE_STEPS_COUNT = 8
"""Maximum number of steps of a whole render."""

MAX_WHOLE_RENDERS_COUNT = 8
"""Maximum number of recorded renders of a model."""

MAX_FAILED_COUNT = 256
"""Maximum number of kinds of renders that are known to fail, the latest ones."""

Join = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Joins the network's outputs without and with the prompt by a guidance scale."""


@dataclass(frozen=True)
class RenderInputs:
    """Everything that a whole render depends on.

    Attributes:
        steps: The weights and noise levels of the steps.
        latents: Latents before the first step, (takes, channels, time, ...), float32.
        noise: Noise of each step, (steps, takes, channels, time, ...); None for steps that add none.
        scale: Guidance scale, a scalar; None without guidance.
        conditioning: Conditioning of all rows.
    """

    steps: LinearSteps
    latents: torch.Tensor
    noise: torch.Tensor | None
    scale: torch.Tensor | None
    conditioning: Tensors

    @property
    def rows(self) -> torch.Tensor:
        """Latents of all rows of a network call."""
        return self.latents if self.scale is None else torch.cat([self.latents, self.latents])

    def flatten(self) -> Inputs:
        """Return all tensors in the order of `unflatten`."""
        optional = [tensor for tensor in (self.noise, self.scale) if tensor is not None]
        return (self.steps.weights, self.steps.levels, self.latents, *optional, *self.conditioning.values())

    def unflatten(self, tensors: Inputs) -> "RenderInputs":
        """Return inputs of the same structure with other tensors."""
        weights, levels, latents, *others = tensors
        noise = None if self.noise is None else others.pop(0)
        scale = None if self.scale is None else others.pop(0)
        conditioning = dict(zip(self.conditioning, others, strict=True))
        return RenderInputs(LinearSteps(weights, levels, self.steps.adds_noise), latents, noise, scale, conditioning)


RenderKey = tuple[object, ...]


@dataclass
class _WholeRender:
    """A recorded render, True if it was recorded from compiled calls, and its last use on the monotonic clock."""

    graph: CudaGraphCall
    is_compiled: bool
    last_used: float = field(default_factory=time.monotonic)


class WholeRenders:
    """The recorded renders of one model.

    Renders are run by one thread; other threads drop them.

    Args:
        denoiser: The model's network.
        compile_queue: The queue whose limit in bytes they share with compiled calls.
    """

    def __init__(self, denoiser: Denoiser, compile_queue: CompileQueue) -> None:
        self._denoiser = denoiser
        self._compile_queue = compile_queue
        self._is_enabled = compile_queue.records_graphs and compile_queue.can_compile(denoiser.network)
        self._ready: OrderedDict[RenderKey, _WholeRender] = OrderedDict()
        self._failed: RecentDict[RenderKey, bool] = RecentDict(MAX_FAILED_COUNT)
        self._lock = threading.RLock()
        compile_queue.add_held_calls(self)

    @property
    def ready_count(self) -> int:
        """Number of recorded renders."""
        return len(self._ready)

    @property
    def ready_bytes(self) -> int:
        """Bytes of all recorded renders."""
        with self._lock:
            return sum(render.graph.size_bytes for render in self._ready.values())

    @property
    def copied_bytes(self) -> int:
        """The same: none is pending."""
        return self.ready_bytes

    @property
    def oldest_use_time(self) -> float | None:
        """Last use of the least recently used render on the monotonic clock; None without renders."""
        with self._lock:
            return min((render.last_used for render in self._ready.values()), default=None)

    def drop_oldest(self) -> int:
        """Drop the least recently used render; returns its bytes, 0 without renders."""
        with self._lock:
            return self._ready.popitem(last=False)[1].graph.size_bytes if self._ready else 0

    def withdraw_pending(self) -> int:
        """Return 0: none is pending."""
        return 0

    def drop_all(self) -> None:
        """Drop all renders, because the network's weights have moved."""
        with self._lock:
            self._ready.clear()
            self._failed.clear()

    def run(self, generation: Generation) -> bool:
        """Run all steps of a generation at once; returns False, and changes nothing, where that isn't possible.

        Raises:
            RuntimeError: The device can't be used any more.
        """
        steps = generation.sampler.linear_steps() if self._is_enabled and _is_recordable(generation) else None
        if steps is None or not 0 < len(steps.levels) <= MAX_WHOLE_STEPS_COUNT:
            return False
        states = [generator.get_state() for generator in generation.generators]
        latents = self._try_run(generation, steps)
        if latents is None:
            for generator, state in zip(generation.generators, states, strict=True):
                generator.set_state(state)
            return False
        generation.sampler.finish(latents)
        return True

    def _try_run(self, generation: Generation, steps: LinearSteps) -> torch.Tensor | None:
        """Return the final latents; None where they can't be computed at once, after a warning."""
        self._denoiser.ensure_on_device()
        inputs = self._collect_inputs(generation, steps)
        key: RenderKey = (steps.adds_noise, *inputs.conditioning, *map(Shape.of, inputs.flatten()))
        if key in self._failed:
            return None
        try:
            return self._run_recorded(key, inputs, generation.guider.join)
        except Exception as error:
            if is_fatal(error):
                raise
            self._failed[key] = True
            size = tuple(inputs.latents.shape)
            log.warning("renders of %s are not recorded and run step by step: %s", size, first_line(error))
            return None

    def _collect_inputs(self, generation: Generation, steps: LinearSteps) -> RenderInputs:
        sampler, device = generation.sampler, self._denoiser.device
        noise = sampler.draw_step_noise(len(steps.levels)).to(device) if steps.adds_noise else None
        scale = None if generation.guidance is None else torch.tensor(float(generation.guidance), device=device)
        on_device = LinearSteps(steps.weights.to(device), steps.levels.to(device), steps.adds_noise)
        return RenderInputs(on_device, sampler.latents, noise, scale, generation.conditioning)

    def _run_recorded(self, key: RenderKey, inputs: RenderInputs, join: Join) -> torch.Tensor | None:
        """Run a recorded render, recorded now if it isn't; None without room for it, or if it is not finite."""
        calls = self._denoiser.compiled_calls
        call_inputs = self._denoiser.call_inputs(
            inputs.rows, inputs.steps.levels[0].expand(len(inputs.rows)), inputs.conditioning
        )
        is_compiled = calls.has_compiled(call_inputs)
        with self._lock:
            render = self._ready.get(key)
        if render is None or (is_compiled and not render.is_compiled):
            render = self._record(key, inputs, join, is_compiled)
            if render is None:
                return None
        calls.count_calls(call_inputs, len(inputs.steps.levels))
        with self._lock:
            render.last_used = time.monotonic()
            if key in self._ready:
                self._ready.move_to_end(key)
        with self._compile_queue.without_gil():
            latents = render.graph(*inputs.flatten())
            is_finite = bool(torch.isfinite(latents).all())
        if not is_finite:
            log.warning("a recorded render is not finite and is repeated step by step")
        return latents if is_finite else None

    def _record(self, key: RenderKey, inputs: RenderInputs, join: Join, is_compiled: bool) -> _WholeRender | None:
        """Record a render; None without room for it.

        Raises:
            MemoryError: It alone exceeds the limit of all compiled calls.
        """
        if not self._compile_queue.has_room():
            return None
        evaluate = self._denoiser.call_for_recording

        def call(*tensors: torch.Tensor) -> torch.Tensor:
            return run_steps(evaluate, join, inputs.unflatten(tensors))

        render = _WholeRender(CudaGraphCall(call, inputs.flatten(), has_own_memory=True), is_compiled)
        if render.graph.size_bytes > self._compile_queue.max_bytes:
            raise MemoryError(f"{render.graph.size_bytes} bytes are more than {self._compile_queue.max_bytes}")
        with self._lock:
            self._ready[key] = render
            self._ready.move_to_end(key)
            while len(self._ready) > MAX_WHOLE_RENDERS_COUNT:
                self._ready.popitem(last=False)
        self._compile_queue.keep_within_limit()
        return render


def _is_recordable(generation: Generation) -> bool:
    """Tell if a generation's steps depend on nothing but the inputs of a whole render."""
    order = generation.order
    is_plain = not order.loop and not order.exact and not generation.loras
    has_one_call = generation.outpainting is None and generation.blend is None
    return is_plain and has_one_call and (generation.guidance is None or generation.guider.is_stateless)


def run_steps(
    evaluate: Callable[[torch.Tensor, torch.Tensor, Tensors], torch.Tensor], join: Join, inputs: RenderInputs
) -> torch.Tensor:
    """Run all steps; returns the latents after the last one.

    Args:
        evaluate: Evaluates the network on rows, their noise levels, and their conditioning; returns float32.
        join: Joins the outputs without and with the prompt.
        inputs: The tensors, on one device; no value of them is read on the CPU.
    """
    latents = inputs.latents
    for index, level in enumerate(inputs.steps.levels.unbind()):
        rows = latents if inputs.scale is None else torch.cat([latents, latents])
        output = evaluate(rows, level.expand(len(rows)), inputs.conditioning)
        if inputs.scale is not None:
            output = join(*output.chunk(2), inputs.scale)
        kept, changed, added = inputs.steps.weights[index].unbind()
        latents = kept * latents + changed * output
        if inputs.noise is not None:
            latents = latents + added * inputs.noise[index]
    return latents

"""The denoising network: one evaluation on a batch, by a compiled call where one is ready, and LoRAs in it.

A LoRA is a low-rank addition for some rows of a batch. It is made while the network is called: a linear layer or
convolution with the weight `W` also adds `scale * B(A(input))` for the rows that ask for it. Neither the weights
nor the module change, so that compiled calls, requests without LoRAs and other models with the same network aren't
affected.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch.overrides import TorchFunctionMode

from timbred.engine.batching import BatchSplitter, circular_time
from timbred.engine.compile.compiled_calls import CompiledCalls, CompileQueue, Inputs, keep_inputs
from timbred.engine.device import count_tensor_bytes, ensure_finite, precision_of
from timbred.engine.diffusion.conditioning import Tensors
from timbred.engine.memory.device_memory import ModelStages
from timbred.errors import BadRequest, ModelError, first_line
from timbred.ipc.engine_messages import LoraUse
from timbred.models.lora import DOWN, UP, LoraFile, Shape, check_fit, inspect_lora
from timbred.process_memory import RecentDict

MAX_RESIDENT_LORAS = 32
"""LoRAs of one model that stay in memory; the least recently loaded are dropped first."""

LAYER_FUNCTIONS: frozenset[Any] = frozenset(
    {torch.nn.functional.linear, torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d}
)
"""Functions of layers with a weight, which is the second argument."""


@dataclass(frozen=True)
class LoraLayer:
    """The addition to one layer.

    Attributes:
        module: The layer.
        down: Matrix or kernel to the low rank.
        up: The same back.
        scale: Factor of the addition.
    """

    module: Any
    down: torch.Tensor
    up: torch.Tensor
    scale: float


@dataclass(frozen=True, eq=False)
class ResidentLora:
    """A LoRA in memory."""

    layers: tuple[LoraLayer, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of its matrices."""
        return count_tensor_bytes(tensor for layer in self.layers for tensor in (layer.down, layer.up))


@dataclass(frozen=True)
class WeightedLora:
    """A LoRA with the weight that a request gives it."""

    lora: ResidentLora
    weight: float


LoraSet = tuple[WeightedLora, ...]
"""The LoRAs of one row of a batch."""


class LoraCache:
    """The LoRAs of one network.

    Args:
        network: The denoiser.
        device: Compute device.
    """

    def __init__(self, network: torch.nn.Module, device: torch.device) -> None:
        self._network = network
        self._device = device
        self._resident: RecentDict[str, ResidentLora] = RecentDict(MAX_RESIDENT_LORAS)

    @property
    def size_bytes(self) -> int:
        """Bytes of all LoRAs in memory."""
        return sum(lora.size_bytes for lora in tuple(self._resident.values()))

    def get(self, uses: Sequence[LoraUse], dtype: torch.dtype) -> LoraSet:
        """Return the LoRAs of a request, loaded if they aren't in memory; those of weight 0 are left out.

        Raises:
            ModelError: A file can't be read, has changed since it was checked, or doesn't fit the network.
        """
        return tuple(WeightedLora(self._load(use, dtype), use.weight) for use in uses if use.weight)

    def _load(self, use: LoraUse, dtype: torch.dtype) -> ResidentLora:
        lora = self._resident.get(use.hash)
        if lora is None:
            lora = load_lora(use, self._network, self._device, dtype)
            self._resident[use.hash] = lora
        return lora


def load_lora(use: LoraUse, network: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> ResidentLora:
    """Load a LoRA for a network.

    Raises:
        ModelError: Its file can't be read, has changed since it was checked, or doesn't fit the network.
    """
    path = Path(use.path)
    try:
        lora = inspect_lora(path)
        content = path.read_bytes()
        data_start = 8 + int.from_bytes(content[:8], "little")
        if hashlib.sha256(memoryview(content)[data_start:]).hexdigest() != use.hash:
            raise ModelError(f"the LoRA {use.name} has changed on disk ({path}); add it again")
        check_fit(lora.shapes, _shapes(network), use.name, "the loaded model")
        tensors = load(content)
    except (OSError, SafetensorError, BadRequest) as error:
        raise ModelError(f"the LoRA {use.name} can't be loaded: {first_line(error)}") from error
    return _resident(lora, network, {name: tensor.to(device, dtype) for name, tensor in tensors.items()})


def _shapes(network: torch.nn.Module) -> dict[str, Shape]:
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}


def _resident(found: LoraFile, network: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> ResidentLora:
    layers = [
        LoraLayer(network.get_submodule(layer), tensors[layer + DOWN], tensors[layer + UP], scale)
        for layer, scale in found.facts.scales.items()
    ]
    odd = next((layer.module for layer in layers if not _takes_addition(layer.module)), None)
    if odd is not None:
        kind = type(odd).__name__
        raise ModelError(f"the LoRA {found.name} changes a {kind}; only linear layers and convolutions can be changed")
    return ResidentLora(tuple(layers))


def _takes_addition(module: Any) -> bool:
    if isinstance(module, torch.nn.Linear):
        return True
    return isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d) and module.groups == 1


@dataclass(frozen=True)
class _Span:
    """Rows `start` to `end` of a batch, to which an addition is made with a factor."""

    start: int
    end: int
    layer: LoraLayer
    factor: float


class LoraAdditions(TorchFunctionMode):
    """Makes additions to the layers of a network, in the current thread, while it is active.

    Args:
        sets: The LoRAs of each row of the batch.

    Raises:
        ModelError: On use, a layer's input doesn't have the batch as its first axis, and rows have different LoRAs.
    """

    def __init__(self, sets: Sequence[LoraSet]) -> None:
        super().__init__()
        self._rows = len(sets)
        self._is_uniform = all(row == sets[0] for row in sets)
        self._spans: dict[int, list[_Span]] = {}
        for start, end, loras in _runs(sets):
            for weighted in loras:
                for layer in weighted.lora.layers:
                    span = _Span(start, end, layer, weighted.weight * layer.scale)
                    self._spans.setdefault(id(layer.module.weight), []).append(span)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, and add to its result where its weight is that of a layer."""
        named = kwargs or {}
        result = func(*args, **named)
        if func not in LAYER_FUNCTIONS or len(args) < 2:
            return result
        spans = self._spans.get(id(args[1]))
        if spans is None:
            return result
        inputs: torch.Tensor = args[0]
        if len(inputs) != self._rows and not self._is_uniform:
            raise ModelError("a layer of this model mixes the rows of a batch; use the same LoRAs in all of them")
        unbiased = {key: value for key, value in named.items() if key != "bias"}
        for span in spans:
            rows = slice(None) if self._is_uniform else slice(span.start, span.end)
            down, up = span.layer.down.to(inputs.dtype), span.layer.up.to(inputs.dtype)
            low = func(inputs[rows], down, None, *args[3:], **unbiased)
            addition = low @ up.T if up.dim() == 2 else func(low, up)
            result[rows].add_(addition, alpha=span.factor)
        return result


def _runs(sets: Sequence[LoraSet]) -> list[tuple[int, int, LoraSet]]:
    """Return the runs of neighbouring rows with the same LoRAs, without those that have none."""
    runs: list[tuple[int, int, LoraSet]] = []
    for index, loras in enumerate(sets):
        if runs and runs[-1][2] == loras:
            runs[-1] = (runs[-1][0], index + 1, loras)
        else:
            runs.append((index, index + 1, loras))
    return [run for run in runs if run[2]]


def call_with_loras(call: Callable[..., torch.Tensor], sets: Sequence[LoraSet]) -> Callable[..., torch.Tensor]:
    """Return a call whose last input is the index of each row in `sets`, so that a batch can be split."""

    def call_rows(*inputs: torch.Tensor) -> torch.Tensor:
        *plain, indices = inputs
        with LoraAdditions([sets[index] for index in indices.tolist()]):
            return call(*plain)

    return call_rows


@dataclass(frozen=True)
class DenoiserSignature:
    """Signature of a family's network.

    Attributes:
        count: Number of tensors that `inputs` returns, for networks with circular convolution; None for others.
        inputs: Turns latents, noise levels and conditioning into tensors whose first axis is the batch.
        evaluate: Calls the network with these tensors.
        pad: Pads the tensors to fewer distinct shapes without changing the result.
    """

    count: int | None
    inputs: Callable[[torch.Tensor, torch.Tensor, Tensors], Inputs]
    evaluate: Callable[..., torch.Tensor]
    pad: Callable[[Inputs], Inputs] = keep_inputs

    def evaluate_rows(self, network: Any, *inputs: torch.Tensor) -> torch.Tensor:
        """Call the network; with one more tensor than `count`, that tensor is the mask of circular rows."""
        *plain, last = inputs
        if self.count is None or len(inputs) == self.count:
            return self.evaluate(network, *inputs)
        with circular_time(last):
            return self.evaluate(network, *plain)

    def pad_inputs(self, inputs: Inputs) -> Inputs:
        """Apply `pad`, and pass a mask of circular rows through."""
        count = len(inputs) if self.count is None else self.count
        return (*self.pad(inputs[:count]), *inputs[count:])


class Denoiser:
    """The network of a model that removes noise: a UNet or a transformer."""

    compiled_calls: CompiledCalls

    def __init__(
        self,
        network: Any,
        signature: DenoiserSignature,
        device: torch.device,
        stages: ModelStages,
        batch_splitter: BatchSplitter,
    ) -> None:
        self.network = network
        self.device = device
        self.loras = LoraCache(network, device)
        self._signature = signature
        self._stages = stages
        self._batch_splitter = batch_splitter

    def use_compile_queue(self, compile_queue: CompileQueue) -> None:
        """Use a compile queue for the shapes that are called often."""
        self.compiled_calls = compile_queue.compiled_calls(
            self._signature.evaluate_rows, self.network, self._signature.pad_inputs
        )

    def __call__(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Tensors,
        circular_mask: torch.Tensor | None = None,
        loras: Sequence[LoraSet] = (),
    ) -> torch.Tensor:
        """Evaluate the network on a batch; repeated in float32 if half precision overflows.

        Args:
            latents: (rows, channels, time, ...).
            timestep: Noise level of each row, (rows,).
            conditioning: Named tensors with the batch as their first axis.
            circular_mask: For loops: 1 for each circular row, 0 for others.
            loras: The LoRAs of each row; empty for none. Calls with LoRAs are not compiled.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        precision = precision_of(self.network)
        plain = self._signature.inputs(latents.to(precision), timestep, conditioning)
        inputs = plain if circular_mask is None else (*plain, circular_mask.to(precision))

        if loras:
            inputs = (*inputs, torch.arange(len(loras)))
            call = call_with_loras(self.compiled_calls.call_plain, loras)
        else:
            call = self.compiled_calls

        def predict() -> torch.Tensor:
            current_precision = precision_of(self.network)
            if current_precision == precision:
                return self._batch_splitter.call(call, inputs)
            converted = (tensor.to(current_precision) if tensor.is_floating_point() else tensor for tensor in inputs)
            plain_call = self.compiled_calls.call_plain
            return (call_with_loras(plain_call, loras) if loras else plain_call)(*converted)

        return self._stages.run_stage("denoiser", lambda: ensure_finite(self.network, predict))

    def ensure_on_device(self) -> None:
        """Move the network to the device, if it isn't there."""
        self._stages.device_memory.ensure_on_device(self._stages.parts["denoiser"])

    def call_inputs(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> Inputs:
        """Return the tensors of a call of the network; see `__call__`."""
        return self._signature.inputs(latents.to(precision_of(self.network)), timestep, conditioning)

    def call_for_recording(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> torch.Tensor:
        """Evaluate the network as a part of a recording: without a graph of its own, and without checks."""
        return self.compiled_calls.call_without_graph(*self.call_inputs(latents, timestep, conditioning)).float()

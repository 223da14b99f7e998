"""Training of LoRAs: `python -m timbred.engine.training` in a process of its own, started by `timbred train`.

All families are trained in the same way. A sound is encoded to latents; noise of one of `NOISE_LEVELS` levels is added;
the network, with peft's layers in its attention, predicts the latents. The loss is the mean squared error of the
network's own output (noise, velocity or v), in which the predicted latents are linear.

The random choices of a step depend on the seed and the step alone. An interrupted training continues from its state
file, which has the matrices and the optimiser's moments, and ends with the same matrices as without the interruption.

Reads a `TrainingOrder` as a line of JSON on standard input, and writes a line of JSON for each `TrainingReport` on
standard output; other output of libraries goes to standard error. The training ends after the current step, and its
state is saved, when standard input is closed, when a report can't be written, or at SIGINT, SIGTERM or SIGHUP.
"""

import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from timbred.audio import Clip, SampleRate
from timbred.audiofile.files import decode, encode_bytes
from timbred.dsp.pipeline import resample
from timbred.engine.batching import is_out_of_memory, to_timbred_error
from timbred.engine.device import choose_device
from timbred.engine.diffusion.conditioning import Tensors
from timbred.engine.diffusion.generation import RenderedSounds
from timbred.engine.diffusion.init_audio import SILENT_PEAK
from timbred.engine.diffusion.sampler import SamplingStopped, make_scheduler
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import quiet_libraries
from timbred.engine.model_manager import make_resident
from timbred.errors import BadAudio, BadRequest, ModelError, OutOfMemory, TimbredError, first_line
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.ipc.socket_folder import atomic_write
from timbred.models.checkpoint import inspect
from timbred.models.lora import CONFIG_NAME, WEIGHT_NAMES
from timbred.models.training_set import (
    ATTENTION_LAYERS,
    LabelledSound,
    TrainingOrder,
    TrainingReport,
    decode_line,
    encode_line,
)
from timbred.render_settings import RenderSettings

log = logging.getLogger("timbred.engine.training")

NOISE_LEVELS = 100
"""Noise levels that are trained: those of a rendering in so many steps."""

STEPS_BETWEEN_SAVES = 50
"""Steps after which the state is saved."""

MEASUREMENTS = 10
"""Measurements of the loss in a training, evenly spaced, after the one before the first step."""

MEASURED_CHOICES = 16
"""Choices of a sound and its noise in a measurement, the same in all."""

MAX_GRADIENT_NORM = 1.0
PREVIEW_SEED = 1
"""Seed of all previews of a training, so that they can be compared."""

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""Names of the signals that end a training after the current step, on systems that have them."""

ADAM_KEYS = ("step", "exp_avg", "exp_avg_sq")
"""State of the optimiser for each matrix."""


@dataclass(frozen=True)
class Example:
    """A part of a sound as the network sees it.

    Attributes:
        latents: Latents of one take.
        conditioning: Conditioning of one take, without guidance.
    """

    latents: torch.Tensor
    conditioning: Tensors


class Trainer:
    """A LoRA in training.

    Args:
        order: The sounds, and the options.
        model: The model, whose network gets the layers of peft.
        report: Called with the progress.
        is_stopped: Returns True when the training should end; called between steps.

    Attributes:
        step: Steps that are done.
        examples: Parts of the sounds that have been read.

    Raises:
        ModelError: peft isn't installed, or the network has no attention layers.
    """

    def __init__(
        self,
        order: TrainingOrder,
        model: LatentDiffusion,
        report: Callable[[TrainingReport], None],
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        try:
            from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
        except ImportError as error:
            raise ModelError(
                f"training needs the package peft, which can't be imported: {first_line(error)}"
            ) from error
        self.order = order
        self.model = model
        self.step = 0
        self.examples: list[Example] = []
        self._report = report
        self._is_stopped = is_stopped
        self._state_dict = get_peft_model_state_dict
        self._network: Any = model.denoiser.network
        torch.manual_seed(order.seed)
        config: Any = LoraConfig(r=order.rank, lora_alpha=order.rank, target_modules=list(ATTENTION_LAYERS))
        try:
            inject_adapter_in_model(config, self._network)
        except ValueError as error:
            raise ModelError(f"{order.model} can't be trained: {first_line(error)}") from error
        self._trained = {name: weight for name, weight in self._network.named_parameters() if weight.requires_grad}
        self._optimiser = torch.optim.AdamW(self._trained.values(), lr=order.learning_rate, weight_decay=0.0)
        self._is_updating = False
        self._scheduler = make_scheduler(model.spec.facts.schedulers[0], model.scheduler_config)
        self._encoded_captions: dict[tuple[str, float], Tensors] = {}

    def read_sounds(self) -> None:
        """Encode all sounds of the order, unless stopped.

        Raises:
            BadAudio: A file can't be read, or is silent.
        """
        for number, sound in enumerate(self.order.sounds, start=1):
            if self._is_stopped():
                return
            self.examples += self._examples_of(decode(Path(sound.path)), sound)
            self._report(TrainingReport(read=number, step=self.step))

    def _examples_of(self, clip: Clip, sound: LabelledSound) -> list[Example]:
        """Encode the parts of a sound. Silent parts, and a short end after another part, are left out."""
        layout = self.model.latent_layout
        samples = resample(clip, RenderSettings(rate=SampleRate(layout.rate))).samples
        if samples.shape[1] != self.order.channels:
            samples = np.repeat(samples.mean(axis=1, keepdims=True), self.order.channels, axis=1)
        frames = max(1, int(self.order.seconds * layout.rate))
        starts = range(0, max(1, len(samples) - frames // 2), frames)
        parts = [samples[start : start + frames] for start in starts]
        audible = [part for part in parts if np.abs(part).max(initial=0.0) > SILENT_PEAK]
        if not audible:
            raise BadAudio(f"{sound.path}: the sound is silent; remove it from the folder")
        return [self._example(part, sound.caption) for part in audible]

    def _example(self, samples: np.ndarray, caption: str) -> Example:
        seconds = max(self.order.min_seconds, len(samples) / self.model.latent_layout.rate)
        channels = torch.from_numpy(np.ascontiguousarray(samples.T))
        with torch.inference_mode():
            latents = self.model.rendering.encode_sound(channels, seconds)
        # a copy outside inference mode, of which gradients can be computed
        return Example(latents.clone(), self._conditioning_of(caption, seconds))

    def _conditioning_of(self, caption: str, seconds: float) -> Tensors:
        """Return the conditioning of one take, encoded once for all parts of the same length and caption."""
        key = (caption, seconds)
        if key not in self._encoded_captions:
            conditioning = self.model.begin(self._render_order(caption, seconds, guidance=1.0)).conditioning
            self._encoded_captions[key] = {name: tensor.clone() for name, tensor in conditioning.items()}
        return self._encoded_captions[key]

    def _render_order(self, caption: str, seconds: float, guidance: float) -> RenderOrder:
        """Return the order to render a caption."""
        return RenderOrder(
            inputs=PromptInputs(prompt=caption),
            seconds=seconds,
            steps=self.order.render_steps,
            guidance=guidance,
            eta=0.0,
            scheduler=self.order.scheduler,
            seeds=(PREVIEW_SEED,),
        )

    def run(self) -> None:
        """Train up to the last step, or until stopped; the state is saved at the start, regularly, and at the end.

        Raises:
            ModelError: The loss isn't a finite number.
            OSError: The state or a preview can't be written.
        """
        order = self.order
        interval = max(1, order.steps // MEASUREMENTS)
        try:
            if self.step == 0 and not self._is_stopped():
                self.save_state()
                self._report(TrainingReport(step=0, mean_loss=self.measure_loss()))
            while not self._is_stopped():
                self._preview_if_due()
                if self.step >= order.steps:
                    break
                loss = self._train_step()
                self._report(TrainingReport(step=self.step, loss=loss))
                if self.step % interval == 0:
                    self._report(TrainingReport(step=self.step, mean_loss=self.measure_loss()))
                if self.step % STEPS_BETWEEN_SAVES == 0:
                    self.save_state()
        except SamplingStopped:
            log.info("stopped during a preview")
        finally:
            if not self._is_updating:
                self.save_state()

    def measure_loss(self) -> float:
        """Return the mean loss over the same choices of sounds and noise at each call."""
        choices = torch.Generator().manual_seed(self.order.seed)
        with torch.no_grad():
            losses = [float(self._loss(self._choose(choices), choices)) for _ in range(MEASURED_CHOICES)]
        return sum(losses) / len(losses)

    def _train_step(self) -> float:
        choices = torch.Generator().manual_seed(self.order.seed * 1_000_003 + self.step + 1)
        self._optimiser.zero_grad()
        total = 0.0
        for _ in range(self.order.batch):
            loss = self._loss(self._choose(choices), choices) / self.order.batch
            loss.backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(list(self._trained.values()), MAX_GRADIENT_NORM)
        if not (math.isfinite(total) and torch.isfinite(norm)):
            raise self._diverged()
        self._is_updating = True
        self._optimiser.step()
        self.step += 1
        self._is_updating = False
        return total

    def _diverged(self) -> ModelError:
        return ModelError(
            f"training of {self.order.name} failed at step {self.step + 1}: its loss isn't a finite number; use a "
            f"lower --learning-rate than {self.order.learning_rate:g}, with --restart"
        )

    def _choose(self, choices: torch.Generator) -> Example:
        return self.examples[int(torch.randint(len(self.examples), (1,), generator=choices))]

    def _loss(self, example: Example, choices: torch.Generator) -> torch.Tensor:
        """Return the mean squared error of the network's output at a random noise level."""
        kind, scheduler, latents = self.model.spec.sampling, self._scheduler, example.latents
        kind.plan_steps(scheduler, NOISE_LEVELS, None)
        level = int(torch.randint(len(scheduler.timesteps), (1,), generator=choices))
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(level)
        timestep = scheduler.timesteps[level]
        noise = torch.randn(latents.shape, generator=choices).to(latents.device)
        noisy = kind.add_noise(scheduler, latents, noise, timestep)
        inputs = kind.network_input(scheduler, noisy, timestep)
        try:
            output = self.model.denoiser(inputs, timestep.expand(1).to(inputs.device), example.conditioning).float()
        except ModelError as error:
            raise self._diverged() from error

        def predict(value: torch.Tensor) -> torch.Tensor:
            return kind.predict_x0(scheduler, level, noisy, inputs, value)

        # the prediction is linear in the output, by this factor
        factor = predict(torch.ones_like(latents)) - predict(torch.zeros_like(latents))
        return (((predict(output) - latents) / factor) ** 2).mean()

    def _preview_if_due(self) -> None:
        """Render the first caption after each `preview_steps` steps, and before the first step.

        Raises:
            SamplingStopped: The training is stopped.
        """
        if not self.order.preview_steps or self.step % self.order.preview_steps:
            return
        path = self.order.files.preview(self.step)
        if path.exists():  # rendered before an interruption at this step
            return
        caption = self.order.sounds[0].caption
        order = self._render_order(caption, self.order.seconds, self.order.guidance)
        sounds: RenderedSounds = self.model.render(order, lambda _: None, self._is_stopped)
        clip = Clip(np.ascontiguousarray(sounds.waveforms[0]), SampleRate(sounds.rate))
        _write(path, encode_bytes(clip, RenderSettings(rate=SampleRate(sounds.rate), bits=32)))
        self._report(TrainingReport(step=self.step, preview=str(path)))

    def save_state(self) -> None:
        """Write the state file: matrices, moments of the optimiser, and the step.

        Raises:
            OSError: It can't be written; an earlier one is kept.
        """
        tensors = {f"weight.{name}": weight.detach().contiguous() for name, weight in self._trained.items()}
        for name, weight in self._trained.items():
            for key, value in self._optimiser.state[weight].items():
                tensors[f"{key}.{name}"] = torch.as_tensor(value).contiguous()
        content = save(tensors, {"step": str(self.step), "order": self.order.identity()})
        _write(self.order.files.state, content)

    def load_state(self) -> None:
        """Continue from the state file, if there is one.

        Raises:
            BadRequest: It is of another or a longer training, or damaged.
            OSError: It can't be read.
        """
        path, order = self.order.files.state, self.order
        if not path.exists():
            return
        content = path.read_bytes()
        try:
            tensors = load(content)
            facts = _metadata(content)
            step = int(facts["step"])
            if facts["order"] == order.identity():
                self._restore(tensors)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise BadRequest(f"{path} is damaged ({first_line(error)}); start anew with --restart") from error
        if facts["order"] != order.identity():
            raise BadRequest(
                f"{order.name} was trained with other sounds or options before; use those, start anew with --restart, "
                "or choose another name"
            )
        if step > order.steps:
            raise BadRequest(
                f"--steps: got {order.steps}, and the training of {order.name} has done {step} already; use more, or "
                "start anew with --restart"
            )
        self.step = step

    def _restore(self, tensors: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self._trained.items():
                weight.copy_(tensors[f"weight.{name}"])
                if f"step.{name}" in tensors:
                    moments = {key: tensors[f"{key}.{name}"].to(weight.device) for key in ADAM_KEYS[1:]}
                    self._optimiser.state[weight] = {"step": tensors[f"step.{name}"], **moments}

    def write_matrices(self) -> None:
        """Write the matrices as peft does, to be added by `timbred.models.lora`.

        Raises:
            OSError: They can't be written.
        """
        folder = self.order.files.matrices
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self._state_dict(self._network).items()}
        _write(folder / WEIGHT_NAMES[0], save(state))
        facts = {"peft_type": "LORA", "r": self.order.rank, "lora_alpha": self.order.rank, "bias": "none"}
        _write(folder / CONFIG_NAME, json.dumps(facts).encode())


def _metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of a valid safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def _write(path: Path, content: bytes) -> None:
    """Write a file that appears complete or not at all, in a folder that is created if there is none.

    Raises:
        OSError: It can't be written; names the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as hidden:
            hidden.write_bytes(content)
    except OSError as error:
        error.filename = str(path)
        raise


def train(
    order: TrainingOrder, report: Callable[[TrainingReport], None], is_stopped: Callable[[], bool] = lambda: False
) -> None:
    """Train a LoRA, from the state file if there is one; the last report says if its matrices are written.

    Raises:
        TimbredError: It can't be trained; the message says why.
        OSError: A file can't be read or written.
    """

    def stop_if_due(_: float) -> None:
        if is_stopped():
            raise SamplingStopped

    checkpoint = inspect(Path(order.model_folder), order.model, "install the model again")
    device = choose_device(order.device).torch_device
    try:
        model = make_resident(checkpoint, order.model, device, torch.float32, stop_if_due)
    except SamplingStopped:
        log.info("stopped while the model was loaded")
        return
    trainer = Trainer(order, model, report, is_stopped)
    trainer.load_state()
    trainer.read_sounds()
    trainer.run()
    is_finished = trainer.step == order.steps
    if is_finished:
        trainer.write_matrices()
    report(TrainingReport(step=trainer.step, is_finished=is_finished))


def main() -> int:
    """Train the LoRA of the order on standard input; exit status 1 on failure."""
    quiet_libraries()
    logging.basicConfig(format="timbred: %(message)s")
    reports = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries may print
    stopped = threading.Event()
    for name in STOP_SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, lambda _number, _frame: stopped.set())
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):  # the command was interrupted before it had sent the order
        return 0
    threading.Thread(target=_wait_for_end, args=(stopped,), name="wait-for-end", daemon=True).start()

    def report(progress: TrainingReport) -> None:
        try:
            os.write(reports, encode_line(progress))
        except OSError:  # the command was killed
            stopped.set()

    try:
        train(decode_line(line, TrainingOrder), report, stopped.is_set)
    except Exception as error:  # torch and the libraries raise any type
        is_explained = isinstance(error, TimbredError | OSError) or is_out_of_memory(error)
        log.error("%s", _with_advice(error), exc_info=None if is_explained else error)
        return 1
    return 0


def _wait_for_end(stopped: threading.Event) -> None:
    """Set an event once standard input is closed."""
    number = sys.stdin.fileno()
    while os.read(number, 1):  # not through `sys.stdin`, whose lock would be held when the interpreter ends
        continue
    stopped.set()


def _with_advice(error: Exception) -> TimbredError:
    """Return an error as the user reads it; with advice, if the memory is too small."""
    translated = to_timbred_error(error)
    return OutOfMemory(f"{translated}; use a smaller --seconds or --rank") if is_out_of_memory(error) else translated


if __name__ == "__main__":
    sys.exit(main())

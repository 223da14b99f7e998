"""`timbred train`: make a LoRA from a folder of sounds, in a process with torch."""

import contextlib
import importlib.util
import math
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from timbred import errors
from timbred.audiofile.files import read_header
from timbred.cli.models import lora_registry
from timbred.cli.serve import settings_from
from timbred.cli.terminal import Display, display
from timbred.disk import expand_user, try_lock
from timbred.ipc.isolation import child_environment, safe_folder, torch_command
from timbred.models.lora import LoraRegistry, add, check_lora_name, denoiser_shapes
from timbred.models.registry import Entry
from timbred.models.training_set import (
    ATTENTION_LAYERS,
    LabelledSound,
    TrainingFiles,
    TrainingOrder,
    TrainingReport,
    decode_line,
    encode_line,
    find_sounds,
)

MIN_SOUND_SECONDS = 0.01
"""Length of the shortest sound that is used."""

INTERRUPT_CHECK_S = 0.5
"""Seconds after which Ctrl-C has an effect on Windows, where waiting for a thread isn't interrupted."""


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the command, as its help describes them."""

    model: str
    steps: int
    previews: int
    rank: int
    batch: int
    learning_rate: float
    seconds: float
    seed: int
    licence: str
    restart: bool


def train(name: str, folder: Path, options: TrainingOptions, file: Path | None, flags: list[str]) -> None:
    """Train a LoRA, add it to the LoRA folder, and print its path.

    Args:
        name: The LoRA's name.
        folder: Sounds, with captions beside them.
        options: Those of the command.
        file: Settings file.
        flags: Settings.

    Raises:
        BadRequest: The name is taken, an option is out of range, or the folder has no sounds.
        MissingWeights: The model isn't installed.
        ModelError: Training failed, or peft isn't installed.
        ShuttingDown: It was interrupted.
    """
    config = settings_from(file, flags)
    registry = lora_registry(config)
    check_lora_name(name, registry)
    if name in registry.paths():
        raise errors.BadRequest(
            f"there is a LoRA {name} already; choose another name, or delete {registry.paths()[name]}"
        )
    if importlib.util.find_spec("peft") is None:
        raise errors.ModelError(
            "training needs the package peft (the extra train), which isn't installed; install it with pipx inject "
            "timbred peft, or in a clone with .venv/bin/pip install -c constraints.txt peft"
        )
    entry = registry.models[options.model or config["models.default"]]
    _check_model(entry)
    order = _order(name, entry, registry, expand_user(folder), options, config["device"])
    seconds = sum(_checked_seconds(sound) for sound in order.sounds)
    with _locked(order.files), display() as shown:
        _prepare_files(order, options.restart)
        first = order.sounds[0]
        shown.say(f"{len(order.sounds)} sounds, {seconds:.1f} s; caption of {Path(first.path).name}: {first.caption}")
        _run(order, shown)
        lora = add(order.files.matrices, name, registry, entry.card.name, options.licence)
        shutil.rmtree(order.files.matrices)
        order.files.state.unlink(missing_ok=True)
    print(lora.path)


def _check_model(entry: Entry) -> None:
    """Refuse models whose LoRAs can't be used or trained, before anything is loaded.

    Raises:
        BadRequest: The model can't use LoRAs, has .bin weights, or has no attention layers.
        MissingWeights, ModelError: The model isn't installed, or is damaged.
    """
    name = entry.card.name
    checkpoint = entry.checkpoint()
    if "lora" not in entry.card.capabilities:
        raise errors.BadRequest(f"{name} can't use LoRAs; choose another model with --model")
    layers = (weight.removesuffix(".weight") for weight in denoiser_shapes(checkpoint, entry))
    if not any(layer.endswith(ATTENTION_LAYERS) for layer in layers):
        raise errors.BadRequest(
            f"{name} can't be trained: it has no layers called {', '.join(ATTENTION_LAYERS)}; choose another model "
            "with --model"
        )


def _checked_seconds(sound: LabelledSound) -> float:
    """Return the length of a sound by its header.

    Raises:
        BadAudio: It can't be read, or is too short.
    """
    seconds = read_header(Path(sound.path)).seconds
    if seconds < MIN_SOUND_SECONDS:
        raise errors.BadAudio(
            f"{sound.path} is {seconds:.4f} s long; a sound must have at least {MIN_SOUND_SECONDS:g} s, so remove it "
            "from the folder"
        )
    return seconds


@contextlib.contextmanager
def _locked(files: TrainingFiles) -> Generator[None]:
    """Hold the lock of a training, in the LoRA folder, which is created if there is none.

    Raises:
        BadRequest: Another process has it.
        OSError: The folder can't be written.
    """
    files.folder.mkdir(parents=True, exist_ok=True)
    with files.lock.open("w", encoding="utf-8") as file:
        try:
            try_lock(file)
        except BlockingIOError:
            raise errors.BadRequest(
                f"{files.name} is being trained already; wait until it is done, or choose another name"
            ) from None
        try:
            yield
        finally:
            file.close()  # Windows doesn't remove open files
            files.lock.unlink(missing_ok=True)


def _prepare_files(order: TrainingOrder, restart: bool) -> None:
    """Discard an interrupted training, if requested.

    Raises:
        BadRequest: There are previews of another training, which would be replaced.
    """
    files = order.files
    previews = files.existing_previews()
    if restart:
        for path in (*previews, files.state):
            path.unlink(missing_ok=True)
    elif previews and order.preview_steps and not files.state.exists():
        raise errors.BadRequest(
            f"{files.previews} has previews of an earlier training; move or delete that folder, choose another name, "
            "or replace them with --restart"
        )


def _order(
    name: str, entry: Entry, registry: LoraRegistry, folder: Path, options: TrainingOptions, device: str
) -> TrainingOrder:
    card = entry.card
    seconds = options.seconds or card.default_seconds
    if not math.isfinite(options.learning_rate):
        raise errors.BadRequest(f"--learning-rate: got {options.learning_rate}, allowed is 1e-07 to 1")
    if not card.min_seconds <= seconds <= card.max_seconds:
        raise errors.BadRequest(
            f"--seconds: got {seconds:g}, {card.name} takes {card.min_seconds:g} to {card.max_seconds:g}"
        )
    return TrainingOrder(
        name=name,
        model=card.name,
        model_folder=str(entry.folder.absolute()),
        loras_folder=str(registry.folder.absolute()),
        sounds=find_sounds(folder),
        steps=options.steps,
        preview_steps=options.previews,
        learning_rate=options.learning_rate,
        rank=options.rank,
        batch=options.batch,
        seconds=seconds,
        min_seconds=card.min_seconds,
        channels=card.channels,
        scheduler=card.scheduler,
        render_steps=card.steps,
        guidance=card.guidance,
        seed=options.seed,
        device=device,
    )


def _run(order: TrainingOrder, shown: Display) -> None:
    """Run the training process, and show its progress.

    The process trains until it is done, or its standard input is closed: at Ctrl-C, SIGTERM or SIGHUP here, or when
    this process ends. A second signal ends it at once.

    Raises:
        ShuttingDown: It was interrupted.
        ModelError: It failed.
    """
    shown.stage("loading the model")
    process = subprocess.Popen(
        torch_command("timbred.engine.training"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(),
        cwd=safe_folder(),
        start_new_session=True,  # Ctrl-C in a terminal reaches this process only, also while the other one starts
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    progress = _Progress(order, shown)
    reader = threading.Thread(target=_read, args=(process, progress), name="training-reports", daemon=True)
    reader.start()
    try:
        with _interruptible():
            try:
                _send(process, order)
                _wait_for(reader)
            except KeyboardInterrupt:
                shown.say("interrupted: the step in progress is finished and saved; interrupt again to end at once")
                _close_input(process)
                _wait_for(reader)
    except KeyboardInterrupt:
        process.kill()
    finally:
        _close_input(process)
        status = process.wait()
        reader.join()
    if status == 0 and progress.is_finished:
        return
    if status > 0:
        raise errors.ModelError(f"{order.name} was not trained; the lines above say why")
    reached = f"after step {progress.step} of {order.steps}" if progress.step else "before its first step"
    if status < 0:
        raise errors.ShuttingDown(
            f"training of {order.name} was ended {reached} by {_signal_name(-status)}; the same command continues it "
            "from the step that was saved last"
        )
    raise errors.ShuttingDown(f"training of {order.name} is interrupted {reached}; the same command continues it")


@contextlib.contextmanager
def _interruptible() -> Generator[None]:
    """Raise KeyboardInterrupt also at SIGTERM and SIGHUP, unless they are ignored as by nohup."""
    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _wait_for(reader: threading.Thread) -> None:
    while reader.is_alive():
        reader.join(INTERRUPT_CHECK_S)


def _send(process: "subprocess.Popen[bytes]", order: TrainingOrder) -> None:
    """Write the order as a line; a process that has ended says why itself."""
    assert process.stdin is not None
    try:
        process.stdin.write(encode_line(order))
        process.stdin.flush()
    except BrokenPipeError:
        process.wait()


def _close_input(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    try:
        process.stdin.close()
    except BrokenPipeError:
        process.wait()


def _read(process: "subprocess.Popen[bytes]", progress: "_Progress") -> None:
    assert process.stdout is not None
    with process.stdout as reports:
        for line in reports:
            progress.show(decode_line(line, TrainingReport))


class _Progress:
    """The progress of a training as it is shown.

    Args:
        order: The training.
        shown: The display.

    Attributes:
        step: The latest step.
        is_finished: The matrices are written.
    """

    def __init__(self, order: TrainingOrder, shown: Display) -> None:
        self.step = 0
        self.is_finished = False
        self._order = order
        self._display = shown

    def show(self, report: TrainingReport) -> None:
        """Show a report."""
        order, self.step, self.is_finished = self._order, report.step, report.is_finished
        if report.preview:
            self._display.say(f"preview: {report.preview}")
        elif report.mean_loss is not None:
            self._display.say(f"step {report.step} of {order.steps}: loss {report.mean_loss:.4g}")
        elif report.loss is not None:
            self._display.stage(f"training {order.name}", report.step / order.steps)
        elif report.read:
            self._display.stage("reading sounds", report.read / len(order.sounds))

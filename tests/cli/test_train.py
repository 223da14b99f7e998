"""`timbred train` as a user types it: progress, interruption, and errors before anything is loaded."""

import importlib.util
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
import soundfile
import torch

from tests import checkpoints
from tests.disks import on_disk
from tests.forked_programs import torch_program
from tests.patience import TIMEOUT_S
from tests.processes import python_path
from timbred.cli import train as command
from timbred.cli.terminal import Display
from timbred.cli.train import TrainingOptions, train
from timbred.engine import training
from timbred.errors import BadAudio, BadRequest, MissingWeights, ModelError, UnknownModel
from timbred.models.checkpoint import read_tensor_header
from timbred.models.lora import LoraRegistry, inspect_lora
from timbred.models.registry import Registry, build
from timbred.models.training_set import TrainingFiles, TrainingOrder

ROOT = Path(__file__).parents[2]
RATE_HZ = 16_000
OPTIONS = TrainingOptions(
    model="tiny", steps=4, previews=2, rank=2, batch=1, learning_rate=0.01, seconds=0.5, seed=0, licence="CC0-1.0",
    restart=False,
)  # fmt: skip


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.audioldm(tmp_path_factory.mktemp("model"))


@pytest.fixture
def heeded_hangup() -> Iterator[None]:
    """Let processes that are started end at SIGHUP, also if the tests were started with nohup."""
    if sys.platform == "win32":
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Trainee:
    """A user with two sounds, a model called tiny, and a LoRA folder."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.loras = folder / "loras"
        self.sounds = folder / "sounds"
        self.sounds.mkdir()
        time = np.arange(RATE_HZ // 2) / RATE_HZ
        for number, pitch in enumerate((220, 440), start=1):
            soundfile.write(self.sounds / f"tone-{number}.wav", 0.5 * np.sin(2 * np.pi * pitch * time), RATE_HZ)
        settings = {"loras.folder": self.loras, "models.folder": folder / "models", "models.tiny.source": model}
        self.flags = [*(f"{name}={value}" for name, value in settings.items()), "device=cpu"]
        self.registry = LoraRegistry(self.loras, build(folder / "models", {"tiny": str(model)}))

    def command(self, name: str, *options: str) -> list[str]:
        flags = [part for flag in self.flags for part in ("--set", flag)]
        given = ["--model", "tiny", "--rank", "2", "--batch", "1", "--seconds", "0.5"]
        return [sys.executable, "-m", "timbred", "train", name, str(self.sounds), *given, *options, *flags]

    def start(
        self, name: str, *options: str, before: Sequence[str] = (), is_copied: bool = True
    ) -> "subprocess.Popen[str]":
        """Start the command, after words that run it in some way; its training process may be a copy."""
        environment = {
            "PYTHONPATH": python_path(ROOT),
            "HOME": str(self.folder),
            "PATH": os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
            **(torch_program() if is_copied and not before else {}),
        }
        return subprocess.Popen(
            [*before, *self.command(name, *options)], env=environment, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, name: str, *options: str, is_copied: bool = True) -> tuple[int, str, str]:
        """Return exit status, standard output and standard error."""
        process = self.start(name, *options, is_copied=is_copied)
        output, errors = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, output, errors

    def call(self, name: str, folder: Path | None = None, **options: Any) -> None:
        """Run the command in this process."""
        train(name, folder or self.sounds, replace(OPTIONS, **options), None, self.flags)


@pytest.fixture
def trainee(tmp_path: Path, model: Path) -> Trainee:
    return Trainee(tmp_path, model)


def test_train_prints_the_path_of_a_lora(trainee: Trainee) -> None:
    status, output, errors = trainee.run(
        "tones", "--steps", "4", "--previews", "2", "--licence", "CC0-1.0", is_copied=False
    )
    assert status == 0, errors
    assert output == f"{trainee.loras / 'tones.safetensors'}\n"
    (entry,) = trainee.registry.entries()
    assert (entry.name, entry.model, entry.rank, entry.licence, entry.state) == (
        *("tones", "tiny", 2, "CC0-1.0"),
        "available",
    )
    lines = errors.splitlines()
    assert [line for line in lines if line.startswith("training")] == [
        "training tones",
        *(f"training tones: {part}%" for part in (25, 50, 75, 100)),
    ]
    previews = [Path(line.removeprefix("preview: ")) for line in lines if line.startswith("preview: ")]
    assert [path.name for path in previews] == ["step-000000.wav", "step-000002.wav", "step-000004.wav"]
    assert all(soundfile.info(path).duration == pytest.approx(0.5, abs=0.1) for path in previews)
    assert lines[0] == "2 sounds, 1.0 s; caption of tone-1.wav: tone"
    assert [line.split(":")[0] for line in lines if ": loss " in line] == [f"step {step} of 4" for step in range(5)]
    assert sorted(path.name for path in trainee.loras.iterdir()) == ["tones-previews", "tones.safetensors"]


def read_until(process: "subprocess.Popen[str]", text: str) -> list[psutil.Process]:
    """Read the lines of a command until one has a text; return the processes that it has started."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            break
    else:
        pytest.fail("".join(lines))
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    return children


def end(process: "subprocess.Popen[str]", children: list[psutil.Process]) -> tuple[str, str]:
    """Wait for the end of a command and its processes; return standard output and standard error."""
    output, errors = process.communicate(timeout=TIMEOUT_S)
    _, alive = psutil.wait_procs(children, timeout=TIMEOUT_S)
    assert not alive
    return output, errors


def train_in_this_process(order: TrainingOrder, _: Display) -> None:
    """Train without the process of the command, on one thread like the others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        training.train(order, lambda _: None)
    finally:
        torch.set_num_threads(threads)


def saved_step(trainee: Trainee, name: str) -> int:
    header, _ = read_tensor_header(TrainingFiles(trainee.loras, name).state)
    return int(header["__metadata__"]["step"])


@pytest.mark.skipif(sys.platform == "win32", reason="a process can't send itself Ctrl-C alone there")
def test_train_that_is_interrupted_is_continued_by_the_same_command(
    trainee: Trainee, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = ("--learning-rate", str(OPTIONS.learning_rate))
    process = trainee.start("tones", "--steps", "1000000", "--previews", "2", *rate)
    children = read_until(process, "step-000004.wav")
    with pytest.raises(BadRequest, match="tones is being trained already; wait until it is done"):
        trainee.call("tones", restart=True)
    process.send_signal(signal.SIGINT)
    output, errors = end(process, children)
    assert (process.returncode, output) == (1, "")
    assert "the same command continues it" in errors
    reached = int(errors.rpartition("after step ")[2].split()[0])
    assert reached == saved_step(trainee, "tones") >= 4
    assert (trainee.loras / "tones-previews" / "step-000000.wav").exists(), "a refused restart deletes nothing"
    status, _, errors = trainee.run("tones", "--steps", str(reached + 2), "--previews", "0", *rate)
    assert status == 0, errors
    monkeypatch.setattr(command, "_run", train_in_this_process)
    trainee.call("whole", steps=reached + 2, previews=0, licence="")
    interrupted, whole = (inspect_lora(trainee.loras / f"{name}.safetensors") for name in ("tones", "whole"))
    assert interrupted.facts == whole.facts, "the hash of the matrices is among the facts"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.usefixtures("heeded_hangup")
@pytest.mark.parametrize(
    ("name", "to_child"), [("SIGTERM", False), ("SIGHUP", False), ("SIGKILL", False), ("SIGTERM", True)]
)
def test_train_saves_its_state_at_each_signal(trainee: Trainee, name: str, to_child: bool) -> None:
    process = trainee.start("tones", "--steps", "1000000", "--previews", "1", is_copied=not to_child)
    children = read_until(process, "step-000002.wav")
    (children[0] if to_child else process).send_signal(getattr(signal, name))
    output, errors = end(process, children)
    assert output == ""
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors
    assert saved_step(trainee, "tones") >= 2
    if name == "SIGKILL":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 1
        assert f"after step {saved_step(trainee, 'tones')} of 1000000; the same command continues it" in errors


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_train_started_by_nohup_ignores_the_end_of_its_terminal(trainee: Trainee) -> None:
    process = trainee.start(
        "tones", "--steps", "4", "--previews", "1", before=("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
    )
    children = read_until(process, "step-000001.wav")
    process.send_signal(signal.SIGHUP)
    children[0].send_signal(signal.SIGHUP)
    output, errors = end(process, children)
    assert (process.returncode, output) == (0, f"{trainee.loras / 'tones.safetensors'}\n"), errors


def test_train_names_a_full_disk(trainee: Trainee) -> None:
    trainee.loras.mkdir()
    process = trainee.start("tones", "--steps", "2", before=on_disk(trainee.loras, "8k"))
    output, errors = end(process, [])
    assert (process.returncode, output) == (1, "")
    state = TrainingFiles(trainee.loras, "tones").state
    assert f"timbred: the disk of {state} is full; free some space and retry" in errors.splitlines()
    assert "Traceback" not in errors


def test_train_that_fails_says_why_in_one_line(trainee: Trainee) -> None:
    soundfile.write(trainee.sounds / "silence.wav", np.zeros(RATE_HZ), RATE_HZ)
    status, output, errors = trainee.run("tones", "--steps", "1")
    assert (status, output) == (1, "")
    said = [line for line in errors.splitlines() if line.startswith("timbred: ")]
    assert "silence.wav: the sound is silent; remove it" in said[0]
    assert said[1:] == ["timbred: tones was not trained; the lines above say why"]
    assert "Traceback" not in errors


def test_train_refuses_wrong_values_before_it_loads_the_model(
    trainee: Trainee, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*_: object) -> None:
        raise AssertionError("no process may be started")

    monkeypatch.setattr(command, "_run", forbid)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadRequest, match="missing isn't a folder"):
        trainee.call("tones", tmp_path / "missing")
    with pytest.raises(BadRequest, match="empty has no sounds"):
        trainee.call("tones", tmp_path / "empty")
    with pytest.raises(BadRequest, match="'a b' isn't a valid name of a LoRA"):
        trainee.call("a b")
    with pytest.raises(BadRequest, match=r"--seconds: got 5000, tiny takes 0\.1 to"):
        trainee.call("tones", seconds=5000.0)
    with pytest.raises(UnknownModel, match="there is no model 'nothing'"):
        trainee.call("tones", model="nothing")
    with pytest.raises(MissingWeights, match="timbred models pull audioldm-s-full-v2"):
        trainee.call("tones", model="audioldm-s-full-v2")
    trainee.loras.mkdir()
    (trainee.loras / "tones.safetensors").write_bytes(b"")
    with pytest.raises(BadRequest, match="there is a LoRA tones already; choose another name, or delete"):
        trainee.call("tones")
    with pytest.raises(BadRequest, match="--learning-rate: got nan"):
        trainee.call("others", learning_rate=math.nan)
    preview = trainee.loras / "others-previews" / "step-000002.wav"
    preview.parent.mkdir()
    preview.write_bytes(b"mine")
    with pytest.raises(BadRequest, match=r"others-previews has previews of an earlier training; .* with --restart"):
        trainee.call("others")
    assert preview.read_bytes() == b"mine"
    soundfile.write(trainee.sounds / "click.wav", np.ones(20), RATE_HZ)
    with pytest.raises(BadAudio, match=r"click\.wav is 0\.0013 s long; a sound must have at least 0\.01 s"):
        trainee.call("tones2")
    (trainee.sounds / "click.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(BadAudio, match=r"click\.wav: this isn't an audio file"):
        trainee.call("tones2")
    assert not TrainingFiles(trainee.loras, "tones2").lock.exists()


def test_train_refuses_models_whose_loras_cannot_be_used(
    trainee: Trainee, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = shutil.copytree(model, tmp_path / "older")
    checkpoints.pickle_weights(older)
    trainee.flags.append(f"models.older.source={older}")
    with pytest.raises(BadRequest, match=r"older has \.bin weights; convert them once: timbred models convert older"):
        trainee.call("tones", model="older")
    monkeypatch.setattr(command, "ATTENTION_LAYERS", ("to_nothing",))
    with pytest.raises(BadRequest, match="tiny can't be trained: it has no layers called to_nothing"):
        trainee.call("tones")
    entry = trainee.registry.models["tiny"]
    plain = replace(entry, card=msgspec.structs.replace(entry.card, capabilities=frozenset()))
    registry = LoraRegistry(trainee.loras, Registry({"tiny": plain}))

    def lora_registry(_: object) -> LoraRegistry:
        return registry

    monkeypatch.setattr(command, "lora_registry", lora_registry)
    with pytest.raises(BadRequest, match="tiny can't use LoRAs; choose another model with --model"):
        trainee.call("tones")


def test_train_without_peft_names_the_remedy(trainee: Trainee, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none(name: str) -> None:
        assert name == "peft"

    monkeypatch.setattr(importlib.util, "find_spec", find_none)
    with pytest.raises(ModelError, match=r"peft \(the extra train\), which isn't installed; install it with pipx"):
        trainee.call("tones")

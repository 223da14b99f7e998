"""The real daemon as a process, started as a user starts it, and ended so that nothing of it is left."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import psutil

from tests.forked_programs import torch_program
from tests.patience import LONG_TIMEOUT_SETTINGS, TIMEOUT_S
from tests.processes import python_path

ROOT = Path(__file__).parents[2]
READY = re.compile(r"ready osc=(\d+) zmq=(\d+),(\d+) http=(\d+)\n")
FAKE_ENGINE = f"{sys.executable} -m tests.fake_engine"
FREE_PORTS = ("osc.port=0", "zmq.requests=0", "zmq.events=0", "http.port=0", "discovery.announce=0")


class DaemonProcess:
    """`timbred serve` in a process of its own. Its log is in `log`."""

    def __init__(
        self,
        folder: Path,
        *settings: str,
        fake_engine: bool = True,
        cwd: Path = ROOT,
        more: dict[str, str] | None = None,
        program: str = sys.executable,
    ) -> None:
        """`cwd` is its working folder; `more` are further variables of its environment; `program` runs Python."""
        self.takes = folder / "takes"
        self.log = folder / "log.txt"
        self._errors: IO[bytes] = self.log.open("wb")
        command = [program, "-P", "-m", "timbred", "serve"]
        for setting in (*FREE_PORTS, f"takes.folder={self.takes}", f"models.folder={folder / 'models'}"):
            command += ["--set", setting]
        for setting in (*LONG_TIMEOUT_SETTINGS, *settings):
            command += ["--set", setting]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=cwd,
            env={**environment(folder, fake_engine), **(more or {})},
        )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()
        found = READY.fullmatch(self.ready)
        if found is None:
            self.process.wait(TIMEOUT_S)
            raise AssertionError(f"the daemon isn't ready: {self.ready!r}\n{self.log.read_text('utf-8')}")
        self.osc, self.requests, self.events, self.http = map(int, found.groups())

    def family(self) -> list[psutil.Process]:
        """The daemon's process and all those below it."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """The exit status, once the process has ended by itself."""
        return self.process.wait(TIMEOUT_S)

    def stop(self) -> None:
        """End it as a user does, and prove that no process and no half-written file is left."""
        family = self.family() if self.process.poll() is None else []
        try:
            if self.process.poll() is None:
                self.signal()
            assert self.ended() == 0, self.log.read_text("utf-8")
            assert gone(family), f"left running: {family}"
            assert self.half_written() == []
        finally:
            self.end_by_force(family)

    def half_written(self) -> list[Path]:
        """Files in the takes folder that aren't finished sounds; the library's own are not meant."""
        found = [path for path in self.takes.rglob("*") if path.is_file()] if self.takes.is_dir() else []
        return [path for path in found if path.name.startswith(".") and ".sqlite" not in path.name]

    def end_by_force(self, family: list[psutil.Process]) -> None:
        """Whatever happened, nothing goes on running."""
        for process in family:
            if process.is_running():
                process.kill()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()


def environment(folder: Path, fake_engine: bool) -> dict[str, str]:
    """An environment without the user's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIMBRED_")}
    kept["PYTHONPATH"] = python_path(ROOT, ROOT / "daemon")
    kept["XDG_CONFIG_HOME"] = str(folder / "config")
    kept["XDG_DATA_HOME"] = str(folder / "data")
    if fake_engine:
        kept["TIMBRED_ENGINE_PROGRAM"] = FAKE_ENGINE
    return kept


def write_checkpoints(folder: Path, **families: str) -> Path:
    """Write tiny checkpoints of these families into a folder, `three="stable_audio_3"` as its subfolder `three`.

    Torch and diffusers are imported now, if no other test module of this process needed them before.
    """
    from tests import checkpoints
    from timbred.engine.families.component_loader import quiet_libraries

    quiet_libraries()
    for name, family in families.items():
        getattr(checkpoints, family)(folder / name)
    return folder


def start_real_engine(folder: Path, models: Mapping[str, Path], spare: str = "off") -> DaemonProcess:
    """Start a daemon with the real engine on one thread of the CPU and these models, the first one the default.

    A spare engine (`spare="auto"`) imports torch too, as soon as no test has made a request for three seconds.
    """
    sources = (f"models.{name}.source={path}" for name, path in models.items())
    default = f"models.default={next(iter(models))}"
    settings = (default, "device=cpu", "device.threads=1", f"engine.spare={spare}")
    return DaemonProcess(folder, *sources, *settings, fake_engine=False, more=torch_program())


def gone(processes: list[psutil.Process], within: float = TIMEOUT_S) -> bool:
    """Whether all these processes end; ended ones that nobody has asked after yet count as ended."""
    deadline = time.monotonic() + within
    while any(map(_runs, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def hollow_checkpoint(folder: Path) -> Path:
    """A folder that looks like an AudioLDM checkpoint from outside; its weights are a few bytes.

    The fake engine never opens them.
    """
    unet = {"sample_size": 128, "in_channels": 8, "projection_class_embeddings_input_dim": 16}
    vocoder = {"sampling_rate": 16000, "upsample_rates": [5, 4, 2, 2, 2], "model_in_dim": 64}
    parts = {
        "vae": ("diffusers", "AutoencoderKL", {"block_out_channels": [8, 8, 16]}),
        "text_encoder": ("transformers", "ClapTextModelWithProjection", {}),
        "tokenizer": ("transformers", "RobertaTokenizer", None),
        "unet": (
            "diffusers",
            "UNet2DConditionModel",
            unet,
        ),
        "scheduler": ("diffusers", "DDIMScheduler", None),
        "vocoder": (
            "transformers",
            "SpeechT5HifiGan",
            vocoder,
        ),
    }
    for name, (_, _, config) in parts.items():
        (folder / name).mkdir(parents=True)
        if config is not None:
            (folder / name / "config.json").write_text(json.dumps(config), "utf-8")
            (folder / name / "model.safetensors").write_bytes(b"hollow")
    index = {name: [library, kind] for name, (library, kind, _) in parts.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "AudioLDMPipeline", **index}), "utf-8")
    return folder

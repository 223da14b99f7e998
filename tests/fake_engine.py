"""An engine process without torch: speaks the whole of `engine.wire`, renders sines, and can be told to misbehave.

Run as `python -m tests.fake_engine`. What it does hangs on the prompt: `die` ends the process, `die once` ends only
the first process that gets it, `die rendered` ends it with its last messages just sent, `hang` stops all signs of
life, `resigns` sends its own reason before it ends, `fail` fails, `slow` waits for a cancellation at its second step,
`wait FILE` for that file or a cancellation there, `paced SECONDS` says that each of its steps takes so many seconds,
whatever they take, and `paced SECONDS OTHER
FILE` stops after the first step until there is that file, says that each takes OTHER seconds from then on, and stops
after some more until it is cancelled; rendered once more it is `paced SECONDS`. `nan` renders what is no number,
`breaks` fails after half of an early sound's pieces, `half FILE` waits for that file or a cancellation there, `decodes
FILE` after its steps, `pulse BPM` renders clicks at this tempo plus 15 times (seed mod 4), each fourth of them low and
loud, `knows SHARE` sets the share of the prompt that the model knows. Its device is the one of its options, or a CPU.
Anything else is a sine at 220 Hz times (seed mod 8 + 1).
Options in its command let it refuse to start, or end at its start, as long as a file is there.
"""

import argparse
import itertools
import logging
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from timbred import __version__
from timbred.ipc import engine_messages
from timbred.ipc.child_exit import add_line_options, exit_with_daemon, send_last_message, wait_as_spare
from timbred.ipc.engine_messages import DaemonLink

RATE = 16000
MODEL_BYTES = 3_000_000

FILE_POLL_INTERVAL_S = 0.005
"""Interval at which a file that a test creates is looked for: no event crosses the processes for it."""

MAX_LATE_STEPS = 12
"""Steps after which `paced SECONDS OTHER FILE` waits for its cancellation."""


class FakeEngine:
    """Carries out orders one after the other, as the real one does."""

    def __init__(self, address: str, token: str, heartbeat: float, version: str, device: str) -> None:
        self.token = token
        self.device = device
        self.version = version
        self.sizes: dict[str, int] = {}
        self.were_late: set[int] = set()
        """Jobs that were cancelled because their steps took longer than expected."""
        self.hanging = threading.Event()
        self.link = DaemonLink(address, heartbeat, self.beat)

    def beat(self) -> engine_messages.EngineHeartbeat:
        if self.hanging.is_set():
            threading.Event().wait()
        resident = tuple(engine_messages.ResidentModel(name=name, memory=size) for name, size in self.sizes.items())
        return engine_messages.EngineHeartbeat(
            memory_used=sum(self.sizes.values()), memory_total=10**9, resident=resident
        )

    def run(self) -> None:
        self.link.start()
        self.link.send(
            engine_messages.EngineReady(
                token=self.token,
                wire_version=engine_messages.WIRE_VERSION,
                version=self.version,
                pid=os.getpid(),
                device=self.device,
                device_name="test engine",
                precision="float32",
            )
        )
        while True:
            match self.link.inbox.get():
                case engine_messages.QuitEngine():
                    break
                case engine_messages.SetYield(frame_rate=frame_rate):
                    logging.getLogger(__name__).warning("leaving cores to playback at %g frames per second", frame_rate)
                case engine_messages.LoadModel(model=source):
                    self._resident(source)
                case engine_messages.UnloadModel(name=name):
                    self.sizes.pop(name, None)
                    self.link.send(engine_messages.ModelUnloaded(name=name))
                case engine_messages.RenderJob() as render:
                    self._render(render)
                    self.link.forget(render.job)
                case other:
                    raise AssertionError(f"{other} isn't for an engine's queue")
        self.link.close()

    def _resident(self, source: engine_messages.ModelSource) -> None:
        self.sizes.setdefault(source.name, MODEL_BYTES)
        self.link.send(
            engine_messages.ModelLoaded(model=engine_messages.ResidentModel(name=source.name, memory=MODEL_BYTES))
        )

    def _render(self, render: engine_messages.RenderJob) -> None:
        job, order = render.job, render.order
        if render.model.name not in self.sizes:
            self.link.send(engine_messages.ModelLoading(job=job, fraction=0.5))
            self._resident(render.model)
        words = order.inputs.prompt.split()
        if self._misbehaves(render, words):
            return
        began = time.monotonic()
        for step in range(1, order.steps + 1):
            pace = self._pace(job, words[1:], step) if words[0] == "paced" else None
            if words[0] in ("slow", "wait") and step == 2:
                awaited = Path(words[1]) if words[0] == "wait" else None
                while not self.link.is_cancelled(job) and not (awaited and awaited.exists()):
                    time.sleep(FILE_POLL_INTERVAL_S)
            if self.link.is_cancelled(job):
                self.link.send(engine_messages.JobCancelled(job=job))
                return
            pace = (time.monotonic() - began) / step if pace is None else pace
            remaining = pace * (order.steps - step)
            self.link.send(engine_messages.StepDone(job=job, step=step, steps=order.steps, remaining=remaining))
            if order.preview and step == 1:
                preview = engine_messages.PreviewRendered(job=job, rate=RATE, channels=1)
                self.link.send(preview, self._sound(["tone"], order.seconds, order.seeds[0]))
        self._decodes(job, words)
        if order.is_streamed:
            self._pieces(job, self._sound(words, order.seconds, order.seeds[0]), words)
        if self.link.is_cancelled(job):
            self.link.send(engine_messages.JobCancelled(job=job))
            return
        if words[0] == "breaks":
            self.link.send(engine_messages.JobFailed(code="model-error", message="told to break off", job=job))
            return
        knows = float(words[1]) if words[0] == "knows" else None
        rendered = engine_messages.JobRendered(job=job, rate=RATE, channels=1, seeds=order.seeds, knows=knows)
        self.link.send(rendered, *(self._sound(words, order.seconds, seed) for seed in order.seeds))
        if words == ["die", "rendered"]:
            os._exit(7)
        if order.embed_takes:
            self.link.send(engine_messages.EmbeddingsReady(job=job, ear=""))  # it has no CLAP

    def _pace(self, job: int, words: list[str], step: int) -> float:
        """Return the seconds that this step of a `paced` job is said to take; wait where it has to."""
        expected, *late = words
        if not late or step == 1 or job in self.were_late:
            return float(expected)
        other, file = late
        while not self.link.is_cancelled(job) and (step > MAX_LATE_STEPS or not Path(file).exists()):
            time.sleep(FILE_POLL_INTERVAL_S)
        if self.link.is_cancelled(job):
            self.were_late.add(job)
        return float(other)

    def _decodes(self, job: int, words: list[str]) -> None:
        if words[0] == "decodes":
            self._wait_for_file(job, Path(words[1]))

    def _wait_for_file(self, job: int, path: Path) -> None:
        """Wait until a test has created a file, or the job is cancelled."""
        while not self.link.is_cancelled(job) and not path.exists():
            time.sleep(FILE_POLL_INTERVAL_S)

    def _misbehaves(self, render: engine_messages.RenderJob, words: list[str]) -> bool:
        """Whether that was all that it does with this order."""
        if (
            words[0] == "die"
            and words[1:] != ["rendered"]
            and (words[1:] != ["once"] or _first_time(render.model.folder))
        ):
            os._exit(7)
        if words[0] == "lengthy":
            self.link.send(engine_messages.TextRead(job=render.job, key="prompt", characters=900, read=900, parts=4))
            self.link.send(
                engine_messages.TextRead(job=render.job, key="transcription", characters=90, read=60, parts=1)
            )
        if words[0] == "resigns":
            self.link.send(engine_messages.EngineCannotStart(token=self.token, message="told to resign"))
            self.link.close()
            os._exit(2)
        if words[0] == "hang":
            self.hanging.set()
            threading.Event().wait()
        if words[0] == "fail":
            self.link.send(engine_messages.JobFailed(code="model-error", message="told to fail", job=render.job))
            return True
        return False

    def _pieces(self, job: int, sound: bytes, words: list[str]) -> None:
        """The sound in pieces of a quarter; `breaks` has only the first two, `half` waits after them."""
        frames = len(sound) // 4
        edges = [frames * part // 4 for part in range(5)]
        for first, last in list(itertools.pairwise(edges))[: 2 if words[0] == "breaks" else 4]:
            if words[0] == "half" and first == edges[2]:
                self._wait_for_file(job, Path(words[1]))
            piece = engine_messages.PieceRendered(
                job=job, rate=RATE, channels=1, first=first, frames=frames, peak=1.0, last=last == frames
            )
            self.link.send(piece, sound[4 * first : 4 * last])

    @staticmethod
    def _sound(words: list[str], seconds: float, seed: int) -> bytes:
        moments = np.arange(int(seconds * RATE)) / RATE
        if words[0] == "pulse":
            return _clicks(moments, (float(words[1].rstrip(",")) + 15 * (seed % 4)) / 60).tobytes()
        samples = np.sin(2 * np.pi * 220 * (seed % 8 + 1) * moments).astype("<f4")
        if words[0] == "nan":
            samples[5] = np.nan
        return samples.tobytes()


def _clicks(moments: np.ndarray, hertz: float) -> np.ndarray:
    beats = moments * hertz
    accented = beats.astype(int) % 4 == 0
    since = (beats % 1) / hertz
    level, pitch = np.where(accented, 0.9, 0.4), np.where(accented, 100, 1000)
    return (level * np.sin(2 * np.pi * pitch * since) * np.exp(-60 * since)).astype("<f4")


def _first_time(folder: str) -> bool:
    """Whether no process has been here before with this model's folder."""
    mark = Path(folder or tempfile.gettempdir()) / ".died-once"
    if mark.exists():
        return False
    mark.touch()
    return True


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", default=__version__)
    parser.add_argument("--cannot-start-while", type=Path, help="refuse to start as long as this file is there")
    parser.add_argument("--ends-at-start-while", type=Path, help="end at the start as long as this file is there")
    add_line_options(parser)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--compile", default="off")
    parser.add_argument("--cache", default="")
    parser.add_argument("--heartbeat", type=float, default=1.0)
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args()
    wait_as_spare(options, lambda: None)
    exit_with_daemon(options.address)
    if options.ends_at_start_while and options.ends_at_start_while.exists():
        return 3
    if options.cannot_start_while and options.cannot_start_while.exists():
        message = f"told not to start by {options.cannot_start_while}; remove it"
        send_last_message(
            options.address,
            engine_messages.encode(engine_messages.EngineCannotStart(token=options.token, message=message)),
        )
        return 2
    device = "cpu" if options.device == "auto" else options.device
    FakeEngine(options.address, options.token, options.heartbeat, options.version, device).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Gain of each measure that keeps loads from delaying steps: gaps between steps with all of them, and without each.

In one process, without a daemon: one thread renders with the embedded model, another one loads and frees a full-size
AudioLDM 2 with random weights (4.4 GB in float32), whose files are removed from the page cache before each load. The
variants take turns. A measure is kept if its variant is worse than the first line.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks import full_size, pocket
from benchmarks.machine import machine
from timbred.engine.compile.compiled_calls import CompileQueue
from timbred.engine.families import component_loader
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import SharedComponents
from timbred.engine.memory.model_loader import DeferredFree, LoadPacer
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models import checkpoint

ROUND_COUNT = 3
PAUSE_S = 2.0
"""Seconds of steps alone before each load."""

SETTLE_S = 0.3
"""Seconds of steps after a release that count as its phase."""

RELEASE = ", release"
"""End of the name of a variant's phase in which the model is freed."""

PROMPT = "a deep punchy kick drum"
ORDER = RenderOrder(
    inputs=PromptInputs(prompt=PROMPT),
    seconds=2.0,
    steps=100,
    guidance=1.0,
    eta=0.0,
    scheduler="flow-euler",
    seeds=(1,),
)
Variant = Callable[[], AbstractContextManager[object]]


@contextmanager
def _without_pauses() -> Generator[None]:
    with mock.patch.object(LoadPacer, "pause", mock.Mock()):
        yield


@contextmanager
def _mapped_unread() -> Generator[None]:
    with mock.patch.object(component_loader, "read_into_page_cache", mock.Mock()):
        yield


VARIANTS: dict[str, Variant] = {
    "all measures": nullcontext,
    "loads don't pause": _without_pauses,
    "files are mapped unread": _mapped_unread,
}


class Steps:
    """Renders one sound after the other until `stop`.

    Attributes:
        gaps: Seconds between two steps, and the phase that was begun before: a variant's name or empty.
    """

    def __init__(self, model: LatentDiffusion, pacer: LoadPacer) -> None:
        self.gaps: list[tuple[float, str]] = []
        self._phase = ""
        self._model = model
        self._pacer = pacer
        self._stopped = threading.Event()

    def run(self) -> None:
        """Render in the calling thread."""
        torch.set_num_threads(1)
        while not self._stopped.is_set():
            generation = self._model.begin(ORDER)
            last: float | None = None
            while not generation.sampler.done:
                with self._pacer.step():
                    self._model.advance([generation])
                now = time.monotonic()
                if last is not None:
                    self.gaps.append((now - last, self._phase))
                last = now

    def begin(self, phase: str) -> None:
        """Begin a phase."""
        self._phase = phase

    def stop(self) -> None:
        """End `run` after the present sound."""
        self._stopped.set()


def _forget_files(folder: Path) -> None:
    """Remove the files of a folder from the page cache, posix_fadvise(2)."""
    for path in folder.rglob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def load_and_free(folder: Path, pacer: LoadPacer, deferred_free: DeferredFree, on_loaded: Callable[[], None]) -> None:
    """Load the model as an engine does, call `on_loaded`, and free it."""
    shared = SharedComponents()
    with pacer.load():
        inspected = checkpoint.inspect(folder, "large", "make it again")
        model = make_resident(inspected, "large", torch.device("cpu"), torch.float32, lambda _: None, shared)
    modules = list(model.modules)
    owners: list[object] = [model]
    del model
    on_loaded()
    freed = threading.Event()
    deferred_free.release(owners, modules, freed.set)
    freed.wait()


def measure(folder: Path) -> tuple[list[tuple[float, str]], dict[str, list[float]]]:
    """Return all gaps, and the seconds of each load and its release by variant."""
    pacer = LoadPacer()
    model = pocket.resident()
    with tempfile.TemporaryDirectory() as cache:
        queue = CompileQueue("auto", model.device, Path(cache), without_gil=pacer.without_gil)
        model.use_compile_queue(queue)
        for _ in range(3):
            model.render(ORDER, lambda _: None, lambda: False)
        queue.wait()
    steps, durations = Steps(model, pacer), {name: list[float]() for name in VARIANTS}
    thread = threading.Thread(target=steps.run)
    thread.start()
    torch.set_num_threads(1)
    deferred_free = DeferredFree(lambda: None)
    for _ in range(ROUND_COUNT):
        for name, variant in VARIANTS.items():
            _forget_files(folder)
            time.sleep(PAUSE_S)
            with variant():
                steps.begin(name)
                began = time.monotonic()
                load_and_free(folder, pacer, deferred_free, lambda name=name: steps.begin(name + RELEASE))
                durations[name].append(time.monotonic() - began)
                time.sleep(SETTLE_S)
                steps.begin("")
    steps.stop()
    thread.join()
    return steps.gaps, durations


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks load_parts")
    parser.add_argument("--folder", type=Path, help="an existing checkpoint in the published sizes")
    options, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or full_size.make(Path(place) / "base", "audioldm2", torch.float32)
        gaps, durations = measure(folder)
    usual = float(np.median([seconds for seconds, phase in gaps if not phase]))
    print(f"gaps between two steps of pocket / a usual step ({usual * 1e3:.1f} ms), {ROUND_COUNT} loads; {machine()}")
    print(f"  {'':34}   half  90 of 100  99 of 100  longest   load and release")
    for name in ("", *VARIANTS, *(name + RELEASE for name in VARIANTS)):
        lengths = np.array([seconds for seconds, phase in gaps if phase == name]) / usual
        half, most, nearly_all, longest = np.percentile(lengths, (50, 90, 99, 100))
        took = f"{np.median(durations[name]):.1f} s" if name in durations else ""
        print(f"  {name or 'no load':34} {half:6.2f} {most:10.2f} {nearly_all:10.2f} {longest:8.2f}   {took}")


if __name__ == "__main__":
    main()

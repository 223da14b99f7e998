"""The engine process: keeps models resident on one device and renders what the daemon orders.

Started by `link` as `python -m timbred.engine.worker`. It ends when its standard input closes, so that it never
outlives its daemon.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from timbred import __version__, errors
from timbred.engine import checkpoint, device, wire
from timbred.engine.adapters.families import make_resident
from timbred.engine.adapters.latent_diffusion import LatentDiffusion
from timbred.engine.adapters.loading import quiet_libraries
from timbred.engine.mailbox import Mailbox
from timbred.engine.pace import Pace
from timbred.engine.sampling import StoppedByRequest

log = logging.getLogger("timbred.engine")

FATAL = 70
"""Exit status after a fault of the device that only a new process can mend."""


class Engine:
    """One device, its resident models, and the orders carried out on it one after the other."""

    def __init__(self, chosen: device.Device, address: str, token: str, heartbeat: float) -> None:
        self.device = chosen
        self.token = token
        self.models: dict[str, LatentDiffusion] = {}
        self.sizes: dict[str, int] = {}
        self.pace = Pace()
        self.mailbox = Mailbox(address, heartbeat, self.beat)

    def run(self) -> None:
        """Carry out orders until told to quit."""
        self.mailbox.start()
        self.mailbox.send(
            wire.Ready(
                token=self.token,
                wire_version=wire.WIRE_VERSION,
                version=__version__,
                pid=os.getpid(),
                device=str(self.device.place),
                device_name=self.device.name,
                precision=self.device.precision_name,
            )
        )
        self.mailbox.send(self.beat())
        while True:
            match self.mailbox.orders.get():
                case wire.Quit():
                    break
                case wire.Load() as load:
                    self._answer(lambda load=load: self._load(load), model=load.model.name)
                case wire.Unload() as unload:
                    self._answer(lambda unload=unload: self._unload(unload.name), model=unload.name)
                case wire.Render() as render:
                    self._answer(lambda render=render: self._render(render), job=render.job)
                    self.mailbox.forget(render.job)
                case wire.Cancel():
                    raise AssertionError("the mailbox keeps cancellations")
        self.mailbox.close()

    def beat(self) -> wire.Beat:
        """The device's state now."""
        used, total = device.memory(self.device.place)
        resident = tuple(wire.ResidentModel(name=name, memory=size) for name, size in tuple(self.sizes.items()))
        return wire.Beat(memory_used=used, memory_total=total, resident=resident)

    def _answer(self, work: Callable[[], None], job: int | None = None, model: str | None = None) -> None:
        """Do the work; whatever goes wrong becomes one `Failed` with a wire code."""
        try:
            work()
        except StoppedByRequest:
            self.mailbox.send(wire.Cancelled(job=job or 0))
        except Exception as error:  # the process must outlive any fault of a model
            known = translate(error)
            if isinstance(known, errors.Internal | errors.ModelError):
                log.warning("%s", known, exc_info=error)
            self.mailbox.send(wire.Failed(code=known.code, message=str(known), job=job, model=model))
            self._free()
            if is_fatal(error):
                self.mailbox.close()
                sys.exit(FATAL)

    def _load(self, order: wire.Load) -> None:
        self._resident(order.model, lambda _fraction: None)
        self.mailbox.send(wire.Loaded(model=self._size_of(order.model.name)))

    def _size_of(self, name: str) -> wire.ResidentModel:
        return wire.ResidentModel(name=name, memory=self.sizes[name])

    def _unload(self, name: str) -> None:
        self.models.pop(name, None)
        self.sizes.pop(name, None)
        self._free()
        self.mailbox.send(wire.Unloaded(name=name))

    def _free(self) -> None:
        if self.device.place.type == "cuda":
            torch.cuda.empty_cache()

    def _resident(self, source: wire.ModelSource, progress: Callable[[float], None]) -> LatentDiffusion:
        if source.name not in self.models:
            found = checkpoint.inspect(_folder(source), source.name, "check the model's folder")
            if found.pickled:
                log.warning(
                    "%s: %s come as .bin files; convert them once with: timbred models convert %s",
                    source.name, ", ".join(found.pickled), source.name,
                )  # fmt: skip
            model = make_resident(found, source.name, self.device.place, self.device.precision, progress)
            self.models[source.name] = model
            self.sizes[source.name] = model.memory
            self.mailbox.send(wire.Loaded(model=self._size_of(source.name)))
        return self.models[source.name]

    def _render(self, render: wire.Render) -> None:
        job, order = render.job, render.order
        if self.mailbox.is_cancelled(job):
            raise StoppedByRequest
        model = self._resident(
            render.model, lambda fraction: self.mailbox.send(wire.Loading(job=job, fraction=fraction))
        )
        torch.use_deterministic_algorithms(order.exact, warn_only=False)
        timing = _Timing(self.pace, render)

        def on_step(step: int) -> None:
            remaining = timing.after_step(step)
            self.mailbox.send(wire.Step(job=job, step=step, steps=order.steps, remaining=remaining))

        sounds = model.render(order, on_step, lambda: self.mailbox.is_cancelled(job))
        timing.ended()
        rendered = wire.Rendered(job=job, rate=sounds.rate, channels=1, seeds=order.seeds)
        self.mailbox.send(rendered, *(memoryview(waveform).cast("B") for waveform in sounds.waveforms))


class _Timing:
    """Measures one render's steps and decoding, and from them what remains."""

    def __init__(self, pace: Pace, render: wire.Render) -> None:
        order = render.order
        self.pace = pace
        self.steps = order.steps
        self.work = (render.model.name, order.guidance > 1.0, len(order.seeds), round(order.seconds, 1))
        self.moment: float | None = None
        self.last = time.perf_counter()

    def after_step(self, step: int) -> float:
        now = time.perf_counter()
        if step > 1:  # the first one holds the text encoding
            self.pace.measured(("step", self.work), now - self.last)
        self.last = now
        left = self.steps - step
        return left * self.pace.expected(("step", self.work)) + self.pace.expected(("decode", self.work))

    def ended(self) -> None:
        self.pace.measured(("decode", self.work), time.perf_counter() - self.last)


def _folder(source: wire.ModelSource) -> Path:
    return Path(source.folder)


def translate(error: Exception) -> errors.TimbredError:
    """A fault of torch or a model as an error with a wire code."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in text:
        return errors.OutOfMemory(f"the device's memory is full ({text}); ask for fewer takes or a shorter sound")
    if isinstance(error, errors.TimbredError | OSError):
        return errors.from_foreign(error)
    return errors.ModelError(f"the model failed: {type(error).__name__}: {text[:300]}")


def is_fatal(error: Exception) -> bool:
    """Whether the device is beyond use for this process (a CUDA context never recovers from such a fault)."""
    return not isinstance(error, torch.OutOfMemoryError) and "CUDA error" in str(error)


def end_with_daemon() -> None:
    """Leave as soon as the daemon closes our standard input, however it ended."""

    def wait() -> None:
        while sys.stdin.buffer.read(1024):
            pass
        os._exit(0)

    threading.Thread(target=wait, name="end-with-daemon", daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    """The process's entry. Exit status 2 when the device can't be used."""
    parser = argparse.ArgumentParser(prog="timbred-engine")
    parser.add_argument("--address", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--heartbeat", type=float, default=1.0)
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches us too; the daemon decides
    end_with_daemon()
    quiet_libraries()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        chosen = device.choose(options.device)
    except errors.BadRequest as error:
        log.error("%s", error)
        return 2
    Engine(chosen, options.address, options.token, options.heartbeat).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

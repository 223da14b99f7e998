"""One part of `python -m benchmarks gpu`, in a process of its own: `python -m benchmarks.gpu_parts PART MODEL ...`.

A fault of the device ends its process only, and what was measured before is kept.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks import (
    cancelling,
    first_sound,
    floor,
    full_size,
    gpu_checks,
    live_wait,
    overhead,
    restart,
    text_stage,
    three_models,
    throughput,
)
from benchmarks.daemon import Client
from benchmarks.gpu_report import BASE, SMALL, PartReport
from benchmarks.measurement import Measurement, compare_medians
from benchmarks.subject import Subject
from timbred.engine.device import ComputeDevice, choose_device
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import quiet_libraries

COMPILE_SHARE = 0.5
"""Part of a part's time that compilation may take; it continues while other rows are measured."""

NEEDS_CUDA = "needs a GPU with CUDA"


@dataclass(frozen=True)
class Sizes:
    """Sounds of the models, and numbers of repetitions."""

    seconds: dict[str, float]
    base_steps: int
    rounds: int
    sounds: int


FULL = Sizes({BASE: 10.24, SMALL: 5.0}, 20, 12, restart.WARM_UP_SOUND_COUNT)
TINY = Sizes({BASE: 0.3, SMALL: 0.3}, 4, 3, 4)


@dataclass(frozen=True)
class Options:
    """Options of a part; `folder` has the checkpoints, `cache` the compiled calls."""

    model: str
    folder: Path
    cache: Path
    is_tiny: bool
    limit_s: float
    started_at: float

    @property
    def sizes(self) -> Sizes:
        """Sizes of the measurements."""
        return TINY if self.is_tiny else FULL

    @property
    def subject(self) -> Subject:
        """The model to measure."""
        seconds = self.sizes.seconds[self.model]
        if self.model == BASE:
            return Subject(BASE, seconds, self.sizes.base_steps, 3.5, self.folder / full_size.MODEL_NAMES[0])
        return Subject(SMALL, seconds, 8, 1.0, self.folder / SMALL, "ping-pong")

    @property
    def compile_timeout_s(self) -> float:
        """Seconds that are left for compilation."""
        return max(1.0, COMPILE_SHARE * self.limit_s - (time.monotonic() - self.started_at))


def write_checkpoints(options: Options, _report: PartReport) -> None:
    """Write the checkpoints of both models."""
    if not options.is_tiny:
        full_size.make(options.folder / full_size.MODEL_NAMES[0], full_size.MODEL_NAMES[0], torch.bfloat16)
        full_size.make_stable_audio_3_small(options.folder / SMALL)
        return
    from tests import checkpoints  # only there are tiny ones

    base = checkpoints.audioldm2(options.folder / full_size.MODEL_NAMES[0])
    for seed, name in enumerate(full_size.MODEL_NAMES[1:], start=1):
        whole = checkpoints.audioldm2(options.folder / f"{name}-whole", seed)
        full_size.link_all_but_unet(base, options.folder / name)
        shutil.copytree(whole / "unet", options.folder / name / "unet")
    checkpoints.stable_audio_3(options.folder / SMALL)


def measure_engine(options: Options, report: PartReport) -> None:
    """Measure rows with the engine in this process."""
    subject, device = options.subject, choose_device("auto")
    exact_latents = _measure_exactly(report, subject, device)
    model = subject.resident()

    def compare(precision: torch.dtype) -> Measurement:
        compared = model if precision == device.precision else subject.resident(replace(device, precision=precision))
        latents = gpu_checks.denoise(compared, subject.order(0))
        detail = f"latents after {subject.steps} steps in {str(precision).removeprefix('torch.')}"
        return Measurement(gpu_checks.rms_difference(latents, exact_latents), detail)

    report.measure("bfloat16", lambda: compare(torch.bfloat16))
    report.measure("text_stage", lambda: text_stage.measure(model, options.sizes.rounds))
    flops = floor.count_flops(model, subject)
    is_compiled = floor.compile_model(model, subject, options.cache, options.compile_timeout_s)
    report.measure("compiled", lambda: compare(device.precision))
    report.measure("first_sound", lambda: first_sound.measure(model, subject, options.sizes.rounds))

    def measure_floor() -> Measurement:
        measured = floor.measure(model, subject, flops, floor.measure_peak_rate())
        return measured if is_compiled else replace(measured, detail=f"{measured.detail}; before compilation had ended")

    if device.torch_device.type == "cuda":
        report.measure("floor", measure_floor)
    else:
        report.skip("floor", f"{NEEDS_CUDA}: its goal is about a GPU's arithmetic")
    report.measure("out_of_memory", lambda: gpu_checks.check_out_of_memory(model, subject))


def _measure_exactly(report: PartReport, subject: Subject, device: ComputeDevice) -> torch.Tensor:
    """Measure rows with a float32 model; returns the latents of plain calls."""
    model, order = subject.resident(replace(device, precision=torch.float32)), subject.order(0)
    latents = gpu_checks.denoise(model, order)
    if device.torch_device.type == "cuda":
        report.measure("step_graphs", lambda: gpu_checks.check_step_graphs(model, order, latents))
    else:
        report.skip("step_graphs", f"{NEEDS_CUDA}: graphs are recorded there only")
    if model.begin(order).sampler.linear_steps() is None:
        report.skip("whole_render", f"the steps of {subject.scheduler} are no weighted sums and run one by one")
    elif device.torch_device.type == "cuda":
        report.measure("whole_render", lambda: gpu_checks.check_whole_render(model, order, latents))
    else:
        report.skip("whole_render", f"{NEEDS_CUDA}: renders are recorded there only")
    return latents


def measure_daemon(options: Options, report: PartReport) -> None:
    """Measure rows with a client of a daemon, some of them beside calls in this process."""
    subject, sizes = options.subject, options.sizes
    settings = [f"engine.cache={options.cache}", "queue.length=64", f"engine.jobs={throughput.CONCURRENT_COUNT}"]
    if options.is_tiny:
        settings += ["device.threads=1", "engine.spare=off"]
    with subject.daemon(*settings) as client:
        restart.render_often(subject, client, sizes.sounds)
        _measure_pairs(options, report, client)
        report.measure("throughput", lambda: throughput.measure(subject, client, max(1, sizes.rounds // 4)))
        report.measure("cancelling", lambda: cancelling.measure(subject, client, sizes.rounds))
        report.measure("live_wait", lambda: live_wait.measure(subject, client, sizes.rounds))
    with subject.daemon(*settings) as client:
        report.measure("restart", lambda: restart.measure(subject, client, sizes.sounds, sizes.rounds))


def _measure_pairs(options: Options, report: PartReport, client: Client) -> None:
    """Measure rows that compare requests with calls in this process."""
    subject = options.subject
    model = subject.resident()
    floor.compile_model(model, subject, options.cache, options.compile_timeout_s)

    def time_pairs(time_call: Callable[[LatentDiffusion, int], float]) -> list[tuple[float, float]]:
        seeds = range(options.sizes.rounds)
        return [(client.time_generate(**subject.keys(seed)), time_call(model, seed)) for seed in seeds]

    report.measure("overhead", lambda: overhead.summarize(time_pairs(subject.time_engine_call)))
    report.measure("default_path", lambda: compare_medians(time_pairs(subject.time_stock_pipeline)))


def measure_memory(options: Options, report: PartReport) -> None:
    """Measure the memory of three models that share components."""
    folders = three_models.write_checkpoints(options.folder, 1)
    report.measure("three_models", lambda: three_models.measure(folders).weights)


PARTS: dict[str, Callable[[Options, PartReport], None]] = {
    "checkpoints": write_checkpoints,
    "engine": measure_engine,
    "daemon": measure_daemon,
    "memory": measure_memory,
}


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_parts")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("model")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args()
    quiet_libraries()
    if chosen.tiny:
        torch.set_num_threads(1)  # tiny models gain nothing from more
    options = Options(chosen.model, chosen.folder, chosen.cache, chosen.tiny, chosen.limit, time.monotonic())
    PARTS[chosen.part](options, PartReport(chosen.rows, chosen.model))


if __name__ == "__main__":
    main()

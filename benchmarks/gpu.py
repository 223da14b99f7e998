"""All figures of a GPU without supervision, in at most eight minutes: `python -m benchmarks gpu`.

It measures models in published sizes with random weights, compares the faster paths with plain calls, and fills the
memory. `gpu.json` and `gpu.md` in `--output` have a row for each figure and check, with the reason where one couldn't
be measured. Exit status 1 if a check doesn't hold, or if a figure or check is missing because of an error or the time
limit; standard error then lists them. `--tiny` measures tiny models, on any machine.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import torch

from benchmarks.gpu_report import BASE, SMALL, PartName, Report, Row, complete_rows, read_rows
from benchmarks.machine import machine
from timbred import __version__
from timbred.ipc.engine_client import ENGINE_ENVIRONMENT

LIMIT_S = 480.0
"""Default time limit in seconds."""

CLOSING_S = 15.0
"""Seconds before the limit at which the last process is ended, for its end and the report."""

END_TIMEOUT_S = 5.0
"""Seconds that processes of a part have to end after SIGTERM."""

SHARES: dict[tuple[PartName, str], float] = {
    ("engine", BASE): 130.0,
    ("daemon", BASE): 90.0,
    ("engine", SMALL): 80.0,
    ("daemon", SMALL): 70.0,
    ("memory", BASE): 40.0,
}
"""Parts in their order, with their shares of the time; time that a part doesn't need is left to the later ones."""

CHECKPOINTS_SHARE = 70.0

PART_PROGRAM = (sys.executable, "-m", "benchmarks.gpu_parts")
"""Command of a part."""


@dataclass(frozen=True)
class Folders:
    """Folders of the checkpoints, of the compiled calls, and of the parts' rows."""

    checkpoints: Path
    cache: Path
    rows: Path


def run_part(name: str, model: str, folders: Folders, limit_s: float, is_tiny: bool) -> tuple[list[Row], str]:
    """Run a part within a time limit; returns its rows, and the reason that others are missing."""
    path = folders.rows / f"{name}-{model}.json"
    command = [*PART_PROGRAM, name, model, "--limit", str(limit_s)]
    command += ["--folder", str(folders.checkpoints), "--cache", str(folders.cache), "--rows", str(path)]
    log_path = path.with_suffix(".log")
    with log_path.open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, *(["--tiny"] if is_tiny else [])],
            stdout=log,
            stderr=log,
            env={**os.environ, **ENGINE_ENVIRONMENT},
            start_new_session=True,
        )
        try:
            status = process.wait(max(0.0, limit_s))
        except subprocess.TimeoutExpired:
            return read_rows(path), f"the part ended after its {limit_s:.0f} s"
        finally:
            if process.poll() is None:
                _end_group(process)
    if status:
        last_line = (log_path.read_text("utf-8").strip().splitlines() or [""])[-1]
        return read_rows(path), f"failed: the part ended with status {status}: {last_line[:300]}"
    return read_rows(path), ""


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_parts(folders: Folders, limit_s: float, is_tiny: bool) -> list[Row]:
    """Run all parts; returns a row for each figure and check of each model."""
    ends_at = time.monotonic() + limit_s - CLOSING_S
    shares = list(SHARES.items())

    def allot(share: float, later: Sequence[tuple[object, float]]) -> float:
        remaining_s = max(0.0, ends_at - time.monotonic())
        return remaining_s * share / (share + sum(other for _, other in later))

    _, failure = run_part("checkpoints", "all", folders, allot(CHECKPOINTS_SHARE, shares), is_tiny)
    rows: list[Row] = []
    ends: dict[tuple[PartName, str], str] = {}
    for index, ((name, model), share) in enumerate(shares):
        if failure:
            ends[name, model] = f"the checkpoints couldn't be written: {failure}"
            continue
        began_at = time.monotonic()
        found, ends[name, model] = run_part(name, model, folders, allot(share, shares[index + 1 :]), is_tiny)
        rows += found
        elapsed_s = time.monotonic() - began_at
        print(
            f"{name} of {model}: {len(found)} rows in {elapsed_s:.0f} s; {ends[name, model]}".rstrip("; "),
            file=sys.stderr,
        )
    return complete_rows(rows, ends)


def _exit(*_: object) -> NoReturn:
    """End this process in a way that ends the part in progress too."""
    sys.exit("ended by SIGTERM")


def versions() -> dict[str, str]:
    """Return the versions of the packages that determine the figures."""
    cuda = {"CUDA": torch.version.cuda} if torch.version.cuda else {}
    return {"timbred": __version__, "torch": torch.__version__, "diffusers": version("diffusers"), **cuda}


def main() -> None:
    """Measure, write the report and print its tables; exits with status 1 if a row is missing or a check fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu")
    parser.add_argument("--output", type=Path, default=Path("build"), help="folder of gpu.json and gpu.md")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="time limit in seconds")
    parser.add_argument("--tiny", action="store_true", help="measure tiny models, on any machine")
    options = parser.parse_args()
    started_at = time.monotonic()
    if not torch.cuda.is_available() and not options.tiny:
        sys.exit("there is no GPU with CUDA here; --tiny runs everything on this machine with tiny models")
    signal.signal(signal.SIGTERM, _exit)
    with tempfile.TemporaryDirectory(prefix="timbred-gpu-") as temporary_folder:
        folders = Folders(*(Path(temporary_folder) / name for name in ("checkpoints", "cache", "rows")))
        for folder in (folders.checkpoints, folders.cache, folders.rows):
            folder.mkdir()
        rows = run_parts(folders, options.limit, options.tiny)
    elapsed_s = time.monotonic() - started_at
    report = Report(machine(), versions(), options.tiny, options.limit, elapsed_s, rows)
    report.write(options.output)
    print(report.to_markdown(), end="")
    if report.failure:
        sys.exit(report.failure)


if __name__ == "__main__":
    main()

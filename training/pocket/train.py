"""`python -m training.pocket.train`: all stages in order, each from where it stopped.

A stage that has had its minutes is left alone unless `--stage` names it; `--minutes` then says how much longer.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass

import torch

from training.pocket.latents import latents_path, load_codec, stored_encoder
from training.pocket.running import checkpoint_path, fingerprint
from training.pocket.settings import RUNS


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        module: what is run.
        minutes: usual time on two idle cores, or None for stages that end by themselves.
        done: files whose presence says that it has run.
    """

    module: str
    minutes: float | None
    done: tuple[str, ...] = ()


STAGES = {
    "codec": Stage("codec_training", 240.0),
    "text": Stage("text_training", 30.0),
    "latents": Stage("latents", None, (latents_path("training").name, latents_path("held-out").name)),
    "generator": Stage("generator_training", 600.0),
    "student": Stage("distillation", 120.0),
    "classifier": Stage("classifier", None, (checkpoint_path("classifier").name,)),
}
DOWNSTREAM = {"codec": ("latents", "generator", "student"), "text": ("generator", "student"), "generator": ("student",)}
"""Stages whose results belong to an older one: training it again makes them stale."""


def minutes_had(stage: str) -> float:
    """Minutes that a stage has been run for."""
    path = RUNS / f"{stage}.minutes"
    return float(path.read_text()) if path.exists() else 0.0


def codec_encoder() -> int | None:
    """Fingerprint of the trained encoder; None before there is one."""
    if not checkpoint_path("codec").exists():
        return None
    return fingerprint(load_codec(torch.device("cpu")).encoder.state_dict())


def run(name: str, minutes: float | None, options: list[str]) -> None:
    """Run one stage in a process of its own."""
    command = [sys.executable, "-m", f"training.pocket.{STAGES[name].module}", *options]
    if minutes is not None:
        command += ["--minutes", f"{minutes:g}"]
    print("$", " ".join(command[1:]), flush=True)
    subprocess.run(command, check=True, env=os.environ)
    if minutes is not None:
        (RUNS / f"{name}.minutes").write_text(f"{minutes_had(name) + minutes:g}")


def main() -> None:
    """Run what remains, or what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", action="append", choices=list(STAGES), help="only this; may be given several times")
    parser.add_argument("--minutes", type=float, help="for each timed stage named")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    for name in arguments.stage or STAGES:
        stage = STAGES[name]
        options = ["--threads", str(arguments.threads)]
        if name != "classifier":
            options += ["--device", arguments.device]
        if stage.minutes is None:
            stale = name == "latents" and stored_encoder() != codec_encoder()
            if arguments.stage or stale or not all((RUNS / file).exists() for file in stage.done):
                run(name, None, options)
            continue
        left = arguments.minutes if arguments.minutes is not None else stage.minutes - minutes_had(name)
        if left > 0:
            run(name, left, options)
    for name in arguments.stage or ():
        stale = [other for other in DOWNSTREAM.get(name, ()) if other not in arguments.stage]
        if stale:
            print(f"{name} has changed: run --stage {' --stage '.join(stale)} as well, they belong to the older one")


if __name__ == "__main__":
    main()

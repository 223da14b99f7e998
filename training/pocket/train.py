"""`python -m training.pocket.train`: run all stages in order, each from its checkpoint.

A stage that has run for its usual time is skipped unless `--stage` names it; `--minutes` is its additional time.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass

import torch

from training.pocket.bank import BANK
from training.pocket.codec import load_codec
from training.pocket.latents import latents_path, stored_encoder
from training.pocket.running import checkpoint_path, fingerprint, keep_stage, restore_stage
from training.pocket.settings import RUNS


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        module: its module.
        minutes: usual time on two idle cores, or None for stages that end without a time limit.
        done: files that exist once it has run.
        optional: True for a stage that runs only if `--stage` names it.
    """

    module: str
    minutes: float | None
    done: tuple[str, ...] = ()
    optional: bool = False


STAGES = {
    "codec": Stage("codec_training", 240.0),
    "text": Stage("text_training", 30.0),
    "bank": Stage("bank", None, (BANK.name,)),
    "latents": Stage("latents", None, (latents_path("training").name, latents_path("held-out").name)),
    "ear": Stage("ear_training", 4.0),
    "generator": Stage("generator_training", 600.0, optional=True),
    "classifier": Stage("classifier", None, (checkpoint_path("classifier").name,)),
}
DOWNSTREAM = {"codec": ("bank", "latents", "ear", "generator"), "text": ("generator",)}
"""Later stages whose results become stale when a stage is trained again."""


KEPT_STAGES = ("codec", "text", "ear", "classifier")
"""Stages whose weights are in the repository, so that a training on another machine needn't repeat them."""

ENCODED = frozenset({"bank", "latents"})
"""Stages whose results are made by the codec's encoder."""


def trained_minutes(stage: str) -> float:
    """Return the minutes that a stage has run in total."""
    path = RUNS / f"{stage}.minutes"
    return float(path.read_text()) if path.exists() else 0.0


def codec_encoder() -> int | None:
    """Return the fingerprint of the trained encoder; None if there is none."""
    if not checkpoint_path("codec").exists():
        return None
    return fingerprint(load_codec(torch.device("cpu")).encoder.state_dict())


def run(name: str, minutes: float | None, options: list[str]) -> None:
    """Run one stage in a child process."""
    command = [sys.executable, "-m", f"training.pocket.{STAGES[name].module}", *options]
    if minutes is not None:
        command += ["--minutes", f"{minutes:g}"]
    print("$", " ".join(command[1:]), flush=True)
    subprocess.run(command, check=True, env=os.environ)
    if minutes is not None:
        (RUNS / f"{name}.minutes").write_text(f"{trained_minutes(name) + minutes:g}")


def main() -> None:
    """Run the remaining stages, or the requested ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", action="append", choices=list(STAGES), help="run only this stage; may be repeated")
    parser.add_argument("--minutes", type=float, help="additional time of each requested stage")
    parser.add_argument(
        "--keep", action="store_true", help="write the weights of codec, text, ear and classifier to the repository"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    if arguments.keep:
        for name in KEPT_STAGES:
            print(keep_stage(name))
        return
    for name in KEPT_STAGES:
        if restore_stage(name):
            (RUNS / f"{name}.minutes").write_text(f"{STAGES[name].minutes or 0:g}")
            print(f"{name}: continued from the weights in the repository")
    for name in arguments.stage or [name for name, stage in STAGES.items() if not stage.optional]:
        stage = STAGES[name]
        options = ["--threads", str(arguments.threads)]
        if name != "classifier":
            options += ["--device", arguments.device]
        if stage.minutes is None:
            stale = name in ENCODED and stored_encoder(RUNS / stage.done[0]) != codec_encoder()
            if arguments.stage or stale or not all((RUNS / file).exists() for file in stage.done):
                run(name, None, options)
            continue
        left = arguments.minutes if arguments.minutes is not None else stage.minutes - trained_minutes(name)
        if left > 0:
            run(name, left, options)
    for name in arguments.stage or ():
        stale = [other for other in DOWNSTREAM.get(name, ()) if other not in arguments.stage]
        if stale:
            print(f"{name} has changed: also run --stage {' --stage '.join(stale)}, whose results are stale now")


if __name__ == "__main__":
    main()

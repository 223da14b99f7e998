"""What the engine would run on, as JSON on standard output: `python -m timbred.engine.probe --device auto`.

A program of its own, so that the command line needs no torch to ask.
"""

import argparse
import json
import sys

import torch

from timbred import errors
from timbred.engine import device


def probe(wanted: str) -> dict[str, object]:
    """The device's name, precision and memory in bytes; or `error`."""
    try:
        chosen = device.choose(wanted)
    except errors.BadRequest as error:
        return {"error": str(error)}
    used, total = device.memory(chosen.place)
    return {
        "device": str(chosen.place),
        "name": chosen.name,
        "precision": chosen.precision_name,
        "memory_used": used,
        "memory_total": total,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="timbred-probe")
    parser.add_argument("--device", default="auto")
    json.dump(probe(parser.parse_args().device), sys.stdout)

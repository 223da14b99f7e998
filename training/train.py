"""Train all stages in order, each resuming from its checkpoint: `python -m training.train`.

Stages: codec (autoencoder), decoder (continues its decoder), vocoder, text, latents, diffusion, guidance, export.
`--stage NAME` runs one stage, `--minutes N` sets its time budget, `--device auto` uses a GPU if there is one.
"""

import argparse
import importlib
import time
from collections.abc import Callable

import torch

from training.runtime import choose_device

STAGES = ("codec", "decoder", "vocoder", "text", "latents", "diffusion", "guidance", "export")
MODULES = {
    "codec": "training.codec",
    "decoder": "training.decoder_training",
    "vocoder": "training.vocoder_training",
    "text": "training.text_training",
    "latents": "training.latents",
    "diffusion": "training.diffusion",
    "guidance": "training.guidance",
    "export": "training.export",
}


def main() -> None:
    """Run the requested stages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=STAGES, action="append", help="run only this stage (may be repeated)")
    parser.add_argument("--minutes", type=float, default=None, help="time budget of each stage instead of its default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 keeps PyTorch's default")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    for stage in arguments.stage or STAGES:
        started = time.monotonic()
        run: Callable[[torch.device, float | None], None] = importlib.import_module(MODULES[stage]).train
        run(device, arguments.minutes)
        print(f"{stage} done in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()

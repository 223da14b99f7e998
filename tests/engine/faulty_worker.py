"""The real engine on a device with memory for a limited number of network rows times latent frames.

TIMBRED_TEST_ROOM sets the limit; beyond it, allocations fail as on a full device.
"""

import os
import sys
from dataclasses import replace

import torch

from timbred.engine import __main__, model_manager
from timbred.engine.families import audioldm


def main() -> int:
    room = int(os.environ["TIMBRED_TEST_ROOM"])
    plainly = audioldm.AUDIOLDM.signature.evaluate

    def evaluate(unet: torch.nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
        wanted = inputs[0].shape[0] * inputs[0].shape[2]
        if wanted > room:
            raise torch.OutOfMemoryError(f"tried to allocate {wanted} rows of {room}")
        return plainly(unet, *inputs)

    spec = audioldm.AUDIOLDM
    faulty = replace(spec, signature=replace(spec.signature, evaluate=evaluate))
    model_manager.spec_of = lambda family: faulty
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())

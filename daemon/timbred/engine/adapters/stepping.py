"""Steps: several runs of a model take theirs together, each on its own way."""

from collections.abc import Sequence

import torch

from timbred.engine.adapters.codec import Codec
from timbred.engine.adapters.conditioning import together
from timbred.engine.adapters.extending import next_window
from timbred.engine.adapters.looping import lay_out, shows
from timbred.engine.adapters.network import Network
from timbred.engine.adapters.run import Run


def step_together(runs: Sequence[Run], network: Network, codec: Codec) -> None:
    """Take several runs one evaluation further; loops see on the way which of their takes go around."""
    inputs = [run.network_input() for run in runs]
    prediction = _predicted(runs, inputs, network)
    for run, part in zip(runs, prediction.split([len(rows) for rows in inputs]), strict=True):
        run.sampling.advance(run.guided(part))
        if shows(run):
            lay_out(run, codec)


def _predicted(runs: Sequence[Run], inputs: list[torch.Tensor], network: Network) -> torch.Tensor:
    """What the network says to all of them, in one call."""
    timesteps = [run.sampling.timestep.expand(len(rows)) for run, rows in zip(runs, inputs, strict=True)]
    levels = torch.cat(timesteps).to(network.device)
    conditioning = together([run.conditioning for run in runs])
    around = [run.around for run in runs if run.around is not None]
    circles = torch.cat(around).to(network.device) if around else None
    return network(torch.cat(inputs), levels, conditioning, circles).float()


def next_steps(run: Run, codec: Codec) -> None:
    """Of a sound that is continued: join what the steps made, and begin those of the next window if there is one."""
    if run.extension is None:
        return
    run.extension.take(run.sampling.latents, codec.spectrogram(run.sampling.latents))
    if run.extension.left:
        run.begin_steps(*next_window(run.extension, run.randomness, codec.device))

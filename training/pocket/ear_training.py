"""`python -m training.pocket.ear_training`: train the ear, from its checkpoint if there is one.

The ear predicts classes of the text encoder from the mean and the deviation of a sound's latents over time, so that
takes can be compared with a prompt and with each other.
"""

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from timbred.engine.families.pocket_networks import EAR_CLASSES, Ear, summarise_latents
from timbred.models.pocket import EarSizes
from training.pocket.labels import NO_CLASS, labels_of
from training.pocket.latents import Latents
from training.pocket.running import Clock, choose_device, load_checkpoint, log_figures, save_checkpoint
from training.pocket.vocabulary import VOCABULARY

STAGE = "ear"
SEED = 51
BATCH = 256
LEARNING_RATE = 1e-3
NOISE = 0.1
"""Deviation of the noise that is added to inputs, which have unit variance over the latents."""


def new_ear(latent: int) -> Ear:
    """Return an untrained ear for latents of a size."""
    return Ear(VOCABULARY, EarSizes(), latent)


def load_ear(latent: int) -> Ear | None:
    """Load the trained ear; None if there is none."""
    state = load_checkpoint(STAGE)
    if state is None:
        return None
    ear = new_ear(latent)
    ear.load_state_dict(state["average"])
    return ear.eval().requires_grad_(False)


def summaries(latents: Latents) -> Tensor:
    """Return the summary of each sound, (sounds, 2 * latent)."""
    return torch.stack([summarise_latents(latents.vectors(index).T[None])[0] for index in range(len(latents))])


def targets_of(latents: Latents) -> dict[str, NDArray[np.int64]]:
    """Return the classes of each sound."""
    classes = labels_of(latents.sounds).classes
    return {name: classes[name] for name in EAR_CLASSES}


def loss_of(ear: Ear, inputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """Return the sum of the cross-entropies."""
    outputs = ear(inputs)
    losses = [
        nn.functional.cross_entropy(outputs[name], targets[name], ignore_index=NO_CLASS, reduction="sum")
        / (targets[name] != NO_CLASS).sum().clamp_min(1)
        for name in EAR_CLASSES
    ]
    return torch.stack(losses).sum()


@torch.no_grad()
def held_out_figures(ear: Ear, latents: Latents, device: torch.device) -> dict[str, float]:
    """Return the accuracy of each class for held-out sounds."""
    outputs, targets = ear(summaries(latents).to(device)), targets_of(latents)
    figures: dict[str, float] = {}
    for name in EAR_CLASSES:
        known = targets[name] != NO_CLASS
        right = outputs[name].argmax(-1).cpu().numpy() == targets[name]
        figures[name] = float(right[known].mean()) if known.any() else 0.0
    return figures


def train(minutes: float, device: torch.device) -> None:
    """Train for some minutes."""
    training, held_out = Latents("training"), Latents("held-out")
    inputs = summaries(training).to(device)
    targets = {name: torch.from_numpy(values).to(device) for name, values in targets_of(training).items()}
    ear = new_ear(training.codes.shape[1]).to(device)
    optimiser = torch.optim.AdamW(ear.parameters(), LEARNING_RATE, weight_decay=0.05)
    step = 0
    if state := load_checkpoint(STAGE):
        ear.load_state_dict(state["average"])
        if "optimiser" in state:  # missing after `restore_stage`
            optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    torch.manual_seed(SEED + step)

    def save() -> None:
        save_checkpoint(STAGE, average=ear.state_dict(), optimiser=optimiser.state_dict(), step=step)

    def measure() -> None:
        figures = held_out_figures(ear, held_out, device)
        log_figures("ear held-out", step, figures)
        print(f"ear held-out  step {step}  " + "  ".join(f"{key} {x:.3f}" for key, x in figures.items()), flush=True)

    clock = Clock(STAGE, minutes, save, measure, measure_seconds=60)
    going = True
    while going:
        chosen = torch.randint(len(inputs), (BATCH,), device=device)
        noisy = inputs[chosen] + NOISE * torch.randn(BATCH, inputs.shape[1], device=device)
        loss = loss_of(ear, noisy, {name: values[chosen] for name, values in targets.items()})
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        step += 1
        going = clock.tick(step, loss=float(loss.detach()))


def main() -> None:
    """Train the ear."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.minutes, choose_device(arguments.device))


if __name__ == "__main__":
    main()

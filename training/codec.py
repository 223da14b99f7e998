"""Stage `codec`: a variational autoencoder of log mels with 8 x 8 compression, diffusers' AutoencoderKL.

The latents are normalised to mean 0 and standard deviation 1 per channel. The statistics are folded into the 1 x 1
convolutions, so that `scaling_factor` is 1 (`fold_statistics`).
"""

from typing import Any

import numpy as np
import torch

from training import dataset
from training.components import AutoencoderKL
from training.data import ROW_FRAMES
from training.dataset import Sounds
from training.runtime import Budget, cosine_rate, half_precision, load_checkpoint, save_checkpoint
from training.settings import SETTINGS


def build() -> Any:
    """Create an untrained autoencoder. Its input is (batch, 1, frames, bands)."""
    settings = SETTINGS.codec
    levels = len(settings.block_channels)
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=settings.block_channels,
        layers_per_block=settings.layers_per_block,
        latent_channels=settings.latent_channels,
        norm_num_groups=settings.groups,
        sample_size=200,
        scaling_factor=1.0,
    )


def batch_of_mels(sounds: Sounds, random: np.random.Generator, device: torch.device) -> torch.Tensor:
    """Return random crops (batch, 1, frames, bands) of equal length, often from the start, where the attack is."""
    settings = SETTINGS.codec
    rows = settings.crop_rows if random.uniform() < 0.75 else 25
    count = settings.batch * settings.crop_rows // rows
    usable = np.flatnonzero(sounds.rows >= rows)
    crops = []
    for index in random.choice(usable, count):
        spare = int(sounds.rows[index] - rows)
        offset = 0 if random.uniform() < 0.6 else int(random.integers(spare + 1)) * ROW_FRAMES
        crops.append(sounds.mel_of(int(index))[offset : offset + rows * ROW_FRAMES])
    return torch.stack(crops)[:, None].to(device)


def train(device: torch.device, minutes: float | None = None) -> None:
    """Train the autoencoder, from its checkpoint if there is one."""
    settings = SETTINGS.codec
    torch.manual_seed(settings.seed)
    model = build().to(device)
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, betas=(0.9, 0.95), weight_decay=1e-3)
    state = load_checkpoint("codec")
    step = 0
    if state:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    sounds = dataset.load(dataset.training_paths(), audio=False)
    random = np.random.default_rng((settings.seed, step))
    model.to(memory_format=torch.channels_last)

    def save() -> None:
        save_checkpoint("codec", model=model.state_dict(), optimiser=optimiser.state_dict(), step=step)

    budget = Budget("codec", minutes or settings.minutes, save)
    going = True
    while going:
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * cosine_rate(budget.fraction, step, 100)
        mel = batch_of_mels(sounds, random, device).contiguous(memory_format=torch.channels_last)
        with half_precision(device):
            posterior = model.encode(mel).latent_dist
            decoded = model.decode(posterior.sample()).sample
        error = decoded.float() - mel
        absolute = error.abs().mean()
        divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).float().mean()
        loss = absolute + 2.0 * error.square().mean() + settings.kl_weight * divergence
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        going = budget.step(step, mel_error=absolute.item(), divergence=divergence.item())
    save()


def load(device: torch.device) -> Any:
    """Load the trained autoencoder with the statistics folded in.

    Raises:
        FileNotFoundError: It hasn't been trained.
    """
    state = load_checkpoint("codec")
    if state is None:
        raise FileNotFoundError("train the codec first: python -m training.train --stage codec")
    model = build()
    model.load_state_dict(state["model"])
    model.eval()
    sounds = dataset.load(dataset.training_paths()[:1], audio=False)
    fold_statistics(model, sounds)
    return model.to(device)


@torch.no_grad()
def fold_statistics(model: Any, sounds: Sounds, count: int = 240) -> None:
    """Normalise the latents per channel to mean 0 and deviation 1 in the 1 x 1 convolutions, measured with `sounds`."""
    collected = []
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        moments = model.encode(sounds.mel_of(index)[None, None]).latent_dist
        collected.append(moments.sample(generator)[0].flatten(1))
    latents = torch.cat(collected, dim=1)
    mean, deviation = latents.mean(1), latents.std(1)
    channels = len(mean)
    quant, post = model.quant_conv, model.post_quant_conv
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= deviation[None, :, None, None]
    quant.weight[:channels] /= deviation[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / deviation
    quant.bias[channels:] -= 2 * deviation.log()

"""Stage `decoder`: continue the training of the autoencoder's decoder with a frozen encoder, so that no latent changes.

The decoder's inputs are posterior means with some noise, similar to the output of the diffusion model.
"""

from typing import Any

import numpy as np
import torch

from training import codec, dataset
from training.runtime import Budget, cosine_rate, half_precision, load_checkpoint, save_checkpoint
from training.settings import SETTINGS


def train(device: torch.device, minutes: float | None = None) -> None:
    """Continue the codec's checkpoint and save it.

    Raises:
        FileNotFoundError: The codec hasn't been trained.
    """
    settings = SETTINGS.codec
    state = load_checkpoint("codec")
    if state is None:
        raise FileNotFoundError("train the codec first: python -m training.train --stage codec")
    model: Any = codec.build().to(device, memory_format=torch.channels_last)
    model.load_state_dict(state["model"])
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    parameters = [*model.decoder.parameters(), *model.post_quant_conv.parameters()]
    optimiser = torch.optim.AdamW(parameters, settings.decoder_learning_rate, betas=(0.9, 0.95), weight_decay=1e-3)
    step = state.get("decoder_step", 0)
    torch.manual_seed(settings.seed + step)
    random = np.random.default_rng((settings.seed, step, 1))
    sounds = dataset.load(dataset.training_paths(), audio=False)

    def save() -> None:
        save_checkpoint("codec", **{**state, "model": model.state_dict(), "decoder_step": step})

    budget = Budget("decoder", minutes or settings.decoder_minutes, save)
    going = True
    while going:
        for group in optimiser.param_groups:
            group["lr"] = settings.decoder_learning_rate * cosine_rate(budget.fraction, step, 50)
        mel = codec.batch_of_mels(sounds, random, device).contiguous(memory_format=torch.channels_last)
        with half_precision(device):
            with torch.no_grad():
                posterior = model.encode(mel).latent_dist
                noise = torch.randn_like(posterior.mean) * posterior.std
                latents = posterior.mean + settings.decoder_noise * noise
            decoded = model.decode(latents).sample
        error = decoded.float() - mel
        absolute = error.abs().mean()
        optimiser.zero_grad()
        (absolute + 2.0 * error.square().mean()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        going = budget.step(step, mel_error=absolute.item())
    save()

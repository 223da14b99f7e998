"""`python -m training.pocket.codec_training`: train the codec, from its checkpoint if there is one."""

import argparse
import math

import numpy as np
import torch
from torch import Tensor

from timbred.engine.codecs.bands import Frames, synthesise
from timbred.engine.families.pocket_networks import BandCodec
from timbred.models.pocket import SAMPLE_RATE
from training.pocket.codec import LOSS_WEIGHTS, reconstruction_losses
from training.pocket.features import Library, from_bytes, held_out_shards, training_shards
from training.pocket.measures import harmonics_to_noise, log_spectral_distance
from training.pocket.running import Average, Clock, choose_device, load_checkpoint, log_figures, save_checkpoint

STAGE = "codec"
SEED = 11
BATCH = 20
CROP_TOKENS = 16
LEARNING_RATE = 2e-3
WARMUP_STEPS = 200
HALVING_STEPS = 6000
KL_WEIGHT = 1e-4
LATENT_NOISE = 0.1
MEASURED_TONES = 24


def learning_rate(step: int) -> float:
    """Return the learning rate of a step: warm-up, then inverse square root of the step."""
    return LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) / math.sqrt(1 + step / HALVING_STEPS)


def loss_of(codec: BandCodec, channels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return the training loss of a batch, and its parts."""
    mean, spread = codec.encoder(channels)
    deviation = (0.5 * spread).exp() + LATENT_NOISE
    decoded = codec.decoder(mean + torch.randn_like(mean) * deviation)
    parts = reconstruction_losses(decoded, channels)
    divergence = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(-1).mean()
    total = sum(LOSS_WEIGHTS[name] * part for name, part in parts.items()) + KL_WEIGHT * divergence
    assert isinstance(total, Tensor)
    return total, {name: float(part.detach()) for name, part in parts.items()} | {"kl": float(divergence.detach())}


@torch.no_grad()
def held_out_figures(codec: BandCodec, library: Library, device: torch.device) -> dict[str, float]:
    """Return the losses of held-out sounds, and harmonics-to-noise ratios and distances of resynthesised tones."""
    random = np.random.default_rng(0)
    sums: dict[str, float] = {}
    count = 0
    for first in range(0, min(len(library), 192), BATCH):
        indices = range(first, min(first + BATCH, len(library)))
        batch = torch.stack([library.crop(index, CROP_TOKENS, random) for index in indices])
        channels = from_bytes(batch).to(device)
        mean, _ = codec.encoder(channels)
        parts = reconstruction_losses(codec.decoder(mean), channels)
        for name, part in parts.items():
            sums[name] = sums.get(name, 0.0) + float(part)
        count += 1
    figures = {f"held-out {name}": value / count for name, value in sums.items()}
    return figures | _tone_figures(codec, library, device)


def _tone_figures(codec: BandCodec, library: Library, device: torch.device) -> dict[str, float]:
    before, after, distances = list[float](), list[float](), list[float]()
    chosen = [
        index
        for index, sound in enumerate(library.sounds)
        if sound.source == "font" and sound.form == "note" and not sound.effects and sound.seconds > 1.2
    ]
    for index in chosen[:MEASURED_TONES]:
        channels = from_bytes(library.stored(index))
        decoded = codec.decoder(codec.encoder(channels[None].to(device))[0])[0].float().cpu()
        samples = int(library.sounds[index].seconds * SAMPLE_RATE)
        first, second = (synthesise(Frames.unstacked(part), samples).mean(0).numpy() for part in (channels, decoded))
        middle = slice(samples // 5, samples * 3 // 4)
        distances.append(log_spectral_distance(first, second))
        ratios = [harmonics_to_noise(part[middle]) for part in (first, second)]
        if math.isfinite(ratios[0]) and math.isfinite(ratios[1]):
            before.append(ratios[0])
            after.append(ratios[1])
    return {
        "hnr of bands": float(np.median(before)),
        "hnr of codec": float(np.median(after)),
        "log-spectral distance": float(np.mean(distances)),
    }


def train(minutes: float, device: torch.device, batch: int = BATCH, decoder_only: bool = False) -> None:
    """Train for some minutes; with `decoder_only`, the encoder is frozen and latents don't change."""
    codec = BandCodec().to(device)
    average = Average(codec, 0.999)
    optimiser = torch.optim.AdamW(codec.parameters(), LEARNING_RATE, (0.9, 0.98), weight_decay=0.01)
    step = 0
    if state := load_checkpoint(STAGE):
        codec.load_state_dict(state["codec"])
        average.weights = {name: value.to(device) for name, value in state["average"].items()}
        if "optimiser" in state:  # missing after `restore_stage`
            optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    if decoder_only:
        codec.encoder.requires_grad_(False)
        codec.encoder.load_state_dict(
            {
                name.removeprefix("encoder."): value
                for name, value in average.weights.items()
                if name.startswith("encoder.")
            }
        )
    library, held_out = Library(training_shards()), Library(held_out_shards())
    print(f"codec from step {step}: {len(library)} sounds, {sum(p.numel() for p in codec.parameters()):,} parameters")
    torch.manual_seed(SEED + step)
    random = np.random.default_rng((SEED, step))

    def save() -> None:
        save_checkpoint(
            STAGE, codec=codec.state_dict(), average=average.weights, optimiser=optimiser.state_dict(), step=step
        )

    def measure() -> None:
        nonlocal library
        averaged = BandCodec().to(device).eval()
        averaged.load_state_dict(average.weights)
        figures = held_out_figures(averaged, held_out, device)
        log_figures("codec held-out", step, figures)
        library = Library(training_shards())
        print(f"codec held-out  step {step}  " + "  ".join(f"{key} {x:.3f}" for key, x in figures.items()), flush=True)

    clock = Clock(STAGE, minutes, save, measure)
    going = True
    while going:
        indices = random.integers(len(library), size=batch)
        stored = torch.stack([library.crop(int(index), CROP_TOKENS, random) for index in indices])
        channels = from_bytes(stored.to(device))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step)
        with torch.autocast(device.type, torch.bfloat16):
            loss, parts = loss_of(codec, channels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimiser.step()
        step += 1
        average.update(codec, step)
        going = clock.tick(step, loss=float(loss.detach()), **parts)


def main() -> None:
    """Train the codec."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--decoder", action="store_true", help="train the decoder only; latents don't change")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="use one on a busy machine")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.minutes, choose_device(arguments.device), arguments.batch, arguments.decoder)


if __name__ == "__main__":
    main()

"""Stage `vocoder`: train the spectral vocoder with mels of sounds, then with mels decoded by the autoencoder.

The loss is a spectral energy distance (Gritsenko et al. 2020, arXiv 2008.01160): two renderings with different noise
must each be close to the target and as different from each other as two real sounds, so that noise isn't averaged out.
"""

from typing import Any

import numpy as np
import torch

from training import codec, dataset
from training.components import SpectralVocoder
from training.dataset import Sounds
from training.runtime import Budget, cosine_rate, half_precision, load_checkpoint, save_checkpoint
from training.settings import SETTINGS

RESOLUTIONS = (256, 512, 1024, 2048)


def build() -> Any:
    """Create an untrained vocoder."""
    settings, mel = SETTINGS.vocoder, SETTINGS.mel
    return SpectralVocoder(
        model_in_dim=mel.bands,
        sampling_rate=mel.sample_rate,
        upsample_rates=(8, 8, 5),
        channels=settings.channels,
        hidden=settings.hidden,
        blocks=settings.blocks,
        fft_size=settings.fft_size,
        noise_channels=settings.noise_channels,
    )


def magnitudes(samples: torch.Tensor) -> list[torch.Tensor]:
    """Return the STFT magnitudes of (batch, samples) at every resolution, scaled to about 0..1."""
    spectra = []
    for size in RESOLUTIONS:
        window = torch.hann_window(size, device=samples.device)
        spectrum = torch.stft(samples, size, size // 4, window=window, return_complex=True, pad_mode="constant")
        power = spectrum.real.square() + spectrum.imag.square()
        spectra.append(torch.sqrt(power + 1e-9) * (2.0 / window.sum()))
    return spectra


def distance(first: list[torch.Tensor], second: list[torch.Tensor]) -> torch.Tensor:
    """Return the mean difference of log magnitudes and of magnitudes over all resolutions."""
    total = torch.zeros((), device=first[0].device)
    for a, b in zip(first, second, strict=True):
        total = total + (torch.log(a + 1e-4) - torch.log(b + 1e-4)).abs().mean() + 20.0 * (a - b).abs().mean()
    return total / len(first)


def _crops(sounds: Sounds, random: np.random.Generator, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mel crops (batch, frames, bands) and their audio (batch, samples); half of them are from the start."""
    settings, hop = SETTINGS.vocoder, SETTINGS.mel.hop
    frames = settings.crop_frames
    usable = np.flatnonzero(sounds.rows * 8 >= frames)
    mels, audio = [], []
    for index in random.choice(usable, settings.batch):
        spare = int(sounds.rows[index]) * 8 - frames
        start = 0 if random.uniform() < 0.5 else int(random.integers(spare + 1))
        mels.append(sounds.mel_of(int(index))[start : start + frames])
        audio.append(sounds.audio_of(int(index))[start * hop : (start + frames) * hop])
    return torch.stack(mels).to(device), torch.stack(audio).to(device)


@torch.no_grad()
def through_codec(model: Any, sounds: Sounds) -> Sounds:
    """Return the sounds with mels that the autoencoder has encoded and decoded, from sampled latents."""
    restored = np.empty_like(sounds.mel)
    device = next(model.parameters()).device
    for rows in np.unique(sounds.rows):
        members = np.flatnonzero(sounds.rows == rows)
        for part in np.array_split(members, max(1, len(members) * int(rows) // 400)):
            mel = torch.stack([sounds.mel_of(int(index)) for index in part])[:, None].to(device)
            with half_precision(device):
                decoded = model.decode(model.encode(mel).latent_dist.sample()).sample
            for index, decoded_mel in zip(part, decoded[:, 0].float().cpu().numpy(), strict=True):
                start = int(sounds.starts[index])
                restored[start : start + len(decoded_mel)] = decoded_mel
    return Sounds(restored, sounds.rows, sounds.starts, sounds.recipes, sounds.audio)


def train(device: torch.device, minutes: float | None = None) -> None:
    """Train with mels of sounds once, then with two thirds of the crops decoded by the autoencoder."""
    settings = SETTINGS.vocoder
    state = load_checkpoint("vocoder")
    sounds = dataset.load(dataset.audio_paths(), audio=True)
    if state is None or not state["first_phase_done"]:
        _run(device, [sounds], (1.0,), minutes or settings.minutes, final=False)
    restored = through_codec(codec.load(device), sounds)
    _run(device, [sounds, restored], (0.33, 0.67), minutes or settings.finetune_minutes, final=True)


def _run(device: torch.device, sources: list[Sounds], weights: tuple[float, ...], minutes: float, final: bool) -> None:
    """Train for `minutes` with batches drawn from `sources` with probabilities `weights`."""
    settings = SETTINGS.vocoder
    torch.manual_seed(settings.seed)
    model = build().to(device)
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, betas=(0.8, 0.95), weight_decay=1e-3)
    state = load_checkpoint("vocoder")
    step = 0
    if state:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    random = np.random.default_rng((settings.seed, step))
    complete = final

    def save() -> None:
        save_checkpoint(
            "vocoder",
            model=model.state_dict(),
            optimiser=optimiser.state_dict(),
            step=step,
            first_phase_done=complete,
        )

    budget = Budget("vocoder" if not final else "vocoder (codec)", minutes, save)
    going = True
    while going:
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * cosine_rate(budget.fraction, step, 100)
        source = sources[int(random.choice(len(sources), p=weights))]
        mel, audio = _crops(source, random, device)
        noise = torch.randn(2 * len(mel), mel.shape[1], settings.noise_channels, device=device)
        with half_precision(device):
            rendered = model.synthesize(mel.repeat(2, 1, 1), noise)
        target = magnitudes(audio)
        spectra = magnitudes(rendered)
        first = [spectrum[: len(mel)] for spectrum in spectra]
        second = [spectrum[len(mel) :] for spectrum in spectra]
        to_target = distance(first, target) + distance(second, target)
        to_each_other = distance(first, second)
        loss = to_target - 0.9 * to_each_other
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        step += 1
        going = budget.step(step, to_target=to_target.item() / 2, to_each_other=to_each_other.item())
    complete = True
    save()


def load(device: torch.device) -> Any:
    """Load the trained vocoder.

    Raises:
        FileNotFoundError: It hasn't been trained.
    """
    state = load_checkpoint("vocoder")
    if state is None:
        raise FileNotFoundError("train the vocoder first: python -m training.train --stage vocoder")
    model = build()
    model.load_state_dict(state["model"])
    return model.eval().to(device)

"""`python -m training.pocket.classifier`: the classifier of kinds, trained with recordings that aren't training data.

A small convolutional network over log mels of two seconds. It is independent of the codec's representation.
"""

import argparse
import itertools
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from timbred.models.pocket import SAMPLE_RATE
from training.pocket.classes import CLASSES, PROGRAMS, SoundClass
from training.pocket.instruments import INSTRUMENTS
from training.pocket.render import render
from training.pocket.running import Average, load_checkpoint, save_checkpoint
from training.pocket.settings import RUNS
from training.pocket.sounds import Sound

STAGE = "classifier"
SEED = 51
SECONDS = 2.0
SAMPLES = int(SECONDS * SAMPLE_RATE)
TRAINING_SOUNDS, TEST_SOUNDS = 56, 6
"""Sounds of each class, from the other soundfont and from the soundfont of the training data."""
FFT, HOP, MELS = 2048, 512, 80
EPOCHS = 12
BATCH = 32
LEARNING_RATE = 2e-3
_BY_KIND = {row.kind: row for row in INSTRUMENTS}


def draw_sound(row: SoundClass, random: np.random.Generator, source: str) -> Sound:
    """Draw one sound of a class, with a note in the instrument's range."""
    velocity = int(random.integers(60, 120))
    seconds = float(random.choice((1.0, 1.5, 2.0)))
    common: dict[str, Any] = {
        "source": source,
        "seconds": seconds,
        "seed": int(random.integers(2**31)),
        "velocity": velocity,
    }
    gate = seconds * 0.92
    if row.keys:
        key = int(random.choice(row.keys))
        kit = int(random.choice((0, 8, 16, 24, 25, 32, 40))) if key < 54 else 0
        events = ((0.0, gate, key, velocity),)
        return Sound(kind=row.name, form="hit", program=kit, drums=True, events=events, **common)
    kind = str(random.choice(row.kinds))
    bank, program = PROGRAMS[kind]
    instrument = _BY_KIND.get(kind)
    if instrument is None:
        events = ((0.0, gate, int(random.integers(56, 65)), velocity),)
        return Sound(kind=row.name, form="texture", bank=bank, program=program, events=events, **common)
    note = int(random.integers(instrument.low, instrument.high + 1))
    events = ((0.0, gate, note, velocity),)
    return Sound(kind=row.name, form="note", bank=bank, program=program, events=events, note=note, **common)


def draw_set(source: str, count: int) -> tuple[list[Sound], NDArray[np.int64]]:
    """Draw `count` sounds of every class; return them with the indices of their classes."""
    random = np.random.default_rng((SEED, len(source)))
    sounds = [draw_sound(row, random, source) for row in CLASSES for _ in range(count)]
    return sounds, np.repeat(np.arange(len(CLASSES)), count)


def mel_filters() -> Tensor:
    """Return triangular filters (bins, MELS) of equal distance in mel."""
    top = 2595 * math.log10(1 + 16_000 / 700)
    hertz = 700 * (10 ** (torch.linspace(20, top, MELS + 2) / 2595) - 1)
    bins = torch.arange(FFT // 2 + 1) * (SAMPLE_RATE / FFT)
    rising = (bins[:, None] - hertz[:-2]) / (hertz[1:-1] - hertz[:-2])
    falling = (hertz[2:] - bins[:, None]) / (hertz[2:] - hertz[1:-1])
    return torch.minimum(rising, falling).clamp_min(0)


FILTERS = mel_filters()


def log_mel(samples: Tensor) -> Tensor:
    """Return log mels (batch, frames, MELS) of mono (batch, samples), cut or padded to two seconds and normalised."""
    cut = nn.functional.pad(samples[:, :SAMPLES], (0, max(0, SAMPLES - samples.shape[1])))
    cut = cut / (cut.abs().amax(1, keepdim=True) + 1e-6)
    spectrum = torch.stft(cut, FFT, HOP, window=torch.hann_window(FFT), return_complex=True)
    return ((spectrum.abs().square().transpose(1, 2) @ FILTERS).clamp_min(1e-6).log10() + 2.0) / 3.0


class Classifier(nn.Module):
    """Classifier of log mels; the Fréchet distance is computed with the vectors of `embed`."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(itertools.pairwise(widths)):
            layers += [nn.Conv2d(before, after, 3, stride=1 if number else 2, padding=1), nn.BatchNorm2d(after)]
            layers += [nn.ReLU(), nn.MaxPool2d(2) if number < 3 else nn.Identity()]
        self.layers = nn.Sequential(*layers)
        self.join = nn.Linear(2 * 128 * (MELS // 16), 128)
        self.drop = nn.Dropout(0.3)
        self.write = nn.Linear(128, len(CLASSES))

    def embed(self, mels: Tensor) -> Tensor:
        """Return embeddings (batch, 128) of log mels."""
        states = self.layers(mels[:, None])
        pooled = torch.cat((states.mean(2), states.amax(2)), 1).flatten(1)
        return torch.relu(self.join(pooled))

    def forward(self, mels: Tensor) -> Tensor:
        """Return logits (batch, classes) of log mels."""
        return self.write(self.drop(self.embed(mels)))


def rendered_mels(source: str, count: int) -> tuple[Tensor, Tensor]:
    """Return log mels and classes of a soundfont's sounds, cached in a file."""
    path = RUNS / f"mels-{source.replace(' ', '-')}-{count}.npz"
    if not path.exists():
        sounds, classes = draw_set(source, count)
        mels: list[Tensor] = []
        for first in range(0, len(sounds), 200):
            for audio in render(sounds[first : first + 200]):
                mels.append(log_mel(torch.from_numpy(audio.mean(0))[None])[0].half())
        np.savez(path, mels=torch.stack(mels).numpy(), classes=classes)
    with np.load(path) as stored:
        return torch.from_numpy(stored["mels"]).float(), torch.from_numpy(stored["classes"])


def augment(mels: Tensor, random: np.random.Generator) -> Tensor:
    """Tilt and shift the levels, delay the start, mask bands and times, and add noise."""
    tilt = torch.from_numpy(random.normal(0, 0.1, (len(mels), 1, 1)).astype(np.float32))
    slope = torch.linspace(-1, 1, MELS) * tilt
    shift = torch.from_numpy(random.normal(0, 0.08, (len(mels), 1, 1)).astype(np.float32))
    changed = torch.roll(mels, int(random.integers(0, 5)), 1) + slope + shift
    band, frame = int(random.integers(MELS - 8)), int(random.integers(mels.shape[1] - 16))
    changed[:, :, band : band + int(random.integers(8))] = changed.mean()
    changed[:, frame : frame + int(random.integers(16))] = changed.mean()
    return changed + 0.03 * torch.randn_like(changed)


def load_classifier() -> Classifier:
    """Load the trained classifier.

    Raises:
        FileNotFoundError: It hasn't been trained.
    """
    state = load_checkpoint(STAGE)
    if state is None:
        raise FileNotFoundError("the classifier isn't trained yet: run python -m training.pocket.classifier first")
    classifier = Classifier()
    classifier.load_state_dict(state["average"])
    return classifier.eval()


@torch.no_grad()
def measure_accuracy(classifier: Classifier, mels: Tensor, classes: Tensor) -> tuple[float, float]:
    """Return the top-1 and the top-3 accuracy."""
    best = torch.cat([classifier(part) for part in mels.split(64)]).topk(3, -1).indices
    hits = best == classes[:, None]
    return float(hits[:, 0].float().mean()), float(hits.any(-1).float().mean())


def train(epochs: int) -> None:
    """Train the classifier, unless it is trained already."""
    if load_checkpoint(STAGE) is not None:
        return
    mels, classes = rendered_mels("other font", TRAINING_SOUNDS)
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    classifier = Classifier()
    average = Average(classifier, 0.99)
    optimiser = torch.optim.AdamW(classifier.parameters(), LEARNING_RATE, weight_decay=0.02)
    steps = epochs * (len(mels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    step = 0
    for epoch in range(epochs):
        total = 0.0
        order = torch.from_numpy(random.permutation(len(mels)))
        for indices in order[: len(mels) // BATCH * BATCH].split(BATCH):
            logits = classifier(augment(mels[indices].clone(), random))
            loss = nn.functional.cross_entropy(logits, classes[indices], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            average.update(classifier, step)
            total += float(loss.detach())
        print(f"classifier  epoch {epoch + 1}  loss {total / (len(mels) // BATCH):.3f}", flush=True)
    classifier.load_state_dict(average.weights)
    classifier.eval()
    first, three = measure_accuracy(classifier, *rendered_mels("font", TEST_SOUNDS))
    print(f"classifier  soundfont of the training data: top-1 accuracy {first:.1%}, top-3 accuracy {three:.1%}")
    save_checkpoint(STAGE, average=average.weights, first=first, three=three)


def main() -> None:
    """Train the classifier."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.epochs)


if __name__ == "__main__":
    main()

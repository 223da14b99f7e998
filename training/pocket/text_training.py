"""`python -m training.pocket.text_training`: train the text encoder, from its checkpoint if there is one.

No audio is needed: the training predicts the labels of random descriptions from their captions.
"""

import argparse
import math
from collections.abc import Sequence

import numpy as np
import torch

from timbred.engine.families.pocket_networks import TextSide, tensors
from timbred.models.pocket_words import encode_words
from training.pocket.labels import NO_CLASS, labels_of
from training.pocket.running import Average, Clock, choose_device, load_checkpoint, log_figures, save_checkpoint
from training.pocket.sounds import Sound, draw
from training.pocket.text import label_losses, new_text_side
from training.pocket.vocabulary import CHOICES
from training.pocket.words import HELD_OUT_TEMPLATES, caption

STAGE = "text"
SEED = 21
BATCH = 128
LEARNING_RATE = 2e-3
WARMUP_STEPS = 100
HALVING_STEPS = 1500
POOL = 12_000
"""Descriptions that are drawn at the start of a run; captions are new in each step."""
EVALUATION_SOUNDS = 600
EMPHASIS = {"kind": 2.0, "note": 2.0, "effects": 40.0, "tempo": 8.0}


def learning_rate(step: int) -> float:
    """Return the learning rate of a step: warm-up, then inverse square root of the step."""
    return LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) / math.sqrt(1 + step / HALVING_STEPS)


def held_out_prompts(sounds: Sequence[Sound], seed: int) -> list[str]:
    """Return captions in held-out wordings that always name notes and chords."""
    random = np.random.default_rng(seed)
    texts = [caption(sound, random, rough=False, note_chance=1.0) for sound in sounds]
    return [HELD_OUT_TEMPLATES[index % len(HELD_OUT_TEMPLATES)].format(text) for index, text in enumerate(texts)]


@torch.no_grad()
def held_out_figures(side: TextSide) -> dict[str, float]:
    """Return the accuracy of each class, and the share of tempi within 1 %, for new sounds in held-out wordings."""
    random = np.random.default_rng((SEED, 999))
    sounds = [draw(random) for _ in range(EVALUATION_SOUNDS)]
    vectors = side.read_prompts(held_out_prompts(sounds, 1))
    labels = labels_of(sounds)
    figures: dict[str, float] = {}
    for name in CHOICES:
        targets = torch.from_numpy(labels.classes[name])
        right = side.heads[name](vectors).argmax(-1).cpu() == targets
        figures[name] = float(right[targets != NO_CLASS].float().mean())
    tempo = torch.from_numpy(labels.tempo)
    error = (side.tempo(vectors)[:, 0].cpu() - tempo).abs()[~tempo.isnan()]
    figures["tempo within 1 %"] = float((error < math.log2(1.01)).float().mean())
    return figures


def train(minutes: float, device: torch.device) -> None:
    """Train for some minutes."""
    side = new_text_side().to(device)
    average = Average(side, 0.998)
    optimiser = torch.optim.AdamW(side.parameters(), LEARNING_RATE, (0.9, 0.98), weight_decay=0.01)
    step = 0
    if state := load_checkpoint(STAGE):
        side.load_state_dict(state["text"])
        average.weights = {name: value.to(device) for name, value in state["average"].items()}
        if "optimiser" in state:  # missing after `restore_stage`
            optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    print(f"text from step {step}: {sum(p.numel() for p in side.parameters()):,} parameters", flush=True)
    torch.manual_seed(SEED + step)
    random = np.random.default_rng((SEED, step))
    pool = [draw(random) for _ in range(POOL)]

    def save() -> None:
        save_checkpoint(
            STAGE, text=side.state_dict(), average=average.weights, optimiser=optimiser.state_dict(), step=step
        )

    def measure() -> None:
        averaged = new_text_side().to(device).eval()
        averaged.load_state_dict(average.weights)
        figures = held_out_figures(averaged)
        log_figures("text held-out", step, figures)
        print(f"text held-out  step {step}  " + "  ".join(f"{key} {x:.3f}" for key, x in figures.items()), flush=True)

    clock = Clock(STAGE, minutes, save, measure, measure_seconds=240)
    going = True
    while going:
        sounds = [pool[int(index)] for index in random.integers(len(pool), size=BATCH)]
        prompts = [caption(sound, random) for sound in sounds]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step)
        vectors = side(*tensors(encode_words(prompts), device))
        losses = label_losses(side, vectors, labels_of(sounds))
        loss = sum(EMPHASIS.get(name, 1.0) * value for name, value in losses.items())
        assert isinstance(loss, torch.Tensor)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(side.parameters(), 1.0)
        optimiser.step()
        step += 1
        average.update(side, step)
        going = clock.tick(step, **{name: float(value.detach()) for name, value in losses.items()})


def main() -> None:
    """Train the text encoder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.minutes, choose_device(arguments.device))


if __name__ == "__main__":
    main()

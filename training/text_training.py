"""Stage `text`: train the text encoders with the labels of captions; no audio is needed.

The labels of a recipe are predicted linearly from the eight vectors of the language model, which the UNet attends to.
Each label is predicted from one assigned vector and from all eight, so that different vectors learn different labels.
The CLAP vector and the mean T5 state are trained with the same labels.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from training.captions import caption
from training.data import draw_recipe
from training.runtime import Budget, cosine_rate, half_precision, load_checkpoint, save_checkpoint
from training.settings import SETTINGS
from training.synthesis.kinds import KINDS
from training.synthesis.recipe import FLAGS, Recipe, draw
from training.text import CLAP_TOKENIZER, TextSide, train_tokenizers

KIND_INDEX = {name: index for index, name in enumerate(KINDS)}
PITCHED = [name for name, row in KINDS.items() if row.pitched]
WAYS = ("length", "pitch", "brightness", "edge", "motion", "space")
NOTES = 76
LOWEST_NOTE = 24
SIZES = {"kind": len(KINDS), **dict.fromkeys(WAYS, 3), "flags": len(FLAGS), "note": NOTES, "height": 1}
VECTOR = {
    "kind": 0,
    "length": 1,
    "pitch": 2,
    "note": 2,
    "height": 2,
    "brightness": 3,
    "edge": 4,
    "motion": 5,
    "space": 5,
    "flags": 6,
}


class LabelHeads(nn.Module):
    """Linear classifiers of every label; `forward` returns logits by name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in SIZES.items()})

    def forward(self, vectors: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
        """Return logits for `vectors`, (batch, width), the same for all labels or one for each."""
        return {
            name: head(vectors[name] if isinstance(vectors, dict) else vectors) for name, head in self.heads.items()
        }


class LabelClassifiers(nn.Module):
    """All classifiers: of the assigned vector, all eight vectors, the CLAP vector, the mean T5 state."""

    def __init__(self) -> None:
        super().__init__()
        settings = SETTINGS.text
        self.own = LabelHeads(settings.gpt_width)
        self.all = LabelHeads(settings.gpt_width * settings.generated_vectors)
        self.clap = LabelHeads(settings.clap_width)
        self.t5 = LabelHeads(settings.t5_width)

    def forward(self, generated: Tensor, states: Tensor, mask: Tensor, clap: Tensor) -> list[dict[str, Tensor]]:
        """Return the logits of the four groups of classifiers."""
        weight = mask[..., None].to(states.dtype)
        mean = (states * weight).sum(1) / weight.sum(1)
        own = {name: generated[:, VECTOR[name]] for name in SIZES}
        return [self.own(own), self.all(generated.flatten(1)), self.clap(8.0 * clap), self.t5(mean)]


def labels(recipes: list[Recipe], device: torch.device) -> dict[str, Tensor]:
    """Return the targets by name; unpitched kinds have note class 0 and height 0."""
    targets: dict[str, Tensor] = {"kind": torch.tensor([KIND_INDEX[recipe.kind] for recipe in recipes])}
    for way in WAYS:
        targets[way] = torch.tensor([getattr(recipe, way) + 1 for recipe in recipes])
    targets["flags"] = torch.tensor([[float(flag in recipe.flags) for flag in FLAGS] for recipe in recipes])
    notes = [recipe.note for recipe in recipes]
    targets["note"] = torch.tensor([0 if note is None else note - LOWEST_NOTE + 1 for note in notes])
    targets["height"] = torch.tensor([[0.0 if note is None else (note - 60) / 12] for note in notes])
    return {name: target.to(device) for name, target in targets.items()}


def loss_of(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """Return the sum of the losses of all labels."""
    total = nn.functional.cross_entropy(logits["kind"].float(), targets["kind"])
    for way in WAYS:
        total = total + nn.functional.cross_entropy(logits[way].float(), targets[way])
    total = total + 4 * nn.functional.binary_cross_entropy_with_logits(logits["flags"].float(), targets["flags"])
    total = total + nn.functional.cross_entropy(logits["note"].float(), targets["note"])
    return total + 0.5 * nn.functional.mse_loss(logits["height"].float(), targets["height"])


def same_length_batches(random: np.random.Generator) -> Iterator[tuple[list[Recipe], list[str]]]:
    """Yield batches of recipes and captions without end; the captions of a batch are about equally long.

    The language model's positions include padding, so a batch must be as short as a single prompt is.
    """
    size, pool = SETTINGS.text.batch, 6
    while True:
        # each note name is rare: half of the captions are of pitched kinds, and most of those name the note
        recipes = [
            draw(random, 64_000, str(random.choice(PITCHED))) if random.uniform() < 0.4 else draw_recipe(random)
            for _ in range(size * pool)
        ]
        prompts = [caption(recipe, random, note_chance=0.75) for recipe in recipes]
        order = np.argsort([len(prompt) for prompt in prompts])
        for part in random.permutation(pool):
            chosen = order[part * size : (part + 1) * size]
            yield [recipes[index] for index in chosen], [prompts[index] for index in chosen]


def train(device: torch.device, minutes: float | None = None) -> None:
    """Train the tokenizers if they don't exist, then the text encoders."""
    settings = SETTINGS.text
    if not CLAP_TOKENIZER.exists():
        train_tokenizers()
    torch.manual_seed(settings.seed)
    model, classifiers = TextSide().to(device), LabelClassifiers().to(device)
    parameters = [*model.parameters(), *classifiers.parameters()]
    optimiser = torch.optim.AdamW(parameters, settings.learning_rate, betas=(0.9, 0.98), weight_decay=1e-2)
    state = load_checkpoint("text")
    step = 0
    if state:
        model.load_state_dict(state["model"])
        classifiers.load_state_dict(state["teacher"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    random = np.random.default_rng((settings.seed, step, 1))
    batches = same_length_batches(random)

    def save() -> None:
        save_checkpoint(
            "text",
            model=model.state_dict(),
            teacher=classifiers.state_dict(),
            optimiser=optimiser.state_dict(),
            step=step,
        )

    budget = Budget("text", minutes or settings.minutes, save)
    going = True
    while going:
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * cosine_rate(budget.fraction, step, 100)
        recipes, prompts = next(batches)
        padding = int(random.integers(10)) if random.uniform() < 0.4 else 0
        tokens = {key: value.to(device) for key, value in model.tokenize(prompts, padding, limit=36).items()}
        with half_precision(device):
            generated, states, clap = model.encode(tokens)
            logits = classifiers(generated, states, tokens["t5_mask"], clap)
        targets = labels(recipes, device)
        losses = [loss_of(group, targets) for group in logits]
        optimiser.zero_grad()
        (losses[0] + losses[1] + 0.3 * losses[2] + 0.3 * losses[3]).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        right = (logits[0]["kind"].argmax(1) == targets["kind"]).float().mean().item()
        note_right = (logits[0]["note"].argmax(1) == targets["note"]).float().mean().item()
        going = budget.step(step, own=losses[0].item(), all=losses[1].item(), kind=right, note=note_right)
    save()


def load(device: torch.device) -> TextSide:
    """Load the trained text encoders.

    Raises:
        FileNotFoundError: They haven't been trained.
    """
    state = load_checkpoint("text")
    if state is None:
        raise FileNotFoundError("train the text encoders first: python -m training.train --stage text")
    model = TextSide()
    model.load_state_dict(state["model"])
    return model.eval().to(device)

"""Checks of single keys: capabilities that a model needs, steps of noise schedulers, and weights of words."""

import re
from math import nan

from timbred.errors import BadRequest
from timbred.models.families import Capability
from timbred.models.registry import Card
from timbred.protocol.messages import Generate

NEEDED_CAPABILITIES: dict[str, Capability] = {
    "negative": "negative",
    "weights": "weights",
    "init": "init",
    "start": "inpaint",
    "end": "inpaint",
    "low": "bands",
    "high": "bands",
    "regions": "inpaint",
    "extend": "extend",
    "loop": "loop",
    "lyrics": "lyrics",
    "language": "lyrics",
    "task": "task",
    "track": "task",
    "reference": "reference",
    "lora": "lora",
}
"""Keys of `generate`, and the capability that each needs."""

ABILITIES: dict[Capability, str] = {
    "negative": "read a negative prompt",
    "weights": "weigh words",
    "init": "start from audio",
    "inpaint": "regenerate a part of audio",
    "bands": "regenerate a band of frequencies alone",
    "extend": "continue audio",
    "loop": "render a loop",
    "lyrics": "sing",
    "task": "do tasks",
    "reference": "take the timbre of a sound",
    "lora": "use LoRAs",
}
"""Capabilities in words, for messages."""

STEPS: dict[str, tuple[int, int]] = {
    "ddim": (1, 999),
    "dpm++2m": (1, 990),
    "dpm++2m-karras": (1, 940),
    "lms": (1, 990),
    "pndm": (4, 999),
    "unipc": (1, 990),
}
"""Fewest and most steps of noise schedulers; 1 to 1000 for others. With more, two steps have the same noise level."""


def is_requested(value: object) -> bool:
    """Return True for the value of a key that the request has, 0 included; a flag that is off counts as absent."""
    return value is not None and value is not False


def check_capabilities(request: Generate, card: Card) -> None:
    """Refuse keys and schedulers that the model's family doesn't have.

    Raises:
        BadRequest: Names the key and the capability, or the schedulers that the model takes.
    """
    for key, capability in NEEDED_CAPABILITIES.items():
        value = getattr(request, key)
        if is_requested(value) and value != "" and capability not in card.capabilities:
            raise BadRequest(f"{key}: {card.name} can't {ABILITIES[capability]} ({capability}); use another model")
    if request.scheduler is not None and request.scheduler not in card.schedulers:
        raise BadRequest(f"scheduler: got {request.scheduler}, {card.name} takes {', '.join(card.schedulers)}")


def check_steps(steps: int, scheduler: str) -> None:
    """Refuse numbers of steps that a noise scheduler doesn't support.

    Raises:
        BadRequest: Names the number, and the fewest and most steps.
    """
    fewest, most = STEPS.get(scheduler, (1, 1000))
    if not fewest <= steps <= most:
        raise BadRequest(f"steps: got {steps}, {scheduler} takes {fewest} to {most}")


MIN_WEIGHT, MAX_WEIGHT = 0.0, 3.0
"""Range of a word's weight."""


def read_weights(text: str, prompt: str) -> tuple[tuple[str, float], ...]:
    """Read the value of `weights`: words of the prompt and their weights.

    >>> read_weights("bright:1.4 bell:0.6", "a bright bell")
    (('bright', 1.4), ('bell', 0.6))

    Raises:
        BadRequest: The prompt doesn't have a word, or a weight isn't a number from 0 to 3.
    """
    weights = tuple(_read_weight(pair, prompt) for pair in text.split())
    if not weights:
        raise BadRequest("weights: got no words; write them as in: @weights bright:1.4 bell:0.6")
    words = [word for word, _ in weights]
    for word in words:
        if words.count(word) > 1:
            raise BadRequest(f"weights: {word!r} has two weights; give it one")
    return weights


def _read_weight(pair: str, prompt: str) -> tuple[str, float]:
    word, colon, number = pair.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        weight = nan
    if not colon or not word or not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise BadRequest(
            f"weights: got {pair!r}, allowed is word:weight with a weight from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}"
        )
    if not has_word(prompt, word):
        raise BadRequest(f"weights: {word!r} isn't a word of the prompt {prompt[:80]!r}")
    return word, weight


def has_word(prompt: str, word: str) -> bool:
    """Tell if a text contains a word as a whole, in any case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE) is not None

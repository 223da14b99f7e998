"""Keys of `generate` that need more than a range: capabilities of the model, steps, weights of words, init audio. Pure.

The keys about init audio say what starts from `init`, what is kept of it, and what is taken from `reference`.
"""

import re
from itertools import pairwise
from math import inf, nan
from typing import Any

from timbred.dsp.splice import EditedPart
from timbred.errors import BadRequest
from timbred.ipc.engine_messages import Repaint
from timbred.models.families import Capability
from timbred.models.registry import Card
from timbred.protocol.keys import Recipe
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
    weight = _read_number(number)
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


REGION_KEYS = ("start", "end", "low", "high", "regions")
"""Keys that name what is regenerated of `init`; the rest is kept."""

INIT_KEYS = ("strength", *REGION_KEYS, "extend")
"""Keys that go only with `init`."""

NOT_WITH_EXTEND = ("strength", *REGION_KEYS, "seconds", "bars", "beats_per_bar", "trim")
"""Keys that don't go with `extend`, which keeps all of the init audio and sets the added length."""

MAX_REGIONS = 64
"""Regions of one request at most."""

DEFAULT_STRENGTH = 0.5
"""Default of `strength`; 1 for inpainted parts, and for tasks that are told what to keep."""

MAX_BAND_HZ = 96_000.0
"""Upper edge of an inpainted band that has none; above every model's highest frequency."""

ROUNDING_S = 1e-6
"""Seconds by which a region may end after the sound: rounding."""

INIT_TASKS = ("repaint", "cover", "extract", "lego", "complete")
"""Tasks that need `init`."""

PART_TASKS = ("repaint", "lego")
"""Tasks that regenerate a part of `init`."""


def repaints(request: Recipe) -> bool:
    """Tell if parts of the init audio are inpainted and the rest kept."""
    return any(getattr(request, key) is not None for key in REGION_KEYS)


def check_init_keys(request: Generate) -> None:
    """Check the keys about given sounds against each other.

    Raises:
        BadRequest: A key needs another one, or two contradict each other.
    """
    for key in INIT_KEYS:
        if getattr(request, key) is not None and request.init is None:
            raise BadRequest(f"{key}: it goes with init; name the sound to start from, as in: @init take")
    for key in NOT_WITH_EXTEND:
        if request.extend is not None and is_requested(getattr(request, key)):
            raise BadRequest(f"{key}: it doesn't go with extend, which keeps all of init and adds to it; leave one out")
    if request.init is not None and (request.noise is not None or request.loop):
        raise BadRequest(f"init: it doesn't go with {'noise' if request.noise is not None else 'loop'}; leave one out")
    for key in ("start", "end"):
        if request.regions is not None and getattr(request, key) is not None:
            raise BadRequest(f"{key}: it doesn't go with regions, which name all parts; leave one of them out")
    if request.task is not None:
        _check_task(request, request.task)


def _check_task(request: Generate, task: str) -> None:
    if task in INIT_TASKS and request.init is None:
        raise BadRequest(f"task: {task} needs a sound to work on; name it, as in: @init take")
    if task == "repaint" and request.extend is None and not repaints(request):
        raise BadRequest("task: repaint needs the parts to repaint; name them with @start and @end, or with @regions")
    if request.extend is not None and task != "repaint":
        raise BadRequest(f"extend: it is the task repaint, and task is {task}; leave one of them out")
    for key in REGION_KEYS:
        if getattr(request, key) is not None and task not in PART_TASKS:
            raise BadRequest(f"{key}: {task} has no parts; leave it out, or use the task repaint or lego")


def init_fields(request: Generate, seconds: float) -> dict[str, Any]:
    """Return the fields of `Parameters` for the init audio.

    Raises:
        BadRequest: The inpainted parts are empty, overlap, or lie outside the sound.
    """
    repaint = _inpainted_parts(request, seconds) if repaints(request) else ()
    edited: tuple[EditedPart, ...] = ()
    if request.extend is not None:
        edited = (EditedPart(seconds - request.extend, seconds),)
    elif request.task != "lego":
        # a band without an upper edge has no upper end
        highs = (inf if request.high is None else part.high for part in repaint)
        edited = tuple(
            EditedPart(part.start, part.end, part.low, high) for part, high in zip(repaint, highs, strict=True)
        )
    is_told_what_to_keep = bool(repaint) or request.task in INIT_TASKS
    strength = request.strength
    if strength is None:
        strength = 1.0 if is_told_what_to_keep else DEFAULT_STRENGTH
    return {
        "strength": None if request.init is None else strength,
        **{key: getattr(request, key) for key in ("start", "end", "low", "high", "extend")},
        "regions": request.regions or "",
        "repaint": repaint,
        "edited_parts": edited,
    }


def _inpainted_parts(request: Generate, seconds: float) -> tuple[Repaint, ...]:
    low = 0.0 if request.low is None else request.low
    high = MAX_BAND_HZ if request.high is None else request.high
    if low >= high:
        raise BadRequest(f"low, high: got {low:g} to {high:g} Hz; low must be the lower one")
    if request.regions is not None:
        regions = read_regions(request.regions, seconds)
    else:
        start = 0.0 if request.start is None else request.start
        end = seconds if request.end is None else request.end
        if start >= seconds or end > seconds + ROUNDING_S or start >= end:
            raise BadRequest(f"start, end: got {start:g} to {end:g} s, the sound has 0 to {seconds:g} s")
        regions = ((start, end),)
    return tuple(Repaint(start=start, end=end, low=low, high=high) for start, end in regions)


def read_regions(text: str, seconds: float) -> tuple[tuple[float, float], ...]:
    """Read the value of `regions`: start and end of each in seconds, in rising order.

    >>> read_regions("3-3.5 0.5-1.25", 4.0)
    ((0.5, 1.25), (3.0, 3.5))

    Raises:
        BadRequest: A region can't be read, is empty, lies outside the sound, or overlaps another one.
    """
    regions = sorted(_read_region(part, seconds) for part in text.split())
    if not 1 <= len(regions) <= MAX_REGIONS:
        raise BadRequest(f"regions: got {len(regions)}, allowed are 1 to {MAX_REGIONS}, as in: @regions 0.5-1.25 3-3.5")
    for (first, end), (start, last) in pairwise(regions):
        if start < end:
            raise BadRequest(f"regions: {first:g}-{end:g} and {start:g}-{last:g} overlap; join them or move one")
    return tuple(regions)


def _read_region(part: str, seconds: float) -> tuple[float, float]:
    first, dash, last = part.partition("-")
    start, end = _read_number(first), _read_number(last)
    if not dash or not 0.0 <= start < end <= seconds + ROUNDING_S:
        raise BadRequest(
            f"regions: got {part[:40]!r}, allowed is start-end in seconds from 0 to {seconds:g}, the start before the "
            "end, as in: @regions 0.5-1.25 3-3.5"
        )
    return start, end


def _read_number(text: str) -> float:
    """Return a number; NaN, which no range contains, for a text that is none."""
    try:
        return float(text)
    except ValueError:
        return nan

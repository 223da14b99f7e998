"""Keys about given sounds: what starts from `init`, what is kept of it, and what is taken from `reference`. Pure."""

from itertools import pairwise
from math import inf, nan
from typing import Any

from timbred.dsp.splice import EditedPart
from timbred.errors import BadRequest
from timbred.ipc.engine_messages import Repaint
from timbred.protocol.keys import Recipe
from timbred.protocol.messages import Generate
from timbred.requests.capabilities import is_requested

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
    try:
        return float(text)
    except ValueError:
        return nan

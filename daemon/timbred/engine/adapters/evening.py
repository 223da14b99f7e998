"""The level of a sound that is continued, from what was there to what is new.

A model has an idea of its own of how loud a sound is. Given one that is softer, it goes on louder within a third of a
second; and where it had to fit what is there, it is often a little softer than before and after. Both are heard as a
join when the sound is steady. So what is new is brought to the level of what it follows, as far as the difference is
more than the sound's own swelling: a rhythm, or a tone that dies away, stays as the model made it.
"""

import torch

BEFORE, AFTER = 0.35, 0.5
"""Seconds around the end of what is known in which a window finds its own level: there it is evened all along."""

FADING = 0.5
"""Seconds after them over which what evens becomes one gain for all that follows."""

COMPARED, LOOKED_AT = 1.0, 1.5
"""Seconds before and after, at most, whose levels are compared; and those in which it is seen how a sound swells."""

LEAST = 0.2
"""Seconds that must be there on both sides to know a level."""

SMOOTH = 0.3
"""Seconds over which levels are taken: what changes faster is part of the sound."""

MOST = 12.0
"""Decibels by which anything is made louder or softer at most."""

PEAKS = 1.5
"""How far moments may be off, times the root mean square: a slow sine reaches 1.41."""

OTHER, SURELY_OTHER = 15.0, 25.0
"""Decibels of difference from which on it is less and less likely the same sound that goes on, and none is evened."""


def evening(there: torch.Tensor, window: torch.Tensor, second: float) -> torch.Tensor:
    """What evens a window: decibels, (takes, frames), up to `MOST` either way; none without enough frames to compare.

    `there` are the powers of what is known, (takes, known), and `window` those of all the window, (takes, frames),
    the known ones first. A `second` has so many frames.
    """
    known, end = there.shape[1], window.shape[1]
    before, after, fading, compared, looked_at = (
        round(part * second) for part in (BEFORE, AFTER, FADING, COMPARED, LOOKED_AT)
    )
    first, last = known - before, known + after
    if min(first, end - last) < round(LEAST * second):
        return torch.zeros_like(window)
    earlier, then = there[:, max(0, first - compared) : first], window[:, last : last + compared]
    level, difference = _decibels(earlier.mean(dim=1, keepdim=True)), _decibels(then.mean(dim=1, keepdim=True))
    difference = difference - level
    levels_there = _decibels(_smooth(there[:, max(0, first - looked_at) : first], round(SMOOTH * second)))
    levels = _decibels(_smooth(window, round(SMOOTH * second)))
    slope, swelling = _moving(levels_there)
    swelling = torch.maximum(swelling, _moving(levels[:, last : last + looked_at])[1])

    places = torch.arange(end, device=window.device)
    ahead = slope * (places - first + earlier.shape[1] / 2)
    rest = slope * (last + then.shape[1] / 2 - first + earlier.shape[1] / 2)
    entering = ((places - first + 1) / before).clamp(0, 1)
    leaving = ((places - last) / fading).clamp(0, 1)
    moments = _beyond(levels - level, ahead, PEAKS * swelling) * entering
    gain = -(moments + (_beyond(difference, rest, swelling) - moments) * leaving).clamp(-MOST, MOST)
    return gain * ((SURELY_OTHER - difference.abs()) / (SURELY_OTHER - OTHER)).clamp(0, 1)


def _moving(levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """By how many decibels a frame a sound rises, as far as that is sure, and how far it is off that line, root mean
    square: both (takes, 1)."""
    places = torch.arange(levels.shape[1], device=levels.device, dtype=levels.dtype)
    places = places - places.mean()
    length = places.square().sum().clamp(min=1.0)
    centred = levels - levels.mean(dim=1, keepdim=True)
    slope = (centred * places).sum(dim=1, keepdim=True) / length
    swelling = (centred - slope * places).square().mean(dim=1, keepdim=True).sqrt()
    unsure = swelling / (length / len(places)).sqrt()  # a slope that such swelling may have by chance
    return _more_than(slope, unsure), swelling


def _beyond(difference: torch.Tensor, explained: torch.Tensor, swelling: torch.Tensor) -> torch.Tensor:
    """The part of a difference that neither goes on as the sound went nor is its own swelling."""
    explained = torch.minimum(explained.abs(), difference.abs()) * (explained * difference > 0)
    return _more_than(difference.sign() * (difference.abs() - explained), swelling)


def _more_than(value: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    """Nearly all of a value that is far larger than what chance makes of it, nothing of one that is smaller (James and
    Stein 1961)."""
    return value * (1.0 - chance.square() / value.square().clamp(min=1e-12)).clamp(min=0.0)


def _decibels(powers: torch.Tensor) -> torch.Tensor:
    return 10.0 * powers.clamp(min=1e-8).log10()


def _smooth(powers: torch.Tensor, frames: int) -> torch.Tensor:
    """Hann-weighted means over about so many frames of (takes, frames), at the ends over those that there are."""
    reach = frames // 2
    window = torch.hann_window(2 * reach + 3, periodic=False, device=powers.device)[1:-1][None, None]
    both = torch.stack([powers, torch.ones_like(powers)]).flatten(0, 1)[:, None]
    sums, weights = torch.nn.functional.conv1d(both, window, padding=reach)[:, 0].chunk(2)
    return sums / weights

"""A sound continued beyond its end, and beyond what a model makes at once: window by window.

Each window begins with the end of what is there; its latents are kept while the rest is made anew. Decoded, the new
part is joined to the old where both are the same sound.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

JOIN = 0.1
"""Seconds at the end of what is there that are crossfaded with the same moment as the window has it."""


@dataclass(frozen=True)
class Window:
    """Samples of what is there that a window begins with, and how many it adds."""

    known: int
    new: int


def windows(there: int, wanted: int, longest: int) -> list[Window]:
    """How a sound of `there` samples comes to `wanted` ones in windows of at most `longest`: each adds up to half."""
    found: list[Window] = []
    while there < wanted:
        new = min(max(1, longest // 2), wanted - there)
        found.append(Window(min(there, longest - new), new))
        there += new
    return found


@dataclass
class Extension:
    """A sound on its way: `samples` are all that is there so far, (takes, samples), at `rate` Hz."""

    samples: NDArray[np.float32]
    left: list[Window]
    rate: int
    done: int = 0

    @property
    def count(self) -> int:
        """Windows in all."""
        return self.done + len(self.left)

    def beginnings(self, room: int) -> torch.Tensor:
        """What the next window begins with, (takes, room). Its mirror image follows: after silence the model would
        hear that the sound ends."""
        known = self.samples[:, self.samples.shape[1] - self.left[0].known :]
        whole = np.concatenate([known, known[:, ::-1]], axis=1)
        return torch.from_numpy(whole[:, np.arange(room) % whole.shape[1]].copy())

    def take(self, made: NDArray[np.float32]) -> None:
        """Join the next window, (takes, known + new or more), to what is there."""
        window = self.left.pop(0)
        self.done += 1
        self.samples = joined(self.samples, made[:, : window.known + window.new], window.known, round(JOIN * self.rate))


def joined(there: NDArray[np.float32], more: NDArray[np.float32], known: int, longest: int) -> NDArray[np.float32]:
    """Two pieces, (takes, samples), of which the last `known` samples of the one and the first of the other are the
    same moments. Crossfaded over the last of these, at most `longest`, at even power however alike both are."""
    length = min(longest, known // 2)
    if length == 0:
        return np.concatenate([there, more[:, known:]], axis=1)
    leaves, enters = there[:, -length:], more[:, known - length : known]
    turn = (np.arange(length) + 0.5) / length * (np.pi / 2)
    leaving, entering = np.cos(turn), np.sin(turn)
    even = np.sqrt(1.0 + 2.0 * _likeness(leaves, enters)[:, None] * leaving * entering)
    blend = ((leaves * leaving + enters * entering) / even).astype(np.float32)
    return np.concatenate([there[:, :-length], blend, more[:, known:]], axis=1)


def _likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """The correlation of each take's two pieces, 0 (unlike) to 1 (the same)."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    energy = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return np.clip((first * second).sum(axis=1) / np.maximum(energy, 1e-12), 0.0, 1.0)

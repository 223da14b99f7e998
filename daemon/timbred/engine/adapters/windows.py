"""A sound made window by window: how windows are planned, what they begin with, and how they are joined.

Each begins with the end of what is there: its latents stay while the rest is made anew. Windows are joined as
spectrograms, which have no phases that could differ, each at the level of what it follows.
"""

from dataclasses import dataclass

import torch

from timbred.engine.adapters.evening import MOST, evening
from timbred.engine.adapters.spectrogram import Analysis, energy, louder

JOIN = 0.1
"""Seconds of spectrogram over which one window becomes the next, the last ones that both have."""

OVERLAP = 1.5
"""Seconds of the given sound's end that come with what was made, as far as there are so many: enough to tell by how
much the codec changes its level, which the last third of a second alone doesn't, for that is evened."""

YIELDING = 0.3
"""Seconds before the new part whose latents are let go one after the other, the last ones first: so both fit."""

SPARE = 0.12
"""Part of a window that is thrown away when another follows: a model lets its sounds die away at their end."""


@dataclass(frozen=True)
class Window:
    """Rows of latents: those that a window begins with, those it adds, and those after that are thrown away."""

    known: int
    new: int
    spare: int = 0

    @property
    def rows(self) -> int:
        """All of them."""
        return self.known + self.new + self.spare


def windows(there: int, more: int, longest: int) -> list[Window]:
    """How a sound of `there` rows (at least 1) gets `more`, in windows of at most `longest`; half of each is made."""
    found: list[Window] = []
    made, spare = max(1, longest // 2), round(SPARE * longest)
    while more > 0:
        new, after = (more, 0) if more <= made else (max(1, made - spare), min(spare, made - 1))
        known = min(there, max(1, longest - new - after))
        found.append(Window(known, new, after))
        there, more = known + new, more - new
    return found


@dataclass
class Extension:
    """A sound on its way.

    `latents` are those of what is there, (takes, channels, rows, bands), at least as many as the next window knows;
    `mel` is the spectrogram of all that was made, (takes, frames, bands), from the first window's beginning on, and
    `evened` by how many decibels its end was made louder to fit, (takes, 1). `given` and `wanted` are samples: of the
    given sound, and of the whole. A row of latents is `factor` frames of the spectrogram, which is the `analysis`'s.
    """

    latents: torch.Tensor
    left: list[Window]
    given: int
    wanted: int
    factor: int
    analysis: Analysis
    done: int = 0
    mel: torch.Tensor | None = None
    evened: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self._first_known = self.left[0].known * self.factor * self.analysis.hop

    @property
    def count(self) -> int:
        """Windows in all."""
        return self.done + len(self.left)

    @property
    def beginning(self) -> torch.Tensor:
        """The latents that the next window begins with, and their mirror image as far as it goes: after silence the
        model would hear that the sound ends."""
        window = self.left[0]
        known = self.latents[:, :, self.latents.shape[2] - window.known :]
        whole = torch.cat([known, known.flip(2)], dim=2)
        return whole[:, :, torch.arange(window.rows, device=known.device) % whole.shape[2]]

    @property
    def kept(self) -> torch.Tensor:
        """For what part of the steps the latents of the next window stay, (1, 1, rows, 1)."""
        window = self.left[0]
        yielding = min(round(YIELDING * self._second / self.factor), window.known // 2)
        kept = torch.zeros(window.rows)
        kept[: window.known] = 1
        kept[window.known - yielding : window.known] = torch.linspace(1, 0, yielding + 2)[1:-1]
        return kept[None, None, :, None]

    def with_window(self, mel: torch.Tensor) -> torch.Tensor:
        """All that there is once the next window is joined, whose spectrogram this is; rows that it spares not."""
        return self._joined(mel)[0]

    def take(self, latents: torch.Tensor, mel: torch.Tensor) -> None:
        """The next window is made: its latents, and its spectrogram."""
        self.mel, self.evened = self._joined(mel)
        window = self.left.pop(0)
        self.done += 1
        self.latents = latents[:, :, : window.known + window.new]

    @property
    def _second(self) -> float:
        """Frames of a second."""
        return self.analysis.rate / self.analysis.hop

    def _joined(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What there is with the next window, and by how many decibels its end was made louder."""
        window = self.left[0]
        known, end = window.known * self.factor, (window.known + window.new) * self.factor
        mel, takes = mel[:, :end], len(mel)
        so_far = torch.zeros(takes, 1, device=mel.device) if self.evened is None else self.evened[:takes]
        there = mel[:, :known] if self.mel is None else self.mel[:takes]
        powers = energy(mel, self.analysis) * 10.0 ** (so_far / 10.0)
        gain = so_far + evening(energy(there[:, -known:], self.analysis), powers, self._second)
        gain = gain.clamp(-MOST, MOST)
        even = louder(mel, gain[:, :, None], self.analysis)
        if self.mel is None:
            return even, gain[:, -1:]
        length = min(round(JOIN * self._second), known)
        share = ((torch.arange(length, device=mel.device) + 0.5) / length).to(mel.dtype)[:, None]
        leaves, enters = there[:, there.shape[1] - length :], even[:, known - length : known]
        blend = leaves + (enters - leaves) * share
        return torch.cat([there[:, : there.shape[1] - length], blend, even[:, known:]], dim=1), gain[:, -1:]

    @property
    def first(self) -> int:
        """The sample of the whole with which what was made begins."""
        return self.given - min(self.given, self._first_known, round(OVERLAP * self.analysis.rate))

    @property
    def begins(self) -> int:
        """The same sample as `mel` counts: from the first window's beginning on."""
        return self._first_known - (self.given - self.first)

"""How long a job will take, from how long others took. Pure."""

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from timbred.jobs.parameters import Parameters

NEWEST = 7
"""Measurements of which the middle one counts: one that was disturbed says nothing."""

ENOUGH = 3
"""Measurements that are relied on."""

REST = 5.0
"""Steps that all but the steps (the words, the decoder) counts as while that hasn't been timed."""


def sound_in(parameters: Parameters) -> float:
    """Seconds of sound that are made at once: of all takes."""
    return parameters.rendered_seconds * len(parameters.seeds)


def passes_in(parameters: Parameters) -> float:
    """Seconds of sound that go through the network in one step."""
    return sound_in(parameters) * (2 if parameters.guidance > 1 else 1)


@dataclass
class Estimates:
    """The pace of each model as last measured: seconds for a second of sound, in a step and in all else."""

    _steps: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])
    _rests: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])

    def measured(self, parameters: Parameters, step: float | None, rest: float | None) -> None:
        """A job of these parameters took so many seconds for each step, and for all but its steps; None where that
        wasn't seen."""
        if step is not None:
            _take_in(self._steps, parameters.model, step / passes_in(parameters))
        if rest is not None:
            _take_in(self._rests, parameters.model, rest / sound_in(parameters))

    def knows(self, model: str) -> bool:
        """Whether a step of this model has been timed."""
        return model in self._steps

    def is_sure(self, model: str) -> bool:
        """Whether a model has been timed often enough to rely on."""
        return min(len(self._steps.get(model, ())), len(self._rests.get(model, ()))) >= ENOUGH

    def of_step(self, parameters: Parameters) -> float:
        """Seconds that a step should take; 0 while none was timed."""
        return _middle(self._steps, parameters.model, 0.0) * passes_in(parameters)

    def of_rest(self, parameters: Parameters) -> float:
        """Seconds that all but the steps should take."""
        if parameters.model not in self._rests:
            return REST * self.of_step(parameters)
        return _middle(self._rests, parameters.model, 0.0) * sound_in(parameters)

    def expected(self, parameters: Parameters) -> float:
        """Seconds that a job should take; 0 while its model hasn't been timed."""
        return self.of_rest(parameters) + self.of_step(parameters) * parameters.steps


def _take_in(kept: dict[str, deque[float]], model: str, seconds: float) -> None:
    kept.setdefault(model, deque(maxlen=NEWEST)).append(seconds)


def _middle(kept: dict[str, deque[float]], model: str, default: float) -> float:
    """The middle one; of few the least, for a model's first sounds are its slowest."""
    if model not in kept:
        return default
    return median(kept[model]) if len(kept[model]) >= ENOUGH else min(kept[model])

"""How long a job will take, from how long others took. Pure."""

from dataclasses import dataclass, field

from timbred.jobs.parameters import Parameters

_NEWEST = 0.3
"""Weight of the newest measurement in the running means."""

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
    """Running means of the pace of each model: seconds for a second of sound, in a step and in all else."""

    _steps: dict[str, float] = field(default_factory=dict[str, float])
    _rests: dict[str, float] = field(default_factory=dict[str, float])

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

    def of_step(self, parameters: Parameters) -> float:
        """Seconds that a step should take; 0 while none was timed."""
        return self._steps.get(parameters.model, 0.0) * passes_in(parameters)

    def of_rest(self, parameters: Parameters) -> float:
        """Seconds that all but the steps should take."""
        rest = self._rests.get(parameters.model)
        return REST * self.of_step(parameters) if rest is None else rest * sound_in(parameters)

    def expected(self, parameters: Parameters) -> float:
        """Seconds that a job should take; 0 while its model hasn't been timed."""
        return self.of_rest(parameters) + self.of_step(parameters) * parameters.steps


def _take_in(means: dict[str, float], model: str, seconds: float) -> None:
    known = means.get(model)
    means[model] = seconds if known is None else known + _NEWEST * (seconds - known)

"""How long a job will take, from how long others took. Pure."""

from dataclasses import dataclass, field

from timbred.jobs.parameters import Parameters

_NEWEST = 0.3


def work_in(parameters: Parameters) -> float:
    """The amount of work in a job, in denoised seconds times steps; decoding counts as five steps."""
    passes = 2 if parameters.guidance > 1 else 1
    return parameters.rendered_seconds * len(parameters.seeds) * (parameters.steps * passes + 5)


@dataclass
class Estimates:
    """Running mean of the pace of each model, in seconds for a unit of work."""

    _paces: dict[str, float] = field(default_factory=dict[str, float])

    def measured(self, parameters: Parameters, seconds: float) -> None:
        """A job of these parameters took so many seconds."""
        pace = seconds / work_in(parameters)
        known = self._paces.get(parameters.model)
        self._paces[parameters.model] = pace if known is None else known + _NEWEST * (pace - known)

    def expected(self, parameters: Parameters) -> float:
        """Seconds that a job should take; 0 while its model hasn't been timed."""
        return self._paces.get(parameters.model, 0.0) * work_in(parameters)

"""How long things take here, learned from what was measured."""

from dataclasses import dataclass, field

from timbred.engine.kept import RecentDict

_NEWEST = 0.3
"""Weight of the newest measurement in the running mean."""

MAX_KINDS = 1024
"""Kinds of work that are known: the latest measured."""


@dataclass
class Pace:
    """Running means of durations in seconds, one for each kind of work.

    >>> pace = Pace()
    >>> pace.measured("step", 0.1)
    >>> pace.expected("step")
    0.1
    >>> pace.expected("decode")
    0.0
    """

    _means: RecentDict[object, float] = field(default_factory=lambda: RecentDict[object, float](MAX_KINDS))

    def measured(self, kind: object, seconds: float) -> None:
        """Take in one measurement."""
        mean = self._means.get(kind)
        self._means[kind] = seconds if mean is None else mean + _NEWEST * (seconds - mean)

    def expected(self, kind: object) -> float:
        """The mean so far, 0 when there is none."""
        return self._means.get(kind, 0.0)

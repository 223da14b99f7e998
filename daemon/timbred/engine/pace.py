"""How long things take here, learned from what was measured."""

from dataclasses import dataclass, field

_NEWEST = 0.3
"""Weight of the newest measurement in the running mean."""


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

    _means: dict[object, float] = field(default_factory=dict[object, float])

    def measured(self, kind: object, seconds: float) -> None:
        """Take in one measurement."""
        mean = self._means.get(kind)
        self._means[kind] = seconds if mean is None else mean + _NEWEST * (seconds - mean)

    def expected(self, kind: object) -> float:
        """The mean so far, 0 when there is none."""
        return self._means.get(kind, 0.0)

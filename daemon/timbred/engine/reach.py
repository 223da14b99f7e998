"""How long a sound the memory is enough for, learned from what worked here and what didn't. Pure."""

from dataclasses import dataclass, field


@dataclass
class Reach:
    """The longest sounds that worked, and the shortest that didn't, in seconds, by model.

    >>> reach = Reach()
    >>> reach.advice("m", 40.0)
    20.0
    >>> reach.worked("m", 12.0)
    >>> reach.failed("m", 30.0)
    >>> reach.advice("m", 40.0)
    12.0
    """

    _worked: dict[str, float] = field(default_factory=dict[str, float])
    _failed: dict[str, float] = field(default_factory=dict[str, float])

    def worked(self, model: str, seconds: float) -> None:
        """A sound of this length was made."""
        self._worked[model] = max(self._worked.get(model, 0.0), seconds)

    def failed(self, model: str, seconds: float) -> None:
        """One of this length found no room."""
        self._failed[model] = min(self._failed.get(model, seconds), seconds)

    def advice(self, model: str, seconds: float) -> float:
        """A length to try instead of `seconds`: what worked before, else half of what is known to be too long."""
        worked = self._worked.get(model, 0.0)
        return worked if 0.0 < worked < seconds else min(seconds, self._failed.get(model, seconds)) / 2

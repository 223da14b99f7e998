"""A measured figure."""

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Measurement:
    """A figure: its value, and the measurements behind it in words."""

    value: float
    detail: str


def format_ms(seconds: float) -> str:
    """Return a duration in milliseconds, with a digit after the point below 100 ms."""
    return f"{seconds * 1e3:.{0 if seconds >= 0.1 else 1}f}"


def compare_medians(pairs: list[tuple[float, float]]) -> Measurement:
    """Return the median ratio of durations in seconds that were measured in pairs."""
    first_s, second_s = median(first for first, _ in pairs), median(second for _, second in pairs)
    ratio = median(first / second for first, second in pairs)
    return Measurement(ratio, f"medians {format_ms(first_s)} and {format_ms(second_s)} ms")

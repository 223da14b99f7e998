"""Which takes are like one: by their sound where a model has heard both, else by the words of their prompts."""

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

import numpy as np

from timbred.library.words import likeness


class Spoken(Protocol):
    """What has an id and a prompt."""

    @property
    def take_id(self) -> str: ...
    @property
    def prompt(self) -> str: ...


SpokenT = TypeVar("SpokenT", bound=Spoken)


def cosines(one: bytes, others: Mapping[str, bytes]) -> dict[str, float]:
    """How near each direction lies to one, -1 to 1. All are float32 of length 1 and the same number of dimensions."""
    if not others:
        return {}
    found = np.stack([np.frombuffer(vector, "<f4") for vector in others.values()]) @ np.frombuffer(one, "<f4")
    return dict(zip(others, found.tolist(), strict=True))


def most_alike(prompt: str, takes: Iterable[SpokenT], heard: Mapping[str, float]) -> list[SpokenT]:
    """Takes by likeness: those in `heard` by their sound, then the others that share words with the prompt. The order
    of equals stays."""
    rated = [(take.take_id in heard, heard.get(take.take_id, likeness(prompt, take.prompt)), take) for take in takes]
    alike = [one for one in rated if one[0] or one[1] > 0]
    return [take for _, _, take in sorted(alike, key=lambda one: one[:2], reverse=True)]

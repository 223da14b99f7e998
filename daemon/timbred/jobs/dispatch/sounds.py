"""The sounds in the engine's messages. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from timbred.engine import wire
from timbred.jobs.finishing import RawTake
from timbred.render.early import Piece


def takes_in(message: wire.Rendered, payload: Sequence[memoryview], take_id: str) -> list[RawTake]:
    """The takes in the order in which they are numbered: best first where they were ranked. `take_id` is what a single
    one is known by already."""
    takes: list[RawTake] = []
    for index, (seed, frame) in enumerate(zip(message.seeds, payload, strict=True)):
        score = message.scores[index] if message.scores else None
        looped = bool(message.looped) and message.looped[index]
        samples = _samples(frame, message.channels)
        takes.append(RawTake(index, samples, message.rate, seed, score, take_id, looped, message.first))
    return takes


def preview_in(message: wire.Preview, payload: Sequence[memoryview], seed: int) -> RawTake:
    """An early rendering, as a take that will never be one."""
    return RawTake(0, _samples(payload[0], message.channels), message.rate, seed, None, first=message.first)


def piece_in(message: wire.Piece, payload: Sequence[memoryview]) -> Piece:
    """A part of a sound that is still being made."""
    return Piece(
        samples=_samples(payload[0], message.channels),
        rate=message.rate,
        first=message.first,
        frames=message.frames,
        peak=message.peak,
        last=message.last,
    )


def _samples(frame: memoryview, channels: int) -> NDArray[np.float32]:
    return np.frombuffer(frame, dtype="<f4").reshape(-1, channels)

"""`exact`: a small model with a noise scheduler and the embedded model in a real engine process.

A take's seed alone reproduces its samples bit-exactly, regardless of the jobs before, after and beside it.
"""

import itertools
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.test_scheduler_pieces import render
from tests.ipc.test_engine_client import EventRecorder, engine
from timbred.ipc import engine_messages
from timbred.ipc.engine_client import ENGINE_PROGRAM, EngineLink
from timbred.models import registry

SEEDS = (5, 6, 7)

Samples = dict[int, bytes]
"""A take's samples by its seed."""


def tone(strength: float) -> engine_messages.InitAudio:
    """A tone of about a second at the models' rates."""
    samples = (0.3 * np.sin(np.arange(20_000) / 20)).astype("<f4")
    return engine_messages.InitAudio(samples=samples.tobytes(), strength=strength)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "guided": {"guidance": 3.0, "inputs": engine_messages.PromptInputs(prompt="snare drum", negative="hiss")},
    "loop": {"loop": True, "inputs": engine_messages.PromptInputs(prompt="warm pad")},
    "init_audio": {"init_audio": tone(0.6)},
    "continued": {"init_audio": tone(1.0), "seconds": 1.7, "window": 1.5},
}

MODEL_KINDS = [
    *(("pocket", "flow-euler", kind) for kind in KINDS),
    *(("tiny", "dpm++2m", kind) for kind in KINDS),
    ("tiny", "euler-a", "plain"),
]
"""Models, their noise schedulers, of which the last one draws noise in each step, and kinds of sounds."""


class SharedEngine:
    """One engine process for all tests, with a number for each job."""

    def __init__(self, link: EngineLink, recorder: EventRecorder, folders: dict[str, Path]) -> None:
        self.link = link
        self._folders = folders
        self.recorder = recorder
        self._numbers = itertools.count(1)

    def exact(self, seeds: tuple[int, ...], model: str = "pocket", **changes: Any) -> int:
        """Send an exact job; return its number."""
        plain: dict[str, Any] = {
            "seconds": 1.0,
            "is_streamed": False,
            "exact": True,
            "steps": 4,
        }
        return self.send(model, **{**plain, **changes, "seeds": seeds})

    def send(self, model: str = "pocket", **changes: Any) -> int:
        number = next(self._numbers)
        self.link.send(render(self._folders[model], number, 1, **{"scheduler": "flow-euler", **changes}))
        return number

    async def rendered(self, job: int) -> Samples:
        """Return the takes of a job, once they are there."""
        while True:
            received = await self.recorder.next()
            if isinstance(received, tuple) and isinstance(received[0], engine_messages.JobFailed):
                raise AssertionError(received[0])
            if (
                isinstance(received, tuple)
                and isinstance(received[0], engine_messages.JobRendered)
                and received[0].job == job
            ):
                return {seed: bytes(frame) for seed, frame in zip(received[0].seeds, received[1], strict=True)}


@pytest.fixture(scope="module")
async def shared(audioldm2: Path) -> AsyncGenerator[SharedEngine]:
    folders = {"pocket": registry.pocket_folder(), "tiny": audioldm2}
    async with engine(ENGINE_PROGRAM) as (link, recorder):
        assert isinstance(await recorder.next(), engine_messages.EngineReady)
        yield SharedEngine(link, recorder, folders)


@pytest.mark.parametrize(("model", "scheduler", "kind"), MODEL_KINDS)
async def test_scheduler_exact_repeats_each_of_several_takes_alone(
    shared: SharedEngine, model: str, scheduler: str, kind: str
) -> None:
    changes = {"scheduler": scheduler, **KINDS[kind]}
    together = await shared.rendered(shared.exact(SEEDS, model, **changes))
    alone: Samples = {}
    for seed in SEEDS:
        alone |= await shared.rendered(shared.exact((seed,), model, **changes))
    assert len(set(together.values())) == len(SEEDS)
    assert together == alone


async def test_scheduler_exact_repeats_a_take_beside_others_and_after_cancels(shared: SharedEngine) -> None:
    plain = shared.send(is_streamed=False, seeds=(1, 2), seconds=1.0)  # its words are encoded by other kernels
    await shared.rendered(plain)
    first = await shared.rendered(shared.exact(SEEDS))
    beside = [
        shared.send(is_streamed=streamed, seeds=(seed,), seconds=1.0, steps=20)
        for seed, streamed in ((3, False), (4, True))
    ]
    cancelled = shared.exact((1, 2, 3, 4), steps=40)
    shared.link.send(engine_messages.CancelJob(job=cancelled))
    assert await shared.rendered(shared.exact(SEEDS[::-1])) == first
    shared.link.send(engine_messages.CancelJob(job=beside[0]))
    assert await shared.rendered(shared.exact(SEEDS[1:2])) == {SEEDS[1]: first[SEEDS[1]]}


async def test_scheduler_exact_progress_counts_the_steps_of_all_takes(shared: SharedEngine) -> None:
    job = shared.exact(SEEDS)
    reported: list[tuple[int, int]] = []
    while True:
        message, *_ = await shared.recorder.next()
        if isinstance(message, engine_messages.StepDone) and message.job == job:
            reported.append((message.step, message.steps))
        if isinstance(message, engine_messages.JobRendered) and message.job == job:
            break
    assert reported == [(step, 4 * len(SEEDS)) for step in range(1, 4 * len(SEEDS) + 1)]

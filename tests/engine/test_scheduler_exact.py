"""`exact`: the embedded model in a real engine process.

A take's seed alone reproduces its samples bit-exactly, regardless of the jobs before, after and beside it.
"""

from typing import Any

import numpy as np
import pytest

from tests.engine.test_scheduler_pieces import PROGRAM, render
from tests.ipc.test_engine_client import EventRecorder, engine
from timbred.ipc import engine_messages

SEEDS = (5, 6, 7)

Samples = dict[int, bytes]
"""A take's samples by its seed."""


def tone() -> bytes:
    return (0.3 * np.sin(np.arange(32_000) / 20)).astype("<f4").tobytes()


KINDS: dict[str, dict[str, Any]] = {
    "guided": {"guidance": 3.0, "inputs": engine_messages.PromptInputs(prompt="snare drum", negative="hiss")},
    "noisy scheduler": {"scheduler": "euler-a"},
    "loop": {"loop": True, "inputs": engine_messages.PromptInputs(prompt="warm pad")},
    "init_audio": {"init_audio": engine_messages.InitAudio(samples=tone(), strength=0.6)},
    "continued": {"init_audio": engine_messages.InitAudio(samples=tone(), strength=1.0), "seconds": 1.7, "window": 1.5},
}


def exact(job: int, seeds: tuple[int, ...], **changes: Any) -> engine_messages.RenderJob:
    plain: dict[str, Any] = {"seconds": 1.0, "is_streamed": False, "exact": True, "scheduler": "dpm++2m", "steps": 4}
    return render(job, 1, **{**plain, **changes, "seeds": seeds})


async def rendered(recorder: EventRecorder, job: int) -> Samples:
    """The takes of a job, once they are there."""
    while True:
        said = await recorder.next()
        if isinstance(said, tuple) and isinstance(said[0], engine_messages.JobFailed):
            raise AssertionError(said[0])
        if isinstance(said, tuple) and isinstance(said[0], engine_messages.JobRendered) and said[0].job == job:
            return {seed: bytes(frame) for seed, frame in zip(said[0].seeds, said[1], strict=True)}


async def alone_and_together(changes: dict[str, Any]) -> tuple[Samples, Samples]:
    async with engine(PROGRAM) as (link, recorder):
        await recorder.next()
        link.send(exact(1, SEEDS, **changes))
        together = await rendered(recorder, 1)
        alone: Samples = {}
        for number, seed in enumerate(SEEDS, start=2):
            link.send(exact(number, (seed,), **changes))
            alone |= await rendered(recorder, number)
    return together, alone


@pytest.mark.parametrize("kind", KINDS)
async def test_scheduler_exact_repeats_each_of_several_takes_alone(kind: str):
    together, alone = await alone_and_together(KINDS[kind])
    assert len(set(together.values())) == len(SEEDS)
    assert together == alone


async def beside_others() -> tuple[Samples, Samples, Samples]:
    async with engine(PROGRAM) as (link, recorder):
        await recorder.next()
        link.send(render(1, is_streamed=False, seeds=(1, 2), seconds=1.0))  # its words are encoded by other kernels
        await rendered(recorder, 1)
        link.send(exact(2, SEEDS))
        first = await rendered(recorder, 2)
        for number in (3, 4):
            link.send(render(number, is_streamed=number == 4, seeds=(number,), seconds=1.0, steps=20))
        link.send(exact(5, (1, 2, 3, 4), steps=40))
        link.send(engine_messages.CancelJob(job=5))
        link.send(exact(6, SEEDS[::-1]))
        beside = await rendered(recorder, 6)
        link.send(engine_messages.CancelJob(job=3))
        link.send(exact(7, SEEDS[1:2]))
        after_cancel = await rendered(recorder, 7)
    return first, beside, after_cancel


async def test_scheduler_exact_repeats_a_take_beside_others_and_after_cancels():
    first, beside, after_cancel = await beside_others()
    assert first == beside
    assert after_cancel == {SEEDS[1]: first[SEEDS[1]]}


async def steps_told() -> list[tuple[int, int]]:
    async with engine(PROGRAM) as (link, recorder):
        await recorder.next()
        link.send(exact(1, SEEDS))
        reported: list[tuple[int, int]] = []
        while True:
            said = await recorder.next()
            if isinstance(said, tuple) and isinstance(said[0], engine_messages.StepDone):
                reported.append((said[0].step, said[0].steps))
            if isinstance(said, tuple) and isinstance(said[0], engine_messages.JobRendered):
                return reported


async def test_scheduler_exact_progress_counts_the_steps_of_all_takes():
    assert await steps_told() == [(step, 4 * len(SEEDS)) for step in range(1, 4 * len(SEEDS) + 1)]

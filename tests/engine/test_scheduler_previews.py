"""The real engine process: one early rendering of each sound that asked for it, about a third of the way."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.test_scheduler_pieces import render, until_rendered
from tests.forked_programs import ENGINE, forked_command
from tests.ipc.test_engine_client import engine
from timbred.ipc import engine_messages

STEPS = 6


def given() -> engine_messages.InitAudio:
    """A second of noise at the model's rate."""
    samples = 0.1 * np.random.default_rng(3).standard_normal(16_000)
    return engine_messages.InitAudio(samples=samples.astype("<f4").tobytes(), strength=1.0)


ORDERS: dict[int, dict[str, Any]] = {
    1: {},
    2: {"loop": True, "inputs": engine_messages.PromptInputs(prompt="rain")},
    3: {"init_audio": given(), "seconds": 2.5, "window": 2.0, "inputs": engine_messages.PromptInputs(prompt="rain")},
    4: {"seeds": (7, 8)},
}
"""A sound, a loop, a sound that is continued in two windows, two takes."""


@pytest.fixture(scope="module")
async def said(loud_audioldm: Path) -> list[tuple[Any, list[Any]]]:
    """The engine's messages, with their frames."""
    async with engine(forked_command(ENGINE)) as (link, received):
        await received.next()
        for job, changes in ORDERS.items():
            wanted: dict[str, Any] = {"is_streamed": False, "preview": True, "seconds": 1.0, "steps": STEPS, **changes}
            link.send(render(loud_audioldm, job, **wanted))
        messages = await until_rendered(received, set(ORDERS))
    return [one if isinstance(one, tuple) else (one, []) for one in messages]


@pytest.mark.parametrize("job", ORDERS)
async def test_scheduler_previews_come_once_about_a_third_of_the_way(said: list[tuple[Any, list[Any]]], job: int):
    own = [(message, frames) for message, frames in said if getattr(message, "job", 0) == job]
    kinds = [type(message) for message, _ in own]
    assert kinds.count(engine_messages.PreviewRendered) == 1
    place = kinds.index(engine_messages.PreviewRendered)
    step = [message for message, _ in own[:place] if isinstance(message, engine_messages.StepDone)][-1]
    assert step.steps <= 3 * step.step <= 1.5 * step.steps
    rendered, frames = own[-1]
    early = np.frombuffer(own[place][1][0], dtype="<f4")
    whole = np.frombuffer(frames[0], dtype="<f4")
    assert own[place][0].first == rendered.first
    assert len(early) <= len(whole)
    assert len(early) == len(whole) or job == 3
    assert np.isfinite(early).all()
    assert np.abs(early).max() > 1e-4

"""The real engine process: the pieces of a sound before the whole, other jobs between them."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.forked_programs import ENGINE, forked_command
from tests.ipc.test_engine_client import EventRecorder, engine
from timbred.ipc import engine_messages


def render(folder: Path, job: int, rank: int = 1, **changes: Any) -> engine_messages.RenderJob:
    plain: dict[str, Any] = {
        "inputs": engine_messages.PromptInputs(prompt="bass c2"),
        "seconds": 2.0,
        "steps": 2,
        "guidance": 1.0,
        "eta": 0.0,
        "scheduler": "ddim",
        "seeds": (7,),
        "is_streamed": True,
    }
    order = engine_messages.RenderOrder(**{**plain, **changes})
    source = engine_messages.ModelSource(name=folder.name, folder=str(folder))
    return engine_messages.RenderJob(job=job, model=source, order=order, rank=rank)


async def until_rendered(recorder: EventRecorder, jobs: set[int]) -> list[Any]:
    said = list[Any]()
    while jobs:
        said.append(await recorder.next())
        if isinstance(said[-1], tuple) and isinstance(said[-1][0], engine_messages.JobRendered):
            jobs.discard(said[-1][0].job)
    return said


def pieces_of(said: list[Any], job: int) -> list[tuple[engine_messages.PieceRendered, np.ndarray]]:
    found = [
        one
        for one in said
        if isinstance(one, tuple) and isinstance(one[0], engine_messages.PieceRendered) and one[0].job == job
    ]
    return [(piece, np.frombuffer(frames[0], dtype="<f4")) for piece, frames in found]


async def _said_by_the_engine(folder: Path) -> list[Any]:
    async with engine(forked_command(ENGINE)) as (link, recorder):
        await recorder.next()
        link.send(render(folder, 1))
        link.send(render(folder, 2, is_streamed=False))
        return await until_rendered(recorder, {1, 2})


async def test_scheduler_pieces_come_before_the_whole_and_equal_it(loud_audioldm: Path):
    said = await _said_by_the_engine(loud_audioldm)
    kinds = [type(one[0]).__name__ for one in said if isinstance(one, tuple) and getattr(one[0], "job", 0) == 1]
    kinds = [kind for kind in kinds if kind != "ModelLoading"]
    pieces = pieces_of(said, 1)
    assert kinds == ["StepDone", "StepDone", *["PieceRendered"] * len(pieces), "JobRendered"]
    wholes = {
        one[0].job: np.frombuffer(one[1][0], dtype="<f4") for one in said if type(one[0]) is engine_messages.JobRendered
    }
    assert np.array_equal(np.concatenate([samples for _, samples in pieces]), wholes[1])
    assert [piece.first for piece, _ in pieces] == np.cumsum([0, *(len(one) for _, one in pieces[:-1])]).tolist()
    assert [piece.last for piece, _ in pieces] == [False] * (len(pieces) - 1) + [True]
    assert {piece.frames for piece, _ in pieces} == {32000}
    assert pieces_of(said, 2) == []
    assert np.abs(wholes[1]).max() > 0.01
    np.testing.assert_allclose(wholes[1], wholes[2], atol=1e-4)

"""When memory is short: smaller batches, parts that wait at home, then a clear word; nobody else notices."""

import queue
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import checkpoints
from tests.engine.families.test_latent_diffusion import loudened, order, ours
from tests.forked_programs import ENGINE, forked_command
from tests.ipc.test_engine_client import EventRecorder, engine
from tests.patience import TIMEOUT_S
from timbred.engine.batching import BatchSplitter
from timbred.engine.device import count_module_bytes
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import SharedComponents
from timbred.engine.memory.device_memory import DeviceMemory
from timbred.engine.memory.model_loader import Loader, LoadResult
from timbred.engine.model_manager import estimate_memory_needs, make_resident
from timbred.ipc import engine_messages
from timbred.ipc.engine_client import EngineLink
from timbred.models import checkpoint

CPU = torch.device("cpu")


def load(folder: Path, places: DeviceMemory | None = None) -> LatentDiffusion:
    found = checkpoint.inspect(folder, folder.name, "")
    return loudened(make_resident(found, folder.name, CPU, torch.float32, lambda _: None, device_memory=places))


# what is known before a load


@pytest.mark.parametrize("family", ["audioldm2", "audioldm"])
def test_estimate_memory_needs_is_known_before_loading(family: str, request: pytest.FixtureRequest):
    folder: Path = request.getfixturevalue(family)
    found = checkpoint.inspect(folder, "m", "")
    shared = SharedComponents()
    needs = estimate_memory_needs(found, "m", torch.float32, shared)
    model = make_resident(found, "m", CPU, torch.float32, lambda _: None, shared)
    assert abs(needs.added_bytes - model.weight_bytes) < 0.05 * model.weight_bytes  # buffers that are made, not loaded
    assert needs.largest_stage_bytes <= needs.added_bytes
    assert estimate_memory_needs(found, "again", torch.float32, shared).added_bytes == 0
    assert estimate_memory_needs(found, "m", torch.bfloat16, SharedComponents()).added_bytes == needs.added_bytes // 2


# parts that take turns


def linear(size: int) -> torch.nn.Module:
    return torch.nn.Linear(size, size, bias=False)


def test_device_memory_frees_the_least_recently_used_part():
    one, two, three = linear(10), linear(10), linear(10)
    places = DeviceMemory(CPU, 2 * count_module_bytes(one))
    told: list[str] = []
    for name in ("one", "other"):  # of two models that share it
        places.on_move(one, partial(told.append, name))
    places.add([one, two, three])
    assert places.used_bytes == 2 * count_module_bytes(one)
    assert places.total_bytes == 3 * count_module_bytes(one)
    places.ensure_on_device([two])
    places.ensure_on_device([one])
    told.clear()
    places.ensure_on_device([three])  # in place of two
    assert told == []
    moves = places.move_count
    places.ensure_on_device([one])
    assert places.move_count == moves
    places.ensure_on_device([two, three])
    assert told == ["one", "other"]
    assert places.used_bytes == places.budget_bytes


def test_device_memory_keeps_a_stage_together_beyond_the_budget():
    parts = [linear(10), linear(10)]
    places = DeviceMemory(CPU, count_module_bytes(parts[0]))
    places.add(parts)
    places.ensure_on_device(parts)
    assert places.used_bytes == 2 * count_module_bytes(parts[0])


def test_device_memory_runs_an_oversized_model_with_equal_sound(audioldm2: Path):
    whole = load(audioldm2)
    largest = max(sum(map(count_module_bytes, stage)) for stage in whole.stages.parts.values())
    assert largest < 0.9 * whole.weight_bytes
    places = DeviceMemory(CPU, largest)
    model = load(audioldm2, places)
    assert places.used_bytes <= largest
    moves = places.move_count
    assert np.array_equal(ours(model, order(exact=True)), ours(whole, order(exact=True)))
    assert places.move_count > moves
    assert places.used_bytes <= largest


# memory that runs out


tried: list[int] = []


def full(rows: int) -> Callable[..., torch.Tensor]:
    """A call that has memory for so many rows."""

    def call(given: torch.Tensor) -> torch.Tensor:
        tried.append(len(given))
        if len(given) > rows:
            raise torch.OutOfMemoryError("full")
        return given * 2

    return call


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_batch_splitter_halves_batches_until_they_fit(rows: int):
    given = torch.arange(7.0)[:, None]
    batches = BatchSplitter()
    assert torch.equal(batches.call(full(rows), (given,)), given * 2)
    tried.clear()
    assert torch.equal(batches.call(full(rows), (given,)), given * 2)
    assert max(tried) <= rows  # what was learned is not tried again


def test_batch_splitter_reports_one_row_that_does_not_fit():
    with pytest.raises(torch.OutOfMemoryError):
        BatchSplitter().call(full(0), (torch.ones(4, 1),))


def test_batch_splitter_raises_other_faults():
    def broken(_given: torch.Tensor) -> torch.Tensor:
        raise ValueError("another fault")

    with pytest.raises(ValueError, match="another"):
        BatchSplitter().call(broken, (torch.ones(4, 1),))


def test_device_memory_frees_everything_else_before_a_job_fails(audioldm: Path):
    model = load(audioldm)
    network = sum(map(count_module_bytes, model.stages.parts["denoiser"]))
    tries: list[int] = []

    def work() -> str:
        tries.append(model.stages.device_memory.used_bytes)
        if model.stages.device_memory.used_bytes > network:
            raise torch.OutOfMemoryError("full")
        return "done"

    assert model.stages.run_stage("denoiser", work) == "done"
    assert tries == [model.weight_bytes, network]
    with pytest.raises(torch.OutOfMemoryError):
        model.stages.run_stage("denoiser", lambda: full(0)(torch.ones(1)))


# loads, most urgent first


def source(name: str, folder: Path | str = "") -> engine_messages.ModelSource:
    return engine_messages.ModelSource(name=name, folder=str(folder))


def test_loader_lets_an_urgent_load_overtake_a_running_one():
    order_of_ends: list[str] = []
    begun, all_wanted, ended = threading.Event(), threading.Event(), threading.Semaphore(0)

    def load_in_parts(wanted: engine_messages.ModelSource, progress: Callable[[float], None]) -> str:
        progress(0.0)
        begun.set()
        assert all_wanted.wait(TIMEOUT_S)
        progress(0.5)
        progress(1.0)
        return wanted.name

    def note(result: LoadResult[str]) -> None:
        order_of_ends.append(result.source.name)
        ended.release()

    loader: Loader[str] = Loader(load_in_parts, note)
    loader.request_load(source("slow"), rank=2)
    assert begun.wait(TIMEOUT_S)
    loader.request_load(source("normal"), rank=1)
    loader.request_load(source("live"), rank=0)
    all_wanted.set()
    for _ in range(3):
        assert ended.acquire(timeout=TIMEOUT_S)
    assert order_of_ends == ["live", "normal", "slow"]
    assert loader.progress("slow") is None


def test_loader_reports_an_ended_load_before_others_continue():
    """However long the report of the first takes, the second doesn't reach its end meanwhile."""
    reported: list[str] = []
    second_ended, both = threading.Event(), threading.Semaphore(0)

    def load_at_once(wanted: engine_messages.ModelSource, progress: Callable[[float], None]) -> str:
        progress(0.0)
        if wanted.name == "second":
            second_ended.set()
        return wanted.name

    def report(result: LoadResult[str]) -> None:
        if result.source.name == "first":
            loader.request_load(source("second"))
            assert not second_ended.wait(0.2)
        reported.append(result.source.name)
        both.release()

    loader: Loader[str] = Loader(load_at_once, report)
    loader.request_load(source("first"))
    for _ in range(2):
        assert both.acquire(timeout=TIMEOUT_S)
    assert reported == ["first", "second"]


class NamingLoader(Loader[str]):
    """Loads names at once, and keeps the results that it has posted."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.results: queue.SimpleQueue[LoadResult[str]] = queue.SimpleQueue()
        super().__init__(self.load_at_once, self.results.put)

    def load_at_once(self, wanted: engine_messages.ModelSource, progress: Callable[[float], None]) -> str:
        progress(1.0)
        self.loads.append(wanted.name)
        return wanted.name


def test_loader_loads_a_model_once_until_its_result_is_taken():
    """A request made while the result waits to be taken is answered by that result."""
    loader = NamingLoader()
    loader.request_load(source("one"))
    posted = loader.results.get(timeout=TIMEOUT_S)
    loader.request_load(source("one"))
    loader.request_load(source("other"))
    assert loader.results.get(timeout=TIMEOUT_S).source.name == "other"
    assert loader.loads == ["one", "other"]
    assert loader.take_result(posted) == "one"
    loader.request_load(source("one"))
    assert loader.results.get(timeout=TIMEOUT_S).source.name == "one"
    assert loader.loads == ["one", "other", "one"]


def test_loader_loads_a_model_again_where_its_result_is_taken():
    """A request for the same model, made in the thread that reports its load, isn't taken for one under way."""
    loads: list[str] = []
    twice = threading.Semaphore(0)

    def load_at_once(wanted: engine_messages.ModelSource, progress: Callable[[float], None]) -> str:
        progress(1.0)
        return wanted.name

    def report(result: LoadResult[str]) -> None:
        loads.append(result.source.name)
        if len(loads) == 1:
            loader.take_result(result)
            loader.request_load(result.source)
        twice.release()

    loader: Loader[str] = Loader(load_at_once, report)
    loader.request_load(source("again"))
    for _ in range(2):
        assert twice.acquire(timeout=TIMEOUT_S)
    assert loads == ["again", "again"]


# the whole engine


def render(job: int, model: engine_messages.ModelSource, rank: int = 1, **changes: Any) -> engine_messages.RenderJob:
    return engine_messages.RenderJob(job=job, model=model, order=order(**changes), rank=rank)


async def until(recorder: EventRecorder, kind: type, job: int | None = None) -> list[Any]:
    """The messages up to the first of this kind, that one last; a failure that isn't awaited ends the test."""
    messages: list[Any] = []
    while True:
        found = await recorder.next()
        assert not isinstance(found, str), found
        message = found if isinstance(found, engine_messages.EngineReady) else found[0]
        messages.append(message)
        assert isinstance(message, kind) or not isinstance(message, engine_messages.JobFailed), message
        if isinstance(message, kind) and (job is None or getattr(message, "job", None) == job):
            return messages


async def cancel(link: EngineLink, recorder: EventRecorder, job: int) -> None:
    """Cancel a job, which may have been rendered meanwhile."""
    assert link.send(engine_messages.CancelJob(job=job))
    ended: Any = engine_messages.JobCancelled | engine_messages.JobRendered
    await until(recorder, ended, job=job)


async def test_device_memory_ends_only_the_job_that_finds_no_room(audioldm: Path, monkeypatch: pytest.MonkeyPatch):
    """Room for a sound of 0.5 s and one take; its guidance and eight takes go through in halves."""
    rows = load(audioldm).latent_layout.shape(0.5)[1]
    monkeypatch.setenv("TIMBRED_TEST_ROOM", str(rows))
    tiny = source("tiny", audioldm)

    async with engine(forked_command("tests.engine.faulty_worker")) as (link, recorder):
        await until(recorder, engine_messages.EngineReady)
        assert link.send(render(1, tiny, seeds=tuple(range(8)), steps=2))
        await until(recorder, engine_messages.JobRendered, job=1)
        assert link.send(render(2, tiny, steps=300))  # far more than end before the next order
        assert link.send(render(3, tiny, rank=0, seconds=2.0))
        between = await until(recorder, engine_messages.JobFailed)
        assert between[-1].job == 3
        assert between[-1].code == "out-of-memory"
        assert "2 s is too long for tiny here, try 0.5 s" in between[-1].message
        assert not any(isinstance(message, engine_messages.JobRendered) for message in between)
        after = await until(recorder, engine_messages.JobRendered)
        assert [message.step for message in after if isinstance(message, engine_messages.StepDone)][-1] == 300


async def test_device_memory_names_the_sizes_of_a_model_that_can_never_fit(audioldm: Path):
    async with engine(forked_command(ENGINE), memory=0.001) as (link, recorder):
        await until(recorder, engine_messages.EngineReady)
        assert link.send(engine_messages.LoadModel(model=source("tiny", audioldm)))
        failed = (await until(recorder, engine_messages.JobFailed))[-1]
        assert failed.code == "out-of-memory"
        assert failed.model == "tiny"
        assert "models may use 0.001 MB" in failed.message


def other(folder: Path, tmp_path: Path) -> Path:
    """A checkpoint that shares nothing with this one."""
    made = checkpoints.audioldm(tmp_path / "other", seed=5)
    assert made != folder
    return made


async def test_device_memory_evicts_idle_models_and_keeps_those_in_use(audioldm: Path, tmp_path: Path):
    """Room for one model and a half: an idle one is unloaded before the next comes; beside one in use, parts wait."""
    one, two = source("one", audioldm), source("two", other(audioldm, tmp_path))
    size = load(audioldm).weight_bytes

    async with engine(forked_command(ENGINE), memory=1.5 * size / 1e6) as (link, recorder):
        await until(recorder, engine_messages.EngineReady)
        assert link.send(engine_messages.LoadModel(model=one))
        await until(recorder, engine_messages.ModelLoaded)
        assert link.send(engine_messages.LoadModel(model=two))
        messages = await until(recorder, engine_messages.ModelLoaded)
        assert messages[0] == engine_messages.ModelUnloaded(name="one")
        assert link.send(render(1, two, steps=900, seeds=tuple(range(16)), exact=True))
        await until(recorder, engine_messages.StepDone)
        assert link.send(render(2, one, steps=3, rank=0))
        beside = await until(recorder, engine_messages.JobRendered)
        assert beside[-1].job == 2
        assert not any(isinstance(message, engine_messages.ModelUnloaded) for message in beside)
        await cancel(link, recorder, 1)


async def test_loader_does_not_hold_up_a_running_job(audioldm: Path, audioldm2: Path):
    """Steps go on while another model comes in, and each is taken once and in order."""
    here, coming = source("here", audioldm2), source("coming", audioldm)

    async with engine(forked_command(ENGINE)) as (link, recorder):
        await until(recorder, engine_messages.EngineReady)
        assert link.send(render(1, here, steps=900))
        await until(recorder, engine_messages.StepDone)
        assert link.send(engine_messages.LoadModel(model=coming))
        during = await until(recorder, engine_messages.ModelLoaded)
        steps = [message.step for message in during if isinstance(message, engine_messages.StepDone)]
        assert steps
        assert steps == list(range(steps[0], steps[0] + len(steps)))
        if not any(isinstance(message, engine_messages.JobRendered) for message in during):
            await cancel(link, recorder, 1)

"""Every request gets exactly one terminal event, in whatever order requests, the engine's messages and its losses come.

A hypothesis state machine drives a real scheduler. The engine process, its link and the threads that write files are
models that advance only by rules, so that each interleaving can be reproduced.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.patience import TIMEOUT_S
from tests.requests.test_resolve import resolved
from timbred import errors
from timbred.audio import Clip, SampleRate, Seconds
from timbred.ipc import engine_messages
from timbred.ipc.devices import EnginePlace
from timbred.models import registry
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId
from timbred.protocol.schema import is_terminal
from timbred.requests.completion import BackgroundTasks, SoundListener
from timbred.requests.deadline import DeadlineRequest
from timbred.requests.job import Job
from timbred.requests.named_files import NO_FILES, JobFiles
from timbred.requests.postprocess import FinishedTake, RawTake, read_init_audio
from timbred.requests.scheduler import JobScheduler
from timbred.storage.library import StoredTake, new_take_id

CLIENT = ClientId("udp:a:1")
RATE, FRAMES = 16000, 4800
QUARTER = FRAMES // 4
SAMPLES = np.zeros((FRAMES, 1), np.float32)
CARD = registry.build(registry.pocket_folder(), {})["pocket"].card

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two takes": {"takes": 2},
    "with a preview": {"preview": True},
    "heard early": {"to": "both", "voice": "1"},
    "from a file": {},
    "with a deadline": {},
}
PARAMETERS = {
    (kind, priority): resolved(CARD, model="pocket", seconds=FRAMES / RATE, priority=priority, **keys)
    for kind, keys in KINDS.items()
    for priority in ("live", "normal", "background")
}


class RecordingOutbox:
    """Keeps every event in the order in which it was sent."""

    def __init__(self) -> None:
        self.events: list[m.Event] = []

    def send(self, client: ClientId, event: m.Event, clip: Any = None) -> None:
        self.events.append(event)

    def send_list(self, client: ClientId, name: str, events: Any, end: Any) -> None:
        raise AssertionError("the scheduler answers no questions")

    @property
    def terminal(self) -> Counter[str]:
        """Terminal events of jobs, by the request's id."""
        ends = [
            event for event in self.events if is_terminal(event) and isinstance(event, m.Done | m.Fail | m.Cancelled)
        ]
        return Counter(str(event.id) for event in ends if event.id not in ("load", "unload"))

    def answers(self, kind: type[m.Event], place: str) -> int:
        """Events that end `load` or `unload` requests."""
        failures = [event for event in self.events if isinstance(event, m.Fail) and event.id == place]
        return sum(isinstance(event, kind) for event in self.events) + len(failures)


class SteppedBackground(BackgroundTasks):
    """Work for threads is done only when a rule says so."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[asyncio.Future[Any], Callable[[], Any]]] = []

    async def in_thread(self, work: Any, *given: Any, **named: Any) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pending.append((future, lambda: _prepared() if work is read_init_audio else work(*given, **named)))
        return await future

    def do(self, index: int, error: Exception | None) -> None:
        future, work = self.pending.pop(index)
        if error is None:
            future.set_result(work())
        else:
            future.set_exception(error)


def _prepared() -> tuple[bytes, Clip]:
    return SAMPLES.tobytes(), Clip(SAMPLES, SampleRate(RATE))


class ModelFinishing:
    """Finishes takes without a disk."""

    library: Any = None

    def __call__(self, parameters: Any, raw: RawTake, request_id: str, given: Any = None) -> FinishedTake:
        stored = StoredTake(
            take_id=raw.take_id or new_take_id(), path=Path("a.wav"), created=0.0, prompt="", model="pocket",
            seed=raw.seed, seconds=Seconds(0.1), rate=SampleRate(RATE), channels=1, score=None, index=raw.index,
            request_id=request_id, recipe={},
        )  # fmt: skip
        return FinishedTake(stored, Clip(SAMPLES, SampleRate(RATE)))

    def preview(self, parameters: Any, raw: RawTake, given: Any = None) -> Path:
        return Path("preview.wav")


class ModelEngine:
    """An engine process and the link to it.

    `up` is what the link reports, `alive` whether the process lives. `arriving` are orders on their way to it,
    `outgoing` its messages on their way to the daemon. A new one is `reported` once the daemon knows of a loss.
    """

    def __init__(self, number: int) -> None:
        self.place = EnginePlace(number=number)
        self.up = self.alive = False
        self.reported = True
        self.forget()

    def forget(self) -> None:
        self.arriving: list[engine_messages.ToEngine] = []
        self.outgoing: list[tuple[engine_messages.FromEngine, list[bytes]]] = []
        self.jobs: dict[int, engine_messages.RenderJob] = {}
        self.pieces: Counter[int] = Counter()
        self.cancelled: set[int] = set()

    def send(self, message: engine_messages.ToEngine) -> bool:
        """As `EngineLink.send`: taken by the link even when the process has just died."""
        if self.up:
            self.arriving.append(message)
        return self.up

    def say(self, message: engine_messages.FromEngine, *payload: bytes) -> None:
        self.outgoing.append((message, list(payload)))

    def take_order(self) -> None:
        match self.arriving.pop(0):
            case engine_messages.CancelJob(job=job):
                self.cancelled.add(job)
            case engine_messages.RenderJob() as render:
                self.jobs[render.job] = render
                self.pieces[render.job] = 0
            case engine_messages.LoadModel(model=source):
                self.say(engine_messages.ModelLoaded(model=engine_messages.ResidentModel(name=source.name, memory=1)))
            case engine_messages.UnloadModel(name=name):
                self.say(engine_messages.ModelUnloaded(name=name))
            case _:
                pass

    def leave(self, job: int) -> engine_messages.RenderJob:
        self.cancelled.discard(job)
        return self.jobs.pop(job)

    def advance(self, job: int, what: str) -> None:
        """One thing that an engine may say of a job that it works on."""
        render = self.jobs[job]
        steps = render.order.steps
        match what:
            case "step":
                self.say(engine_messages.StepDone(job=job, step=1, steps=steps, remaining=100.0))
            case "preview" if render.order.preview:
                self.say(engine_messages.PreviewRendered(job=job, rate=RATE, channels=1), SAMPLES.tobytes())
            case "piece" if render.order.is_streamed and self.pieces[job] < 4:
                first = self.pieces[job] * QUARTER
                self.pieces[job] += 1
                piece = engine_messages.PieceRendered(
                    job=job, rate=RATE, channels=1, first=first, frames=FRAMES, peak=0.5, last=self.pieces[job] == 4
                )
                self.say(piece, SAMPLES[:QUARTER].tobytes())
            case "fail":
                self.leave(job)
                self.say(engine_messages.JobFailed(code="model-error", message="no", job=job))
            case "cancel" if job in self.cancelled:
                self.leave(job)
                self.say(engine_messages.JobCancelled(job=job))
            case "render":
                self._render(job, len(render.order.seeds))
            case "render badly":
                self._render(job, len(render.order.seeds) + 1)
            case _:
                self.say(engine_messages.ModelLoading(job=job, fraction=0.5))

    def _render(self, job: int, frames: int) -> None:
        seeds = self.leave(job).order.seeds
        self.say(
            engine_messages.JobRendered(job=job, rate=RATE, channels=1, seeds=seeds), *([SAMPLES.tobytes()] * frames)
        )


READY = engine_messages.EngineReady(
    token="",
    wire_version=engine_messages.WIRE_VERSION,
    version="",
    pid=1,
    device="cpu",
    device_name="",
    precision="float32",
)
SAYINGS = ("step", "preview", "piece", "fail", "cancel", "render", "render badly", "loading")


class FailingListener(SoundListener):
    """Calls `hook` with whatever it receives."""

    def __init__(self, hook: Callable[..., None]) -> None:
        self.piece = self.pieces_discarded = self.take = hook


class RequestsAndLosses(RuleBasedStateMachine):
    """Submits, cancels, loses the engine and stops, in any order."""

    scheduler: JobScheduler

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.outbox, self.background = RecordingOutbox(), SteppedBackground()
        self.engines: list[ModelEngine] = []
        self.trials: list[asyncio.Task[None]] = []
        self.loads = self.unloads = self.submitted = 0
        self.hooks_fail = False
        self.stopping: asyncio.Task[None] | None = None

    @initialize(
        at_once=st.sampled_from([0, 1, 4]),
        up=st.lists(st.booleans(), min_size=1, max_size=3),
        hooks_fail=st.booleans(),
    )
    def begin(self, at_once: int, up: list[bool], hooks_fail: bool) -> None:
        self.hooks_fail = hooks_fail
        self.engines = [ModelEngine(number) for number in range(1, len(up) + 1)]

        def build() -> None:
            outbox: Any = self.outbox
            finishing: Any = ModelFinishing()
            entries = registry.build(registry.pocket_folder(), {})
            self.scheduler = JobScheduler(
                outbox, entries, finishing, lambda _: self.engines, FailingListener(self._hook), 8,
                jobs_at_once=at_once, background=self.background,
            )  # fmt: skip
            self.scheduler.loads.preload("pocket")

        self.run(build)
        for engine, is_up in zip(self.engines, up, strict=True):
            if is_up:
                self.begin_engine(engine)

    def _hook(self, *_: Any) -> None:
        """Whoever listens to pieces and takes may have a fault of its own."""
        if self.hooks_fail:
            raise RuntimeError("a fault in a listener")

    def run(self, act: Callable[[], None]) -> None:
        """Act on the event loop, then let everything go as far as it goes by itself."""

        async def acted() -> None:
            act()
            for _ in range(20):
                await asyncio.sleep(0)

        self.runner.run(acted())

    @property
    def jobs(self) -> list[Job]:
        return list(self.scheduler.jobs.live())

    # requests

    @rule(kind=st.sampled_from(sorted(KINDS)), priority=st.sampled_from(["live", "normal", "background"]))
    def submit(self, kind: str, priority: str) -> None:
        def act() -> None:
            files = JobFiles(init=Path("a.wav")) if kind == "from a file" else NO_FILES
            wanted = DeadlineRequest(lambda: 1.0, 2) if kind == "with a deadline" else None
            try:
                self.scheduler.submit(CLIENT, str(self.submitted), PARAMETERS[kind, priority], files, wanted)
            except (errors.Busy, errors.ShuttingDown):
                return
            self.submitted += 1

        self.run(act)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(range(len(self.jobs))))
        self.run(lambda: self.scheduler.cancel(self.jobs[job]))

    @rule()
    def cancel_all(self) -> None:
        def act() -> None:
            for job in self.jobs:
                self.scheduler.cancel(job)

        self.run(act)

    @rule()
    def load(self) -> None:
        self.loads += 1
        self.run(lambda: self.scheduler.loads.load(CLIENT, "pocket"))

    @rule()
    def unload(self) -> None:
        def act() -> None:
            try:
                self.scheduler.loads.unload(CLIENT, "pocket")
            except errors.BadRequest:
                return
            self.unloads += 1

        self.run(act)

    @rule()
    def measure(self) -> None:
        def act() -> None:
            measuring = self.scheduler.calibration.measure(PARAMETERS["plain", "live"])
            self.trials.append(asyncio.get_running_loop().create_task(measuring))

        self.run(act)

    # threads

    @precondition(lambda self: self.background.pending)
    @rule(data=st.data(), fails=st.booleans())
    def thread_ends(self, data: st.DataObject, fails: bool) -> None:
        index = data.draw(st.sampled_from(range(len(self.background.pending))))
        self.run(lambda: self.background.do(index, errors.DiskFull("full") if fails else None))

    # the engines

    def drawn(self, data: st.DataObject, condition: Callable[[ModelEngine], object]) -> ModelEngine:
        """One of the engines that are so."""
        return data.draw(st.sampled_from([engine for engine in self.engines if condition(engine)]))

    @precondition(lambda self: any(engine.alive and engine.arriving for engine in self.engines))
    @rule(data=st.data())
    def engine_takes_order(self, data: st.DataObject) -> None:
        self.drawn(data, lambda engine: engine.alive and engine.arriving).take_order()

    @precondition(lambda self: any(engine.alive and engine.up for engine in self.engines))
    @rule(data=st.data())
    def both_catch_up(self, data: st.DataObject) -> None:
        engine = self.drawn(data, lambda engine: engine.alive and engine.up)
        while engine.arriving:
            engine.take_order()
        while engine.up and engine.outgoing:
            self.daemon_reads(engine)

    @precondition(lambda self: any(engine.alive and engine.jobs for engine in self.engines))
    @rule(data=st.data(), what=st.sampled_from(SAYINGS))
    def engine_advances(self, data: st.DataObject, what: str) -> None:
        engine = self.drawn(data, lambda engine: engine.alive and engine.jobs)
        engine.advance(data.draw(st.sampled_from(sorted(engine.jobs))), what)

    @precondition(lambda self: any(engine.up and engine.outgoing for engine in self.engines))
    @rule(data=st.data())
    def daemon_hears(self, data: st.DataObject) -> None:
        self.daemon_reads(self.drawn(data, lambda engine: engine.up and engine.outgoing))

    def daemon_reads(self, engine: ModelEngine) -> None:
        message, payload = engine.outgoing.pop(0)

        def act() -> None:
            frames = [memoryview(frame) for frame in payload]
            try:
                self.scheduler.engine_message_received(engine.place.number, message, frames)
            except ValueError:  # as the link: a process that sends what can't be read is ended
                engine.up = engine.alive = False

        self.run(act)

    @precondition(lambda self: any(engine.alive for engine in self.engines))
    @rule(data=st.data())
    def engine_dies(self, data: st.DataObject) -> None:
        """Messages that it has sent may still be read, until the link notices."""
        self.drawn(data, lambda engine: engine.alive).alive = False

    @precondition(lambda self: any(engine.up and not engine.alive for engine in self.engines))
    @rule(data=st.data())
    def link_notices(self, data: st.DataObject) -> None:
        self.drawn(data, lambda engine: engine.up and not engine.alive).up = False

    @precondition(lambda self: any(not engine.up for engine in self.engines))
    @rule(data=st.data())
    def loss_is_told(self, data: st.DataObject) -> None:
        """Also of a process that died before it was ready."""
        self.lose(self.drawn(data, lambda engine: not engine.up))

    def lose(self, engine: ModelEngine) -> None:
        engine.forget()
        self.run(lambda: self.scheduler.engine_lost(engine.place.number, "killed"))
        engine.reported = True

    @precondition(lambda self: any(not engine.up and engine.reported for engine in self.engines))
    @rule(data=st.data())
    def engine_comes(self, data: st.DataObject) -> None:
        self.begin_engine(self.drawn(data, lambda engine: not engine.up and engine.reported))

    def begin_engine(self, engine: ModelEngine) -> None:
        engine.forget()
        engine.up = engine.alive = True
        engine.reported = False
        self.run(lambda: self.scheduler.engine_ready(engine.place.number, READY))

    # the end

    @precondition(lambda self: self.stopping is None)
    @rule(patience=st.sampled_from([0.0, 3600.0]))
    def stop(self, patience: float) -> None:
        def act() -> None:
            self.stopping = asyncio.get_running_loop().create_task(self.scheduler.stop(patience))

        self.run(act)

    def finish_everything(self) -> None:
        """Healthy engines carry out all that is left."""
        self.hooks_fail = False
        for _ in range(600):
            if self.background.pending:
                self.run(lambda: self.background.do(0, None))
            elif not any(self.finish_something(engine) for engine in self.engines):
                return
        raise AssertionError("it never ends")

    def finish_something(self, engine: ModelEngine) -> bool:
        """Do one thing that an engine or its link has still to do; whether there was one."""
        if not engine.up or not engine.alive:
            engine.up = False
            self.lose(engine)
            self.begin_engine(engine)
        elif engine.outgoing:
            self.daemon_reads(engine)
        elif engine.arriving:
            engine.take_order()
        elif engine.jobs:
            job = min(engine.jobs)
            engine.advance(job, "cancel" if job in engine.cancelled else "render")
        else:
            return False
        return True

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            self.runner.close()
            return
        try:
            self.finish_everything()
            assert not self.jobs, [(job.id, job.state) for job in self.jobs]
            assert self.outbox.terminal == Counter(map(str, range(self.submitted)))
            assert self.scheduler.jobs.waiting() == []
            assert self.scheduler.jobs.running() == []
            assert all(trial.done() for trial in self.trials)
            assert self.outbox.answers(m.Loaded, "load") == self.loads
            assert self.outbox.answers(m.Unloaded, "unload") == self.unloads
            if self.stopping is not None:
                self.runner.run(asyncio.wait_for(self.stopping, TIMEOUT_S))
        finally:
            for trial in self.trials:
                trial.cancel()
                if trial.done() and not trial.cancelled():
                    trial.exception()
            self.runner.close()


RequestsAndLosses.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestEveryRequestEndsOnce = RequestsAndLosses.TestCase

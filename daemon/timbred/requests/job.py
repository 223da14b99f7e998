"""A job: one request for sound, and where it stands."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from timbred.audio import Clip
from timbred.protocol.boundary import ClientId
from timbred.protocol.messages import Event, Generate, HeardText, Id, Take, Vary, Warned
from timbred.requests.deadline import DeadlineRequest
from timbred.requests.resolve import Parameters


class State(Enum):
    """Where a job stands; the value is for people."""

    QUEUED = "waiting"
    RENDERING = "rendering"
    DELIVERING = "being written"
    ENDED = "ended"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RENDERING, State.ENDED}),
    State.RENDERING: frozenset({State.QUEUED, State.DELIVERING, State.ENDED}),  # back when its engine was lost
    State.DELIVERING: frozenset({State.ENDED}),
    State.ENDED: frozenset(),
}
"""Every move that a job can make."""


@dataclass(eq=False)
class Job:
    """One request for sound. `number` is the daemon's own name for it; times are of the monotonic clock. A job isn't
    `ready` until the sound it starts from (`given`: mono, at the model's rate) has been read and its long `texts` have
    been counted, which are None before; `whole` is that sound itself where most of it stays. `asked` is the request as
    the client sent it. `heard_as` is the take id of a sound that was heard before it was a take. One with a deadline is
    `wanted`, and `anew` is what it is to begin anew with once the engine has left it."""

    number: int
    client: ClientId
    id: Id
    parameters: Parameters
    state: State = State.QUEUED
    attempts: int = 0
    announced: bool = False
    cancel_wanted: bool = False
    taken_in: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    takes: list[Take] = field(default_factory=list[Take])
    clips: list[Clip] = field(default_factory=list[Clip])
    terminal: Event | None = None
    warnings: list[Warned] = field(default_factory=list[Warned])
    texts: tuple[HeardText, ...] | None = ()
    given: bytes | None = None
    whole: Clip | None = None
    ready: bool = True
    heard_as: str = ""
    preview: "asyncio.Task[None] | None" = None
    wanted: DeadlineRequest | None = None
    asked: Generate | Vary | None = None
    anew: Parameters | None = None

    def move(self, state: State) -> None:
        """Go to another state.

        Raises:
            RuntimeError: there is no such move; a fault in the one who asked.
        """
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"job {self.number} can't go from {self.state.name} to {state.name}")
        self.state = state

    @property
    def live(self) -> bool:
        """Whether a terminal event is still to come."""
        return self.state is not State.ENDED


RANK = {"live": 0, "normal": 1, "background": 2}


def _place(job: Job) -> tuple[int, int, int]:
    """A job that goes back after its engine was lost keeps its number, and with it its place."""
    return RANK[job.parameters.priority], 0 if job.attempts else 1, job.number


@dataclass
class JobQueue:
    """Waiting jobs in the order in which they will run."""

    limit: int
    _jobs: list[Job] = field(default_factory=list[Job])

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    @property
    def full(self) -> bool:
        return len(self._jobs) >= self.limit

    def add(self, job: Job) -> int:
        """Put a job in its place; says how many are before it."""
        self._jobs.append(job)
        self._jobs.sort(key=_place)
        return self.position(job)

    def position(self, job: Job) -> int:
        """How many jobs are before this one."""
        return self._jobs.index(job)

    def first(self) -> Job | None:
        """The job whose turn it is, left where it is; one that isn't ready lets others pass."""
        return next((job for job in self._jobs if job.ready), None)

    def next(self) -> Job | None:
        """Take the first job out."""
        return self._jobs.pop(0) if self._jobs else None

    def remove(self, job: Job) -> None:
        """Take a job out."""
        self._jobs.remove(job)

    def clear(self) -> None:
        """Take all jobs out."""
        self._jobs.clear()


KEPT_CLIPS = 64 * 2**20
"""Bytes of samples kept for ended requests that wanted them inline, in case they ask again."""

Key = tuple[ClientId, str]


def key_of(client: ClientId, identity: Id) -> Key:
    """A request's name in the daemon. Pd sends 5 as a number, another patch as a symbol: both mean the same."""
    return client, str(identity)


class JobStore:
    """Jobs by client and id: the live ones, and for `patience` seconds the ended ones."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._live: dict[Key, Job] = {}
        self._ended: OrderedDict[Key, Job] = OrderedDict()

    def add(self, job: Job) -> None:
        """Know a job from now on."""
        self._live[key_of(job.client, job.id)] = job

    def ended(self, job: Job) -> None:
        """The job has had its terminal event."""
        key = key_of(job.client, job.id)
        del self._live[key]
        job.ended = self._clock()
        self._ended[key] = job
        self._forget_old()
        self._limit_clips()

    def get(self, client: ClientId, identity: Id) -> Job | None:
        """The job of this name, live or ended not long ago."""
        self._forget_old()
        key = key_of(client, identity)
        return self._live.get(key) or self._ended.get(key)

    def live(self, client: ClientId | None = None) -> Iterator[Job]:
        """Jobs that haven't ended, of one client or all."""
        return (job for job in tuple(self._live.values()) if client in (None, job.client))

    def _forget_old(self) -> None:
        horizon = self._clock() - self._patience
        while self._ended:
            key, job = next(iter(self._ended.items()))
            if job.ended > horizon:
                return
            del self._ended[key]

    def _limit_clips(self) -> None:
        kept = 0
        for job in reversed(self._ended.values()):
            kept += sum(clip.samples.nbytes for clip in job.clips)
            if kept > KEPT_CLIPS:
                job.clips.clear()

"""A job: one request for sound, and where it stands."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from timbred.clip import Clip
from timbred.jobs.deadline import Wanted
from timbred.jobs.parameters import Parameters
from timbred.protocol.exchange import ClientId
from timbred.protocol.messages import Event, Generate, HeardText, Id, Take, Vary, Warned


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
    wanted: Wanted | None = None
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

"""The record of a job, its states, and the store of all jobs.

`JobStore` owns the records. The waiting jobs and those that an engine holds are views of it: a job waits because its
state is `QUEUED`, and the engine of its number `engine` holds it because its state is `RENDERING`.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter

from timbred.audio import Clip
from timbred.dsp.pipeline import StreamedSound
from timbred.ipc.engine_messages import GivenTensor
from timbred.protocol.boundary import ClientId
from timbred.protocol.messages import Event, Generate, HeardText, Id, Take, Vary, Warned
from timbred.requests.deadline import DeadlineRequest, JobTimer
from timbred.requests.resolve import Parameters

KEEP_ENDED_S = 600.0
"""Seconds for which an ended job is kept, so that a resent request isn't run again; the protocol fixes them."""


class State(Enum):
    """State of a job; the value is a description for people."""

    QUEUED = "waiting"
    RENDERING = "rendering"
    DELIVERING = "being written"
    ENDED = "ended"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RENDERING, State.ENDED}),
    State.RENDERING: frozenset({State.QUEUED, State.DELIVERING, State.ENDED}),  # back once if its engine is lost
    State.DELIVERING: frozenset({State.ENDED}),
    State.ENDED: frozenset(),
}
"""Every allowed transition; `timbred.requests.scheduler` draws it with the events that cause each."""


@dataclass(eq=False)
class StreamedVoice:
    """Playback of a sound that is still being rendered.

    Attributes:
        sound: Samples received so far.
        rate: Sample rate of the device, in Hz.
        play: The player's number for it; None until its first samples are sent.
        refused: True if the player refused it, so that no more samples are sent.
    """

    sound: StreamedSound
    rate: int
    play: int | None = None
    refused: bool = False


@dataclass
class PendingEmbeddings:
    """Embeddings of a job's takes that are still to be joined with take ids.

    Attributes:
        take_ids: Stored takes without a joined embedding, by index.
        vectors: Embeddings by take index, float32 bytes; empty until the engine sends them.
        model: Name of the embedding model; empty until the engine sends it.
        delivered: True if all takes of the job are stored.
    """

    take_ids: dict[int, str] = field(default_factory=dict[int, str])
    vectors: Sequence[bytes] = ()
    model: str = ""
    delivered: bool = False


@dataclass(eq=False)
class Job:
    """Record of one `generate` or `vary`, from `queued` to its terminal event. Times are of the monotonic clock.

    Attributes:
        number: The daemon's number for the job, in the order of submission.
        client: The client that sent the request.
        id: The client's id of the request.
        parameters: Parameters that the engine renders.
        batch_key: Jobs of equal keys can share a batch in an engine.
        state: Changed by `move` only.
        engine: Number of the engine that holds it, or held it last; 0 before the first.
        device: Description of that engine's device, for the recipe.
        expected_end: Moment at which its rendering should be done.
        overtaken: Later jobs that were given to an engine before it.
        attempts: Times that the job was given to an engine.
        rendering_since: Moment at which the engine first got the job in its current attempt.
        started_sent: True if `started` was sent.
        cancel_requested: True if the client requested its cancellation.
        ended_at: Moment of the terminal event.
        takes: `take` events sent so far.
        clips: Samples of these takes, for a client that requested them inline.
        terminal: The terminal event, once sent.
        warnings: `warned` events sent so far.
        texts: Texts longer than the text encoders read at once; None until they are counted.
        init_samples: Init audio for the engine: float32 little-endian, at the model's rate and channels.
        reference_samples: The sound whose timbre is taken, in the same form.
        init_clip: Init audio as read, where the take keeps a part of it.
        tensors: Tensors for the engine from a file of embeddings.
        ready: True if its init audio and embeddings are read and its texts are counted.
        streamed_take_id: Take id announced by streaming playback before the take is stored.
        preview_task: Task that writes the preview.
        deadline: Set for a request with `by`.
        request: The request as the client sent it.
        retry_parameters: Parameters to render with once the engine has stopped the current rendering.
        timer: Times the current rendering.
        voice: Streaming playback; None without a device or before the first piece.
        knows: How much of the prompt the model knows, 0 to 1; None where it can't tell.
        embeddings: Embeddings that are still awaited or joined; outlives the terminal event.
    """

    number: int
    client: ClientId
    id: Id
    parameters: Parameters
    batch_key: object = None
    state: State = State.QUEUED
    engine: int = 0
    device: str = ""
    expected_end: float = 0.0
    overtaken: int = 0
    attempts: int = 0
    rendering_since: float = 0.0
    started_sent: bool = False
    cancel_requested: bool = False
    ended_at: float = 0.0
    takes: list[Take] = field(default_factory=list[Take])
    clips: list[Clip] = field(default_factory=list[Clip])
    terminal: Event | None = None
    warnings: list[Warned] = field(default_factory=list[Warned])
    texts: tuple[HeardText, ...] | None = ()
    init_samples: bytes | None = None
    reference_samples: bytes | None = None
    init_clip: Clip | None = None
    tensors: tuple[GivenTensor, ...] = ()
    ready: bool = True
    streamed_take_id: str = ""
    preview_task: "asyncio.Task[None] | None" = None
    deadline: DeadlineRequest | None = None
    request: Generate | Vary | None = None
    retry_parameters: Parameters | None = None
    timer: JobTimer | None = None
    voice: StreamedVoice | None = None
    knows: float | None = None
    embeddings: PendingEmbeddings | None = None

    def move(self, state: State) -> None:
        """Change the state.

        Raises:
            RuntimeError: `TRANSITIONS` doesn't allow it; a fault of the caller.
        """
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"job {self.number} can't go from {self.state.name} to {state.name}")
        self.state = state

    @property
    def live(self) -> bool:
        """True if the terminal event is still to be sent."""
        return self.state is not State.ENDED


RANK = {"live": 0, "normal": 1, "background": 2}
"""Rank of each priority; a lower rank runs first."""

MAX_KEPT_CLIP_BYTES = 64 * 2**20
"""Bytes of samples kept for ended requests with inline samples, in case the client repeats the request."""

Key = tuple[ClientId, str]


def key_of(client: ClientId, identity: Id) -> Key:
    """Return the daemon's name of a request; Pd sends the id 5 as a number, other patches as a symbol."""
    return client, str(identity)


class JobStore:
    """Records of all live jobs, and of the ended ones for a while.

    Args:
        keep_ended_s: Seconds for which an ended job is kept.
        clock: Monotonic clock.
    """

    def __init__(self, keep_ended_s: float = KEEP_ENDED_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_ended_s = keep_ended_s
        self._clock = clock
        self._live: dict[int, Job] = {}
        self._ended: OrderedDict[int, Job] = OrderedDict()
        self._numbers: dict[Key, int] = {}
        """Number of the latest job of each key."""
        self._joining: dict[int, Job] = {}
        """Ended jobs whose embeddings aren't joined yet: kept for longer than `keep_ended_s` if need be."""
        self.idle = asyncio.Event()
        """Set while no job is live."""
        self.idle.set()

    def add(self, job: Job) -> None:
        """Add a new job."""
        self.idle.clear()
        self._live[job.number] = job
        self._numbers[key_of(job.client, job.id)] = job.number

    def end(self, job: Job) -> None:
        """Move a live job to `ENDED`.

        Raises:
            RuntimeError: It has ended already.
        """
        job.move(State.ENDED)
        del self._live[job.number]
        job.ended_at = self._clock()
        self._ended[job.number] = job
        if job.embeddings is not None:
            self._joining[job.number] = job
        self._forget_old()
        if job.clips:
            self._limit_clips()
        if not self._live:
            self.idle.set()

    def get(self, client: ClientId, identity: Id) -> Job | None:
        """Return the latest job of this name, live or ended not long ago."""
        self._forget_old()
        number = self._numbers.get(key_of(client, identity), 0)
        return self._live.get(number) or self._ended.get(number)

    def live(self, client: ClientId | None = None) -> Iterator[Job]:
        """Iterate over live jobs, of one client or all, in the order of submission; jobs may end meanwhile."""
        return (job for job in tuple(self._live.values()) if client in (None, job.client) and job.live)

    def waiting(self, *, ready_only: bool = False) -> list[Job]:
        """Return the waiting jobs, or those that can start, in the order in which they will run."""
        queued = (job for job in self._live.values() if job.state is State.QUEUED)
        return sorted((job for job in queued if job.ready or not ready_only), key=_place)

    def running(self, engine: int = 0) -> list[Job]:
        """Return the jobs that an engine holds, or all engines with 0, in the order in which they got them."""
        held = (job for job in self._live.values() if job.state is State.RENDERING and engine in (0, job.engine))
        return sorted(held, key=attrgetter("rendering_since"))

    def rendering(self, number: int, engine: int) -> Job | None:
        """Return the job with this number if this engine holds it."""
        job = self._live.get(number)
        return job if job is not None and job.state is State.RENDERING and job.engine == engine else None

    def joining(self, number: int) -> Job | None:
        """Return the job with this number, live or ended, if its embeddings are awaited."""
        job = self._live.get(number) or self._joining.get(number)
        return job if job is not None and job.embeddings is not None else None

    def all_joining(self) -> list[Job]:
        """Return all jobs, live or ended, whose embeddings are awaited."""
        return [job for job in (*self._live.values(), *self._joining.values()) if job.embeddings is not None]

    def end_joining(self, job: Job) -> None:
        """Drop a job's embeddings, all of which are joined or never come."""
        job.embeddings = None
        self._joining.pop(job.number, None)

    def _forget_old(self) -> None:
        horizon = self._clock() - self._keep_ended_s
        while self._ended:
            number, job = next(iter(self._ended.items()))
            if job.ended_at > horizon:
                return
            del self._ended[number]
            key = key_of(job.client, job.id)
            if self._numbers.get(key) == number:
                del self._numbers[key]

    def _limit_clips(self) -> None:
        kept_bytes = 0
        for job in reversed(self._ended.values()):
            kept_bytes += sum(clip.samples.nbytes for clip in job.clips)
            if kept_bytes > MAX_KEPT_CLIP_BYTES:
                job.clips.clear()


def _place(job: Job) -> tuple[int, int, int]:
    """Sort by priority, then jobs of a lost engine, then the order of submission."""
    return RANK[job.parameters.priority], 0 if job.attempts else 1, job.number

"""How jobs end: each with exactly one terminal event, whatever happens."""

import asyncio
import logging

from timbred import errors
from timbred.jobs.dispatch.events import failure
from timbred.jobs.dispatch.pieces import Pieces
from timbred.jobs.job import Job, State
from timbred.jobs.remembered import Remembered
from timbred.protocol import messages as m
from timbred.protocol.exchange import Outbox

log = logging.getLogger(__name__)


class Endings:
    """The only place that sends `done`, `cancelled` and `fail` for jobs."""

    def __init__(self, outbox: Outbox, remembered: Remembered, pieces: Pieces) -> None:
        self._outbox = outbox
        self._remembered = remembered
        self._pieces = pieces
        self._idle = asyncio.Event()
        self._idle.set()

    def expect(self, job: Job) -> None:
        """A job was taken in: its terminal event is still to come."""
        self._remembered.add(job)
        self._idle.clear()

    def done(self, job: Job) -> None:
        """All its takes are there."""
        self._end(job, m.Done(id=job.id, takes=len(job.takes), path=job.takes[0].path))

    def cancelled(self, job: Job) -> None:
        """Its client didn't want it any more."""
        self._end(job, m.Cancelled(id=job.id))

    def failed(self, job: Job, error: errors.TimbredError, cause: BaseException | None = None) -> None:
        """It can't be done. `cause` is what came of it where the error only says that we are at fault."""
        if isinstance(error, errors.Internal):
            log.error("request %s: %s", job.id, error, exc_info=cause)
        self._end(job, failure(job.id, error))

    def broke(self, job: Job, error: Exception) -> None:
        """Something went wrong with it on its way, whatever that is; one that has ended since doesn't hear of it."""
        if job.live:
            self.failed(job, errors.from_foreign(error), error)

    async def all_within(self, patience: float) -> bool:
        """Wait until every job has ended, for so many seconds; says whether they have."""
        try:
            await asyncio.wait_for(self._idle.wait(), patience)
        except TimeoutError:
            return False
        return True

    def _end(self, job: Job, terminal: m.Event) -> None:
        if job.state is State.RENDERING or isinstance(terminal, m.Cancelled):
            self._pieces.break_off(job)
        job.move(State.ENDED)
        job.terminal = terminal
        job.given = job.whole = None
        self._remembered.ended(job)
        self._send(job, terminal)
        if not any(self._remembered.live()):
            self._idle.set()

    def _send(self, job: Job, terminal: m.Event) -> None:
        """Send a terminal event. One that can't be sent as it is (a path that the transport can't encode) becomes a
        `fail`, which holds nothing but the id and an error."""
        try:
            self._outbox.send(job.client, terminal)
        except Exception as error:
            known = errors.from_foreign(error)
            log.error("request %s: its end can't be told: %s", job.id, known, exc_info=error)
            job.terminal = failure(job.id, known)
            self._outbox.send(job.client, job.terminal)

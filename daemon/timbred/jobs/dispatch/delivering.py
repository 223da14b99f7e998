"""From what the engine made of a job to its takes: finished in threads, told in order, and then its end."""

import logging
from collections.abc import Callable, Sequence

from timbred import errors
from timbred.engine import wire
from timbred.jobs.dispatch.background import Background
from timbred.jobs.dispatch.endings import Endings
from timbred.jobs.dispatch.events import take_event
from timbred.jobs.dispatch.sounds import takes_in
from timbred.jobs.finishing import FinishedTake, Finishing, RawTake
from timbred.jobs.hearings import Hearings
from timbred.jobs.job import Job, State
from timbred.protocol.exchange import Outbox

log = logging.getLogger(__name__)


class Delivering:
    """Delivers rendered jobs, and keeps what the engine heard of their takes."""

    def __init__(self, outbox: Outbox, finishing: Finishing, endings: Endings, background: Background) -> None:
        self.on_take: Callable[[Job, FinishedTake], None] = lambda _job, _take: None
        """Hears of each take, after its client."""
        self.hearings = Hearings(self._keep_hearing)
        self._outbox = outbox
        self._finishing = finishing
        self._endings = endings
        self._background = background

    def deliver(self, job: Job, message: wire.Rendered, payload: Sequence[memoryview]) -> None:
        """Make the takes of a job that the engine has rendered. A rendering that can't be read fails the job."""
        try:
            raw = takes_in(message, payload, job.heard_as)
        except ValueError as error:
            self._endings.broke(job, error)
            return
        job.move(State.DELIVERING)
        if job.parameters.hears:
            self.hearings.expect(job.number)
        self._background.start(self._deliver(job, raw), f"deliver-{job.number}")

    async def _deliver(self, job: Job, raw: list[RawTake]) -> None:
        whole = job.whole
        try:
            if job.preview is not None:
                await job.preview
            for take in raw:
                finished = await self._background.in_thread(self._finishing, job.parameters, take, str(job.id), whole)
                if not job.live:
                    return
                if job.cancel_wanted:
                    break
                self._announce(job, finished)
            self._conclude(job)
        except Exception as error:  # noqa: BLE001  whatever it is, the client hears of it
            self._endings.broke(job, error)
        finally:
            self.hearings.delivered(job.number)

    def _announce(self, job: Job, finished: FinishedTake) -> None:
        stored = finished.stored
        event = take_event(job.id, stored, stored.index)
        job.takes.append(event)
        if job.parameters.inline:
            job.clips.append(finished.clip)
        self._outbox.send(job.client, event, finished.clip if job.parameters.inline else None)
        self.hearings.take(job.number, stored.index, stored.take_id)
        self.on_take(job, finished)

    def _conclude(self, job: Job) -> None:
        if job.cancel_wanted:
            self._endings.cancelled(job)
        else:
            self._endings.done(job)

    def _keep_hearing(self, take_id: str, ear: str, vector: bytes) -> None:
        self._background.start(self._store_hearing(take_id, ear, vector), f"hear-{take_id}")

    async def _store_hearing(self, take_id: str, ear: str, vector: bytes) -> None:
        """Store it beside the take. A take without it is found by its words all the same."""
        try:
            await self._background.in_thread(self._finishing.library.hear, take_id, ear, vector)
        except errors.TimbredError as error:
            log.warning("take %s can't be found by its sound: %s", take_id, error)

"""Early renderings: written in a thread and told, while the sound itself goes on."""

import logging
from collections.abc import Sequence

from timbred.engine import wire
from timbred.jobs.dispatch.background import Background
from timbred.jobs.dispatch.sounds import preview_in
from timbred.jobs.finishing import Finishing, RawTake
from timbred.jobs.job import Job
from timbred.protocol import messages as m
from timbred.protocol.exchange import Outbox

log = logging.getLogger(__name__)


class Previews:
    """Writes previews; a job's takes wait for its own (`job.preview`)."""

    def __init__(self, outbox: Outbox, finishing: Finishing, background: Background) -> None:
        self._outbox = outbox
        self._finishing = finishing
        self._background = background

    def take(self, job: Job, message: wire.Preview, payload: Sequence[memoryview]) -> None:
        """An early rendering of a job came."""
        raw = preview_in(message, payload, job.parameters.seed)
        job.preview = self._background.start(self._send(job, raw), f"preview-{job.number}")

    async def _send(self, job: Job, raw: RawTake) -> None:
        try:
            path = await self._background.in_thread(self._finishing.preview, job.parameters, raw, job.whole)
        except Exception as error:  # noqa: BLE001  the sound itself goes on, and says what is wrong
            log.warning("request %s has no preview: %s", job.id, error)
            return
        if job.live:
            self._outbox.send(job.client, m.Preview(id=job.id, path=str(path)))

"""Finished takes that go into a SuperCollider server's buffers."""

import asyncio
import logging

from timbred import errors
from timbred.delivery.scsynth import allocate_and_read
from timbred.jobs.finishing import FinishedTake
from timbred.jobs.job import Job
from timbred.protocol import messages as m
from timbred.protocol.exchange import ClientId, Outbox, host_of
from timbred.supervision import Supervisor

log = logging.getLogger(__name__)


class Buffers:
    """Between finished takes and the servers that read them. Runs on the event loop."""

    def __init__(self, outbox: Outbox, supervisor: Supervisor) -> None:
        self.outbox = outbox
        self._supervisor = supervisor
        self._loading: set[asyncio.Task[None]] = set()

    @staticmethod
    def check(client: ClientId) -> None:
        """Whether this client can have its takes loaded: only into a server on its own host.

        Raises:
            BadRequest: it isn't known where that is.
        """
        if host_of(client) is None:
            raise errors.BadRequest("scsynth: it goes with requests over OSC; here read the file that `take` names")

    def finished(self, job: Job, take: FinishedTake) -> None:
        """A take is there: load it if that was asked for. The request itself doesn't wait for it."""
        wanted, path, host = job.parameters.server_buffer, take.stored.path, host_of(job.client)
        if wanted is None or path is None or host is None:
            return
        number = wanted.number + take.stored.index
        event = m.Buffered(id=job.id, index=take.stored.index, buffer=number, path=str(path))
        task = self._supervisor.run(self._load(job.client, host, wanted.port, event, take), "scsynth")
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)

    async def stop(self) -> None:
        """Give up what a server hasn't read yet; its take stays."""
        for task in self._loading:
            task.cancel()
        await asyncio.gather(*self._loading, return_exceptions=True)

    async def _load(self, client: ClientId, host: str, port: int, event: m.Buffered, take: FinishedTake) -> None:
        assert take.stored.path is not None
        try:
            await allocate_and_read(host, port, event.buffer, take.stored.path)
        except Exception as error:
            known = errors.from_foreign(error)
            if isinstance(known, errors.Internal):
                log.error("scsynth: %s", known, exc_info=error)
            self.outbox.send(client, m.Fail(id="scsynth", code=known.code, message=str(known)))
        else:
            self.outbox.send(client, event)

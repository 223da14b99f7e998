"""Reading of takes into buffers of a SuperCollider server.

Source: SuperCollider's Server Command Reference, `/b_allocRead` and its answers `/done` and `/fail`.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any

from timbred import errors
from timbred.errors import BadAudio, NoAudioDevice
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox, host_of
from timbred.protocol.osc_packets import OscMessage, read_packet, write_message
from timbred.requests.job import Job
from timbred.requests.postprocess import FinishedTake
from timbred.task_supervision import Supervisor, keep_until_done

ALLOC_READ = "/b_allocRead"

READ_TIMEOUT_S = 5.0
"""Seconds in which a server has to read a file."""


class _ScsynthExchange(asyncio.DatagramProtocol):
    """Exchange of one command and its answer with a server."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[OscMessage] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        """Set the answer; other messages are ignored."""
        for message in read_packet(data):
            if message.arguments[:1] == [ALLOC_READ] and not self.answer.done():
                self.answer.set_result(message)

    def error_received(self, exc: Exception) -> None:
        """Set the failure: no process listens on that port."""
        if not self.answer.done():
            self.answer.set_exception(exc)


async def allocate_and_read(host: str, port: int, buffer: int, path: Path, timeout_s: float = READ_TIMEOUT_S) -> None:
    """Allocate a buffer of the server at `host` and `port` and read a whole file into it.

    Args:
        host: Host of the server.
        port: Its UDP port.
        buffer: Number of the buffer.
        path: The file.
        timeout_s: Seconds in which the server has to answer.

    Raises:
        NoAudioDevice: No server answers in time.
        BadAudio: The server can't read the file.
    """
    loop = asyncio.get_running_loop()
    transport, exchange = await loop.create_datagram_endpoint(_ScsynthExchange, remote_addr=(host, port))
    try:
        transport.sendto(write_message(ALLOC_READ, [buffer, str(path), 0, 0]))
        answer = await asyncio.wait_for(exchange.answer, timeout_s)
    except OSError as error:  # TimeoutError is one
        raise NoAudioDevice(
            f"scsynth: no server answers at {host} port {port}; boot it, or give its own port. The take is {path}"
        ) from error
    finally:
        transport.close()
    if answer.address != "/done":
        reason = " ".join(str(argument) for argument in answer.arguments[1:])
        raise BadAudio(f"scsynth: the server at port {port} can't read {path} into buffer {buffer}: {reason}")


log = logging.getLogger(__name__)


class ScsynthBuffers:
    """Has SuperCollider servers read finished takes. Runs on the event loop.

    Args:
        outbox: Where `buffered` and failures are sent.
        supervisor: Runs the exchanges.
    """

    def __init__(self, outbox: Outbox, supervisor: Supervisor) -> None:
        self.outbox = outbox
        self._supervisor = supervisor
        self._loading: set[asyncio.Task[Any]] = set()

    @staticmethod
    def check(client: ClientId) -> None:
        """Check that a client can name a server, which has to run on the client's own host.

        Raises:
            BadRequest: The client has no host: it isn't connected over OSC.
        """
        if host_of(client) is None:
            raise errors.BadRequest("scsynth: it goes with requests over OSC; here read the file that `take` names")

    def finished(self, job: Job, take: FinishedTake) -> None:
        """Have a server read a take if the request has `scsynth`; the job doesn't wait for that."""
        buffer, path, host = job.parameters.server_buffer, take.stored.path, host_of(job.client)
        if buffer is None or path is None or host is None:
            return
        number = buffer.number + take.stored.index
        event = m.Buffered(id=job.id, index=take.stored.index, buffer=number, path=str(path))
        task = self._supervisor.run(self._load(job.client, host, buffer.port, event, take), "scsynth")
        keep_until_done(task, self._loading)

    async def stop(self) -> None:
        """Cancel the exchanges in progress."""
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

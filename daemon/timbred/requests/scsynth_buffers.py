"""Hands files to SuperCollider's server, which reads them into its own buffers.

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
from timbred.task_supervision import Supervisor, hold_until_done

COMMAND = "/b_allocRead"

PATIENCE = 5.0
"""Seconds that a server has for reading a file."""


class _ScsynthExchange(asyncio.DatagramProtocol):
    """One question to a server, and the answer that speaks of it."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[OscMessage] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        for message in read_packet(data):
            if message.arguments[:1] == [COMMAND] and not self.answer.done():
                self.answer.set_result(message)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens on that port."""
        if not self.answer.done():
            self.answer.set_exception(exc)


async def allocate_and_read(host: str, port: int, buffer: int, path: Path, patience: float = PATIENCE) -> None:
    """Have the server at `host` and `port` allocate the buffer with this number and read the whole file into it.
    Returns when it says that it has.

    Raises:
        NoAudioDevice: no server answers there within `patience` seconds.
        BadAudio: the server says that it can't.
    """
    loop = asyncio.get_running_loop()
    transport, conversation = await loop.create_datagram_endpoint(_ScsynthExchange, remote_addr=(host, port))
    try:
        transport.sendto(write_message(COMMAND, [buffer, str(path), 0, 0]))
        answer = await asyncio.wait_for(conversation.answer, patience)
    except OSError as error:  # TimeoutError is one
        raise NoAudioDevice(
            f"scsynth: no server answers at {host} port {port}; boot it, or give its own port. The take is {path}"
        ) from error
    finally:
        transport.close()
    if answer.address != "/done":
        said = " ".join(str(argument) for argument in answer.arguments[1:])
        raise BadAudio(f"scsynth: the server at port {port} can't read {path} into buffer {buffer}: {said}")


log = logging.getLogger(__name__)


class ScsynthBuffers:
    """Between finished takes and the servers that read them. Runs on the event loop."""

    def __init__(self, outbox: Outbox, supervisor: Supervisor) -> None:
        self.outbox = outbox
        self._supervisor = supervisor
        self._loading: set[asyncio.Task[Any]] = set()

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
        loading = self._supervisor.run(self._load(job.client, host, wanted.port, event, take), "scsynth")
        hold_until_done(loading, self._loading)

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

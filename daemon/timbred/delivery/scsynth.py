"""Hands files to SuperCollider's server, which reads them into its own buffers.

Source: SuperCollider's Server Command Reference, `/b_allocRead` and its answers `/done` and `/fail`.
"""

import asyncio
from pathlib import Path

from timbred.errors import BadAudio, NoAudioDevice
from timbred.protocol.osc_bytes import Message, read_packet, write_message

COMMAND = "/b_allocRead"

PATIENCE = 5.0
"""Seconds that a server has for reading a file."""


class _Conversation(asyncio.DatagramProtocol):
    """One question to a server, and the answer that speaks of it."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

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
    transport, conversation = await loop.create_datagram_endpoint(_Conversation, remote_addr=(host, port))
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

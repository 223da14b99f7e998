"""WebSockets that are open: what waits to be sent to each client, and what comes from it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Generator

from starlette.websockets import WebSocket, WebSocketDisconnect

from timbred.protocol.exchange import ClientId

_log = logging.getLogger(__name__)

REFUSED = 1008
"""The code that says: against the rules; here, from another page or too slow."""

_MOST_CLIENTS = 200
_MOST_UNSENT = 2000
_MOST_UNSENT_BYTES = 4 << 20
_READ_BELOW = 200
_GOING_AWAY = 1001


class Listener:
    """One WebSocket client and what waits to be sent to it, text or bytes; None is the end."""

    def __init__(self) -> None:
        self._unsent: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._unsent_size = 0
        self._full = False
        self._few = asyncio.Event()
        self._few.set()

    def put(self, message: str | bytes) -> None:
        """Let a message wait; a client that doesn't read is disconnected instead."""
        if self._full:
            return
        if self._unsent.qsize() >= _MOST_UNSENT or self._unsent_size > _MOST_UNSENT_BYTES:
            self._full = True
            self._few.set()
            self._unsent = asyncio.Queue()
            self._unsent.put_nowait(None)
            return
        self._unsent.put_nowait(message)
        self._unsent_size += len(message)
        if self._unsent.qsize() >= _READ_BELOW:
            self._few.clear()

    async def read(self) -> None:
        """Wait until most of what waits has been sent: a client that doesn't read isn't read from either."""
        await self._few.wait()

    def end(self) -> None:
        """Send what waits, then close."""
        self._unsent.put_nowait(None)

    async def send_to(self, made: WebSocket) -> None:
        """Send until the end."""
        try:
            while (message := await self._unsent.get()) is not None:
                self._unsent_size -= len(message)
                if self._unsent.qsize() < _READ_BELOW:
                    self._few.set()
                if isinstance(message, str):
                    await made.send_text(message)
                else:
                    await made.send_bytes(message)
            await made.close(REFUSED if self._full else _GOING_AWAY)
        finally:
            self._few.set()
            self._full = True


class Listeners:
    """All WebSockets of one kind, by client."""

    def __init__(self) -> None:
        self._open: dict[ClientId, Listener] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self.closing = False
        """Whether nothing more is to be taken in."""

    @property
    def full(self) -> bool:
        """Whether there are as many as may be."""
        return len(self._open) >= _MOST_CLIENTS

    @contextlib.contextmanager
    def listening(self, client: ClientId, made: WebSocket) -> Generator[None]:
        """Send the client what is put for it. One that it had before is ended."""
        if (before := self._open.get(client)) is not None:
            before.end()
        listener = self._open[client] = Listener()
        sending = asyncio.create_task(listener.send_to(made))
        self._sending.add(sending)
        sending.add_done_callback(self._ended)
        try:
            yield
        finally:
            if self._open.get(client) is listener:
                del self._open[client]
            sending.cancel()

    def __contains__(self, client: ClientId) -> bool:
        return client in self._open

    def put(self, client: ClientId, message: str | bytes) -> bool:
        """Let a message wait for a client. Never blocks; False for one that has gone."""
        listener = self._open.get(client)
        if listener is not None:
            listener.put(message)
        return listener is not None

    async def read(self, client: ClientId) -> None:
        """Wait until a client may be read from again."""
        listener = self._open.get(client)
        if listener is not None:
            await listener.read()

    async def close(self, patience: float) -> None:
        """Send what waits, for at most `patience` seconds, and end every connection."""
        self.closing = True
        for listener in self._open.values():
            listener.end()
        if self._sending:
            await asyncio.wait(self._sending, timeout=patience)

    def _ended(self, sending: asyncio.Task[None]) -> None:
        self._sending.discard(sending)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            _log.debug("a WebSocket ended: %s", error)


async def received(made: WebSocket) -> AsyncGenerator[str | bytes]:
    """What a client sends, until it goes."""
    with contextlib.suppress(WebSocketDisconnect):
        while (message := await made.receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            yield message.get("bytes") or b"" if text is None else text

"""The writing half of a WebSocket: what waits to be sent to one client."""

import asyncio

from starlette.websockets import WebSocket

REFUSED = 1008
"""The code that says: against the rules; here, from another page or too slow."""

_MOST_UNSENT = 2000
_GOING_AWAY = 1001


class Listener:
    """One WebSocket client and what waits to be sent to it, text or bytes; None is the end."""

    def __init__(self) -> None:
        self._unsent: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._full = False

    def put(self, message: str | bytes) -> None:
        """Let a message wait; a client that doesn't read is disconnected instead."""
        if self._full:
            return
        if self._unsent.qsize() >= _MOST_UNSENT:
            self._full = True
            self._unsent = asyncio.Queue()
            self._unsent.put_nowait(None)
            return
        self._unsent.put_nowait(message)

    def end(self) -> None:
        """Send what waits, then close."""
        self._unsent.put_nowait(None)

    async def send_to(self, made: WebSocket) -> None:
        """Send until the end."""
        while (message := await self._unsent.get()) is not None:
            if isinstance(message, str):
                await made.send_text(message)
            else:
                await made.send_bytes(message)
        await made.close(REFUSED if self._full else _GOING_AWAY)

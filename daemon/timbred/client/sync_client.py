"""timbred from programs that don't use asyncio."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from timbred.client.async_client import AsyncTimbred
from timbred.client.connection import DaemonAddress
from timbred.client.requests import PlainRequests
from timbred.protocol import messages as m

Result = TypeVar("Result")


class Timbred(PlainRequests):
    """A client of the daemon whose calls wait for their answer. May be used from several threads.

        with Timbred() as timbred:
            sound = timbred.generate("warm analog pad", seconds=4)

    A thread of its own does the talking; what is said of `AsyncTimbred` holds here too.
    """

    def __init__(self, host: str | None = None, requests: int | None = None, events: int | None = None) -> None:
        """With `requests`, the daemon at that port (and `host`, 127.0.0.1) and no other; `events` is the port that
        `listen` needs."""
        # ZeroMQ needs a loop that can watch sockets, which on Windows the usual one can't
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="timbred-client", daemon=True)
        self._thread.start()
        self._timbred = self._run(_made(host, requests, events))

    @property
    def timbred(self) -> AsyncTimbred:
        """The client that does the work, on a loop of its own."""
        return self._timbred

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. Requests under way go on in the daemon, unheard."""
        if self._thread.is_alive():
            self._run(self.timbred.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def connect(self, within: float = 1.5) -> DaemonAddress:
        """Find the daemon now; where it is.

        Raises:
            NoDaemon: there is none, after at most `within` seconds.
        """
        return self._run(self.timbred.connect(within))

    def listen(self, *names: str) -> Generator[tuple[str, m.Event]]:
        """Everybody's events, with who asked for each, as they happen: those of these names, or all.

        Raises:
            NoDaemon: no daemon is there.
            BadRequest: there is no such event.
        """
        return self._each(self.timbred.listen(*names))

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for what the thread does. Ctrl-C while waiting takes it back."""
        doing: Future[Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return doing.result()
        except BaseException:
            doing.cancel()
            raise

    def _each(self, events: AsyncGenerator[Result]) -> Generator[Result]:
        """One by one what an asynchronous iterator gives; leaving early ends that too."""
        try:
            while True:
                try:
                    yield self._run(_next(events))
                except StopAsyncIteration:
                    return
        finally:
            if self._thread.is_alive():
                with contextlib.suppress(RuntimeError):  # the interpreter is ending
                    self._run(events.aclose())


async def _made(host: str | None, requests: int | None, events: int | None) -> AsyncTimbred:
    return AsyncTimbred(host, requests, events)


async def _next(events: AsyncGenerator[Result]) -> Result:
    return await anext(events)

"""The blocking client."""

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
    """A client of the daemon whose calls block until they are answered. It may be used from several threads.

        with Timbred() as timbred:
            sound = timbred.generate("warm analog pad", seconds=4)

    It runs an `AsyncTimbred` in a separate thread, and has the same arguments.
    """

    def __init__(self, host: str | None = None, requests: int | None = None, events: int | None = None) -> None:
        # ZeroMQ needs an event loop that can watch sockets; the default one on Windows can't
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="timbred-client", daemon=True)
        self._thread.start()
        self._timbred = self._run(_make_client(host, requests, events))

    @property
    def timbred(self) -> AsyncTimbred:
        """The asynchronous client, which runs in a separate thread."""
        return self._timbred

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The daemon continues pending requests, but their events are lost."""
        if self._thread.is_alive():
            self._run(self.timbred.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def connect(self, within: float = 1.5) -> DaemonAddress:
        """Find the daemon and return its address.

        Raises:
            DaemonNotFound: No daemon answers within `within` seconds.
        """
        return self._run(self.timbred.connect(within))

    def listen(self, *names: str) -> Generator[tuple[str, m.Event]]:
        """Yield the events of all clients as (client id, event), filtered by event names if any are given.

        Raises:
            DaemonNotFound: No daemon is running.
            BadRequest: There is no such event.
        """
        return self._each(self.timbred.listen(*names))

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the thread and wait for its result; Ctrl-C cancels it."""
        future: Future[Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _each(self, events: AsyncGenerator[Result]) -> Generator[Result]:
        """Yield the items of an asynchronous generator; closing this generator closes it."""
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


async def _make_client(host: str | None, requests: int | None, events: int | None) -> AsyncTimbred:
    return AsyncTimbred(host, requests, events)


async def _next(events: AsyncGenerator[Result]) -> Result:
    return await anext(events)

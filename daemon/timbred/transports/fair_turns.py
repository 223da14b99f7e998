"""Fair shares of the event loop among connections.

Each connection's requests are one iterator, of which a step takes in one request. Steps are taken in turn, one of each
connection, and after `TURN_S` the loop looks at its sockets again. So however much one connection sends, a request of
another waits for at most one step of each connection that has something to do.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_log = logging.getLogger(__name__)

TURN_S = 0.003
"""Seconds after which steps are left for the next turn of the event loop."""

HEAVY_STEP_S = 0.001
"""Seconds that a step counts for that only lets a coroutine begin: its work is done after the turn."""


@dataclass(eq=False, slots=True)
class _Work:
    steps: Iterator[object]
    ended: asyncio.Future[None] | None


class Turns:
    """The connections that have something to do, in the order of their turns."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._waiting: deque[_Work] = deque()
        self._clock = clock
        self._scheduled = False
        self._added = 0.0

    def add(self, steps: Iterator[object]) -> None:
        """Take these steps in turn with those of others. An error is logged, and ends them."""
        self._append(_Work(steps, None))

    async def work(self, steps: Iterator[object]) -> None:
        """Take these steps in turn with those of others; returns after the last one.

        Raises:
            Exception: what a step raised; none is taken after it.
        """
        ended = asyncio.get_running_loop().create_future()
        self._append(_Work(steps, ended))
        await ended

    async def begin(self) -> None:
        """Wait for a turn to begin some work that isn't done in steps."""
        await self.work(self._heavy())

    def _heavy(self) -> Iterator[None]:
        self._added += HEAVY_STEP_S
        return
        yield

    def _append(self, work: _Work) -> None:
        self._waiting.append(work)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._added = 0.0
        end = self._clock() + TURN_S
        while self._waiting:
            work = self._waiting.popleft()
            if self._step(work):
                self._waiting.append(work)
            if self._clock() + self._added >= end:
                break
        if self._waiting:
            self._schedule()

    @staticmethod
    def _step(work: _Work) -> bool:
        """Take one step; tell whether there may be more."""
        ended = work.ended
        if ended is not None and ended.done():
            return False  # whoever waited was cancelled
        try:
            next(work.steps)
        except StopIteration:
            if ended is not None:
                ended.set_result(None)
            return False
        except Exception as error:  # noqa: BLE001  whatever it is, others go on
            if ended is None:
                _log.exception("a connection's requests can't be taken in")
            else:
                ended.set_exception(error)
            return False
        return True

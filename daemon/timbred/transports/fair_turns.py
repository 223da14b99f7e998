"""Limits on what a flood of requests can use: turns of the event loop, and lines of the log.

Each connection's requests are an iterator whose steps accept one request each. One step of each connection is run in
turn, and after `TURN_S` the event loop polls its sockets again. However much one connection sends, a request of another
one waits for at most one step of each connection with pending requests.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_log = logging.getLogger(__name__)

TURN_S = 0.003
"""Seconds after which the remaining steps wait for the next iteration of the event loop."""

HEAVY_STEP_S = 0.001
"""Seconds that a step counts for if it only starts a coroutine, whose work is done after the turn."""


@dataclass(eq=False, slots=True)
class _Work:
    """The steps of one connection, and the future of who waits for their end."""

    steps: Iterator[object]
    ended: asyncio.Future[None] | None


class Turns:
    """The connections with pending steps, in the order of their turns."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._waiting: deque[_Work] = deque()
        self._clock = clock
        self._scheduled = False
        self._extra_s = 0.0

    def add(self, steps: Iterator[object], ended: asyncio.Future[None] | None = None) -> None:
        """Run these steps in turn with those of others. An exception ends them.

        `ended` is completed after the last step, or with the exception; without it, an exception is logged.
        """
        self._waiting.append(_Work(steps, ended))
        self._schedule()

    async def work(self, steps: Iterator[object]) -> None:
        """Run these steps in turn with those of others; return after the last one.

        Raises:
            Exception: A step raised it; the remaining steps aren't run.
        """
        ended = asyncio.get_running_loop().create_future()
        self.add(steps, ended)
        await ended

    async def begin(self) -> None:
        """Wait for a turn before starting work that isn't divided into steps."""
        await self.work(self._heavy_step())

    def _heavy_step(self) -> Iterator[None]:
        self._extra_s += HEAVY_STEP_S
        return
        yield

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run_turn)

    def _run_turn(self) -> None:
        self._scheduled = False
        self._extra_s = 0.0
        end = self._clock() + TURN_S
        while self._waiting:
            work = self._waiting.popleft()
            if self._run_step(work):
                self._waiting.append(work)
            if self._clock() + self._extra_s >= end:
                break
        if self._waiting:
            self._schedule()

    @staticmethod
    def _run_step(work: _Work) -> bool:
        """Run one step; return True if there may be more."""
        ended = work.ended
        if ended is not None and ended.done():
            return False  # the task that waited was cancelled
        try:
            next(work.steps)
        except StopIteration:
            if ended is not None:
                ended.set_result(None)
            return False
        except Exception as error:  # noqa: BLE001  other connections continue
            if ended is None:
                _log.exception("a connection's requests can't be accepted")
            else:
                ended.set_exception(error)
            return False
        return True


LOG_LINES_PER_SECOND = 10.0
"""Lines that are written per second on average."""

MAX_BURST_LOG_LINES = 100.0
"""Lines that are written at once after a pause."""


class LimitedLog:
    """Writer of log lines, at most 100 at once and 10 per second on average.

    The next line that is written says how many were left out.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lines = MAX_BURST_LOG_LINES
        self._counted = clock()
        self._left_out = 0

    def write(self, level: int, message: str, *arguments: object) -> None:
        """Log a message unless the limit is reached."""
        now = self._clock()
        self._lines = min(MAX_BURST_LOG_LINES, self._lines + (now - self._counted) * LOG_LINES_PER_SECOND)
        self._counted = now
        if self._lines < 1.0:
            self._left_out += 1
            return
        self._lines -= 1.0
        if self._left_out:
            self._log.log(level, "%d more lines like the next one were left out", self._left_out)
            self._left_out = 0
        self._log.log(level, message, *arguments)

"""Supervision of the daemon's background tasks: every failure is logged and reported.

    policy       the task ...              when it fails
    ---------    ----------------------    --------------------------------------------------
    run          ends by itself            the failure is logged and shown in `status`
    keep         runs until the daemon     the same, and it is restarted after increasing
                 stops                     pauses
    require      runs until the daemon     the same, and the daemon stops with the reason and
                 stops                     exit status 1

Failures of threads and of callbacks, which no task awaits, are handled in the same way: see `watch_loop`.
"""

import asyncio
import itertools
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

RESTART_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses before the restarts of a kept task; the last one repeats."""

HEALTHY_AFTER_S = 60.0
"""Seconds after which the failure of a kept task is followed by a restart without a pause."""

MAX_FAULTS = 16
"""Maximum number of faults that are stored for `status`, the latest ones."""


def keep_until_done(task: asyncio.Task[Any], tasks: set[asyncio.Task[Any]]) -> None:
    """Keep a task in a set until it ends, because the event loop has only weak references."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)


@dataclass(frozen=True)
class Fault:
    """A failure of a background task: its name, the last reason, the number of failures, and the time of the last one.

    `moment` is in seconds of the monotonic clock.
    """

    task: str
    reason: str
    count: int
    moment: float

    def __str__(self) -> str:
        ago = time.monotonic() - self.moment
        often = "once" if self.count == 1 else f"{self.count} times"
        return f"{self.task}: {self.reason} ({often}, last {ago:.0f} s ago)"


class Supervisor:
    """Starts background tasks on the running event loop and deals with their failures."""

    def __init__(self) -> None:
        self.broken = asyncio.Event()
        """Set once a required task failed: the daemon can't continue."""
        self.reason = ""
        """The fault that ends the daemon; empty while there is none."""
        self._faults: OrderedDict[str, Fault] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def faults(self) -> list[Fault]:
        """Failures so far, the latest last. Tasks whose names differ only in a number count as one."""
        return list(self._faults.values())

    def run(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that ends by itself."""
        return self._started(work, name, self._ended)

    def keep(self, make: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        """Start a task that is started again when it fails; `make` returns a new coroutine for each start."""
        return self._started(self._kept(make, name), name, self._ended)

    def require(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that the daemon can't do without until it stops, when it is cancelled or ends by itself."""
        return self._started(work, name, self._required_ended)

    def failed(self, name: str, error: BaseException | str) -> None:
        """Log a failure and store it for `status`.

        Args:
            name: The task that failed.
            error: The exception, or the reason in words.
        """
        cause = error if isinstance(error, BaseException) else None
        reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        log.error("the background task %s failed: %s", name, reason, exc_info=cause)
        kind = re.sub(r"\d+", "N", name)
        before = self._faults.pop(kind, None)
        count = 1 if before is None else before.count + 1
        self._faults[kind] = Fault(name, reason, count, time.monotonic())
        while len(self._faults) > MAX_FAULTS:
            self._faults.popitem(last=False)

    def watch_loop(self) -> None:
        """Log and show failures of callbacks and of tasks that nothing awaits, and of all threads of this process."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._loop_failed)

        def thread_failed(failure: threading.ExceptHookArgs) -> None:
            error = failure.exc_value
            if error is None or failure.exc_type is SystemExit:
                return
            name = failure.thread.name if failure.thread else "thread"
            try:
                loop.call_soon_threadsafe(self.failed, name, error)
            except RuntimeError:  # the loop is closed: the daemon has stopped
                log.error("the thread %s failed: %r", name, error, exc_info=error)

        threading.excepthook = thread_failed

    def _started(
        self, work: Coroutine[Any, Any, None], name: str, ended: Callable[[asyncio.Task[None]], None]
    ) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        keep_until_done(task, self._tasks)
        task.add_done_callback(ended)
        return task

    async def _kept(self, make: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        pauses = itertools.chain(RESTART_DELAYS_S, itertools.repeat(RESTART_DELAYS_S[-1]))
        while True:
            started_at = time.monotonic()
            try:
                return await make()
            except Exception as error:  # noqa: BLE001  any failure leads to another start
                self.failed(name, error)
            if time.monotonic() - started_at > HEALTHY_AFTER_S:
                pauses = itertools.chain(RESTART_DELAYS_S, itertools.repeat(RESTART_DELAYS_S[-1]))
            await asyncio.sleep(next(pauses))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(task.get_name(), error)

    def _required_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        self.failed(task.get_name(), error)
        if not self.reason:
            self.reason = f"{task.get_name()} failed ({type(error).__name__}: {error}); start timbred again"
        self.broken.set()

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None:
            loop.default_exception_handler(context)
            return
        task = context.get("task") or context.get("future")
        name = task.get_name() if isinstance(task, asyncio.Task) else str(context.get("message", "callback"))
        self.failed(name, error)

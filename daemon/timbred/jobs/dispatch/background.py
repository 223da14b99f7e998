"""Work beside the event loop: tasks that are awaited before the daemon ends, and threads for what takes long."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from timbred.supervision import Supervisor

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Background:
    """Tasks, and the two threads that they share."""

    def __init__(self, supervisor: Supervisor | None = None) -> None:
        self._supervisor = supervisor or Supervisor()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="finishing")
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Begin a task."""
        task = self._supervisor.run(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def in_thread(self, work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result:
        """What a function returns, or raises, that runs in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*given, **named))

    async def stop(self) -> None:
        """Wait for all tasks, those too that others of them begin."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._threads.shutdown()

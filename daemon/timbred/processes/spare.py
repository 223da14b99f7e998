"""A child process that waits with its imports done, to take the place of one that is lost.

It is started only after a first success, while nothing else is to be done and where there is memory for it, and it
imports at the lowest priority. It is told to go on by one line on its standard input: where its daemon is, and the
token to show.

    state      entered when                                     left when
    -------    ---------------------------------------------    -----------------------------------
    absent     at first; it ended; it was taken into use        the policy has allowed one for `settle_s`
    warming    it was started                                   it says that it is warm, or ends
    warm       its imports are done                             it is taken into use, ends, or memory is short
"""

import asyncio
import contextlib
import json
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from timbred.processes.isolation import child_environment, safe_folder
from timbred.processes.startup import SPARE_OPTION, WARM_LINE

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""Pause between two looks at whether a spare may be started, or must end for want of memory."""

RETRY_AFTER_S = 60.0
"""Pause after a spare that ended by itself: whatever ended it may end the next one."""


@dataclass(frozen=True)
class SparePolicy:
    """When there is to be a spare. `is_idle` says that nothing else is being done now; it has to hold for `settle_s`.

    `needed_bytes` of memory have to be available for one to be started, and half of them for it to stay.
    """

    is_idle: Callable[[], bool]
    needed_bytes: int
    settle_s: float = 3.0


class Spare:
    """The spare process of one kind of child. Runs on the event loop."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], policy: SparePolicy) -> None:
        self._name = name
        self._command = [*command, SPARE_OPTION]
        self._environment = environment
        self._policy = policy
        self._process: subprocess.Popen[bytes] | None = None
        self._warm = threading.Event()
        self._allowed = False
        self._not_before = 0.0

    @property
    def pid(self) -> int | None:
        """The process, while there is one, warm or not."""
        return self._process.pid if self._process else None

    @property
    def is_warm(self) -> bool:
        """Tell whether there is one with its imports done."""
        return self._process is not None and self._warm.is_set() and self._process.poll() is None

    def allow(self) -> None:
        """The child is ready for work: from now on there may be a spare."""
        self._allowed = True

    async def keep(self) -> None:
        """Start a spare whenever there may be one, and end it when memory is short; until cancelled."""
        idle_since: float | None = None
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._process is not None:
                self._look_after(self._process)
                continue
            now = time.monotonic()
            if not (self._allowed and self._policy.is_idle()):
                idle_since = None
                continue
            idle_since = now if idle_since is None else idle_since
            settled = now - idle_since >= self._policy.settle_s and now >= self._not_before
            if settled and psutil.virtual_memory().available >= self._policy.needed_bytes:
                self._start()

    def take(self, address: str, token: str) -> subprocess.Popen[bytes] | None:
        """Have a warm spare go on as the child; None when there is none. Another comes after the next success."""
        process = self._process
        if process is None or not self.is_warm:
            return None
        self._process, self._allowed = None, False
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([address, token]).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            end_process(process)
            return None
        return process

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        end_process(process)

    def _start(self) -> None:
        self._warm = warm = threading.Event()
        try:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=safe_folder(),
                env=child_environment(**self._environment),
            )  # fmt: skip
        except OSError as error:
            log.warning("no spare %s process can be started: %s", self._name, error)
            self._not_before = time.monotonic() + RETRY_AFTER_S
            return
        self._process = process
        threading.Thread(target=_watch, args=(process, warm), name=f"{self._name}-spare", daemon=True).start()

    def _look_after(self, process: subprocess.Popen[bytes]) -> None:
        status = process.poll()
        if status is not None:
            log.warning("the spare %s process ended with status %d", self._name, status)
            self._process, self._not_before = None, time.monotonic() + RETRY_AFTER_S
            end_process(process)
        elif psutil.virtual_memory().available < self._policy.needed_bytes // 2:
            log.info("the spare %s process is ended: memory is short", self._name)
            self._not_before = time.monotonic() + RETRY_AFTER_S
            self.stop()


def _watch(process: subprocess.Popen[bytes], warm: threading.Event) -> None:
    """Wait for the line that says that a spare is warm."""
    assert process.stdout is not None
    with contextlib.suppress(OSError, ValueError), process.stdout as line:
        if line.readline() == WARM_LINE:
            warm.set()


def end_process(process: subprocess.Popen[bytes] | None) -> None:
    """Make sure that a process is gone: it sees its standard input close; failing that it is killed."""
    if process is None:
        return
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

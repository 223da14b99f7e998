"""Other people's programs at the other end of a conversation: started, listened to line by line, gone at the end."""

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO

from tests.patience import TIMEOUT_S

HEADLESS = {"QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_DISABLE_SANDBOX": "1"}
"""What sclang needs where there is no screen."""


class Spoken:
    """What a program says, line by line, read in threads so that it never waits for a reader."""

    def __init__(self, *streams: IO[str]) -> None:
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._open = len(streams)
        for stream in streams:
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._open -= 1
            self._more.notify_all()

    def matching(self, pattern: str) -> list[str]:
        """The lines so far that have the pattern, in order."""
        with self._more:
            return [line for line in self.lines if re.search(pattern, line)]

    def until(self, pattern: str, within: float = TIMEOUT_S) -> re.Match[str]:
        """The first line that has the pattern, as soon as it is said; fails with all that was said when it isn't."""
        deadline = time.monotonic() + within
        with self._more:
            while True:
                for line in self.lines:
                    if found := re.search(pattern, line):
                        return found
                left = deadline - time.monotonic()
                if not self._open or left <= 0:
                    raise AssertionError(f"{pattern!r} wasn't said:\n" + "\n".join(self.lines))
                self._more.wait(left)


class Program:
    """A running program and what it says on both of its outputs."""

    def __init__(self, command: Sequence[str], folder: Path | None = None) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=folder,
            env={**os.environ, **HEADLESS},
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.spoken = Spoken(self.process.stdout, self.process.stderr)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(*command: str, folder: Path | None = None) -> Generator[Program]:
    """A program that is gone when the block ends."""
    program = Program(command, folder)
    try:
        yield program
    finally:
        program.close()

"""Progress of a command: one line redrawn on a terminal, plain lines elsewhere. On standard error."""

import os
import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from timbred.cli.output import error_console, tell

TOLD_AT = (0.25, 0.5, 0.75, 1.0)
"""Fractions that are told where there is no terminal."""


class Display(Protocol):
    """Tells how far the demo is."""

    def say(self, line: str) -> None:
        """A line that stays."""
        ...

    def stage(self, text: str, fraction: float = 0.0) -> None:
        """Show the current activity and its progress, 0 to 1."""
        ...


class Lines:
    """For pipes and files: a line for each stage and each quarter of it, without control codes."""

    def __init__(self) -> None:
        self._text, self._told = "", 0.0

    def __enter__(self) -> "Lines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is to be taken back."""

    def say(self, line: str) -> None:
        """See `Display`."""
        tell(line)

    def stage(self, text: str, fraction: float = 0.0) -> None:
        """See `Display`."""
        if text != self._text:
            self._text, self._told = text, 0.0
            self.say(text)
        reached = max((mark for mark in TOLD_AT if mark <= fraction), default=0.0)
        if reached > self._told:
            self._told = reached
            self.say(f"{text}: {reached:.0%}")


class Bar:
    """For a terminal: one line that is drawn anew, and gone at the end."""

    def __init__(self) -> None:
        self._console = error_console(highlight=False, markup=False)
        columns = (TextColumn("{task.description:<24}", markup=False), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task("", total=1.0)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the line."""
        self._progress.stop()

    def say(self, line: str) -> None:
        """See `Display`."""
        self._console.print(line, soft_wrap=True)

    def stage(self, text: str, fraction: float = 0.0) -> None:
        """See `Display`."""
        self._progress.update(self._task, description=text, completed=fraction)


def display() -> "AbstractContextManager[Display]":
    """A `Bar` where standard error is a terminal that can move its cursor, else `Lines`."""
    can_redraw = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return Bar() if can_redraw else Lines()

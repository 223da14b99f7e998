"""Standard output and error that take every text, whatever the console's encoding is.

Standard error is for people: where it can't be written, since the log's disk is full or nobody reads it, what was to be
said there is dropped, and the work goes on.
"""

import codecs
import contextlib
import io
import os
import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from rich.console import Console

ERRORS = "timbred-console"
"""Name of the error handler: what the console can't show is escaped; bytes of paths are passed on as they are."""


def take_any_text(*streams: TextIO | None) -> None:
    r"""Let text that a stream's encoding lacks be written as escapes (`\u2603`) rather than raise.

    Parts of paths that aren't UTF-8 are written as the bytes that they are, so that a shell can use the path.
    """
    codecs.register_error(ERRORS, _escaped)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


class ErrorOutput(io.TextIOBase):
    """Standard error as it is now. What can't be written is dropped: there is no other place to say so."""

    def __init__(self) -> None:
        self._stream = sys.stderr  # rich puts its own in this place while a progress bar is shown

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  it is one in typeshed
        """The encoding of standard error."""
        return self._stream.encoding

    def write(self, text: str, /) -> int:
        """Write the text, if it can be written; the number of its characters."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write out what is held, if it can be written."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Tell whether standard error is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The file descriptor of standard error."""
        return self._stream.fileno()


def tell(line: str) -> None:
    """Print a line on standard error, if it can be written."""
    print(line, file=ErrorOutput(), flush=True)


def error_console(**options: Any) -> "Console":
    """A console on standard error. `options` are rich's."""
    from rich.console import Console  # not needed for --help

    return Console(file=cast("TextIO", ErrorOutput()), **options)


def finish_output() -> None:
    """Write out what standard output and error hold.

    Raises:
        OSError: standard output can't be written.
    """
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        drop_output(sys.stderr)
    if sys.stdout is not None:
        sys.stdout.flush()


def drop_output(stream: TextIO | None = None) -> None:
    """Let what standard output, or another stream, still holds go nowhere, so that the interpreter's end doesn't
    raise."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, (stream or sys.stdout).fileno())
        os.close(nowhere)


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    escaped = b"".join(
        bytes([ord(letter) - 0xDC00]) if "\udc80" <= letter <= "\udcff" else ascii(letter)[1:-1].encode()
        for letter in part
    )
    return escaped, error.end


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

"""Standard output and error: encoding of any text, tables, progress display, and handling of failed writes.

If standard error can't be written, because the log's disk is full or its reader has closed it, output to it is dropped
and the work continues.
"""

import codecs
import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from rich.console import Console

ERRORS = "timbred-console"
"""Name of the codec error handler that escapes what the console can't encode, and keeps bytes of paths."""


def escape_unencodable(*streams: TextIO | None) -> None:
    r"""Write characters that a stream can't encode as escapes (`\u2603`) instead of raising.

    Parts of paths that aren't UTF-8 are written as their bytes, so that a shell can use the path.
    """
    codecs.register_error(ERRORS, _escape)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


class ErrorOutput(io.TextIOBase):
    """The current standard error. Text that can't be written is dropped."""

    def __init__(self) -> None:
        self._stream = sys.stderr  # rich replaces it while a progress bar is shown

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  it is one in typeshed
        """The encoding of standard error."""
        return self._stream.encoding

    def write(self, text: str, /) -> int:
        """Write a text if possible; return its number of characters."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if possible."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Tell if standard error is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of standard error."""
        return self._stream.fileno()


def print_error_line(line: str) -> None:
    """Print a line on standard error if possible."""
    print(line, file=ErrorOutput(), flush=True)


def error_console(**options: Any) -> "Console":
    """Return a rich console on standard error."""
    from rich.console import Console  # not needed for --help

    return Console(file=cast("TextIO", ErrorOutput()), **options)


def finish_output() -> None:
    """Flush standard output and error.

    Raises:
        OSError: Standard output can't be written.
    """
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        drop_output(sys.stderr)
    if sys.stdout is not None:
        sys.stdout.flush()


def drop_output(stream: TextIO | None = None) -> None:
    """Discard the buffered output of a stream, standard output by default, so that the exit doesn't raise."""
    with contextlib.suppress(OSError, ValueError):
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, (stream or sys.stdout).fileno())
        os.close(null_device)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    escaped = b"".join(
        bytes([ord(letter) - 0xDC00]) if "\udc80" <= letter <= "\udcff" else ascii(letter)[1:-1].encode()
        for letter in part
    )
    return escaped, error.end


WRAPPED_HEADINGS = ("prompt", "file", "remark", "found", "what to do")
"""Headings of columns whose text may be wrapped; names and numbers aren't."""

PIPE_WIDTH_CHARACTERS = 10_000
"""Maximum line length if standard output isn't a terminal: each row is one line, and a command in it is whole."""

Rows = Sequence[dict[str, Any]]


def show(rows: Rows, columns: dict[str, str], as_json: bool, empty: str) -> None:
    """Print rows as JSON, or as a table of some columns (key to heading)."""
    if as_json:
        print(json.dumps(list(rows), indent=2))
    elif not rows:
        print(empty)
    else:
        from rich.console import Console  # not needed for --help
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in columns.values():
            table.add_column(heading, no_wrap=heading not in WRAPPED_HEADINGS, overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row.get(key)) for key in columns))
        wide = None if sys.stdout.isatty() else PIPE_WIDTH_CHARACTERS
        Console(width=wide).print(table)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1000 else f"{value:.0f}"
    return "" if value is None else str(value)


REPORTED_FRACTIONS = (0.25, 0.5, 0.75, 1.0)
"""Fractions of progress that are printed without a terminal."""


class Display(Protocol):
    """Interface of the progress display."""

    def say(self, line: str) -> None:
        """Print a line that stays."""
        ...

    def stage(self, text: str, fraction: float = 0.0) -> None:
        """Show the current activity and its progress, 0 to 1."""
        ...


class LineDisplay:
    """Progress for pipes and files: a line for each stage and each quarter of it, without control codes."""

    def __init__(self) -> None:
        self._text, self._reported = "", 0.0

    def __enter__(self) -> "LineDisplay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: printed lines stay."""

    def say(self, line: str) -> None:
        """See `Display`."""
        print_error_line(line)

    def stage(self, text: str, fraction: float = 0.0) -> None:
        """See `Display`."""
        if text != self._text:
            self._text, self._reported = text, 0.0
            self.say(text)
        reached = max((mark for mark in REPORTED_FRACTIONS if mark <= fraction), default=0.0)
        if reached > self._reported:
            self._reported = reached
            self.say(f"{text}: {reached:.0%}")


class BarDisplay:
    """Progress for a terminal: one line that is redrawn, and removed at the end."""

    def __init__(self) -> None:
        self._console = error_console(highlight=False, markup=False)
        columns = (TextColumn("{task.description:<24}", markup=False), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task("", total=1.0)

    def __enter__(self) -> "BarDisplay":
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
    """Return a `BarDisplay` if standard error is a terminal that can move its cursor, else a `LineDisplay`."""
    can_redraw = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return BarDisplay() if can_redraw else LineDisplay()

"""Standard output and error that take every text, whatever the console's encoding is.

Standard error is for people: where it can't be written, since the log's disk is full or nobody reads it, what was to be
said there is dropped, and the work goes on.
"""

import codecs
import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

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

"""Every error that reaches a client, as one tree.

    TimbredError
    +-- BadRequest          bad-request
    +-- UnknownModel        unknown-model
    +-- MissingWeights      missing-weights
    +-- Busy                busy
    +-- OutOfMemory         out-of-memory
    +-- ModelError          model-error
    +-- ForbiddenPath       forbidden-path
    +-- BadAudio            bad-audio
    +-- DiskFull            disk-full
    +-- NoAudioDevice       no-audio-device
    +-- WorkerLost          worker-lost
    +-- ShuttingDown        shutting-down
    +-- AccessDenied        access-denied
    +-- Internal            internal

Each message states the cause, the value concerned and the remedy. Errors of libraries are
translated in one place: `from_foreign`.
"""

import errno
from typing import ClassVar

from timbred.filenames import printable


class TimbredError(Exception):
    """An error with a code for the wire. `str(error)` is the message for the client."""

    code: ClassVar[str] = "internal"
    meaning: ClassVar[str] = "Any error."

    def __init__(self, message: str) -> None:
        self.message = printable(message)  # a path may contain bytes that aren't UTF-8; messages must be UTF-8
        super().__init__(self.message)


class BadRequest(TimbredError):
    """An invalid request."""

    code = "bad-request"
    meaning = "The request can't be decoded, or a value has the wrong type or is out of range. The message names it."


class UnknownModel(TimbredError):
    """An unknown model name."""

    code = "unknown-model"
    meaning = "No model has this name. The message lists all names."


class MissingWeights(TimbredError):
    """A known model with missing files."""

    code = "missing-weights"
    meaning = "The model is known, but its files are missing or incomplete. The message says how to download them."


class Busy(TimbredError):
    """A full queue; `retry_after` is in seconds."""

    code = "busy"
    meaning = "The queue is full. The message says when to retry."

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OutOfMemory(TimbredError):
    """Too little memory on the device."""

    code = "out-of-memory"
    meaning = "The device has too little memory for this request. The message says what would fit."


class ModelError(TimbredError):
    """A failure of the model or unusable output."""

    code = "model-error"
    meaning = "The model failed, or its output contains NaN or infinity."


class ForbiddenPath(TimbredError):
    """A path that may not be read or written."""

    code = "forbidden-path"
    meaning = "The path is outside the folders that timbred may use, or a folder can't be written."


class BadAudio(TimbredError):
    """An unreadable, empty or invalid audio file."""

    code = "bad-audio"
    meaning = "The audio file can't be decoded, is empty, or contains NaN or infinity."


class DiskFull(TimbredError):
    """A full disk."""

    code = "disk-full"
    meaning = "The disk of the takes folder is full."


class NoAudioDevice(TimbredError):
    """A missing audio device or player."""

    code = "no-audio-device"
    meaning = "There is no audio device, or it can't be opened."


class WorkerLost(TimbredError):
    """An engine process that ended or can't start."""

    code = "worker-lost"
    meaning = (
        "The engine process ended twice during this request, or it can't be started; the message states the reason. "
        "timbred restarts the engine; send the request again."
    )


class ShuttingDown(TimbredError):
    """A request to a stopping daemon."""

    code = "shutting-down"
    meaning = "The daemon is stopping."


class AccessDenied(TimbredError):
    """A client without a trusted key, a token or an allowed address."""

    code = "access-denied"
    meaning = (
        "The daemon can be reached from other machines, and this client has no trusted key (ZeroMQ), no token (HTTP, "
        "WebSocket) or no allowed address (OSC). The message says which."
    )


class Internal(TimbredError):
    """A fault in timbred."""

    code = "internal"
    meaning = "A fault in timbred. The log has the details."


MAX_FIRST_LINE_CHARACTERS = 300
"""Maximum length of a library's error text that is quoted in a message."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, cut to `MAX_FIRST_LINE_CHARACTERS`; its type's name if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:MAX_FIRST_LINE_CHARACTERS]


CODES: dict[str, type[TimbredError]] = {kind.code: kind for kind in TimbredError.__subclasses__()}
"""Every wire code and its class."""


def from_code(code: str, message: str) -> TimbredError:
    """Return the error for a code from another process; an unknown code becomes `Internal`."""
    kind = CODES.get(code, Internal)
    return Busy(message, 1.0) if kind is Busy else kind(message)


_DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}
_PERMISSION_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


def from_foreign(error: BaseException) -> TimbredError:
    """Translate an error from Python or a library into one with a wire code."""
    if isinstance(error, TimbredError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory(f"the machine is out of memory ({error}); request a shorter sound or fewer takes")
    if isinstance(error, OSError) and error.errno in _DISK_FULL_ERRORS:
        return DiskFull(f"the disk of {error.filename or 'the takes folder'} is full; free some space and retry")
    if isinstance(error, OSError) and error.errno in _PERMISSION_ERRORS:
        return ForbiddenPath(f"{error.filename or 'the folder'} can't be used: {error.strerror}")
    return Internal(f"{type(error).__name__}: {error}")

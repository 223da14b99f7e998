"""Start and exit of a child process: its address and token, its last message, and its exit with the daemon."""

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import zmq

TOKEN_VARIABLE = "TIMBRED_CHILD_TOKEN"
"""Environment variable with the token that a child sends to its daemon.

Other users can read command lines, but not the environment of a process.
"""

SPARE_OPTION = "--spare"
"""Option of a process that only imports, and waits for a line with its address and token."""

WARM_LINE = b"warm\n"
"""Line that a spare process writes once its imports are done."""

SPARE_NICE_VALUE = 15
"""Nice value of a spare process's imports, which no request waits for."""

MAX_LINE_BYTES = 4096

LAST_MESSAGE_LINGER_MS = 2000


def add_line_options(parser: argparse.ArgumentParser) -> None:
    """Add the options `address` and `spare` to a child's parser; `token` is read from the environment."""
    parser.add_argument("--address", default="")
    parser.add_argument(SPARE_OPTION, action="store_true", help="import, and wait on standard input for an address")
    parser.set_defaults(token=os.environ.pop(TOKEN_VARIABLE, ""))


def wait_as_spare(options: argparse.Namespace, prepare: Callable[[], None]) -> None:
    """In a spare process, import and wait until it is needed; then `options` have its address and token.

    In any other process, do nothing. Ends the process when the daemon is gone.

    Args:
        options: Options of a parser with `add_line_options`.
        prepare: Imports the process's modules. It runs in a thread of low priority, because a process can't raise its
            own priority again.

    Raises:
        Exception: Any exception of `prepare`.
    """
    if not options.spare:
        return
    _run_at_low_priority(prepare)
    os.write(sys.stdout.fileno(), WARM_LINE)
    line = b""
    while not line.endswith(b"\n"):
        # byte by byte, because later input is read by `exit_with_daemon`
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte or len(line) > MAX_LINE_BYTES:
            os._exit(0)
        line += byte
    options.address, options.token = json.loads(line)


def _run_at_low_priority(work: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        if sys.platform == "linux":  # elsewhere the nice value is the whole process's, and can't be lowered again
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), SPARE_NICE_VALUE)
        try:
            work()
        except BaseException as error:  # noqa: BLE001  raised again after the join
            failures.append(error)

    thread = threading.Thread(target=run, name="imports")
    thread.start()
    thread.join()
    for failure in failures:
        raise failure


def send_last_message(address: str, frame: bytes) -> None:
    """Send the daemon one message, before the process ends."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as line:
        line.linger = LAST_MESSAGE_LINGER_MS
        line.connect(address)
        line.send(frame)


def describe_start_error(error: BaseException) -> str:
    """Return an error at the start as one line for the performer."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, ImportError | OSError):
        return f"{first}; reinstall timbred with its dependencies"
    return f"{type(error).__name__}: {first}; see the log"


log = logging.getLogger(__name__)

THREAD_FAILED_STATUS = 70
"""Exit status after a thread failed."""

CANNOT_START_STATUS = 2
"""Exit status of a child process that can't start."""

CLEANUP_TIMEOUT_S = 3.0
"""Seconds in which a process has to exit after the daemon has exited."""


def exit_with_daemon(address: str, on_daemon_exit: Callable[[], None] | None = None) -> None:
    """Exit this process as soon as the daemon closes its standard input.

    The socket file at `address`, which a killed daemon leaves behind, is removed, and its folder if that is empty.

    Args:
        address: Address of the daemon's socket.
        on_daemon_exit: Called in another thread before the exit, which follows `CLEANUP_TIMEOUT_S` seconds later.
    """

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):  # unbuffered: a buffer's lock would delay the interpreter's exit
            pass
        if address.startswith("ipc://"):
            socket = Path(address.removeprefix("ipc://"))
            with suppress(OSError):  # the daemon has removed it, or removes it at its next start
                socket.unlink(missing_ok=True)
                socket.parent.rmdir()
        if on_daemon_exit is not None:
            on_daemon_exit()
            time.sleep(CLEANUP_TIMEOUT_S)
        os._exit(0)

    threading.Thread(target=wait, name="end-with-daemon", daemon=True).start()


def exit_on_thread_failure() -> None:
    """Exit this process when one of its threads fails; the daemon reports the reason and starts another one."""

    def failed(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_type is SystemExit:
            return
        name = failure.thread.name if failure.thread else "a thread"
        error = failure.exc_value
        details = (failure.exc_type, error, failure.exc_traceback) if error is not None else None
        log.critical("the thread %s failed, so this process ends: %r", name, error, exc_info=details)
        exit_immediately(THREAD_FAILED_STATUS)

    threading.excepthook = failed


def has_other_threads() -> bool:
    """Return True if the interpreter would wait for a thread before it exits."""
    return any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate())


def exit_immediately(status: int) -> NoReturn:
    """Exit without the interpreter's clean-up, in which threads of libraries and drivers may crash."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its disk may be full, and the process must exit nevertheless
            if stream is not None:
                stream.flush()
    os._exit(status)

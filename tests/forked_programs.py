"""Programs that import torch, started as copies of one process that has imported it: seconds less for each start.

`forked_command("timbred.engine.__main__")` is a command for any of them. It connects to the process that imports, and
passes its arguments, environment, working folder and standard streams; the copy runs the module as `python -m` does.
The command ends with the copy's exit status, and the copy ends with the command.

Variables that a library reads when it is loaded, such as OMP_NUM_THREADS, have the values of the process that imports.

Only on Linux, which has pidfds, and not where coverage is measured; elsewhere the command is that of `python -m`.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

MODULES = ("timbred.engine.scheduler", "timbred.engine.training")
"""Modules that the process imports before it makes copies."""

ENGINE = "timbred.engine.__main__"
"""Module of an engine."""

READY_LINE = b"ready\n"

origins: list[int] = []
"""Process id of the process that imports, once it has been started."""


def forked_command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module in a copy of the process, which is started with the first one."""
    if sys.platform != "linux" or "COVERAGE_PROCESS_CONFIG" in os.environ:
        return sys.executable, "-m", module
    return sys.executable, "-S", __file__, _start_origin(), module


def torch_program() -> dict[str, str]:
    """Return variables with which commands and daemons run their programs that import torch as copies.

    A copy doesn't see a disk that its command alone has mounted.
    """
    from timbred.ipc.isolation import TORCH_PROGRAM_VARIABLE

    *program, _ = forked_command("")
    return {TORCH_PROGRAM_VARIABLE: "\n".join(program)}


@functools.cache
def _start_origin() -> str:
    """Start the process that imports; return the path of its socket. It ends with this process."""
    from timbred.ipc.engine_client import ENGINE_ENVIRONMENT

    path = str(Path(tempfile.mkdtemp(prefix="timbred-test-")) / "origin")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forked_programs", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1], env={**os.environ, **ENGINE_ENVIRONMENT},
    )  # fmt: skip

    origins.append(process.pid)

    @atexit.register
    def end() -> None:
        process.communicate()
        Path(path).unlink(missing_ok=True)
        Path(path).parent.rmdir()

    assert process.stdout is not None
    assert process.stdout.readline() == READY_LINE
    return path


def _run_command(path: str, module: str, arguments: list[str]) -> NoReturn:
    """Have the process make a copy, and end as the copy does."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    socket.send_fds(connection, [b" "], [0, 1, 2])
    order = {"module": module, "arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd())}
    connection.sendall(json.dumps(order).encode() + b"\n")
    status = int(connection.makefile().readline() or "1")
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _run_copy(order: dict[str, Any], streams: list[int]) -> NoReturn:
    """Become the program of an order."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.argv[1:] = order["arguments"]
    status = 1
    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if status and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001  as the interpreter's own end
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):  # closed at the other end, or by the module
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


class _Origin:
    """The process that imports. It has no threads."""

    def __init__(self, path: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._selector.register(self._listener, selectors.EVENT_READ, self._copy)
        self._selector.register(0, selectors.EVENT_READ, sys.exit)

    def run(self) -> None:
        """Make copies until standard input closes."""
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _copy(self) -> None:
        connection, _ = self._listener.accept()
        try:
            _, streams, _, _ = socket.recv_fds(connection, 1, 3)
            order = json.loads(connection.makefile("rb").readline())
        except (OSError, ValueError):  # the command was killed
            connection.close()
            return
        pid = os.fork()
        if pid == 0:
            self._selector.close()
            self._listener.close()
            connection.close()
            _run_copy(order, streams)
        for stream in streams:
            os.close(stream)
        _Copy(pid, connection, self._selector)


class _Copy:
    """A copy that runs, until it ends or its command is killed."""

    def __init__(self, pid: int, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        self._pid = pid
        self._connection = connection
        self._selector = selector
        self._end = os.pidfd_open(pid)
        selector.register(self._end, selectors.EVENT_READ, self._report)
        selector.register(connection, selectors.EVENT_READ, self._kill)

    def _report(self) -> None:
        """Tell the command the exit status."""
        _, status = os.waitpid(self._pid, 0)
        with contextlib.suppress(OSError):  # the command was killed
            self._connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        for source in (self._end, self._connection):
            self._selector.unregister(source)
        os.close(self._end)
        self._connection.close()

    def _kill(self) -> None:
        """End with the command, which writes nothing after its order; `_report` follows."""
        if self._connection.fileno() >= 0:
            os.kill(self._pid, signal.SIGKILL)


def _run_origin(path: str) -> None:
    origin = _Origin(path)
    sys.stdout.buffer.write(READY_LINE)
    sys.stdout.flush()
    gc.disable()
    for name in MODULES:
        importlib.import_module(name)
    from timbred.engine.families.component_loader import quiet_libraries

    quiet_libraries()
    gc.freeze()
    gc.enable()
    origin.run()


if __name__ == "__main__":
    if sys.argv[2:]:
        _run_command(sys.argv[1], sys.argv[2], sys.argv[3:])
    _run_origin(sys.argv[1])

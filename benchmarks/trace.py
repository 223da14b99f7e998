"""Package files and functions that the daemon executes for one `generate` over UDP, from its datagram to `done`.

The daemon runs in this process with all its transports; the engine is the one of the tests, which needs no model. A
request is completed before the counted ones, so that imports and the first start of threads don't count. A function is
a code object of the package other than a module's body; comprehensions belong to their function. Calls of every thread
of the daemon count. The functions that each of ten equal requests executes are counted, so that those of other
events at the same time, such as a restart of the player on a machine without audio, are not.
"""

import asyncio
import os
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import timbred
from timbred.config import load
from timbred.protocol import osc_packets
from timbred.server import Daemon

REPOSITORY_FOLDER = Path(__file__).parents[1]
PACKAGE = str(Path(timbred.__file__).parent) + os.sep
ENGINE_PROGRAM = (sys.executable, "-m", "tests.fake_engine")
REQUEST_TIMEOUT_S = 120.0
"""Seconds after which a request that hasn't ended fails the measurement."""

COUNTED_REQUEST_COUNT = 10

INNER_CODE_NAMES = frozenset({"<module>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})

MAX_FILE_COUNT, MAX_FUNCTION_COUNT = 55, 260
"""Package files and functions that one `generate` is to execute at most."""


@dataclass
class CallTrace:
    """Functions in the order of their first call, each as its file in the package and its qualified name."""

    calls: dict[tuple[str, str], None] = field(default_factory=dict[tuple[str, str], None])

    @property
    def functions(self) -> dict[str, list[str]]:
        """Names of the functions by file; files in the order of their first call."""
        by_file: dict[str, list[str]] = {}
        for file, name in self.calls:
            by_file.setdefault(file, []).append(name)
        return by_file

    def common_with(self, others: Sequence["CallTrace"]) -> "CallTrace":
        """Return the functions that are in all other traces too."""
        return CallTrace({call: None for call in self.calls if all(call in other.calls for other in others)})

    def report(self) -> str:
        """Return the counts and the path, one line a file."""
        functions = self.functions
        lines = [
            "one generate over UDP, from its datagram to done, in the daemon's process",
            f"  package files {len(functions)} (goal {MAX_FILE_COUNT}), "
            f"functions {len(self.calls)} (goal {MAX_FUNCTION_COUNT})",
        ]
        return "\n".join([*lines, *(f"  {file}: {', '.join(names)}" for file, names in functions.items())])


class CallRecorder:
    """Records calls of the package's functions in all threads that start while it is installed, and in this one."""

    def __init__(self) -> None:
        self.trace: CallTrace | None = None
        self._files: dict[str, str | None] = {}

    @contextmanager
    def installed(self) -> Generator[None]:
        """Set the profile functions of this thread and of later ones, then remove them."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # pyright: ignore[reportArgumentType]  the type stub lacks None

    def start(self) -> CallTrace:
        """Start a trace."""
        self.trace = CallTrace()
        return self.trace

    def stop(self) -> None:
        """End the trace."""
        self.trace = None

    def _profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        trace = self.trace
        if trace is None or event != "call":
            return
        code = frame.f_code
        file = self._file(code.co_filename)
        if file is not None and code.co_name not in INNER_CODE_NAMES:
            trace.calls.setdefault((file, code.co_qualname))

    def _file(self, name: str) -> str | None:
        if name not in self._files:
            self._files[name] = name.removeprefix(PACKAGE) if name.startswith(PACKAGE) else None
        return self._files[name]


class _UdpClient(asyncio.DatagramProtocol):
    """A UDP client that keeps the addresses of the messages it receives. `changed` is set with each."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.changed = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.addresses.append(data[: data.index(b"\0")].decode())
        self.changed.set()

    async def wait_for_end(self) -> None:
        """Wait until the request has ended.

        Raises:
            RuntimeError: It didn't end with `done`.
        """
        while not self.addresses or self.addresses[-1] not in ("/timbred/done", "/timbred/fail", "/timbred/cancelled"):
            self.changed.clear()
            await self.changed.wait()
        if self.addresses[-1] != "/timbred/done":
            raise RuntimeError(f"the request ended with {self.addresses[-1]} after {self.addresses[:-1]}")
        self.addresses.clear()


async def trace_generate() -> CallTrace:
    """Return the trace of `generate a1 "warm pad" @seconds 1 @seed 3` that a new daemon answers over UDP."""
    recorder = CallRecorder()
    traces: list[CallTrace] = []
    with tempfile.TemporaryDirectory() as takes, recorder.installed():
        ports = [f"{name}=0" for name in ("osc.port", "zmq.requests", "zmq.events", "http.port")]
        flags = ["discovery.announce=off", "engine.spare=off", f"takes.folder={takes}", "models.preload=off"]
        daemon = Daemon(load(None, {}, [*ports, *flags]), ENGINE_PROGRAM)
        bound = await daemon.start()
        try:
            transport, client = await asyncio.get_running_loop().create_datagram_endpoint(
                _UdpClient, remote_addr=("127.0.0.1", bound.osc)
            )
            for number in range(1 + COUNTED_REQUEST_COUNT):
                data = osc_packets.write_message(
                    "/timbred/generate", [f"a{number}", "warm pad", "@seconds", 1.0, "@seed", 3]
                )
                traces.append(recorder.start())
                transport.sendto(data)
                await asyncio.wait_for(client.wait_for_end(), REQUEST_TIMEOUT_S)
                recorder.stop()
            transport.close()
        finally:
            await daemon.stop()
    first, *others = traces[1:]
    return first.common_with(others)


def run() -> CallTrace:
    """Trace a request with the engine of the tests importable."""
    paths = [str(REPOSITORY_FOLDER), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return asyncio.run(trace_generate())


def main() -> None:
    """Print the counts and the path."""
    print(run().report())


if __name__ == "__main__":
    main()

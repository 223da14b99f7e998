"""The relay: a child process of the daemon that looks like an engine and has one on a node of a Ray cluster.

Started as `python -m timbred.cluster ray://HOST:PORT INDEX` with an engine's options. It is the only process of the
daemon's machine that imports Ray. Orders and messages are those of any engine (`timbred.ipc.engine_messages`): they are
passed on as they are, except that paths in orders are replaced by those of the same files on the node. A node that is
lost ends the relay with the reason, as an engine ends; the daemon starts it again, and Ray chooses the node.
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
import zmq
import zmq.asyncio

from timbred import errors
from timbred.cluster.files import Bundle, FileHashes, file_paths, folder_fingerprint, make_bundle, with_paths
from timbred.cluster.node import SHARED_BYTES, CannotPlace, NodeLost, RayNode, connect, import_ray, in_time, place
from timbred.ipc import engine_messages
from timbred.ipc.child_exit import (
    CANNOT_START_STATUS,
    add_line_options,
    exit_immediately,
    exit_with_daemon,
    wait_as_spare,
)

log = logging.getLogger("timbred.cluster")

CLOSE_TIMEOUT_S = 0.4
"""Seconds for giving the actor back to Ray when the relay ends; the daemon waits 0.5 s before it kills the relay."""

CHUNK_BYTES = 32_000_000
"""Bytes of a file that are sent to a node at once."""

FETCH_RETRY_S = 0.25
"""Interval at which a relay asks whether another one's copy of the same files is complete."""

FETCH_SHARE = 0.5
"""Fraction of a model's load that is reported when its files are on the node."""

CLOSING_LINGER_MS = 1000


class NodeCalls(Protocol):
    """The calls of an actor, and the object store."""

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of `NodeEngine`, and return its result.

        Raises:
            NodeLost: The actor doesn't answer any more.
        """
        ...

    async def store(self, data: bytes) -> Any:
        """Put bytes into the object store; the returned reference may be an argument of `call`."""
        ...

    async def fetch(self, frame: Any) -> Any:
        """Return a frame of a message; the object itself if it is a reference to one in the object store."""
        ...


def read_messages(reply: Any) -> tuple[list[list[Any]], str]:
    """Return the messages in the result of `receive`, and the reason of the engine's exit, empty while it runs.

    Raises:
        NodeLost: It isn't such a result.
    """
    match reply:
        case (list() | tuple() as messages, str(reason)):
            if all(isinstance(frames, list | tuple) and frames for frames in messages):
                return [list(frames) for frames in messages], reason
        case _:
            pass
    raise NodeLost(f"its actor returned {type(reply).__name__} instead of messages; install the same timbred there")


def read_reply(reply: Any) -> Mapping[str, Any]:
    """Return the result of a call about files.

    Raises:
        TimbredError: The error in it.
        NodeLost: It isn't such a result.
    """
    if not isinstance(reply, dict):
        raise NodeLost(f"its actor returned {type(reply).__name__} about files; install the same timbred there")
    match reply.get("error"):
        case None:
            return reply
        case [str(code), str(message)]:
            raise errors.from_code(code, message)
        case other:
            raise NodeLost(f"its actor returned the error {other!r}; install the same timbred there")


@dataclass(eq=False)
class HeldOrder:
    """An order that waits for files; `paths` are those of the daemon's machine."""

    task: "asyncio.Task[None]"
    paths: tuple[str, ...]


@dataclass(eq=False)
class Relay:
    """Passes orders of the daemon to an actor, and messages of its engine to the daemon.

    Attributes:
        daemon: Socket of the daemon.
        calls: The actor.
        node: Name of the node, for messages.
        hashes: Hashes of the files on this machine.
    """

    daemon: "zmq.asyncio.Socket"
    calls: NodeCalls
    node: str
    hashes: FileHashes = field(default_factory=FileHashes)
    _sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    _places: dict[tuple[str, Any], str] = field(default_factory=dict[tuple[str, Any], str])
    _fetches: "dict[tuple[str, str], asyncio.Task[str]]" = field(default_factory=dict)
    _jobs: dict[int, HeldOrder] = field(default_factory=dict[int, HeldOrder])
    _loads: dict[str, HeldOrder] = field(default_factory=dict[str, HeldOrder])
    _background: "set[asyncio.Task[None]]" = field(default_factory=set)
    _fault: asyncio.Event = field(default_factory=asyncio.Event)
    _fault_text: str = ""

    async def run(self) -> None:
        """Pass messages in both directions until the daemon has the engine quit.

        Raises:
            NodeLost: The node, the actor or the engine is gone.
        """
        orders = asyncio.create_task(self._pass_orders())
        messages = asyncio.create_task(self._pass_messages())
        fault = asyncio.create_task(self._fault.wait())
        try:
            await asyncio.wait({orders, messages, fault}, return_when=asyncio.FIRST_COMPLETED)
            for task in (messages, orders):
                if task.done():
                    task.result()
            if self._fault_text:
                raise NodeLost(self._fault_text)
        finally:
            for task in (orders, messages, fault, *self._background, *self._fetches.values()):
                task.cancel()

    # from the engine

    async def _pass_messages(self) -> None:
        while True:
            messages, reason = read_messages(await self.calls.call("receive"))
            for frames in messages:
                await self._pass_message(frames)
            if reason:
                raise NodeLost(reason)

    async def _pass_message(self, frames: list[Any]) -> None:
        """Send the daemon a message of the engine with its payload.

        Raises:
            NodeLost: It isn't a message.
        """
        whole = [await self.calls.fetch(frame) for frame in frames]
        if not all(isinstance(frame, bytes) for frame in whole):
            raise NodeLost("its actor returned frames that aren't bytes; install the same timbred there")
        try:
            message = engine_messages.read_in_daemon(whole[0])
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise NodeLost(f"its engine sent an invalid message: {error}") from error
        if isinstance(message, engine_messages.EngineReady):
            whole[0] = engine_messages.encode(msgspec.structs.replace(message, node=self.node))
        await self.daemon.send_multipart(whole)

    # from the daemon

    async def _pass_orders(self) -> None:
        while True:
            frame = await self.daemon.recv()
            match engine_messages.read_in_engine(frame):
                case engine_messages.QuitEngine():
                    return
                case engine_messages.CancelJob(job=job) if job in self._jobs:
                    self._jobs.pop(job).task.cancel()
                    await self.daemon.send(engine_messages.encode(engine_messages.JobCancelled(job=job)))
                case engine_messages.UnloadModel(name=name) if name in self._loads:
                    self._start(self._send_after(self._loads[name].task, frame))
                case engine_messages.LoadModel() | engine_messages.RenderJob() as order:
                    await self._pass_order(order)
                case _:
                    await self._send(frame)

    async def _send(self, frame: bytes) -> None:
        """Send the engine a message, after those sent before; a large one goes through the object store."""
        async with self._sending:
            large = len(frame) >= SHARED_BYTES
            await self.calls.call("send", await self.calls.store(frame) if large else frame)

    async def _send_after(self, task: "asyncio.Task[None]", frame: bytes) -> None:
        await asyncio.wait({task})
        await self._send(frame)

    async def _pass_order(self, order: engine_messages.LoadModel | engine_messages.RenderJob) -> None:
        """Send an order now if its files are on the node; hold it until they are otherwise."""
        paths = file_paths(order)
        with contextlib.suppress(OSError, errors.TimbredError, KeyError):
            places = {path: self._places[path, folder_fingerprint(Path(path))] for path in paths}
            await self._send(engine_messages.encode(with_paths(order, places)))
            return
        task = self._start(self._send_with_files(order, paths))
        held = HeldOrder(task, paths)
        if isinstance(order, engine_messages.RenderJob):
            self._jobs[order.job] = held
        else:
            self._loads[order.model.name] = held

    async def _send_with_files(
        self, order: engine_messages.LoadModel | engine_messages.RenderJob, paths: Sequence[str]
    ) -> None:
        """Bring an order's files to the node, then send the order; report an error to the daemon."""
        is_job = isinstance(order, engine_messages.RenderJob)
        try:
            places = {path: await self._provide(path) for path in paths}
        except (OSError, errors.TimbredError) as error:
            wire_error = errors.from_foreign(error)
            failed = engine_messages.JobFailed(
                code=wire_error.code,
                message=f"{order.model.name}: {wire_error}",
                job=order.job if is_job else None,
                model=None if is_job else order.model.name,
            )
            await self.daemon.send(engine_messages.encode(failed))
        else:
            await self._send(engine_messages.encode(with_paths(order, places)))
        if is_job:
            self._jobs.pop(order.job, None)
        else:
            self._loads.pop(order.model.name, None)

    # files

    async def _provide(self, path: str) -> str:
        """Return the path on the node of the files of a path here; they are sent there if the node has none.

        Raises:
            OSError, TimbredError: They can't be read here or written there.
            NodeLost: The actor doesn't answer any more.
        """
        fingerprint = await asyncio.to_thread(folder_fingerprint, Path(path))
        bundle = await asyncio.to_thread(make_bundle, Path(path), self.hashes)
        key = (path, bundle.digest)
        if key not in self._fetches:
            self._fetches[key] = asyncio.create_task(self._fetch(path, bundle))
        try:
            place = await asyncio.shield(self._fetches[key])
        except (OSError, errors.TimbredError):
            self._fetches.pop(key, None)
            raise
        self._places[path, fingerprint] = place
        return place

    async def _fetch(self, path: str, bundle: Bundle) -> str:
        encoded = msgspec.json.encode(bundle)
        while True:
            reply = read_reply(await self.calls.call("place", encoded, path))
            if "path" in reply:
                return str(reply["path"])
            if reply.get("begin"):
                break
            await asyncio.sleep(FETCH_RETRY_S)
        log.info("sending %s to the node %s: %.1f MB", path, self.node, bundle.size / 1e6)
        sent = 0
        for file in bundle.files:
            source = Path(path) / file.name if bundle.is_folder else Path(path)
            for offset in range(0, max(1, file.size), CHUNK_BYTES):
                data = await asyncio.to_thread(_read_chunk, source, offset)
                chunk = await self.calls.store(data) if len(data) >= SHARED_BYTES else data
                read_reply(await self.calls.call("write", encoded, file.name, offset, chunk))
                sent += len(data)
                await self._report_fetch(path, FETCH_SHARE * sent / max(1, bundle.size))
        return str(read_reply(await self.calls.call("finish", encoded)).get("path", ""))

    async def _report_fetch(self, path: str, fraction: float) -> None:
        """Report the progress of a fetch to the jobs that wait for it."""
        for job, held in self._jobs.items():
            if path in held.paths:
                loading = engine_messages.ModelLoading(job=job, fraction=fraction)
                await self.daemon.send(engine_messages.encode(loading))

    def _start(self, work: Any) -> "asyncio.Task[None]":
        """Run a coroutine beside the two directions; an error in it ends the relay, so that no order is forgotten."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault_text = str(error) if isinstance(error, NodeLost) else f"{type(error).__name__}: {error}"
            self._fault.set()


def _read_chunk(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(CHUNK_BYTES)


def main(arguments: list[str] | None = None) -> int:
    """Run a relay until the daemon ends it; the exit status is 2 when no engine can be placed, or when it is lost."""
    parser = argparse.ArgumentParser(prog="timbred-cluster")
    add_line_options(parser)
    parser.add_argument("ray", help="address of the cluster: ray://HOST:PORT")
    parser.add_argument("index", type=int, nargs="?", default=0, help="number among the daemon's engines there")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--compile", default="off")
    parser.add_argument("--cache", default="")
    parser.add_argument("--heartbeat", type=float, default=engine_messages.ENGINE_HEARTBEAT_INTERVAL_S)
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches all processes; the daemon decides
    with contextlib.suppress(ImportError):  # the reason is sent to the daemon by `connect`
        wait_as_spare(options, import_ray)
    exit_immediately(asyncio.run(_run(options)))


async def _run(options: argparse.Namespace) -> int:
    """Run a relay; returns the exit status."""
    daemon = zmq.asyncio.Context.instance().socket(zmq.PAIR)
    daemon.linger = CLOSING_LINGER_MS
    daemon.connect(options.address)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    exit_with_daemon(options.address, lambda: _set_soon(loop, ending))
    node: RayNode | None = None
    reason = name = ""
    try:
        ray = await asyncio.to_thread(connect, options.ray)
        node, name = await place(ray, options)
        relay = asyncio.create_task(Relay(daemon, node, name).run())
        await asyncio.wait({relay, asyncio.ensure_future(ending.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if relay.done():
            relay.result()
    except CannotPlace as error:
        reason = str(error)
    except NodeLost as lost:
        reason = f"the engine on the node {name} of {options.ray} is lost: {lost}"
    if reason:
        log.error("%s", reason)
        await daemon.send(
            engine_messages.encode(engine_messages.EngineCannotStart(token=options.token, message=reason))
        )
    if node is not None:
        with contextlib.suppress(TimeoutError):
            await asyncio.to_thread(in_time, node.give_back, CLOSE_TIMEOUT_S)
    daemon.close()
    await asyncio.to_thread(zmq.asyncio.Context.instance().term)
    return CANNOT_START_STATUS if reason else 0


def _set_soon(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends anyway
        loop.call_soon_threadsafe(event.set)


if __name__ == "__main__":
    sys.exit(main())

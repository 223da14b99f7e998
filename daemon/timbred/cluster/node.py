"""The actor on a Ray node, and its start from the daemon's machine.

The actor runs an ordinary engine as its child process and passes messages both ways. The engine is connected to a
socket of the actor, so the actor answers while a model computes. The relay asks it for messages again and again; an
actor that nobody has asked for `LEASE_S` seconds ends its engine and itself, and a lost relay leaves no GPU occupied.

This module is imported on the node, by the timbred that is installed there. Arguments and results are built-in types,
so that another version can at least be told apart.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import logging
import os
import platform
import re
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from timbred import __version__, config, errors
from timbred.cluster.files import Bundle, NodeCache
from timbred.disk import user_folder
from timbred.ipc.child_exit import TOKEN_VARIABLE
from timbred.ipc.engine_client import ENGINE_ENVIRONMENT, ENGINE_PROGRAM
from timbred.ipc.engine_messages import WIRE_VERSION
from timbred.ipc.isolation import child_environment, safe_folder
from timbred.ipc.socket_folder import Addresses, candidate_folders
from timbred.ipc.supervisor import end_process
from timbred.models.registry import pocket_folder

log = logging.getLogger("timbred.cluster")

POLL_S = 1.0
"""Seconds after which `receive` returns without a message."""

LEASE_S = 20.0
"""Seconds without a call of the relay after which the actor ends: more than a busy node delays a call."""

LEASE_CHECK_INTERVAL_S = 1.0

LAST_MESSAGES_S = 0.3
"""Seconds in which the last messages of an engine arrive after its exit."""

MAX_MESSAGES_PER_CALL = 64

SHARED_BYTES = 100_000
"""Bytes from which a frame is put into Ray's object store instead of a message, as Ray does with arguments."""

REACH_TIMEOUT_S = 5.0
"""Seconds in which the address has to accept a connection."""

CONNECT_TIMEOUT_S = 30.0
"""Seconds in which Ray has to answer at the address."""

PLACEMENT_TIMEOUT_S = 30.0
"""Seconds in which Ray has to find room where there was none: more than the actor of a lost relay keeps its own."""

ACTOR_START_TIMEOUT_S = 60.0
"""Seconds in which an actor has to answer for which there was room: it starts a Python on the node."""

ADDRESS = re.compile(r"ray://(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")
"""An address of a Ray cluster: of the Ray client server on its head node."""

Reply = dict[str, Any]
"""Result of a call about files: `path`, `begin`, `wait`, or `error` with code and message."""


class CannotPlace(Exception):
    """No engine can be started in the cluster; the text has the reason and the remedy."""


class NodeLost(Exception):
    """The node, its actor or its engine is gone; the text has the reason."""


class NodeEngine:
    """An engine on a node. All methods are called by one relay, over Ray.

    Args:
        in_ray: True in a Ray actor; False in tests, which have no object store and no process of their own to end.
    """

    def __init__(self, in_ray: bool = True) -> None:
        self._share: Callable[[bytes], Any] = import_module("ray").put if in_ray else bytes
        self._in_ray = in_ray
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._addresses = Addresses("engine")
        self._messages: asyncio.Queue[list[bytes] | str] = asyncio.Queue()
        self._exit = ""
        self._silent_s = 0.0
        self._lease: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._settings = config.load(None, os.environ, ())
        self._cache = NodeCache(_cache_folder() / "models")

    async def describe(self) -> dict[str, str]:
        """Return the versions of the node's programs and the node's name."""
        if self._lease is None:
            self._lease = asyncio.create_task(self._watch_lease())
            self._tasks.append(self._lease)
        return {
            "timbred": __version__,
            "messages": str(WIRE_VERSION),
            "python": platform.python_version(),
            "ray": str(import_module("ray").__version__) if self._in_ray else "",
            "node": platform.node(),
        }

    async def start(self, options: list[str], token: str, keeps_compiled: bool) -> None:
        """Start the engine; its first message proves the token.

        Args:
            options: Options of the engine's command line, without its address and its cache.
            token: Token that the daemon expects in the engine's first message.
            keeps_compiled: True for a compilation cache, in the node's own folder.

        Raises:
            OSError: It can't be started.
        """
        self._socket = zmq.asyncio.Context.instance().socket(zmq.PAIR)
        self._socket.linger = 0
        cache = str(_cache_folder() / "compiled") if keeps_compiled else ""
        address = self._addresses.bind(self._socket)
        command = [*engine_program(), *options, "--cache", cache, "--address", address]
        environment = child_environment(**ENGINE_ENVIRONMENT, **{TOKEN_VARIABLE: token})
        environment.pop("OMP_NUM_THREADS", None)  # Ray sets it for its own workers
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, cwd=safe_folder()
        )
        self._tasks.append(asyncio.create_task(self._read(self._socket)))
        self._watch(self._process)

    async def send(self, frame: bytes) -> None:
        """Pass a message of the daemon on to the engine; nothing happens once the engine has exited."""
        self._silent_s = 0.0
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            await self._socket.send(frame)

    async def receive(self) -> tuple[list[list[Any]], str]:
        """Return the engine's next messages, and why it exited once all are returned; waits for `POLL_S` at most.

        Returns:
            The frames of each message, large ones as references to the object store; and an empty text, or the reason.
        """
        self._silent_s = 0.0
        messages: list[list[Any]] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._exit else POLL_S):
                self._add(messages, await self._messages.get())
        while not self._messages.empty() and len(messages) < MAX_MESSAGES_PER_CALL:
            self._add(messages, self._messages.get_nowait())
        return messages, self._exit

    async def place(self, bundle: bytes, path: str) -> Reply:
        """Return the `path` of a bundle on this node, or `begin` if the relay has to send it, or `wait`.

        Args:
            bundle: The bundle as JSON.
            path: Its path on the daemon's machine, which may have the same files here.
        """
        self._silent_s = 0.0
        return await asyncio.to_thread(self._reply, self._place, _read_bundle(bundle), path)

    async def write(self, bundle: bytes, name: str, offset: int, data: bytes) -> Reply:
        """Write a part of a file that the relay sends."""
        self._silent_s = 0.0
        return await asyncio.to_thread(self._reply, self._write, _read_bundle(bundle), name, offset, data)

    async def finish(self, bundle: bytes) -> Reply:
        """Check the files that were sent, and return their `path`."""
        self._silent_s = 0.0
        return await asyncio.to_thread(self._reply, self._finish, _read_bundle(bundle))

    async def end(self) -> None:
        """End the engine."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        await asyncio.to_thread(end_process, self._process)
        if self._socket is not None:
            self._socket.close()
        self._cache.close()
        self._addresses.remove()

    def _add(self, messages: list[list[Any]], item: list[bytes] | str) -> None:
        """Add a message of the engine to those that a call returns, or note its exit, which is the last item."""
        if isinstance(item, str):
            self._exit = item
        else:
            messages.append([self._share(frame) if len(frame) >= SHARED_BYTES else frame for frame in item])

    def _reply(self, work: Callable[..., Reply], *arguments: Any) -> Reply:
        """Return the result of file work, or its error as a reply. Runs in a thread; the lease goes on meanwhile."""
        try:
            return work(*arguments)
        except (errors.TimbredError, OSError) as error:
            wire_error = errors.from_foreign(error)
            return {"error": [wire_error.code, f"{wire_error} (on the node {platform.node()})"]}

    def _place(self, bundle: Bundle, path: str) -> Reply:
        found = self._cache.find(bundle, self._candidates(path))
        if found is not None:
            return {"path": str(found)}
        return {"begin": True} if self._cache.begin(bundle) else {"wait": True}

    def _write(self, bundle: Bundle, name: str, offset: int, data: bytes) -> Reply:
        try:
            self._cache.write(bundle, name, offset, data)
        except OSError:
            self._cache.give_up(bundle)
            raise
        return {}

    def _finish(self, bundle: Bundle) -> Reply:
        return {"path": str(self._cache.finish(bundle))}

    def _candidates(self, path: str) -> Iterable[Path]:
        """Return the paths on this node that may have the files of a path of the daemon's machine."""
        name = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
        yield Path(path)
        for folder in (self._settings.models_folder, self._settings.loras_folder):
            yield folder / name
        yield pocket_folder()
        yield from (Path(source) for source in self._settings.sources.values() if Path(source).is_absolute())

    async def _read(self, engine: zmq.asyncio.Socket) -> None:
        while True:
            self._messages.put_nowait(await engine.recv_multipart())

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Add the exit of the engine to the messages, after the last ones that it sent."""
        loop = asyncio.get_running_loop()

        def wait() -> None:
            status = process.wait()
            time.sleep(LAST_MESSAGES_S)
            with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing waits for it
                loop.call_soon_threadsafe(self._messages.put_nowait, f"its engine ended with exit status {status}")

        threading.Thread(target=wait, name="engine-watch", daemon=True).start()

    async def _watch_lease(self) -> None:
        """End the engine and this process when the relay has stopped asking; time while suspended doesn't count."""
        while self._silent_s < LEASE_S:
            slept_from = time.monotonic()
            await asyncio.sleep(LEASE_CHECK_INTERVAL_S)
            self._silent_s += min(time.monotonic() - slept_from, 2 * LEASE_CHECK_INTERVAL_S)
        await asyncio.to_thread(end_process, self._process)
        self._addresses.remove()
        if self._in_ray:
            os._exit(0)


def _read_bundle(bundle: bytes) -> Bundle:
    return msgspec.json.decode(bundle, type=Bundle)


def engine_program() -> tuple[str, ...]:
    """Return the command that starts an engine on this node; tests name another in TIMBRED_ENGINE_PROGRAM."""
    other = os.environ.get("TIMBRED_ENGINE_PROGRAM")
    return tuple(shlex.split(other)) if other else ENGINE_PROGRAM


def _cache_folder() -> Path:
    """Return timbred's cache folder on this node; one for temporary files if the user has no home folder."""
    return user_folder("cache") or next(candidate_folders()) / "timbred-cache"


class RayNode:
    """An actor in a Ray cluster. Implements `NodeCalls`.

    Args:
        ray: The module `ray`.
        actor: Handle of a `NodeEngine`.
    """

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor

    async def call(self, method: str, *arguments: Any) -> Any:
        """See `NodeCalls`."""
        try:
            return await _result_of(getattr(self._actor, method).remote(*arguments).future())
        except (self._ray.exceptions.RayError, ConnectionError, RuntimeError, AttributeError) as error:
            raise NodeLost(describe_ray_error(error)) from error

    async def store(self, data: bytes) -> Any:
        """See `NodeCalls`."""
        return await self._guarded(self._ray.put, data)

    async def fetch(self, frame: Any) -> Any:
        """See `NodeCalls`."""
        return frame if isinstance(frame, bytes) else await self._guarded(self._ray.get, frame)

    async def _guarded(self, work: Any, argument: Any) -> Any:
        try:
            return await asyncio.to_thread(work, argument)
        except (self._ray.exceptions.RayError, ConnectionError, RuntimeError, TypeError, ValueError) as error:
            raise NodeLost(describe_ray_error(error)) from error

    def give_back(self) -> None:
        """End the actor and the connection; Ray has its resources again."""
        with contextlib.suppress(Exception):
            self._ray.kill(self._actor)
        with contextlib.suppress(Exception):
            self._ray.shutdown()


async def _result_of(future: "concurrent.futures.Future[Any]") -> Any:
    """Return the result of Ray's future, which is never cancelled: Ray's thread would fail on setting its result."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def set_result() -> None:
        if result.done():  # cancelled
            return
        error = future.exception()
        if error is None:
            result.set_result(future.result())
        else:
            result.set_exception(error)

    def finished(_future: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing waits for it
            loop.call_soon_threadsafe(set_result)

    future.add_done_callback(finished)
    return await result


def describe_ray_error(error: BaseException) -> str:
    """Return an error of Ray as one line: its first line, and the last one if that names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    missing = next((line for line in lines if "No module named 'timbred" in line), "")
    if missing:
        return f"a node has no timbred of this version ({missing}); install timbred {__version__} on every node"
    text = lines[0] if len(lines) == 1 or lines[0] == lines[-1] else f"{lines[0]} ... {lines[-1]}"
    return text[: 2 * errors.MAX_FIRST_LINE_CHARACTERS]


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of a cluster's address.

    Raises:
        CannotPlace: It is malformed.
    """
    match = ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise CannotPlace(f"{address!r} isn't the address of a Ray cluster; write ray://HOST:PORT, usually port 10001")
    return match["host"].strip("[]"), int(match["port"])


def check_reachable(address: str) -> None:
    """Check that something accepts connections at a cluster's address.

    Raises:
        CannotPlace: The address is malformed, or nothing does within `REACH_TIMEOUT_S` seconds.
    """
    host, port = parse_address(address)
    try:
        socket.create_connection((host, port), REACH_TIMEOUT_S).close()
    except (OSError, UnicodeError) as error:
        reason = "it doesn't answer" if isinstance(error, TimeoutError) else str(error)
        raise CannotPlace(
            f"no Ray cluster at {address} ({reason}); on its head node, ray start --head opens the Ray client server, "
            "usually at port 10001"
        ) from error


def in_time(work: Any, timeout_s: float) -> Any:
    """Return the result of `work`, run in a thread.

    Raises:
        TimeoutError: It takes longer than `timeout_s` seconds; the thread goes on.
        Exception: Any exception of `work`.
    """
    results: list[Any] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  raised again below
            failures.append(error)

    thread = threading.Thread(target=run, name="ray", daemon=True)
    thread.start()
    thread.join(timeout_s)
    for failure in failures:
        raise failure
    if not results:
        raise TimeoutError
    return results[0]


def version_difference(own: Mapping[str, str], other: Mapping[str, str]) -> str:
    """Return how the versions of the node and of this machine differ, naming both; empty if they fit.

    timbred and Ray must be the same, and Python up to its minor version.
    """
    names = {"timbred": "timbred", "messages": "the messages of timbred", "ray": "Ray", "python": "Python"}
    for key, name in names.items():
        here, there = own.get(key, ""), str(other.get(key, ""))
        same = here.split(".")[:2] == there.split(".")[:2] if key == "python" else here == there
        if not same:
            return (
                f"{name} has the version {there or 'unknown'} on the node {other.get('node', '')} and {here} on this"
                " machine; install the same version on both"
            )
    return ""


def required_resources(device: str, threads: int, total: Mapping[str, float]) -> dict[str, float]:
    """Return what an engine needs of Ray: a GPU, or CPUs where the cluster has no GPU or the setting is `cpu`.

    Args:
        device: The setting `device`.
        threads: The setting `device.threads`, 0 for one CPU.
        total: The cluster's resources.
    """
    if device == "cpu" or (device == "auto" and total.get("GPU", 0.0) < 1.0):
        return {"num_cpus": float(max(1, threads)), "num_gpus": 0.0}
    return {"num_cpus": 0.0, "num_gpus": 1.0}


def has_room(needed: Mapping[str, float], free: Mapping[str, float]) -> bool:
    """Return True if a cluster with these free resources may have what an engine needs on one node."""
    return needed["num_gpus"] <= free.get("GPU", 0.0) and needed["num_cpus"] <= free.get("CPU", 0.0)


def no_room(address: str, needed: Mapping[str, float], total: Mapping[str, float], free: Mapping[str, float]) -> str:
    """Return the message for an actor that Ray doesn't place."""
    kind = "GPU" if needed["num_gpus"] else "CPU"
    number = needed["num_gpus"] or needed["num_cpus"]
    return (
        f"Ray at {address} has no room for an engine: it needs {number:g} {kind} on one node, and of the cluster's "
        f"{total.get(kind, 0.0):g} {kind} {free.get(kind, 0.0):g} are free; add a node, or reduce the number of engines"
    )


def connect(address: str) -> Any:
    """Connect to a cluster, and return the module `ray`.

    A cluster is never started: the address always names a Ray client server.

    Raises:
        CannotPlace: Ray isn't installed, or the cluster doesn't answer or has another version.
    """
    parse_address(address)
    try:
        ray = import_ray()
    except ImportError as error:
        raise CannotPlace(f"Ray isn't installed ({error}); install it with: pip install 'timbred[cluster]'") from error
    check_reachable(address)
    try:
        in_time(lambda: ray.init(address, logging_level=logging.ERROR, log_to_driver=False), CONNECT_TIMEOUT_S)
    except TimeoutError:
        raise CannotPlace(
            f"{address} accepts connections, but no Ray answers there within {CONNECT_TIMEOUT_S:g} s; is it the port "
            "of the Ray client server (usually 10001)?"
        ) from None
    except Exception as error:
        raise CannotPlace(f"Ray at {address} can't be used: {describe_ray_error(error)}") from error
    log.info("connected to Ray at %s", address)
    return ray


def import_ray() -> Any:
    """Import Ray, which takes a second.

    Raises:
        ImportError: It isn't installed.
    """
    return import_module("ray")


async def place(ray: Any, options: argparse.Namespace) -> tuple[RayNode, str]:
    """Have Ray start an actor with an engine; returns it with the name of its node.

    Raises:
        CannotPlace: There is no room, or the node has another version.
    """
    try:
        total = await asyncio.to_thread(ray.cluster_resources)
        needed = required_resources(options.device, options.threads, total)
        free = await asyncio.to_thread(ray.available_resources)
        actor = await asyncio.to_thread(ray.remote(**needed, max_restarts=0)(NodeEngine).remote)
    except Exception as error:
        raise CannotPlace(f"Ray at {options.ray} can't start an engine: {describe_ray_error(error)}") from error
    node = RayNode(ray, actor)
    try:
        async with asyncio.timeout(ACTOR_START_TIMEOUT_S if has_room(needed, free) else PLACEMENT_TIMEOUT_S):
            facts = await node.call("describe")
    except TimeoutError:
        free = await asyncio.to_thread(ray.available_resources)
        await asyncio.to_thread(node.give_back)
        raise CannotPlace(no_room(options.ray, needed, total, free)) from None
    except NodeLost as lost:
        raise CannotPlace(f"Ray at {options.ray} can't start an engine: {lost}") from lost
    own = {
        "timbred": __version__,
        "messages": str(WIRE_VERSION),
        "ray": str(ray.__version__),
        "python": platform.python_version(),
    }
    difference = version_difference(own, facts) if isinstance(facts, dict) else "the node returned no versions"
    if difference:
        await asyncio.to_thread(node.give_back)
        raise CannotPlace(f"Ray at {options.ray}: {difference}")
    log.info("an actor runs on the node %s", facts.get("node", ""))
    await node.call("start", engine_options(options, needed), options.token, bool(options.cache))
    return node, str(facts.get("node", ""))


def engine_options(options: argparse.Namespace, needed: Mapping[str, float]) -> list[str]:
    """Return the options of the engine on the node, without its address and its cache.

    Args:
        options: The relay's own options.
        needed: Resources of the actor.
    """
    on_gpu = needed["num_gpus"] > 0
    return [
        "--device", options.device if on_gpu and options.device != "mps" else "auto" if on_gpu else "cpu",
        "--threads", str(options.threads if on_gpu else int(needed["num_cpus"])),
        "--memory", str(options.memory),
        "--compile", options.compile,
        "--heartbeat", str(options.heartbeat),
        "--log-level", options.log_level,
    ]  # fmt: skip

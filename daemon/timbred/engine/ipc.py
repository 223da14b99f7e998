"""The engine's connection to the daemon.

It has a separate thread, so that heartbeats and cancellations are handled while a model computes.
"""

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import zmq

from timbred.ipc import engine_messages

log = logging.getLogger(__name__)

_OUTGOING_ADDRESS = "inproc://outgoing"


class DaemonLink:
    """Receives messages into `inbox`, and sends those passed to `send`; cancellations take effect immediately.

    The engine's own threads put their messages into `inbox` too: it is the only queue that the scheduler waits on.

    Args:
        address: ZeroMQ address of the daemon's socket.
        heartbeat_s: Interval between heartbeats in seconds.
        make_heartbeat: Returns the heartbeat; called in the link's thread.
    """

    def __init__(
        self, address: str, heartbeat_s: float, make_heartbeat: Callable[[], engine_messages.EngineHeartbeat]
    ) -> None:
        self.inbox: queue.Queue[Any] = queue.Queue()
        self._cancelled: set[int] = set()
        self._lock = threading.Lock()
        self._heartbeat_s = heartbeat_s
        self._make_heartbeat = make_heartbeat
        self._context = zmq.Context()
        self._outgoing = self._context.socket(zmq.PAIR)
        self._outgoing.bind(_OUTGOING_ADDRESS)
        self._address = address
        self._thread = threading.Thread(target=self._run, name="daemon-link", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def send(self, message: engine_messages.EngineMessage, *payload: bytes | memoryview) -> None:
        """Send a message with its payload frames; for the scheduler's thread only."""
        self._outgoing.send_multipart([engine_messages.encode(message), *payload], copy=not payload)

    def is_cancelled(self, job: int) -> bool:
        """Tell if the daemon has cancelled a job."""
        with self._lock:
            return job in self._cancelled

    def forget(self, job: int) -> None:
        """Forget the cancellation of a job that has ended."""
        with self._lock:
            self._cancelled.discard(job)

    def close(self) -> None:
        """Send what is queued, then end the thread."""
        self._outgoing.send(b"")
        self._thread.join()
        self._outgoing.close()
        self._context.term()

    def _run(self) -> None:
        daemon_socket = self._context.socket(zmq.PAIR)
        daemon_socket.linger = 1000
        daemon_socket.connect(self._address)
        outgoing_socket = self._context.socket(zmq.PAIR)
        outgoing_socket.connect(_OUTGOING_ADDRESS)
        poller = zmq.Poller()
        poller.register(daemon_socket, zmq.POLLIN)
        poller.register(outgoing_socket, zmq.POLLIN)
        is_open, next_heartbeat_at = True, time.monotonic() + self._heartbeat_s
        while is_open:
            ready = dict(poller.poll(max(0, math.ceil(1000 * (next_heartbeat_at - time.monotonic())))))
            if outgoing_socket in ready:
                frames = outgoing_socket.recv_multipart(copy=False)
                is_open = len(frames[0]) > 0
                if is_open:
                    daemon_socket.send_multipart(frames, copy=False)
            if daemon_socket in ready:
                self._receive(engine_messages.read_in_engine(daemon_socket.recv()))
            if time.monotonic() >= next_heartbeat_at:
                daemon_socket.send(engine_messages.encode(self._make_heartbeat()))
                next_heartbeat_at = time.monotonic() + self._heartbeat_s
        outgoing_socket.close()
        daemon_socket.close()

    def _receive(self, message: engine_messages.ToEngine) -> None:
        if isinstance(message, engine_messages.CancelJob):
            with self._lock:
                self._cancelled.add(message.job)
        else:
            self.inbox.put(message)

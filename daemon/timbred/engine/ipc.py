"""The engine's connection to the daemon, in a thread of its own.

So heartbeats and cancellations pass while a model computes.
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

_OUTGOING = "inproc://outgoing"


class DaemonLink:
    """Receives messages into `orders`, and sends what `send` is given; cancellations take effect at once.

    The engine's own threads put their messages into `orders` too: it is the only queue that the scheduler waits on.

    Args:
        address: ZeroMQ address of the daemon's socket.
        heartbeat: Interval between heartbeats in seconds.
        beat: Returns the heartbeat; called in the link's thread.
    """

    def __init__(self, address: str, heartbeat: float, beat: Callable[[], engine_messages.EngineHeartbeat]) -> None:
        self.orders: queue.Queue[Any] = queue.Queue()
        self._cancelled: set[int] = set()
        self._lock = threading.Lock()
        self._heartbeat = heartbeat
        self._beat = beat
        self._context = zmq.Context()
        self._outgoing = self._context.socket(zmq.PAIR)
        self._outgoing.bind(_OUTGOING)
        self._address = address
        self._thread = threading.Thread(target=self._run, name="mailbox", daemon=True)

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
        line = self._context.socket(zmq.PAIR)
        line.linger = 1000
        line.connect(self._address)
        inner = self._context.socket(zmq.PAIR)
        inner.connect(_OUTGOING)
        poller = zmq.Poller()
        poller.register(line, zmq.POLLIN)
        poller.register(inner, zmq.POLLIN)
        open_, next_beat = True, time.monotonic() + self._heartbeat
        while open_:
            ready = dict(poller.poll(max(0, math.ceil(1000 * (next_beat - time.monotonic())))))
            if inner in ready:
                frames = inner.recv_multipart(copy=False)
                open_ = len(frames[0]) > 0
                if open_:
                    line.send_multipart(frames, copy=False)
            if line in ready:
                self._take_in(engine_messages.read_in_engine(line.recv()))
            if time.monotonic() >= next_beat:
                line.send(engine_messages.encode(self._beat()))
                next_beat = time.monotonic() + self._heartbeat
        inner.close()
        line.close()

    def _take_in(self, message: engine_messages.ToEngine) -> None:
        if isinstance(message, engine_messages.CancelJob):
            with self._lock:
                self._cancelled.add(message.job)
        else:
            self.orders.put(message)

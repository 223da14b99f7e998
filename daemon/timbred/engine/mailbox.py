"""The engine's end of the line to the daemon: a thread of its own reads it, so that signs of life and cancellations
pass while a model computes."""

import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import zmq

from timbred.engine import wire


class Mailbox:
    """Receives orders into `orders` and sends what `send` is given. Cancellations are seen at once.

    Others may put what concerns the engine into `orders` too: it is the one queue that the engine waits on.

    Whoever sends does so in its own thread: were it done in another, the two would wait for each other at every step,
    for Python's lock. All use the one socket, under a lock, so that the daemon hears everything in the order in which
    it was sent.
    """

    def __init__(self, address: str, heartbeat: float, beat: Callable[[], wire.Beat]) -> None:
        self.orders: queue.Queue[Any] = queue.Queue()
        self._cancelled: set[int] = set()
        self._lock = threading.Lock()
        self._heartbeat = heartbeat
        self._beat = beat
        self._address = address
        self._context = zmq.Context()
        self._line = self._context.socket(zmq.PAIR)
        self._line.linger = 1000
        self._using = threading.Lock()
        self._closing, self._told_to_close = socket.socketpair()
        self._thread = threading.Thread(target=self._read, name="mailbox", daemon=True)

    def start(self) -> None:
        """Take up the line."""
        self._line.connect(self._address)
        self._thread.start()

    def send(self, message: wire.Wire, *payload: bytes | memoryview) -> None:
        """Send a message, from any thread."""
        frames = [wire.encode(message), *payload]
        with self._using:
            self._line.send_multipart(frames, copy=not payload)
            self._take_in_all()  # sending uses up the sign that something has come, on which the thread waits

    def is_cancelled(self, job: int) -> bool:
        """Whether the daemon wants this job stopped."""
        with self._lock:
            return job in self._cancelled

    def forget(self, job: int) -> None:
        """The job has ended: its cancellation needs no more remembering."""
        with self._lock:
            self._cancelled.discard(job)

    def close(self) -> None:
        """End the thread; then send what waits, for a second at most."""
        self._closing.send(b"\0")
        self._thread.join()
        self._line.close()
        self._context.term()
        self._closing.close()
        self._told_to_close.close()

    def _read(self) -> None:
        """Wait for orders without holding the line, and send signs of life."""
        next_beat = time.monotonic() + self._heartbeat
        with selectors.DefaultSelector() as selector:
            selector.register(self._told_to_close, selectors.EVENT_READ)
            selector.register(cast(int, self._line.getsockopt(zmq.FD)), selectors.EVENT_READ)
            with self._using:
                self._take_in_all()  # what came before had its sign already
            while True:
                ready = selector.select(max(0.0, next_beat - time.monotonic()))
                if any(key.fileobj is self._told_to_close for key, _ in ready):
                    return
                with self._using:
                    self._take_in_all()
                if time.monotonic() >= next_beat:
                    self.send(self._beat())
                    next_beat = time.monotonic() + self._heartbeat

    def _take_in_all(self) -> None:
        """Everything that has come. The line's sign comes once, for any number of messages, so all must be taken."""
        while cast(int, self._line.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._take_in(wire.read_in_engine(self._line.recv()))

    def _take_in(self, message: wire.ToEngine) -> None:
        if isinstance(message, wire.Cancel):
            with self._lock:
                self._cancelled.add(message.job)
        else:
            self.orders.put(message)

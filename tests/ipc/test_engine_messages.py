"""The engine's end of the line, against a real socket: nothing is lost, nothing overtakes."""

import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import zmq

from tests.patience import TIMEOUT_S
from timbred.ipc import engine_messages
from timbred.ipc.engine_messages import DaemonLink

SELDOM = 1000.0
MANY = 3000


def no_beat() -> engine_messages.EngineHeartbeat:
    return engine_messages.EngineHeartbeat(memory_used=0, memory_total=0, resident=())


class Daemon:
    """The other end of the line."""

    def __init__(self, line: "zmq.Socket[bytes]") -> None:
        self.line = line

    def receive(self) -> engine_messages.FromEngine:
        assert self.line.poll(int(TIMEOUT_S * 1000)), "nothing came"
        return engine_messages.read_in_daemon(self.line.recv_multipart()[0])

    def orders(self, message: engine_messages.ToEngine) -> None:
        self.line.send(engine_messages.encode(message))


@contextmanager
def line(heartbeat: float = SELDOM) -> Generator[tuple[DaemonLink, Daemon]]:
    with zmq.Context() as context, tempfile.TemporaryDirectory() as folder, context.socket(zmq.PAIR) as there:
        there.linger = 0
        address = f"ipc://{Path(folder) / 'line'}"
        there.bind(address)
        link = DaemonLink(address, heartbeat, no_beat)
        link.start()
        try:
            yield link, Daemon(there)
        finally:
            link.close()


def step(number: int, job: int = 1) -> engine_messages.StepDone:
    return engine_messages.StepDone(job=job, step=number, steps=MANY, remaining=0.0)


def test_daemon_link_receives_an_order_while_it_sends():
    with line() as (link, daemon):
        answering = threading.Thread(
            target=lambda: [daemon.orders(engine_messages.UnloadModel(name=str(daemon.receive()))) for _ in range(MANY)]
        )
        answering.start()
        for number in range(MANY):
            link.send(step(number))
        found = [link.inbox.get(timeout=TIMEOUT_S) for _ in range(MANY)]
        answering.join()
        assert found == [engine_messages.UnloadModel(name=str(step(number))) for number in range(MANY)]


def test_daemon_link_hands_each_order_to_a_waiting_thread():
    with line() as (link, daemon):
        for number in range(300):
            daemon.orders(engine_messages.UnloadModel(name=str(number)))
            assert link.inbox.get(timeout=TIMEOUT_S) == engine_messages.UnloadModel(name=str(number))
            link.send(step(number))
            assert daemon.receive() == step(number)


def test_daemon_link_keeps_order_beside_heartbeats():
    with line(heartbeat=0.0001) as (link, daemon):
        for number in range(500):
            link.send(step(number))
        received: list[int] = []
        beats = 0
        while beats < 10 or len(received) < 500:
            match daemon.receive():
                case engine_messages.StepDone(step=number):
                    received.append(number)
                case engine_messages.EngineHeartbeat():
                    beats += 1
                case other:
                    raise AssertionError(other)
        assert received == list(range(500))


def test_daemon_link_shows_a_cancellation_to_a_computing_thread():
    with line() as (link, daemon):
        daemon.orders(engine_messages.CancelJob(job=5))
        for _ in range(1_000_000):
            if link.is_cancelled(5):
                break
            threading.Event().wait(0.001)
        assert link.is_cancelled(5)
        assert not link.is_cancelled(6)
        assert link.inbox.empty()
        link.forget(5)
        assert not link.is_cancelled(5)


def test_daemon_link_sends_samples_unchanged_after_their_message():
    with line() as (link, daemon):
        first, second = bytes(range(256)) * 4000, b"\0" * 12
        link.send(engine_messages.JobRendered(job=1, rate=16000, channels=1, seeds=(1, 2)), first, second)
        link.send(step(1))
        assert daemon.line.poll(int(TIMEOUT_S * 1000))
        frames = daemon.line.recv_multipart()
        assert frames[1:] == [first, second]
        assert daemon.receive() == step(1)


def test_daemon_link_sends_what_waits_when_it_is_closed():
    with zmq.Context() as context, tempfile.TemporaryDirectory() as folder, context.socket(zmq.PAIR) as there:
        address = f"ipc://{Path(folder) / 'line'}"
        there.bind(address)
        link = DaemonLink(address, SELDOM, no_beat)
        link.start()
        for number in range(500):
            link.send(step(number))
        link.close()
        assert [Daemon(there).receive() for _ in range(500)] == [step(number) for number in range(500)]

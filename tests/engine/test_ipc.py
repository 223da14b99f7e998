"""The engine's end of the line, against a real socket: nothing is lost, nothing overtakes."""

import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import zmq

from timbred.engine.ipc import DaemonLink
from timbred.ipc import engine_messages

PATIENCE = 150
SELDOM = 1000.0
MANY = 3000


def no_beat() -> engine_messages.EngineHeartbeat:
    return engine_messages.EngineHeartbeat(memory_used=0, memory_total=0, resident=())


class Daemon:
    """The other end of the line."""

    def __init__(self, line: "zmq.Socket[bytes]") -> None:
        self.line = line

    def hears(self) -> engine_messages.FromEngine:
        assert self.line.poll(PATIENCE * 1000), "nothing came"
        return engine_messages.read_in_daemon(self.line.recv_multipart()[0])

    def orders(self, message: engine_messages.ToEngine) -> None:
        self.line.send(engine_messages.encode(message))


@contextmanager
def line(heartbeat: float = SELDOM) -> Generator[tuple[DaemonLink, Daemon]]:
    with zmq.Context() as context, tempfile.TemporaryDirectory() as folder, context.socket(zmq.PAIR) as there:
        there.linger = 0
        address = f"ipc://{Path(folder) / 'line'}"
        there.bind(address)
        mailbox = DaemonLink(address, heartbeat, no_beat)
        mailbox.start()
        try:
            yield mailbox, Daemon(there)
        finally:
            mailbox.close()


def step(number: int, job: int = 1) -> engine_messages.StepDone:
    return engine_messages.StepDone(job=job, step=number, steps=MANY, remaining=0.0)


def test_daemon_link_receives_an_order_while_it_sends():
    with line() as (mailbox, daemon):
        answering = threading.Thread(
            target=lambda: [daemon.orders(engine_messages.UnloadModel(name=str(daemon.hears()))) for _ in range(MANY)]
        )
        answering.start()
        for number in range(MANY):
            mailbox.send(step(number))
        found = [mailbox.inbox.get(timeout=PATIENCE) for _ in range(MANY)]
        answering.join()
        assert found == [engine_messages.UnloadModel(name=str(step(number))) for number in range(MANY)]


def test_daemon_link_hands_each_order_to_a_waiting_thread():
    with line() as (mailbox, daemon):
        for number in range(300):
            daemon.orders(engine_messages.UnloadModel(name=str(number)))
            assert mailbox.inbox.get(timeout=PATIENCE) == engine_messages.UnloadModel(name=str(number))
            mailbox.send(step(number))
            assert daemon.hears() == step(number)


def test_daemon_link_keeps_order_beside_heartbeats():
    with line(heartbeat=0.0001) as (mailbox, daemon):
        for number in range(500):
            mailbox.send(step(number))
        heard: list[int] = []
        beats = 0
        while beats < 10 or len(heard) < 500:
            match daemon.hears():
                case engine_messages.StepDone(step=number):
                    heard.append(number)
                case engine_messages.EngineHeartbeat():
                    beats += 1
                case other:
                    raise AssertionError(other)
        assert heard == list(range(500))


def test_daemon_link_shows_a_cancellation_to_a_computing_thread():
    with line() as (mailbox, daemon):
        daemon.orders(engine_messages.CancelJob(job=5))
        for _ in range(1_000_000):
            if mailbox.is_cancelled(5):
                break
            threading.Event().wait(0.001)
        assert mailbox.is_cancelled(5)
        assert not mailbox.is_cancelled(6)
        assert mailbox.inbox.empty()
        mailbox.forget(5)
        assert not mailbox.is_cancelled(5)


def test_daemon_link_sends_samples_unchanged_after_their_message():
    with line() as (mailbox, daemon):
        first, second = bytes(range(256)) * 4000, b"\0" * 12
        mailbox.send(engine_messages.JobRendered(job=1, rate=16000, channels=1, seeds=(1, 2)), first, second)
        mailbox.send(step(1))
        assert daemon.line.poll(PATIENCE * 1000)
        frames = daemon.line.recv_multipart()
        assert frames[1:] == [first, second]
        assert daemon.hears() == step(1)


def test_daemon_link_sends_what_waits_when_it_is_closed():
    with zmq.Context() as context, tempfile.TemporaryDirectory() as folder, context.socket(zmq.PAIR) as there:
        address = f"ipc://{Path(folder) / 'line'}"
        there.bind(address)
        mailbox = DaemonLink(address, SELDOM, no_beat)
        mailbox.start()
        for number in range(500):
            mailbox.send(step(number))
        mailbox.close()
        assert [Daemon(there).hears() for _ in range(500)] == [step(number) for number in range(500)]

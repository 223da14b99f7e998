"""Clients in memory hear what clients on sockets hear."""

import numpy as np

from tests.transports.stage import SOUND, FakeDaemon
from timbred.protocol import messages as m
from timbred.transports.base import InProcessClient, InProcessTransport
from timbred.transports.router import Router


def client() -> tuple[InProcessTransport, InProcessClient, FakeDaemon]:
    router = Router()
    memory = InProcessTransport(router)
    daemon = FakeDaemon(router)
    router.open(daemon)
    return memory, memory.client(), daemon


async def test_in_process_client_gets_whole_answers() -> None:
    _, asker, _ = client()
    said = await asker.request(type="generate", id="a", prompt="pad", takes=2, inline=True)
    assert [type(one) for one in said] == [m.Queued, m.Started, m.Take, m.Take, m.Done]
    np.testing.assert_array_equal(asker.clips["t1"].samples, SOUND.samples)
    assert await asker.request(type="ping") == [m.Pong()]
    assert [type(one) for one in await asker.request(type="models")] == [m.Model, m.Model]
    assert [type(one) for one in await asker.request(type="takes")] == [m.Take, m.Take, m.Done]
    (refusal,) = await asker.request(type="generate", id="b", prompt="pad", seconds=-1)
    assert isinstance(refusal, m.Fail)
    (fault,) = await asker.request(type="unload", model="pocket")
    assert isinstance(fault, m.Fail)
    assert fault.code == "internal"


async def test_in_process_client_hears_events_one_by_one() -> None:
    memory, asker, daemon = client()
    listener = memory.client()
    await listener.request(type="notify", on=1)
    asker.send(type="generate", id="a", prompt="wait")
    assert isinstance(await asker.next_event(), m.Queued)
    await listener.next_event()
    async for event in listener:
        if isinstance(event, m.Started):
            daemon.finish()
        if isinstance(event, m.Done):
            break
    memory.disconnect(listener)
    assert await asker.request(type="sync", n=1) == [m.Synced(n=1)]


async def test_in_process_client_is_refused_before_the_start_and_after_the_end() -> None:
    router = Router()
    asker = InProcessTransport(router).client()
    (refusal,) = await asker.request(type="status")
    assert isinstance(refusal, m.Fail)
    assert refusal.code == "shutting-down"

"""The whole daemon with a player on a JACK server, an engine that renders sines, and a recorder."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.player.player_stage import RATE, Recording, Require, recording
from tests.test_server import TIMEOUT_S, running
from timbred.protocol import messages as m
from timbred.server import Daemon
from timbred.transports.base import InProcessClient

Recorded = TypeVar("Recorded")


@asynccontextmanager
async def recorded(
    require_host: Require, folder: Path, model: Path, *settings: str
) -> AsyncGenerator[tuple[Daemon, InProcessClient, Recording]]:
    """A daemon whose device is open and recorded, and a client of it."""
    async with running(folder, model, *settings) as daemon:
        await daemon.player.opened()
        with recording(require_host, folder) as record:
            yield daemon, daemon.transports.client(), record


async def until(client: InProcessClient, kind: type[m.Event]) -> Any:
    """The next event of this kind."""
    while not isinstance(event := await asyncio.wait_for(client.next_event(), TIMEOUT_S), kind):
        pass
    return event


async def no_more(client: InProcessClient) -> None:
    """Nothing else is said: what comes before an answer came before it was asked for."""
    client.send(type="status")
    assert isinstance(await asyncio.wait_for(client.next_event(), TIMEOUT_S), m.StatusReply)
    assert client.empty()


async def resting(daemon: Daemon) -> None:
    """Until the engine has nothing to do."""
    while any(daemon.scheduler.jobs.live()):
        await asyncio.sleep(0.01)


MAX_RECORDINGS = 10


async def undisturbed(record: Callable[[], Awaitable[tuple[Recorded, int]]]) -> Recorded:
    """Return the first recording during which the device was never late, as it may be on a loaded machine.

    `record` returns a recording and its `disturbances`.
    """
    for _ in range(MAX_RECORDINGS):
        recorded_sound, disturbance_count = await record()
        if not disturbance_count:
            return recorded_sound
    raise AssertionError(f"the device was late in each of {MAX_RECORDINGS} recordings")


def disturbances(daemon: Daemon) -> int:
    """Return the number of times that the device ran out of samples or was late."""
    return daemon.player.underruns + daemon.player.last.late


async def taken(daemon: Daemon, frame: int) -> None:
    """Until the device has surely taken this frame."""
    while daemon.player.last.frame < frame + RATE // 2:
        await asyncio.sleep(0.05)

"""The client's line to a daemon goes on after what it can't read."""

import asyncio

import pytest
import zmq
import zmq.asyncio

from tests.patience import TIMEOUT_S
from timbred.client.connection import DaemonAddress, DaemonConnection, error_of
from timbred.errors import Busy
from timbred.protocol import messages as m


async def test_daemon_connection_continues_after_an_event_that_cannot_be_read_or_handled(
    caplog: pytest.LogCaptureFixture,
):
    async def conversation() -> None:
        context = zmq.asyncio.Context()
        router = context.socket(zmq.ROUTER)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        pongs: asyncio.Queue[m.Event] = asyncio.Queue()

        def received(event: m.Event, _: list[bytes]) -> None:
            if isinstance(event, m.Loaded):
                raise KeyError("a fault of the handler")
            pongs.put_nowait(event)

        link = DaemonConnection(context, DaemonAddress("127.0.0.1", port, port), received, lambda: None)
        try:
            assert await link.wait_up(TIMEOUT_S)
            link.send(b"{}")
            client, _ = await router.recv_multipart()
            for frame in (b"not JSON", b'{"type": "loaded", "model": "m"}', b'{"type": "pong"}'):
                await router.send_multipart([client, frame])
            assert isinstance(await asyncio.wait_for(pongs.get(), TIMEOUT_S), m.Pong)
        finally:
            await link.close()
            router.close(linger=0)
            context.destroy(linger=0)

    await conversation()
    assert caplog.text.count("can't be handled") == 2


@pytest.mark.parametrize(("reported", "expected"), [(None, 1.0), (0.0, 0.0), (2.5, 2.5)])
def test_error_of_busy_has_the_daemons_pause(reported: float | None, expected: float) -> None:
    error = error_of(m.Fail(id="a", code="busy", message="later", retry_after_s=reported))
    assert isinstance(error, Busy)
    assert error.retry_after == expected

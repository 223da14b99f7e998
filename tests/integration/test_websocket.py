"""A WebSocket speaks ZeroMQ's JSON both ways, to the daemon's own page and to programs."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.integration.clients import SOUND, TERMINAL, TIMEOUT_S, UdpClient, hold_engine, let_go
from tests.integration.daemons import DaemonProcess

Json = dict[str, Any]


@pytest.fixture
def page(daemon: DaemonProcess) -> Iterator[ClientConnection]:
    """A connection as a program makes it."""
    with connect(f"ws://127.0.0.1:{daemon.http}/ws", open_timeout=TIMEOUT_S) as made:
        yield made


def ask(page: ClientConnection, **request: object) -> Json:
    page.send(json.dumps(request))
    return receive(page)


def receive(page: ClientConnection) -> Json:
    return json.loads(page.recv(TIMEOUT_S))


def test_websocket_generate_sends_events_in_order(page: ClientConnection) -> None:
    page.send(json.dumps({"type": "generate", "id": 4, "prompt": "warm pad", "seconds": 0.2, "steps": 2}))
    events = [receive(page)]
    while events[-1]["type"] not in TERMINAL:
        events.append(receive(page))
    assert [name for name, _ in itertools.groupby(event["type"] for event in events)] == SOUND
    assert {event["id"] for event in events} == {4}
    assert ask(page, type="ping") == {"type": "pong"}


def test_websocket_refuses_invalid_requests(page: ClientConnection, client: UdpClient) -> None:
    hold_engine(client, "beside a page")
    for text in ("", "{", "[]", '{"type": "sing"}', "x" * 100_000):
        page.send(text)
        answer = receive(page)
        assert (answer["type"], answer["code"]) == ("fail", "bad-request")
    assert ask(page, type="ping") == {"type": "pong"}
    client.nothing_more()
    let_go(client, "beside a page")


def test_websocket_refuses_another_origin(daemon: DaemonProcess) -> None:
    own = f"http://127.0.0.1:{daemon.http}"
    with connect(f"ws://127.0.0.1:{daemon.http}/ws", origin=own, open_timeout=TIMEOUT_S) as page:  # pyright: ignore[reportArgumentType]
        assert ask(page, type="ping") == {"type": "pong"}
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{daemon.http}/ws", origin="http://evil.example", open_timeout=TIMEOUT_S)  # pyright: ignore[reportArgumentType]
    assert refused.value.response.status_code == 403

"""OSCQuery from a real daemon: over HTTP and WebSocket, with npm's client, with exact orders of events."""

import asyncio
import json
import subprocess
import time
import urllib.request
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integration import osc
from tests.integration.clients import TIMEOUT_S, UdpClient
from tests.integration.conftest import StartDaemon
from tests.integration.daemons import DaemonProcess
from tests.npm import InstallNpm

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def get(daemon: DaemonProcess, path: str, accept: str = "*/*") -> tuple[int, str, bytes]:
    """Status, content type and body."""
    request = urllib.request.Request(f"http://127.0.0.1:{daemon.http}{path}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read()
    except HTTPError as answer:
        return answer.code, answer.headers.get_content_type(), answer.read()


def ask(daemon: DaemonProcess, path: str) -> Any:
    status, kind, body = get(daemon, path)
    assert (status, kind) == (200, "application/json")
    return json.loads(body)


class Listening:
    """A WebSocket at `/`: commands as text, OSC as bytes."""

    def __init__(self, made: ClientConnection) -> None:
        self.made = made

    async def command(self, command: str, path: str) -> None:
        await self.made.send(json.dumps({"COMMAND": command, "DATA": path}))

    async def say(self, name: str, *arguments: osc.Value) -> None:
        await self.made.send(osc.message(f"/timbred/{name}", *arguments))

    async def receive(self) -> tuple[Any, ...]:
        packet = await self.made.recv()
        assert isinstance(packet, bytes)
        received = osc.parse(packet)
        return (received.name, *received.arguments)

    async def until(self, *names: str) -> list[tuple[Any, ...]]:
        received = [await self.receive()]
        while received[-1][0] not in names:
            received.append(await self.receive())
        return received

    async def settled(self, number: int) -> None:
        """All that was sent before has been taken in."""
        await self.say("sync", number)
        assert await self.receive() == ("synced", number)


@asynccontextmanager
async def listening(daemon: DaemonProcess) -> AsyncGenerator[Listening]:
    async with (
        asyncio.timeout(TIMEOUT_S),
        connect(f"ws://127.0.0.1:{daemon.http}/", proxy=None, open_timeout=TIMEOUT_S, ping_timeout=TIMEOUT_S) as made,
    ):
        yield Listening(made)


def test_oscquery_root_is_a_page_for_browsers_and_a_tree_for_programs(daemon: DaemonProcess) -> None:
    assert get(daemon, "/", BROWSER)[:2] == (200, "text/html")
    assert get(daemon, "/?HOST_INFO", BROWSER)[:2] == (200, "application/json")
    for accept in ("*/*", "application/json", "application/json, text/plain, */*"):
        status, kind, body = get(daemon, "/", accept)
        assert (status, kind, json.loads(body)["FULL_PATH"]) == (200, "application/json", "/")
    request = urllib.request.Request(f"http://127.0.0.1:{daemon.http}/")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        assert answer.headers["Vary"] == "Accept"


def test_oscquery_paths_and_attributes_have_their_status(daemon: DaemonProcess) -> None:
    assert ask(daemon, "/timbred/settings/queue.length?ACCESS") == {"ACCESS": 3}
    assert ask(daemon, "/timbred/settings/http.port?VALUE") == {"VALUE": [daemon.http]}
    assert ask(daemon, "/timbred")["CONTENTS"]["ping"]["ACCESS"] == 2
    assert get(daemon, "/timbred/generate?VALUE")[0::2] == (204, b"")
    assert get(daemon, "/timbred/generate?COLOUR")[0] == 400
    assert get(daemon, "/timbred/sing")[0] == 404
    assert get(daemon, "/timbre")[0] == 404


def test_oscquery_host_info_has_the_ports(daemon: DaemonProcess, client: UdpClient) -> None:
    found = ask(daemon, "/?HOST_INFO")
    assert (found["OSC_IP"], found["OSC_PORT"]) == ("127.0.0.1", daemon.osc)
    assert (found["WS_IP"], found["WS_PORT"]) == ("127.0.0.1", daemon.http)
    assert client.daemon == (found["OSC_IP"], found["OSC_PORT"])
    assert client.ask("ping").name == "pong"


def test_oscquery_settings_are_read_and_set_at_their_address(daemon: DaemonProcess, client: UdpClient) -> None:
    for name, new in (("tempo", 97.5), ("beats_per_bar", 3.0), ("audio.rate", 44100), ("models.default", "pocket")):
        path = f"/timbred/settings/{name}"
        node = ask(daemon, path)
        assert node["ACCESS"] == 3
        assert client.ask(f"settings/{name}", new).arguments == (new,)
        assert ask(daemon, path + "?VALUE") == {"VALUE": [new]}
        client.ask(f"settings/{name}", node["VALUE"][0])
        assert ask(daemon, path + "?VALUE") == {"VALUE": node["VALUE"]}
    assert client.ask("settings/tempo", 5.0).name == "fail"
    assert ask(daemon, "/timbred/tempo?VALUE") == ask(daemon, "/timbred/settings/tempo?VALUE")


def test_oscquery_frame_rate_setting_reaches_the_engine(daemon: DaemonProcess, client: UdpClient) -> None:
    def reported(frame_rate: int) -> bool:
        return f"leaving cores to playback at {frame_rate} frames per second" in daemon.log.read_text("utf-8")

    assert ask(daemon, "/timbred/settings/engine.yield?RANGE") == {"RANGE": [{"MIN": 0, "MAX": 1000}]}
    for frame_rate in (60, 0):
        assert client.ask("settings/engine.yield", frame_rate).arguments == (frame_rate,)
        deadline = time.monotonic() + TIMEOUT_S
        while not reported(frame_rate):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert client.ask("settings/player.gain", -6).arguments == (-6.0,)
    assert client.ask("settings/player.gain", 0).arguments == (0.0,)


async def test_oscquery_values_are_pushed_while_a_client_listens(daemon: DaemonProcess, client: UdpClient) -> None:
    async with listening(daemon) as line:
        await line.command("LISTEN", "/timbred/tempo")
        await line.settled(1)
        client.ask("settings/tempo", 101.0)
        client.ask("tempo", 102.0)
        client.ask("settings/beats_per_bar", 5.0)
        await line.command("LISTEN", "/timbred/settings/tempo")
        assert [await line.receive() for _ in range(2)] == [("tempo", 101.0), ("tempo", 102.0)]
        await line.settled(3)
        client.ask("tempo", 103.0)
        await line.command("IGNORE", "/timbred/tempo")
        assert [await line.receive() for _ in range(2)] == [("settings/tempo", 103.0), ("tempo", 103.0)]
        await line.settled(4)
        client.ask("tempo", 120.0)
        assert await line.receive() == ("settings/tempo", 120.0)
        await line.command("IGNORE", "/timbred/settings/tempo")
        await line.settled(5)
        client.ask("settings/beats_per_bar", 4.0)
        client.ask("tempo", 120.0)
        await line.settled(6)


async def test_oscquery_events_of_others_are_pushed_by_address(daemon: DaemonProcess, client: UdpClient) -> None:
    async with listening(daemon) as line:
        for name in ("queued", "take", "done"):
            await line.command("LISTEN", f"/timbred/{name}")
        await line.settled(1)
        take = await asyncio.to_thread(client.make_take)
        received = await line.until("done")
        assert [one[0] for one in received] == ["queued", "take", "done"]
        assert received[1] == ("take", *take.arguments)
        assert ask(daemon, "/timbred/take?VALUE")["VALUE"][:3] == list(take.arguments[:3])
        await line.settled(2)


async def test_oscquery_requests_in_bytes_are_answered_in_order(daemon: DaemonProcess) -> None:
    async with listening(daemon) as line:
        await line.say("generate", 7, "warm pad", "@seconds", 0.2, "@steps", 1)
        received = await line.until("done", "fail")
        assert [one[:2] for one in received] == [
            ("queued", 7),
            ("started", 7),
            *[("progress", 7)] * (len(received) - 4),
            ("take", 7),
            ("done", 7),
        ]
        assert Path(received[-2][3]).is_file()
        await line.say("hello", "a page", "@port", 9)
        assert (await line.receive())[:3] == ("fail", "hello", "bad-request")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "[",
        "{}",
        "[1]",
        '{"COMMAND": "SING", "DATA": "/timbred/tempo"}',
        '{"COMMAND": "LISTEN"}',
        '{"COMMAND": "LISTEN", "DATA": 3}',
        '{"COMMAND": "LISTEN", "DATA": "/timbred/nothing"}',
        '{"COMMAND": "LISTEN", "DATA": "/timbred"}',
        '{"COMMAND": "LISTEN", "DATA": "/timbred/generate"}',
    ],
)
async def test_oscquery_refuses_unknown_commands(daemon: DaemonProcess, command: str) -> None:
    async with listening(daemon) as line:
        await line.made.send(command)
        received = await line.receive()
        assert received[:3] == ("fail", "oscquery", "bad-request")
        assert "LISTEN" in received[3]
        await line.made.send(b"not osc")
        assert (await line.receive())[2] == "bad-request"
        await line.settled(1)


async def test_oscquery_refuses_pages_of_other_origins(daemon: DaemonProcess) -> None:
    with pytest.raises(InvalidStatus):
        address, foreign = f"ws://127.0.0.1:{daemon.http}/", "http://evil.example"
        async with connect(address, origin=foreign, proxy=None, open_timeout=TIMEOUT_S):  # pyright: ignore[reportArgumentType]
            pass


async def test_oscquery_announces_the_end_and_closes_the_socket(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()

    async with listening(daemon) as line:
        await line.command("LISTEN", "/timbred/fail")
        await line.say("generate", "a", "slow", "@steps", 3)
        await line.until("progress")
        daemon.signal()
        received = await line.until("fail")
        assert received[-1][:3] == ("fail", "a", "shutting-down")
        with pytest.raises(ConnectionClosed):
            await line.receive()
    assert daemon.ended() == 0


WALK = """
const { DiscoveredService } = require("oscquery/dist/lib/osc_query_discovery");
(async () => {
  const service = new DiscoveredService("127.0.0.1", Number(process.argv.at(-1)));
  await service.update();
  console.log(JSON.stringify({ host: service.hostInfo, methods: service.flat() }));
})();
"""


def test_oscquery_tree_is_read_by_npm(
    daemon: DaemonProcess, require_host: Callable[[str], str], install_npm: InstallNpm
) -> None:
    node, folder = require_host("node"), install_npm("oscquery@1.1.1")
    command = [node, "-e", WALK, str(daemon.http)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    found = json.loads(done.stdout)
    assert (found["host"]["oscPort"], found["host"]["wsPort"]) == (daemon.osc, daemon.http)
    methods = {one["full_path"]: one for one in found["methods"]}
    expected = {one["FULL_PATH"]: one for one in leaves(ask(daemon, "/"))}
    assert set(methods) == set(expected)
    for path, node_ in expected.items():
        arguments = methods[path].get("arguments", [])
        assert "".join(one["type"] for one in arguments) == node_["TYPE"]
        assert [one.get("value") for one in arguments if "value" in one] == node_.get("VALUE", [])
        for one, allowed in zip(arguments, node_.get("RANGE", []), strict=False):
            reported = {key.upper(): value for key, value in (one.get("range") or {}).items()}
            assert reported == (allowed or {})


def leaves(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for child in node["CONTENTS"].values() for one in leaves(child)] if "CONTENTS" in node else [node]

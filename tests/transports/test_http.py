"""HTTP and the WebSocket, with a browser's and a program's manners."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.patience import TIMEOUT_S
from tests.transports.stage import Stage, staged


async def get(stage: Stage, path: str, **headers: str) -> tuple[int, bytes]:
    """Status and body of a GET, written by hand so that no client cleans up the path."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.ports.http)
    fields = {"Host": f"127.0.0.1:{stage.ports.http}", "Connection": "close", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
    whole = await reader.read()
    writer.close()
    first, _, body = whole.partition(b"\r\n\r\n")
    return int(first.split()[1]), body


def socket_of(stage: Stage, origin: str | None = None) -> connect:
    address = f"ws://127.0.0.1:{stage.ports.http}/ws"
    return connect(address, origin=origin, proxy=None, open_timeout=TIMEOUT_S, ping_timeout=TIMEOUT_S)  # pyright: ignore[reportArgumentType]


async def ask(made: ClientConnection, **request: Any) -> dict[str, Any]:
    await made.send(json.dumps(request))
    return json.loads(await made.recv())


async def test_http_websocket_speaks_the_same_json(tmp_path: Path) -> None:
    async with (
        staged(tmp_path) as stage,
        socket_of(stage) as made,
        socket_of(stage, f"http://127.0.0.1:{stage.ports.http}") as own,
    ):
        await made.send(json.dumps({"type": "generate", "id": "a", "prompt": "pad"}))
        said = [json.loads(await made.recv())["type"] for _ in range(4)]
        assert said == ["queued", "started", "take", "done"]
        assert (await ask(own, type="hello", name="page"))["client_id"].startswith("ws:")
        assert await ask(own, type="notify", on=1) == {"type": "done", "id": "notify"}
        await made.send(json.dumps({"type": "load", "model": "pocket"}))
        assert json.loads(await own.recv()) == {"type": "loaded", "model": "pocket"}
        await made.send(b'{"type": "sync", "n": 1}')
        assert [json.loads(await made.recv())["type"] for _ in range(2)] == ["loaded", "synced"]


async def test_http_websocket_answers_bad_messages_and_leaves_others_undisturbed(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, socket_of(stage) as bad, socket_of(stage) as good:
        for message in ("not json", b"\xff", "[" * 100_000, "{}", "x" * (2 << 20)):
            await bad.send(message)
            assert json.loads(await bad.recv())["code"] == "bad-request"
            assert await ask(good, type="ping") == {"type": "pong"}
        for key, value in (("inline", True), ("to", "none")):
            refused = await ask(bad, type="generate", id="a", prompt="pad", **{key: value})
            assert refused["message"].startswith(f"{key}:")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://localhost:1"])
async def test_http_refuses_pages_of_other_origins(tmp_path: Path, origin: str) -> None:
    async with staged(tmp_path) as stage:
        with pytest.raises(InvalidStatus):
            async with socket_of(stage, origin):
                pass


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "[", "192.168.1.7"])
async def test_http_refuses_other_host_names(tmp_path: Path, host: str) -> None:
    async with staged(tmp_path) as stage:
        for path in ("/", "/status", "/ws", "/takes/a.wav"):
            assert (await get(stage, path, Host=host))[0] in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:7773", "[::1]:7773", "LOCALHOST:1"])
async def test_http_accepts_own_names(tmp_path: Path, host: str) -> None:
    async with staged(tmp_path) as stage:
        assert (await get(stage, "/schema.json", Host=host))[0] == 200


async def test_http_serves_status_schema_and_page(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        status, body = await get(stage, "/status")
        assert (status, json.loads(body)["sample_rate"]) == (200, 48000)
        assert "request.generate" in json.loads((await get(stage, "/schema.json"))[1])["$defs"]
        assert b"<html" in (await get(stage, "/", Accept="text/html"))[1]
        assert (await get(stage, "/nothing"))[0] == 404


async def test_http_serves_takes_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "takes"
    (folder / "drums").mkdir(parents=True)
    (folder / "drums" / "kick 1.wav").write_bytes(b"RIFF")
    (folder / ".timbred.sqlite").write_bytes(b"secret")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (folder / "link.wav").symlink_to(tmp_path / "secret.txt")

    async with staged(folder) as stage:
        assert await get(stage, "/takes/drums/kick%201.wav") == (200, b"RIFF")
        for path in (
            "/takes/",
            "/takes/drums",
            "/takes/nothing.wav",
            "/takes/.timbred.sqlite",
            "/takes/link.wav",
            "/takes/../secret.txt",
            "/takes/%2e%2e/secret.txt",
            "/takes/..%2fsecret.txt",
            "/takes/drums/..%5c..%5csecret.txt",
            "/takes//etc/passwd",
            "/takes/%00",
            "/takes/" + "x" * 5000,
        ):
            status, body = await get(stage, path)
            assert (status, b"secret" in body) == (404, False), path


async def test_http_websocket_announces_the_end_and_closes(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, socket_of(stage) as made:
        await made.send(json.dumps({"type": "generate", "id": "a", "prompt": "wait"}))
        assert [json.loads(await made.recv())["type"] for _ in range(2)] == ["queued", "started"]
        stage.daemon.shut_down()
        await stage.transports.stop()
        assert json.loads(await made.recv())["code"] == "shutting-down"
        with pytest.raises(ConnectionClosed):
            await made.recv()


async def test_http_websocket_is_not_closed_for_unanswered_pings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a pause of the daemon the pongs that came meanwhile are still unread: no deadline may run for them."""
    configurations: list[uvicorn.Config] = []

    class Recorded(uvicorn.Config):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            configurations.append(self)

    monkeypatch.setattr(uvicorn, "Config", Recorded)

    async with staged(tmp_path) as stage, socket_of(stage) as made:
        assert await ask(made, type="ping") == {"type": "pong"}
    assert [configuration.ws_ping_timeout for configuration in configurations] == [None]

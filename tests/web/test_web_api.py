"""What the panel is served from: takes page by page, stars, sounds; to its own page only, and nothing else."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.patience import TIMEOUT_S
from tests.storage.test_library import take
from tests.transports.stage import Stage, config_for
from timbred.storage.library import Library
from timbred.transports.web_api import CONTENT_TYPES, PAGE_NAME, assets

Headers = dict[str, str]


@asynccontextmanager
async def staged(folder: Path) -> AsyncGenerator[tuple[Stage, Library]]:
    """Start a stage with a library, and stop both in any case."""
    library = Library(folder / "library.sqlite")
    stage = Stage(config_for(folder / "takes"))
    stage.ports = await stage.transports.start(stage.daemon, library)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield stage, library
    finally:
        await stage.transports.stop()
        library.close()


async def ask(stage: Stage, path: str, method: str = "GET", **more: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body, asked by hand so that no client cleans up the path."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.ports.http)
    fields = {"Host": f"127.0.0.1:{stage.ports.http}", "Connection": "close", **more}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())
    whole = await reader.read()
    writer.close()
    first, _, body = whole.partition(b"\r\n\r\n")
    status, *lines = first.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, body


async def asked(stage: Stage, path: str, **more: str) -> Any:
    status, headers, body = await ask(stage, path, **more)
    assert (status, headers["content-type"]) == (200, "application/json"), body
    return json.loads(body)


async def test_web_api_serves_the_page_and_its_parts_with_security_headers(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, _):
        for path in ("/", *(f"/panel/{name}" for name in assets())):
            status, headers, body = await ask(stage, path, Accept="text/html,*/*")
            name = path.removeprefix("/panel/") if path != "/" else PAGE_NAME
            assert (status, body) == (200, assets()[name].content), path
            assert headers["content-type"] == CONTENT_TYPES["." + name.rpartition(".")[2]]
            policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-cache"
            again = await ask(stage, path, Accept="text/html", **{"If-None-Match": headers["etag"]})
            assert (again[0], again[2]) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/panel/nothing.js",
        "/panel/__init__.py",
        "/panel/../__init__.py",
        "/panel/..%2f__init__.py",
        "/panel/%2e%2e/config.py",
        "/panel/",
        "/panel/%00",
    ],
)
async def test_web_api_serves_nothing_else_beside_the_page(tmp_path: Path, path: str) -> None:
    async with staged(tmp_path) as (stage, _):
        status, _, body = await ask(stage, path)
        assert status in (404, 307), path
        assert b"import" not in body


async def test_web_api_lists_takes_page_by_page_newest_first(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, library):
        stored = [take(f"sound {n}", created=float(n // 2)) for n in range(7)]
        for one in stored:
            library.add(one)
        seen: list[str] = []
        before = ""
        while True:
            page = await asked(stage, f"/panel/takes?limit=3{before}")
            assert page["total"] == 7
            seen += [one["prompt"] for one in page["takes"]]
            if not page["more"]:
                break
            before = f"&before={page['takes'][-1]['take_id']}"
        assert seen == [f"sound {n}" for n in range(6, -1, -1)]
        found = await asked(stage, "/panel/takes?search=sound%203")
        assert [(one["prompt"], one["seed"], one["starred"]) for one in found["takes"]] == [("sound 3", 7, False)]
        alike = await asked(stage, f"/panel/takes?like={stored[0].take_id}&limit=2")
        assert (len(alike["takes"]), alike["more"]) == (2, False)
        nothing = await asked(stage, "/panel/takes?before=tnone")
        assert nothing["takes"] == []


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/panel/takes?limit=0", "limit: got '0', allowed is a whole number from 1 to 200"),
        ("/panel/takes?limit=201", "limit: got '201'"),
        ("/panel/takes?limit=99999999999999999999", "limit"),
        ("/panel/takes?limit=-1", "limit"),
        ("/panel/takes?limit=%C2%B2", "limit"),
        ("/panel/takes?limit=", "limit"),
        ("/panel/takes?like=tnone", "like: no take has the id 'tnone'"),
    ],
)
async def test_web_api_refuses_unusable_queries_with_a_message(tmp_path: Path, path: str, named: str) -> None:
    async with staged(tmp_path) as (stage, _):
        status, _, body = await ask(stage, path)
        refusal = json.loads(body)
        assert (status, refusal["code"]) == (400, "bad-request")
        assert named in refusal["message"]


async def test_web_api_sets_removes_and_keeps_stars(tmp_path: Path) -> None:
    kept, plain = take("keep me"), take("not me")

    async with staged(tmp_path) as (stage, library):
        library.add(kept)
        library.add(plain)
        path = f"/panel/takes/{kept.take_id}/star"
        for method, on in (("PUT", True), ("PUT", True), ("DELETE", False), ("PUT", True)):
            status, _, body = await ask(stage, path, method)
            assert (status, json.loads(body)) == (200, {"take_id": kept.take_id, "starred": on})
        assert (await asked(stage, f"/panel/takes/{kept.take_id}"))["starred"] is True
        assert (await ask(stage, "/panel/takes/tnone/star", "PUT"))[0] == 404
        assert (await ask(stage, path, "POST"))[0] == 405

    async with staged(tmp_path) as (stage, library):
        found = await asked(stage, "/panel/takes?starred=1")
        assert ([one["prompt"] for one in found["takes"]], found["total"]) == (["keep me"], 1)
        assert (await asked(stage, "/panel/takes?starred=0"))["total"] == 2


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1"])
async def test_web_api_refuses_stars_and_takes_to_other_origins(tmp_path: Path, origin: str) -> None:
    async with staged(tmp_path) as (stage, library):
        mine = take()
        library.add(mine)
        path = f"/panel/takes/{mine.take_id}/star"
        assert (await ask(stage, path, "PUT", Origin=origin))[0] == 403
        status, headers, _ = await ask(stage, path, "OPTIONS", Origin=origin)
        assert status == 405
        for asked_for in ("/panel/takes", "/panel/session"):
            _, headers, _ = await ask(stage, asked_for, Origin=origin)
            assert not [name for name in headers if name.startswith("access-control")]
        assert library.count(starred=True) == 0


async def test_web_api_serves_sounds_of_known_takes_whole_and_in_part(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "rain ü 1.flac"
    path.parent.mkdir()
    path.write_bytes(bytes(range(100)))
    known, gone, inline = take(path=path), take(path=tmp_path / "gone.wav"), take(path=None)

    async with staged(tmp_path) as (stage, library):
        for one in (known, gone, inline):
            library.add(one)
        notifications = await asked(stage, f"/panel/takes/{known.take_id}")
        assert (notifications["name"], notifications["missing"]) == ("rain ü 1.flac", False)
        status, headers, body = await ask(stage, notifications["url"])
        assert (status, body) == (200, path.read_bytes())
        assert headers["content-type"] == "audio/flac"
        assert headers["content-disposition"].startswith("inline; filename*=utf-8''rain%20%C3%BC%201.flac")
        assert headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert "immutable" in headers["cache-control"]
        assert headers["accept-ranges"] == "bytes"
        status, headers, body = await ask(stage, notifications["url"], Range="bytes=10-19")
        assert (status, body, headers["content-range"]) == (206, bytes(range(10, 20)), "bytes 10-19/100")
        assert (await ask(stage, notifications["url"], Range="bytes=200-300"))[0] == 416
        status, headers, body = await ask(stage, notifications["url"], "HEAD")
        assert (status, headers["content-length"], body) == (200, "100", b"")
        assert (await ask(stage, notifications["url"] + "?save"))[1]["content-disposition"].startswith("attachment;")
        missing = await asked(stage, f"/panel/takes/{gone.take_id}")
        assert missing["missing"] is True
        assert (await ask(stage, missing["url"]))[0] == 410
        assert (await asked(stage, f"/panel/takes/{inline.take_id}"))["url"] == ""
        for name in ("other.flac", "..%2frain", "%2e%2e", "library.sqlite"):
            assert (await ask(stage, f"/panel/sounds/{known.take_id}/{name}"))[0] == 404
        assert (await ask(stage, "/panel/sounds/tnone/rain"))[0] == 404


async def test_web_api_sandboxes_a_page_in_the_takes_folder(tmp_path: Path) -> None:
    (tmp_path / "takes").mkdir()
    (tmp_path / "takes" / "evil.html").write_text("<script>new WebSocket('/ws')</script>", "utf-8")

    async with staged(tmp_path) as (stage, _):
        _, headers, _ = await ask(stage, "/takes/evil.html")
        assert headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-cache"


async def test_web_api_without_a_library_says_so(tmp_path: Path) -> None:
    stage = Stage(config_for(tmp_path))
    await stage.start()
    try:
        status, _, body = await ask(stage, "/panel/takes")
        assert (status, json.loads(body)["message"]) == (400, "this daemon keeps no library")
        session = await asked(stage, "/panel/session")
        assert session["takes_folder"] == str(tmp_path)
    finally:
        await stage.transports.stop()


# ---- clients that come back by their name


def socket_of(stage: Stage, client: str) -> connect:
    address = f"ws://127.0.0.1:{stage.ports.http}/ws?client={client}"
    return connect(address, proxy=None, open_timeout=TIMEOUT_S, ping_timeout=TIMEOUT_S)


async def receive(made: ClientConnection) -> dict[str, Any]:
    return json.loads(await made.recv())


async def test_web_api_sends_a_returning_client_the_rest(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, _):
        async with socket_of(stage, "page-1") as first:
            await first.send(json.dumps({"type": "generate", "id": "a", "prompt": "wait"}))
            assert [(await receive(first))["type"] for _ in range(2)] == ["queued", "started"]
        async with socket_of(stage, "page-1") as second, socket_of(stage, "page-2") as other:
            await other.send(json.dumps({"type": "ping"}))
            await second.send(json.dumps({"type": "hello", "name": "page"}))
            assert (await receive(second))["client_id"] == "ws:page-1"
            stage.daemon.finish()
            assert [(await receive(second))["type"] for _ in range(2)] == ["take", "done"]
            assert await receive(other) == {"type": "pong"}


async def test_web_api_replaces_a_clients_old_connection(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, _), socket_of(stage, "page-1") as old, socket_of(stage, "page-1") as new:
        await new.send(json.dumps({"type": "notify", "on": 1}))
        assert (await receive(new))["id"] == "notify"
        with pytest.raises(ConnectionClosed):
            await old.recv()
        async with socket_of(stage, "page-2") as other:
            await other.send(json.dumps({"type": "load", "model": "pocket"}))
            assert (await receive(new))["type"] == "loaded"


@pytest.mark.parametrize("client", ["", "a" * 65, "a%20b", "udp:127.0.0.1:9", "%00", "ü"])
async def test_web_api_refuses_unusable_client_names(tmp_path: Path, client: str) -> None:
    async with staged(tmp_path) as (stage, _):
        with pytest.raises(InvalidStatus):
            async with socket_of(stage, client):
                pass

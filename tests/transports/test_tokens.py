"""HTTP and WebSocket beyond loopback: a token in a header or a browser's cookie, and never in a URL or a log."""

import asyncio
import json
import logging
import re
import resource
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.keys_home import BEYOND, TOKEN, KeysHome, own_address
from tests.patience import TIMEOUT_S
from tests.transports.stage import Stage, staged
from timbred.access.keys import KeyPair, TrustedKeys
from timbred.access.policy import COOKIE_LIFETIME_S, AccessRules, AllowList, make_cookie
from timbred.transports import tokens
from timbred.transports.tokens import LINK_PREFIX, LINKS_PATH, RequestHead, TokenCheck, Verdict, read_head

BEARER = {"Authorization": f"Bearer {TOKEN}"}
OTHER = "Bearer another-token-0123456789"


class Answer:
    """An HTTP response."""

    def __init__(self, whole: bytes) -> None:
        head, _, self.body = whole.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def send(stage: Stage, whole: bytes, host: str = "127.0.0.1") -> Answer:
    reader, writer = await asyncio.open_connection(host, stage.ports.http)
    writer.write(whole)
    answer = await reader.read()
    writer.close()
    return Answer(answer)


async def ask(stage: Stage, path: str, method: str = "GET", host: str = "127.0.0.1", **headers: str) -> Answer:
    fields = {"Host": f"{host}:{stage.ports.http}", "Connection": "close", **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return await send(stage, f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode(), host)


def websocket(stage: Stage, path: str = "/ws", **headers: str) -> connect:
    address = f"ws://127.0.0.1:{stage.ports.http}{path}"
    return connect(address, additional_headers=headers, proxy=None, open_timeout=TIMEOUT_S, ping_timeout=TIMEOUT_S)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """What was logged, without the lines of the tests' own client."""
    return "\n".join(record.getMessage() for record in caplog.records if record.name != "websockets.client")


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    folder = tmp_path / "takes"
    folder.mkdir()
    (folder / "kick.wav").write_bytes(b"RIFF")
    return folder


PATHS = (
    "/",
    "/status",
    "/schema.json",
    "/takes/kick.wav",
    "/panel/session",
    "/timbred/ping",
    "/nothing",
    "/?HOST_INFO",
)


async def test_tokens_are_demanded_for_every_path(takes: Path, keys_home: KeysHome) -> None:
    async with staged(takes, *BEYOND) as stage:
        for path in PATHS:
            refused = await ask(stage, path)
            assert refused.status == 401, path
            assert json.loads(refused.body)["code"] == "access-denied"
            assert refused.headers["www-authenticate"].startswith("Bearer")
            assert b"RIFF" not in refused.body
            allowed = await ask(stage, path, **BEARER)
            assert allowed.status == {"/nothing": 404}.get(path, allowed.status)
            assert allowed.status != 401, path
        assert (await ask(stage, "/takes/kick.wav", **BEARER)).body == b"RIFF"
        assert stage.transports.denied == len(PATHS)
    assert keys_home.folder.exists()


@pytest.mark.parametrize(
    "header",
    [
        OTHER,
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        TOKEN,
        f"Bearer {TOKEN} x",
    ],
)
async def test_tokens_that_are_wrong_are_refused(
    takes: Path, keys_home: KeysHome, caplog: pytest.LogCaptureFixture, header: str
) -> None:
    caplog.set_level(logging.DEBUG)
    async with staged(takes, *BEYOND) as stage:
        assert (await ask(stage, "/status", Authorization=header)).status == 401
        with pytest.raises(InvalidStatus) as refused:
            async with websocket(stage, Authorization=header):
                pass
        assert refused.value.response.status_code == 401
    assert caplog.text.count("access denied: HTTP from 127.0.0.1: its token is wrong") == 1
    assert TOKEN not in logged(caplog)
    assert keys_home.folder.exists()


async def test_tokens_let_websockets_in(takes: Path, keys_home: KeysHome, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with staged(takes, *BEYOND) as stage:
        async with websocket(stage, **BEARER) as made:
            await made.send('{"type": "ping"}')
            assert json.loads(await made.recv()) == {"type": "pong"}
        for path in ("/ws", "/"):
            with pytest.raises(InvalidStatus) as refused:
                async with websocket(stage, path):
                    pass
            assert json.loads(refused.value.response.body or b"")["code"] == "access-denied"
        assert stage.transports.denied == 2
    assert TOKEN not in logged(caplog)
    assert keys_home.folder.exists()


@pytest.mark.parametrize(
    "path",
    [
        f"/status?token={TOKEN}",
        f"/ws?access_token={TOKEN}",
        "/status?token=anything",
        f"/status?a=b&x={TOKEN}",
        f"/{TOKEN}",
        f"/takes/{TOKEN}/kick.wav",
        f"/status?{TOKEN}",
        "/status?x=" + "".join(f"%{ord(letter):02x}" for letter in TOKEN),
    ],
)
@pytest.mark.parametrize("headers", [{}, BEARER], ids=["no header", "with the header"])
async def test_tokens_in_urls_are_refused_and_not_logged(
    takes: Path, keys_home: KeysHome, caplog: pytest.LogCaptureFixture, path: str, headers: dict[str, str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with staged(takes, *BEYOND) as stage:
        refused = await ask(stage, path, **headers)
        assert refused.status == 401
        assert "a token in a URL is refused" in json.loads(refused.body)["message"]
        assert TOKEN.encode() not in refused.body
    assert "its token is in the URL" in caplog.text
    assert TOKEN not in caplog.text
    assert path not in caplog.text
    assert keys_home.folder.exists()


async def make_link(stage: Stage) -> str:
    made = await ask(stage, LINKS_PATH, "POST", **BEARER)
    assert made.status == 200
    return json.loads(made.body)["path"]


async def test_tokens_links_let_one_browser_in_once(takes: Path, keys_home: KeysHome) -> None:
    async with staged(takes, *BEYOND) as stage:
        link = await make_link(stage)
        assert (await ask(stage, link, "HEAD")).status == 401  # a preview of the link doesn't use it
        page = await ask(stage, link)
        assert page.status == 200
        assert b'href="/"' in page.body
        cookie = page.headers["set-cookie"]
        assert re.search(r"; *HttpOnly", cookie, re.IGNORECASE)
        assert re.search(r"; *SameSite=strict", cookie, re.IGNORECASE)
        assert f"Max-Age={COOKIE_LIFETIME_S}" in cookie
        assert TOKEN not in cookie
        pair = cookie.partition(";")[0]
        assert pair.startswith(f"timbred_{stage.ports.http}=")
        assert (await ask(stage, "/takes/kick.wav", Cookie=f"other=1; {pair}")).body == b"RIFF"
        async with websocket(stage, Cookie=pair) as made:
            await made.send('{"type": "ping"}')
            assert json.loads(await made.recv()) == {"type": "pong"}
        again = await ask(stage, link, Accept="text/html")
        assert again.status == 401
        assert b"timbred keys link" in again.body
        assert "set-cookie" not in again.headers
        assert (await ask(stage, LINKS_PATH, "POST", Cookie=pair)).status == 401  # a browser can't let others in
    async with staged(takes, *BEYOND, f"http.port={stage.ports.http}") as restarted:
        assert (await ask(restarted, "/status", Cookie=pair)).status == 200
        assert (await ask(restarted, link)).status == 401
    async with staged(takes, *BEYOND, f"http.port={stage.ports.http}", "access.token=another-token-0123") as changed:
        assert (await ask(changed, "/status", Cookie=pair)).status == 401
    assert keys_home.folder.exists()


async def test_tokens_are_checked_for_each_request_of_a_connection(takes: Path, keys_home: KeysHome) -> None:
    async with staged(takes, *BEYOND) as stage:
        host = f"Host: 127.0.0.1:{stage.ports.http}\r\n"
        good = f"GET /takes/kick.wav HTTP/1.1\r\n{host}Authorization: Bearer {TOKEN}\r\n\r\n"
        stranger = f"GET /takes/kick.wav HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
        answer = await send(stage, (good + stranger).encode())
        assert answer.status == 200
        assert b"401" in answer.body
        assert answer.body.count(b"RIFF") == 1
    assert keys_home.folder.exists()


async def test_tokens_allow_other_names_of_the_machine(takes: Path, keys_home: KeysHome) -> None:
    address = own_address()
    async with staged(takes, *BEYOND) as stage:
        assert (await ask(stage, "/status", host=address, **BEARER)).status == 200
        assert (await ask(stage, "/status", Host="rack.local", **BEARER)).status == 200
        assert (await ask(stage, "/status", Host="rack.local")).status == 401
    assert keys_home.folder.exists()


async def test_tokens_are_not_demanded_on_loopback(takes: Path, keys_home: KeysHome) -> None:
    async with staged(takes) as stage:
        assert (await ask(stage, "/status")).status == 200
        assert (await ask(stage, "/status?token=x")).status == 200
        assert (await ask(stage, LINKS_PATH, "POST")).status == 404
    assert keys_home.folder.exists()


@pytest.mark.parametrize(
    "head",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization : Bearer " + TOKEN.encode() + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization: Bearer "
        + TOKEN.encode()
        + b"\r\nAuthorization: "
        + OTHER.encode()
        + b"\r\n\r\n",
        b"x" * 40_000,
    ],
)
async def test_tokens_refuse_what_is_no_request(takes: Path, keys_home: KeysHome, head: bytes) -> None:
    async with staged(takes, *BEYOND) as stage:
        assert (await send(stage, head)).status == 401
        assert (await ask(stage, "/status", **BEARER)).status == 200
    assert keys_home.folder.exists()


async def test_tokens_head_may_come_in_pieces(takes: Path, keys_home: KeysHome) -> None:
    async with staged(takes, *BEYOND) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.ports.http)
        whole = f"GET /status HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        for byte in whole.encode():
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert Answer(await reader.read()).status == 200
        writer.close()
    assert keys_home.folder.exists()


async def test_tokens_unchecked_connections_are_closed_after_a_time(
    takes: Path, keys_home: KeysHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_FIRST_REQUEST_TIMEOUT_S", 0.05)
    async with staged(takes, *BEYOND) as stage:
        for sent in (b"", b"GET / HTTP/1.1\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.ports.http)
            writer.write(sent)
            assert await _read_to_end(reader) == b""
            writer.close()
    assert keys_home.folder.exists()


async def _read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_tokens_unchecked_connections_beyond_the_limit_close_the_oldest(
    takes: Path, keys_home: KeysHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_MAX_UNCHECKED_CONNECTIONS", 3)
    monkeypatch.setattr(tokens, "_FIRST_REQUEST_TIMEOUT_S", TIMEOUT_S)
    async with staged(takes, *BEYOND) as stage:
        lines = [await asyncio.open_connection("127.0.0.1", stage.ports.http) for _ in range(5)]
        for reader, _ in lines[:2]:
            assert await _read_to_end(reader) == b""
        assert (await ask(stage, "/status", **BEARER)).status == 200
        for reader, writer in lines[3:]:
            fields = f"Host: a\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n"
            writer.write(f"GET /status HTTP/1.1\r\n{fields}\r\n".encode())
            assert Answer(await reader.read()).status == 200
        for _, writer in lines:
            writer.close()
    assert keys_home.folder.exists()


async def test_tokens_flood_of_strangers_leaves_clients_undisturbed(takes: Path, keys_home: KeysHome) -> None:
    """Requests without a token, handshakes of WebSockets and silent connections, beside a client that is served."""
    async with staged(takes, *BEYOND) as stage, websocket(stage, **BEARER) as good:
        running = True
        attempts = 0
        kinds = (b"GET / HTTP/1.1\r\n\r\n", b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", b"")

        async def stranger(number: int) -> None:
            nonlocal attempts
            while running:
                reader, writer = await asyncio.open_connection("127.0.0.1", stage.ports.http)
                attempts += 1
                writer.write(kinds[number % 3])
                if kinds[number % 3]:
                    assert b"401" in await _read_to_end(reader)
                writer.close()

        flood = [asyncio.create_task(stranger(number)) for number in range(30)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answered = 0
        end = time.monotonic() + 2.0
        while time.monotonic() < end or attempts < 1000:
            await good.send('{"type": "ping"}')
            assert json.loads(await good.recv()) == {"type": "pong"}
            answered += 1
        running = False
        await asyncio.gather(*flood)
        assert answered > 20
        assert stage.transports.denied > 300
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KB
    assert keys_home.folder.exists()


def check() -> TokenCheck:
    own = KeyPair(b"0" * 40, b"0" * 40)
    rules = AccessRules(own, TrustedKeys(Path("/nowhere"), own), TOKEN, AllowList("10.0.0.1"))
    return TokenCheck(rules, 7773, lambda: 1000.0)


TEXTS = st.text(st.characters(max_codepoint=255), max_size=60)


@given(st.binary(max_size=300))
def test_read_head_reads_any_bytes(head: bytes) -> None:
    request = read_head(head)
    assert request is None or request.method.isupper()


@given(TEXTS, st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=3))
def test_token_check_allows_nothing_without_the_token(
    target: str, authorizations: list[str], cookies: list[str]
) -> None:
    verdict = check().decide(RequestHead("GET", target, authorizations, cookies))
    assert verdict.is_refusal


@given(st.text(max_size=60), st.sampled_from(["GET", "POST", "PUT"]))
def test_token_check_allows_the_token_and_the_cookie(path: str, method: str) -> None:
    made, cookie = check(), make_cookie(TOKEN, 1000.0)
    plain = "/" + "".join(letter for letter in path if letter.isalnum())
    assert made.decide(RequestHead(method, plain, [f"Bearer {TOKEN}"], [])) is Verdict.ALLOWED
    assert made.decide(RequestHead(method, plain, [], [f"a=b; timbred_7773={cookie}"])) is Verdict.ALLOWED
    assert made.decide(RequestHead(method, plain, [], [f"timbred_7774={cookie}"])) is Verdict.NO_TOKEN
    assert made.decide(RequestHead(method, plain, [OTHER], [f"timbred_7773={cookie}"])) is Verdict.WRONG_TOKEN


def test_token_check_allows_a_valid_link_for_get_alone() -> None:
    made = check()
    code = made.access.links.make()
    assert made.decide(RequestHead("GET", LINK_PREFIX + code, [], [])) is Verdict.LINK
    for method, target in (("POST", LINK_PREFIX + code), ("GET", LINK_PREFIX), ("GET", f"{LINK_PREFIX}{code}x")):
        assert made.decide(RequestHead(method, target, [], [])) is Verdict.NO_TOKEN

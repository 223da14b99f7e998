"""OSC over UDP and TCP, on real sockets."""

import asyncio
import struct
import time
from pathlib import Path
from typing import cast

import pytest

from tests.patience import TIMEOUT_S
from tests.transports.stage import STATUS, ReceivedMessage, TcpHost, UdpHost, osc, read_message, staged
from timbred.protocol import messages as m
from timbred.protocol.osc_packets import SLIP_END, encode_slip, pad_string

GENERATED = ["queued", "started", "take", "done"]


def bundle(tag: int, *elements: bytes) -> bytes:
    body = b"".join(struct.pack(">i", len(one)) + one for one in elements)
    return b"#bundle\x00" + struct.pack(">Q", tag) + body


def ahead(seconds: float) -> int:
    return round((time.time() + seconds + 2_208_988_800) * 2**32)


async def events(host: UdpHost | TcpHost, count: int) -> list[ReceivedMessage]:
    return [await host.receive() for _ in range(count)]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_osc_request_is_answered_by_its_events(tmp_path: Path, transport: str) -> None:
    async with staged(tmp_path) as stage, stage.udp() if transport == "udp" else stage.tcp() as host:
        host.send("/timbred/generate", 3.0, "warm", "pad", "@seconds", 2.0)
        said = await events(host, 4)
        assert [one[0] for one in said] == GENERATED
        assert said[0] == ("queued", 3, 0, 0.5)
        assert said[2][:4] == ("take", 3, 0, "/takes/0.wav")
        reported = [name for name in STATUS.__struct_fields__ if name not in STATUS.json_only]
        status = [getattr(STATUS, name) for name in reported]
        assert await host.ask("/timbred/status") == ("status.reply", *status)
        assert await host.ask("/timbred/ping") == ("pong",)
        assert await host.ask("/timbred/sync", 5) == ("synced", 5)


async def test_osc_hello_sends_answers_to_another_port_of_the_sender(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.udp() as sender, stage.udp() as listener:
        sender.send("/timbred/hello", "max", "@port", listener.port)
        welcome = await listener.receive()
        assert welcome[:2] == ("welcome", f"udp:127.0.0.1:{listener.port}")
        assert welcome[3] == stage.ports.http
        sender.send("/timbred/ping")
        assert await listener.receive() == ("pong",)


async def test_osc_request_names_its_reply_port_even_when_refused(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.udp() as sender, stage.tcp() as stream, stage.udp() as listener:
        sender.send("/timbred/ping", "@port", listener.port)
        assert await listener.receive() == ("pong",)
        sender.send("/timbred/sing", "@port", listener.port)
        assert (await listener.receive())[:3] == ("fail", "sing", "bad-request")
        stream.send("/timbred/ping", "@port", listener.port)
        assert await listener.receive() == ("pong",)
        # hello over TCP stays on the connection
        assert (await stream.ask("/timbred/hello", "max", "@port", listener.port))[0] == "welcome"
        assert await stream.ask("/timbred/ping") == ("pong",)
        assert await sender.ask("/timbred/ping") == ("pong",)


async def test_osc_resends_from_changing_ports_are_the_same_client(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.udp() as first, stage.udp() as second, stage.udp() as listener:
        for sender in (first, second):
            sender.send("/timbred/generate", "a", "wait", "@port", listener.port)
            await events(listener, 2)
        assert {client for client, _ in stage.daemon.received} == {f"udp:127.0.0.1:{listener.port}"}


BAD: list[tuple[bytes, m.Id]] = [
    (osc("/timbred/sing"), "sing"),
    (osc("/elsewhere"), "/elsewhere"),
    (osc("/timbred/generate", "a", "pad", "@seconds", "long"), "a"),
    (osc("/timbred/generate", "a", "pad", "@secnods", 1), "a"),
    (osc("/timbred/generate", "a", "pad", "@seconds", 9999), "a"),
    (osc("/timbred/generate", "a", ""), "a"),
    (osc("/timbred/generate", "a", "x" * 60_000), "a"),
    (osc("/timbred/generate", "a", "pad", "@inline", 1), "a"),
    (osc("/timbred/generate", "a", "pad", "@to", "none"), "a"),
    (pad_string(b"/timbred/generate") + pad_string(b",ss") + pad_string(b"a") + pad_string(b"\xff"), "a"),
    (pad_string(b"/timbred/load") + pad_string(b",b") + struct.pack(">i", -1), "load"),
    (bundle(1, osc("/timbred/ping"))[:-2], "osc"),
    (b"not osc", "osc"),
    (b"", "osc"),
    (bundle(1, bundle(1, bundle(1, bundle(1, bundle(1, bundle(1, bundle(1, bundle(1, bundle(1))))))))), "osc"),
    (bundle(ahead(3600), osc("/timbred/generate", "a", "pad")), "a"),
]


async def test_osc_bad_datagrams_are_answered_and_others_undisturbed(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.udp() as bad, stage.udp() as good:
        for packet, place in BAD:
            bad.send_raw(packet)
            assert (await bad.receive())[:3] == ("fail", place, "bad-request")
            assert await good.ask("/timbred/ping") == ("pong",)
        assert stage.daemon.received == []


async def test_osc_bad_frames_are_answered_and_the_stream_continues(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.tcp() as host, stage.udp() as other:
        for packet, place in BAD:
            if packet:
                host.writer.write(encode_slip(packet))
                assert (await host.receive())[:3] == ("fail", place, "bad-request")
        host.writer.write(encode_slip(osc("/timbred/generate", "a", "x" * 100_000)))
        assert (await host.receive())[:3] == ("fail", "a", "bad-request")
        for raw in (b"/a\xdb\x01" + SLIP_END, b"x" * (2 << 20)):
            host.writer.write(raw)
            assert (await host.receive())[:3] == ("fail", "osc", "bad-request")
        host.writer.write(SLIP_END + osc("/timbred/ping") + SLIP_END + osc("/timbred/ping") + SLIP_END + SLIP_END)
        assert await events(host, 2) == [("pong",)] * 2
        assert await other.ask("/timbred/ping") == ("pong",)


async def test_osc_answers_to_a_closed_port_do_no_harm(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        async with stage.udp() as gone:
            nobody = gone.port
        async with stage.udp() as host:
            for _ in range(20):
                host.send("/timbred/ping", "@port", nobody)
                assert await host.ask("/timbred/ping") == ("pong",)


async def test_osc_fault_in_the_daemon_is_a_fail(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.udp() as host:
        assert (await host.ask("/timbred/unload", "pocket"))[:3] == ("fail", "unload", "internal")


async def test_osc_answer_that_is_sent_back_is_ignored(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.udp() as host:
        for name in ("fail", "done", "pong"):
            host.send(f"/timbred/{name}", "a", "bad-request", "no")
        assert await host.ask("/timbred/ping") == ("pong",)
        host.send("/timbred/ping", "@port", stage.ports.osc)
        assert await host.ask("/timbred/sync", 1) == ("synced", 1)


async def test_osc_time_tags_are_kept_and_sync_waits_for_them(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.udp() as host, stage.udp() as other:
        host.send_raw(bundle(ahead(0.2), osc("/timbred/status")))
        host.send("/timbred/sync", 1)
        assert await other.ask("/timbred/sync", 2) == ("synced", 2)
        assert [one[0] for one in await events(host, 2)] == ["status.reply", "synced"]
        host.send_raw(bundle(ahead(-5), osc("/timbred/ping"), osc("/timbred/sync", 3)))
        assert await events(host, 2) == [("pong",), ("synced", 3)]


async def test_osc_listeners_hear_every_event_once(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.udp() as listener, stage.tcp() as asker:
        assert await listener.ask("/timbred/notify", 1) == ("done", "notify")
        await asker.ask("/timbred/ping")
        asker.send("/timbred/generate", "a", "pad")
        assert [one[0] for one in await events(listener, 4)] == GENERATED
        listener.send("/timbred/generate", "b", "pad")
        assert [one[:2] for one in await events(listener, 4)] == [(name, "b") for name in GENERATED]
        assert await listener.ask("/timbred/notify", 0) == ("done", "notify")
        asker.send("/timbred/generate", "c", "pad")
        assert (await events(asker, 8))[-1][:2] == ("done", "c")
        assert await listener.ask("/timbred/ping") == ("pong",)


async def test_osc_listings_come_one_by_one(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.udp() as host:
        host.send("/timbred/models")
        assert [one[:3] for one in await events(host, 2)] == [("model", "pocket", "resident")] * 2
        host.send("/timbred/takes")
        assert [one[0] for one in await events(host, 3)] == ["take", "take", "done"]


async def test_osc_flood_of_requests_is_received_whole(tmp_path: Path) -> None:
    count = 3000

    async with staged(tmp_path) as stage, stage.udp() as host:
        for number in range(count):
            host.send("/timbred/play", 1, f"take{number}")
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert await host.ask("/timbred/sync", 1) == ("synced", 1)
        takes = [cast("m.Play", request).take for _, request in stage.daemon.received]
        assert takes == [f"take{number}" for number in range(count)]


async def test_osc_client_that_closed_its_sending_side_hears_the_end(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.tcp() as host:
        host.send("/timbred/generate", "a", "wait")
        await events(host, 2)
        host.writer.write_eof()
        stage.daemon.finish()
        assert [one[0] for one in await events(host, 2)] == ["take", "done"]
        assert await host.reader.read() == b""


def open_files() -> int:
    """How many this process has; 0 where the system doesn't tell."""
    listed = Path("/proc/self/fd")
    return len(list(listed.iterdir())) if listed.exists() else 0


async def test_osc_connections_open_and_close_without_leaks(tmp_path: Path) -> None:
    before = open_files()
    async with staged(tmp_path) as stage:
        for _ in range(3):
            made = [await asyncio.open_connection("127.0.0.1", stage.ports.osc) for _ in range(60)]
            hosts = [TcpHost(*one) for one in made]
            for host in hosts:
                host.send("/timbred/ping")
            assert [await host.receive() for host in hosts] == [("pong",)] * 60
            for number, host in enumerate(hosts):
                if number % 2:
                    host.writer.transport.abort()
                else:
                    host.writer.close()
        async with stage.tcp() as last:
            assert await last.ask("/timbred/ping") == ("pong",)
    assert open_files() <= before + 2


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_osc_events_at_the_end_arrive(tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timbred.protocol.osc.MAX_TIME_TAG_AHEAD_S", 2 * TIMEOUT_S)
    async with staged(tmp_path) as stage, stage.udp() if transport == "udp" else stage.tcp() as host:
        host.send("/timbred/generate", "a", "wait")
        await events(host, 2)
        host.send_raw(bundle(ahead(TIMEOUT_S), osc("/timbred/status")))
        await host.ask("/timbred/ping")
        stage.daemon.shut_down()
        await stage.transports.stop()
        said = await events(host, 2)
        assert [one[:3] for one in said] == [("fail", "a", "shutting-down"), ("fail", "status", "shutting-down")]


def test_osc_builder_and_parser_of_the_tests_agree() -> None:
    assert read_message(osc("/timbred/ping", 1, "a")) == ("ping", 1, "a")


async def test_osc_size_prefixed_packets_are_answered_in_kind(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.tcp() as host:
        host.writer.write(struct.pack(">i", 20) + osc("/timbred/ping"))
        (size,) = struct.unpack(">i", await host.reader.readexactly(4))
        assert read_message(await host.reader.readexactly(size)) == ("pong",)

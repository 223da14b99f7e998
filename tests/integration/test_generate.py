"""A sound over OSC: what is heard, in which order, with which types, and where."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.integration import clients, osc
from tests.integration.clients import SOUND, UdpClient, new_id, order
from tests.integration.daemons import DaemonProcess
from tests.integration.osc import Reply, Tagged


@pytest.mark.usefixtures("idle")
def test_generate_sends_its_events_in_order_with_their_types(client: UdpClient) -> None:
    client.say("generate", "a1", "warm analog pad", "@seconds", 0.5, "@steps", 3, "@seed", 7)
    events = client.until_end()
    assert order(events) == SOUND
    queued, started, *progress, take, done = events
    assert (queued.tags, queued.arguments[:2]) == ("sif", ("a1", 0))
    assert started == Reply("started", "ss", ("a1", "hollow"))
    assert {event.tags for event in progress} == {"sfiif"}
    assert [event.arguments[:4] for event in progress[-3:]] == [
        ("a1", pytest.approx(step / 3), step, 3) for step in (1, 2, 3)
    ]
    assert take.tags == "sisfiiifs"
    name, index, path, seconds, rate, channels, seed, score, take_id = take.arguments
    assert (name, index, seconds, rate, channels, seed, score) == ("a1", 0, 0.5, 48000, 1, 7, 0.0)
    assert take_id
    assert done == Reply("done", "sis", ("a1", 1, path))
    client.nothing_more()


def test_generate_sends_the_take_after_the_file_is_whole(client: UdpClient, daemon: DaemonProcess) -> None:
    client.say("generate", "whole", "warm pad", "@seconds", 0.5, "@steps", 1)
    *_, take = client.until("take")
    path = Path(str(take.arguments[2]))
    sound = soundfile.info(path)
    assert (sound.frames, sound.samplerate, sound.subtype) == (24000, 48000, "PCM_24")
    assert path.is_absolute()
    assert path.is_relative_to(daemon.takes)
    client.until_end("whole")


def test_generate_counts_several_takes_with_a_file_and_seed_each(client: UdpClient) -> None:
    client.say("generate", "three", "warm pad", "@takes", 3, "@seed", 40, "@seconds", 0.2, "@steps", 1)
    events = client.until_end()
    assert order(events) == SOUND
    takes = [event for event in events if event.name == "take"]
    assert [take.arguments[1] for take in takes] == [0, 1, 2]
    assert [take.arguments[6] for take in takes] == [40, 41, 42]
    paths = [take.arguments[2] for take in takes]
    assert len(set(paths)) == 3
    assert events[-1].arguments == ("three", 3, paths[0])


def test_generate_returns_an_id_as_it_was_sent(client: UdpClient) -> None:
    client.say("generate", 12, "warm pad", "@seconds", 0.2, "@steps", 1)
    events = client.until_end()
    assert {event.id for event in events} == {12}
    assert {event.tags[0] for event in events} == {"i"}


def test_generate_accepts_numbers_and_booleans_of_every_osc_type(client: UdpClient) -> None:
    client.say(
        "generate", "types", "warm", Tagged("h", 808), "kick", "@seconds", Tagged("d", 0.25), "@steps", "2",
        "@seed", Tagged("h", 3), "@trim", False, "@exact", "yes", "@guidance", 2,
    )  # fmt: skip
    *_, take, done = client.until_end()
    assert (take.arguments[3], take.arguments[6]) == (0.25, 3)
    assert "warm-808-kick" in Path(str(done.arguments[2])).name


def test_generate_reads_values_up_to_the_next_key(client: UdpClient) -> None:
    client.say("generate", "run", "bell", "@name", "my", "big", "bell", "@seconds", 0.2, "@steps", 1)
    assert Path(str(client.until_end()[-1].arguments[2])).name.startswith("my-big-bell")


def test_generate_writes_files_in_the_requested_format(client: UdpClient, daemon: DaemonProcess) -> None:
    for kind, subtype, options in (
        ("wav", "PCM_16", ("@bits", 16, "@rate", 44100, "@channels", 2)),
        ("wav", "FLOAT", ("@bits", 32, "@rate", 96000)),
        ("flac", "PCM_24", ()),
        ("aiff", "PCM_24", ()),
        ("ogg", "VORBIS", ()),
    ):
        take = client.make_take("bell", "@format", kind, "@folder", "kinds/of files", *options)
        path = Path(str(take.arguments[2]))
        found = soundfile.info(path)
        assert (path.suffix, found.subtype) == (f".{kind}", subtype)
        assert path.parent == daemon.takes / "kinds" / "of files"
        assert (found.samplerate, found.channels) == take.arguments[4:6]


def test_generate_counts_bars_in_the_tempo(client: UdpClient) -> None:
    take = client.make_take("beat")
    assert take.arguments[3] == pytest.approx(0.2)
    client.say("generate", "bars", "beat", "@bars", 1, "@bpm", 240, "@beats_per_bar", 3, "@loop", 1, "@steps", 1)
    *_, take, _ = client.until_end()
    assert take.arguments[3] == pytest.approx(0.75)


def test_generate_repeats_a_sound_for_its_seed_and_varies_without_one(client: UdpClient) -> None:
    first, again = (client.make_take("pad", "@seed", 5) for _ in range(2))
    assert Path(str(first.arguments[2])) != Path(str(again.arguments[2]))
    one, two = (soundfile.read(str(take.arguments[2]))[0] for take in (first, again))
    assert (one == two).all()
    seeds = {client.make_take("pad").arguments[6] for _ in range(3)}
    assert len(seeds) == 3
    assert all(0 <= int(seed) <= 2147483647 for seed in seeds)


def test_generate_reaches_the_requested_peak(client: UdpClient) -> None:
    take = client.make_take("pad", "@peak", -6.0, "@fade_in", 0, "@fade_out", 0)
    loudest = abs(soundfile.read(str(take.arguments[2]))[0]).max()
    assert 20 * math.log10(loudest) == pytest.approx(-6.0, abs=0.1)


def test_generate_answers_to_the_port_that_the_request_names(
    daemon: DaemonProcess, client: UdpClient, other: UdpClient
):
    client.say("generate", "there", "pad", "@seconds", 0.2, "@steps", 1, "@port", other.port)
    assert order(other.until_end()) == SOUND
    client.nothing_more()
    client.say("ping", "@port", other.port)
    assert other.receive() == Reply("pong", "", ())
    client.say("generate", "there2", "pad", "@seconds", -1, "@port", other.port)
    assert other.receive().arguments[:2] == ("there2", "bad-request")
    client.nothing_more()


def test_hello_redirects_all_answers_and_names_the_daemon(
    daemon: DaemonProcess, client: UdpClient, other: UdpClient
) -> None:
    client.say("hello", "max", "@port", other.port)
    welcome = other.receive()
    assert (welcome.name, welcome.tags) == ("welcome", "ssi")
    assert welcome.arguments[2] == daemon.http
    client.say("generate", "moved", "pad", "@seconds", 0.2, "@steps", 1)
    assert order(other.until_end()) == SOUND
    client.say("hello", "max")
    assert client.receive().name == "welcome"
    client.nothing_more()


def test_generate_takes_requests_of_one_bundle_in_order(client: UdpClient) -> None:
    packet = osc.bundle(
        osc.message("/timbred/ping"),
        osc.bundle(osc.message("/timbred/sync", 1), osc.message("/timbred/generate", "bundled", "")),
        osc.message("/timbred/sync", 2),
    )
    client.send_packet(packet)
    received = [client.receive() for _ in range(4)]
    assert [event.name for event in received] == ["pong", "synced", "fail", "synced"]


def test_vary_takes_a_take_by_its_id_or_its_file(client: UdpClient) -> None:
    take = client.make_take("dark", "bell", "@seed", 9, "@rate", 44100)
    path, take_id = take.arguments[2], take.arguments[8]
    for source in (take_id, path):
        name = new_id()
        client.say("vary", name, source, "@seed", 10)
        events = client.until_end(name)
        assert order(events) == SOUND
        varied = events[-2]
        assert (varied.arguments[4], varied.arguments[6]) == (44100, 10)
        assert varied.arguments[3] == pytest.approx(0.2)
        assert "dark-bell" in str(varied.arguments[2])
    client.say("vary", "words", take_id, "bright", "bell", "@seconds", 0.4)
    *_, varied, _ = client.until_end("words")
    assert (varied.arguments[3], varied.arguments[6]) == (pytest.approx(0.4), 9)
    assert "bright-bell" in str(varied.arguments[2])


def test_vary_refuses_a_file_without_a_recipe(client: UdpClient, daemon: DaemonProcess) -> None:
    for name, content in (("plain.wav", None), ("text.wav", b"no sound at all"), ("empty.wav", b"")):
        path = daemon.takes / name
        if content is None:
            soundfile.write(path, np.zeros(100, np.float32), 48000)
        else:
            path.write_bytes(content)
        answer = client.ask("vary", name, str(path))
        assert answer.arguments[:2] == (name, "bad-audio")
        assert name in str(answer.arguments[2])


def test_vary_refuses_an_unknown_take(client: UdpClient) -> None:
    assert client.ask("vary", "gone", "nosuchtake").arguments[:2] == ("gone", "bad-request")
    assert client.ask("vary", "outside", "/etc/passwd").arguments[:2] == ("outside", "forbidden-path")


def test_generate_over_tcp_answers_on_the_same_connection(daemon: DaemonProcess) -> None:
    with clients.tcp(daemon.osc) as client:
        assert client.ask("hello", "node").name == "welcome"
        client.say("generate", "tcp", "warm pad", "@seconds", 0.2, "@steps", 2)
        assert order(client.until_end()) == SOUND
        client.nothing_more()

"""Whatever is sent: `fail` with what was wrong and what is allowed, and another client's sound goes on."""

import random
import struct
import time

import pytest

from tests.integration import clients, osc
from tests.integration.clients import UdpClient
from tests.integration.daemons import DaemonProcess
from tests.integration.osc import Reply, Tagged, Value

NTP_TO_UNIX = 2_208_988_800


pytestmark = pytest.mark.usefixtures("undisturbed")


REFUSED: dict[str, tuple[tuple[Value | Tagged, ...], tuple[str, ...]]] = {
    "unknown key": (("pad", "@sekunden", 4), ("sekunden", "seconds")),
    "key that is only an at": (("pad", "@"), ("no such key",)),
    "too long": (("pad", "@seconds", 4000), ("seconds", "4000", "600")),
    "too long for the model": (("pad", "@seconds", 599), ("seconds", "599", "60")),
    "negative length": (("pad", "@seconds", -1), ("seconds", "-1", "0.05")),
    "no length": (("pad", "@seconds"), ("seconds", "a number")),
    "length in words": (("pad", "@seconds", "four"), ("seconds", "four", "a number")),
    "not a number": (("pad", "@seconds", float("nan")), ("seconds", "nan", "a number")),
    "endless": (("pad", "@seconds", float("inf")), ("seconds", "inf", "a number")),
    "blob for a number": (("pad", "@seconds", b"1234"), ("seconds", "blob", "a number")),
    "yes for a number": (("pad", "@seconds", True), ("seconds", "a number")),
    "half a step": (("pad", "@steps", 2.5), ("steps", "2.5", "a whole number")),
    "too many steps": (("pad", "@steps", 100000), ("steps", "100000", "1000")),
    "too many takes": (("pad", "@takes", 1000), ("takes", "1000", "16")),
    "seed below": (("pad", "@seed", -5), ("seed", "-5", "2147483647")),
    "seed above": (("pad", "@seed", Tagged("h", 2**31)), ("seed", "2147483648", "2147483647")),
    "unknown scheduler": (("pad", "@scheduler", "magic"), ("scheduler", "magic", "ddim")),
    "unknown format": (("pad", "@format", "mp3"), ("format", "mp3", "wav")),
    "bits nobody has": (("pad", "@bits", 23), ("bits", "23", "24")),
    "bits that flac has not": (("pad", "@format", "flac", "@bits", 32), ("bits", "flac")),
    "rate too low": (("pad", "@rate", 10), ("rate", "10", "8000")),
    "six channels": (("pad", "@channels", 6), ("channels", "6", "1, 2")),
    "too loud": (("pad", "@peak", 3), ("peak", "3", "0")),
    "maybe": (("pad", "@loop", "maybe"), ("loop", "maybe", "0 or 1")),
    "two lengths": (("pad", "@seconds", 2, "@bars", 1), ("seconds", "bars")),
    "beats of a bar without bars": (("pad", "@beats_per_bar", 3), ("beats_per_bar", "bars")),
    "no tempo": (("pad", "@bpm", 0), ("bpm", "0", "from 20 to 999")),
    "no key": (("pad", "@key", "H", "minor"), ("key", "H minor", "A to G")),
    "no signature": (("pad", "@signature", "4/5"), ("signature", "4/5", "1, 2, 4, 8")),
    "fit to nothing": (("pad", "@fit", 1), ("fit", "bpm", "key")),
    "key twice": (("pad", "@seed", 1, "@seed", 2), ("seed", "twice")),
    "samples over OSC": (("pad", "@inline", 1), ("inline", "ZeroMQ")),
    "nowhere": (("pad", "@to", "none"), ("to", "none")),
    "play key on a file": (("pad", "@gain", -3), ("gain", "play")),
    "speech from one that does not speak": (("pad", "@transcription", "hello"), ("transcription", "speak")),
    "ranking by one that cannot": (("pad", "@rank", 1), ("rank", "hollow")),
    "no prompt": ((), ("prompt",)),
    "empty prompt": (("",), ("prompt",)),
    "blank prompt": (("  ", "\t"), ("prompt",)),
    "blob for a prompt": ((b"pad",), ("prompt", "blob")),
    "prompt with a blob in it": (("warm", b"pad"), ("prompt", "blob")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_of_a_value_is_refused_by_name(client: UdpClient, case: str) -> None:
    arguments, words = REFUSED[case]
    answer = client.ask("generate", case, *arguments)
    assert (answer.name, answer.tags, answer.arguments[:2]) == ("fail", "sss", (case, "bad-request"))
    for word in words:
        assert word in str(answer.arguments[2]), f"{word!r} should be named"
    client.nothing_more()


def test_bad_input_without_a_required_part_is_refused(client: UdpClient) -> None:
    for name, word in (("generate", "id"), ("vary", "id"), ("cancel", "id"), ("load", "model"), ("notify", "on"),
                       ("sync", "n"), ("tempo", "bpm"), ("play", "voice")):  # fmt: skip
        answer = client.ask(name)
        assert answer.arguments[:2] == (name, "bad-request")
        assert word in str(answer.arguments[2])
    assert client.ask("vary", "nothing").arguments[:2] == ("nothing", "bad-request")


def test_bad_input_with_too_many_arguments_is_refused(client: UdpClient) -> None:
    for name, *arguments in (("takes",), ("load", "pocket"), ("tempo", 120), ("sync", 1), ("notify", 1)):
        answer = client.ask(str(name), *arguments, "surplus")
        assert answer.arguments[:2] == (name, "bad-request")
        assert "surplus" in str(answer.arguments[2])


def test_bad_input_to_requests_without_arguments_is_ignored(client: UdpClient) -> None:
    assert client.ask("ping", "surplus", 1).name == "pong"
    assert client.ask("status", 1.0).name == "status.reply"


def test_bad_input_as_an_id_is_refused(client: UdpClient) -> None:
    for identity in (b"blob", 1.5, True, "x" * 5000, float("nan")):
        answer = client.ask("generate", identity, "pad", "@steps", 1)
        assert (answer.name, answer.arguments[1]) == ("fail", "bad-request"), identity
        assert "id" in str(answer.arguments[2])


def test_bad_input_to_an_unknown_address_is_refused(client: UdpClient) -> None:
    for address in (
        "/timbred/sing",
        "/timbred",
        "/timbred/",
        "/generate",
        "/",
        "/timbred/generate/now",
        "/*",
        "/\u00fc",
    ):
        client.send_packet(osc.message(address, "pad"))
        answer = client.receive()
        assert (answer.name, answer.arguments[1]) == ("fail", "bad-request")
        assert "generate" in str(answer.arguments[2]), "it lists those that there are"


def test_bad_input_of_a_long_prompt_is_refused(client: UdpClient, daemon: DaemonProcess) -> None:
    answer = client.ask("generate", "long", "x" * 60_000)
    assert answer.arguments[:2] == ("long", "bad-request")
    assert "2000" in str(answer.arguments[2])
    with clients.tcp(daemon.osc) as tcp:
        answer = tcp.ask("generate", "longer", "x" * 100_000)
        assert answer.arguments[:2] == ("longer", "bad-request")
        answer = tcp.ask("generate", "many", *(["word"] * 20_000))
        assert answer.arguments[:2] == ("many", "bad-request")


def test_bad_input_that_is_not_utf8_is_refused(client: UdpClient) -> None:
    for bad in (b"\xff\xfe\xfd", b"caf\xe9", b"\xed\xa0\x80", b"\xc0\xaf"):
        packet = osc.text("/timbred/generate") + osc.text(",ss") + osc.text("bytes") + osc.text(bad)
        client.send_packet(packet)
        answer = client.receive()
        assert answer.arguments[:2] == ("bytes", "bad-request")
        assert "UTF-8" in str(answer.arguments[2])


GENERATE = osc.message("/timbred/generate", "cut", "pad", "@seconds", 1)

BROKEN: dict[str, bytes] = {
    "one byte": b"x",
    "zeros": b"\x00" * 16,
    "no address": osc.text("timbred") + osc.text(",i"),
    "address without an end": b"/timbred/generate",
    "no type tags": osc.text("/timbred/generate") + osc.text("pad"),
    "cut inside a text": GENERATE[:-9],
    "cut inside a number": GENERATE[:-1],
    "blob of minus one": osc.text("/timbred/generate") + osc.text(",sb") + osc.text("b") + struct.pack(">i", -1),
    "blob of two gigabytes": osc.text("/timbred/generate") + osc.text(",b") + struct.pack(">i", 2**31 - 1),
    "unknown type": osc.text("/timbred/generate") + osc.text(",sQ") + osc.text("a"),
    "array without an end": osc.text("/timbred/generate") + osc.text(",s[[[[") + osc.text("a"),
    "bundle of nothing but a name": osc.text("#bundle"),
    "bundle with half a time tag": osc.text("#bundle") + b"\x00\x00\x00",
    "bundle with half a size": osc.bundle() + b"\x00\x00",
    "bundle with a negative size": osc.bundle() + struct.pack(">i", -8) + b"12345678",
    "bundle with too big a size": osc.bundle() + struct.pack(">i", 1000) + b"12345678",
    "bundle cut short": osc.bundle(GENERATE)[:-8],
}


@pytest.mark.parametrize("case", BROKEN)
def test_bad_input_that_is_no_osc_is_refused(client: UdpClient, daemon: DaemonProcess, case: str) -> None:
    client.send_packet(BROKEN[case])
    assert_refused(client.receive())
    client.nothing_more()
    with clients.tcp(daemon.osc) as tcp:
        tcp.ask("ping")
        tcp.send_packet(BROKEN[case])
        assert_refused(tcp.receive())
        tcp.nothing_more()


def assert_refused(answer: Reply) -> None:
    assert (answer.name, answer.tags[1:], answer.arguments[1]) == ("fail", "ss", "bad-request")
    assert answer.arguments[2]


def test_bad_input_of_nested_bundles_is_refused(client: UdpClient) -> None:
    nested = osc.message("/timbred/ping")
    for _ in range(2000):
        nested = osc.bundle(nested)
    client.send_packet(nested)
    answer = client.receive()
    assert_refused(answer)
    assert "deep" in str(answer.arguments[2])
    client.nothing_more()


def test_bad_input_of_a_far_time_tag_is_refused_and_others_are_kept(client: UdpClient) -> None:
    def at(seconds: float) -> int:
        return int((time.time() + NTP_TO_UNIX + seconds) * 2**32)

    ping = osc.message("/timbred/ping")
    for past in (at(-3600), 0, at(-0.1)):
        client.send_packet(osc.bundle(ping, time_tag=past))
        assert client.receive().name == "pong"
    for future in (at(3600), 2**64 - 1):
        client.send_packet(osc.bundle(ping, time_tag=future))
        answer = client.receive()
        assert_refused(answer)
        assert "time tag" in str(answer.arguments[2])
    overtaken = False
    while not overtaken:  # by a status in time, nobody waits for a time tag
        client.send_packet(osc.bundle(ping, time_tag=at(0.9)))
        heard = [client.ask("status").name, client.receive().name]
        assert sorted(heard) == ["pong", "status.reply"]
        overtaken = heard == ["status.reply", "pong"]


def test_bad_input_leaves_its_id_free_for_the_corrected_request(client: UdpClient) -> None:
    assert client.ask("generate", "again", "pad", "@seconds", -1).arguments[:2] == ("again", "bad-request")
    assert client.ask("generate", "again", "pad", "@seconds", 1).name == "queued"
    assert client.ask("cancel", "again") == Reply("cancelled", "s", ("again",))


def test_bad_input_in_slip_streams_leaves_valid_frames_answered(daemon: DaemonProcess) -> None:
    ping = osc.message("/timbred/ping")
    with clients.tcp(daemon.osc) as tcp:
        tcp.send_bytes(b"\xc0" * 1000)
        tcp.nothing_more()
        tcp.send_bytes(ping + b"\xc0")
        assert tcp.receive().name == "pong", "an END before a frame may be left out"
        for bad in (b"\xdb", b"\xdbx", b"\xdb\xdb", ping + b"\xdb"):
            tcp.send_bytes(b"\xc0" + bad + b"\xc0")
            assert_refused(tcp.receive())
        for byte in b"\xc0" + ping + b"\xc0":
            tcp.send_bytes(bytes([byte]))
        assert tcp.receive().name == "pong"
        tcp.send_bytes(b"\xc0" + ping + b"\xc0" + ping + b"\xc0\xc0" + ping + b"\xc0")
        assert [tcp.receive().name for _ in range(3)] == ["pong"] * 3
        tcp.send_bytes(b"\xc0" + ping[:5])
    with clients.tcp(daemon.osc) as tcp:
        tcp.send_bytes(b"\xc0" + b"x" * (3 << 20) + b"\xc0")
        assert_refused(tcp.receive())
        tcp.nothing_more()
        tcp.send_bytes(b"GET / HTTP/1.1\r\n\r\n\xc0")
        assert_refused(tcp.receive())


def test_bad_input_of_damaged_packets_leaves_the_daemon_answering(client: UdpClient, daemon: DaemonProcess) -> None:
    source = random.Random(7)
    with clients.tcp(daemon.osc) as tcp:
        for number in range(300):
            packet = bytearray(osc.bundle(GENERATE) if source.random() < 0.5 else GENERATE)
            for _ in range(source.randint(1, 12)):
                packet[source.randrange(len(packet))] = source.randrange(256)
            client.send_packet(bytes(packet))
            tcp.send_bytes(bytes(packet))
            if number % 30 == 0:  # read the answers, before they fill the socket's buffer and the last one is lost
                client.say("sync", -2 - number)
                assert client.until("synced", id=-2 - number)
        client.say("cancel", "*")
        client.say("sync", -1)
        assert client.until("synced", id=-1)
    with clients.udp(daemon.osc) as fresh:
        fresh.nothing_more()

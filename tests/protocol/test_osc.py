"""OSC requests as hosts send them, and events as they hear them."""

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

from timbred.errors import BadRequest
from timbred.protocol import messages as m
from timbred.protocol.boundary import Incoming
from timbred.protocol.osc import MAX_DATAGRAM_BYTES, MAX_PATTERN_ADDRESSES, encode_event, read_datagram
from timbred.protocol.osc_packets import pad_string
from timbred.protocol.schema import EVENT_NAMES, REQUESTS

NOW = 1_800_000_000.0


def packet(address: str, *arguments: object) -> bytes:
    builder = OscMessageBuilder(address)
    for argument in arguments:
        builder.add_arg(argument)  # pyright: ignore[reportArgumentType]
    return builder.build().dgram


def read_one(address: str, *arguments: object) -> Incoming:
    (incoming,) = read_datagram(packet(address, *arguments), NOW)
    return incoming


def accepted(address: str, *arguments: object) -> m.Request:
    outcome = read_one(address, *arguments).outcome
    assert isinstance(outcome, m.Request), outcome
    return outcome


PAD = m.Generate(id=3, prompt="808 kick", seconds=2.5, seed=7, negative="low quality 2")


@pytest.mark.parametrize(
    "arguments",
    [
        # Pd: symbols and floats
        (3.0, 808.0, "kick", "@seconds", 2.5, "@seed", 7.0, "@negative", "low", "quality", 2.0),
        # Max: ints and a quoted symbol
        (3, "808 kick", "@seconds", 2.5, "@seed", 7, "@negative", "low quality 2"),
        # TouchDesigner, oscsend: everything is text where one likes
        (3, "808", "kick", "@seconds", "2.5", "@seed", "7", "@negative", "low quality", "2"),
        # the prompt as a key
        (3, "@seed", 7, "@prompt", "808", "kick", "@negative", "low quality 2", "@seconds", 2.5),
    ],
)
def test_read_datagram_gives_equal_requests_for_every_host(arguments: Sequence[object]) -> None:
    assert accepted("/timbred/generate", *arguments) == PAD


def test_read_datagram_accepts_wide_numbers_and_booleans() -> None:
    builder = OscMessageBuilder("/timbred/generate")
    for tag, value in [("s", "a"), ("s", "pad"), ("s", "@seed"), ("h", 7), ("s", "@seconds"), ("d", 0.5)]:
        builder.add_arg(value, tag)  # pyright: ignore[reportArgumentType]
    for key, tag in [("@loop", "T"), ("@trim", "F")]:
        builder.add_arg(key)
        builder.add_arg(tag == "T", tag)
    (incoming,) = read_datagram(builder.build().dgram)
    assert incoming.outcome == m.Generate(id="a", prompt="pad", seed=7, seconds=0.5, loop=True, trim=False)


def test_read_datagram_accepts_other_layouts() -> None:
    assert accepted("/timbred/vary", "v", "take9", "@seed", 3) == m.Vary(id="v", take="take9", seed=3)
    assert accepted("/timbred/vary", "v", "take9", "a", "pad") == m.Vary(id="v", take="take9", prompt="a pad")
    assert accepted("/timbred/cancel", "*") == m.Cancel(id="*")
    assert accepted("/timbred/hello", "live", "@port", 9000) == m.Hello(name="live", port=9000)
    assert accepted("/timbred/notify", 1.0) == m.Notify(on=True)
    assert accepted("/timbred/load", "@name", "pocket") == m.Load(model="pocket")
    assert accepted("/timbred/takes", "@search", "warm", "pad", "@limit", 3.0) == m.Takes(search="warm pad", limit=3)
    assert accepted("/timbred/sync", 5.0) == m.Sync(n=5)
    assert accepted("/timbred/ping") == m.Ping()


REFUSED: list[tuple[tuple[object, ...], m.Id, str]] = [
    (("/timbred/sing", "a1"), "sing", "no request 'sing'"),
    (("/timbred/nothing/here",), "nothing/here", "nothing/here"),
    (("/timbred/",), "", "no request ''"),
    (("/foo/bar", 1), "/foo/bar", "/foo/bar"),
    (("/timbred/generate",), "generate", "id"),
    (("/timbred/generate", "a1"), "a1", "prompt"),
    (("/timbred/generate", "a1", ""), "a1", "prompt"),
    (("/timbred/generate", "a1", "x" * 100_000), "a1", "2000"),
    (("/timbred/generate", "a1", "pad", "@secnods", 4), "a1", "secnods"),
    (("/timbred/generate", "a1", "pad", "@", 4), "a1", "no such key"),
    (("/timbred/generate", "a1", "pad", "@seconds", "long"), "a1", "seconds: got 'long'"),
    (("/timbred/generate", "a1", "pad", "@seconds", 601), "a1", "from 0.05 to 600"),
    (("/timbred/generate", "a1", "pad", "@seconds", float("nan")), "a1", "seconds"),
    (("/timbred/generate", "a1", "pad", "@seconds"), "a1", "no value after @seconds"),
    (("/timbred/generate", "a1", "pad", "@seed", 1, "@seed", 2), "a1", "given twice"),
    (("/timbred/generate", "a1", "pad", "@prompt", "x"), "a1", "given twice"),
    (("/timbred/generate", "a1", "pad", "@seed", 1.5), "a1", "seed: got 1.5"),
    (("/timbred/generate", "a1", "pad", "@seed", b"xx"), "a1", "seed: got a blob of 2 bytes"),
    (("/timbred/generate", "a1", [1, 2]), "a1", "prompt: got an array"),
    (("/timbred/generate", "a1", "pad", None), "a1", "prompt: got nil"),
    (("/timbred/generate", "a1", "pad", True), "a1", "prompt: got True"),
    (("/timbred/generate", "a1", "pad", "@seed", (0, 144, 64, 127)), "a1", "seed: got a MIDI message"),
    (("/timbred/generate", 1.5, "pad"), "1.5", "id"),
    (("/timbred/generate", b"id", "pad"), "generate", "id: got a blob"),
    (("/timbred/models", "@limit", 1), "models", "limit: models has no such key"),
    (("/timbred/takes", "kick"), "takes", "too many"),
    (("/timbred/generate", "a1", "kick drum @secnods 0.3"), "a1", "secnods: generate has no such key"),
    (("/timbred/generate", "a1", "dinner @ eight"), "a1", "goes into double quotes"),
    (("/timbred/generate", "a1", "kick @seconds"), "a1", "no value after @seconds"),
    (("/timbred/generate", "a1", "kick @seed 1", "@seed", 2), "a1", "given twice"),
    (("/timbred/generate", "a1", '"kick"', '"@seconds"', '"0.3"'), "a1", "seconds: '\"@seconds\"' is ambiguous"),
    (("/timbred/{ping", "a1"), "{ping", "{ isn't closed"),
    (("/timbred/p*x",), "p*x", "no address matches"),
    (("/timbred/gen*", "a1", "pad"), "generate", "it takes an id"),
    (("/timbred/" + "?" * 300,), "?" * 200, "309 characters; at most 256 are allowed"),
    (("/timbred/load",), "load", "model"),
    (("/timbred/cancel", "a1", "a2"), "cancel", "too many"),
    (("/timbred/hello", "me", "@port", 0), "hello", "port"),
    (("/timbred/tempo", "fast"), "tempo", "bpm: got 'fast'"),
]


@pytest.mark.parametrize(("sent", "place", "said"), REFUSED)
def test_read_datagram_refusal_names_what_is_wrong(
    sent: tuple[str, *tuple[object, ...]], place: m.Id, said: str
) -> None:
    incoming = read_one(*sent)
    assert isinstance(incoming.outcome, BadRequest), incoming.outcome
    assert said in incoming.outcome.message
    assert incoming.id == place
    assert len(incoming.outcome.message) < 1000


@pytest.mark.parametrize(
    "arguments",
    [
        ("kick drum @seconds 0.3 @seed 7",),
        ("kick drum", "@seconds 0.3 @seed 7"),
        ("kick drum @seconds", 0.3, "@seed", 7),
        ("kick", "drum @seconds 0.3", " @seed 7"),
        ("  kick drum  @seconds   0.3 @seed 7\n",),
    ],
)
def test_read_datagram_finds_keys_inside_one_string(arguments: Sequence[object]) -> None:
    found = accepted("/timbred/generate", "a1", *arguments)
    assert isinstance(found, m.Generate)
    assert (found.prompt, found.seed) == ("kick drum", 7)
    assert found.seconds == pytest.approx(0.3)  # pyright: ignore[reportUnknownMemberType]


def test_read_datagram_finds_keys_inside_one_string_of_other_requests() -> None:
    assert accepted("/timbred/flow", 1, "rain @fade 3") == m.Flow(voice=1, prompt="rain", fade=3)
    assert accepted("/timbred/flow", "1 @fade 3 @prompt rain") == m.Flow(voice=1, prompt="rain", fade=3)
    assert accepted("/timbred/vary", "v", "take9 @seed 3") == m.Vary(id="v", take="take9", seed=3)
    assert accepted("/timbred/play", 1, "take9 @gain -6 @loop 1") == m.Play(voice=1, take="take9", gain=-6, loop=True)
    assert accepted("/timbred/takes", "@search warm pad @limit 3") == m.Takes(search="warm pad", limit=3)
    assert accepted("/timbred/load", "pocket @port 9000") == m.Load(model="pocket", port=9000)
    assert read_one("/timbred/nothing", "x @port 9000").port == 9000


def test_read_datagram_accepts_paths_with_at_words_that_are_no_keys() -> None:
    path = "/samples/kick @120 bpm/one.wav"
    assert accepted("/timbred/play", 1, path) == m.Play(voice=1, take=path)
    assert accepted("/timbred/play", 1, path + " @gain -6") == m.Play(voice=1, take=path, gain=-6)
    assert accepted("/timbred/generate", "a", "x", "@init", path) == m.Generate(id="a", prompt="x", init=path)


def test_read_datagram_accepts_an_id_with_an_at_sign() -> None:
    assert accepted("/timbred/generate", "live @seed set", "pad").id == "live @seed set"  # pyright: ignore[reportAttributeAccessIssue]
    assert accepted("/timbred/cancel", "live @seed set") == m.Cancel(id="live @seed set")


@pytest.mark.parametrize(
    "arguments",
    [('"dinner @ eight @seconds"',), ('"dinner', "@", "eight", '@seconds"'), ('"dinner @', 'eight @seconds"')],
)
def test_read_datagram_treats_a_quoted_at_sign_as_text(arguments: Sequence[object]) -> None:
    found = accepted("/timbred/generate", "a1", *arguments, "@seed", 7)
    assert found == m.Generate(id="a1", prompt="dinner @ eight @seconds", seed=7)


def test_read_datagram_keeps_quotes_that_protect_nothing() -> None:
    for prompt in ('a "bright" bell', '12" snare', '"open', 'the "end', 'a@b "c"'):
        found = accepted("/timbred/generate", "a1", prompt, "@seed", 7)
        assert found == m.Generate(id="a1", prompt=prompt, seed=7)


@pytest.mark.parametrize("extra", [1, 1.0, "bang", b"blob", None, True])
@pytest.mark.parametrize(("name", "request_"), [("ping", m.Ping()), ("status", m.Status()), ("models", m.Models())])
def test_read_datagram_ignores_arguments_of_requests_without_any(name: str, request_: m.Request, extra: object) -> None:
    assert accepted(f"/timbred/{name}", extra, extra) == request_


def _outcomes(address: str, *arguments: object) -> list[m.Request | BadRequest]:
    return [incoming.outcome for incoming in read_datagram(packet(address, *arguments), NOW)]


def test_read_datagram_expands_an_address_pattern_to_every_match() -> None:
    assert _outcomes("/timbred/{ping,status}") == [m.Status(), m.Ping()]
    assert _outcomes("/timbred/pin?") == [m.Ping()]
    assert _outcomes("/*/p[h-j]ng") == [m.Ping()]
    assert _outcomes("/timbred/settings/temp*") == [m.Setting(name="tempo")]
    assert _outcomes("/timbred/settings/{tempo,beats_per_bar}", 3) == [
        m.Setting(name="tempo", value="3"),
        m.Setting(name="beats_per_bar", value="3"),
    ]


def test_read_datagram_refuses_patterns_only_for_requests_with_an_id() -> None:
    found = read_datagram(packet("/timbred/*"), NOW)
    refused = {incoming.id for incoming in found if isinstance(incoming.outcome, BadRequest)}
    assert {"generate", "vary", "cancel"} <= refused
    assert refused.isdisjoint({"ping", "status", "models", "takes", "hello"})
    assert len(found) == sum(entry.kind is not m.Setting for entry in REQUESTS)


def test_read_datagram_bounds_the_addresses_of_patterns_in_a_packet() -> None:
    message = packet("/timbred/settings/*")
    bundle = b"#bundle\x00" + struct.pack(">Q", 1) + (struct.pack(">i", len(message)) + message) * 1000
    found = read_datagram(bundle, NOW)
    assert len(found) <= MAX_PATTERN_ADDRESSES + 1
    assert isinstance(found[-1].outcome, BadRequest)


def test_read_datagram_names_text_that_is_not_utf8() -> None:
    raw = (
        pad_string(b"/timbred/generate")
        + pad_string(b",sss")
        + pad_string(b"a1")
        + pad_string(b"pad")
        + pad_string(b"\xff\xfe")
    )
    (incoming,) = read_datagram(raw)
    assert incoming.id == "a1"
    assert "prompt: got text that isn't UTF-8" in str(incoming.outcome)


def test_read_datagram_refuses_a_truncated_message_under_its_id() -> None:
    whole = packet("/timbred/generate", "a1", "warm pad", "@seconds", 4.0)
    for end in range(len(whole) - 4, 44, -4):
        (incoming,) = read_datagram(whole[:end])
        assert isinstance(incoming.outcome, BadRequest)
        assert incoming.id in ("a1", "generate")


@pytest.mark.parametrize("raw", [b"", b"\x00", b"hello", b"\xff" * 64, b"/no end", b"#bundle\x00", b"#bundle"])
def test_read_datagram_refuses_what_is_no_osc(raw: bytes) -> None:
    (incoming,) = read_datagram(raw)
    assert isinstance(incoming.outcome, BadRequest)
    assert incoming.id == "osc"


def test_read_datagram_refusal_has_the_reply_port_of_the_request() -> None:
    assert read_one("/timbred/generate", "a1", "pad", "@bogus", 1, "@port", 9001).port == 9001
    assert read_one("/timbred/nothing", "@port", 9001.0).port == 9001
    assert read_one("/timbred/ping", "@port", 99999).port is None


@pytest.mark.parametrize("name", sorted(EVENT_NAMES))
def test_read_datagram_ignores_timbreds_own_events(name: str) -> None:
    assert read_datagram(packet(f"/timbred/{name}", "a1", "bad-request", "no")) == []


def timed(ahead: float) -> Incoming:
    ntp = round((NOW + ahead + 2_208_988_800) * 2**32)
    ping = packet("/timbred/ping")
    (incoming,) = read_datagram(b"#bundle\x00" + struct.pack(">Q", ntp) + struct.pack(">i", len(ping)) + ping, NOW)
    return incoming


def test_read_datagram_reads_time_tags() -> None:
    assert timed(-5).due is None
    assert timed(0.5).due == pytest.approx(NOW + 0.5, abs=1e-3)
    refused = timed(3600).outcome
    assert isinstance(refused, BadRequest)
    assert "3600.0 s ahead, allowed is 1 s" in refused.message


@given(st.binary(max_size=200))
def test_read_datagram_refuses_any_bytes_without_an_exception(raw: bytes) -> None:
    read_datagram(raw)
    read_datagram(pad_string(b"/timbred/generate") + pad_string(b",sssf") + raw)


ARGUMENT = st.one_of(
    st.text(max_size=20), st.integers(-(2**31), 2**31 - 1), st.floats(width=32), st.booleans(), st.none()
)


@given(st.sampled_from(["generate", "vary", "play", "notify", "sync"]), st.lists(ARGUMENT, max_size=10))
def test_read_datagram_refuses_any_arguments_without_an_exception(name: str, arguments: list[object]) -> None:
    arguments = [one.replace("\x00", "") if isinstance(one, str) else one for one in arguments]
    assert len(read_datagram(packet(f"/timbred/{name}", *arguments))) == 1


def received(event: m.Event) -> tuple[str, list[object]]:
    read = OscMessage(encode_event(event))
    return read.address, list(read.params)


def test_encode_event_writes_fields_in_order() -> None:
    queued = m.Queued(id="a1", position=2, eta_s=1.5)
    assert received(queued) == ("/timbred/queued", ["a1", 2, 1.5])
    progress = m.Progress(id=3, fraction=0.5, step=1, steps=2, eta_s=0.25, stage="loading")
    assert received(progress) == ("/timbred/progress", [3, 0.5, 1, 2, 0.25])
    busy = m.Fail(id=3, code="busy", message="later", retry_after_s=2.0)
    assert received(busy) == ("/timbred/fail", [3, "busy", "later"])
    assert received(m.Pong()) == ("/timbred/pong", [])


def test_encode_event_writes_ids_beyond_32_bits_as_text() -> None:
    assert received(m.Cancelled(id=2**40)) == ("/timbred/cancelled", [str(2**40)])
    assert received(m.Cancelled(id=-(2**31))) == ("/timbred/cancelled", [-(2**31)])


def test_encode_event_writes_floats_too_large_for_osc_as_infinite() -> None:
    assert received(m.Queued(id=1, position=0, eta_s=1e300))[1] == [1, 0, float("inf")]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=2000, max_size=9000))
def test_encode_event_writes_at_most_8000_bytes(message: str) -> None:
    encoded = encode_event(m.Fail(id="x" * 200, code="bad-request", message=message))
    assert len(encoded) <= MAX_DATAGRAM_BYTES
    said = str(list(OscMessage(encoded).params)[2])
    clean = message.replace("\x00", "")
    assert said == clean or (said.endswith("…") and clean.startswith(said[:-1]))

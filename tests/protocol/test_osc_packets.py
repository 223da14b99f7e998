"""OSC bytes, against python-osc as an independent reader and writer, and against nonsense."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pythonosc.osc_bundle import OscBundle
from pythonosc.osc_bundle_builder import OscBundleBuilder
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

from timbred.protocol.osc_packets import (
    MAX_BUNDLE_DEPTH,
    MAX_BUNDLES_PER_PACKET,
    MAX_MESSAGES_PER_PACKET,
    UnsupportedArgument,
    pad_string,
    read_message,
    read_packet,
    write_message,
)

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40)
INTS = st.integers(-(2**31), 2**31 - 1)
FLOATS = st.floats(width=32, allow_nan=False)
ADDRESSES = st.from_regex(r"/[a-z]{1,10}(/[a-z]{1,10})?", fullmatch=True)


def message(address: str, *typed: tuple[str, object]) -> bytes:
    builder = OscMessageBuilder(address)
    for tag, value in typed:
        builder.add_arg(value, tag)  # pyright: ignore[reportArgumentType]
    return builder.build().dgram


def bundle(*elements: bytes, tag: int = 1) -> bytes:
    body = b"".join(struct.pack(">i", len(element)) + element for element in elements)
    return b"#bundle\x00" + struct.pack(">Q", tag) + body


@given(ADDRESSES, st.lists(st.one_of(TEXTS, INTS, FLOATS), max_size=12))
def test_write_message_is_read_by_python_osc(address: str, arguments: list[str | int | float]) -> None:
    read = OscMessage(write_message(address, arguments))
    assert read.address == address
    assert list(read.params) == arguments


@given(
    ADDRESSES,
    st.lists(
        st.one_of(
            st.tuples(st.just("s"), TEXTS),
            st.tuples(st.just("i"), INTS),
            st.tuples(st.just("h"), st.integers(-(2**63), 2**63 - 1)),
            st.tuples(st.just("f"), FLOATS),
            st.tuples(st.just("d"), st.floats(allow_nan=False)),
            st.sampled_from([("T", True), ("F", False)]),
        ),
        max_size=12,
    ),
)
def test_read_message_reads_what_python_osc_writes(address: str, typed: list[tuple[str, object]]) -> None:
    read = read_message(message(address, *typed))
    assert (read.address, read.fault) == (address, None)
    assert read.arguments == [value for _, value in typed]


ARGUMENTS = st.lists(st.one_of(TEXTS, INTS, FLOATS), max_size=12)
TAG_OF_TYPE = {str: "s", int: "i", float: "f"}


@given(ADDRESSES, ARGUMENTS)
def test_write_message_gives_the_bytes_of_python_osc(address: str, arguments: list[str | int | float]) -> None:
    typed = [(TAG_OF_TYPE[type(argument)], argument) for argument in arguments]
    assert write_message(address, arguments) == message(address, *typed)


@given(st.lists(st.tuples(ADDRESSES, ARGUMENTS), min_size=1, max_size=6), st.integers(1, 2_000_000_000))
def test_read_packet_reads_bundles_of_python_osc(sent: list[tuple[str, list[str | int | float]]], seconds: int) -> None:
    inner, outer = OscBundleBuilder(seconds), OscBundleBuilder(seconds)
    for address, arguments in sent:
        inner.add_content(OscMessage(write_message(address, arguments)))
    outer.add_content(inner.build())
    received = read_packet(outer.build().dgram)
    assert [(found.address, found.arguments, found.fault) for found in received] == [(*each, None) for each in sent]
    assert {found.time for found in received} == {float(seconds)}


@given(st.lists(st.tuples(ADDRESSES, ARGUMENTS), min_size=1, max_size=6))
def test_write_message_in_bundles_is_read_by_python_osc(sent: list[tuple[str, list[str | int | float]]]) -> None:
    received = OscBundle(bundle(*(write_message(address, arguments) for address, arguments in sent)))
    contents = [content for content in received if isinstance(content, OscMessage)]
    assert [(content.address, list(content.params)) for content in contents] == sent


@given(st.binary(max_size=300))
def test_read_packet_reads_any_bytes_without_an_exception(packet: bytes) -> None:
    for prefix in (b"", b"/a\x00\x00,", b"#bundle\x00" + b"\x00" * 8):
        assert len(read_packet(prefix + packet)) <= MAX_MESSAGES_PER_PACKET + 1


@pytest.mark.parametrize(
    ("tags", "body", "found"),
    [
        (",isi", struct.pack(">i", 1) + pad_string(b"a") + struct.pack(">i", 2), [1, "a", 2]),
        (
            ",bi",
            struct.pack(">i", 3) + b"abc\x00" + struct.pack(">i", 2),
            [UnsupportedArgument("a blob of 3 bytes"), 2],
        ),
        (
            ",[i[s]]i",
            struct.pack(">i", 1) + pad_string(b"x") + struct.pack(">i", 2),
            [UnsupportedArgument("an array"), 2],
        ),
        (",mi", b"\x00\x90\x40\x7f" + struct.pack(">i", 2), [UnsupportedArgument("a MIDI message"), 2]),
        (",Ni", struct.pack(">i", 2), [UnsupportedArgument("nil"), 2]),
        (",ti", b"\x00" * 8 + struct.pack(">i", 2), [UnsupportedArgument("a time tag"), 2]),
        (",si", pad_string(b"\xff\xfe") + struct.pack(">i", 2), [UnsupportedArgument("text that isn't UTF-8"), 2]),
    ],
)
def test_read_message_keeps_the_place_of_unusable_arguments(tags: str, body: bytes, found: list[object]) -> None:
    read = read_message(pad_string(b"/a") + pad_string(tags.encode()) + body)
    assert (read.arguments, read.fault) == (found, None)


@pytest.mark.parametrize(
    ("tags", "body", "fault"),
    [
        (",b", struct.pack(">i", -8), "a blob claims -8 bytes"),
        (",b", struct.pack(">i", 400), "cut off"),
        (",i", b"\x00\x00", "cut off"),
        (",s", b"abcd", "cut off"),
        (",x", b"", "type tag 'x'"),
        ("if", b"", "no type tags"),
        (",]", b"", "never opened"),
        (",[[", b"", "never closed"),
    ],
)
def test_read_packet_names_a_fault_and_keeps_what_came_before_it(tags: str, body: bytes, fault: str) -> None:
    tags = tags.replace(",", ",i") if tags.startswith(",") else tags
    read = read_message(pad_string(b"/a") + pad_string(tags.encode()) + struct.pack(">i", 7) + body)
    assert fault in (read.fault or "")
    assert read.arguments[:1] == ([7] if tags.startswith(",") else [])


def test_read_message_without_type_tags_has_no_arguments() -> None:
    assert read_message(pad_string(b"/timbred/ping")).fault is None


def test_read_packet_reads_bundles_in_order() -> None:
    ping = [pad_string(name) + pad_string(b",") for name in (b"/a", b"/b", b"/c", b"/d")]
    packet = bundle(ping[0], bundle(ping[1], ping[2]), ping[3])
    assert [read.address for read in read_packet(packet)] == ["/a", "/b", "/c", "/d"]


def test_read_packet_times_an_inner_bundle_no_earlier_than_the_outer_one() -> None:
    ping = pad_string(b"/a") + pad_string(b",")
    outer, inner = 4_000_000_000 << 32, 3_900_000_000 << 32
    found = read_packet(bundle(bundle(ping, tag=inner), ping, tag=outer))
    assert {read.time for read in found} == {4_000_000_000 - 2_208_988_800}


@pytest.mark.parametrize("size", [-4, 0, 3, 400, 2**31 - 1])
def test_read_packet_refuses_only_elements_of_impossible_size(size: int) -> None:
    broken = bundle() + struct.pack(">i", size) + b"\x00" * 4
    good = pad_string(b"/a") + pad_string(b",")
    found = read_packet(bundle(broken, good))
    assert "element claims" in (found[0].fault or "")
    assert found[1].address == "/a"


def test_read_packet_refuses_bundles_deeper_than_eight() -> None:
    packet = pad_string(b"/a") + pad_string(b",")
    for _ in range(MAX_BUNDLE_DEPTH):
        packet = bundle(packet)
    assert read_packet(packet)[0].address == "/a"
    assert "deep" in (read_packet(bundle(packet))[0].fault or "")


def test_read_packet_refuses_a_thousand_nested_bundles() -> None:
    packet = b""
    for _ in range(1000):
        packet = bundle(packet) if packet else bundle()
    assert len(read_packet(packet)) == 1


def test_read_packet_names_too_many_bundles() -> None:
    empty = b"#bundle\x00" + bytes(7) + b"\x01"
    (message,) = read_packet(empty + (struct.pack(">i", len(empty)) + empty) * MAX_BUNDLES_PER_PACKET)
    assert message.fault is not None
    assert "this has more" in message.fault


def test_read_packet_names_too_many_messages() -> None:
    found = read_packet(bundle(*[pad_string(b"/a") + pad_string(b",")] * (MAX_MESSAGES_PER_PACKET + 5)))
    assert len(found) == MAX_MESSAGES_PER_PACKET + 1
    assert "more" in (found[-1].fault or "")

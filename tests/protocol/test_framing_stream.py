"""Both framings on a stream, in any slices."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.errors import BadRequest
from timbred.protocol.osc_packets import SLIP_END, SizeDecoder, StreamDecoder, encode_slip

PACKETS = st.lists(st.binary(max_size=40).map(lambda body: b"/" + body), min_size=1, max_size=6)


def sized(packet: bytes) -> bytes:
    return struct.pack(">i", len(packet)) + packet


@given(PACKETS, st.booleans(), st.lists(st.integers(0, 10_000), max_size=6))
def test_stream_decoder_detects_the_framing_from_the_first_bytes(
    packets: list[bytes], sizes: bool, cuts: list[int]
) -> None:
    data = b"".join(sized(one) if sizes else encode_slip(one) for one in packets)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    decoder = StreamDecoder()
    found = [one for start, end in pairwise(places) for one in decoder.feed(data[start:end])]
    assert found == packets
    assert decoder.encode(b"/pong") == (sized(b"/pong") if sizes else encode_slip(b"/pong"))


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_stream_decoder_never_raises(pieces: list[bytes]) -> None:
    decoder = StreamDecoder(limit=50)
    for piece in pieces:
        decoder.feed(piece)


@pytest.mark.parametrize("size", [0, -1, 2**31 - 1])
def test_size_decoder_refuses_an_impossible_size_once(size: int) -> None:
    decoder = SizeDecoder()
    first, refusal = decoder.feed(sized(b"/a") + struct.pack(">i", size) + b"/b")
    assert first == b"/a"
    assert isinstance(refusal, BadRequest)
    assert decoder.feed(sized(b"/c")) == []


def test_stream_decoder_takes_nonsense_for_slip() -> None:
    decoder = StreamDecoder()
    assert decoder.feed(b"\x00\x00") == []
    assert decoder.feed(b"\x00\x00\x00" + SLIP_END) == [b"\x00" * 5]

"""SLIP frames in any slices, with any damage."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from timbred.errors import BadRequest
from timbred.protocol.osc_packets import SLIP_END, SlipDecoder, encode_slip

FRAMES = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


def fed(data: bytes, cuts: list[int], limit: int = 1 << 20) -> list[bytes | BadRequest]:
    decoder = SlipDecoder(limit)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    found: list[bytes | BadRequest] = []
    for start, end in pairwise(places):
        found += decoder.feed(data[start:end])
    return found


@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=6))
def test_slip_decoder_returns_frames_from_any_slices(frames: list[bytes], cuts: list[int]) -> None:
    assert fed(b"".join(map(encode_slip, frames)), cuts) == frames


@given(FRAMES)
def test_slip_decoder_accepts_frames_with_a_single_end(frames: list[bytes]) -> None:
    assert fed(b"".join(encode_slip(frame)[1:] for frame in frames), []) == frames


@given(st.binary(max_size=400), st.lists(st.integers(0, 10_000), max_size=6))
def test_slip_decoder_is_independent_of_slices_and_never_raises(data: bytes, cuts: list[int]) -> None:
    assert [str(one) for one in fed(data, cuts)] == [str(one) for one in fed(data, [])]


def test_slip_decoder_ignores_empty_frames() -> None:
    assert SlipDecoder().feed(SLIP_END * 7) == []


def test_slip_decoder_reads_an_escaped_escape_before_a_plain_dc() -> None:
    assert SlipDecoder().feed(b"\xdb\xdd\xdc" + SLIP_END) == [b"\xdb\xdc"]


def test_slip_decoder_loses_one_frame_by_a_bad_escape() -> None:
    first, second, third = SlipDecoder().feed(encode_slip(b"/a") + b"/b\xdb\x01" + SLIP_END + b"/c\xdb" + SLIP_END)
    assert first == b"/a"
    assert isinstance(second, BadRequest)
    assert isinstance(third, BadRequest)


def test_slip_decoder_refuses_a_long_frame_at_once_and_continues() -> None:
    decoder = SlipDecoder(limit=10)
    (refusal,) = decoder.feed(b"x" * 11)
    assert isinstance(refusal, BadRequest)
    assert decoder.feed(b"y" * 1000) == []
    assert decoder.feed(b"z" + encode_slip(b"/a")) == [b"/a"]

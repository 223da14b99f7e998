"""Chunks: what is added is found again, and bytes from outside do no harm."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from timbred.audiofile.tags import Chunk, append_chunks, info_chunk, read_chunks, sampler_chunk, tempo_chunk
from timbred.errors import BadAudio

LETTERS = st.text(st.characters(min_codepoint=65, max_codepoint=90), min_size=4, max_size=4)


def plain(kind: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(101), 8_000, "PCM_24", format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
@settings(deadline=None)
@given(added=st.lists(st.builds(Chunk, LETTERS, st.binary(max_size=50)), max_size=4))
def test_read_chunks_finds_appended_chunks(kind: str, added: list[Chunk]) -> None:
    before = plain(kind)
    after = append_chunks(before, added)
    assert read_chunks(after) == read_chunks(before) + added
    assert len(after) % 2 == 0
    assert soundfile.info(io.BytesIO(after)).frames == 101


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_read_chunks_reads_or_refuses_any_bytes(content: bytes) -> None:
    for head in (b"", b"RIFF1234WAVE", b"FORM1234AIFC"):
        try:
            read_chunks(head + content)
        except BadAudio:
            assert head == b""


def test_append_chunks_writes_the_documented_layout() -> None:
    assert len(sampler_chunk(48_000, 100).content) == 60
    assert len(sampler_chunk(48_000, None).content) == 36
    assert len(tempo_chunk(120.0, 4, loops=True).content) == 24
    assert info_chunk({"INAM": "ab"}).content == b"INFOINAM\x03\x00\x00\x00ab\x00\x00"

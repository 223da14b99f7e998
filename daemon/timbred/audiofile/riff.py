"""Chunks of RIFF (WAV) and AIFF files: reading them, and writing those that no library writes.

Both formats are a 12-byte header (`RIFF`, size, `WAVE`; `FORM`, size, `AIFF` or `AIFC`) and a sequence of chunks: four
letters, size of the content as u32, the content, and one zero byte after an odd size. RIFF numbers are little-endian,
those of AIFF big-endian.
Source: Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0 (1991);
Apple, Audio Interchange File Format 1.3 (1989).
"""

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from timbred.errors import BadAudio

MIDDLE_C_NOTE = 60
"""The MIDI note that plays a sample at its own pitch, if nothing better is known."""

HEADER_BYTES = 12
"""Length of the file's header."""


class Chunk(NamedTuple):
    """A chunk's four letters, and its content without the padding byte."""

    name: str
    content: bytes


def read_chunks(file: bytes | bytearray) -> list[Chunk]:
    """Return every chunk of a WAV or AIFF file, in order. A truncated last chunk is returned as far as it goes.

    Raises:
        BadAudio: neither a RIFF nor an AIFF file.
    """
    order = _byte_order(file)
    chunks: list[Chunk] = []
    at = HEADER_BYTES
    while at + 8 <= len(file):
        name, size = struct.unpack_from(order + "4sI", file, at)
        chunks.append(Chunk(name.decode("latin-1"), bytes(file[at + 8 : at + 8 + size])))
        at += 8 + size + size % 2
    return chunks


def append_chunks(file: bytes, new_chunks: Iterable[Chunk]) -> bytes:
    """Return the file with chunks appended, and its size corrected.

    Raises:
        BadAudio: neither a RIFF nor an AIFF file.
    """
    order = _byte_order(file)
    result = bytearray(file)
    result += bytes(len(result) % 2)
    for name, content in new_chunks:
        result += struct.pack(order + "4sI", name.encode("latin-1"), len(content))
        result += content + bytes(len(content) % 2)
    struct.pack_into(order + "I", result, 4, len(result) - 8)
    return bytes(result)


def clear_time_stamp(file: bytes) -> bytes:
    """Return the file with the time in its `PEAK` chunk set to 0, so that the same sound gives the same bytes.

    Layout of `PEAK`: u32 version, u32 time stamp, then float32 value and u32 position for each channel.
    libsndfile writes one into float files.
    """
    order = _byte_order(file)
    at = HEADER_BYTES
    while at + 8 <= len(file):
        name, size = struct.unpack_from(order + "4sI", file, at)
        if name == b"PEAK" and size >= 8:
            return file[: at + 12] + bytes(4) + file[at + 16 :]
        at += 8 + size + size % 2
    return file


def sampler_chunk(rate: int, loop_frames: int | None, root_note: int = MIDDLE_C_NOTE) -> Chunk:
    """Return a `smpl` chunk for samplers; `loop_frames` None means no loop.

    Layout, all u32: manufacturer, product, nanoseconds a frame, root note (MIDI 0..127), pitch fraction,
    SMPTE format, SMPTE offset, number of loops, size of extra data; then for each loop: id, type (0
    forward), first frame, last frame (played too), fraction, times (0 endless).
    Source: MIDI Manufacturers Association, RP-007 and RIFF's "Sampler Chunk" (1994).
    """
    period = round(1e9 / rate)
    loops = [] if loop_frames is None else [(0, 0, 0, loop_frames - 1, 0, 0)]
    head = struct.pack("<9I", 0, 0, period, root_note, 0, 0, 0, len(loops), 0)
    return Chunk("smpl", head + b"".join(struct.pack("<6I", *loop) for loop in loops))


ACID_ONE_SHOT_FLAG = 0x01
ACID_ROOT_NOTE_FLAG = 0x02
ACID_STRETCH_FLAG = 0x04


def tempo_chunk(bpm: float, beats: int, beats_per_bar: int = 4, *, loops: bool, root_note: int | None = None) -> Chunk:
    """Return an `acid` chunk: tempo and beats, from which a host adapts the sound to its own tempo.

    Layout: u32 flags (1 one-shot, 2 root note is valid, 4 stretch), u16 root note, u16 0x8000 (meaning
    unknown), float32 0 (unknown), u32 beats, u16 meter's denominator, u16 meter's numerator, float32 bpm.
    Source: Sony's ACID files as libsndfile reads them (src/wav.c, `wav_read_acid_chunk`).
    """
    flags = ACID_STRETCH_FLAG if loops else ACID_ONE_SHOT_FLAG
    flags |= 0 if root_note is None else ACID_ROOT_NOTE_FLAG
    note = MIDDLE_C_NOTE if root_note is None else root_note
    return Chunk("acid", struct.pack("<IHHfIHHf", flags, note, 0x8000, 0.0, beats, 4, beats_per_bar, bpm))


def info_chunk(texts: Mapping[str, str]) -> Chunk:
    """Return a `LIST` chunk of type `INFO`: short texts by their four letters: `INAM` title, `ISFT` software, `ICMT`...

    Layout: `INFO`, then for each text four letters, u32 size, UTF-8 and a zero byte, padded to even.
    Texts must be short: libsndfile doesn't read long ones.
    """
    content = bytearray(b"INFO")
    for name, text in texts.items():
        encoded = text.encode("utf-8", "replace") + b"\0"
        content += struct.pack("<4sI", name.encode("latin-1"), len(encoded))
        content += encoded + bytes(len(encoded) % 2)
    return Chunk("LIST", bytes(content))


def _byte_order(file: bytes | bytearray) -> str:
    head = bytes(file[:HEADER_BYTES])
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        return "<"
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        return ">"
    raise BadAudio("not a WAV or AIFF file: it doesn't begin with RIFF or FORM")

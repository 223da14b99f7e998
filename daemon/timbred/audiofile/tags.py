"""Tags of audio files (title, software, comment, and the whole recipe), and chunks of RIFF (WAV) and AIFF files.

The recipe is one field named `timbred`, JSON in UTF-8: an ID3v2.4 `TXXX` frame in WAV and AIFF, a Vorbis
comment in FLAC and Ogg. Any tag editor shows it. (libsndfile's own comment string loses long texts in WAV,
and can't open an AIFF file again that has one.)

RIFF and AIFF files are a 12-byte header (`RIFF`, size, `WAVE`; `FORM`, size, `AIFF` or `AIFC`) and a sequence of
chunks: four letters, size of the content as u32, the content, and one zero byte after an odd size. RIFF numbers are
little-endian, those of AIFF big-endian.
Source: Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0 (1991);
Apple, Audio Interchange File Format 1.3 (1989).
"""

import io
import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

from mutagen import MutagenError
from mutagen.aiff import AIFF
from mutagen.flac import FLAC
from mutagen.id3 import COMM, ID3, TIT2, TSSE, TXXX, Encoding
from mutagen.ogg import OggPage
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

import timbred
from timbred.audio import Recipe
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


RECIPE_FIELD_NAME = "timbred"
"""The name of the field that holds the recipe."""

MAX_TITLE_CHARACTERS = 200
"""Characters of the prompt that are used as the title."""

TAG_ERRORS = (
    MutagenError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    struct.error,
    zlib.error,
)
"""All exceptions that mutagen raises for invalid files."""


class Tags(NamedTuple):
    """The texts of one file."""

    title: str
    software: str
    comment: str
    recipe: str


def make_tags(recipe: Recipe) -> Tags:
    """Return the tags of a file with this recipe."""
    facts = (
        recipe.get("model"),
        f"seed {recipe['seed']}" if "seed" in recipe else None,
        recipe.get("licence"),
    )
    return Tags(
        title=_clean(str(recipe.get("prompt", "")))[:MAX_TITLE_CHARACTERS],
        software=f"timbred {timbred.__version__}",
        comment=_clean(", ".join(str(fact) for fact in facts if fact)),
        recipe=json.dumps(recipe, ensure_ascii=False).encode("utf-8", "backslashreplace").decode(),
    )


def write_tags(file: bytes, file_format: str, tags: Tags) -> bytes:
    """Return the file with the tags added."""
    if file_format == "wav":
        texts = {"INAM": tags.title, "ISFT": tags.software, "ICMT": tags.comment}
        return append_chunks(file, [info_chunk(texts), Chunk("id3 ", _id3(tags))])
    if file_format == "aiff":
        return append_chunks(file, [Chunk("ID3 ", _id3(tags))])
    return _write_vorbis_comment(file, file_format, tags)


def read_recipe_text(file: BinaryIO) -> str | None:
    """Return the recipe's JSON from an open file; None if it has none or its tags can't be read."""
    reader = _READERS.get(file.read(4))
    if reader is None:
        return None
    file.seek(0)
    try:
        tags: Any = reader(file).tags
        if tags is None:
            return None
        values = tags.getall(f"TXXX:{RECIPE_FIELD_NAME}") if isinstance(tags, ID3) else tags.get(RECIPE_FIELD_NAME, [])
        return str(values[0]) if values else None
    except TAG_ERRORS:
        return None


_READERS = {b"RIFF": WAVE, b"FORM": AIFF, b"fLaC": FLAC, b"OggS": OggVorbis}


def _id3(tags: Tags) -> bytes:
    frames = ID3()
    frames.add(TIT2(encoding=Encoding.UTF8, text=[tags.title]))
    frames.add(TSSE(encoding=Encoding.UTF8, text=[tags.software]))
    frames.add(COMM(encoding=Encoding.UTF8, lang="eng", desc="", text=[tags.comment]))
    frames.add(TXXX(encoding=Encoding.UTF8, desc=RECIPE_FIELD_NAME, text=[tags.recipe]))
    content = io.BytesIO()
    frames.save(content, v2_version=4, padding=_no_padding)
    return content.getvalue()


def _write_vorbis_comment(file: bytes, file_format: str, tags: Tags) -> bytes:
    content = io.BytesIO(file)
    tagger = FLAC(content) if file_format == "flac" else OggVorbis(content)
    if tagger.tags is None:
        tagger.add_tags()
    tagger.update(
        {"TITLE": tags.title, "ENCODER": tags.software, "COMMENT": tags.comment, RECIPE_FIELD_NAME.upper(): tags.recipe}
    )
    content.seek(0)
    tagger.save(content, padding=_no_padding)
    return content.getvalue() if file_format == "flac" else _set_serial(content, zlib.crc32(tags.recipe.encode()))


def _set_serial(content: io.BytesIO, serial: int) -> bytes:
    """Return an Ogg stream with this serial number: libsndfile's is random, and equal sounds must give equal bytes."""
    content.seek(0)
    pages: list[bytes] = []
    while True:
        try:
            page = OggPage(content)
        except EOFError:
            return b"".join(pages)
        page.serial = serial
        pages.append(page.write())


def _no_padding(_: object) -> int:
    return 0


def _clean(text: str) -> str:
    """Return text that every tag format accepts: no control characters, no lone surrogates."""
    return "".join(c if c.isprintable() else " " for c in text).strip()

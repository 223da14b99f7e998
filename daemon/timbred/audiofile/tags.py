"""What a file says about itself: title, software, comment, and the whole recipe.

The recipe is one field named `timbred`, JSON in UTF-8: an ID3v2.4 `TXXX` frame in WAV and AIFF, a Vorbis
comment in FLAC and Ogg. Any tag editor shows it. (libsndfile's own comment string loses long texts in WAV,
and can't open an AIFF file again that has one.)
"""

import io
import json
import struct
import zlib
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
from timbred.audiofile.riff import Chunk, info_chunk, with_chunks

FIELD = "timbred"
"""The name of the field that holds the recipe."""

LONGEST_TITLE = 200
"""Characters of the prompt that make the title."""

FOREIGN_FAULTS = (
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
"""Whatever mutagen lets escape on bytes that aren't what they claim to be."""


class Tags(NamedTuple):
    """The texts of one file."""

    title: str
    software: str
    comment: str
    recipe: str


def tags_of(recipe: Recipe) -> Tags:
    """The texts that a file with this recipe carries."""
    facts = (
        recipe.get("model"),
        f"seed {recipe['seed']}" if "seed" in recipe else None,
        recipe.get("licence"),
    )
    return Tags(
        title=_clean(str(recipe.get("prompt", "")))[:LONGEST_TITLE],
        software=f"timbred {timbred.__version__}",
        comment=_clean(", ".join(str(fact) for fact in facts if fact)),
        recipe=json.dumps(recipe, ensure_ascii=False).encode("utf-8", "backslashreplace").decode(),
    )


def tagged(file: bytes, file_format: str, tags: Tags) -> bytes:
    """The same file with its texts in place."""
    if file_format == "wav":
        texts = {"INAM": tags.title, "ISFT": tags.software, "ICMT": tags.comment}
        return with_chunks(file, [info_chunk(texts), Chunk("id3 ", _id3(tags))])
    if file_format == "aiff":
        return with_chunks(file, [Chunk("ID3 ", _id3(tags))])
    return _with_vorbis_comment(file, file_format, tags)


def recipe_text(file: BinaryIO) -> str | None:
    """The recipe's JSON as an open file carries it; None when it carries none or its tags can't be read."""
    reader = _READERS.get(file.read(4))
    if reader is None:
        return None
    file.seek(0)
    try:
        found: Any = reader(file).tags
        if found is None:
            return None
        values = found.getall(f"TXXX:{FIELD}") if isinstance(found, ID3) else found.get(FIELD, [])
        return str(values[0]) if values else None
    except FOREIGN_FAULTS:
        return None


_READERS = {b"RIFF": WAVE, b"FORM": AIFF, b"fLaC": FLAC, b"OggS": OggVorbis}


def _id3(tags: Tags) -> bytes:
    frames = ID3()
    frames.add(TIT2(encoding=Encoding.UTF8, text=[tags.title]))
    frames.add(TSSE(encoding=Encoding.UTF8, text=[tags.software]))
    frames.add(COMM(encoding=Encoding.UTF8, lang="eng", desc="", text=[tags.comment]))
    frames.add(TXXX(encoding=Encoding.UTF8, desc=FIELD, text=[tags.recipe]))
    content = io.BytesIO()
    frames.save(content, v2_version=4, padding=_no_padding)
    return content.getvalue()


def _with_vorbis_comment(file: bytes, file_format: str, tags: Tags) -> bytes:
    content = io.BytesIO(file)
    tagger = FLAC(content) if file_format == "flac" else OggVorbis(content)
    if tagger.tags is None:
        tagger.add_tags()
    tagger.update({"TITLE": tags.title, "ENCODER": tags.software, "COMMENT": tags.comment, FIELD.upper(): tags.recipe})
    content.seek(0)
    tagger.save(content, padding=_no_padding)
    return content.getvalue() if file_format == "flac" else _with_serial(content, zlib.crc32(tags.recipe.encode()))


def _with_serial(content: io.BytesIO, serial: int) -> bytes:
    """An Ogg stream under a serial number of our own: libsndfile's is random, and we want the same bytes."""
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
    """Text that every tag format takes: no control characters, no halves of surrogate pairs."""
    return "".join(c if c.isprintable() else " " for c in text).strip()

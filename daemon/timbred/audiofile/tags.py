"""Tags of audio files: title, software, comment, and the whole recipe.

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
from timbred.audiofile.riff import Chunk, append_chunks, info_chunk

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

"""The bytes of a settings file, as editors write them, to its table.

Understood are UTF-8 with and without a byte order mark, UTF-16 and UTF-32 (Windows editors), every kind of line end,
NULs at the end (a disk that lost power), and text that isn't Unicode (Windows' western code page).
"""

import codecs
import re
import tomllib
from pathlib import Path
from typing import Any

from timbred.errors import BadRequest
from timbred.filenames import printable

MAX_BYTES = 1_000_000
"""Settings files are a few kilobytes: a larger file is another one."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_settings(path: Path) -> dict[str, Any]:
    """The table in a settings file.

    Raises:
        BadRequest: it can't be read; says where and what to do.
    """
    shown = printable(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadRequest(f"the settings file {shown} can't be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise BadRequest(f"the settings file {shown} is larger than {MAX_BYTES} bytes: name another with --config")
    try:
        return parsed(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadRequest(f"the settings file {shown} can't be read: {error}{_hint(decoded(content))}") from error


def parsed(content: bytes) -> dict[str, Any]:
    """The table that the bytes of a file stand for.

    Raises:
        tomllib.TOMLDecodeError, RecursionError: they aren't TOML.
    """
    return tomllib.loads(decoded(content))


def decoded(content: bytes) -> str:
    r"""The text of a file, with the line ends that TOML knows.

    >>> decoded(b"\xef\xbb\xbftempo = 90\r\n\0\0")
    'tempo = 90\n'
    >>> decoded(b"t\0e\0m\0p\0o\0=\0\x31\0")
    'tempo=1'
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            text = content[len(mark) :].decode(encoding, "replace")
            break
    else:
        text = _without_mark(content)
    lines = text.removeprefix("\ufeff").rstrip("\0\x1a")  # 0x1a ends text files of old DOS editors
    return re.sub(r"\r\n?|[\u2028\u2029]", "\n", lines)


def _without_mark(content: bytes) -> str:
    if content[1:2] == b"\0" and content[:1] != b"\0":
        return content.decode("utf-16-le", "replace")
    if content[:1] == b"\0" and content[1:2] not in (b"\0", b""):
        return content.decode("utf-16-be", "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # latin-1 has the five bytes that the code page leaves out
        return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in content)


def _hint(text: str) -> str:
    if re.search("[\u201c\u201d\u201e\u2018\u2019]", text):
        return '. Its quotation marks are typographic: write plain ones, "..."'
    if re.search(r'=\s*"[^"\n]*\\', text):
        return r". Write a path with \ in single quotes, or with /"
    return ""

"""File names from prompts, folders inside the takes folder, and the files that requests may read."""

# ruff: noqa: RUF001  the tables contain letters that look like Latin ones

import errno
import os
import re
import stat
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from timbred.errors import BadAudio, ForbiddenPath
from timbred.filenames import (
    MAX_FOLDER_UNITS,
    RESERVED_NAMES,
    PathLimit,
    comparison_key,
    is_utf8,
    name_fault,
    printable,
)

MAX_SLUG_LENGTH = 40
"""Characters of a slug."""

FALLBACK_SLUG = "sound"
"""The slug of a prompt that leaves no letter: one in a script without a table here, or without letters."""

_CYRILLIC = (
    "а:a б:b в:v г:g ґ:g д:d е:e є:ie ж:zh з:z и:i і:i к:k л:l м:m н:n о:o п:p р:r с:s т:t у:u ф:f х:kh ц:ts "
    "ч:ch ш:sh щ:shch ъ: ы:y ь: э:e ю:yu я:ya ђ:dj ј:j љ:lj њ:nj ћ:c џ:dz"
)
_GREEK = "α:a β:v γ:g δ:d ε:e ζ:z η:i θ:th ι:i κ:k λ:l μ:m ν:n ξ:x ο:o π:p ρ:r σ:s ς:s τ:t υ:y φ:f χ:ch ψ:ps ω:o"
_LATIN = "ß:ss æ:ae œ:oe ø:o ł:l đ:d ð:d þ:th ı:i ŋ:ng ħ:h #:-sharp-"

_LETTERS = str.maketrans({pair[0]: pair[2:] for table in (_CYRILLIC, _GREEK, _LATIN) for pair in table.split(" ")})


def slug(text: str) -> str:
    """Return the first part of a file name: letters a-z, digits and single hyphens, 1 to 40 characters.

    Accents are dropped; Cyrillic and Greek letters are transliterated.

    >>> slug("Rain on Tin!")
    'rain-on-tin'
    >>> slug("Дождь über Äcker")
    'dozhd-uber-acker'
    >>> slug("雨")
    'sound'
    """
    lowered = unicodedata.normalize("NFKC", text[: MAX_SLUG_LENGTH * 8]).casefold()
    spelled = lowered.translate(_LETTERS)
    plain = unicodedata.normalize("NFKD", spelled).translate(_LETTERS).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", plain.replace("'", "")).strip("-")
    if len(words) > MAX_SLUG_LENGTH:  # cut at a hyphen if there is one, rather than inside a word
        words = words[: MAX_SLUG_LENGTH + 1].rpartition("-")[0] or words[:MAX_SLUG_LENGTH]
    if not words:
        return FALLBACK_SLUG
    return f"{words}-{FALLBACK_SLUG}" if words in RESERVED_NAMES else words


class Disk:
    """The mounted disk that a folder is on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mount: Path | None = None

    def create(self, inside: Path) -> None:
        """Create the folder, or one inside it, unless it exists. The first call stores the folder's mount point.

        Raises:
            OSError: ENODEV, if the folder is no longer on the stored mount or one below it: the disk was removed.
        """
        if self._mount is not None and not _mount_point(self._folder).is_relative_to(self._mount):
            reason = f"the disk that was mounted at {self._mount} isn't there"
            raise OSError(errno.ENODEV, reason, str(self._folder))
        inside.mkdir(parents=True, exist_ok=True)
        if self._mount is None:
            self._mount = _mount_point(self._folder)


def _mount_point(folder: Path) -> Path:
    """Return the mount point of the folder or, if it doesn't exist, of the nearest folder above it."""
    real = Path(os.path.realpath(folder))
    while not os.path.ismount(real) and real != real.parent:
        real = real.parent
    return real


MAX_NAME_UNITS = 60
"""Characters of the longest name that timbred gives a file in the takes folder: that of a journal."""

MAX_PATH_CHARACTERS = 4096
"""Characters of a path in a request."""


def folder_inside(root: Path, folder: str) -> Path:
    r"""Return the folder named `folder` (parts divided by `/` or `\`; empty for the root itself) inside `root`.

    It need not exist. A folder whose name differs only by case or Unicode normalisation is the same: its existing
    spelling is used. Links are followed, and must end inside.

    Raises:
        ForbiddenPath: the folder isn't allowed; the message says why.
    """
    if folder == "":
        return root
    if fault := _fault(folder):
        raise ForbiddenPath(f"folder: got {_shown(folder)}; {fault}. Name a folder inside the takes folder")
    inside = root
    for part in re.split(r"[/\\]", folder.rstrip("/\\")):
        inside /= _existing_spelling(inside, part)
    if not _resolve(inside).is_relative_to(_resolve(root)):
        raise ForbiddenPath(f"folder: got {_shown(folder)}; a link in it leads outside the takes folder")
    return inside


def check_length(folder: str, limit: PathLimit) -> None:
    """Check that timbred's files have room in a folder, given as a whole path.

    Raises:
        ForbiddenPath: some of their paths would be too long for the system.
    """
    if fault := limit.fault(folder, MAX_NAME_UNITS):
        long_paths = ", or switch on Windows' long paths" if limit.system == "Windows" else ""
        raise ForbiddenPath(
            f"{_shown(folder)}: {fault}: name a shorter folder with @folder, or set takes.folder to one{long_paths}"
        )


def _fault(folder: str) -> str | None:
    if not is_utf8(folder):
        return "it has a character that can't be in a name"
    if len(folder.encode("utf-16-le")) // 2 > MAX_FOLDER_UNITS:
        return f"at most {MAX_FOLDER_UNITS} characters are allowed"
    if folder[0] in "/\\" or re.match(r"[A-Za-z]:", folder):
        return "an absolute path isn't allowed"
    faults = (_fault_of_part(part) for part in re.split(r"[/\\]", folder.rstrip("/\\")))
    return next((fault for fault in faults if fault), None)


def _fault_of_part(part: str) -> str | None:
    if part and part[0] in ".~":
        return f"the part {_shown(part)} isn't allowed"
    return name_fault(part) or _fault_of_encoding(part)


def _fault_of_encoding(part: str) -> str | None:
    try:
        os.fsencode(part)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        return f"{_shown(part)} can't be written in this system's encoding, {encoding}: start timbred with PYTHONUTF8=1"
    return None


def _existing_spelling(parent: Path, part: str) -> str:
    """Return the name of the entry of `parent` that other systems consider equal to `part`, if there is one."""
    if os.path.lexists(parent / part):
        return part
    key = comparison_key(part)
    try:
        with os.scandir(parent) as entries:
            return min((entry.name for entry in entries if comparison_key(entry.name) == key), default=part)
    except OSError:
        return part  # the parent doesn't exist or can't be listed: creating the folder reports it


class AllowedFolders:
    """The folders from which input files may be read."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self.roots = tuple(_resolve(Path(root).expanduser()) for root in roots)

    def resolve(self, path_text: str) -> Path:
        """Return the file that a request names: absolute, from `~`, or relative to one of the folders.

        Raises:
            ForbiddenPath: outside every allowed folder, whether it exists or not.
            BadAudio: inside, but there is no such file, or it is a folder or a device.
        """
        if not path_text or "\0" in path_text or len(path_text) > MAX_PATH_CHARACTERS or not is_utf8(path_text):
            raise ForbiddenPath(f"{_shown(path_text)} isn't a path")
        candidates = [path for path in self._candidates(path_text) if self._allows(path)]
        if not candidates:
            roots = ", ".join(printable(str(root)) for root in self.roots) or "none"
            raise ForbiddenPath(f"{_shown(path_text)} is outside the folders that may be read: {roots}")
        for path in candidates:
            if _is_file(path):
                return path
        raise BadAudio(f"{_shown(path_text)}: there is no such file")

    def _candidates(self, path_text: str) -> list[Path]:
        try:
            path = Path(path_text).expanduser()
        except RuntimeError:
            return []
        return [_resolve(path)] if path.is_absolute() else [_resolve(root / path) for root in self.roots]

    def _allows(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self.roots)


def _resolve(path: Path) -> Path:
    """Return the path without links and dots.

    Raises:
        ForbiddenPath: a link leads to itself.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ForbiddenPath(f"{_shown(str(path))} can't be followed: {error}") from error


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _shown(text: str) -> str:
    short = text if len(text) <= 120 else text[:120] + "..."
    return repr(short) if short.isprintable() else ascii(short)

"""Which paths timbred may use: a folder inside the takes folder, and files inside allowed folders."""

import re
import stat
from collections.abc import Iterable
from pathlib import Path

from timbred.delivery.slugs import RESERVED
from timbred.errors import BadAudio, ForbiddenPath

LONGEST = 500
"""Characters of a folder's name inside the takes folder."""

LONGEST_PART = 200
"""Bytes of one part of it: file systems allow about 255."""

LONGEST_PATH = 4096

_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')


def folder_inside(root: Path, folder: str) -> Path:
    """The folder named `folder` (parts divided by `/` or `\\`; empty: the root itself) inside `root`.

    It need not exist. Links are followed, and must end inside.

    Raises:
        ForbiddenPath: naming the folder, and what about it isn't allowed.
    """
    if folder == "":
        return root
    if fault := _fault(folder):
        raise ForbiddenPath(f"folder: got {_shown(folder)}; {fault}. Name a folder inside the takes folder")
    inside = root.joinpath(*re.split(r"[/\\]", folder.rstrip("/\\")))
    if not _resolved(inside).is_relative_to(_resolved(root)):
        raise ForbiddenPath(f"folder: got {_shown(folder)}; a link in it leads outside the takes folder")
    return inside


def _fault(folder: str) -> str | None:
    if len(folder) > LONGEST:
        return f"at most {LONGEST} characters are allowed"
    if folder[0] in "/\\" or re.match(r"[A-Za-z]:", folder):
        return "an absolute path isn't allowed"
    faults = (_fault_of_part(part) for part in re.split(r"[/\\]", folder.rstrip("/\\")))
    return next((fault for fault in faults if fault), None)


def _fault_of_part(part: str) -> str | None:
    if not part.isprintable() or not _encodable(part) or _NOT_IN_NAMES.search(part):
        return "it has a character that can't be in a name"
    if len(part.encode()) > LONGEST_PART:
        return f"a part of it is longer than {LONGEST_PART} bytes"
    if part == "" or part[0] in ".~ " or part[-1] in " .":
        return f"the part {_shown(part)} isn't allowed"
    if part.partition(".")[0].strip().lower() in RESERVED:
        return f"{part} is a device's name on Windows"
    return None


class AllowedFolders:
    """The folders from which input files may be read."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self.roots = tuple(_resolved(Path(root).expanduser()) for root in roots)

    def resolve(self, path_text: str) -> Path:
        """The file that a request names: absolute, from `~`, or relative to one of the folders.

        Raises:
            ForbiddenPath: outside every allowed folder, whether or not it exists.
            BadAudio: inside, but there is no such file, or it is a folder or a device.
        """
        if not path_text or "\0" in path_text or len(path_text) > LONGEST_PATH or not _encodable(path_text):
            raise ForbiddenPath(f"{_shown(path_text)} isn't a path")
        candidates = [path for path in self._candidates(path_text) if self._allows(path)]
        if not candidates:
            roots = ", ".join(str(root) for root in self.roots) or "none"
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
        return [_resolved(path)] if path.is_absolute() else [_resolved(root / path) for root in self.roots]

    def _allows(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self.roots)


def _resolved(path: Path) -> Path:
    """The path without links and dots.

    Raises:
        ForbiddenPath: a link that leads to itself.
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


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(text: str) -> str:
    short = text if len(text) <= 120 else text[:120] + "..."
    return repr(short) if short.isprintable() else ascii(short)

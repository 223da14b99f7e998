"""Names that every system accepts. The strictest rule of Linux, macOS and Windows applies on all systems.

Windows reserves device names with any extension, drops trailing dots and spaces and forbids several characters;
Windows and macOS compare names without case, macOS without Unicode normalisation; all limit the length of a name and
of a whole path.
"""

import re
import sys
import unicodedata
from dataclasses import dataclass
from typing import Literal

MAX_NAME_BYTES = 200
"""Bytes of one name in UTF-8. File systems allow 255, encrypted ones about 143 characters; hidden files add to it."""

MAX_FOLDER_UNITS = 120
"""UTF-16 units of a folder's name inside the takes folder: Windows allows 259 for a whole path, of which the takes
folder and the file's own name need their share."""

RESERVED_NAMES = frozenset(
    [
        *("con", "prn", "aux", "nul", "conin$", "conout$", "clock$"),
        *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789\u00b9\u00b2\u00b3"),
    ]
)
"""Names of devices on Windows, in lower case, without extension."""

_FORBIDDEN_CHARACTERS = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')


def name_fault(name: str) -> str | None:
    """Return why `name` can't be a file's or folder's name on every system; None if it can.

    >>> name_fault("drums (dry)")
    >>> name_fault("aux.wav")
    "'aux.wav' is a device's name on Windows"
    >>> name_fault("pad.")
    "'pad.' ends with a dot or a space"
    """
    if name in ("", ".", ".."):
        return f"{_shown(name)} isn't a name"
    faults = (
        (
            not is_utf8(name) or not name.isprintable() or _FORBIDDEN_CHARACTERS.search(name),
            "has a character that can't be in a name",
        ),
        (len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES, f"is longer than {MAX_NAME_BYTES} bytes"),
        (name[0] == " ", "begins with a space"),
        (name[-1] in " .", "ends with a dot or a space"),
        (name.partition(".")[0].strip().lower() in RESERVED_NAMES, "is a device's name on Windows"),
    )
    return next((f"{_shown(name)} {reason}" for is_fault, reason in faults if is_fault), None)


@dataclass(frozen=True)
class PathLimit:
    """The longest path of a file that a system accepts, in `unit`s."""

    system: str
    longest: int
    unit: Literal["characters", "bytes"]

    def length(self, path: str) -> int:
        """Return the length of a path in this limit's unit; characters are UTF-16 units, as on Windows."""
        if self.unit == "characters":
            return len(path.encode("utf-16-le", "surrogatepass")) // 2
        return len(path.encode("utf-8", "surrogatepass"))

    def fault(self, folder: str, longest_name: int) -> str | None:
        r"""Return why files with names of up to `longest_name` units can't be in the folder; None if they can.

        >>> path_limit("win32", long_paths=False).fault("C:\\" + "x" * 197, 60)
        'paths in it would have up to 261 characters, and Windows takes 259'
        >>> path_limit("linux", long_paths=False).fault("/" + "x" * 199, 60)
        """
        needed = self.length(folder) + 1 + longest_name
        if needed <= self.longest:
            return None
        return f"paths in it would have up to {needed} {self.unit}, and {self.system} takes {self.longest}"


def path_limit(platform: str, long_paths: bool) -> PathLimit:
    """Return the limit of a platform, as in `sys.platform`; `long_paths` is True if Windows' long paths are enabled."""
    if platform == "win32":
        return PathLimit("Windows", 32_000 if long_paths else 259, "characters")
    return PathLimit("macOS", 1023, "bytes") if platform == "darwin" else PathLimit("this system", 4095, "bytes")


def path_limit_here() -> PathLimit:
    """Return the limit of this computer."""
    return path_limit(sys.platform, _has_long_paths())


def _has_long_paths() -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    try:
        return bool(ctypes.WinDLL("ntdll").RtlAreLongPathsEnabled() & 0xFF)
    except (OSError, AttributeError):  # before Windows 10
        return False


def comparison_key(name: str) -> str:
    """Return a key that is equal for names that are the same on some system: case and normalisation are ignored.

    >>> comparison_key("E\u0301t\u00e9") == comparison_key("\u00e9TE\u0301")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def is_utf8(text: str) -> bool:
    """Return True if the text can be encoded as UTF-8; a path read from bytes that aren't UTF-8 can't."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    r"""Escape what can't be encoded as UTF-8, for messages.

    >>> printable("Kl" + chr(0xDCE4) + "nge")
    'Kl\\xe4nge'
    """
    bytes_shown = re.sub(r"[\udc80-\udcff]", lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return bytes_shown.encode("utf-8", "backslashreplace").decode()


def _shown(name: str) -> str:
    short = name if len(name) <= 120 else name[:120] + "..."
    return repr(short) if short.isprintable() else ascii(short)

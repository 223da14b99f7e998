"""The user's own folders, as the system names them; none where it gives the user no home.

A service, a container or an unknown user may have no home folder. Then there is no default: never the working folder,
never the root folder.
"""

import os
import sys
from pathlib import Path
from typing import Literal

import platformdirs

from timbred.errors import BadRequest
from timbred.filenames import printable

Kind = Literal["config", "data", "cache", "music"]

_VARIABLES: dict[Kind, str] = {
    "config": "XDG_CONFIG_HOME",
    "data": "XDG_DATA_HOME",
    "cache": "XDG_CACHE_HOME",
    "music": "XDG_MUSIC_DIR",
}


def user_folder(kind: Kind) -> Path | None:
    """timbred's folder of this kind, an absolute path; None where the user has no home folder."""
    try:
        if kind == "music":
            folder = platformdirs.user_music_path() / "timbred"
        else:
            folder = Path(getattr(platformdirs, f"user_{kind}_path")("timbred", appauthor=False))
    except RuntimeError:  # there is no home folder; other versions give a relative path
        return None
    # an empty HOME would put everything into the root folder
    is_rootless = sys.platform != "win32" and os.environ.get("HOME") == "" and not os.environ.get(_VARIABLES[kind])
    return folder if folder.is_absolute() and not is_rootless else None


def expanded(path: Path) -> Path:
    """The path with `~` replaced.

    Raises:
        BadRequest: there is no such home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise BadRequest(f"{printable(str(path))}: there is no such home folder; write the path out") from None


def who() -> str:
    """The user, for messages: a number where the system has no name."""
    return f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"

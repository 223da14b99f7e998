"""Copying a finished sound to a file that the user names: whole, and over another file only where that is asked for."""

import os
import shutil
from pathlib import Path

from timbred.delivery.publish import publish
from timbred.errors import BadRequest, TimbredError, from_foreign
from timbred.filenames import name_fault, printable
from timbred.processes.scratch import make_file


def check_target(out: Path, overwrite: bool) -> None:
    """See that the file may be written, before the sound is made.

    Raises:
        BadRequest: its name isn't one on every system, it is there already, or it is a folder.
    """
    shown = printable(str(out))
    if fault := name_fault(out.name):
        raise BadRequest(f"--out {shown}: {fault}; give the file another name")
    if out.is_dir():
        raise BadRequest(f"--out {shown}: that is a folder; name a file")
    if not overwrite and os.path.lexists(out):
        raise _taken(out)


def copy_whole(path: Path, out: Path, overwrite: bool) -> Path:
    """Copy the file under a hidden name and rename it; the absolute path of the copy.

    Raises:
        BadRequest: there is such a file by now.
        TimbredError: it can't be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with make_file(out.parent) as hidden:
            shutil.copyfile(path, hidden)
            hidden.chmod(path.stat().st_mode & 0o777)
            if overwrite:
                hidden.replace(out)
            else:
                publish(hidden, out, lambda _path, _placeholder: None)
        return out.absolute()
    except FileExistsError as error:
        raise _taken(out) from error
    except OSError as error:
        raise from_foreign(error) from error


def _taken(out: Path) -> TimbredError:
    return BadRequest(f"--out {printable(str(out))} is there already: name another file, or add --overwrite")

"""Disks that are full or may only be read: mounted for one command, where the user may."""

import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.host_programs import absent

MOUNT = """
folder=$1 size=$2 again=$3; shift 3
cp -r "$folder" "$folder.kept" && mount -t tmpfs -o "size=$size" none "$folder" || exit 125
cp -r "$folder.kept/." "$folder" || exit 125
[ -z "$again" ] || mount -o "remount,$again" "$folder" || exit 125
exec "$@"
"""


def on_disk(folder: Path, size: str, again: str = "") -> list[str]:
    """The words before a command that runs it with `folder`, and what is in it, on a disk of its own.

    Args:
        folder: must exist.
        size: as mount takes it: `64k`.
        again: an option to mount it with once it is filled: `ro`.
    """
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", MOUNT, "sh", str(folder), size, again]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        absent("this user may not mount a disk of its own")
    shutil.rmtree(folder.with_name(folder.name + ".kept"))
    return words


@contextmanager
def mounted(folder: Path, size: str, again: str = "") -> Generator[None]:
    """An empty disk at `folder`, for all processes, while the block runs. `again` as in `on_disk`."""
    where = str(folder)
    try:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", where], capture_output=True, check=False
        )
    except FileNotFoundError:
        absent("only Linux has disks in memory that can be mounted")
    if made.returncode:
        absent("only an administrator may mount a disk for all processes")
    try:
        if again:
            subprocess.run(["mount", "-o", f"remount,{again}", where], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=True)

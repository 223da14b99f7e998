"""Disks that are full or may only be read: mounted for one command, where the user may."""

import shutil
import subprocess
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

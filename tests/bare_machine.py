"""Runs a command as on a machine without PortAudio, JACK, Pd, SuperCollider, Node, Chromium and liblo's tools.

    python -m tests.bare_machine pytest

Hides the programs of `tests.host_programs` from PATH and PortAudio from `ctypes.util.find_library`. On Linux, where the
user may make a mount namespace, an empty file also covers each program and library, so that an absolute path finds
nothing that runs either. Nothing on the machine is changed.
"""

import ctypes.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.host_programs import HIDDEN, OTHER_NAMES, PROGRAMS

KEPT = frozenset({"unshare"})
"""Programs that every Linux has, and that this module needs."""

RELATED = frozenset({"clang++", "g++", "jack_lsp", "jackdbus", "nodejs", "npx", "puredata", "supernova"})
"""Programs that come with a host and would let a test reach it."""

HIDDEN_PROGRAMS = frozenset({*PROGRAMS, *(other for names in OTHER_NAMES.values() for other in names), *RELATED}) - KEPT

SHARED = frozenset({"busybox", "snap", "toybox"})
"""Files that stand behind the names of many programs."""

LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/opt/homebrew/lib")

COVER = """
empty=$1; shift
while [ "$1" != -- ]; do mount --bind "$empty" "$1" || exit 125; shift; done
shift; exec "$@"
"""
"""Shell: mounts the first argument over each further one up to `--`, then runs the command that follows."""

SITECUSTOMIZE = '''
"""PortAudio isn't there."""
import ctypes.util
import sys

_find_library = ctypes.util.find_library


def find_library(name):
    """The library's file, unless it is PortAudio's."""
    return None if "portaudio" in name else _find_library(name)


ctypes.util.find_library = find_library
sys.modules["_sounddevice_data"] = None  # the library inside sounddevice's wheels for macOS and Windows
'''


def path_without(hidden: Iterable[str], path: str, scratch: Path) -> str:
    """`path` with each folder that has one of the programs replaced by a folder of links to all its other programs."""
    names, folders = frozenset(hidden), list[str]()
    for number, folder in enumerate(filter(None, path.split(os.pathsep))):
        programs = [Path(entry.path) for entry in os.scandir(folder)] if os.access(folder, os.R_OK | os.X_OK) else []
        if not any(program.stem in names or program.name in names for program in programs):
            folders.append(folder)
            continue
        links = scratch / str(number)
        links.mkdir()
        for program in programs:
            if program.stem not in names and program.name not in names:
                (links / program.name).symlink_to(program)
        folders.append(str(links))
    return os.pathsep.join(folders)


def installed(hidden: Iterable[str]) -> list[Path]:
    """The files behind these programs and PortAudio's library, without those that other programs share."""
    found = {
        Path(folder, name).resolve()
        for folder in {*os.get_exec_path(), *os.defpath.split(os.pathsep), "/usr/sbin", "/usr/local/bin"}
        for name in hidden
        if os.path.isfile(os.path.join(folder, name))  # noqa: PTH113, PTH118 (a folder that may not be read has none)
    }
    libraries = {
        file.resolve()
        for folder in LIBRARY_FOLDERS
        for pattern in ("libportaudio*", "*/libportaudio*")
        for file in Path(folder).glob(pattern)
        if file.is_file()
    }
    return sorted({file for file in found if file.name not in SHARED} | libraries)


def covering(files: Iterable[Path], scratch: Path) -> list[str]:
    """The words before a command that cover these files for it and its children; none where that isn't allowed."""
    empty = scratch / "nothing"
    empty.touch(mode=0o444)
    covers = ["sh", "-c", COVER, "sh", str(empty), *map(str, files), "--"]
    identity = [f"--map-user={getattr(os, 'getuid', int)()}", f"--map-group={getattr(os, 'getgid', int)()}"]
    ways = [
        ["unshare", "--mount", *covers],
        ["unshare", "--mount", "--map-root-user", *covers, "unshare", "--user", *identity],
    ]
    if shutil.which("unshare") is None:
        return []
    tried = (way for way in ways if subprocess.run([*way, "true"], capture_output=True, check=False).returncode == 0)
    return next(tried, [])


def bare_environment(scratch: Path) -> dict[str, str]:
    """The environment in which the hosts are hidden."""
    (scratch / "path").mkdir()
    (scratch / "site").mkdir()
    (scratch / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE, "utf-8")
    before = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        HIDDEN: "1",
        "PATH": path_without(HIDDEN_PROGRAMS, os.environ.get("PATH", os.defpath), scratch / "path"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(scratch / "site"), before])),
    }


def main(command: list[str]) -> int:
    """Run the command with the hosts hidden; its exit status."""
    with tempfile.TemporaryDirectory(prefix="bare-machine-") as folder:
        scratch = Path(folder)
        scratch.chmod(0o755)
        files = installed(HIDDEN_PROGRAMS)
        words = covering(files, scratch)
        way = f"{len(files)} files are covered" if words else "absolute paths still reach them"
        print(f"hosts and PortAudio are hidden from PATH and from Python; {way}", file=sys.stderr, flush=True)
        with subprocess.Popen([*words, *command], env=bare_environment(scratch)) as process:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the command itself

            def end(_number: int, _frame: object) -> None:
                process.terminate()

            signal.signal(signal.SIGTERM, end)
            return process.wait()


def still_reached() -> list[str]:
    """The hosts that this process can still reach; none on a bare machine."""
    programs = [name for name in sorted(HIDDEN_PROGRAMS) if shutil.which(name)]
    return programs + ([library] if (library := ctypes.util.find_library("portaudio")) else [])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

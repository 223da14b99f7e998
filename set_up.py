"""Set timbred up in the folder `.venv` beside this file: `python3 set_up.py [EXTRA...]`.

Prints the cause and the remedy of a failure. Runs on any Python 3, so that an old one gets a message instead of a
syntax error; once set up, it only looks for changes.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent
SUPPORTED = ((3, 11), (3, 12), (3, 13))
NEEDED_GB = 4.0
"""Disk space in GB that the packages take while they are installed."""

NO_NETWORK = re.compile(
    r"NewConnectionError|name resolution|Name or service not known|nodename nor servname|getaddrinfo failed"
    r"|ConnectTimeout|ReadTimeout|Connection (?:refused|reset|broken)|Network is unreachable|ProxyError|Max retries"
    r"|Failed to resolve|from versions: none"
)
NO_ROOM = re.compile(r"No space left on device|Errno 28|Disk quota exceeded|not enough space")
NOT_ALLOWED = re.compile(r"Permission denied|Errno 13|Access is denied|Read-only file system")


class Impossible(Exception):
    """The set-up failed. The message states the cause and the remedy."""


def check_python(version: "tuple[int, ...]", missing: "list[str]") -> None:
    """Refuse an unsupported Python, or one that can't create virtual environments.

    Args:
        version: as `sys.version_info`.
        missing: modules that this Python lacks.

    Raises:
        Impossible: the message names what to install.
    """
    if tuple(version[:2]) not in SUPPORTED:
        found = ".".join(map(str, version[:3]))
        raise Impossible(
            f"it needs Python 3.11, 3.12 or 3.13, and this is Python {found}. Install one (Debian and Ubuntu: "
            "apt install python3 python3-venv; macOS: brew install python@3.13; Windows: winget install "
            "Python.Python.3.13), then: make PYTHON=/path/to/it"
        )
    if missing:
        raise Impossible(
            f"this Python can't make virtual environments (it has no {' and no '.join(missing)}). Install that part "
            "(Debian and Ubuntu: apt install python3-venv) and run the same command again"
        )


def lacking() -> "list[str]":
    """Return the modules for virtual environments that this Python lacks."""
    names: list[str] = []
    for name in ("venv", "ensurepip"):
        try:
            __import__(name)
        except ImportError:
            names.append(name)
    return names


def reason(output: str, free: float) -> str:
    """Return the cause of a failure in a sentence, with the remedy.

    Args:
        output: the whole output of pip or Python.
        free: GB free on the disk of the folder.
    """
    if NO_ROOM.search(output):
        return (
            f"the disk is full: the packages need about {NEEDED_GB:.0f} GB while they are installed, and {free:.1f} GB "
            f"are free in {ROOT}. Free some, or move this folder to another disk; if it is the temporary folder that "
            "is full, set TMPDIR to another"
        )
    if NOT_ALLOWED.search(output):
        return (
            f"a folder can't be written to: {last_line(output)}. Make it yours, or move this folder to one that is, "
            "and run the same command again; no administrator's rights are needed"
        )
    if NO_NETWORK.search(output):
        return (
            "the packages can't be fetched: the package index doesn't answer. Connect this machine to the network "
            "(behind a proxy, set HTTPS_PROXY) and run the same command again: what has been fetched is kept. With a "
            "folder of wheels it works without a network: set PIP_NO_INDEX=1 and PIP_FIND_LINKS=/that/folder"
        )
    return "the packages can't be installed: " + last_line(output)


def last_line(output: str) -> str:
    """Return the last error line of pip, or its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["it said nothing"])[-1]


def step(line: str) -> str:
    """Return the activity that a line of pip's output names; empty if there is none."""
    found = re.match(r"\s*(Collecting|Downloading|Using cached|Installing collected packages)\b:? ?(\S*)(.*)", line)
    if not found:
        return ""
    what, name, rest = found.groups()
    name = name.rpartition("/")[2]
    if what == "Installing collected packages":
        return f"installing {(name + rest).count(',') + 1} packages"
    size = re.search(r"\([\d.]+ [kMG]B\)", rest)
    package = re.split(r"[<>=!~\[;(-]", name)[0]
    return "fetching " + package + (" " + size.group() if size else "")


def show_steps(lines: "Iterable[str]", terminal: bool) -> str:
    """Show pip's progress: one updated line on a terminal, few lines elsewhere. Return its whole output."""
    output: list[str] = []
    count = shown = 0
    for line in lines:
        output.append(line)
        count += line.lstrip().startswith("Collecting")
        text = step(line)
        if text and terminal:
            text = f"  {text}, package {count}" if text.startswith("fetching") else f"  {text}"
            sys.stderr.write("\r" + text.ljust(shown))
            shown = len(text)
        elif text.startswith("installing") and not terminal:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()
    if shown:
        sys.stderr.write("\r" + " " * shown + "\r")
    return "".join(output)


def make_environment(folder: Path) -> Path:
    """Return the virtual environment's Python; create the environment if there is none.

    Raises:
        Impossible: the folder can't be created.
    """
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    asked = [str(python), "-m", "pip", "--version"]
    if python.exists() and subprocess.call(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
        return python
    import venv

    try:
        venv.create(str(folder), with_pip=True, symlinks=os.name != "nt")
    except OSError as error:
        raise Impossible(reason(str(error), free_gb())) from error
    except subprocess.CalledProcessError as error:
        said = (error.output or b"").decode("utf-8", "replace")
        raise Impossible(reason(said + "\n" + str(error), free_gb())) from error
    return python


def free_gb() -> float:
    """Return the free space on this folder's disk, in GB."""
    return shutil.disk_usage(str(ROOT)).free / 1e9


def install(python: Path, extras: "list[str]") -> None:
    """Install timbred from this folder, with its packages in the versions of constraints.txt.

    Raises:
        Impossible: pip failed; the message states the cause.
    """
    target = str(ROOT) + ("[" + ",".join(extras) + "]" if extras else "")
    quiet = ["--disable-pip-version-check", "--no-color", "--progress-bar", "off"]
    command = [str(python), "-m", "pip", "install", *quiet, "-c", str(ROOT / "constraints.txt"), "-e", target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True) as pip:
        output = show_steps(pip.stdout or (), sys.stderr.isatty())
    if pip.returncode == 0:
        return
    log = ROOT / ".venv" / "pip.log"
    try:
        log.write_text(output, "utf-8")
        where = "\nThe log: " + str(log)
    except OSError:
        where = "\n" + output  # there is no room for a log
    raise Impossible(reason(output, free_gb()) + where)


def main(extras: "list[str]") -> int:
    """Set up; return the exit status."""
    try:
        check_python(sys.version_info[:3], lacking())
        sys.stderr.write(f"setting timbred up in {ROOT / '.venv'}, once: fetching its packages takes some minutes\n")
        sys.stderr.flush()
        install(make_environment(ROOT / ".venv"), extras)
    except Impossible as error:
        sys.stderr.write(f"timbred: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ntimbred: interrupted; the same command goes on where this one stopped\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

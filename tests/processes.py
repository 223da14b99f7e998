"""No process is left behind: what a test started is gone when it ends."""

import os
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests import forked_programs
from tests.patience import TIMEOUT_S


def python_path(*folders: Path) -> str:
    """The value of PYTHONPATH with which a child finds these folders, and after them what this process was given."""
    return os.pathsep.join(filter(None, [*map(str, folders), os.environ.get("PYTHONPATH")]))


def _is_left(process: psutil.Process, before: set[psutil.Process]) -> bool:
    """Whether it still lives and nothing that was there before began it.

    A browser that many tests share may open a process of its own at any time: that one is the browser's.
    """
    try:
        return process not in before and before.isdisjoint(process.parents())
    except psutil.NoSuchProcess:
        return False


@contextmanager
def none_left() -> Generator[None]:
    """Around what starts processes: afterwards only those are there that were there before, and what these began.

    The process that makes copies of itself (`tests.forked_programs`) counts as there before.
    """
    before = set(psutil.Process().children(recursive=True))
    yield
    before.update(psutil.Process(pid) for pid in forked_programs.origins)
    left = [one for one in psutil.Process().children(recursive=True) if _is_left(one, before)]
    assert not left, f"processes are left: {left}"


def run_captured(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder until it ends; returns its status and what it printed."""
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )

"""Locks on open files."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from timbred import disk
from timbred.disk import try_lock

HOLD = (
    "import sys\n"
    "from timbred.disk import try_lock\n"
    "file = open(sys.argv[1], 'r+b', buffering=0)\n"
    "print(try_lock(file), flush=True)\n"
    "sys.stdin.read()\n"
)
"""A process that locks a file and holds it until its end."""


def test_try_lock_raises_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content", "utf-8")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"True"
        with path.open("r+", encoding="utf-8") as file:
            assert file.read() == "content"
            with pytest.raises(BlockingIOError):
                try_lock(file)
            holder.communicate()
            assert try_lock(file)
            file.write(", and more")
    finally:
        holder.kill()
        holder.communicate()
    assert path.read_text("utf-8") == "content, and more"


def test_try_lock_is_false_where_the_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_locks(_number: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(disk, "_lock", without_locks)
    with (tmp_path / "file").open("x") as file:
        assert not try_lock(file)

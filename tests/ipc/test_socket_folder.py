"""Scratch folders: made where there is a place for them, and removed by record alone."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from timbred.ipc import socket_folder
from timbred.ipc.socket_folder import (
    FOLDER_NAME_PREFIX,
    atomic_write,
    make_file,
    make_folder,
    remove_abandoned,
    this_process,
)

MAKE = (
    "import sys, time\n"
    "from timbred.ipc.socket_folder import make_folder\n"
    "made = make_folder(['engine-*'])\n"
    "(made.path / 'engine-1').touch()\n"
    "print(made.path, flush=True)\n"
    "sys.stdin.read()\n"
)
"""A process that makes a scratch folder and then waits for its end."""


WRITERS = {
    "conversion": (
        "import torch\n"
        "from timbred.engine.families import component_loader as conversion\n"
        "conversion.save_file = lambda _own, path, metadata: wait(path)\n"
        "conversion._write_tensors({'a': torch.zeros(1)}, folder / 'model.safetensors')\n"
    ),
    "compiled call": (
        "from types import SimpleNamespace\n"
        "from timbred.engine.compile.traced_calls import CompileCache\n"
        "CompileCache(folder).write((), SimpleNamespace(save=lambda path, format: wait(path)))\n"
    ),
    "note": (
        "from timbred.engine.compile import traced_calls as artefacts\n"
        "Path.write_bytes = lambda path, _content: wait(path)\n"
        "artefacts._write(folder / 'shapes.json', b'[]')\n"
    ),
    "copy": (
        "from timbred.cli import say as copying\n"
        "copying.shutil.copyfile = lambda _source, path: wait(path)\n"
        "copying.copy_atomically(folder / 'mine', folder / 'out.wav', False)\n"
    ),
    "demo's log": (
        "from timbred.cli import demo\n"
        "demo.tempfile.gettempdir = lambda: str(folder)\n"
        "made = demo._new_log()\n"
        "wait(made.path)\n"
    ),
}
"""Programs that are stopped while they write a temporary file."""

STOP_AND_SAY = (
    "import sys\n"
    "from pathlib import Path\n"
    "folder = Path(sys.argv[1])\n"
    "def wait(path):\n"
    "    print(path, flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Records and scratch folders of this test alone."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def _cannot_lock(_: object) -> bool:
    return False


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that can't lock."""
    monkeypatch.setattr(socket_folder, "try_lock", _cannot_lock)


def _records(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "state").rglob("*.json"))


def _maker() -> tuple[psutil.Popen, Path]:
    process = psutil.Popen([sys.executable, "-c", MAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().decode().strip())


def _end(process: psutil.Popen) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


def test_make_folder_is_private_and_removed_with_its_record(places: Path, tmp_path: Path):
    made = make_folder(["engine-*"])
    assert made.path.parent == places
    assert made.path.stat().st_mode & 0o777 == 0o700
    assert len(_records(tmp_path)) == 1
    (made.path / "engine-1").touch()
    made.remove()
    assert not made.path.exists()
    assert _records(tmp_path) == []


def test_remove_abandoned_removes_the_folder_of_a_killed_process_alone(places: Path, tmp_path: Path):
    living, kept = _maker()
    killed, left = _maker()
    others = places / f"{FOLDER_NAME_PREFIX}0123456789ab"  # named like ours, but nothing says that it is
    others.mkdir()
    (others / "engine-1").touch()
    _end(killed)
    try:
        assert remove_abandoned() == [left]
        assert not left.exists()
        assert (kept / "engine-1").exists()
        assert (others / "engine-1").exists()
        assert remove_abandoned() == []
    finally:
        _end(living)
    assert remove_abandoned() == [kept]
    assert _records(tmp_path) == []


def test_remove_abandoned_leaves_files_that_were_not_recorded(places: Path):
    killed, left = _maker()
    (left / "mine.wav").write_bytes(b"a sound that somebody put there")
    _end(killed)
    assert remove_abandoned() == []
    assert (left / "mine.wav").exists()
    assert not (left / "engine-1").exists()


def test_remove_abandoned_without_locks_uses_process_and_start_time(places: Path, without_locks: None):
    living, kept = _maker()
    killed, left = _maker()
    _end(killed)
    for file in socket_folder.records():
        record = json.loads(file.read_text("utf-8"))
        record["owner"]["locked"] = False
        file.write_text(json.dumps(record), "utf-8")
    try:
        assert remove_abandoned() == [left]
        assert kept.exists()
    finally:
        _end(living)


@pytest.mark.parametrize("writer", WRITERS)
def test_remove_abandoned_removes_the_temporary_file_of_a_killed_process_alone(writer: str, tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    mine = [folder / name for name in ("mine", ".converting-mine", ".writing-mine", ".timbred-0123456789abcdef.part")]
    for path in mine:
        path.write_bytes(b"made by somebody else")
    process = psutil.Popen(
        [sys.executable, "-c", STOP_AND_SAY + WRITERS[writer], str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        left = Path(process.stdout.readline().decode().strip())
        assert left.parent == folder
        assert remove_abandoned() == []
        assert left.is_file()
    finally:
        _end(process)
    assert remove_abandoned() == [left]
    assert sorted(folder.iterdir()) == sorted(mine)
    assert _records(tmp_path) == []


def test_make_file_is_removed_with_its_record_at_the_end(tmp_path: Path):
    with make_file(tmp_path) as hidden:
        assert hidden.stat().st_mode & 0o777 == 0o600
        assert len(_records(tmp_path)) == 1
    assert not hidden.exists()
    assert _records(tmp_path) == []


def test_make_file_that_is_kept_is_not_swept(tmp_path: Path):
    made = make_file(tmp_path)
    made.keep()
    assert remove_abandoned() == []
    assert made.path.exists()


def test_make_file_that_fails_leaves_no_record(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        make_file(tmp_path / "not there")
    assert _records(tmp_path) == []


@pytest.mark.parametrize("name", ["../mine", "", "inside/mine"])
def test_remove_abandoned_leaves_what_a_record_names_outside_its_folder(name: str, tmp_path: Path):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    mine = [tmp_path / "mine", tmp_path / "folder" / "inside" / "mine"]
    for path in mine:
        path.touch()
    gone = replace(this_process(), boot="another boot")
    record = socket_folder.Record(str(tmp_path / "folder"), (name,), gone, keeps_folder=True)
    assert record.remove() == []
    assert all(path.exists() for path in mine)


def test_this_process_with_a_reused_number_counts_as_ended():
    here = this_process()
    assert not here.is_gone
    assert replace(here, start="another moment").is_gone
    assert replace(here, boot="another boot").is_gone
    assert not replace(here, host="another-machine", start="another moment").is_gone
    assert not replace(here, container="another container", start="another moment").is_gone


def test_this_process_that_ended_counts_as_ended():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    start = socket_folder.read_start_time(ended.pid)
    ended.wait()
    assert replace(this_process(), pid=ended.pid, start=start).is_gone


def test_remove_abandoned_skips_records_that_cannot_be_read(places: Path, tmp_path: Path):
    make_folder(["engine-*"]).remove()
    folder = tmp_path / "state" / "timbred" / "scratch"
    for name, text in (("a.json", ""), ("b.json", "[1]"), ("c.json", '{"folder": "/", "names": ["*"]}')):
        (folder / name).write_text(text, "utf-8")
    assert remove_abandoned() == []


@pytest.mark.parametrize("broken", ["missing", "file", "long", "relative"])
def test_make_folder_uses_another_place_when_the_usual_one_fails(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
):
    monkeypatch.chdir(tmp_path)
    (places / "file").touch()
    (places / ("x" * 120)).mkdir()
    named = {"missing": places / "missing", "file": places / "file", "long": places / ("x" * 120), "relative": "here"}
    monkeypatch.setenv("TMPDIR", str(named[broken]))
    made = make_folder(["engine-*"], longest_name="engine-1")
    try:
        assert made.path.is_dir()
        assert tmp_path not in made.path.parents
    finally:
        made.remove()


def test_make_folder_without_any_place_names_each_with_its_reason(monkeypatch: pytest.MonkeyPatch):
    missing = Path("/no/such/place")
    monkeypatch.setattr(socket_folder, "candidate_folders", lambda: iter([missing, Path("/", "x" * 200)]))
    with pytest.raises(OSError, match=rf"{missing} \(No such file or directory\).*too long.*set TMPDIR"):
        make_folder(["engine-*"], longest_name="engine-1")


def test_make_folder_works_without_a_place_for_records(places: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket_folder, "_own_folders", lambda: [places / "file" / "inside"])
    (places / "file").touch()
    made = make_folder(["engine-*"])
    assert made.path.is_dir()
    made.remove()
    assert not made.path.exists()


def test_make_folder_does_not_use_another_users_folder(places: Path):
    link = places / "link"
    link.symlink_to(places)
    with pytest.raises(PermissionError, match="another user"):
        socket_folder.make_private(link)


def test_socket_folder_notices_its_deletion(places: Path):
    made = make_folder(["engine-*"])
    assert made.is_usable
    made.path.rmdir()
    assert not made.is_usable
    made.remove()


def test_atomic_write_replaces_the_file_only_once_the_block_has_ended(tmp_path: Path):
    target = tmp_path / "shapes.json"
    target.write_text("before")
    with atomic_write(target) as hidden:
        hidden.write_text("after")
        assert target.read_text() == "before"
    assert target.read_text() == "after"
    assert list(tmp_path.glob("*shapes*")) == [target]
    assert not hidden.exists()


def test_atomic_write_leaves_the_file_as_it_was_when_the_block_raises(tmp_path: Path):
    target = tmp_path / "shapes.json"
    target.write_text("before")
    with pytest.raises(ValueError, match="half"), atomic_write(target) as hidden:
        hidden.write_text("half")
        raise ValueError("half")
    assert target.read_text() == "before"
    assert not hidden.exists()

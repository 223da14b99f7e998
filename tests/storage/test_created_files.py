"""The record of created files: what it names is removed, if unchanged; everything else is left alone."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patience import TIMEOUT_S
from timbred.storage import created_files
from timbred.storage.created_files import Created, sweep

KILLED = """
import os, sys
from pathlib import Path
from timbred.storage.created_files import Created
record = Created(Path(sys.argv[1]))
root = Path(sys.argv[1])
(root / "previews").mkdir(exist_ok=True)
for name in ("kept", "changed", "replaced", "moved"):
    path = root / "previews" / f"{name}.wav"
    path.write_bytes(b"preview")
    record.add(path, path.lstat())
with record.part(root / "previews") as part:
    part.write_bytes(b"half")
    print(part.name, flush=True)
    sys.stdin.read() if len(sys.argv) > 2 else os._exit(9)
"""


def start_writer(root: Path, *arguments: str) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a record; the path of its unfinished file."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, root / "previews" / process.stdout.readline().strip()


def journals(root: Path) -> list[Path]:
    return list(root.glob(".timbred-created-*"))


def test_created_files_that_were_changed_replaced_or_never_recorded_are_left(tmp_path: Path) -> None:
    record = Created(tmp_path)
    names = ("same", "longer", "touched", "replaced", "folder", "moved", "foreign")
    paths = {name: tmp_path / f"{name}.wav" for name in names}
    for name, path in paths.items():
        path.write_bytes(b"preview")
        if name != "foreign":
            record.add(path, path.lstat())
    paths["longer"].write_bytes(b"preview, edited")
    os.utime(paths["touched"], ns=(1, 1))
    status = paths["replaced"].stat()
    (tmp_path / "other").write_bytes(b"prevIEW")
    (tmp_path / "other").replace(paths["replaced"])
    os.utime(paths["replaced"], ns=(status.st_atime_ns, status.st_mtime_ns))
    paths["folder"].unlink()
    paths["folder"].mkdir()
    paths["moved"].rename(tmp_path / "kept.wav")
    assert record.remove_files() == [paths["same"]]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == [
        "folder.wav", "foreign.wav", "kept.wav", "longer.wav", "replaced.wav", "touched.wav",
    ]  # fmt: skip
    record.close()
    assert journals(tmp_path) == []


def test_created_part_and_its_journal_are_removed_in_any_case(tmp_path: Path) -> None:
    record = Created(tmp_path)
    with pytest.raises(KeyError), record.part(tmp_path) as path:
        path.write_bytes(b"half")
        raise KeyError
    assert not path.exists()
    record.close()
    assert list(tmp_path.iterdir()) == []


def test_sweep_removes_what_a_killed_process_recorded_and_nothing_else(tmp_path: Path) -> None:
    previews = tmp_path / "previews"
    previews.mkdir()
    mine = [previews / "my own.wav", tmp_path / ".timbred-0123456789abcdef-0123456789abcdef.part", tmp_path / "a.part"]
    for path in mine:
        path.write_bytes(b"mine")
    process, part = start_writer(tmp_path)
    assert process.wait(TIMEOUT_S) == 9
    process.communicate()
    (previews / "changed.wav").write_bytes(b"changed, longer")
    (previews / "replaced.wav").unlink()
    (previews / "replaced.wav").write_bytes(b"mine in its place")
    (previews / "moved.wav").rename(tmp_path / "moved.wav")
    assert part.exists()
    assert sorted(sweep(tmp_path)) == sorted([part, previews / "kept.wav"])
    assert sorted(path.name for path in previews.iterdir()) == ["changed.wav", "my own.wav", "replaced.wav"]
    assert all(path.exists() for path in (*mine, tmp_path / "moved.wav"))
    assert journals(tmp_path) == []


def test_sweep_leaves_the_files_of_a_living_process(tmp_path: Path) -> None:
    process, part = start_writer(tmp_path, "wait")
    try:
        assert sweep(tmp_path) == []
        assert part.exists()
        assert (tmp_path / "previews" / "kept.wav").exists()
        own = Created(tmp_path)
        (tmp_path / "own").write_bytes(b"")
        own.add(tmp_path / "own", (tmp_path / "own").lstat())
        assert sweep(tmp_path) == []
        assert own.remove_files() == [tmp_path / "own"]
        own.close()
    finally:
        process.kill()
        process.communicate()
    assert part in sweep(tmp_path)


def test_sweep_uses_the_process_where_files_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_file: object) -> bool:
        return False

    monkeypatch.setattr(created_files, "try_lock", no_locks)
    process, part = start_writer(tmp_path, "wait")
    try:
        assert sweep(tmp_path) == []
    finally:
        process.kill()
        process.communicate()
    assert part in sweep(tmp_path)


def test_sweep_leaves_another_computers_journal_for_a_day(tmp_path: Path) -> None:
    process, part = start_writer(tmp_path)
    process.communicate()
    [journal] = journals(tmp_path)
    host = journal.name.split("-")[2]
    foreign = journal.rename(journal.with_name(journal.name.replace(f"-{host}-", "-00000000-")))
    assert sweep(tmp_path) == []
    assert part.exists()
    os.utime(foreign, (0, 0))
    assert part in sweep(tmp_path)


def test_sweep_ignores_journals_that_are_not_its_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.wav"
    mine.write_bytes(b"mine")
    line = json.dumps({"kind": "part", "path": "mine.wav"})
    head = json.dumps({"timbred": "created", "token": "f" * 16})
    for name, content in {
        f".timbred-created-00000000-1-{'0' * 16}.jsonl": f"{head}\n{line}\n",
        f".timbred-created-00000000-1-{'1' * 16}.jsonl": f"{line}\n",
        "notes.jsonl": line,
    }.items():
        (tmp_path / name).write_text(content)
        os.utime(tmp_path / name, (0, 0))
    assert sweep(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("path", ["../outside.wav", "/outside.wav", "link/outside.wav", "a/../../outside.wav", "\0"])
def test_sweep_removes_nothing_outside_the_folder(tmp_path: Path, path: str) -> None:
    root = tmp_path / "takes"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    outside = tmp_path / "outside.wav"
    outside.write_bytes(b"mine")
    process, _ = start_writer(root)
    process.communicate()
    [journal] = journals(root)
    with journal.open("a") as file:
        file.write(json.dumps({"kind": "part", "path": path}) + "\n")
    sweep(root)
    assert outside.exists()


@given(st.binary(max_size=300))
def test_sweep_handles_any_journal(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("takes")
    (root / "mine.wav").write_bytes(b"mine")
    journal = root / f".timbred-created-00000000-1-{'0' * 16}.jsonl"
    journal.write_bytes(json.dumps({"timbred": "created", "token": "0" * 16}).encode() + b"\n" + content)
    os.utime(journal, (0, 0))
    assert sweep(root) == []
    assert (root / "mine.wav").exists()


def test_created_journal_stays_small_and_complete(tmp_path: Path) -> None:
    record = Created(tmp_path)
    preview = tmp_path / "preview.wav"
    preview.write_bytes(b"x")
    record.add(preview, preview.lstat())
    for _ in range(3000):
        with record.part(tmp_path):
            pass
    [journal] = journals(tmp_path)
    assert journal.stat().st_size < created_files.COMPACT_ABOVE_BYTES + 1_000
    assert json.loads(journal.read_text().splitlines()[1])["path"] == "preview.wav"
    assert record.remove_files() == [preview]
    record.close()


def test_created_records_continue_after_the_folder_was_deleted(tmp_path: Path) -> None:
    root = tmp_path / "takes"
    root.mkdir()
    record = Created(root)
    with record.part(root):
        pass
    shutil.rmtree(root)
    root.mkdir()
    with record.part(root) as path:
        path.write_bytes(b"x")
        assert len(journals(root)) == 1
    record.close()
    assert list(root.iterdir()) == []


def test_sweep_accepts_a_missing_folder(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none") == []


def test_created_hidden_names_do_not_contain_the_hosts_name(tmp_path: Path) -> None:
    record = Created(tmp_path)
    with record.part(tmp_path) as path:
        [journal] = journals(tmp_path)
        host = platform.node().lower()
        assert not host or (host not in path.name and host not in journal.name)
    record.close()

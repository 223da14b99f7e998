"""The takes folder: files whole, names never used twice, nothing left behind, nothing outside."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.patience import TIMEOUT_S
from timbred.errors import DiskFull, ForbiddenPath
from timbred.storage import takes_folder
from timbred.storage.library import Library
from timbred.storage.takes_folder import OLD_COUNTER_NAME, FileNumbers, TakesFolder, Writer


def content(text: bytes) -> Writer:
    def write(file: BinaryIO) -> None:
        file.write(text)

    return write


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file() and path.name[0] != ".")


def unfinished(root: Path) -> list[Path]:
    return list(root.rglob(".timbred-*.part"))


def unrecorded(_path: Path, _placeholder: os.stat_result | None) -> None:
    """Record nothing."""


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    library = Library(tmp_path / "takes" / ".library.sqlite")
    yield library
    library.close()


@pytest.fixture
def takes(library: Library) -> TakesFolder:
    folder = TakesFolder(library.path.parent, library)
    folder.check()
    return folder


def test_takes_folder_names_count_up(takes: TakesFolder) -> None:
    paths = [takes.write("Rain on tin", "", "wav", content(b"x")) for _ in range(2)]
    paths.append(takes.write("rain on tin", "", ".FLAC", content(b"x")))
    assert [path.name for path in paths] == ["rain-on-tin-0001.wav", "rain-on-tin-0002.wav", "rain-on-tin-0003.flac"]
    assert all(path.parent == takes.root and path.read_bytes() == b"x" for path in paths)


def test_takes_folder_numbers_each_subfolder_separately(takes: TakesFolder) -> None:
    path = takes.write("pad", "live set/beds", "wav", content(b"x"))
    assert path == takes.root / "live set" / "beds" / "pad-0001.wav"
    assert takes.write("pad", "", "wav", content(b"x")).name == "pad-0001.wav"


def test_takes_folder_never_reuses_the_name_of_a_deleted_file(takes: TakesFolder, library: Library) -> None:
    takes.write("pad", "", "wav", content(b"x")).unlink()
    again = TakesFolder(takes.root, Library(library.path))
    assert again.write("pad", "", "wav", content(b"x")).name == "pad-0002.wav"


def test_takes_folder_never_overwrites_a_foreign_file(takes: TakesFolder) -> None:
    (takes.root / "pad-0007.wav").write_bytes(b"mine")
    assert takes.write("pad", "", "wav", content(b"x")).name == "pad-0008.wav"
    assert (takes.root / "pad-0007.wav").read_bytes() == b"mine"


def test_takes_folder_leaves_a_name_that_was_taken_at_the_last_moment(takes: TakesFolder) -> None:
    def slow(file: BinaryIO) -> None:
        file.write(b"x")
        (takes.root / "pad-0001.wav").mkdir()

    path = takes.write("pad", "", "wav", slow)
    assert path.name == "pad-0002.wav"


def test_writer_shows_the_file_only_when_it_is_whole(takes: TakesFolder) -> None:
    def look(file: BinaryIO) -> None:
        file.write(b"half")
        assert visible(takes.root) == []
        file.write(b" and half")

    assert takes.write("pad", "", "wav", look).read_bytes() == b"half and half"
    assert unfinished(takes.root) == []


def test_takes_folder_gives_a_hundred_writers_a_hundred_names(takes: TakesFolder, library: Library) -> None:
    other = TakesFolder(takes.root, Library(library.path))

    def write(number: int) -> Path:
        return (takes, other)[number % 2].write("pad", "", "wav", content(str(number).encode()))

    with ThreadPoolExecutor(16) as pool:
        paths = list(pool.map(write, range(100)))
    assert len(set(paths)) == 100
    assert [path.read_bytes() for path in paths] == [str(n).encode() for n in range(100)]
    assert visible(takes.root) == sorted(path.name for path in paths)
    assert unfinished(takes.root) == []


def test_takes_folder_gives_two_processes_different_names(takes: TakesFolder) -> None:
    program = (
        "import sys; from pathlib import Path; from timbred.storage.library import Library\n"
        "from timbred.storage.takes_folder import TakesFolder\n"
        "folder = TakesFolder(Path(sys.argv[1]), Library(Path(sys.argv[1]) / '.library.sqlite'))\n"
        "for _ in range(20): print(folder.write('pad', '', 'wav', lambda file: None).name)"
    )
    command = [sys.executable, "-c", program, str(takes.root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    names = "".join(process.communicate()[0] for process in running).split()
    assert sorted(names) == [f"pad-{number:04d}.wav" for number in range(1, 41)]


@pytest.mark.parametrize("exclusive_renames", [True, False])
@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_writer_publishes_without_hard_links(
    takes: TakesFolder, monkeypatch: pytest.MonkeyPatch, number: int, exclusive_renames: bool
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(number, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    if not exclusive_renames:
        monkeypatch.setattr(takes_folder, "rename_exclusively", no_links)
    (takes.root / "pad-0001.wav").write_bytes(b"mine")
    assert takes.write("pad", "", "wav", content(b"x")).read_bytes() == b"x"
    assert (takes.root / "pad-0001.wav").read_bytes() == b"mine"
    with pytest.raises(FileExistsError):
        takes_folder.publish(takes.root / "pad-0002.wav", takes.root / "pad-0001.wav", unrecorded)
    assert unfinished(takes.root) == []


def test_writer_without_hard_links_leaves_no_empty_file_after_a_failure(
    takes: TakesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(Path, "hardlink_to", fails)
    monkeypatch.setattr(takes_folder, "rename_exclusively", fails)
    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(ForbiddenPath):
        takes.write("pad", "", "wav", content(b"x"))
    assert visible(takes.root) == []


def test_writer_copies_where_one_folder_is_on_several_disks(
    takes: TakesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", other_disk)
    monkeypatch.setattr(takes_folder, "rename_exclusively", other_disk)
    monkeypatch.setattr(Path, "replace", other_disk)
    assert takes.write("pad", "", "wav", content(b"whole")).read_bytes() == b"whole"
    assert unfinished(takes.root) == []


def test_writer_leaves_a_file_that_replaced_its_placeholder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    def taken(path: Path, status: os.stat_result | None) -> None:
        if status is not None:
            path.unlink()
            path.write_bytes(b"mine")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    monkeypatch.setattr(takes_folder, "rename_exclusively", no_links)
    hidden, final = tmp_path / ".hidden", tmp_path / "pad-0001.wav"
    hidden.write_bytes(b"x")
    with pytest.raises(FileExistsError):
        takes_folder.publish(hidden, final, taken)
    assert final.read_bytes() == b"mine"
    assert hidden.read_bytes() == b"x"


def test_takes_folder_reports_a_full_disk(takes: TakesFolder) -> None:
    def full(file: BinaryIO) -> None:
        file.write(b"some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFull, match=str(takes.root)):
        takes.write("pad", "", "wav", full)
    assert visible(takes.root) == []
    assert unfinished(takes.root) == []


def test_writer_leaves_nothing_after_any_exception(takes: TakesFolder) -> None:
    def broken(file: BinaryIO) -> None:
        file.write(b"some of it")
        raise KeyError("a fault")

    with pytest.raises(KeyError):
        takes.write("pad", "", "wav", broken)
    assert visible(takes.root) == []
    assert unfinished(takes.root) == []


def test_takes_folder_refuses_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "takes").write_bytes(b"")
    for root in (tmp_path / "takes", tmp_path / "takes" / "inside"):
        with pytest.raises(ForbiddenPath, match=r"takes.folder"):
            TakesFolder(root).check()
        with pytest.raises(ForbiddenPath, match=r"can't be written to"):
            TakesFolder(root).write("pad", "", "wav", content(b"x"))


def test_takes_folder_reports_a_read_only_folder(takes: TakesFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(ForbiddenPath, match="Read-only file system"):
        takes.write("pad", "", "wav", content(b"x"))
    with pytest.raises(ForbiddenPath, match="Read-only file system"):
        takes.check()


def test_takes_folder_recreates_a_deleted_folder(takes: TakesFolder) -> None:
    takes.write("pad", "", "wav", content(b"x"))
    shutil.rmtree(takes.root)
    assert takes.write("pad", "set", "wav", content(b"x"), temporary=True).exists()
    assert [path.name for path in takes.remove_temporary()] == ["pad-0001.wav"]


def test_takes_folder_refuses_a_folder_whose_disk_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = {str(tmp_path / "disk"), "/"}
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) in mounted)  # pyright: ignore
    takes = TakesFolder(tmp_path / "disk" / "takes")
    takes.check()
    shutil.rmtree(takes.root)
    mounted.remove(str(tmp_path / "disk"))
    with pytest.raises(ForbiddenPath, match=r"the disk that was mounted at .*disk isn't there"):
        takes.write("pad", "", "wav", content(b"x"))
    assert not takes.root.exists()
    mounted.add(str(tmp_path / "disk"))
    assert takes.write("pad", "", "wav", content(b"x")).exists()


def test_takes_folder_uses_a_disk_that_was_mounted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = {"/"}
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) in mounted)  # pyright: ignore
    takes = TakesFolder(tmp_path / "disk" / "takes")
    takes.check()
    mounted.add(str(tmp_path / "disk"))
    assert takes.write("pad", "", "wav", content(b"x")).exists()


@pytest.mark.parametrize("content_", [b"not a database, and long enough to be looked at as one", b"SQLite format 3\0"])
def test_file_numbers_continue_after_damage_and_keep_the_damaged_file(tmp_path: Path, content_: bytes) -> None:
    (tmp_path / OLD_COUNTER_NAME).write_bytes(content_)
    (tmp_path / "pad-0041.wav").write_bytes(b"")
    with closing(Library(tmp_path / "library.sqlite")) as library:
        names = FileNumbers(tmp_path, library)
        assert [names.next_number(tmp_path, "pad") for _ in range(3)] == [42, 43, 44]
        assert FileNumbers(tmp_path, library).next_number(tmp_path, "pad") == 45
    assert (tmp_path / f"{OLD_COUNTER_NAME}.damaged-1").read_bytes() == content_


def old_counter(folder: Path, rows: list[tuple[str, str, int]]) -> Path:
    """Write the counter file of an earlier version."""
    path = folder / OLD_COUNTER_NAME
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(
            "CREATE TABLE names (folder TEXT, slug TEXT, number INTEGER NOT NULL, PRIMARY KEY (folder, slug))"
        )
        database.executemany("INSERT INTO names VALUES (?, ?, ?)", rows)
    return path


def test_file_numbers_take_over_the_old_counter_file_once(tmp_path: Path) -> None:
    path = old_counter(tmp_path, [(".", "pad", 12), ("set", "rain", 3)])
    (tmp_path / "set").mkdir()
    with closing(Library(tmp_path / "library.sqlite")) as library:
        library.raise_file_numbers([("set", "rain", 8)])
        names = FileNumbers(tmp_path, library)
        assert names.next_number(tmp_path, "pad") == 13
        assert names.next_number(tmp_path / "set", "rain") == 9
        assert not path.exists()
        assert FileNumbers(tmp_path, library).next_number(tmp_path, "pad") == 14


def test_file_numbers_read_the_old_counter_file_into_a_library_in_memory_and_keep_it(tmp_path: Path) -> None:
    path = old_counter(tmp_path, [(".", "pad", 12)])
    before = path.read_bytes()
    with closing(Library(tmp_path / "library.sqlite", in_memory=True)) as library:
        assert FileNumbers(tmp_path, library).next_number(tmp_path, "pad") == 13
    assert path.read_bytes() == before


@pytest.mark.parametrize("statements", [(), ("CREATE TABLE names (mine TEXT)",), ("CREATE TABLE more (mine TEXT)",)])
def test_file_numbers_leave_a_foreign_file_in_the_place_of_the_old_counter(
    tmp_path: Path, statements: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / OLD_COUNTER_NAME
    path.touch()
    if statements == ("CREATE TABLE more (mine TEXT)",):
        path.unlink()
        old_counter(tmp_path, [(".", "pad", 12)])
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)
    before = path.read_bytes()
    with closing(Library(tmp_path / "library.sqlite")) as library:
        assert FileNumbers(tmp_path, library).next_number(tmp_path, "pad") == 1
    assert path.read_bytes() == before
    assert "isn't timbred's, and is left as it is" in caplog.text


def test_file_numbers_retry_an_old_counter_file_that_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = old_counter(tmp_path, [(".", "pad", 12)])
    monkeypatch.setattr(takes_folder, "LOCK_TIMEOUT_S", 0.0)
    monkeypatch.setattr(takes_folder, "RETRY_AFTER_S", 0.0)
    with closing(Library(tmp_path / "library.sqlite")) as library:
        names = FileNumbers(tmp_path, library)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert names.next_number(tmp_path, "pad") == 1
        assert names.next_number(tmp_path, "pad") == 13
    assert not path.exists()
    assert "database is locked" in caplog.text


def test_file_numbers_without_a_library_follow_the_files(tmp_path: Path) -> None:
    (tmp_path / "pad-0041.wav").write_bytes(b"")
    names = FileNumbers(tmp_path)
    assert [names.next_number(tmp_path, "pad") for _ in range(2)] == [42, 43]
    assert list(tmp_path.iterdir()) == [tmp_path / "pad-0041.wav"]


def test_file_numbers_wait_once_for_a_lock_and_continue_without_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Library(tmp_path / "library.sqlite")) as library:
        names = FileNumbers(tmp_path, library)
        assert names.next_number(tmp_path, "pad") == 1
        with closing(sqlite3.connect(library.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert [names.next_number(tmp_path, "pad") for _ in range(20)] == list(range(2, 22))
    assert caplog.text.count("a number may be given again after its file was deleted") == 1


def test_file_numbers_are_equal_for_folders_that_other_systems_take_for_one(tmp_path: Path) -> None:
    (tmp_path / "\u00c9t\u00e9").mkdir()
    (tmp_path / "e\u0301TE\u0301").mkdir(exist_ok=True)
    names = FileNumbers(tmp_path)
    assert names.next_number(tmp_path / "\u00c9t\u00e9", "pad") == 1
    assert names.next_number(tmp_path / "e\u0301TE\u0301", "pad") == 2


@pytest.mark.skipif(
    not takes_folder.SYNC_AFTER_PUBLICATION, reason="here a file is brought to the disk before it has its name"
)
def test_writer_publishes_before_the_disk_is_synchronised(takes: TakesFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_is_free, settled, synchronize = threading.Event(), set[int](), os.fsync

    def slow(handle: int) -> None:
        assert disk_is_free.wait(TIMEOUT_S)
        synchronize(handle)
        settled.add(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", slow)
    paths = [takes.write("pad", "set", "wav", content(b"whole")) for _ in range(2)]
    assert [path.read_bytes() for path in paths] == [b"whole", b"whole"]
    assert not settled
    paths[0].unlink()  # its owner didn't want it
    disk_is_free.set()
    takes.settle()
    assert settled >= {paths[1].stat().st_ino, paths[1].parent.stat().st_ino}


def test_writer_logs_a_disk_failure_behind_a_take(
    takes: TakesFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(takes_folder, "SYNC_AFTER_PUBLICATION", True)
    monkeypatch.setattr(os, "fsync", broken)
    path = takes.write("pad", "", "wav", content(b"x"))
    takes.settle()
    assert f"{path} would be lost if the power failed now: Input/output error" in caplog.text


def test_file_numbers_exceed_four_digits(tmp_path: Path) -> None:
    (tmp_path / "pad-9999.wav").write_bytes(b"")
    assert TakesFolder(tmp_path).write("pad", "", "wav", content(b"x")).name == "pad-10000.wav"


def test_takes_folder_extensions_are_plain(takes: TakesFolder) -> None:
    for extension in ("", "../x", "w/v", "wav.exe", "ⅷ"):
        with pytest.raises(ForbiddenPath, match="extension"):
            takes.write("pad", "", extension, content(b"x"))


def test_file_numbers_skip_foreign_names_at_once(takes: TakesFolder) -> None:
    takes.write("pad", "", "wav", content(b"x"))
    for number in range(2, 300):
        (takes.root / f"pad-{number:04d}.wav").write_bytes(b"theirs")
    assert takes.write("pad", "", "wav", content(b"x")).name == "pad-0300.wav"

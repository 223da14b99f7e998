"""Takes folders on every kind of disk: what is there stays, and each request ends."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import clients
from tests.integration.clients import SOUND, UdpClient, new_id, order
from tests.integration.conftest import StartDaemon, settings_for
from tests.integration.daemons import DaemonProcess, hollow_checkpoint

SHARE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
int link(const char *a, const char *b) { errno = EPERM; return -1; }
int linkat(int a, const char *b, int c, const char *d, int e) { errno = EPERM; return -1; }
int renameat2(int a, const char *b, int c, const char *d, unsigned e) { errno = EINVAL; return -1; }
int flock(int a, int b) { errno = ENOLCK; return -1; }
static int forwarded(const char *name, int file, int command, void *argument) {
    int (*real)(int, int, ...) = dlsym(RTLD_NEXT, name);
    if (command == F_SETLK || command == F_SETLKW || command == F_GETLK) { errno = ENOLCK; return -1; }
    return real(file, command, argument);
}
int fcntl(int file, int command, ...) {
    va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest);
    return forwarded("fcntl", file, command, argument);
}
int fcntl64(int file, int command, ...) {
    va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest);
    return forwarded("fcntl64", file, command, argument);
}
"""
"""A C library that answers as a share without hard links, exclusive renames and locks does."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, mounted for one test."""
    place = tmp_path / "disk"
    place.mkdir()
    if sys.platform != "linux" or not mount(place):
        pytest.skip("only an administrator of a Linux machine can mount a disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


def mount(place: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    return (
        shutil.which("mount") is not None and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every daemon of this test sees its disks as shares without hard links and locks."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("a share without locks is simulated with LD_PRELOAD: Linux with a C compiler")
    (tmp_path / "share.c").write_text(SHARE)
    library = tmp_path / "share.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", library, tmp_path / "share.c", "-ldl"], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))


def preview_of(client: UdpClient, prompt: str) -> Path:
    name = new_id()
    client.say("generate", name, prompt, "@preview", 1, "@seconds", 0.2, "@steps", 4)
    events = client.until_end(name)
    assert events[-1].name == "done"
    return next(Path(str(event.arguments[1])) for event in events if event.name == "preview")


def test_takes_folder_loses_only_the_daemons_own_previews_at_the_end(start_daemon: StartDaemon, tmp_path: Path) -> None:
    previews = tmp_path / "daemon-0" / "takes" / "previews"
    previews.mkdir(parents=True)
    mine = previews / "my own recording.wav"
    mine.write_bytes(b"mine")
    daemon = start_daemon()
    with clients.udp(daemon.osc) as client:
        take = Path(str(client.make_take("kick drum", "@folder", "previews").arguments[2]))
        plain, edited, kept = (preview_of(client, prompt) for prompt in ("plain", "edited", "kept"))
        edited.write_bytes(edited.read_bytes() + b"\0")
        kept.rename(previews / "kept.wav")
    assert plain.is_file()
    daemon.stop()
    assert sorted(previews.iterdir()) == sorted([mine, take, edited, previews / "kept.wav"])


def test_takes_folder_loses_the_previews_of_a_killed_daemon_at_the_start(tmp_path: Path) -> None:
    model = hollow_checkpoint(tmp_path / "hollow")
    killed = DaemonProcess(tmp_path, *settings_for(model))
    family = killed.family()
    try:
        with clients.udp(killed.osc) as client:
            preview = preview_of(client, "pad")
        (preview.parent / "mine.wav").write_bytes(b"mine")
        killed.signal(signal.SIGKILL)
        killed.ended()
    finally:
        killed.end_by_force(family)
    assert preview.is_file()
    after = DaemonProcess(tmp_path, *settings_for(model))
    assert list(preview.parent.iterdir()) == [preview.parent / "mine.wav"]
    after.stop()


def test_takes_folder_keeps_previews_of_another_daemon(start_daemon: StartDaemon) -> None:
    first = start_daemon()
    with clients.udp(first.osc) as client:
        theirs = preview_of(client, "theirs")
        second = start_daemon(f"takes.folder={first.takes}")
        with clients.udp(second.osc) as other:
            own = preview_of(other, "own")
        second.stop()
        assert theirs.is_file()
        assert not own.exists()
        client.make_take("pad")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="folders' names are Unicode there")
def test_takes_folder_that_is_not_utf8_fails_each_request_and_sends_no_take(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/Kl\xe4nge")
    daemon = start_daemon(f"takes.folder={folder}")
    with clients.udp(daemon.osc) as client:
        client.say("generate", "a1", "pad", "@seconds", 0.2, "@steps", 1)
        events = client.until_end()
        assert "take" not in order(events)
        assert events[-1].arguments[:2] == ("a1", "forbidden-path")
        assert "its name isn't UTF-8" in str(events[-1].arguments[2])
        assert "Kl\\xe4nge" in str(client.ask("settings/takes.folder").arguments[-1])
    assert "its name isn't UTF-8" in daemon.log.read_text("utf-8")


@pytest.mark.parametrize(
    ("folder", "code", "said"),
    [
        ("../out", "forbidden-path", "folder: got '../out'"),
        ("con", "forbidden-path", "device's name on Windows"),
        (".hidden", "forbidden-path", "isn't allowed"),
        ("x" * 121, "bad-request", "folder"),
        ("\U0001d11e" * 61, "forbidden-path", "at most 120 characters"),
    ],
)
def test_takes_folder_refuses_impossible_folders_before_rendering(
    client: UdpClient, folder: str, code: str, said: str
) -> None:
    for request, given in (("generate", "pad"), ("vary", str(client.make_take("pad").arguments[-1]))):
        name = new_id()
        client.say(request, name, given, "@seconds", 0.2, "@steps", 1, "@folder", folder)
        [failure] = client.until_end(name)
        assert failure.arguments[:2] == (name, code)
        assert said in str(failure.arguments[2])


def test_takes_folder_refuses_links_that_lead_outside_before_rendering(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon()
    (daemon.takes / "out").symlink_to(tmp_path)
    with clients.udp(daemon.osc) as client:
        client.say("generate", "a1", "pad", "@seconds", 0.2, "@steps", 1, "@folder", "out")
        [failure] = client.until_end("a1")
        assert failure.arguments[:2] == ("a1", "forbidden-path")


def test_takes_folder_on_a_share_without_locks_and_links_adds_no_wait(share: None, start_daemon: StartDaemon) -> None:
    _ = share
    daemon = start_daemon()
    with clients.udp(daemon.osc) as client:
        takes = [Path(str(client.make_take("pad").arguments[2])) for _ in range(8)]
        assert [take.name for take in takes] == [f"pad-{number:04d}.wav" for number in range(1, 9)]
        client.say("takes", "@search", "pad")
        assert [event.name for event in client.until("done")] == ["take"] * 8 + ["done"]
    log = daemon.log.read_text("utf-8")
    assert "takes are stored only until the daemon stops: files can't be locked" in log
    assert log.count("a number may be given again after its file was deleted") == 1, (
        "one take waited for a lock, not each"
    )


def test_takes_folder_on_a_full_disk_ends_requests_and_leaves_no_partial_file(
    disk: Path, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(f"takes.folder={disk}/takes")
    with clients.udp(daemon.osc) as client:
        first = client.make_take("pad")
        with (disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        for _ in range(3):
            name = new_id()
            client.say("generate", name, "pad", "@seconds", 0.2, "@steps", 1)
            assert client.until_end(name)[-1].arguments[:2] == (name, "disk-full")
        (disk / "ballast").unlink()
        name = new_id()
        client.say("generate", name, "pad", "@seconds", 0.2, "@steps", 1)
        assert order(client.until_end(name)) == SOUND
        client.say("takes", "@search", "pad")
        assert len(client.until("done")) == 3
    assert Path(str(first.arguments[2])).is_file()
    daemon.stop()
    assert sorted(path.suffix for path in (disk / "takes").iterdir() if path.name[0] != ".") == [".wav", ".wav"]


def test_takes_folder_on_an_unmounted_disk_is_not_replaced_by_the_one_below(
    disk: Path, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(f"takes.folder={disk}/takes")
    with clients.udp(daemon.osc) as client:
        client.make_take("pad")
        subprocess.run(["umount", "-l", str(disk)], check=True)
        name = new_id()
        client.say("generate", name, "pad", "@seconds", 0.2, "@steps", 1)
        failure = client.until_end(name)[-1]
        assert failure.arguments[:2] == (name, "forbidden-path")
        assert f"the disk that was mounted at {disk} isn't there" in str(failure.arguments[2])
        assert list(disk.iterdir()) == []
        assert mount(disk)
        assert Path(str(client.make_take("pad").arguments[2])).is_file()
        client.say("takes", "@search", "pad")
        assert len(client.until("done")) == 3


def test_takes_folder_library_on_a_read_only_disk_continues_elsewhere(disk: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(f"library.file={disk}/library.sqlite")
    with clients.udp(daemon.osc) as client:
        client.make_take("first")
    daemon.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    again = start_daemon(f"library.file={disk}/library.sqlite")
    with clients.udp(again.osc) as client:
        client.make_take("second")
        for prompt in ("first", "second"):
            client.say("takes", "@search", prompt)
            assert [event.name for event in client.until("done")] == ["take", "done"]
    assert "Until then takes are stored in" in again.log.read_text("utf-8")

"""Paths from outside, and slugs from prompts."""

import os
import re
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from timbred.errors import BadAudio, ForbiddenPath
from timbred.filenames import MAX_FOLDER_UNITS, path_limit
from timbred.protocol import messages as m
from timbred.storage.created_files import Created
from timbred.storage.paths import (
    MAX_NAME_UNITS,
    MAX_SLUG_LENGTH,
    RESERVED_NAMES,
    AllowedFolders,
    check_length,
    folder_inside,
    slug,
)
from timbred.storage.takes_folder import TakesFolder

NASTY = st.lists(st.sampled_from([*"ab./\\ ~:\0\n*?-é", "..", "C:", "con", "\ud800"]), max_size=12).map("".join)


@pytest.mark.parametrize(
    "folder",
    [
        *(
            "..",
            "../x",
            "a/../../x",
            "/etc",
            "\\\\server\\share",
            "C:",
            "c:\\x",
            "a\0b",
            "a//b",
            ".hidden",
            "~",
            "~root",
        ),
        *("con", "a/NUL.txt", "a\nb", "a ", "a.", "a:b", "x" * 201, "a/" * 251, "\ud800", "/", " "),
    ],
)
def test_paths_refuse_folders_that_leave_or_break_by_name(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ForbiddenPath, match="folder: got "):
        folder_inside(tmp_path, folder)


@pytest.mark.parametrize("folder", ["a", "a/b", "a\\b", "a/", "Été 2026", "v1.2", "drums (dry)", "雨"])
def test_paths_accept_plain_folders(folder: str, tmp_path: Path) -> None:
    assert folder_inside(tmp_path, folder).is_relative_to(tmp_path)


WINDOWS = path_limit("win32", long_paths=False)


@pytest.mark.parametrize(
    ("platform", "long_paths", "folder", "fits"),
    [
        ("win32", False, "C:\\" + "x" * 195, True),  # 198 characters, a separator and a name of 60: 259
        ("win32", False, "C:\\" + "x" * 196, False),
        ("win32", False, "C:\\" + "\U0001d11e" * 97, True),  # a clef is two characters to Windows
        ("win32", False, "C:\\" + "\U0001d11e" * 98, False),
        ("win32", True, "C:\\" + "x" * 2000, True),
        ("darwin", False, "/" + "x" * 961, True),
        ("darwin", False, "/" + "é" * 481, False),  # bytes count there
        ("linux", False, "/" + "x" * 4033, True),
        ("linux", False, "/" + "x" * 4034, False),
    ],
)
def test_check_length_leaves_room_for_a_file_name(platform: str, long_paths: bool, folder: str, fits: bool) -> None:
    limit = path_limit(platform, long_paths)
    if fits:
        check_length(folder, limit)
    else:
        with pytest.raises(ForbiddenPath, match="paths in it would have up to"):
            check_length(folder, limit)


def test_check_length_says_what_to_do() -> None:
    with pytest.raises(ForbiddenPath) as refused:
        check_length("C:\\" + "x" * 196, WINDOWS)
    assert str(refused.value).endswith(
        ": paths in it would have up to 260 characters, and Windows takes 259: name a shorter folder with @folder,"
        " or set takes.folder to one, or switch on Windows' long paths"
    )


def test_takes_folder_refuses_names_too_long_for_the_system_before_writing(tmp_path: Path) -> None:
    short = tmp_path / "t"
    room = 259 - 1 - MAX_NAME_UNITS - len(str(short)) - 1
    if room < 1:
        pytest.skip("the temporary folder's own path is too long for this test; set TMPDIR to a shorter one")
    takes = TakesFolder(short, limit=WINDOWS)
    takes.check()
    name = "/".join(["x" * 40, "y" * 40, "z" * 40])[: min(room, MAX_FOLDER_UNITS)].rstrip("/")
    takes.check_inside(name)
    deep = TakesFolder(short / ("x" * (room - 5)), limit=WINDOWS)
    deep.check()
    with pytest.raises(ForbiddenPath, match="Windows takes 259"):
        deep.check_inside("y" * 20)
    with pytest.raises(ForbiddenPath, match="Windows takes 259"):
        deep.write("pad", "y" * 20, "wav", lambda file: None)
    assert not (deep.root / ("y" * 20)).exists()
    with pytest.raises(ForbiddenPath, match="Windows takes 259"):
        TakesFolder(short / ("x" * (room + 1)), limit=WINDOWS).check()


def test_takes_folder_names_fit_the_reserved_room(tmp_path: Path) -> None:
    takes = TakesFolder(tmp_path)
    seen: set[str] = set()
    path = takes.write("x" * 300, "", "flac", lambda file: seen.update(entry.name for entry in tmp_path.iterdir()))
    with Created(tmp_path).part(tmp_path):
        seen |= {path.name, *(entry.name for entry in tmp_path.iterdir())}
    assert any(name.endswith(".part") for name in seen)
    assert any(name.endswith(".jsonl") for name in seen)
    longest_number = 10 - len(str(os.getpid()))  # a journal's name has the process's number in it
    assert max(map(len, seen)) + longest_number <= MAX_NAME_UNITS


def test_max_folder_units_is_the_declared_limit(tmp_path: Path) -> None:
    declared = msgspec.json.schema(m.Generate)["$defs"]["Generate"]["properties"]["folder"]["anyOf"][0]["maxLength"]
    assert declared == MAX_FOLDER_UNITS
    longest = "/".join(["x" * 59, "y" * 60])
    assert len(longest) == declared
    folder_inside(tmp_path, longest)
    with pytest.raises(ForbiddenPath, match=f"at most {declared} characters"):
        folder_inside(tmp_path, longest + "y")


@settings(deadline=None)
@given(st.one_of(NASTY, st.text(max_size=20)))
@example("")
def test_paths_refuse_folders_that_lead_outside(tmp_path_factory: pytest.TempPathFactory, folder: str) -> None:
    root = tmp_path_factory.getbasetemp()
    try:
        inside = folder_inside(root, folder)
    except ForbiddenPath as error:
        str(error).encode()
    else:
        assert Path(os.path.normpath(inside)).is_relative_to(root)


def test_paths_refuse_links_that_lead_outside(tmp_path: Path) -> None:
    root = tmp_path / "takes"
    (root / "real").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to(root / "real")
    (root / "round").symlink_to(root / "round")
    assert folder_inside(root, "in") == root / "in"
    for folder in ("out", "out/x"):
        with pytest.raises(ForbiddenPath, match="a link in it leads outside"):
            folder_inside(root, folder)
    with suppress(ForbiddenPath):  # not every system resolves such a link
        assert folder_inside(root, "round/x").is_relative_to(root)


def test_paths_accept_a_takes_folder_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "takes").symlink_to(tmp_path / "disk")
    assert folder_inside(tmp_path / "takes", "a") == tmp_path / "takes" / "a"


def test_paths_accept_input_files_inside_and_refuse_those_outside(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    (two / "kick.wav").write_bytes(b"x")
    (tmp_path / "secret.wav").write_bytes(b"x")
    (one / "link.wav").symlink_to(tmp_path / "secret.wav")
    allowed = AllowedFolders([one, two])
    kick = (two / "kick.wav").resolve()
    assert allowed.resolve(str(two / "kick.wav")) == kick
    assert allowed.resolve("kick.wav") == kick
    assert allowed.resolve("../two/kick.wav") == kick
    for text in (
        "../secret.wav",
        str(tmp_path / "secret.wav"),
        "/none/such.wav",
        str(one / "link.wav"),
        "",
        "a\0b",
        "\ud800",
    ):
        with pytest.raises(ForbiddenPath):
            allowed.resolve(text)
    for text in ("snare.wav", str(two), "."):
        with pytest.raises(BadAudio, match="no such file"):
            allowed.resolve(text)
    with pytest.raises(ForbiddenPath):
        AllowedFolders([]).resolve("kick.wav")


@settings(deadline=None)
@given(st.one_of(NASTY, st.text(max_size=30)))
@example("~nobody-of-this-name/x")
def test_paths_refuse_or_contain_any_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.getbasetemp()
    try:
        assert AllowedFolders([root]).resolve(text).is_relative_to(root.resolve())
    except (ForbiddenPath, BadAudio) as error:
        str(error).encode()


@settings(deadline=None)
@given(st.text(max_size=400))
@example("con")
@example("LPT1")
@example("İstanbul ﬁlm")
def test_slug_fits_every_system(text: str) -> None:
    made = slug(text)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", made)
    assert len(made) <= MAX_SLUG_LENGTH + 6
    assert made not in RESERVED_NAMES
    assert slug(made) == made


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("warm analog pad", "warm-analog-pad"),
        ("Äolsharfe, größer!", "aolsharfe-grosser"),
        ("œuvre d'été", "oeuvre-dete"),
        ("Łódź", "lodz"),
        ("Щука", "shchuka"),
        ("Ψυχή", "psychi"),
        ("F# minor", "f-sharp-minor"),
        ("雨 rain", "rain"),
        ("雨", "sound"),
        ("", "sound"),
        ("a very long prompt that goes on and on and on", "a-very-long-prompt-that-goes-on-and-on"),
        ("x" * 100, "x" * 40),
    ],
)
def test_slug_is_readable(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected

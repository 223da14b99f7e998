"""Paths from outside, and slugs from prompts."""

import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from timbred.delivery.paths import AllowedFolders, folder_inside
from timbred.delivery.slugs import LONGEST, RESERVED, slug
from timbred.errors import BadAudio, ForbiddenPath

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
def test_folders_that_leave_or_break_are_named(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ForbiddenPath, match="folder: got "):
        folder_inside(tmp_path, folder)


@pytest.mark.parametrize("folder", ["a", "a/b", "a\\b", "a/", "Été 2026", "v1.2", "drums (dry)", "雨"])
def test_folders_that_are_fine(folder: str, tmp_path: Path) -> None:
    assert folder_inside(tmp_path, folder).is_relative_to(tmp_path)


@settings(deadline=None)
@given(st.one_of(NASTY, st.text(max_size=20)))
@example("")
def test_no_folder_leads_outside(tmp_path_factory: pytest.TempPathFactory, folder: str) -> None:
    root = tmp_path_factory.getbasetemp()
    try:
        inside = folder_inside(root, folder)
    except ForbiddenPath as error:
        str(error).encode()
    else:
        assert Path(os.path.normpath(inside)).is_relative_to(root)


def test_links_that_lead_outside(tmp_path: Path) -> None:
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


def test_a_takes_folder_that_is_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "takes").symlink_to(tmp_path / "disk")
    assert folder_inside(tmp_path / "takes", "a") == tmp_path / "takes" / "a"


def test_input_files_inside_and_outside(tmp_path: Path) -> None:
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
def test_no_path_text_breaks_or_escapes(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
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
def test_slugs_are_fit_for_every_system(text: str) -> None:
    made = slug(text)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", made)
    assert len(made) <= LONGEST + 6
    assert made not in RESERVED
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
def test_slugs_read_well(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected

from pathlib import Path

import pytest

from training.pocket import sources
from training.pocket.recordings import RECORDINGS
from training.pocket.sources import SOURCES, Source, is_in_notice, path_of


def test_sources_have_a_licence_entry_in_the_notice() -> None:
    assert [name for name, source in SOURCES.items() if not is_in_notice(source)] == []


def test_sources_without_a_licence_entry_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "some.sf2"
    file.touch()
    monkeypatch.setitem(sources.SOURCES, "stray", Source("stray-soundfont", file, "MIT"))
    with pytest.raises(PermissionError, match="stray-soundfont"):
        path_of("stray")


def test_sources_entry_with_another_licence_does_not_count() -> None:
    source = Source("some-font", Path("x"), "CC0")
    assert not is_in_notice(source, "# Notice\n\n## some-font\n\nLicence: GPL.\n\n## other\n\nLicence: CC0.\n")
    assert is_in_notice(source, "# Notice\n\n## some-font\n\nLicence: CC0.\n")


def test_sources_name_a_missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = Source("sonic-pi-samples", tmp_path / "missing", "CC0")
    monkeypatch.setitem(sources.SOURCES, "samples", source)
    with pytest.raises(FileNotFoundError, match="apt-get install sonic-pi-samples"):
        path_of("samples")


def test_sources_leave_the_quoted_record_out() -> None:
    assert not [name for name in RECORDINGS if "amen" in name]

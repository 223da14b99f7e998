"""Settings: where they come from, what an empty one means, and paths that are absolute or refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.config import NAMED, SETTINGS, Config, SettingSpec, load
from timbred.errors import BadRequest
from timbred.filenames import is_utf8

LATIN = os.fsdecode(b"/srv/Kl\xe4nge")


def from_flags(*flags: str) -> Config:
    return load(None, {}, flags)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
@pytest.mark.parametrize("empty", ["", "  "])
def test_load_takes_an_empty_variable_for_none(setting: object, empty: str) -> None:
    assert load(None, {variable.environment: empty for variable in SETTINGS}, []) == load(None, {}, [])


@pytest.mark.parametrize("name", [setting.name for setting in SETTINGS if not setting.may_be_empty])
def test_load_refuses_an_empty_flag(name: str) -> None:
    with pytest.raises(BadRequest, match=f"setting {name}: the value is empty, .* omit it to use the default"):
        from_flags(f"{name}=")


@pytest.mark.parametrize("name", [setting.name for setting in SETTINGS if setting.may_be_empty])
def test_load_takes_an_empty_flag_where_it_has_a_meaning(name: str) -> None:
    assert from_flags(f"{name}=")[name] == ""


def test_load_refuses_empty_values_in_a_file_and_an_empty_model_source(tmp_path: Path) -> None:
    (tmp_path / "timbred.toml").write_text('[takes]\nfolder = ""\n')
    with pytest.raises(BadRequest, match=r"setting takes.folder: the value is empty"):
        load(tmp_path / "timbred.toml", {}, [])
    with pytest.raises(BadRequest, match=r"models.mine.source: the value is empty"):
        from_flags("models.mine.source=")
    assert load(None, {"TIMBRED_MODELS_MINE_SOURCE": ""}, []).sources == {}


def test_load_resolves_relative_paths_from_the_settings_file_or_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = tmp_path / "timbred.toml"
    file.write_text(
        '[takes]\nfolder = "sounds"\n[files]\nallowed = ["drums", "/loops"]\n'
        '[models]\nmine.source = "./m"\nhub.source = "a/b"'
    )
    config = load(file, {"TIMBRED_MODELS_FOLDER": "models"}, ["library.file=~/takes.sqlite"])
    assert config.takes_folder == tmp_path / "sounds"
    assert config.models_folder == tmp_path / "here" / "models"
    assert config.library_file == Path.home() / "takes.sqlite"
    assert config.readable_folders == (tmp_path / "sounds", tmp_path / "drums", Path("/loops"))
    assert config.sources == {"mine": str(tmp_path / "m"), "hub": "a/b"}


@pytest.mark.skipif(sys.platform == "win32", reason="the working folder can't be removed there")
def test_load_refuses_a_relative_path_without_a_working_folder(tmp_path: Path) -> None:
    program = (
        "import os, sys; os.rmdir(os.getcwd()); from timbred.config import load\n"
        "from timbred.errors import BadRequest\n"
        "load(None, {}, ['takes.folder=/srv/takes'])\n"
        "try: load(None, {}, ['takes.folder=takes'])\n"
        "except BadRequest as error: print(error)"
    )
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path / "gone", capture_output=True, text=True, check=True
    )
    assert "takes.folder: takes is relative to the working folder, which doesn't exist" in done.stdout


def test_load_refuses_an_unknown_users_home() -> None:
    with pytest.raises(BadRequest, match=r"takes.folder: ~nobody-of-this-name/x: there is no such home folder"):
        from_flags("takes.folder=~nobody-of-this-name/x")


@pytest.mark.skipif(sys.platform == "win32", reason="all paths are Unicode there")
def test_load_accepts_paths_that_are_not_utf8_where_they_are_not_sent() -> None:
    for name in ("takes.folder", "files.allowed", "library.file", "engine.cache"):
        assert from_flags(f"{name}={LATIN}")[name] == LATIN
    for flag in (f"models.folder={LATIN}", f"models.mine.source={LATIN}", f"host={LATIN}"):
        with pytest.raises(BadRequest, match="isn't UTF-8") as caught:
            from_flags(flag)
        assert "Kl\\xe4nge" in str(caught.value)


@pytest.mark.parametrize("name", ["con", "NUL", "lpt1", "aux.v2", "pocket."])
def test_load_accepts_only_model_names_that_fit_every_system(name: str) -> None:
    with pytest.raises(BadRequest, match=f"models.{name}.source: "):
        from_flags(f"models.{name}.source=a/b")


@given(st.sampled_from(sorted(NAMED)), st.text(alphabet=st.characters(codec=None), max_size=20))
def test_load_takes_any_value_or_refuses_it_with_the_settings_name(name: str, raw: str) -> None:
    try:
        value = from_flags(f"{name}={raw}")[name]
    except BadRequest as error:
        assert name in str(error)
        assert is_utf8(str(error))
    else:
        paths = str(value).split(os.pathsep) if name == "files.allowed" else [str(value)]
        assert not NAMED[name].is_path or all(Path(path).is_absolute() for path in paths if path)


HOMELESS = """
import sys
from timbred.config import load
from timbred.errors import BadRequest
config = load(None, {}, sys.argv[1:])
for name in ("takes_folder", "models_folder", "loras_folder", "library_file", "spare_library_folder"):
    try: print(name, getattr(config, name))
    except BadRequest as error: print(name, "refused:", error)
print("engine.cache", repr(config["engine.cache"]))
"""


def homeless(*flags: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIMBRED_", "XDG_"))}
    command = [sys.executable, "-c", HOMELESS, *flags]
    done = subprocess.run(command, env={**kept, "HOME": ""}, cwd="/", capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows always has a profile folder")
def test_load_without_a_home_folder_has_no_default_takes_folder(tmp_path: Path) -> None:
    found = homeless()
    assert "has no home folder, so there is no default" in found["takes_folder"]
    assert "--set takes.folder=FOLDER or TIMBRED_TAKES_FOLDER" in found["takes_folder"]
    assert found["engine.cache"] == "''"
    assert homeless(f"takes.folder={tmp_path}") == {
        "takes_folder": str(tmp_path),
        "models_folder": str(tmp_path / ".timbred-models"),
        "loras_folder": str(tmp_path / ".timbred-loras"),
        "library_file": str(tmp_path / ".timbred.sqlite"),
        "spare_library_folder": "None",
        "engine.cache": "''",
    }


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only an administrator can become another user"
)
def test_load_for_a_user_without_an_entry_has_no_folders() -> None:
    program = (
        "import os; from timbred.disk import describe_user, user_folder\n"
        "os.environ.pop('HOME', None); os.setuid(54321)\n"
        "print(describe_user(), *map(user_folder, ('config', 'data', 'cache', 'music')))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    done = subprocess.run([sys.executable, "-c", program], env=kept, capture_output=True, text=True, check=True)
    assert done.stdout == "user 54321 None None None None\n"


@pytest.mark.parametrize(
    ("low", "high", "number", "expected"),
    [
        (-60, 0, 0, True),
        (-60, 0, 0.5, False),
        (-60, 0, -60.5, False),
        (0, 10, 0, True),
        (0, 10, -1, False),
        (None, None, 1e9, True),
        (None, None, -1, False),
    ],
)
def test_setting_spec_takes_zero_as_limit(low: float | None, high: float | None, number: float, expected: bool) -> None:
    assert SettingSpec("level", 0.0, "A level.", low, high).in_range(number) is expected

"""Settings with misspelt names, and those of earlier versions."""

from pathlib import Path

import pytest

from timbred.config import REMOVED_NAMES, SETTINGS, load
from timbred.errors import BadRequest


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("TIMBRED_TAKES_FOLDR", "TIMBRED_TAKES_FOLDER"),
        ("TIMBRED_OSCPORT", "TIMBRED_OSC_PORT"),
        ("TIMBRED_MODELS_TINY_SORUCE", "TIMBRED_MODELS_TINY_SOURCE"),
        ("timbred_takes_folder", "TIMBRED_TAKES_FOLDER"),
    ],
)
def test_load_warns_of_a_misspelt_variable_with_the_nearest_name(variable: str, meant: str) -> None:
    (warning,) = load(None, {variable: "x"}, ()).warnings
    assert variable in warning
    assert f"did you mean {meant}?" in warning


def test_load_warns_of_a_variable_like_no_setting() -> None:
    (warning,) = load(None, {"TIMBRED_ZZZZZZZZ": "x"}, ()).warnings
    assert "TIMBRED_ZZZZZZZZ isn't a setting and is ignored" in warning
    assert "did you mean" not in warning


def test_load_does_not_warn_of_settings_and_foreign_variables() -> None:
    known = {setting.environment: str(int(setting.default) if isinstance(setting.default, bool) else setting.default)
             for setting in SETTINGS}  # fmt: skip
    others = {"TIMBRED": "x", "TIMBRED_ENGINE_PROGRAM": "x", "TIMBRED_MODELS_TINY_SOURCE": "/x", "PATH": "/bin"}
    assert load(None, {**known, **others}, ()).warnings == ()


def test_load_refuses_a_misspelt_setting_in_the_file_with_the_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "timbred.toml"
    file.write_text('[takes]\nfoldr = "/x"\n', "utf-8")
    with pytest.raises(BadRequest, match=r"'takes\.foldr'; did you mean takes\.folder\?"):
        load(file, {}, ())


def test_load_refuses_a_misspelt_flag_with_the_nearest_name() -> None:
    with pytest.raises(BadRequest, match=r"did you mean osc\.port\?"):
        load(None, {}, ["osc.prot=1"])


@pytest.mark.parametrize("name", REMOVED_NAMES)
def test_load_ignores_a_removed_setting_with_one_warning(tmp_path: Path, name: str) -> None:
    part, _, word = name.partition(".")
    file = tmp_path / "timbred.toml"
    file.write_text(f"[{part}]\n{word} = [1]\n", "utf-8")
    variable = f"TIMBRED_{part}_{word}".upper()
    everywhere = load(file, {variable: "no number"}, [f"{name}=1"])
    for config in (everywhere, load(file, {}, ()), load(None, {variable: "2"}, ()), load(None, {}, [f"{name}=1"])):
        (warning,) = config.warnings
        assert warning == f"the setting {name} ({variable}) has no effect any more and is ignored; remove it"
        assert (config.values, config.set_by_user) == (load(None, {}, ()).values, frozenset())


def test_load_does_not_warn_of_an_empty_variable_of_a_removed_setting() -> None:
    assert load(None, {"TIMBRED_STOP_PATIENCE": ""}, ()).warnings == ()

"""The folder of the CLAP component: what is accepted, and what each fault is called."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from timbred.cli import doctor
from timbred.cli import models as models_command
from timbred.config import load
from timbred.errors import BadRequest, MissingWeights, ModelError, TimbredError
from timbred.models.clap import CLAP_NAME, ClapEntry, inspect, is_clap
from timbred.models.install import install
from timbred.models.registry import build


def change_json(file: str, *keys: str, value: Any) -> Callable[[Path], None]:
    """Return a change of one value in a JSON file of a folder."""

    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text("utf-8"))
        place = content
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        (folder / file).write_text(json.dumps(content), "utf-8")

    return change


def remove(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def overwrite(file: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_bytes(content)

    return change


def remove_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["audio_projection.linear2.weight"]
    save_file(weights, folder / "model.safetensors")


def pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def remove_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.json"):
        (folder / name).unlink(missing_ok=True)


@pytest.fixture
def copy(clap: Path, tmp_path: Path) -> Path:
    return shutil.copytree(clap, tmp_path / "copy")


def test_inspect_returns_the_facts_of_a_folder(clap: Path) -> None:
    found = inspect(clap, "")
    assert found.rate == 48_000
    assert found.files == (clap / "config.json", clap / "model.safetensors")
    assert found.weight_bytes == (clap / "model.safetensors").stat().st_size
    assert is_clap(clap)


def test_inspect_reads_the_feature_extractor_of_a_processor(copy: Path) -> None:
    own = copy / "preprocessor_config.json"
    (copy / "processor_config.json").write_text(
        json.dumps({"processor_class": "ClapProcessor", "feature_extractor": json.loads(own.read_text("utf-8"))})
    )
    own.unlink()
    assert inspect(copy, "").rate == 48_000


EXTRACTOR = "preprocessor_config.json"
BAD_FOLDERS: dict[str, tuple[Callable[[Path], None], type[TimbredError], str]] = {
    "no configuration": (remove("config.json"), MissingWeights, "config.json can't be read"),
    "damaged": (overwrite("config.json", b"{"), MissingWeights, "config.json is damaged"),
    "another model": (change_json("config.json", "model_type", value="bert"), ModelError, "is a 'bert'; a CLAP"),
    "fused": (change_json("config.json", "audio_config", "enable_fusion", value=True), ModelError, "is a fused CLAP"),
    "own code": (change_json("config.json", "auto_map", value={}), ModelError, "requires its own code"),
    "code of its tokenizer": (
        change_json("tokenizer_config.json", "auto_map", value={}), ModelError, "requires its own code",
    ),
    "code of its extractor": (change_json(EXTRACTOR, "auto_map", value={}), ModelError, "requires its own code"),
    "no object": (change_json("config.json", "text_config", value=3), MissingWeights, "text_config in config.json"),
    "no size": (
        change_json("config.json", "projection_dim", value=0), MissingWeights, "projection_dim in config.json is 0",
    ),
    "huge size": (
        change_json("config.json", "text_config", "vocab_size", value=10**12), MissingWeights, "it should be 1 to",
    ),
    "other shape": (
        change_json("config.json", "projection_dim", value=32), ModelError,
        r"has the shape \[16, 16\], config.json says \[32, 16\]",
    ),
    "no weights": (remove("model.safetensors"), MissingWeights, "has no weights"),
    "a pickle": (pickle, ModelError, "is a pickle, which can run code; only safetensors are read"),
    "damaged weights": (overwrite("model.safetensors", b"\xff" * 20), ModelError, "model.safetensors is damaged"),
    "a tensor less": (remove_tensor, MissingWeights, "have no audio_projection.linear2.weight"),
    "no extractor": (remove(EXTRACTOR), MissingWeights, "preprocessor_config.json can't be read"),
    "other extractor": (
        change_json(EXTRACTOR, "feature_extractor_type", value="WhisperFeatureExtractor"), ModelError,
        "is a 'WhisperFeatureExtractor'",
    ),
    "fusing extractor": (change_json(EXTRACTOR, "truncation", value="fusion"), ModelError, "truncation 'fusion'"),
    "other bands": (change_json(EXTRACTOR, "feature_size", value=32), MissingWeights, "feature_size 32"),
    "no rate": (change_json(EXTRACTOR, "sampling_rate", value="48k"), MissingWeights, "sampling_rate '48k'"),
    "endless window": (change_json(EXTRACTOR, "nb_max_samples", value=10**9), MissingWeights, "doesn't fit"),
    "no tokenizer": (remove_tokenizer, MissingWeights, "has no tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_inspect_refuses_bad_folders(copy: Path, case: str) -> None:
    change, kind, message = BAD_FOLDERS[case]
    change(copy)
    with pytest.raises(kind, match=message):
        inspect(copy, "get it again")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_inspect_does_not_wait_for_a_pipe(copy: Path) -> None:
    os.mkfifo(copy / "merges.pipe")
    with pytest.raises(ModelError, match="isn't a regular file"):
        inspect(copy, "")


def test_clap_entry_is_installed_once_its_folder_is_complete(copy: Path, tmp_path: Path) -> None:
    entry = ClapEntry(tmp_path / "component", "", "")
    assert not entry.is_installed
    weights = copy / "model.safetensors"
    weights.rename(tmp_path / "weights")
    copy.rename(entry.folder)
    assert not entry.is_installed
    (tmp_path / "weights").rename(entry.folder / "model.safetensors")
    assert entry.is_installed
    shutil.rmtree(entry.folder)
    assert not entry.is_installed


def test_registry_refuses_to_render_with_it(tmp_path: Path) -> None:
    registry = build(tmp_path, {})
    assert CLAP_NAME not in registry.entries
    with pytest.raises(BadRequest, match=r"clap is a component that ranks takes .* it renders nothing"):
        _ = registry[CLAP_NAME]


def test_registry_takes_its_folder_from_the_settings(clap: Path, tmp_path: Path) -> None:
    registry = build(tmp_path, {CLAP_NAME: str(clap), "mine": str(clap)})
    assert registry.clap is not None
    assert (registry.clap.folder, registry.clap.is_installed) == (clap, True)
    with pytest.raises(MissingWeights, match=r"it is a CLAP, a component .*: set models\.clap\.source"):
        registry["mine"].checkpoint()


def test_install_copies_it_from_a_folder_or_an_archive(clap: Path, tmp_path: Path) -> None:
    install(clap, tmp_path / "one", CLAP_NAME)
    assert inspect(tmp_path / "one", "").rate == 48_000
    with zipfile.ZipFile(tmp_path / "clap.zip", "w") as archive:
        for file in clap.iterdir():
            archive.write(file, f"clap-htsat-unfused/{file.name}")
    install(tmp_path / "clap.zip", tmp_path / "two", CLAP_NAME)
    assert ClapEntry(tmp_path / "two", "", "").is_installed


def test_install_refuses_a_pickle_and_other_models(clap: Path, audioldm: Path, copy: Path, tmp_path: Path) -> None:
    pickle(copy)
    with pytest.raises(ModelError, match="only safetensors are read"):
        install(copy, tmp_path / "target", CLAP_NAME)
    with pytest.raises(TimbredError, match=r"^clap: "):
        install(audioldm, tmp_path / "target", CLAP_NAME)
    with pytest.raises(MissingWeights, match=r"no model_index\.json.* a CLAP is installed under the name clap"):
        install(clap, tmp_path / "target", "mine")
    assert not (tmp_path / "target").exists()


def rows(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, dict[str, Any]]:
    models_command.models(True, None, list(flags))
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def test_models_list_it_as_a_component(clap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = f"models.folder={tmp_path}"
    missing = rows(capsys, folder)[CLAP_NAME]
    assert (missing["state"], missing["remark"]) == ("missing", "fetch it with: timbred models pull clap")
    assert missing["task"].startswith("component: ranks takes")
    found = rows(capsys, folder, f"models.clap.source={clap}")[CLAP_NAME]
    assert (found["state"], found["native_rate"]) == ("available", 48_000)
    models_command.models(False, None, [folder, f"models.clap.source={clap}"])
    assert "component" in capsys.readouterr().out


def test_models_pull_installs_it_from_a_folder(clap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models_command.pull(CLAP_NAME, clap, None, [f"models.folder={tmp_path}"])
    assert capsys.readouterr().out == f"{tmp_path / CLAP_NAME}\n"
    assert rows(capsys, f"models.folder={tmp_path}")[CLAP_NAME]["state"] == "available"


@pytest.mark.parametrize(("is_there", "state"), [(True, "good"), (False, "note")])
def test_doctor_reports_it(clap: Path, tmp_path: Path, is_there: bool, state: str) -> None:
    flags = [f"models.folder={tmp_path}", *([f"models.clap.source={clap}"] if is_there else [])]
    findings = {finding.what: finding for finding in doctor.CHECKS[-1](load(None, {}, flags))}
    assert findings["component clap"].state == state


def test_doctor_names_the_fault_of_its_folder(copy: Path, tmp_path: Path) -> None:
    pickle(copy)
    flags = [f"models.folder={tmp_path}", f"models.clap.source={copy}"]
    finding = {finding.what: finding for finding in doctor.CHECKS[-1](load(None, {}, flags))}["component clap"]
    assert finding.state == "note"
    assert "only safetensors are read" in finding.found

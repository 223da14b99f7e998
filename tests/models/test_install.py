"""Models from folders and archives: whole and checked, or not there at all; whatever an archive tries."""

import contextlib
import hashlib
import io
import json
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timbred.cli import models
from timbred.errors import BadRequest, MissingWeights, ModelError, TimbredError
from timbred.models import checkpoint
from timbred.models.install import HASH_LIST_NAME, RECORD_NAME, install

Files = dict[str, bytes]


def contents(folder: Path) -> Files:
    """The files of a model, without timbred's record of them."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != RECORD_NAME)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def zipped(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def sums(files: Files) -> bytes:
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()).encode()


@pytest.mark.parametrize("kind", ["folder", "m.zip", "m.tar", "m.tar.gz", "m.tgz"])
@pytest.mark.parametrize("top", ["", "some-model-1.0/"])
def test_install_copies_a_whole_model_and_nothing_else(audioldm: Path, tmp_path: Path, kind: str, top: str):
    wanted = contents(audioldm)
    given_files = {f"{top}{name}": content for name, content in wanted.items()} | {f"{top}run.py": b"print()"}
    if kind == "folder":
        source = tmp_path / "source"
        for name, content in given_files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
    else:
        source = (zipped if kind.endswith("zip") else tarred)(tmp_path / kind, given_files)
    received: list[tuple[int, int]] = []
    target = tmp_path / "models" / "m"
    install(source, target, "m", lambda done, total: received.append((done, total)))
    assert contents(target) == wanted
    total = sum(map(len, wanted.values()))
    assert received[0] == (0, total)
    assert received[-1] == (total, total)
    assert received == sorted(received)
    assert [path.name for path in target.parent.iterdir()] == ["m"]
    checkpoint.inspect(target, "m", "")


def test_install_resumes_an_interrupted_transfer(audioldm: Path, tmp_path: Path):
    source = tarred(tmp_path / "m.tar", contents(audioldm))
    target = tmp_path / "models" / "m"

    class CutOffError(Exception):
        pass

    def stop_half_way(done: int, total: int) -> None:
        if done > total / 2:
            raise CutOffError

    with pytest.raises(CutOffError):
        install(source, target, "m", stop_half_way)
    assert not target.exists()
    staging = tmp_path / "models" / ".m.partial"
    kept = {path: path.stat().st_mtime_ns for path in staging.rglob("*.safetensors")}
    assert kept
    install(source, target, "m")
    assert contents(target) == contents(audioldm)
    for path, written in kept.items():
        assert (target / path.relative_to(staging)).stat().st_mtime_ns == written


def test_install_does_not_mix_in_the_rest_of_another_archive(audioldm: Path, tmp_path: Path):
    files = contents(audioldm)
    broken = zipped(tmp_path / "broken.zip", {**files, HASH_LIST_NAME: sums({"unet/config.json": b"other"})})
    target = tmp_path / "m"
    with pytest.raises(ModelError, match=r"unet/config\.json doesn't match its hash"):
        install(broken, target, "m")
    changed = {**files, "vae/config.json": files["vae/config.json"] + b" "}
    install(zipped(tmp_path / "whole.zip", changed), target, "m")
    assert contents(target) == changed


def test_install_compares_listed_hashes(audioldm: Path, tmp_path: Path):
    files = contents(audioldm)
    listed = {name: content for name, content in files.items() if name.endswith(".safetensors")}
    good = zipped(tmp_path / "good.zip", {**files, HASH_LIST_NAME: sums(listed)})
    install(good, tmp_path / "good", "m")
    name = "unet/diffusion_pytorch_model.safetensors"
    other = files[name][:-1] + bytes([files[name][-1] ^ 1])
    with pytest.raises(ModelError, match="doesn't match its hash"):
        install(
            zipped(tmp_path / "bad.zip", {**files, name: other, HASH_LIST_NAME: sums(listed)}), tmp_path / "bad", "m"
        )
    with pytest.raises(ModelError, match="not among the files"):
        lacking = {HASH_LIST_NAME: sums({"unet/more.safetensors": b""}), **files}
        install(zipped(tmp_path / "lacking.zip", lacking), tmp_path / "lacking", "m")
    (tmp_path / HASH_LIST_NAME).write_bytes(sums({"good.zip": b"another archive"}))
    with pytest.raises(ModelError, match=r"good\.zip doesn't match its hash"):
        install(good, tmp_path / "again", "m")
    assert not any((tmp_path / name).exists() for name in ("bad", "lacking", "again"))


def test_install_keeps_the_installed_model_until_a_whole_one_replaces_it(audioldm: Path, tmp_path: Path):
    files, target = contents(audioldm), tmp_path / "m"
    install(audioldm, target, "m")
    half = {name: content for name, content in files.items() if not name.startswith("unet/")}
    with pytest.raises(MissingWeights, match="unet"):
        install(zipped(tmp_path / "half.zip", half), target, "m")
    assert contents(target) == files
    new = {**files, "vae/config.json": files["vae/config.json"] + b"\n"}
    install(zipped(tmp_path / "new.zip", new), target, "m")
    assert contents(target) == new


def test_install_keeps_a_folder_in_which_there_is_more_than_it_wrote(audioldm: Path, tmp_path: Path):
    files, target = contents(audioldm), tmp_path / "m"
    new = zipped(tmp_path / "new.zip", files)
    assert install(audioldm, target, "m") is None
    (target / "notes.txt").write_text("mine")
    kept = install(new, target, "m")
    assert kept is not None
    assert kept == tmp_path / "m.before-1"
    assert (kept / "notes.txt").read_text() == "mine"
    assert contents(target) == files
    (target / "vae" / "config.json").write_bytes(files["vae/config.json"] + b" ")
    kept = install(new, target, "m")
    assert kept is not None
    assert kept == tmp_path / "m.before-2"
    assert (kept / "vae" / "config.json").read_bytes() == files["vae/config.json"] + b" "
    assert install(new, target, "m") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "m.before-1", "m.before-2", "new.zip"]


def test_install_keeps_a_folder_that_it_did_not_make(audioldm: Path, tmp_path: Path):
    shutil.copytree(audioldm, tmp_path / "m")
    assert install(audioldm, tmp_path / "m", "m") == tmp_path / "m.before-1"
    assert contents(tmp_path / "m.before-1") == contents(audioldm)


def test_install_leaves_a_folder_alone_that_is_in_the_way(audioldm: Path, tmp_path: Path):
    staging = tmp_path / ".m.partial"
    staging.mkdir()
    (staging / "mine.txt").write_text("mine")
    with pytest.raises(BadRequest, match="is in the way, and timbred didn't make it"):
        install(audioldm, tmp_path / "m", "m")
    assert (staging / "mine.txt").read_text() == "mine"


def test_install_continues_after_a_kill_between_its_renames(audioldm: Path, tmp_path: Path):
    target = tmp_path / "m"
    install(audioldm, target, "m")
    target.rename(tmp_path / ".m.before")
    assert install(audioldm, target, "m") is None
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("name", ["CON", "nul.v2", "mine.", "Pocket", "AudioLDM2"])
def test_models_pull_refuses_names_that_some_systems_take_for_another(audioldm: Path, tmp_path: Path, name: str):
    with pytest.raises(BadRequest, match=r"device's name|ends with a dot|is the same folder as"):
        models.pull(name, audioldm, None, [f"models.folder={tmp_path / 'models'}"])
    assert not (tmp_path / "models").exists()


NASTY = [
    *("/etc/x.json", "../x.json", "a/../../x.json", "C:/x.json", "a\\..\\x.json", "a/x\x07.json"),
    *("aux/x.json", "a /x.json", "x?.json"),
]


@pytest.mark.parametrize("path", NASTY)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_install_refuses_paths_that_lead_outside(audioldm: Path, tmp_path: Path, path: str, pack: Any):
    archive = pack(tmp_path / ("m.zip" if pack is zipped else "m.tar"), {**contents(audioldm), path: b"{}"})
    with pytest.raises(ModelError, match="nothing was installed"):
        install(archive, tmp_path / "in" / "m", "m")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [archive.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_install_refuses_links_and_devices(tmp_path: Path, kind: bytes):
    with tarfile.open(tmp_path / "m.tar", "w") as archive:
        entry = tarfile.TarInfo("model_index.json")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(ModelError, match="is a link or a device"):
        install(tmp_path / "m.tar", tmp_path / "m", "m")


def test_install_refuses_links_in_zips(tmp_path: Path):
    entry = zipfile.ZipInfo("model_index.json")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(ModelError, match="is a link or a device"):
        install(tmp_path / "m.zip", tmp_path / "m", "m")


def test_install_refuses_archive_bombs_before_opening_them(tmp_path: Path):
    zeros = bytes(60_000_000)
    archive = zipped(tmp_path / "m.zip", {"model_index.json": b"{}", "unet/model.safetensors": zeros})
    assert archive.stat().st_size < 100_000
    with pytest.raises(ModelError, match="would expand"):
        install(archive, tmp_path / "m", "m")
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.zip"]


def test_install_refuses_the_same_name_twice(tmp_path: Path):
    files = {"model_index.json": b"{}", "un\u00e9t/config.json": b"{}", "UNE\u0301t/config.json": b"{}"}
    with pytest.raises(ModelError, match="occurs twice"):
        install(zipped(tmp_path / "m.zip", files), tmp_path / "m", "m")


PARTS = st.sampled_from(["..", ".", "", "unet", "a b", "model_index.json", "x.safetensors", "CON", "\x00", "ü", "/"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@given(st.dictionaries(PATHS, st.binary(max_size=20), max_size=5), st.binary(max_size=40), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_install_writes_nothing_outside_and_leaves_no_half_model(tmp_path: Path, files: Files, noise: bytes, tar: bool):
    place = tmp_path / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    archive = place / ("m.tar" if tar else "m.zip")
    with contextlib.suppress(ValueError, IndexError):  # some names can't even be packed
        (tarred if tar else zipped)(archive, files)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2] + noise + content[len(content) // 2 + len(noise) :])
    with pytest.raises((TimbredError, OSError)):
        install(archive, place / "in" / "m", "m")
    assert {entry.name for entry in place.iterdir()} <= {archive.name, "in"}
    assert not (place / "in" / "m").exists()


# the hub


def hub(monkeypatch: pytest.MonkeyPatch, files: Files, listed: dict[str, str]) -> None:
    """A hub that serves these files, and lists these hashes."""

    def snapshot_download(_source: str, local_dir: Path, allow_patterns: list[str]) -> str:
        assert "*.safetensors" in allow_patterns
        for name, content in files.items():
            (Path(local_dir) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(local_dir) / name).write_bytes(content)
        (Path(local_dir) / ".cache" / "huggingface").mkdir(parents=True)
        return str(local_dir)

    siblings = [SimpleNamespace(rfilename=name, lfs=SimpleNamespace(sha256=value)) for name, value in listed.items()]
    api = SimpleNamespace(model_info=lambda _source, files_metadata: SimpleNamespace(siblings=siblings))  # pyright: ignore
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)


def pulled(tmp_path: Path) -> Path:
    models.pull("audioldm-s-full-v2", None, None, [f"models.folder={tmp_path / 'models'}"])
    return tmp_path / "models" / "audioldm-s-full-v2"


def test_install_compares_the_hubs_files_with_their_hashes(
    audioldm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    files = contents(audioldm)
    name = "unet/diffusion_pytorch_model.safetensors"
    hub(monkeypatch, files, {name: "0" * 64, "other.msgpack": "1" * 64})
    with pytest.raises(ModelError, match="doesn't match its hash"):
        pulled(tmp_path)
    assert not (tmp_path / "models" / "audioldm-s-full-v2").exists()
    shutil.rmtree(tmp_path / "models")
    hub(monkeypatch, files, {name: hashlib.sha256(files[name]).hexdigest()})
    folder = pulled(tmp_path)
    assert contents(folder) == files
    assert capsys.readouterr().out == f"{folder}\n"


def test_models_pull_under_a_new_name_says_how_to_use_it(
    audioldm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    archive = tarred(tmp_path / "mine.tar.gz", contents(audioldm))
    models.pull("mine", archive, None, [f"models.folder={tmp_path / 'models'}"])
    reported = capsys.readouterr()
    assert reported.out == f"{tmp_path / 'models' / 'mine'}\n"
    assert "models.mine.source" in reported.err
    assert json.loads((tmp_path / "models" / "mine" / "model_index.json").read_text())

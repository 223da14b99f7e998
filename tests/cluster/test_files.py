"""Bundles of files, their copies on a node, and the paths in orders. No Ray."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.cluster import files
from timbred.cluster.files import Bundle, BundleFile, FileHashes, NodeCache, file_paths, make_bundle, with_paths
from timbred.errors import Internal, MissingWeights, ModelError
from timbred.ipc import engine_messages


def write_model(folder: Path, weights: bytes = b"weights") -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "model.safetensors").write_bytes(weights)
    (folder / "unet" / "empty.txt").write_bytes(b"")
    (folder / ".timbred-files.jsonl").write_text("a record of this machine")
    return folder


def render(
    model: str = "", clap: str = "", loras: tuple[str, ...] = (), prompt: str = "pad"
) -> engine_messages.RenderJob:
    order = engine_messages.RenderOrder(
        inputs=engine_messages.PromptInputs(prompt=prompt),
        seconds=1.0,
        steps=1,
        guidance=1.0,
        eta=0.0,
        scheduler="ddim",
        seeds=(1,),
        loras=tuple(engine_messages.LoraUse(name=path, path=path, hash="", weight=1.0) for path in loras),
    )
    source = engine_messages.ModelSource(name="clap", folder=clap) if clap else None
    return engine_messages.RenderJob(
        job=1, model=engine_messages.ModelSource(name="m", folder=model), order=order, clap=source
    )


def copy(cache: NodeCache, bundle: Bundle, source: Path, chunk: int = 3) -> Path:
    """Copy files into a cache as the relay does, in small chunks."""
    assert cache.begin(bundle)
    for file in bundle.files:
        content = (source / file.name if bundle.is_folder else source).read_bytes()
        for offset in range(0, max(1, len(content)), chunk):
            cache.write(bundle, file.name, offset, content[offset : offset + chunk])
    return cache.finish(bundle)


def test_make_bundle_lists_all_files_but_hidden_ones(tmp_path: Path):
    bundle = make_bundle(write_model(tmp_path / "m"), FileHashes())
    assert [file.name for file in bundle.files] == ["model_index.json", "unet/empty.txt", "unet/model.safetensors"]
    assert bundle.size == 2 + 0 + 7
    assert bundle.is_folder


def test_make_bundle_is_equal_for_equal_files_elsewhere(tmp_path: Path):
    first, second = write_model(tmp_path / "a"), write_model(tmp_path / "b")
    assert make_bundle(first, FileHashes()) == make_bundle(second, FileHashes())
    (second / "unet" / "model.safetensors").write_bytes(b"Weights")
    assert make_bundle(first, FileHashes()).digest != make_bundle(second, FileHashes()).digest


def test_make_bundle_of_a_file_has_its_name(tmp_path: Path):
    (tmp_path / "l.safetensors").write_bytes(b"lora")
    bundle = make_bundle(tmp_path / "l.safetensors", FileHashes())
    assert ([file.name for file in bundle.files], bundle.is_folder) == (["l.safetensors"], False)


def test_make_bundle_refuses_a_missing_path_and_a_pipe(tmp_path: Path):
    with pytest.raises(MissingWeights, match="there is no file or folder"):
        make_bundle(tmp_path / "none", FileHashes())
    model = write_model(tmp_path / "m")
    os.mkfifo(model / "unet" / "pipe")
    with pytest.raises(ModelError, match="isn't a regular file"):
        make_bundle(model, FileHashes())


def test_make_bundle_refuses_a_folder_with_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "MAX_BUNDLE_FILES", 2)
    with pytest.raises(ModelError, match="more than 2 files"):
        make_bundle(write_model(tmp_path / "m"), FileHashes())


def test_file_hashes_follow_a_changed_file(tmp_path: Path):
    hashes, file = FileHashes(), tmp_path / "f"
    file.write_bytes(b"one")
    before = hashes.of(file)
    file.write_bytes(b"another")
    assert hashes.of(file) != before


def test_node_cache_finds_nothing_then_its_copy(tmp_path: Path):
    source, cache = write_model(tmp_path / "m"), NodeCache(tmp_path / "cache")
    bundle = make_bundle(source, FileHashes())
    assert cache.find(bundle, []) is None
    place = copy(cache, bundle, source)
    assert cache.find(bundle, []) == place
    assert make_bundle(place, FileHashes()) == bundle
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [bundle.digest, f"{bundle.digest}.lock"]


def test_node_cache_copies_a_single_file_under_its_name(tmp_path: Path):
    source, cache = tmp_path / "l.safetensors", NodeCache(tmp_path / "cache")
    source.write_bytes(b"lora" * 5)
    place = copy(cache, make_bundle(source, FileHashes()), source)
    assert (place.name, place.read_bytes()) == ("l.safetensors", b"lora" * 5)
    assert cache.find(make_bundle(source, FileHashes()), []) == place


def test_node_cache_uses_a_folder_of_the_node_with_the_same_files(tmp_path: Path):
    bundle = make_bundle(write_model(tmp_path / "m"), FileHashes())
    other, same = write_model(tmp_path / "other", b"WEIGHTS"), write_model(tmp_path / "same")
    more = write_model(tmp_path / "more")
    (more / "unet" / "pytorch_model.bin").write_bytes(b"others")
    cache = NodeCache(tmp_path / "cache")
    assert cache.find(bundle, [tmp_path / "none", other, more, same]) == same


def test_node_cache_writes_each_copy_once(tmp_path: Path):
    source = write_model(tmp_path / "m")
    bundle = make_bundle(source, FileHashes())
    first, second = NodeCache(tmp_path / "cache"), NodeCache(tmp_path / "cache")
    assert first.begin(bundle)
    assert not second.begin(bundle)
    first.give_up(bundle)
    assert copy(second, bundle, source).is_dir()


def test_node_cache_lets_another_begin_after_its_end(tmp_path: Path):
    source = write_model(tmp_path / "m")
    bundle = make_bundle(source, FileHashes())
    first, second = NodeCache(tmp_path / "cache"), NodeCache(tmp_path / "cache")
    assert first.begin(bundle)
    first.write(bundle, "unet/model.safetensors", 0, b"half of it, and more than there should be")
    first.close()
    assert make_bundle(copy(second, bundle, source), FileHashes()) == bundle


def test_node_cache_refuses_a_copy_with_a_wrong_hash(tmp_path: Path):
    source, cache = write_model(tmp_path / "m"), NodeCache(tmp_path / "cache")
    bundle = make_bundle(source, FileHashes())
    (source / "unet" / "model.safetensors").write_bytes(b"Weights")
    with pytest.raises(ModelError, match="differs from the daemon's files"):
        copy(cache, bundle, source)
    assert cache.find(bundle, []) is None
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_node_cache_replaces_a_damaged_copy(tmp_path: Path):
    source = write_model(tmp_path / "m")
    bundle = make_bundle(source, FileHashes())
    place = copy(NodeCache(tmp_path / "cache"), bundle, source)
    (place / "unet" / "model.safetensors").write_bytes(b"damaged")
    cache = NodeCache(tmp_path / "cache")
    assert cache.find(bundle, []) is None
    assert make_bundle(copy(cache, bundle, source), FileHashes()) == bundle


def test_node_cache_writes_only_what_was_begun(tmp_path: Path):
    cache = NodeCache(tmp_path / "cache")
    bundle = make_bundle(write_model(tmp_path / "m"), FileHashes())
    with pytest.raises(Internal):
        cache.write(bundle, "model_index.json", 0, b"")
    assert cache.begin(bundle)
    with pytest.raises(Internal):
        cache.write(bundle, "other.json", 0, b"")


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../up", "", "a\\..\\b", "a\0b"])
def test_bundle_refuses_names_that_lead_out_of_its_folder(tmp_path: Path, name: str):
    bundle = Bundle(files=(BundleFile(name=name, size=1, sha256="0"),), is_folder=True)
    with pytest.raises(ModelError, match="isn't a name"):
        NodeCache(tmp_path).begin(bundle)


@given(st.lists(st.text(max_size=20), max_size=4))
def test_bundle_accepts_only_names_within_its_folder(names: list[str]):
    bundle = Bundle(files=tuple(BundleFile(name=name, size=1, sha256="0") for name in names), is_folder=True)
    try:
        bundle.check_names()
    except ModelError:
        return
    folder = "/cache/copy"
    assert all(os.path.normpath(f"{folder}/{name}").startswith(folder) for name in names)


def test_file_paths_are_those_of_model_clap_and_loras():
    assert file_paths(render("/m", "/c", ("/l1", "/l2", "/l1"))) == ("/m", "/c", "/l1", "/l2")
    assert file_paths(render()) == ()
    load = engine_messages.LoadModel(model=engine_messages.ModelSource(name="m", folder="/m"))
    assert file_paths(load) == ("/m",)


def test_with_paths_replaces_every_path():
    order = render("/m", "/c", ("/l1", "/l2"))
    places = {path: f"/node{path}" for path in file_paths(order)}
    assert file_paths(with_paths(order, places)) == ("/node/m", "/node/c", "/node/l1", "/node/l2")
    assert with_paths(order, {}) == order

"""Weights stay views of their mapped files only where that does no harm, and released pages are read again."""

import gc
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.patience import TIMEOUT_S
from timbred.engine.families import component_loader
from timbred.engine.families.component_loader import (
    convert_weights,
    load_weights,
    read_into_page_cache,
    release_pages,
)

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are given back on Linux only")
NUMBERS = torch.arange(300_000, dtype=torch.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"weight": NUMBERS, "counted": torch.arange(7)}, path)
    return path


class Mapped(torch.nn.Module):
    """A module whose tensors are views of a file, as libraries load them."""

    counted: torch.Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        with safe_open(path, framework="pt") as content:
            self.weight = torch.nn.Parameter(content.get_tensor("weight"), requires_grad=False)
            self.register_buffer("counted", content.get_tensor("counted"))


class Outer(torch.nn.Module):
    def __init__(self, inner: Mapped) -> None:
        super().__init__()
        self.inner = inner


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


@LINUX
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_convert_weights_needs_no_file_after_a_move(file: Path, precision: torch.dtype):
    module = Mapped(file)
    assert is_mapped(file)
    convert_weights(module, precision, frozenset(), [file], on_host=False)
    gc.collect()
    assert not is_mapped(file)
    assert module.weight.dtype == precision
    assert torch.equal(module.weight.float(), NUMBERS.to(precision).float())
    assert module.counted.tolist() == list(range(7)), "what isn't floating-point keeps its kind"


@LINUX
def test_convert_weights_does_not_copy_what_stays(file: Path):
    module = Mapped(file)
    place = module.weight.data_ptr()
    convert_weights(module, torch.float32, frozenset(), [file], on_host=True)
    assert module.weight.data_ptr() == place
    assert torch.equal(module.weight, NUMBERS)


def test_convert_weights_keeps_precise_weights_precise(file: Path):
    module = Outer(Mapped(file))
    convert_weights(module, torch.float16, frozenset({"inner"}), [file], on_host=True)
    assert torch.equal(module.inner.weight, NUMBERS)
    convert_weights(module, torch.bfloat16, frozenset(), [file], on_host=True)
    assert module.inner.weight.dtype == torch.bfloat16


@LINUX
def test_release_pages_frees_only_its_own_pages_and_rereads_them(file: Path):
    one, other = Mapped(file), Mapped(file)
    other.weight[:10] = -1.0  # in this process alone
    release_pages([one.weight.data], [file])
    assert torch.equal(one.weight, NUMBERS)
    assert other.weight[:10].tolist() == [-1.0] * 10


def test_read_into_page_cache_names_a_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        read_into_page_cache([tmp_path / "gone.safetensors"])


def test_load_weights_constructs_one_component_at_a_time(file: Path, monkeypatch: pytest.MonkeyPatch):
    """While a library constructs a component, parameters that another thread assigns would lose their values."""
    order: list[str] = []
    is_read = threading.Event()

    class Component(Mapped):
        @classmethod
        def from_pretrained(cls, folder: str, **_: Any) -> "Component":
            order.append("second constructed")
            return cls(Path(folder) / file.name)

    def read(_files: Sequence[Path]) -> None:
        is_read.set()

    monkeypatch.setattr(component_loader, "read_into_page_cache", read)
    files = (file.with_name("config.json"), file)
    loaded: list[Component] = []
    second = threading.Thread(target=lambda: loaded.append(load_weights(Component, files, torch.float32, False, True)))
    with component_loader.library_lock, accelerate.init_empty_weights():
        second.start()
        assert is_read.wait(TIMEOUT_S)
        order.append("first constructed")
    second.join(TIMEOUT_S)
    assert order == ["first constructed", "second constructed"]
    assert torch.equal(loaded[0].weight, NUMBERS)

"""The key `lora`: names, weights and hashes, and files that fit the model."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.integration.daemons import hollow_checkpoint
from tests.loras import random_lora
from timbred.errors import BadRequest
from timbred.ipc.engine_messages import LoraUse
from timbred.models.lora import LoraRegistry, add
from timbred.models.registry import build
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId
from timbred.requests.loras import MAX_LORAS, LoraHandlers, format_loras, read_loras

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(lambda name: name != "none")


class ListOutbox:
    """Keeps the lists that were sent."""

    def __init__(self) -> None:
        self.lists: list[tuple[ClientId, str, list[m.Event], m.Event | None]] = []

    def send(self, client: ClientId, event: m.Event, clip: Any = None) -> None:
        raise AssertionError("`loras` is answered by a list")

    def send_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        self.lists.append((client, name, list(events), end))


@pytest.fixture
def outbox() -> ListOutbox:
    return ListOutbox()


@pytest.fixture
def handlers(tmp_path: Path, outbox: ListOutbox) -> LoraHandlers:
    """Handlers of a folder with warm, made for tiny, and alien, made for a copy of tiny."""
    tiny = hollow_checkpoint(tmp_path / "tiny")
    save_file({"mid.attention.to_q.weight": np.zeros((8, 8), np.float32)}, tiny / "unet" / "model.safetensors")
    shutil.copytree(tiny, tmp_path / "copy")
    models = build(tmp_path / "models", {"tiny": str(tiny), "copy": str(tmp_path / "copy")})
    registry = LoraRegistry(tmp_path / "loras", models)
    source = random_lora(tiny, tmp_path / "source.safetensors")
    add(source, "warm", registry, "tiny")
    add(source, "alien", registry, "copy")
    return LoraHandlers(outbox, registry)


@given(st.lists(st.tuples(NAMES, st.floats(-4, 4, width=16), st.text("0123456789abcdef", max_size=16))))
def test_read_loras_reads_names_weights_and_hashes(wanted: list[tuple[str, float, str]]) -> None:
    text = " ".join(f"{name}#{digest}:{weight!r}" for name, weight, digest in wanted)
    if len({name for name, *_ in wanted}) < len(wanted) or len(wanted) > MAX_LORAS:
        with pytest.raises(BadRequest, match="lora: "):
            read_loras(text)
        return
    assert [(lora.name, lora.weight, lora.hash) for lora in read_loras(text)] == wanted


@given(st.text(max_size=60))
def test_read_loras_reads_or_refuses_any_text(text: str) -> None:
    try:
        assert all(lora.name and -4 <= lora.weight <= 4 for lora in read_loras(text))
    except BadRequest as error:
        assert str(error).startswith("lora: ")


def test_format_loras_is_read_back() -> None:
    uses = tuple(LoraUse(name=name, path="", hash="1f00ba5e" * 8, weight=weight) for name, weight in
                 (("warm", 0.8), ("tape", -0.25)))  # fmt: skip
    assert format_loras(uses) == "warm#1f00ba5e1f00ba5e:0.8 tape#1f00ba5e1f00ba5e:-0.25"
    assert [(lora.name, lora.weight) for lora in read_loras(format_loras(uses))] == [("warm", 0.8), ("tape", -0.25)]


def test_lora_handlers_resolve_files_of_the_model(handlers: LoraHandlers) -> None:
    tiny, registry = handlers.registry.models["tiny"], handlers.registry
    (use,) = handlers.resolve("warm:0.5", tiny)
    assert (use.name, use.weight, use.path) == ("warm", 0.5, str(registry.folder / "warm.safetensors"))
    assert handlers.resolve(format_loras((use,)), tiny) == (use,)
    assert handlers.resolve(None, tiny) == handlers.resolve("none", tiny) == ()


def test_lora_handlers_refuse_the_lora_of_another_model(handlers: LoraHandlers) -> None:
    with pytest.raises(BadRequest, match=r"lora: alien was made for the model copy, not tiny; use it with @model"):
        handlers.resolve("warm alien:0.5", handlers.registry.models["tiny"])


def test_lora_handlers_refuse_a_file_that_was_replaced(handlers: LoraHandlers, tmp_path: Path) -> None:
    tiny, registry = handlers.registry.models["tiny"], handlers.registry
    recorded = format_loras(handlers.resolve("warm", tiny))
    (registry.folder / "warm.safetensors").unlink()
    add(random_lora(tiny.folder, tmp_path / "new.safetensors", seed=2), "warm", registry, "tiny")
    with pytest.raises(BadRequest, match="lora: warm is another file now"):
        handlers.resolve(recorded, tiny)
    (registry.folder / "warm.safetensors").write_bytes(b"\x80\x04pickled")
    with pytest.raises(BadRequest, match="is a pickle, which can run code"):
        handlers.resolve("warm", tiny)


@pytest.mark.anyio
async def test_lora_handlers_list_all_files_and_then_done(handlers: LoraHandlers, outbox: ListOutbox) -> None:
    (handlers.registry.folder / "other.safetensors").write_bytes(b"\x80\x04pickled")
    client = ClientId("udp:a:1")
    await handlers.list(client, m.Loras())
    ((receiver, name, events, end),) = outbox.lists
    assert (receiver, name, end) == (client, "loras", m.Done(id="loras", takes=3, path=""))
    states = [(event.name, event.model, event.state) for event in events if isinstance(event, m.Lora)]
    assert states == [("alien", "copy", "available"), ("other", "", "invalid"), ("warm", "tiny", "available")]

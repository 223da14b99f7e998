"""The key `lora` and the request `loras`: names and weights are read, and resolved to files that fit the model."""

import asyncio
from dataclasses import dataclass
from math import nan

from timbred.errors import BadRequest
from timbred.ipc.engine_messages import LoraUse
from timbred.models.lora import REMOVING_WORDS, LoraEntry, LoraRegistry
from timbred.models.registry import Entry
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox

MIN_LORA_WEIGHT, MAX_LORA_WEIGHT = -4.0, 4.0
"""Range of a LoRA's weight."""

MAX_LORAS = 8
"""LoRAs of one request at most."""

HASH_CHARACTERS = 16
"""Characters of a LoRA's hash in a recipe."""


@dataclass(frozen=True)
class NamedLora:
    """A LoRA as a request names it; `hash` is the beginning of its hash, empty if the request has none."""

    name: str
    hash: str
    weight: float


def read_loras(text: str) -> tuple[NamedLora, ...]:
    """Read the value of `lora`: names, each with a weight (default 1), and in recipes the hash after `#`.

    >>> [lora.weight for lora in read_loras("warm:0.8 tape#1f00ba5e")]
    [0.8, 1.0]
    >>> read_loras("none")
    ()

    Raises:
        BadRequest: A weight isn't a number from -4 to 4, a name comes twice, or there are too many.
    """
    if text.strip() in REMOVING_WORDS:
        return ()
    loras = tuple(_read_lora(part) for part in text.split())
    if len(loras) > MAX_LORAS:
        raise BadRequest(f"lora: got {len(loras)}, allowed are up to {MAX_LORAS} at once")
    names = [lora.name for lora in loras]
    for name in names:
        if names.count(name) > 1:
            raise BadRequest(f"lora: {name!r} has two weights; give it one")
    return loras


def _read_lora(part: str) -> NamedLora:
    named, colon, number = part.partition(":")
    name, _, digest = named.partition("#")
    weight = _number(number) if colon else 1.0
    if not name or not MIN_LORA_WEIGHT <= weight <= MAX_LORA_WEIGHT:
        raise BadRequest(
            f"lora: got {part[:120]!r}, allowed is name:weight with a weight from {MIN_LORA_WEIGHT:g} to "
            f"{MAX_LORA_WEIGHT:g}"
        )
    return NamedLora(name, digest, weight)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return nan


def format_loras(loras: tuple[LoraUse, ...]) -> str:
    """Return the value of `lora` that names these files in a recipe."""
    return " ".join(f"{lora.name}#{lora.hash[:HASH_CHARACTERS]}:{lora.weight:g}" for lora in loras)


@dataclass(frozen=True)
class LoraHandlers:
    """Handles `loras`, and the key `lora`.

    Args:
        outbox: Where events are sent.
        registry: The LoRAs.
    """

    outbox: Outbox
    registry: LoraRegistry

    async def list(self, client: ClientId, request: m.Loras) -> None:
        """Answer `loras`; the folder is read in a thread."""
        entries = await asyncio.to_thread(self.registry.entries)
        events = [_event(entry) for entry in entries]
        self.outbox.send_list(client, "loras", events, m.Done(id="loras", takes=len(events), path=""))

    def resolve(self, text: str | None, entry: Entry) -> tuple[LoraUse, ...]:
        """Return the files that the value of `lora` names, for a model.

        Raises:
            BadRequest: It can't be read, or names a LoRA that doesn't exist, has changed or doesn't fit the model.
        """
        return tuple(self._resolve(named, entry) for named in read_loras(text or ""))

    def _resolve(self, named: NamedLora, entry: Entry) -> LoraUse:
        found = self.registry.find(named.name)
        if not found.facts.hash.startswith(named.hash):
            raise BadRequest(
                f"lora: {named.name} is another file now than the one with the hash {named.hash[:64]}; to use it as it "
                f"is, name it without the hash: {named.name}:{named.weight:g}"
            )
        self.registry.check_model(found, entry)
        return LoraUse(name=found.name, path=str(found.path), hash=found.facts.hash, weight=named.weight)


def _event(entry: LoraEntry) -> m.Lora:
    return m.Lora(
        name=entry.name,
        model=entry.model,
        rank=entry.rank,
        licence=entry.licence,
        state=entry.state,
        remark=entry.remark,
    )

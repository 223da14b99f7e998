"""The models there are: a card for each, with what a musician and the engine need to know of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import msgspec

from timbred.errors import MissingWeights, ModelError, UnknownModel
from timbred.models import checkpoint
from timbred.models.checkpoint import Checkpoint

NON_COMMERCIAL = "CC-BY-NC-SA-4.0"


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A model's facts and defaults: lengths in seconds, rate in Hz, `source` a hub id or folder."""

    name: str
    title: str
    task: str
    licence: str
    native_rate: int
    max_seconds: float
    default_seconds: float
    steps: int
    guidance: float
    negative_guidance: float | None = None
    scheduler: str = "dpm++2m"
    negative: str = ""
    channels: int = 1
    min_seconds: float = 0.1
    source: str = ""
    speaks: bool = False
    ranks: bool = False
    kinds: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def _published(name: str, title: str, source: str, guidance: float, **facts: object) -> Card:
    """A card of the two papers' checkpoints: arXiv 2301.12503 (AudioLDM), 2308.05734 (AudioLDM 2)."""
    base: dict[str, object] = {
        "task": "text-to-audio",
        "licence": NON_COMMERCIAL,
        "native_rate": 16000,
        "max_seconds": 60.0,
        "default_seconds": 10.24,
        "steps": 20,
        "negative": "Low quality.",
    }
    return msgspec.convert(
        {"name": name, "title": title, "source": source, "guidance": guidance, **base, **facts}, Card
    )


PUBLISHED: tuple[Card, ...] = (
    _published("audioldm2", "AudioLDM 2", "cvssp/audioldm2", 3.5, ranks=True),
    _published("audioldm2-large", "AudioLDM 2 large", "cvssp/audioldm2-large", 3.5, ranks=True),
    _published("audioldm2-music", "AudioLDM 2 music", "cvssp/audioldm2-music", 3.5, task="text-to-music", ranks=True),
    _published(
        "audioldm2-gigaspeech", "AudioLDM 2 speech", "anhnct/audioldm2_gigaspeech", 3.5,
        task="text-to-speech", speaks=True, ranks=True,
    ),
    _published("audioldm-s-full-v2", "AudioLDM small", "cvssp/audioldm-s-full-v2", 2.5, default_seconds=5.12),
    _published("audioldm-m-full", "AudioLDM medium", "cvssp/audioldm-m-full", 2.5, default_seconds=5.12),
    _published("audioldm-l-full", "AudioLDM large", "cvssp/audioldm-l-full", 2.5, default_seconds=5.12),
)  # fmt: skip


def pocket_folder() -> Path:
    """The folder of the embedded model in the installed package."""
    return Path(str(resources.files("timbred") / "pocket" / "model"))


def pocket_card() -> Card:
    """The embedded model's card."""
    text = (resources.files("timbred") / "pocket" / "card.json").read_text("utf-8")
    return msgspec.convert(json.loads(text), Card)


@dataclass(frozen=True)
class Entry:
    """A model that can be asked for: its card, and where its files are looked for."""

    card: Card
    folder: Path
    remedy: str

    def checkpoint(self) -> Checkpoint:
        """What is in the folder, looked at now.

        Raises:
            MissingWeights, ModelError: it can't be loaded, and why.
        """
        return checkpoint.inspect(self.folder, self.card.name, self.remedy)


@dataclass(frozen=True)
class Registry:
    """Every model by name."""

    entries: Mapping[str, Entry] = field(default_factory=dict[str, Entry])

    def __getitem__(self, name: str) -> Entry:
        """Raises:
        UnknownModel: lists the names there are.
        """
        if name not in self.entries:
            raise UnknownModel(f"there is no model {name!r}; there are {', '.join(self.entries)}")
        return self.entries[name]


def build(models_folder: Path, sources: Mapping[str, str]) -> Registry:
    """The embedded model, the published ones, and those that the user named (`models.NAME.source`)."""
    entries = {"pocket": Entry(pocket_card(), pocket_folder(), "reinstall timbred: its package is not whole")}
    for card in PUBLISHED:
        entries[card.name] = Entry(card, models_folder / card.name, f"fetch it with: timbred models pull {card.name}")
    for name, source in sources.items():
        entries[name] = _named_by_user(name, source, models_folder, entries.get(name))
    return Registry(entries)


def _named_by_user(name: str, source: str, models_folder: Path, known: Entry | None) -> Entry:
    if Path(source).is_absolute():
        entry_folder, remedy = (
            Path(source),
            f"check models.{name}.source: it should be a folder in diffusers' format",
        )
    else:
        entry_folder, remedy = models_folder / name, f"fetch it with: timbred models pull {name}"
    published = next((card for card in PUBLISHED if card.source == source), None)
    card = known.card if known else published or _card_from_folder(name, entry_folder, remedy)
    return Entry(msgspec.structs.replace(card, name=name, source=source), entry_folder, remedy)


def _card_from_folder(name: str, folder: Path, remedy: str) -> Card:
    """A card for a model nobody has described: facts from its configuration, the family's usual defaults."""
    try:
        found = checkpoint.inspect(folder, name, remedy)
    except (MissingWeights, ModelError):
        found = None  # the same error comes again, to the one who asks for the model
    newer = found is None or found.family == "audioldm2"
    trained = found.trained_seconds if found else 10.24
    return Card(
        name=name,
        title=name,
        task="text-to-audio",
        licence="unknown",
        native_rate=found.native_rate if found else 16000,
        max_seconds=max(60.0, trained),
        default_seconds=trained,
        steps=20,
        guidance=3.5 if newer else 2.5,
        speaks=found.speaks if found else False,
        ranks=newer,
    )

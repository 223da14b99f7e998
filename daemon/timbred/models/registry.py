"""The known models: a card for each, with the facts that musicians and the engine need."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from timbred.errors import MissingWeights, ModelError, UnknownModel
from timbred.models import checkpoint, families
from timbred.models.checkpoint import Checkpoint
from timbred.models.clap import CLAP_NAME, CLAP_SOURCE, ClapEntry, is_clap
from timbred.models.families import Capability, Family, SoundFacts
from timbred.models.pocket import PocketCard, is_pocket, read_card
from timbred.protocol.keys import SchedulerName

UNKNOWN_SOUND = SoundFacts(16000, 1, 10.24, 60.0, 20, 3.5, "dpm++2m")
"""Facts that stand in for those of a folder that can't be read; a request of the model fails with the reason."""


WordGroup = tuple[str, tuple[str, ...]]
"""Name of a group of words, and the words."""

NEGATIVE_GUIDANCE = 2.0
"""Least guidance scale for a negative prompt, which a model without guidance wouldn't hear."""

NOTE_WORDS = "note names such as c2 or f#4"
"""Words for all notes in a card."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A model's facts and defaults: lengths in seconds, rate in Hz, `source` a hub id or a folder.

    `selling` says if sounds made with it may be sold; empty: its licence says it. `schedulers` and `capabilities` are
    those of its family. `kinds` and `words` are those of its training; empty: any. `kind_groups` and `word_groups` have
    them by group, where the model names groups. `version` names the training of the weights, where several have had the
    model's name.
    """

    name: str
    title: str
    task: str
    licence: str
    selling: str = ""
    native_rate: int
    max_seconds: float
    default_seconds: float
    steps: int
    guidance: float
    negative_guidance: float | None = None
    scheduler: SchedulerName = "dpm++2m"
    schedulers: tuple[SchedulerName, ...] = families.AUDIOLDM2.schedulers
    capabilities: frozenset[Capability] = families.AUDIOLDM2.capabilities
    negative: str = ""
    channels: int = 1
    min_seconds: float = 0.1
    source: str = ""
    speaks: bool = False
    ranks: bool = False
    kinds: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    kind_groups: tuple[WordGroup, ...] = ()
    word_groups: tuple[WordGroup, ...] = ()
    version: str = ""

    def known_kinds(self) -> dict[str, tuple[str, ...]]:
        """Return the kinds of sounds by group; empty: any."""
        return _nonempty(self.kind_groups or (("sounds", self.kinds),))

    def known_words(self) -> dict[str, tuple[str, ...]]:
        """Return the words that describe a sound, by group; empty: any."""
        return _nonempty(self.word_groups or (("words", self.words),))


def _nonempty(groups: tuple[WordGroup, ...]) -> dict[str, tuple[str, ...]]:
    return {group: names for group, names in groups if names}


def _published(family: Family, name: str, title: str, source: str, sound: SoundFacts, **facts: object) -> Card:
    """Return the card of a published checkpoint."""
    base: dict[str, object] = {
        "task": "text-to-audio",
        "licence": family.licence.name,
        "selling": family.licence.selling,
        "native_rate": sound.rate,
        "channels": sound.channels,
        "max_seconds": sound.max_seconds,
        "default_seconds": sound.default_seconds,
        "steps": sound.steps,
        "guidance": sound.guidance,
        "scheduler": sound.scheduler,
        "schedulers": family.schedulers,
        "capabilities": family.capabilities,
        "ranks": "rank" in family.capabilities,
    }
    return msgspec.convert({"name": name, "title": title, "source": source, **base, **facts}, Card)


_MUSIC: dict[str, Any] = {"task": "text-to-music"}
_LOW_QUALITY: dict[str, Any] = {"negative": "Low quality."}
_audioldm2 = partial(
    _published, families.AUDIOLDM2, sound=SoundFacts(16000, 1, 10.24, 60.0, 20, 3.5, "dpm++2m"), **_LOW_QUALITY
)
_audioldm = partial(
    _published, families.AUDIOLDM, sound=SoundFacts(16000, 1, 5.12, 60.0, 20, 2.5, "dpm++2m"), **_LOW_QUALITY
)
_stable_audio_3_small = partial(
    _published, families.STABLE_AUDIO_3, sound=SoundFacts(44100, 2, 10.0, 120.0, 8, 1.0, "ping-pong")
)

PUBLISHED_CARDS: tuple[Card, ...] = (
    _audioldm2("audioldm2", "AudioLDM 2", "cvssp/audioldm2"),
    _audioldm2("audioldm2-large", "AudioLDM 2 large", "cvssp/audioldm2-large"),
    _audioldm2("audioldm2-music", "AudioLDM 2 music", "cvssp/audioldm2-music", **_MUSIC),
    _audioldm2(
        "audioldm2-gigaspeech", "AudioLDM 2 speech", "anhnct/audioldm2_gigaspeech", task="text-to-speech", speaks=True
    ),
    _audioldm("audioldm-s-full-v2", "AudioLDM small", "cvssp/audioldm-s-full-v2"),
    _audioldm("audioldm-m-full", "AudioLDM medium", "cvssp/audioldm-m-full"),
    _audioldm("audioldm-l-full", "AudioLDM large", "cvssp/audioldm-l-full"),
    _published(
        families.MUSICLDM, "musicldm", "MusicLDM", "ucsd-reach/musicldm",
        SoundFacts(16000, 1, 10.24, 60.0, 20, 2.0, "dpm++2m"), **_MUSIC,
    ),
    _stable_audio_3_small(
        "stable-audio-3-small-sfx", "Stable Audio 3 small, sounds", "stabilityai/stable-audio-3-small-sfx"
    ),
    _stable_audio_3_small(
        "stable-audio-3-small-music", "Stable Audio 3 small, music", "stabilityai/stable-audio-3-small-music", **_MUSIC
    ),
    _published(
        families.STABLE_AUDIO_3, "stable-audio-3-medium", "Stable Audio 3 medium", "stabilityai/stable-audio-3-medium",
        SoundFacts(44100, 2, 10.0, 380.0, 8, 1.0, "ping-pong"), **_MUSIC,
    ),
    _published(
        families.STABLE_AUDIO, "stable-audio-open-1.0", "Stable Audio Open", "stabilityai/stable-audio-open-1.0",
        SoundFacts(44100, 2, 10.0, 47.0, 100, 7.0, "cosine-dpm"),
    ),
    _published(
        families.ACE_STEP, "ace-step-1.5-turbo", "ACE-Step 1.5 turbo", "ACE-Step/acestep-v15-xl-turbo-diffusers",
        SoundFacts(48000, 2, 30.0, 600.0, 8, 1.0, "flow-euler"), **_MUSIC,
    ),
    _published(
        families.ACE_STEP, "ace-step-1.5-base", "ACE-Step 1.5 base", "ACE-Step/acestep-v15-xl-base-diffusers",
        SoundFacts(48000, 2, 30.0, 600.0, 50, 7.0, "flow-euler"), **_MUSIC,
    ),
)  # fmt: skip
"""The cards of the published checkpoints."""


def pocket_folder() -> Path:
    """Return the folder of the embedded model in the installed package."""
    return Path(str(resources.files("timbred") / "pocket" / "model"))


POCKET_NAME = "pocket"
"""Name of the embedded model."""

POCKET_REMEDY = "reinstall timbred: its package is incomplete"


@cache
def pocket_card() -> Card:
    """Return the embedded model's card: its `card.json`, and for the rest what its `pocket.json` says.

    Raises:
        MissingWeights, ModelError: The package is incomplete.
    """
    text = (resources.files("timbred") / "pocket" / "card.json").read_text("utf-8")
    content = read_card(pocket_folder(), POCKET_NAME, POCKET_REMEDY)
    return _card_of_pocket(POCKET_NAME, content, **json.loads(text))


@dataclass(frozen=True)
class Entry:
    """A known model: its card, the folder of its files, and how to obtain them."""

    card: Card
    folder: Path
    remedy: str

    def checkpoint(self) -> Checkpoint:
        """Inspect the folder as it is now.

        Raises:
            MissingWeights, ModelError: it can't be loaded; the message says why.
        """
        return checkpoint.inspect(self.folder, self.card.name, self.remedy)


@dataclass(frozen=True)
class Registry:
    """Every known model by name, and the component that compares their sounds."""

    entries: Mapping[str, Entry] = field(default_factory=dict[str, Entry])
    clap: ClapEntry | None = None

    def __getitem__(self, name: str) -> Entry:
        """Return a model.

        Raises:
            BadRequest: the name is that of a component.
            UnknownModel: there is none of this name; the message lists all names.
        """
        if self.clap is not None and name == CLAP_NAME:
            raise self.clap.refuse()
        if name not in self.entries:
            raise UnknownModel(f"there is no model {name!r}; there are {', '.join(self.entries)}")
        return self.entries[name]


def build(models_folder: Path, sources: Mapping[str, str]) -> Registry:
    """Return the embedded model, the published ones, and those named by the user (`models.NAME.source`)."""
    entries = {POCKET_NAME: Entry(pocket_card(), pocket_folder(), POCKET_REMEDY)}
    for card in PUBLISHED_CARDS:
        entries[card.name] = Entry(card, models_folder / card.name, f"fetch it with: timbred models pull {card.name}")
    for name, source in sources.items():
        if name != CLAP_NAME:
            entries[name] = _named_by_user(name, source, models_folder, entries.get(name))
    return Registry(entries, _clap_entry(models_folder, sources.get(CLAP_NAME, CLAP_SOURCE)))


def _clap_entry(models_folder: Path, source: str) -> ClapEntry:
    if Path(source).is_absolute():
        remedy = f"check models.{CLAP_NAME}.source: it should be a folder laid out as {CLAP_SOURCE}"
        return ClapEntry(Path(source), source, remedy)
    return ClapEntry(models_folder / CLAP_NAME, source, f"fetch it with: timbred models pull {CLAP_NAME}")


def _named_by_user(name: str, source: str, models_folder: Path, known: Entry | None) -> Entry:
    if Path(source).is_absolute():
        entry_folder, remedy = (
            Path(source),
            f"check models.{name}.source: it should be a folder in diffusers' format",
        )
    else:
        entry_folder, remedy = models_folder / name, f"fetch it with: timbred models pull {name}"
    if is_clap(entry_folder):
        remedy = f"it is a CLAP, a component that renders nothing: set models.{CLAP_NAME}.source to it"
    published = next((card for card in PUBLISHED_CARDS if card.source == source), None)
    card = known.card if known else published or _card_from_folder(name, entry_folder, remedy)
    return Entry(msgspec.structs.replace(card, name=name, source=source), entry_folder, remedy)


def _card_from_folder(name: str, folder: Path, remedy: str) -> Card:
    """Return a card for an unknown model: facts from its configuration, and the family's defaults."""
    try:
        inspected = checkpoint.inspect(folder, name, remedy)
    except (MissingWeights, ModelError):
        inspected = None  # the same error is raised again when the model is requested
    if inspected and is_pocket(folder):
        return _card_of_pocket(name, read_card(folder, name, remedy))
    family = inspected.family if inspected else families.AUDIOLDM2
    sound = inspected.sound if inspected else UNKNOWN_SOUND
    return Card(
        name=name,
        title=name,
        task="text-to-audio",
        licence="unknown",
        native_rate=sound.rate,
        channels=sound.channels,
        max_seconds=sound.max_seconds,
        min_seconds=sound.min_seconds,
        default_seconds=sound.default_seconds,
        steps=sound.steps,
        guidance=sound.guidance,
        scheduler=sound.scheduler,
        schedulers=family.schedulers,
        capabilities=family.capabilities,
        speaks=inspected.speaks if inspected else False,
        ranks="rank" in family.capabilities,
    )


def _card_of_pocket(name: str, content: PocketCard, title: str = "") -> Card:
    """Return the card of a model of the family pocket."""
    family, sound, words = families.POCKET, families.pocket_sound(vars(content)), content.vocabulary
    return _published(
        family,
        name,
        title or name,
        "",
        sound,
        licence=content.licence,
        negative_guidance=max(content.guidance, NEGATIVE_GUIDANCE),
        min_seconds=sound.min_seconds,
        kinds=tuple(kind for kinds in words.families.values() for kind in kinds),
        words=(
            *words.effects,
            "soft",
            "hard",
            *words.chords,
            *(f"{scale} scale" for scale in words.scales),
            NOTE_WORDS,
        ),
        kind_groups=tuple(words.families.items()),
        word_groups=tuple(words.descriptions.items()),
        version=content.version,
        ranks=content.sizes.ear is not None,
    )

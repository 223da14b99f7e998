"""The folder of a model of the family pocket, read and checked without torch.

`pocket.json` has the networks' sizes, the vocabulary, and the descriptions of the sounds in the bank;
`pocket.safetensors` has all tensors. The folder may come from anywhere: every number is checked before it is used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from timbred.errors import MissingWeights, ModelError

CARD_NAME, WEIGHTS_NAME = "pocket.json", "pocket.safetensors"

SAMPLE_RATE = 44_100
MIN_SECONDS, MAX_SECONDS = 0.3, 10.0
"""Shortest and longest sound of the training."""

FRAME_SAMPLES, TOKEN_FRAMES = 256, 8
"""Samples between frames of bands, and frames of one latent vector: 21.5 vectors a second."""
SAMPLES_A_VECTOR = FRAME_SAMPLES * TOKEN_FRAMES
"""Samples of a latent vector."""

BANDS, BANDS_A_GROUP = 160, 8
GROUPS = BANDS // BANDS_A_GROUP

MAX_CARD_BYTES, MAX_WEIGHTS_BYTES = 16_000_000, 2_000_000_000
"""Largest `pocket.json` and `pocket.safetensors`."""

MAX_WIDTH, MAX_LAYERS = 4096, 64
"""Largest width and depth of a network in a folder."""

MAX_ENTRIES, MAX_ENTRY_TOKENS = 20_000, 512
"""Largest number of sounds in a bank, and of vectors of one sound."""

MAX_EVENTS, MAX_NAMES = 4096, 20_000
"""Largest number of events of a description, and of names of one table."""

MAX_NAME_CHARACTERS = 200
"""Longest name in the vocabulary."""

FORMS = ("note", "chord", "arpeggio", "scale", "hit", "loop", "texture")
TONE_FORMS = ("note", "chord", "arpeggio", "scale")

TOUCH_WORDS = ("soft", "hard", "short", "long", "staccato", "punchy", "fast attack", "low", "high")
"""Words for velocity, length, attack and register."""

NOTE_EXAMPLES = (
    *(f"c{octave}" for octave in (1, 2, 3)),
    *(f"{name}4" for name in ("c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b")),
    *(f"c{octave}" for octave in (5, 6, 7)),
)
"""Some of the notes that a prompt may name: c1 to c7, and every one of an octave."""

TEMPO_EXAMPLES = ("70 bpm", "90 bpm", "97 bpm", "120 bpm", "140 bpm", "174 bpm")
"""Some of the tempi that a prompt may name, of 20 to 400 beats per minute."""

EFFECT_NAMES = (
    *("dark", "bright", "muffled", "telephone", "distortion", "lofi", "chorus", "tremolo", "noisy", "fade in"),
    *("backwards", "wide", "delay", "reverb"),
)
"""Effects that prompts can ask for, in the order in which they are applied."""

Event = tuple[float, float, int, int]
"""Start and length in seconds, MIDI note or key, velocity."""


@dataclass(frozen=True)
class PocketSound:
    """The description of one sound.

    Attributes:
        source: "font" for sounds of a soundfont, "samples" for recorded ones, "code" for synthesised ones.
        kind: name of the kind.
        form: one of FORMS.
        seconds: length of the clip.
        seed: seed of the rendering.
        bank, program: MIDI program of sounds from a soundfont (kit program for drums).
        drums: True for the drum channel.
        events: notes to play.
        velocity: 1..127, of notes, chords and hits.
        note: MIDI note, lowest of a chord, first of a scale.
        register: -1 low, 1 high in the kind's range, else 0.
        chord, scale: names in the vocabulary.
        direction: 1 up, -1 down, 0 up and down, of an arpeggio or scale.
        short: True for a tone that ends early (staccato).
        bpm, bars, style: of loops (and bpm of arpeggios).
        effects: names of effects, in the order in which they are applied.
        recording: name of a recorded sample.
        recipe: fields of a synthesised sound's recipe.
        length: -1 shorter, 1 longer than usual, else 0.
        sudden: True for an attack at once.
        transposition: semitones, of hits and sounds without a note.
    """

    source: str
    kind: str
    form: str
    seconds: float
    seed: int
    bank: int = 0
    program: int = 0
    drums: bool = False
    events: tuple[Event, ...] = ()
    velocity: int | None = None
    note: int | None = None
    register: int = 0
    chord: str | None = None
    scale: str | None = None
    direction: int = 0
    short: bool = False
    bpm: float | None = None
    bars: int = 0
    style: str | None = None
    effects: tuple[str, ...] = ()
    recording: str | None = None
    recipe: dict[str, Any] | None = None
    length: int = 0
    sudden: bool = False
    transposition: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, without those that have their default."""
        defaults = {named.name: named.default for named in fields(self)}
        return {name: value for name, value in vars(self).items() if value != defaults[name]}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "PocketSound":
        """Create a description from the result of `to_dict`."""
        tuples: dict[str, Any] = {
            name: tuple(tuple(value) if isinstance(value, list) else value for value in values[name])
            for name in ("events", "effects")
            if name in values
        }
        return PocketSound(**(values | tuples))


RECIPE_NUMBERS = ("length", "pitch", "brightness", "edge", "motion", "space")


@dataclass(frozen=True)
class SynthesisedFields:
    """The fields of a synthesised sound's recipe that sketches compare: -1, 0 or 1 each, a MIDI note, and words."""

    length: int
    pitch: int
    brightness: int
    edge: int
    motion: int
    space: int
    note: int | None
    flags: tuple[str, ...]

    @property
    def peculiarity(self) -> int:
        """Number of the fields length, brightness, edge and space with an unusual value."""
        return sum(value != 0 for value in (self.length, self.brightness, self.edge, self.space))


@dataclass(frozen=True)
class Instrument:
    """A pitched program of the soundfont.

    Attributes:
        bank: MIDI bank.
        program: MIDI program, 0..127.
        names: name of the kind, then synonyms.
        low, high: lowest and highest rendered note.
        held: True if the tone is sustained until the key is released.
        family: name of the group of instruments.
    """

    bank: int
    program: int
    names: tuple[str, ...]
    low: int
    high: int
    held: bool
    family: str

    @property
    def kind(self) -> str:
        """The kind's name."""
        return self.names[0]


@dataclass(frozen=True)
class Recording:
    """A recorded sample.

    Attributes:
        names: name of the kind, then synonyms.
        form: "hit", "loop", "texture" or "note".
        seconds: length.
    """

    names: tuple[str, ...]
    form: str
    seconds: float


@dataclass(frozen=True)
class DrumStyle:
    """A style of drum loops.

    Attributes:
        names: its names.
        tempo: usual range in beats per minute.
        kits: MIDI programs of suitable kits.
        bars: lines of sixteen characters by key: X accent, x hit, o soft hit, ? hit with probability 1/3.
        swing: delay of every second sixteenth (or eighth) as a share of a sixteenth.
    """

    names: tuple[str, ...]
    tempo: tuple[int, int]
    kits: tuple[int, ...]
    bars: tuple[dict[int, str], ...]
    swing: float = 0.0


@dataclass(frozen=True)
class Vocabulary:
    """Everything that a model has names for.

    Attributes:
        instruments: pitched programs.
        unpitched: bank, program and names of the soundfont's sounds without a note.
        drums: names of the percussion keys.
        kits: names of the drum kits by program.
        shared_keys: percussion keys that are equal in all kits.
        recordings: recorded samples by name.
        synthesised: names of the synthesised kinds.
        chords, scales: semitones above the lowest note.
        styles: styles of drum loops.
        loops: names of drum loops.
        effects: words for each effect.
        words: words of the training's captions that say something about the sound, in lower case.
        neutral: words of the wordings around captions, which say nothing about the sound.
    """

    instruments: tuple[Instrument, ...]
    unpitched: tuple[tuple[int, int, tuple[str, ...]], ...]
    drums: dict[int, tuple[str, ...]]
    kits: dict[int, tuple[str, ...]]
    shared_keys: tuple[int, ...]
    recordings: dict[str, Recording]
    synthesised: dict[str, tuple[str, ...]]
    chords: dict[str, tuple[int, ...]]
    scales: dict[str, tuple[int, ...]]
    styles: dict[str, DrumStyle]
    loops: tuple[str, ...]
    effects: dict[str, tuple[str, ...]]
    words: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """The classes that the text encoder predicts, in the order of its outputs."""
        kinds = [
            *(row.kind for row in self.instruments),
            *(names[0] for _, _, names in self.unpitched),
            *(names[0] for names in self.drums.values()),
            "drum loop",
            *(row.names[0] for row in self.recordings.values()),
            *(f"synthesised {name}" for name in self.synthesised),
        ]
        return {
            "kind": tuple(dict.fromkeys(kinds)),
            "form": FORMS,
            "chord": tuple(self.chords),
            "scale": tuple(self.scales),
            "style": tuple(self.styles),
            "touch": ("soft", "ordinary", "hard"),
            "register": ("low", "middle", "high"),
            "note": tuple(str(note) for note in range(128)),
            "root": tuple(str(note) for note in range(12)),
        }

    @cached_property
    def names(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Every kind with its names; a kind may be listed several times."""
        return (
            *((row.kind, row.names) for row in self.instruments),
            *((names[0], names) for _, _, names in self.unpitched),
            *((names[0], names) for names in self.drums.values()),
            *((row.names[0], row.names) for row in self.recordings.values()),
            *((f"synthesised {kind}", names) for kind, names in self.synthesised.items()),
            ("drum loop", self.loops),
        )

    @cached_property
    def families(self) -> dict[str, tuple[str, ...]]:
        """The names of the kinds by family."""
        families: dict[str, list[str]] = {}
        for row in self.instruments:
            families.setdefault(row.family, []).append(row.kind)
        families["drums"] = [names[0] for names in self.drums.values()]
        families["drum loops"] = [f"{name} drum loop" for name in self.styles]
        families["effects and ambiences"] = [names[0] for _, _, names in self.unpitched]
        families["recorded"] = [row.names[0] for row in self.recordings.values()]
        families["synthesised"] = [names[0] for names in self.synthesised.values()]
        return {family: tuple(dict.fromkeys(kinds)) for family, kinds in families.items()}

    @cached_property
    def descriptions(self) -> dict[str, tuple[str, ...]]:
        """The words that describe a sound of a kind, by group."""
        return {
            "notes": NOTE_EXAMPLES,
            "forms": ("chord", "arpeggio", "scale"),
            "chords": tuple(self.chords),
            "scales": tuple(f"{name} scale" for name in self.scales),
            "tempi": TEMPO_EXAMPLES,
            "styles of drum loops": tuple(self.styles),
            "drum kits": tuple(dict.fromkeys(name for names in self.kits.values() for name in names)),
            "touches": TOUCH_WORDS,
            "effects": tuple(dict.fromkeys(word for words in self.effects.values() for word in words)),
        }

    def condition_size(self, vector: int) -> int:
        """Return the size of the generator's condition, for the size of the text encoder's vector."""
        return vector + sum(map(len, self.choices.values())) + len(self.effects) + 1 + 2 * BANDS


@dataclass(frozen=True)
class TextSizes:
    """Widths and depth of the text encoder."""

    pieces: int = 128
    width: int = 192
    layers: int = 2
    heads: int = 4
    queries: int = 6
    vector: int = 384


@dataclass(frozen=True)
class GeneratorSizes:
    """Widths and depth of the generator: 10 million parameters. `vector` is the size of its condition."""

    vector: int
    latent: int = 240
    width: int = 288
    blocks: int = 7
    heads: int = 4
    expansion: int = 3


@dataclass(frozen=True)
class CodecSizes:
    """Widths and depths of the codec for cells (43 per second in 40 rows) and groups (21.5 per second in 20 rows)."""

    group_latent: int = 12
    widths: tuple[int, int] = (64, 128)
    encoder_blocks: tuple[int, int] = (1, 2)
    decoder_blocks: tuple[int, int] = (2, 3)

    @property
    def latent(self) -> int:
        """Size of a latent vector."""
        return self.group_latent * GROUPS


@dataclass(frozen=True)
class EarSizes:
    """Width of the ear."""

    width: int = 256


@dataclass(frozen=True)
class NetworkSizes:
    """Sizes of all networks of a model.

    Without a generator, sounds are their sketches; without an ear, takes can't be compared.
    """

    text: TextSizes
    generator: GeneratorSizes | None
    codec: CodecSizes
    ear: EarSizes | None = None


@dataclass(frozen=True)
class BankEntry:
    """A sound of the bank.

    Attributes:
        sound: its description.
        gain: factor from the stored sound, whose peak is 0.9, to its level at the usual velocity.
        first, tokens: position of its latents.
    """

    sound: PocketSound
    gain: float
    first: int
    tokens: int


@dataclass(frozen=True)
class PocketCard:
    """The content of `pocket.json`.

    Attributes:
        sample_rate: in hertz; `SAMPLE_RATE`.
        channels: of the sound; 2.
        max_seconds: longest sound.
        steps: usual number of steps.
        guidance: usual guidance scale; 1 for none.
        refinement: share of the generator's changes that is heard, 0 to 1.
        sizes: of the networks.
        vocabulary: names of everything.
        encoder: fingerprint of the codec's encoder, which made the bank's latents.
        bank: description, gain, first vector and number of vectors of each sound of the bank.
        version: name of this training.
        licence: of the weights.
    """

    sample_rate: int
    channels: int
    max_seconds: float
    steps: int
    guidance: float
    sizes: NetworkSizes
    vocabulary: Vocabulary
    encoder: int
    bank: tuple[tuple[PocketSound, float, int, int], ...]
    refinement: float = 1.0
    version: str = ""
    licence: str = "Apache-2.0"

    @cached_property
    def entries(self) -> tuple[BankEntry, ...]:
        """The sounds of the bank."""
        return tuple(BankEntry(sound, gain, first, tokens) for sound, gain, first, tokens in self.bank)


def is_pocket(folder: Path) -> bool:
    """Tell if a folder holds a model of this family."""
    return (folder / CARD_NAME).is_file()


def read_card(folder: Path, name: str, remedy: str) -> PocketCard:
    """Read and check `pocket.json`.

    Raises:
        MissingWeights: It can't be read.
        ModelError: It is damaged; names the value.
    """
    path = folder / CARD_NAME
    try:
        if not path.is_file() or path.stat().st_size > MAX_CARD_BYTES:
            raise ModelError(f"{name}: {path} isn't a file of at most {MAX_CARD_BYTES / 1e6:g} MB; {remedy}")
        content = path.read_bytes()
    except OSError as error:
        raise MissingWeights(f"{name}: {path} can't be read ({error.strerror}); {remedy}") from error
    return decode_card(content, name, path, remedy)


def decode_card(content: bytes, name: str, path: Path, remedy: str) -> PocketCard:
    """Return the checked content of `pocket.json`.

    Raises:
        ModelError: A value is missing, of the wrong type, or out of its range; names it.
    """
    import msgspec  # a machine that only trains may lack it

    try:
        card = msgspec.json.decode(content, type=PocketCard)
        _check_card(card)
    except (msgspec.MsgspecError, ValueError, IndexError, RecursionError) as error:
        raise ModelError(f"{name}: {path} is damaged ({error}); {remedy}") from error
    return card


def read_recipe(recipe: Mapping[str, Any]) -> SynthesisedFields:
    """Return the fields of a recipe that sketches compare.

    Raises:
        ValueError: One is missing or of the wrong type.
    """
    numbers = {name: recipe.get(name) for name in RECIPE_NUMBERS}
    note, flags = recipe.get("note"), recipe.get("flags")
    is_number = all(isinstance(value, int | float) and math.isfinite(value) for value in numbers.values())
    if not is_number or not isinstance(flags, list | tuple) or not (note is None or isinstance(note, int)):
        raise ValueError(f"bank: a recipe with {numbers}, {note!r} and {flags!r}"[:200])
    read: dict[str, Any] = {**numbers, "note": note, "flags": tuple(map(str, flags))}
    return SynthesisedFields(**read)


def _check_card(card: PocketCard) -> None:
    _check_vocabulary(card.vocabulary)
    _check("sample_rate", card.sample_rate, SAMPLE_RATE, SAMPLE_RATE)
    _check("channels", card.channels, 2, 2)
    _check("max_seconds", card.max_seconds, 0.3, 60.0)
    _check("steps", card.steps, 1, 100)
    _check("guidance", card.guidance, 1.0, 30.0)
    _check("refinement", card.refinement, 0.0, 1.0)
    generator = card.sizes.generator
    parts = [card.sizes.text, card.sizes.codec, card.sizes.ear, generator]
    for part in (part for part in parts if part is not None):
        for name, value in vars(part).items():
            limit = (
                MAX_LAYERS if name in ("layers", "blocks", "encoder_blocks", "decoder_blocks", "heads") else MAX_WIDTH
            )
            for number in value if isinstance(value, tuple) else (value,):
                _check(f"sizes: {name}", number, 1, limit)
    if any(width % 8 for width in card.sizes.codec.widths):
        raise ValueError(f"sizes: widths {card.sizes.codec.widths} aren't multiples of 8")
    for part in (card.sizes.text, *(() if generator is None else (generator,))):
        if part.width % (2 * part.heads):
            raise ValueError(f"sizes: a width of {part.width} for {part.heads} heads")
    if generator is not None and generator.latent != card.sizes.codec.latent:
        raise ValueError(f"sizes: the generator has {generator.latent} values, the codec {card.sizes.codec.latent}")
    condition = card.vocabulary.condition_size(card.sizes.text.vector)
    if generator is not None and generator.vector != condition:
        raise ValueError(f"sizes: the generator's vector has {generator.vector} values where {condition} are needed")
    _check("bank: sounds", len(card.bank), 1, MAX_ENTRIES)
    for sound, gain, first, tokens in card.bank:
        _check_sound(sound, card.vocabulary)
        _check("bank: gain", gain, 0.0, 1e3)
        _check("bank: first", first, 0, MAX_ENTRIES * MAX_ENTRY_TOKENS)
        _check("bank: tokens", tokens, 1, MAX_ENTRY_TOKENS)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} is {value}, allowed are {low:g} to {high:g}")


def _check_vocabulary(words: Vocabulary) -> None:
    tables = (words.instruments, words.drums, words.kits, words.chords, words.scales, words.styles, words.synthesised)
    for table in (*tables, words.unpitched, words.recordings, words.effects, words.loops, words.words, words.neutral):
        _check("vocabulary: names", len(table), 0, MAX_NAMES)
    if not all(tables):
        raise ValueError("vocabulary: a table is empty")
    named = (*(names for _, names in words.names), *words.kits.values(), *(row.names for row in words.styles.values()))
    if not all(named):
        raise ValueError("vocabulary: something has no name")
    listed = (*words.families.values(), *words.descriptions.values())
    lengths = [len(name) for names in listed for name in names]
    _check("vocabulary: characters of a name", min(lengths), 1, MAX_NAME_CHARACTERS)
    _check("vocabulary: characters of a name", max(lengths), 1, MAX_NAME_CHARACTERS)
    for row in words.instruments:
        _check("vocabulary: low", row.low, 0, 127)
        _check("vocabulary: high", row.high, row.low, 127)
    for steps in (*words.chords.values(), *words.scales.values()):
        _check("vocabulary: notes", len(steps), 1, 24)
        for step in steps:
            _check("vocabulary: semitones", step, 0, 48)
    for style in words.styles.values():
        _check("vocabulary: tempo", style.tempo[0], 20, 400)
        _check("vocabulary: tempo", style.tempo[1], style.tempo[0], 400)
        _check("vocabulary: swing", style.swing, 0.0, 1.0)
        _check("vocabulary: patterns", len(style.bars), 1, 64)
        if not style.kits or not set(style.kits) <= words.kits.keys():
            raise ValueError(f"vocabulary: kits {style.kits} of a style")
        for line in (line for bar in style.bars for line in bar.values()):
            if len(line) != 16 or not set(line) <= set("Xxo?."):
                raise ValueError(f"vocabulary: the pattern {line[:40]!r}")
    if unknown := sorted(set(words.effects) - set(EFFECT_NAMES)):
        raise ValueError(f"vocabulary: the effect {unknown[0][:40]!r}, known are {', '.join(EFFECT_NAMES)}")
    if not words.shared_keys or not set(words.shared_keys) <= words.drums.keys() or 0 not in words.kits:
        raise ValueError("vocabulary: shared keys without names, or no kit 0")


def _check_sound(sound: PocketSound, words: Vocabulary) -> None:
    if sound.kind not in words.choices["kind"] or sound.form not in FORMS:
        raise ValueError(f"bank: a {sound.form[:40]!r} of {sound.kind[:40]!r}")
    _check("bank: events", len(sound.events), 1 if sound.source == "font" else 0, MAX_EVENTS)
    _check("bank: seconds", sound.seconds, 0.0, 600.0)
    for start, length, note, velocity in sound.events:
        _check("bank: event", start, 0.0, 600.0)
        _check("bank: event", length, 0.0, 600.0)
        _check("bank: note", note, 0, 127)
        _check("bank: velocity", velocity, 1, 127)
    if sound.note is not None:
        _check("bank: note", sound.note, 0, 127)
    if sound.recipe is not None:
        read_recipe(sound.recipe)

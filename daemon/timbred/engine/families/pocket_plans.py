"""Plans of the family pocket: the description of a sound that a prompt asks for.

The description follows from the text encoder's classes and the prompt's numbers, and from the words for kinds, effects,
length, attack and pitch, which outweigh the network. What the prompt leaves open (a note, a pattern, a kit) is drawn
with the seed.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timbred.models.pocket import (
    EFFECT_NAMES,
    SAMPLE_RATE,
    SAMPLES_A_VECTOR,
    TONE_FORMS,
    BankEntry,
    DrumStyle,
    Instrument,
    PocketSound,
    Vocabulary,
    read_recipe,
)
from timbred.models.pocket_words import Names, PromptWord, plural_of, read_words

USUAL_VELOCITY = 95
"""Velocity of the bank's sounds."""

TOUCHES = {"soft": 42, "ordinary": USUAL_VELOCITY, "hard": 120}
TEMPO_WORDS = frozenset({"bpm", "tempo", "beats"})
SHORT_WORDS = frozenset({"staccato", "short", "brief", "clipped", "tight", "quick", "tiny", "stab", "stabs"})
LONG_WORDS = frozenset({"long", "sustained", "extended", "ringing", "lasting", "endless", "lengthy"})
SUDDEN_WORDS = frozenset({"punchy", "sudden", "immediate", "snappy"})
FAST_WORDS = frozenset({"fast", "quick", "hard", "immediate", "sharp"})
"""Words for a fast attack, where the word "attack" is near."""

HIGH_WORDS, LOW_WORDS = frozenset({"high", "high-pitched"}), frozenset({"low", "deep", "low-pitched"})
HIGH_NOTE, LOW_NOTE = 69, 55
"""Lowest MIDI note of a high sound, and highest of a low one."""

HEIGHT_SEMITONES = 5
"""Transposition of a high sound without a note, and of a low one downwards."""

CHORD_QUALITIES = frozenset(
    {
        *("major", "minor", "maj", "min", "m", "maj7", "min7", "m7", "m9", "dim", "diminished", "aug", "augmented"),
        *("sus2", "sus4", "suspended", "power", "fifth", "dominant", "seventh", "7", "9"),
    }
)
NOTED_QUALITIES = CHORD_QUALITIES - {"m"}
"""Qualities of a chord on a note with an octave: the m of "fm electric piano e2" isn't one."""

PLAYED_WORDS = frozenset({"chord", "chords", "arpeggio", "arp", "scale", "melody", "riff"})
"""Words for what an instrument plays."""

FUNCTION_WORDS = frozenset(["a", "an", "the", "in", "of", "with", "on", "for", "and", "to", "by", "from", "at"])
"""Words of names that name nothing by themselves."""

FALLING_WORDS = frozenset({"down", "falling", "descending"})
ALIKE_ENTRIES = 3
"""One of so many best matching sounds is chosen by the seed."""

PLAIN_PREFERENCE = 0.08
"""Preference, in the cosine of the angle to the prompt, for synthesised sounds without another length, attack, colour
or space, which the plan applies itself."""

RELEASED_SHARE = 0.92
"""Part of a sound after which its note is released; a loop's is held to its end."""

LAYER_SEPARATOR = re.compile(
    r"(\s+(?:and|with|in|over|plus|on|under|behind|against|beneath)\s+|\s*[,;+&]\s+)", re.IGNORECASE
)
"""Separators of the sounds of a prompt that asks for several at once."""

MAX_LAYERS = 4
"""Sounds at once of one prompt; further ones are not heard."""

LIKELY_KINDS = 3
"""Kinds whose probabilities count for how much of a prompt the model knows."""

MIN_CHANCE = 1e-6
NAMED_ODDS, PARTLY_NAMED_ODDS = 14.0, 7.0
"""Logarithm of the factor of a kind's odds for each word of its name in the prompt, and for each word of any of its
names in a prompt that names no kind. A named kind outweighs any chance of the others."""

UNWANTED_ODDS = 100.0
"""Logarithm of the factor by which the odds of a kind that the negative prompt names are lower."""

MIN_REPEATED_S, MAX_REPEATED_S = 0.2, 1.5
"""Length from which the intervals of repeated sounds grow with it, and the longest one that is repeated."""

STRETCHED_KINDS = frozenset({"synthesised riser"})
"""Kinds whose movement takes the whole length."""

REPETITION_INTERVALS = (0.7, 2.2)
"""Shortest and longest time between the beginnings of repeated sounds, by their own length."""

TOUCH_VARIATION = 9
"""Largest difference of a take's velocity from the asked one."""

END_S = 0.001
"""Hits later than this before a loop's end belong to the next bar."""

KICK_KEY = 36
STEPS_A_BAR = 16
HIT_VELOCITIES = {"X": (112, 124), "x": (88, 106), "o": (36, 58), "?": (60, 90)}
HIT_CHANCES = {"X": 1.0, "x": 0.97, "o": 0.8, "?": 0.33}


@dataclass(frozen=True)
class DrumHit:
    """One hit: position in sixteenths from the start of the loop, key and velocity."""

    step: float
    key: int
    velocity: int


def draw_hits(style: DrumStyle, bars: int, random: np.random.Generator) -> list[DrumHit]:
    """Draw the hits of `bars` bars from one of the style's patterns, with new optional hits in each bar.

    The first beat of the loop always has a hit, so that the grid is audible.
    """
    pattern = style.bars[int(random.integers(len(style.bars)))]
    hits: list[DrumHit] = []
    for bar in range(bars):
        for key, line in pattern.items():
            for step, sign in enumerate(line):
                first = bar == 0 and step == 0
                if sign == "." or (not first and random.uniform() > HIT_CHANCES[sign]):
                    continue
                low, high = HIT_VELOCITIES[sign]
                delay = style.swing * _swing_share(style, step)
                hits.append(DrumHit(STEPS_A_BAR * bar + step + delay, key, int(random.integers(low, high + 1))))
    if not any(hit.step == 0 for hit in hits):
        hits.append(DrumHit(0.0, KICK_KEY, 110))
    return sorted(hits, key=lambda hit: hit.step)


def _swing_share(style: DrumStyle, step: int) -> float:
    """Return 1 for steps with swing: odd sixteenths, or for jazz the eighths between the beats; else 0."""
    if style.swing > 0.5:
        return 1.0 if step % 4 == 2 else 0.0
    return 1.0 if step % 2 else 0.0


@dataclass(frozen=True)
class PromptReading:
    """A prompt as the text encoder understands it.

    Attributes:
        words: its words.
        chances: probabilities of each class, by the names of `Vocabulary.choices`.
        vector: (vector,) float32.
    """

    words: tuple[PromptWord, ...]
    chances: Mapping[str, NDArray[np.float32]]
    vector: NDArray[np.float32]


@dataclass(frozen=True)
class PlanRequest:
    """Conditions of a plan besides the prompt.

    Attributes:
        seconds: length of the sound.
        seed: of what the prompt leaves open.
        bpm: tempo of loops and arpeggios; None for the prompt's.
        loop: True for a sound whose end meets its start.
        note: MIDI note of a prompt that names none; None for any.
        root: pitch class of a prompt that names no note, 0 (c) to 11; None for any.
        negative: what the sound must not have; None for nothing.
    """

    seconds: float
    seed: int
    bpm: float | None = None
    loop: bool = False
    note: int | None = None
    root: int | None = None
    negative: PromptReading | None = None

    @property
    def gate(self) -> float:
        """Seconds after which a held note is released."""
        return self.seconds if self.loop else RELEASED_SHARE * self.seconds


class Planner:
    """Draws descriptions of sounds.

    Args:
        vocabulary: names of everything.
        entries: sounds of the bank.
        entry_vectors: unit vectors (sounds, vector) of the captions of the bank's sounds; only those of synthesised
            sounds are used.
    """

    def __init__(
        self, vocabulary: Vocabulary, entries: Sequence[BankEntry], entry_vectors: NDArray[np.float32]
    ) -> None:
        self.vocabulary = vocabulary
        self._entries = entries
        self._entry_vectors = entry_vectors
        self._named = Names(vocabulary.names)
        self._plurals = _plurals_of(vocabulary)
        self._named_effects = Names(
            (name, tuple({name, *phrases, *(phrase.removeprefix("with ") for phrase in phrases)}))
            for name, phrases in vocabulary.effects.items()
        )
        self._kind_words: dict[str, set[str]] = {}
        for kind, names in vocabulary.names:
            self._kind_words.setdefault(kind, set()).update(word.text for name in names for word in read_words(name))
        self._known_words = frozenset(vocabulary.words) | frozenset(map(plural_of, vocabulary.words))
        self._neutral_words = frozenset(vocabulary.neutral)
        self._instruments = {row.kind: row for row in vocabulary.instruments}
        self._keys: dict[str, list[int]] = {}
        for key, names in vocabulary.drums.items():
            self._keys.setdefault(names[0], []).append(key)
        self._programs = {names[0]: (bank, program) for bank, program, names in vocabulary.unpitched}
        self._recorded: dict[str, list[str]] = {}
        for name, row in vocabulary.recordings.items():
            self._recorded.setdefault(row.names[0], []).append(name)
        self._synthesised: dict[str, list[int]] = {}
        self._peculiarity = np.zeros(len(entries))
        self._lengths_s: dict[tuple[str, str, str | None], float] = {}
        for index, entry in enumerate(entries):
            self._lengths_s[_source_of(entry.sound)] = entry.tokens * SAMPLES_A_VECTOR / SAMPLE_RATE
            if entry.sound.recipe is not None:
                self._synthesised.setdefault(entry.sound.kind, []).append(index)
                self._peculiarity[index] = read_recipe(entry.sound.recipe).peculiarity

    def split_layers(self, prompt: str) -> list[str]:
        """Return the parts of a prompt that name sounds of their own; the whole prompt if there is one.

        "A piano in the rain, with reverb" has the parts "A piano, with reverb" and "the rain, with reverb": what
        follows the last sound is said of all. Drums beside a drum loop belong to it.
        """
        pieces = LAYER_SEPARATOR.split(prompt)
        whole, layers, found, rest = set(self._named.find(read_words(prompt))), list[str](), set[str](), ""
        for separator, piece in zip(["", *pieces[1::2]], pieces[::2], strict=True):
            kinds = set(self._named.find(read_words(piece)))
            is_own = bool(kinds) and kinds <= whole and not kinds & found
            if "drum loop" in found:
                is_own = is_own and not kinds & self._keys.keys()
            if not is_own:
                rest += separator + piece
            elif not layers:
                layers, rest = [rest + separator + piece], ""
            else:
                layers, rest = [*layers[:-1], layers[-1] + rest, piece], ""
            found |= kinds if is_own else set()
        return [layer + rest for layer in layers[:MAX_LAYERS]] if len(layers) > 1 else [prompt]

    def plan_layers(self, readings: Sequence[PromptReading], request: PlanRequest) -> list[PocketSound]:
        """Return the descriptions of the sounds that are heard at once.

        A tempo holds for all of them, and so does a note that the last part names, as in "violin and flute c4".
        Otherwise parts without a note take the root of the first tone.
        """
        notes = [named_note(reading.words) for reading in readings]
        named = next((note for note in notes if note is not None), None)
        bpm = request.bpm or next((bpm for reading in readings if (bpm := tempo_of(reading.words)) is not None), None)
        common = dataclasses.replace(request, bpm=bpm, note=request.note if named is None else notes[-1])
        root, sounds = named, list[PocketSound]()
        for reading in readings:
            sounds.append(self.plan(reading, dataclasses.replace(common, root=None if root is None else root % 12)))
            root = sounds[-1].note if root is None else root
        return sounds

    def plan(self, reading: PromptReading, request: PlanRequest) -> PocketSound:
        """Return the description of a prompt's sound."""
        kind = self.kind_of(reading, request.negative)
        sound = self._repeated(self._plan(kind, reading, request), reading.words, request)
        effects = self.effects_of(kind, reading, request.negative)
        return dataclasses.replace(sound, effects=effects, **self._shape_of(kind, sound, reading.words))

    def _plan(self, kind: str, reading: PromptReading, request: PlanRequest) -> PocketSound:
        random = np.random.default_rng((request.seed, 77))
        words, seconds = reading.words, request.seconds
        velocity = self._velocity(reading, request.seed)
        tempo = request.bpm if request.bpm else tempo_of(words)
        seed = int(random.integers(2**31))
        if kind in self._instruments:
            return self._tone(self._instruments[kind], reading, request, tempo, random, seed)
        if kind == "drum loop":
            return self._loop(self._chosen("style", reading), words, seconds, tempo, random, seed)
        if kind in self._keys:
            key = int(random.choice(self._keys[kind]))
            kit = 0 if key in self.vocabulary.shared_keys else self._kit(words, random)
            events = ((0.0, seconds, key, velocity),)
            return PocketSound("font", kind, "hit", seconds, seed, 0, kit, True, events, velocity)
        if kind in self._programs:
            bank, program = self._programs[kind]
            events = ((0.0, request.gate, int(random.integers(57, 64)), USUAL_VELOCITY),)
            return PocketSound("font", kind, "texture", seconds, seed, bank, program, False, events)
        if kind in self._recorded:
            name = str(random.choice(self._recorded[kind]))
            form = self.vocabulary.recordings[name].form
            return PocketSound("samples", kind, form, seconds, seed, recording=name)
        return self._recipe(kind, reading, request, random)

    def _repeated(self, sound: PocketSound, words: Sequence[PromptWord], request: PlanRequest) -> PocketSound:
        """Return a short sound that the prompt names in the plural, such as "bubbles", at irregular times."""
        is_plural = any(word.text in self._plurals.get(sound.kind, ()) for word in words)
        if not is_plural or sound.form == "loop" or sound.note is not None or sound.kind in STRETCHED_KINDS:
            return sound
        length = self._lengths_s.get(_source_of(sound), request.seconds)
        if length > min(MAX_REPEATED_S, request.seconds):
            return sound
        random = np.random.default_rng((request.seed, 79))
        key, velocity = sound.events[0][2:] if sound.events else (0, USUAL_VELOCITY)
        shortest = max(length, MIN_REPEATED_S)
        intervals = shortest * random.uniform(*REPETITION_INTERVALS, math.ceil(2 * request.seconds / shortest))
        starts = [0.0, *(float(start) for start in np.cumsum(intervals) if start < request.seconds)]
        return dataclasses.replace(sound, events=tuple((start, length, key, velocity) for start in starts))

    def effects_of(self, kind: str, reading: PromptReading, negative: PromptReading | None = None) -> tuple[str, ...]:
        """Return the effects that a prompt asks for, in the order in which they are applied.

        A word that belongs to the kind's name asks for none: a warm pad is warm by itself.
        """
        own = self._kind_words.get(kind, set())
        named = self._named_effects.find([word for word in reading.words if word.text not in own])
        unwanted = {} if negative is None else self._named_effects.find(negative.words)
        return tuple(name for name in EFFECT_NAMES if name in named and name not in unwanted)

    def _shape_of(self, kind: str, sound: PocketSound, words: Sequence[PromptWord]) -> dict[str, Any]:
        """Return the fields of a description that follow from words for its length, its attack and its pitch."""
        texts = {word.text for word in words}
        shape: dict[str, Any] = {}
        if sound.form != "loop":
            shape["length"] = bool(texts & LONG_WORDS) - bool(texts & SHORT_WORDS)
            shape["sudden"] = bool(texts & SUDDEN_WORDS) or ("attack" in texts and bool(texts & FAST_WORDS))
        is_tone = sound.source == "font" and not sound.drums
        pitch = texts - self._kind_words.get(kind, set())
        height = bool(pitch & HIGH_WORDS) - bool(pitch & LOW_WORDS)
        if is_tone or not height or sound.form == "loop" or named_note(words) is not None:
            return shape
        if sound.note is None:
            return {**shape, "transposition": height * HEIGHT_SEMITONES}
        note = sound.note
        while height > 0 and note < HIGH_NOTE:
            note += 12
        while height < 0 and note > LOW_NOTE:
            note -= 12
        return {**shape, "note": note}

    def _velocity(self, reading: PromptReading, seed: int) -> int:
        """Return the velocity that a prompt asks for; takes differ a little."""
        varied = int(np.random.default_rng((seed, 78)).integers(-TOUCH_VARIATION, TOUCH_VARIATION + 1))
        return min(TOUCHES[self._chosen("touch", reading)] + varied, 127)

    def kind_of(self, reading: PromptReading, negative: PromptReading | None = None) -> str:
        """Return the most probable kind of those that the negative prompt doesn't name."""
        odds, kinds = self._kind_odds(reading), self.vocabulary.choices["kind"]
        unwanted = {} if negative is None else self._named.find(negative.words)
        return kinds[int((odds - np.array([UNWANTED_ODDS * (kind in unwanted) for kind in kinds])).argmax())]

    def knows(self, reading: PromptReading) -> float:
        """Return how much of a prompt the model knows, 0 to 1.

        It is the probability of the likeliest kinds, several of which may share a name, times the share of the words
        that captions of the training have, in the singular or plural. Words that say nothing about the sound don't
        count.
        """
        told = [word for word in reading.words if word.text not in self._neutral_words]
        known = [word for word in told if word.text in self._known_words or word.pitch_class is not None or word.number]
        likeliest = float(np.sort(self.kind_chances(reading))[-LIKELY_KINDS:].sum())
        return min(1.0, likeliest) * len(known) / len(told) if told else 0.0

    def kind_chances(self, reading: PromptReading) -> NDArray[np.float64]:
        """Return the probability of each kind."""
        odds = self._kind_odds(reading)
        chances = np.exp(odds - odds.max())
        return chances / chances.sum()

    def _kind_odds(self, reading: PromptReading) -> NDArray[np.float64]:
        """Return the logarithm of each kind's probability; the odds of those that the prompt names are higher."""
        named, kinds = self._named.find(reading.words), self.vocabulary.choices["kind"]
        weights = NAMED_ODDS * np.array([named.get(kind, 0) for kind in kinds])
        if not named:
            texts = {word.text for word in reading.words}
            telling = texts - self._neutral_words - FUNCTION_WORDS - PLAYED_WORDS - CHORD_QUALITIES - {"root", "number"}
            weights = PARTLY_NAMED_ODDS * np.array([len(telling & self._kind_words[kind]) for kind in kinds])
            if not weights.any() and (_names_chord(reading.words) or texts & PLAYED_WORDS):
                weights = PARTLY_NAMED_ODDS * np.array([kind in self._instruments for kind in kinds])
        return np.log(reading.chances["kind"] + MIN_CHANCE) + weights

    def _chosen(self, name: str, reading: PromptReading) -> str:
        """Return the most probable class."""
        return self.vocabulary.choices[name][int(reading.chances[name].argmax())]

    def _tone(
        self,
        row: Instrument,
        reading: PromptReading,
        request: PlanRequest,
        tempo: float | None,
        random: np.random.Generator,
        seed: int,
    ) -> PocketSound:
        words, seconds = reading.words, request.seconds
        velocity = self._velocity(reading, request.seed)
        form = TONE_FORMS[int(reading.chances["form"][: len(TONE_FORMS)].argmax())]
        is_noted = named_note(words) is not None
        if is_noted and not {word.text for word in words} & (NOTED_QUALITIES | PLAYED_WORDS):
            form = "note"
        elif form == "note" and not is_noted and _names_chord(words):
            form = "chord"
        note = note_of(words, row, int(reading.chances["register"].argmax()) - 1, random, request)
        common: dict[str, Any] = {
            "source": "font",
            "kind": row.kind,
            "seconds": seconds,
            "seed": seed,
            "bank": row.bank,
            "program": row.program,
            "velocity": velocity,
        }
        if form == "note":
            short = any(word.text in SHORT_WORDS for word in words)
            events = ((0.0, min(0.15, seconds) if short else request.gate, note, velocity),)
            return PocketSound(form=form, events=events, note=note, short=short, **common)
        named: dict[str, str] = {}
        if form == "scale":
            named["scale"] = self._chosen("scale", reading)
            steps = self.vocabulary.scales[named["scale"]]
        else:
            named["chord"] = self._chosen("chord", reading)
            steps = self.vocabulary.chords[named["chord"]]
        while note + max(steps) > row.high and note - 12 >= row.low:
            note -= 12
        notes = [min(note + step, 127) for step in steps]
        if form == "chord":
            events = tuple((0.0, request.gate, key, velocity) for key in notes)
            return PocketSound(form=form, events=events, note=note, **named, **common)
        direction = -1 if any(word.text in FALLING_WORDS for word in words) else 1
        notes = notes[::direction]
        step = 60.0 / (tempo or 120.0) / (4 if form == "arpeggio" else 2)
        count = max(1, round(seconds / step))
        events = tuple((index * step, 0.8 * step, notes[index % len(notes)], velocity) for index in range(count))
        return PocketSound(form=form, events=events, note=note, direction=direction, bpm=tempo, **named, **common)

    def _loop(
        self,
        style: str,
        words: Sequence[PromptWord],
        seconds: float,
        tempo: float | None,
        random: np.random.Generator,
        seed: int,
    ) -> PocketSound:
        row = self.vocabulary.styles[style]
        if tempo is None:
            low, high = row.tempo
            bars = max(1, round(seconds / (240.0 / ((low + high) / 2))))
            tempo = 240.0 * bars / seconds
        step = 60.0 / tempo / 4
        bars = max(1, -(-round(seconds / step) // STEPS_A_BAR))
        hits = draw_hits(row, bars, random)
        events = tuple(
            (hit.step * step, step, hit.key, hit.velocity) for hit in hits if hit.step * step < seconds - END_S
        )
        kit = self._kit(words, random, row.kits)
        return PocketSound(
            "font", "drum loop", "loop", seconds, seed, 0, kit, True, events, bpm=tempo, bars=bars, style=style
        )

    def _kit(
        self, words: Sequence[PromptWord], random: np.random.Generator, suitable: Sequence[int] | None = None
    ) -> int:
        kits, texts = self.vocabulary.kits, " ".join(word.text for word in words)
        for kit, names in kits.items():
            if any(re.search(rf"\b{re.escape(name.removeprefix('with '))}\b", texts) for name in names):
                return kit
        return int(random.choice(suitable if suitable is not None else tuple(kits)))

    def _recipe(
        self, kind: str, reading: PromptReading, request: PlanRequest, random: np.random.Generator
    ) -> PocketSound:
        entries = self._synthesised[kind]
        likeness = self._entry_vectors[entries] @ reading.vector / np.linalg.norm(reading.vector)
        likeness = likeness - PLAIN_PREFERENCE * self._peculiarity[entries]
        best = np.argsort(-likeness, kind="stable")[: min(ALIKE_ENTRIES, len(entries))]
        sound = self._entries[entries[int(best[int(random.integers(len(best)))])]].sound
        named, note = named_note(reading.words, request.note), sound.note
        if note is not None and named is None and request.root is not None:
            named = note + (request.root - note + 5) % 12 - 5  # the nearest one
        note = note if note is None or named is None else named
        return dataclasses.replace(sound, seconds=request.seconds, note=note)


def _source_of(sound: PocketSound) -> tuple[str, str, str | None]:
    """Return what tells a sound's entry in the bank from others without a note."""
    return sound.kind, str(sound.recipe), sound.recording


def _plurals_of(vocabulary: Vocabulary) -> dict[str, set[str]]:
    """Return the words in the plural of each kind without a note that isn't played on drums."""
    tones = {row.kind for row in vocabulary.instruments} | {names[0] for names in vocabulary.drums.values()}
    plurals: dict[str, set[str]] = {}
    for kind, names in vocabulary.names:
        if kind not in tones:
            plurals.setdefault(kind, set()).update(plural_of(name.rsplit(maxsplit=1)[-1]) for name in names)
    return plurals


def _names_chord(words: Sequence[PromptWord]) -> bool:
    """Tell if a root without an octave is followed by a chord's quality: "c minor", "em7"."""
    pairs = itertools.pairwise(words)
    return any(first.text == "root" and second.text in CHORD_QUALITIES for first, second in pairs)


def tempo_of(words: Sequence[PromptWord]) -> float | None:
    """Return the tempo that a prompt names: a number beside "bpm", "tempo" or "beats", or one of 50 to 220."""
    for index, word in enumerate(words):
        near = {other.text for other in words[max(0, index - 2) : index + 3]}
        if word.number is not None and near & TEMPO_WORDS and 20 <= word.number <= 400:
            return word.number
    numbers = [word.number for word in words if word.number is not None and word.text == "number"]
    return next((number for number in numbers if 50 <= number <= 220), None)


def named_note(words: Sequence[PromptWord], default: int | None = None) -> int | None:
    """Return the first note that is named, else the default."""
    return next((note for word in words if (note := word.note) is not None), default)


def note_of(
    words: Sequence[PromptWord],
    row: Instrument,
    register: int,
    random: np.random.Generator,
    request: PlanRequest,
) -> int:
    """Return the named note; of a named root, or without a name, one in the middle of the instrument's register.

    Without a name, it is the request's note if there is one, in an octave that the instrument has, or of its root.
    """
    low, high = row.low, row.high
    named = named_note(words)
    if named is not None:
        return named
    middle = low + (high - low) * (0.5 + 0.32 * register)
    root = next((word.pitch_class for word in words if word.pitch_class is not None), None)
    if root is None and request.note is not None:
        octaves = math.ceil(max(low - request.note, 0) / 12) - math.ceil(max(request.note - high, 0) / 12)
        return request.note + 12 * octaves
    root = request.root if root is None else root
    if root is None:
        return int(np.clip(round(middle + random.uniform(-4, 4)), low, high))
    candidates = [note for note in range(low, high + 1) if note % 12 == root]
    return min(candidates or [int(middle)], key=lambda note: abs(note - middle))

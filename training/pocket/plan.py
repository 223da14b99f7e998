"""Plans: the description of a sound that a prompt asks for, from the text encoder's classes and the prompt's numbers.

What the prompt leaves open (a note, a pattern, a kit) is drawn with the seed.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.pocket import patterns
from training.pocket.bank import VELOCITY, Bank
from training.pocket.instruments import DRUMS, INSTRUMENTS, KITS, SHARED_KEYS, UNPITCHED, Instrument
from training.pocket.labels import CHOICES, KINDS
from training.pocket.recordings import RECORDINGS
from training.pocket.sounds import CHORDS, SCALES, Sound
from training.pocket.text import TextSide
from training.pocket.tokens import Word, read_words
from training.pocket.words import LOOPS, SYNTHESISED, caption

TONE_FORMS = ("note", "chord", "arpeggio", "scale")
TOUCHES = {"soft": 42, "ordinary": VELOCITY, "hard": 120}
TEMPO_WORDS = frozenset({"bpm", "tempo", "beats"})
CAPTIONS_OF_AN_ENTRY = 8
ALIKE_ENTRIES = 3
"""One of so many best matching sounds is chosen by the seed."""
RELEASED_SHARE = 0.92
NAMED_ODDS = 6.0
"""Logarithm of the factor of a kind's odds for each word of its name in the prompt."""
END_S = 0.001
"""Hits later than this before a loop's end belong to the next bar."""

_BY_KIND: dict[str, Instrument] = {row.kind: row for row in INSTRUMENTS}
_KEYS: dict[str, list[int]] = {}
for _key, _names in DRUMS.items():
    _KEYS.setdefault(_names[0], []).append(_key)
_PROGRAMS = {names[0]: address for address, names in UNPITCHED.items()}
_RECORDED: dict[str, list[str]] = {}
for _name, _row in RECORDINGS.items():
    _RECORDED.setdefault(_row.names[0], []).append(_name)


def _names_of_kinds() -> dict[tuple[str, ...], set[str]]:
    names: dict[tuple[str, ...], set[str]] = {}
    listed = [(row.kind, row.names) for row in INSTRUMENTS]
    listed += [(row[0], row) for table in (UNPITCHED, DRUMS) for row in table.values()]
    listed += [(row.names[0], row.names) for row in RECORDINGS.values()]
    listed += [(f"synthesised {kind}", row) for kind, row in SYNTHESISED.items()]
    listed.append(("drum loop", LOOPS))
    for kind, row in listed:
        for name in row:
            names.setdefault(_texts(read_words(name)), set()).add(kind)
    return names


def _texts(words: Sequence[Word]) -> tuple[str, ...]:
    return tuple(word.text for word in words)


NAMES = _names_of_kinds()
"""Kinds by the words of their names."""
_MAX_NAME_WORDS = max(map(len, NAMES))


def named_kinds(words: Sequence[Word]) -> dict[str, int]:
    """Return the kinds that a prompt names, with the number of words of the name; names within longer ones don't count.

    >>> named_kinds(read_words("a warm steel drum"))
    {'steel drum': 2}
    """
    texts = _texts(words)
    spans = [
        (first, first + count)
        for count in range(_MAX_NAME_WORDS, 0, -1)
        for first in range(len(texts) - count + 1)
        if texts[first : first + count] in NAMES
    ]
    named: dict[str, int] = {}
    for first, last in spans:
        if any(other != (first, last) and other[0] <= first and last <= other[1] for other in spans):
            continue
        for kind in NAMES[texts[first:last]]:
            named[kind] = max(named.get(kind, 0), last - first)
    return named


class Planner:
    """Reader of prompts."""

    def __init__(self, side: TextSide, bank: Bank) -> None:
        self.side = side
        self.bank = bank
        self._vectors: dict[int, Tensor] = {}
        self._synthesised: dict[str, list[int]] = {}
        for index, entry in enumerate(bank.entries):
            if entry.sound.recipe is not None:
                self._synthesised.setdefault(entry.sound.kind, []).append(index)

    @torch.no_grad()
    def plan(self, prompt: str, seconds: float, seed: int, bpm: float | None = None) -> Sound:
        """Return the description of a prompt's sound.

        Args:
            prompt: in any words.
            seconds: length of the sound.
            seed: of what the prompt leaves open.
            bpm: tempo of loops and arpeggios; by default the prompt's.
        """
        vector = self.side.read_prompts([prompt])
        return self._plan(vector, read_words(prompt), seconds, np.random.default_rng((seed, 77)), bpm)

    def _plan(
        self, vector: Tensor, words: Sequence[Word], seconds: float, random: np.random.Generator, bpm: float | None
    ) -> Sound:
        chances = {name: head(vector).softmax(-1)[0].numpy() for name, head in self.side.heads.items()}
        named = named_kinds(words)
        odds = np.log(chances["kind"] + 1e-6) + NAMED_ODDS * np.array([named.get(kind, 0) for kind in KINDS])
        kind = KINDS[int(odds.argmax())]
        velocity = TOUCHES[CHOICES["touch"][int(chances["touch"].argmax())]]
        tempo = bpm if bpm is not None else tempo_of(words)
        seed = int(random.integers(2**31))
        if kind in _BY_KIND:
            return self._tone(_BY_KIND[kind], chances, words, seconds, velocity, tempo, random, seed)
        if kind == "drum loop":
            style = CHOICES["style"][int(chances["style"].argmax())]
            return self._loop(style, words, seconds, tempo, random, seed)
        if kind in _KEYS:
            key = int(random.choice(_KEYS[kind]))
            kit = 0 if key in SHARED_KEYS else _kit(words, random)
            events = ((0.0, seconds, key, velocity),)
            return Sound("font", kind, "hit", seconds, seed, 0, kit, True, events, velocity)
        if kind in _PROGRAMS:
            bank, program = _PROGRAMS[kind]
            key = int(random.integers(57, 64))
            events = ((0.0, RELEASED_SHARE * seconds, key, VELOCITY),)
            return Sound("font", kind, "texture", seconds, seed, bank, program, False, events)
        if kind in _RECORDED:
            name = str(random.choice(_RECORDED[kind]))
            return Sound("samples", kind, RECORDINGS[name].form, seconds, seed, recording=name)
        return self._recipe(kind, vector, words, seconds, random)

    def _tone(
        self,
        row: Instrument,
        chances: dict[str, np.ndarray],
        words: Sequence[Word],
        seconds: float,
        velocity: int,
        tempo: float | None,
        random: np.random.Generator,
        seed: int,
    ) -> Sound:
        form = TONE_FORMS[int(chances["form"][: len(TONE_FORMS)].argmax())]
        note = note_of(words, row, int(chances["register"].argmax()) - 1, random)
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
            short = any(word.text in ("staccato", "short", "brief", "clipped") for word in words)
            gate = min(0.15, seconds) if short else RELEASED_SHARE * seconds
            events = ((0.0, gate, note, velocity),)
            return Sound(form=form, events=events, note=note, short=short, **common)
        named: dict[str, str] = {}
        if form == "scale":
            named["scale"] = CHOICES["scale"][int(chances["scale"].argmax())]
            steps = SCALES[named["scale"]]
        else:
            named["chord"] = CHOICES["chord"][int(chances["chord"].argmax())]
            steps = CHORDS[named["chord"]]
        while note + max(steps) > row.high and note - 12 >= row.low:
            note -= 12
        if form == "chord":
            events = tuple((0.0, RELEASED_SHARE * seconds, note + step, velocity) for step in steps)
            return Sound(form=form, events=events, note=note, **named, **common)
        falling = any(word.text in ("down", "falling", "descending") for word in words)
        notes = [note + step for step in steps][:: -1 if falling else 1]
        step = 60.0 / (tempo or 120.0) / (4 if form == "arpeggio" else 2)
        count = max(1, round(seconds / step))
        events = tuple((index * step, 0.8 * step, notes[index % len(notes)], velocity) for index in range(count))
        direction = -1 if falling else 1
        return Sound(form=form, events=events, note=note, direction=direction, bpm=tempo, **named, **common)

    def _loop(
        self,
        style: str,
        words: Sequence[Word],
        seconds: float,
        tempo: float | None,
        random: np.random.Generator,
        seed: int,
    ) -> Sound:
        row = patterns.STYLES[style]
        if tempo is None:
            low, high = row.tempo
            bars = max(1, round(seconds / (240.0 / ((low + high) / 2))))
            tempo = 240.0 * bars / seconds
        step = 60.0 / tempo / 4
        bars = max(1, -(-round(seconds / step) // patterns.STEPS))
        hits = patterns.draw_hits(row, bars, random)
        events = tuple(
            (hit.step * step, step, hit.key, hit.velocity) for hit in hits if hit.step * step < seconds - END_S
        )
        kit = _kit(words, random, row.kits)
        return Sound(
            "font", "drum loop", "loop", seconds, seed, 0, kit, True, events, bpm=tempo, bars=bars, style=style
        )

    def _recipe(
        self, kind: str, vector: Tensor, words: Sequence[Word], seconds: float, random: np.random.Generator
    ) -> Sound:
        entries = self._synthesised[kind]
        likeness = torch.stack([self._entry_vector(entry) for entry in entries]) @ vector[0]
        best = likeness.topk(min(ALIKE_ENTRIES, len(entries))).indices
        sound = self.bank.entries[entries[int(best[int(random.integers(len(best)))])]].sound
        named = next((word for word in words if word.octave is not None and word.pitch_class is not None), None)
        note = sound.note
        if named is not None and note is not None:
            assert named.octave is not None and named.pitch_class is not None
            note = 12 * (named.octave + 1) + named.pitch_class
        return dataclasses.replace(sound, seconds=seconds, note=note)

    def _entry_vector(self, index: int) -> Tensor:
        """Return the mean vector of captions of an entry, (vector,)."""
        if index not in self._vectors:
            random = np.random.default_rng(index)
            sound = self.bank.entries[index].sound
            texts = [caption(sound, random, rough=False, note_chance=0.3) for _ in range(CAPTIONS_OF_AN_ENTRY)]
            self._vectors[index] = torch.nn.functional.normalize(self.side.read_prompts(texts).mean(0), dim=0)
        return self._vectors[index]


def tempo_of(words: Sequence[Word]) -> float | None:
    """Return the tempo that a prompt names: a number beside "bpm", "tempo" or "beats", or one of 50 to 220."""
    for index, word in enumerate(words):
        near = {other.text for other in words[max(0, index - 2) : index + 3]}
        if word.number is not None and near & TEMPO_WORDS and 20 <= word.number <= 400:
            return word.number
    numbers = [word.number for word in words if word.number is not None and word.text == "number"]
    return next((number for number in numbers if 50 <= number <= 220), None)


def note_of(words: Sequence[Word], row: Instrument, register: int, random: np.random.Generator) -> int:
    """Return the named note; of a named root, or without a name, one in the middle of the instrument's register."""
    low, high = row.low, row.high
    for word in words:
        if word.pitch_class is not None and word.octave is not None:
            return min(max(12 * (word.octave + 1) + word.pitch_class, 0), 127)
    middle = low + (high - low) * (0.5 + 0.32 * register)
    root = next((word.pitch_class for word in words if word.pitch_class is not None), None)
    if root is None:
        return int(np.clip(round(middle + random.uniform(-4, 4)), low, high))
    candidates = [note for note in range(low, high + 1) if note % 12 == root]
    return min(candidates or [int(middle)], key=lambda note: abs(note - middle))


def _kit(words: Sequence[Word], random: np.random.Generator, suitable: Sequence[int] = tuple(KITS)) -> int:
    texts = " ".join(word.text for word in words)
    for kit, names in KITS.items():
        if any(re.search(rf"\b{re.escape(name.removeprefix('with '))}\b", texts) for name in names):
            return kit
    return int(random.choice(suitable))

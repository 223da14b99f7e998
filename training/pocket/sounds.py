"""Random descriptions of sounds, from which sounds are rendered and captions are written."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from timbred.engine.families.pocket_plans import draw_hits
from timbred.models.pocket import MAX_SECONDS
from timbred.models.pocket import PocketSound as Sound
from training.pocket import patterns
from training.pocket.effects import EFFECTS
from training.pocket.instruments import DRUMS, INSTRUMENTS, KITS, SHARED_KEYS, UNPITCHED, Instrument
from training.pocket.recordings import RECORDINGS
from training.synthesis import recipe as synthesis
from training.synthesis.oscillators import RATE as SYNTHESIS_RATE

T = TypeVar("T")

CHORDS: dict[str, tuple[int, ...]] = {
    "major": (0, 4, 7),
    "minor": (0, 3, 7),
    "major 7": (0, 4, 7, 11),
    "minor 7": (0, 3, 7, 10),
    "dominant 7": (0, 4, 7, 10),
    "diminished": (0, 3, 6),
    "augmented": (0, 4, 8),
    "sus2": (0, 2, 7),
    "sus4": (0, 5, 7),
    "minor 9": (0, 3, 7, 10, 14),
    "power": (0, 7, 12),
}
CHORD_WEIGHTS = (6, 6, 2, 3, 2, 1, 1, 1, 1, 1, 1)
SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11, 12),
    "minor": (0, 2, 3, 5, 7, 8, 10, 12),
    "pentatonic": (0, 2, 4, 7, 9, 12),
    "blues": (0, 3, 5, 6, 7, 10, 12),
}
SECONDS = (0.6, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0)
SECONDS_WEIGHTS = (0.1, 0.18, 0.17, 0.28, 0.15, 0.08, 0.03, 0.01)
SOFT, HARD = 50, 112
"""Largest velocity of a soft sound, and smallest of a hard one."""


def _pick(random: np.random.Generator, options: Iterable[T], weights: Sequence[float] | None = None) -> T:
    listed = list(options)
    if weights is None:
        return listed[int(random.integers(len(listed)))]
    shares = np.asarray(weights, dtype=float)
    return listed[int(random.choice(len(listed), p=shares / shares.sum()))]


def _seconds(random: np.random.Generator) -> float:
    """Draw a length near one of the usual lengths."""
    return float(np.clip(_pick(random, SECONDS, SECONDS_WEIGHTS) * random.uniform(0.85, 1.15), 0.4, MAX_SECONDS))


def _velocity(random: np.random.Generator) -> int:
    choice = random.uniform()
    if choice < 0.22:
        return int(random.integers(28, SOFT + 1))
    if choice < 0.44:
        return int(random.integers(HARD, 128))
    return int(random.integers(70, 104))


def _effects(random: np.random.Generator, form: str, seconds: float) -> tuple[str, ...]:
    """Draw one or two effects that suit the form, or none for 60 % of the sounds."""
    count = int(random.choice((0, 1, 2), p=(0.6, 0.32, 0.08)))
    allowed = [name for name, effect in EFFECTS.items() if form in effect.forms and seconds >= effect.min_seconds]
    chosen = random.choice(allowed, size=min(count, len(allowed)), replace=False) if allowed else ()
    return tuple(name for name in EFFECTS if name in set(map(str, chosen)))


def _register(instrument: Instrument, note: int) -> int:
    position = (note - instrument.low) / max(1, instrument.high - instrument.low)
    return -1 if position < 0.25 else 1 if position > 0.75 else 0


def draw_tone(random: np.random.Generator, instrument: Instrument | None = None, source: str = "font") -> Sound:
    """Draw a note, chord, arpeggio or scale of one instrument."""
    if instrument is None:
        instrument = _pick(random, INSTRUMENTS)
    form = _pick(random, ("note", "chord", "arpeggio", "scale"), (0.68, 0.16, 0.1, 0.06))
    seconds = _seconds(random)
    velocity = _velocity(random)
    common: dict[str, Any] = {
        "source": source,
        "kind": instrument.kind,
        "seed": int(random.integers(2**31)),
        "bank": instrument.bank,
        "program": instrument.program,
    }
    if form == "note":
        note = int(random.integers(instrument.low, instrument.high + 1))
        short = bool(random.uniform() < 0.14)
        gate = random.uniform(0.08, 0.2) if short else seconds * random.uniform(0.86, 0.95)
        return Sound(
            form=form,
            seconds=seconds,
            events=((0.0, float(gate), note, velocity),),
            velocity=velocity,
            note=note,
            register=_register(instrument, note),
            short=short,
            effects=_effects(random, form, seconds),
            **common,
        )
    steps: tuple[int, ...]
    names: dict[str, Any] = {}
    if form == "scale":
        names["scale"] = _pick(random, SCALES, (3, 3, 2, 1))
        steps = SCALES[names["scale"]]
    else:
        names["chord"] = _pick(random, CHORDS, CHORD_WEIGHTS)
        steps = CHORDS[names["chord"]]
    room = max(instrument.low, instrument.high - max(steps))
    root = int(random.integers(max(instrument.low, min(36, room)), room + 1))
    notes = [root + step for step in steps]
    if form == "chord":
        gate = seconds * random.uniform(0.86, 0.95)
        events = tuple((0.0, float(gate), note, velocity) for note in notes)
        return Sound(
            form=form,
            seconds=seconds,
            events=events,
            velocity=velocity,
            note=root,
            effects=_effects(random, form, seconds),
            **names,
            **common,
        )
    return _draw_run(random, form, notes, velocity, common | names)


def _draw_run(random: np.random.Generator, form: str, notes: list[int], velocity: int, common: dict[str, Any]) -> Sound:
    """Draw a sequence of notes at a tempo, for whole bars."""
    direction = int(random.integers(-1, 2))
    if direction < 0:
        notes = notes[::-1]
    elif direction == 0:
        notes = notes + notes[-2:0:-1]
    bpm = int(random.integers(70, 171))
    division = _pick(random, (2, 4), (1, 1)) if form == "arpeggio" else 2
    step = 60.0 / bpm / division
    bars = 1 if 240 / bpm > 2.2 or random.uniform() < 0.5 else 2
    count = bars * 4 * division
    gate = step * random.uniform(0.6, 1.0)
    events = tuple(
        (index * step, float(gate), notes[index % len(notes)], int(np.clip(velocity + random.integers(-6, 7), 1, 127)))
        for index in range(count)
    )
    seconds = 240.0 / bpm * bars
    return Sound(
        form=form,
        seconds=seconds,
        events=events,
        velocity=velocity,
        note=notes[0] if direction else min(notes),
        direction=direction,
        bpm=bpm,
        bars=bars,
        effects=_effects(random, form, seconds),
        **common,
    )


def draw_hit(random: np.random.Generator, key: int | None = None, source: str = "font") -> Sound:
    """Draw a hit of a drum or a percussion instrument."""
    if key is None:
        key = _pick(random, DRUMS)
    kit = 0 if key in SHARED_KEYS else _pick(random, KITS)
    velocity = _velocity(random)
    seconds = _pick(random, (0.5, 0.8, 1.0, 1.5, 2.0, 3.0), (2, 2, 3, 2, 3, 1)) * random.uniform(0.9, 1.1)
    return Sound(
        source=source,
        kind=DRUMS[key][0],
        form="hit",
        seconds=float(seconds),
        seed=int(random.integers(2**31)),
        program=kit,
        drums=True,
        events=((0.0, float(seconds) * 0.9, key, velocity),),
        velocity=velocity,
        style=None if key in SHARED_KEYS else str(kit),
        effects=_effects(random, "hit", seconds),
    )


def draw_loop(
    random: np.random.Generator, style: str | None = None, bpm: int | None = None, source: str = "font"
) -> Sound:
    """Draw a drum loop of one or two bars; its clip has the exact length of its bars."""
    name = style if style is not None else _pick(random, patterns.STYLES)
    row = patterns.STYLES[name]
    low, high = row.tempo if random.uniform() < 0.6 else (60, 180)
    tempo = bpm if bpm is not None else int(random.integers(low, high + 1))
    bars = 2 if tempo >= 84 and random.uniform() < 0.6 else 1
    step = 60.0 / tempo / 4
    events = tuple((float(hit.step * step), 0.9 * step, hit.key, hit.velocity) for hit in draw_hits(row, bars, random))
    seconds = 240.0 / tempo * bars
    return Sound(
        source=source,
        kind="drum loop",
        form="loop",
        seconds=seconds,
        seed=int(random.integers(2**31)),
        program=_pick(random, row.kits),
        drums=True,
        events=events,
        bpm=tempo,
        bars=bars,
        style=name,
        effects=_effects(random, "loop", seconds),
    )


def draw_unpitched(random: np.random.Generator, address: tuple[int, int] | None = None, source: str = "font") -> Sound:
    """Draw a sound of the soundfont without a note, by bank and program or at random."""
    bank, program = address if address is not None else _pick(random, UNPITCHED)
    seconds = _seconds(random)
    key = int(random.integers(54, 67))
    return Sound(
        source=source,
        kind=UNPITCHED[bank, program][0],
        form="texture",
        seconds=seconds,
        seed=int(random.integers(2**31)),
        bank=bank,
        program=program,
        events=((0.0, seconds * 0.93, key, int(random.integers(80, 120))),),
        effects=_effects(random, "texture", seconds),
    )


def draw_recording(random: np.random.Generator) -> Sound:
    """Draw one of the recorded samples."""
    name = _pick(random, RECORDINGS)
    row = RECORDINGS[name]
    seconds = float(row.seconds if row.form == "loop" else min(MAX_SECONDS, row.seconds, _seconds(random)))
    return Sound(
        source="samples",
        kind=row.names[0],
        form=row.form,
        seconds=seconds,
        seed=int(random.integers(2**31)),
        recording=name,
        effects=_effects(random, row.form, seconds),
    )


def draw_synthesised(random: np.random.Generator) -> Sound:
    """Draw a synthesised sound."""
    seconds = min(_seconds(random), 6.0)
    recipe = synthesis.draw(random, int(seconds * SYNTHESIS_RATE))
    return Sound(
        source="code",
        kind=f"synthesised {recipe.kind}",
        form="note" if recipe.note is not None else "texture",
        seconds=seconds,
        seed=recipe.seed,
        note=recipe.note,
        effects=() if recipe.space < 0 or random.uniform() < 0.8 else _effects(random, "texture", seconds),
        recipe=dataclasses.asdict(recipe),
    )


def draw(random: np.random.Generator) -> Sound:
    """Draw a sound of the data set."""
    choice = random.uniform()
    if choice < 0.52:
        return draw_tone(random)
    if choice < 0.64:
        return draw_hit(random)
    if choice < 0.76:
        return draw_loop(random)
    if choice < 0.80:
        return draw_unpitched(random)
    if choice < 0.84:
        return draw_recording(random)
    return draw_synthesised(random)

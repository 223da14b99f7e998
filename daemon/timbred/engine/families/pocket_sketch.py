"""Sketches: a described sound composed from sounds of the bank, as bands.

Each event takes the nearest note of its instrument, transposes it, lengthens or damps it, and adds it at its time. Then
the effects are applied.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from timbred.engine.codecs.bands import (
    CENTRES,
    EDGES,
    FLOOR_DB,
    GROUP,
    HALF_WIDTHS,
    HOP,
    Frames,
    frame_powers,
    loudest_level,
    mean_level,
)
from timbred.engine.families.pocket_effects import change_frames
from timbred.engine.families.pocket_plans import STRETCHED_KINDS, USUAL_VELOCITY
from timbred.models.pocket import (
    BANDS,
    GROUPS,
    SAMPLE_RATE,
    BankEntry,
    PocketSound,
    SynthesisedFields,
    Vocabulary,
    read_recipe,
)
from timbred.process_memory import RecentDict

CODE_RANGE = 4.0
"""Largest value of a byte of the bank in standard deviations."""

MAX_DECODED = 64
"""Sounds of the bank that stay decoded: about a megabyte each."""

FRAMES_A_SECOND = SAMPLE_RATE / HOP
SUSTAIN_FIRST, SUSTAIN_LAST = 0.45, 0.92
"""Part of a sustained sound that is repeated, alternately forwards and backwards, to lengthen it."""
TILT_HERTZ = 250.0
TILT_DB_AN_OCTAVE = 0.02
"""Change of an instrument's spectrum above TILT_HERTZ by each step of the velocity from the usual one: soft notes are
darker."""

TAIL_SECONDS = 0.4
"""Length of what is heard of a note after its release."""

RELEASE_DB_A_SECOND = 220.0
DAMPING_DB_A_SECOND = 110.0
SHORT_SHARE, SHORT_FALL_DB = 0.35, 40.0
"""Part of its audible frames after which a short sound has fallen by so many decibels more."""

CUT_FRAMES = 8
"""Frames at the end of a stored sound in which the windows of its analysis reach beyond it."""

CUT_SHARE = 0.9
"""Part of the length of its rendering from which a stored sound is cut off by it; shorter ones end by themselves."""

ENDED_DB = 60.0
"""Level below the maximum under which a stored sound has ended by itself."""

LEAST_DECAY_DB_A_SECOND = 3.0
"""Decay of a band of a struck sound after its stored frames."""

LONG_FACTOR, ATTACK_FRAMES = 1.8, 10
"""Factor of the decay of a long sound after its first frames."""

AUDIBLE_DB, FULL_LEVEL_DB = 40.0, 4.0
"""Level below the maximum at which a sound ends, and to which an attack rises."""

LEVEL_FRAMES = 86
"""Frames before and after a join whose levels are matched: half a second."""

FADED_POWER = 1e-4
"""Power, as a share of its maximum, below which a continued sound has faded away."""

SMOOTHED_FRAMES, DECAYED_DB = 11, 14.0
"""Frames of the moving average by which a sound is tested for a sustained part, and level of such a part below the
maximum."""

END_FADE_FRAMES, END_FADE_DB = 8, 60.0
"""Fade at the end of a sketch that is no loop."""

NOTE_CELLS, LOWEST_PARTIAL, TONAL_SHARE = 6, 16.0, 0.5
"""Cells of a semitone, hertz of the lowest cell, and least share of a note's partials in the tonal energy."""

BEHIND_DB = -10.0
"""Level of a texture that is heard together with tones, hits or loops."""

LOUDEST_DB = -3.0
"""Power of the loudest frame of a sketch; that of sounds with a peak of 0.9."""


@dataclass(frozen=True)
class StoredBank:
    """The bank as it is stored.

    Attributes:
        codes: (vectors, latent) int8, of all entries in order.
        scale, middle: (latent,), of the codec's latents.
        entries: descriptions and positions.
        encoder: fingerprint of the encoder of the latents.
    """

    codes: Tensor
    scale: Tensor
    middle: Tensor
    entries: tuple[BankEntry, ...]
    encoder: int

    def rows(self) -> list[list[object]]:
        """Return the entries as plain values."""
        return [[entry.sound.to_dict(), entry.gain, entry.first, entry.tokens] for entry in self.entries]


class Bank:
    """The sounds of the bank, decoded when they are asked for, of which the latest `max_decoded` are kept."""

    def __init__(self, decoder: Callable[[Tensor], Tensor], stored: StoredBank, max_decoded: int = MAX_DECODED) -> None:
        self.stored = stored
        self.entries = stored.entries
        self._decoder = decoder
        self._decoded: RecentDict[int, Frames] = RecentDict(max_decoded)

    @torch.no_grad()
    def frames(self, index: int) -> Frames:
        """Return the bands of an entry, (frames, bands or groups)."""
        decoded = self._decoded.get(index)
        if decoded is None:
            entry, stored = self.entries[index], self.stored
            codes = stored.codes[entry.first : entry.first + entry.tokens].float()
            latents = codes * (CODE_RANGE / 127) * stored.scale + stored.middle
            decoded = self._decoded[index] = Frames.unstacked(self._decoder(latents[None])[0].float())
        return decoded


@dataclass
class Mixture:
    """Sums over events, from which bands are computed.

    Attributes:
        power, hertz, tonality: (frames, BANDS), the latter two weighted by power.
        left, right, width: (frames, GROUPS), `width` weighted by power.
    """

    power: Tensor
    hertz: Tensor
    tonality: Tensor
    left: Tensor
    right: Tensor
    width: Tensor

    @staticmethod
    def silent(frames: int) -> "Mixture":
        """Return sums without events."""
        power, hertz, tonality = (torch.zeros(frames, BANDS) for _ in range(3))
        left, right, width = (torch.zeros(frames, GROUPS) for _ in range(3))
        return Mixture(power, hertz, tonality, left, right, width)

    @staticmethod
    def of(frames: Frames) -> "Mixture":
        """Return the sums of one sound."""
        power = torch.where(frames.energy > FLOOR_DB + 3, 10 ** (frames.energy / 10), 0.0)
        groups = power.unflatten(-1, (GROUPS, GROUP)).sum(-1)
        balance = frames.balance.clamp(-1, 1)
        return Mixture(
            power,
            power * frames.hertz(),
            power * frames.tonality,
            groups * (1 - balance) / 2,
            groups * (1 + balance) / 2,
            groups * frames.width,
        )

    def parts(self) -> tuple[Tensor, ...]:
        """Return all sums."""
        return self.power, self.hertz, self.tonality, self.left, self.right, self.width

    def taken(self, indices: Tensor, gains: Tensor) -> "Mixture":
        """Return the frames at `indices`, with their powers multiplied by `gains`."""
        power, hertz, tonality, left, right, width = (part[indices] * gains[:, None] for part in self.parts())
        return Mixture(power, hertz, tonality, left, right, width)

    def transposed(self, semitones: float) -> "Mixture":
        """Multiply all frequencies, and move the powers to the bands that contain them."""
        if semitones == 0:
            return self
        ratio = 2 ** (semitones / 12)
        hertz = ratio * torch.where(self.power > 0, self.hertz / (self.power + 1e-30), CENTRES)
        index = (torch.searchsorted(EDGES, hertz.contiguous(), right=True) - 1).clamp(0, BANDS - 1)
        heard = (hertz < EDGES[-1]).float()
        power, weighted, tonality = (
            torch.zeros_like(self.power).scatter_add_(1, index, part * heard)
            for part in (self.power, self.power * hertz, self.tonality)
        )
        # the sides of a group move less than its width
        return Mixture(power, weighted, tonality, self.left, self.right, self.width)

    def tilted(self, octave_db: float) -> "Mixture":
        """Change the powers of bands above `TILT_HERTZ` by so many decibels an octave."""
        if octave_db == 0:
            return self
        gains = 10 ** (octave_db * torch.log2((CENTRES / TILT_HERTZ).clamp_min(1)) / 10)
        groups = gains.unflatten(0, (GROUPS, GROUP)).mean(1)
        parts = (self.power, self.hertz, self.tonality), (self.left, self.right, self.width)
        return Mixture(*(part * gains for part in parts[0]), *(part * groups for part in parts[1]))

    def add(self, other: "Mixture", start: int, wrap: bool) -> None:
        """Add a sound at a frame; what lies beyond the end is dropped, or added from the beginning on."""
        frames, first = len(self.power), 0
        while first < len(other.power) and start < frames:
            count = min(len(other.power) - first, frames - start)
            for own, part in zip(self.parts(), other.parts(), strict=True):
                own[start : start + count] += part[first : first + count]
            if not wrap:
                return
            first, start = first + count, 0

    def after(self, first: int) -> "Mixture":
        """Return the frames from one on."""
        power, hertz, tonality, left, right, width = (part[first:] for part in self.parts())
        return Mixture(power, hertz, tonality, left, right, width)

    def frames(self) -> Frames:
        """Return bands, the loudest frame of which has the level `LOUDEST_DB`."""
        total = self.power.sum(1).max()
        scale = 10 ** (LOUDEST_DB / 10) / (total + 1e-30)
        power = self.power * scale
        known = self.power > 0
        hertz = torch.where(known, self.hertz / (self.power + 1e-30), CENTRES)
        sides = self.left + self.right
        return Frames(
            10 * torch.log10(power.clamp_min(10 ** (FLOOR_DB / 10))),
            ((hertz - CENTRES) / HALF_WIDTHS).clamp(-1, 1),
            torch.where(known, self.tonality / (self.power + 1e-30), 0.0).clamp(0, 1),
            (self.right - self.left) / (sides + 1e-20),
            torch.where(sides > 0, self.width / (sides + 1e-30), 0.0).clamp(0, 1),
        )


class Sketcher:
    """Composer of sketches."""

    def __init__(self, bank: Bank, vocabulary: Vocabulary) -> None:
        self.bank = bank
        self._held = {(row.bank, row.program): row.held for row in vocabulary.instruments}
        self._tones: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._hits: dict[tuple[int, int], int] = {}
        self._textures: dict[tuple[int, int], int] = {}
        self._recordings: dict[str, int] = {}
        self._recipes: dict[str, list[int]] = defaultdict(list)
        self._recipe_fields: dict[int, SynthesisedFields] = {}
        for index, entry in enumerate(bank.entries):
            sound = entry.sound
            if sound.recipe is not None:
                self._recipes[sound.kind].append(index)
                self._recipe_fields[index] = read_recipe(sound.recipe)
            elif sound.recording is not None:
                self._recordings[sound.recording] = index
            elif sound.drums:
                self._hits[sound.events[0][2], sound.program] = index
            elif sound.form == "note":
                self._tones[sound.bank, sound.program].append(index)
            else:
                self._textures[sound.bank, sound.program] = index

    def sketch(self, sounds: Sequence[PocketSound], frames: int, loop: bool = False) -> Frames:
        """Compose described sounds of some frames, heard at once; with `loop`, these frames are exactly their length.

        What lies beyond the end of a loop is added from its beginning on, which follows the end.
        """
        composed = _layered(sounds, [self._layer(sound, frames, loop) for sound in sounds])
        return composed if loop else _faded(composed)

    def _layer(self, sound: PocketSound, frames: int, loop: bool) -> Frames:
        """Compose one described sound."""
        wrap = loop or sound.form == "loop"
        rate = frames / sound.seconds if loop else FRAMES_A_SECOND
        count = min(frames, max(1, round(sound.seconds * rate))) if wrap else frames
        skipped = frozenset[str]({"fade in"} if wrap else ())
        composed = self._with_effects(self._compose(sound, count, rate, wrap).frames(), sound, wrap, skipped)
        return Frames(*(part[torch.arange(frames) % count] for part in vars(composed).values()))

    def continuation(self, sounds: Sequence[PocketSound], before: Frames, frames: int) -> Frames:
        """Compose some frames of described sounds, heard at once, after those of another sound, at its level.

        A sound that has faded away there begins again. If all have, the level is that of the loudest frame before.
        """
        first, layers, are_over = len(before.energy), list[Frames](), True
        skipped = frozenset({"fade in", "backwards"})
        for sound in sounds:
            later = self._compose(sound, frames, FRAMES_A_SECOND, False, first)
            start = self._compose(sound, frames, FRAMES_A_SECOND, False)
            is_over = float(later.power.sum(1).max()) < FADED_POWER * float(start.power.sum(1).max())
            are_over = are_over and is_over
            layers.append(self._with_effects((start if is_over else later).frames(), sound, False, skipped))
        composed = _layered(sounds, layers)
        if are_over:
            level = loudest_level(before.energy) - loudest_level(composed.energy)
        else:
            level = mean_level(before.energy[-LEVEL_FRAMES:]) - mean_level(composed.energy[:LEVEL_FRAMES])
        return _faded(composed.amplified(level))

    @staticmethod
    def _with_effects(
        frames: Frames, sound: PocketSound, circle: bool, skipped: frozenset[str] = frozenset()
    ) -> Frames:
        names = [name for name in sound.effects if name not in skipped]
        if not names:
            return frames
        return change_frames(frames, names, sound.seed, circle)

    def _compose(self, sound: PocketSound, frames: int, rate: float, wrap: bool, offset: int = 0) -> Mixture:
        """Return the sums over a sound's events, from a frame on."""
        mixture = Mixture.silent(frames)
        is_repeated = len(sound.events) > 1 and sound.form in ("hit", "texture")
        for start, gate, key, velocity in sound.events or ((0.0, sound.seconds, 0, USUAL_VELOCITY),):
            first = round(start * rate) - offset
            if first < frames:
                length = round(gate * rate) if is_repeated else frames if wrap else frames - first
                endless = wrap and first == 0 and round(gate * rate) >= frames
                event = self._event(sound, key, velocity, min(length, round(gate * rate)), length, endless)
                skipped = max(0, -first)
                if skipped < len(event.power):
                    mixture.add(event.after(skipped), max(0, first), wrap)
        return mixture

    def _choose(self, sound: PocketSound, key: int) -> tuple[int, float]:
        """Return the entry of an event, and by how many semitones it is transposed."""
        if sound.recipe is not None:
            index = min(self._recipes[sound.kind], key=lambda entry: self._recipe_distance(sound, entry))
            note = self.bank.entries[index].sound.note
            return index, 0.0 if note is None or sound.note is None else float(sound.note - note)
        if sound.recording is not None:
            return self._recordings[sound.recording], 0.0
        if sound.drums:
            return self._hits.get((key, sound.program), self._hits.get((key, 0), 0)), 0.0
        if (sound.bank, sound.program) in self._textures:
            return self._textures[sound.bank, sound.program], float(key - 60)
        tones = self._tones[sound.bank, sound.program]
        index = min(tones, key=lambda entry: abs(self._note(entry) - key))
        return index, float(key - self._note(index))

    def _note(self, index: int) -> int:
        note = self.bank.entries[index].sound.note
        assert note is not None
        return note

    def _recipe_distance(self, sound: PocketSound, index: int) -> float:
        assert sound.recipe is not None
        wanted, stored = read_recipe(sound.recipe), self._recipe_fields[index]
        compared = ("length", "brightness", "edge", "motion", "space")
        distance = sum(abs(getattr(wanted, name) - getattr(stored, name)) for name in compared)
        distance += 0.6 * len(set(wanted.flags) ^ set(stored.flags))
        if wanted.note is not None and stored.note is not None:
            far = abs(wanted.note - stored.note) / 4
        else:
            far = abs(wanted.pitch - stored.pitch)
        return float(distance + far)

    def _event(
        self, sound: PocketSound, key: int, velocity: int, gate_frames: int, length: int, endless: bool
    ) -> Mixture:
        """Return the sums of one event, at most `length` frames; an endless one repeats after them, without attack."""
        index, semitones = self._choose(sound, key)
        entry = self.bank.entries[index]
        stored = self.bank.frames(index)
        if sound.sudden:
            stored = _from_full_level(stored)
        own = sound.source == "font"
        is_tone = own and not sound.drums
        held = is_tone and self._held.get((sound.bank, sound.program), False)
        gate_frames = gate_frames if is_tone else length
        is_cut = len(stored.energy) > CUT_SHARE * entry.sound.seconds * FRAMES_A_SECOND
        if own and not held and is_cut and sound.form != "texture" and sound.length >= 0:
            stored = decaying(stored, min(length, gate_frames + round(TAIL_SECONDS * FRAMES_A_SECOND)))
        count = len(stored.energy)
        span = (int(SUSTAIN_FIRST * count), int(SUSTAIN_LAST * count)) if held else None
        if not own and sound.kind in STRETCHED_KINDS:
            indices = (torch.arange(length) * (_audible_frames(stored) / length)).long()
        elif held or (sound.form in ("texture", "note") and not is_tone and (span := sustained_span(stored))):
            assert span is not None
            indices = (
                circular(span, length)
                if endless
                else lengthened(span, count, min(length, gate_frames + round(TAIL_SECONDS * FRAMES_A_SECOND)))
            )
        elif sound.length > 0 and not is_tone:
            indices = stretched(count, length)
        else:
            indices = torch.arange(min(count, length))
        fall = RELEASE_DB_A_SECOND if held else DAMPING_DB_A_SECOND
        if is_tone:
            after = (torch.arange(len(indices)) - gate_frames).clamp_min(0) / FRAMES_A_SECOND
        else:
            after = torch.zeros(len(indices))
            if sound.length < 0:
                audible = max(1.0, SHORT_SHARE * min(_audible_frames(stored), len(indices)))
                fall, after = SHORT_FALL_DB, torch.arange(len(indices)) / audible
        loudness = (velocity / USUAL_VELOCITY) ** 4 * entry.gain**2 if own else 1.0
        gains = loudness * 10 ** (-fall * after / 10)
        event = Mixture.of(stored).taken(indices, gains).transposed(semitones + sound.transposition)
        return event.tilted(TILT_DB_AN_OCTAVE * (velocity - USUAL_VELOCITY)) if own else event


def _layered(sounds: Sequence[PocketSound], layers: Sequence[Frames]) -> Frames:
    """Return the sum of sounds, in which textures are behind the others."""
    if len(layers) == 1:
        return layers[0]
    are_behind = [sound.form == "texture" for sound in sounds]
    mixture = Mixture.silent(len(layers[0].energy))
    for frames, is_behind in zip(layers, are_behind, strict=True):
        mixture.add(Mixture.of(frames.amplified(BEHIND_DB) if is_behind and not all(are_behind) else frames), 0, False)
    return mixture.frames()


def _faded(frames: Frames) -> Frames:
    """Return a sound with a short fade at its end."""
    late = (torch.arange(len(frames.energy)) - (len(frames.energy) - END_FADE_FRAMES)).clamp_min(0) + 1
    fall = torch.where(late > 1, END_FADE_DB * late / END_FADE_FRAMES, 0.0)
    energy = (frames.energy - fall[:, None]).clamp_min(FLOOR_DB)
    return Frames(energy, frames.offset, frames.tonality, frames.balance, frames.width)


def _levels(frames: Frames) -> Tensor:
    """Return the level of each frame in decibels below the loudest one."""
    levels = 10 * torch.log10(frame_powers(frames.energy))
    return levels - levels.max()


def _audible_frames(frames: Frames) -> int:
    """Return the number of frames up to the last one within `AUDIBLE_DB` of the loudest one."""
    return int((_levels(frames) > -AUDIBLE_DB).nonzero().max()) + 1


def _from_full_level(frames: Frames) -> Frames:
    """Return the frames of a sound without its attack."""
    first = int((_levels(frames) > -FULL_LEVEL_DB).nonzero().min())
    return frames.after(first)


def stretched(count: int, length: int) -> Tensor:
    """Return frame indices of a sound of `count` frames whose decay takes longer; at most (length,)."""
    late = ATTACK_FRAMES + (torch.arange(length - ATTACK_FRAMES) / LONG_FACTOR).long()
    indices = (
        torch.cat((torch.arange(min(ATTACK_FRAMES, length)), late)) if length > ATTACK_FRAMES else torch.arange(length)
    )
    return indices[indices < count]


def sustained_span(frames: Frames) -> tuple[int, int] | None:
    """Return the first frame of the part of a sound that can be repeated, and the one after it; None for a decay."""
    powers = frame_powers(frames.energy)
    smooth = torch.nn.functional.avg_pool1d(powers[None], SMOOTHED_FRAMES, 1, SMOOTHED_FRAMES // 2)[0]
    levels = 10 * torch.log10(smooth / smooth.max() + 1e-12)
    audible = int((levels > -AUDIBLE_DB).nonzero().max()) + 1
    middle = levels[int(0.3 * audible) : int(0.7 * audible)]
    if len(middle) < SMOOTHED_FRAMES or (usual := float(middle.median())) < -DECAYED_DB:
        return None
    steady = (levels[:audible] > usual - 6).nonzero()
    first, last = max(int(steady.min()), int(0.35 * audible)), int(steady.max()) + 1
    return (first, last) if last - first >= SMOOTHED_FRAMES else None


def decaying(frames: Frames, length: int) -> Frames:
    """Return a struck sound of which the end is cut off, continued to `length` frames; others as they are.

    The second half is repeated backwards and forwards, and each band goes on decaying as it does in this half.
    """
    last = len(frames.energy) - CUT_FRAMES
    if length <= last or last < 4 * CUT_FRAMES or float(_levels(frames)[last - CUT_FRAMES : last].max()) < -ENDED_DB:
        return frames
    first, middle = last // 2, last // 2 + last // 4
    difference = frames.energy[middle:last].mean(0) - frames.energy[first:middle].mean(0)
    slope = (2 * difference / (last - first)).clamp_max(0)  # a band that beats may rise for a while
    decay = slope.clamp_max(-LEAST_DECAY_DB_A_SECOND / FRAMES_A_SECOND)
    indices = lengthened((first, last), last, length)
    later = (torch.arange(length) - last + 1).clamp_min(0)[:, None]
    levelled = frames.energy[indices] + slope * (last - 1 - indices)[:, None] * (later > 0)
    energy = (levelled + decay * later).clamp_min(FLOOR_DB)
    return Frames(energy, *(part[indices] for name, part in vars(frames).items() if name != "energy"))


def lengthened(span: tuple[int, int], count: int, length: int) -> Tensor:
    """Return frame indices (length,) of a sound of `count` frames of which a part is repeated as needed.

    The part is repeated backwards and forwards alternately, so that it has no seam.
    """
    first, last = span
    if length <= last or last - first < 2:
        return torch.arange(min(length, count))
    there = torch.arange(first, last)
    cycle = torch.cat((there, there.flip(0)))
    rest = length - first
    return torch.cat((torch.arange(first), cycle.repeat(-(-rest // len(cycle)))[:rest]))


def circular(span: tuple[int, int], length: int) -> Tensor:
    """Return frame indices (length,) that go through a part of a sound forwards and backwards and end where they began.

    Frames that don't fit are left out; the others keep their speed.
    """
    first, last = span
    width = min(last - first, max(1, length // 2))
    turns = max(1, round(length / (2 * width)))
    phase = torch.arange(length) * turns / length
    there_and_back = 1 - (2 * (phase - phase.floor()) - 1).abs()
    return first + (there_and_back * (width - 1)).round().long()


def heard_note(frames: Frames) -> int | None:
    """Return the MIDI note, 24 to 96, whose partials have most of a sound's tonal energy; None for noise."""
    power = 10 ** (frames.energy / 10) * frames.tonality.square()
    cells = (12 * NOTE_CELLS * torch.log2(frames.hertz() / LOWEST_PARTIAL)).round().long().clamp_min(0)
    heard = torch.bincount(cells.flatten(), power.flatten().double(), minlength=12 * NOTE_CELLS * 12)
    near = torch.nn.functional.avg_pool1d(heard[None], NOTE_CELLS - 1, 1, NOTE_CELLS // 2 - 1)[0] * (NOTE_CELLS - 1)
    partials = torch.arange(1, 7)
    hertz = 440 * 2 ** ((torch.arange(24.0, 97.0)[:, None] - 69) / 12) * partials
    found = near[(12 * NOTE_CELLS * torch.log2(hertz / LOWEST_PARTIAL)).round().long().clamp_max(len(near) - 1)]
    scores = (found * 0.84 ** (partials - 1)).sum(1)
    best = int(scores.argmax())
    return 24 + best if float(found[best].sum()) > TONAL_SHARE * float(heard.sum()) > 0 else None

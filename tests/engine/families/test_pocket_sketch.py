import dataclasses
import itertools

import pytest
import torch

from tests.training.pocket.banks import bank, with_frames
from timbred.engine.codecs.bands import BANDS, CENTRES, FLOOR_DB, GROUPS, Frames, analyse
from timbred.engine.families.pocket_sketch import (
    BEHIND_DB,
    FRAMES_A_SECOND,
    LOUDEST_DB,
    Bank,
    Mixture,
    Sketcher,
    circular,
    decaying,
    heard_note,
    lengthened,
    stretched,
    sustained_span,
)
from timbred.models.pocket import SAMPLE_RATE
from training.pocket.bank import draw_entries
from training.pocket.instruments import INSTRUMENTS
from training.pocket.sounds import Sound
from training.pocket.vocabulary import VOCABULARY

PIANO = INSTRUMENTS[0]
ORGAN = next(row for row in INSTRUMENTS if row.kind == "church organ")


def tone(hertz: float, frames: int) -> Frames:
    """Return the bands of a sine of 0 dB."""
    band = int((CENTRES - hertz).abs().argmin())
    energy = torch.full((frames, BANDS), FLOOR_DB)
    energy[:, band] = 0.0
    tonality = torch.zeros(frames, BANDS)
    tonality[:, band] = 1.0
    sides = torch.zeros(frames, GROUPS)
    return Frames(energy, torch.zeros(frames, BANDS), tonality, sides, sides)


def loudest_hertz(frames: Frames, frame: int) -> float:
    band = int(frames.energy[frame].argmax())
    return float(frames.hertz()[frame, band])


def played(row: object, events: tuple[tuple[float, float, int, int], ...], form: str = "note") -> Sound:
    assert row in INSTRUMENTS
    found = next(other for other in INSTRUMENTS if other is row)
    return Sound("font", found.kind, form, 1.0, 0, found.bank, found.program, False, events)


def bank_with_tones(frames: int = 96) -> Bank:
    """Return a bank whose notes of the piano and the organ are sines of their pitch, of so many frames."""
    made = bank([sound for sound in draw_entries() if sound.kind in ("grand piano", "church organ")])
    for index, entry in enumerate(made.entries):
        note = entry.sound.note
        assert note is not None
        parts = vars(tone(440 * 2 ** ((note - 69) / 12), frames))
        with_frames(made, index, **parts)
    return made


def test_sketcher_transposes_the_nearest_note() -> None:
    sketcher = Sketcher(bank_with_tones(), VOCABULARY)
    pitches = [
        loudest_hertz(sketcher.sketch([played(PIANO, ((0.0, 0.5, note, 95),))], 96), 20) for note in range(50, 60)
    ]
    for lower, upper in itertools.pairwise(pitches):
        # the stored tones are at the centres of their bands
        assert 1.0 < upper / lower < 1.13


def test_sketcher_puts_events_at_their_times() -> None:
    sketcher = Sketcher(bank_with_tones(), VOCABULARY)
    frames = sketcher.sketch([played(PIANO, ((0.5, 0.1, 60, 95),))], 172)
    levels = frames.energy.amax(1)
    assert float(levels[:85].max()) == FLOOR_DB
    assert float(levels[87]) > -20
    assert float(levels[86 + 17 + 60]) < float(levels[87]) - 30, "damped after its gate"


def test_sketcher_of_a_held_note_lasts_longer_than_the_stored_one() -> None:
    sketcher = Sketcher(bank_with_tones(), VOCABULARY)
    long = sketcher.sketch([played(ORGAN, ((0.0, 1.9, 60, 95),))], 344)
    struck = sketcher.sketch([played(PIANO, ((0.0, 1.9, 60, 95),))], 344)
    assert float(long.energy[300].max()) > -20
    assert float(struck.energy[300].max()) == FLOOR_DB


def test_sketcher_of_a_chord_has_all_its_notes() -> None:
    sketcher = Sketcher(bank_with_tones(), VOCABULARY)
    events = tuple((0.0, 0.5, note, 95) for note in (60, 67, 76))
    frames = sketcher.sketch([played(PIANO, events, "chord")], 96)
    assert int((frames.energy[20] > -30).sum()) == 3


def test_sketcher_of_a_loop_goes_on_at_its_beginning() -> None:
    made = bank()
    index = next(i for i, entry in enumerate(made.entries) if entry.sound.drums and entry.sound.events[0][2] == 49)
    cymbal = tone(1000.0, 96)
    cymbal.energy -= 0.8 * torch.arange(96)[:, None]
    with_frames(made, index, **vars(cymbal))
    events = ((0.9, 0.1, 49, 95),)
    loop = Sound("font", "drum loop", "loop", 1.0, 0, 0, 0, True, events, bpm=120.0)
    looped = Sketcher(made, VOCABULARY).sketch([loop], 172)
    assert float(looped.energy[10].max()) > -40, "the end of the cymbal"
    assert float(looped.energy[120].max()) == FLOOR_DB


def test_sketcher_has_a_constant_level() -> None:
    sketcher = Sketcher(bank_with_tones(), VOCABULARY)
    for velocity in (40, 120):
        frames = sketcher.sketch([played(PIANO, ((0.0, 0.5, 60, velocity),))], 96)
        assert abs(float(frames.energy.max()) - LOUDEST_DB) < 0.5


def test_sketcher_of_every_kind_is_finite() -> None:
    made = bank()
    sketcher = Sketcher(made, VOCABULARY)
    for entry in made.entries[::9]:
        channels = sketcher.sketch([entry.sound], 40).stacked()
        assert channels.shape[0] == 40
        assert bool(channels.isfinite().all())


def test_mixture_of_one_sound_keeps_its_frequencies() -> None:
    mixture = Mixture.silent(8)
    mixture.add(Mixture.of(tone(440.0, 8)), 0, wrap=False)
    assert abs(loudest_hertz(mixture.frames(), 3) / float(CENTRES[(CENTRES - 440).abs().argmin()]) - 1) < 1e-4


def test_lengthened_repeats_only_the_sustained_part() -> None:
    indices = lengthened((45, 92), 100, 300)
    assert len(indices) == 300
    assert indices[:45].tolist() == list(range(45))
    assert int(indices[45:].min()) == 45
    assert int(indices.max()) == 91
    assert int(indices.diff().abs().max()) <= 1, "neighbours follow each other"


def test_lengthened_of_a_long_sound_is_its_beginning() -> None:
    assert lengthened((45, 92), 100, 80).tolist() == list(range(80))


def with_levels(frames: Frames, levels: torch.Tensor) -> Frames:
    return dataclasses.replace(frames, energy=(frames.energy + levels[:, None]).clamp_min(FLOOR_DB))


def test_sustained_span_is_the_steady_part() -> None:
    rise, fall = torch.linspace(-40, 0, 30), torch.linspace(0, -60, 60)
    span = sustained_span(with_levels(tone(440.0, 400), torch.cat((rise, torch.zeros(310), fall))))
    assert span is not None
    assert 20 <= span[0] <= 160
    assert 330 <= span[1] <= 355


def test_sustained_span_of_a_decay_is_none() -> None:
    assert sustained_span(with_levels(tone(440.0, 400), torch.linspace(0, -80, 400))) is None


def test_stretched_keeps_the_attack_and_slows_the_decay() -> None:
    indices = stretched(100, 400)
    assert indices[:10].tolist() == list(range(10))
    assert len(indices) > 170
    assert int(indices.max()) == 99


@pytest.mark.parametrize(("kind", "ends"), [("synthesised rain", False), ("synthesised snare", True)])
def test_sketcher_lengthens_steady_sounds_only(kind: str, ends: bool) -> None:
    sounds = [sound for sound in draw_entries() if sound.kind == kind]
    made = bank(sounds)
    levels = torch.linspace(0, -80, 96) if ends else torch.cat((torch.zeros(80), torch.linspace(0, -60, 16)))
    for index in range(len(sounds)):
        with_frames(made, index, **vars(with_levels(tone(1000.0, 96), levels)))
    late = Sketcher(made, VOCABULARY).sketch([dataclasses.replace(sounds[0], seconds=2.0)], 344).energy[300].max()
    assert (float(late) == FLOOR_DB) == ends


def test_sketcher_of_a_short_and_a_long_hit() -> None:
    made = bank_with_snare()
    snare = Sound("font", "snare", "hit", 2.0, 0, 0, 0, True, ((0.0, 2.0, 38, 95),))
    lasting = [
        int(
            (Sketcher(made, VOCABULARY).sketch([dataclasses.replace(snare, length=length)], 344).energy > -40)
            .any(1)
            .sum()
        )
        for length in (-1, 0, 1)
    ]
    assert lasting[0] < 0.7 * lasting[1] < lasting[1] < 0.8 * lasting[2]


def bank_with_snare() -> Bank:
    made = bank()
    index = next(i for i, entry in enumerate(made.entries) if entry.sound.drums and entry.sound.events[0][2] == 38)
    return with_frames(made, index, **vars(with_levels(tone(1000.0, 96), torch.linspace(0, -60, 96))))


@pytest.mark.parametrize("note", [36, 60, 81])
def test_heard_note_is_that_of_the_partials(note: int) -> None:
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    hertz = 440 * 2 ** ((note - 69) / 12)
    wave = torch.stack([torch.sin(2 * torch.pi * hertz * k * time) / k for k in range(1, 9)]).sum(0) * 0.2
    assert heard_note(analyse(wave.expand(2, -1))) == note


def test_heard_note_of_noise_is_none() -> None:
    noise = torch.randn(2, SAMPLE_RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    assert heard_note(analyse(noise)) is None
    assert heard_note(tone(440.0, 0)) is None


def test_sketcher_continues_at_the_level_of_what_it_joins() -> None:
    before = tone(440.0, 120).amplified(-20.0)
    after = Sketcher(bank_with_tones(), VOCABULARY).continuation([played(ORGAN, ((0.0, 1.9, 60, 95),))], before, 172)
    assert float(after.energy[:60].max()) == pytest.approx(-20.0, abs=1.5)


def test_sketcher_fades_out_what_is_no_loop() -> None:
    sketcher = Sketcher(bank_with_tones(), VOCABULARY)
    sound = played(ORGAN, ((0.0, 1.0, 60, 95),))
    ends = [float(sketcher.sketch([sound], 172, loop).energy[-1].max()) for loop in (False, True)]
    assert ends[0] < ends[1] - 40


@pytest.mark.parametrize("length", [1, 30, 100, 345, 1000])
def test_circular_ends_where_it_began(length: int) -> None:
    indices = circular((45, 92), length)
    assert len(indices) == length
    assert int(indices.min()) >= 45
    assert int(indices.max()) < 92
    around = torch.cat((indices, indices[:1]))
    assert int(around.diff().abs().max()) <= 2, "neighbours follow each other, over the seam too"


def test_sketcher_of_a_loop_leaves_the_attack_out() -> None:
    made = bank_with_tones()
    for index, entry in enumerate(made.entries):
        if entry.sound.kind == "church organ":
            with_frames(made, index, **vars(with_levels(made.frames(index), torch.linspace(-60, 0, 96).clamp_max(0))))
    levels = Sketcher(made, VOCABULARY).sketch([played(ORGAN, ((0.0, 1.0, 60, 95),))], 172, loop=True).energy.amax(1)
    assert float(levels.max() - levels.min()) < 40
    assert abs(float(levels[0] - levels[-1])) < 3


def test_sketcher_plays_several_sounds_at_once() -> None:
    sketcher = Sketcher(bank_with_tones(), VOCABULARY)
    low, high = (played(ORGAN, ((0.0, 0.9, note, 95),)) for note in (48, 72))
    texture = dataclasses.replace(high, form="texture")
    bands = [int(sketcher.sketch([sound], 96).energy[30].argmax()) for sound in (low, high)]
    for sounds, difference in (((low, high), 0.0), ((low, texture), -BEHIND_DB)):
        energy = sketcher.sketch(sounds, 96).energy
        assert float(energy[30, bands[0]] - energy[30, bands[1]]) == pytest.approx(difference, abs=0.1)
        powers = 10 ** (energy / 10)
        assert float(10 * powers.sum(1).max().log10()) == pytest.approx(LOUDEST_DB, abs=0.1)
    assert sketcher.continuation([low, high], sketcher.sketch([low], 96), 40).energy.shape == (40, BANDS)


def test_decaying_continues_a_sound_whose_end_is_cut_off() -> None:
    frames = tone(440.0, 200)
    band = int(frames.energy[0].argmax())
    frames.energy[:, band] -= 0.1 * torch.arange(200)
    levels = decaying(frames, 500).energy[:, band]
    assert len(levels) == 500
    assert float((levels + 0.1 * torch.arange(500)).abs().max()) < 0.2
    assert len(decaying(frames, 150).energy) == 200, "nothing is missing"
    frames.energy[:, band] -= 0.3 * torch.arange(200)
    assert len(decaying(frames, 500).energy) == 200, "it has ended by itself"


@pytest.mark.parametrize(("stored", "rings"), [(500, True), (200, False)])
def test_sketcher_lets_struck_notes_ring_for_their_length(stored: int, rings: bool) -> None:
    """Those that are cut off in the bank, after three seconds or less; shorter ones end by themselves."""
    made = bank_with_tones(stored)
    frames = Sketcher(made, VOCABULARY).sketch([played(PIANO, ((0.0, 5.0, 60, 95),))], 860)
    levels = 10 * (10 ** (frames.energy / 10)).sum(1).log10()
    if rings:
        assert float(levels[800]) == pytest.approx(float(levels[80]) - 3.0 * 310 / FRAMES_A_SECOND, abs=1.5)
    else:
        assert float(levels[800]) < -70


def test_sketcher_plays_each_repeated_sound_for_its_own_length() -> None:
    made = bank()
    index, entry = next((i, entry) for i, entry in enumerate(made.entries) if entry.sound.kind == "synthesised bubble")
    with_frames(made, index, **vars(tone(1000.0, 60)))
    events = ((0.0, 0.2, 0, 95), (0.6, 0.2, 0, 95))
    sound = dataclasses.replace(entry.sound, seconds=1.0, events=events)
    levels = Sketcher(made, VOCABULARY).sketch([sound], 172).energy.amax(1)
    heard = [bool(level > -20) for level in levels[[10, 60, 110, 150]]]
    assert heard == [True, False, True, False]

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.pocket.banks import small_codec, stored_bank
from timbred.engine.families.pocket_plans import MAX_LAYERS, PlanRequest, note_of, tempo_of
from timbred.models.pocket import PocketSound, TextSizes
from timbred.models.pocket_words import Names, read_words
from training.pocket.instruments import INSTRUMENTS
from training.pocket.pipeline import Pocket, assemble
from training.pocket.text import new_text_side
from training.pocket.vocabulary import KINDS, VOCABULARY

PIANO = INSTRUMENTS[0]


@pytest.fixture(scope="module")
def pocket() -> Pocket:
    torch.manual_seed(3)
    side = new_text_side(TextSizes(pieces=16, width=32, layers=1, heads=2, queries=2, vector=24)).eval()
    return assemble(side, None, small_codec(), stored_bank(), torch.ones(40), torch.zeros(40))


@pytest.mark.parametrize(
    ("prompt", "bpm"),
    [
        ("dusty drum loop 90 bpm", 90.0),
        ("house beat at 124.5 bpm", 124.5),
        ("97bpm funk", 97.0),
        ("tempo 140 techno", 140.0),
        ("808 kick", None),
        ("drums 110", 110.0),
        ("a beat", None),
    ],
)
def test_tempo_of_reads_the_number(prompt: str, bpm: float | None) -> None:
    assert tempo_of(read_words(prompt)) == bpm


@pytest.mark.parametrize(("prompt", "note"), [("piano c4", 60), ("piano f#3", 54), ("piano b flat 2", 46)])
def test_note_of_is_the_named_note(prompt: str, note: int) -> None:
    assert note_of(read_words(prompt), PIANO, 0, np.random.default_rng(0), PlanRequest(1.0, 0)) == note


def test_note_of_a_root_is_in_the_middle_of_the_range() -> None:
    note = note_of(read_words("piano d minor"), PIANO, 0, np.random.default_rng(0), PlanRequest(1.0, 0))
    assert note % 12 == 2
    assert abs(note - 62) <= 6


def test_note_of_takes_the_request_for_a_prompt_without_a_note() -> None:
    words, random = read_words("piano"), np.random.default_rng(0)
    assert note_of(words, PIANO, 0, random, PlanRequest(1.0, 0, note=61)) == 61
    assert note_of(words, PIANO, 0, random, PlanRequest(1.0, 0, note=PIANO.high + 3)) == PIANO.high - 9
    assert note_of(words, PIANO, 0, random, PlanRequest(1.0, 0, root=2)) == 62


@given(prompt=st.text(max_size=60), seconds=st.floats(0.3, 10.0), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=60, deadline=None)
def test_pocket_planner_answers_any_prompt(pocket: Pocket, prompt: str, seconds: float, seed: int) -> None:
    sound = pocket.planner.plan(pocket.read(prompt), PlanRequest(seconds, seed))
    assert sound.kind in KINDS
    assert sound.seconds == seconds
    assert sound == pocket.planner.plan(pocket.read(prompt), PlanRequest(seconds, seed))


def test_pocket_planner_describes_sounds_that_can_be_sketched(pocket: Pocket) -> None:
    sketcher = pocket.sketcher
    for seed in range(30):
        sound = pocket.planner.plan(pocket.read(f"word{seed} c{seed % 8}"), PlanRequest(0.5, seed))
        assert bool(sketcher.sketch([sound], 88).stacked().isfinite().all())


@pytest.mark.parametrize(
    ("prompt", "kinds"),
    [
        ("somebody records a celesta", {"celesta"}),
        ("a soft steel drum please", {"steel drum"}),
        ("rain", {"synthesised rain"}),
        ("nothing of that sort", set[str]()),
        ("808 kick", {"808 kick"}),
        ("two banjos", {"banjo"}),
        ("vinyl scratches", {"vinyl scratch"}),
        ("violins", {"violins"}),
    ],
)
def test_names_find_the_longest_ones(prompt: str, kinds: set[str]) -> None:
    assert set(Names(VOCABULARY.names).find(read_words(prompt))) == kinds


def test_pocket_planner_chooses_a_named_kind(pocket: Pocket) -> None:
    for kind in ("celesta", "banjo", "helicopter", "dulcimer"):
        assert pocket.planner.plan(pocket.read(f"could you give me a {kind}"), PlanRequest(1.0, 3)).kind == kind


@pytest.mark.parametrize(
    ("prompt", "effects"),
    [
        ("grand piano c4 with lots of reverb", ("reverb",)),
        ("a reversed, dark celesta in a cathedral", ("dark", "backwards", "reverb")),
        ("dusty drum loop 90 bpm", ("lofi",)),
        ("celesta", ()),
        ("a warm pad", ()),  # a kind's own name
        ("a warm banjo", ("dark",)),
    ],
)
def test_pocket_planner_reads_effects(pocket: Pocket, prompt: str, effects: tuple[str, ...]) -> None:
    sound = pocket.planner.plan(pocket.read(prompt), PlanRequest(1.0, 3))
    assert sound.effects == effects


def test_pocket_planner_leaves_out_what_the_negative_prompt_names(pocket: Pocket) -> None:
    prompt = pocket.read("a dark celesta with reverb")
    negative = pocket.read("reverb")
    assert pocket.planner.plan(prompt, PlanRequest(1.0, 3, negative=negative)).effects == ("dark",)
    without = pocket.planner.plan(prompt, PlanRequest(1.0, 3, negative=pocket.read("celesta")))
    assert without.kind != "celesta"


@pytest.mark.parametrize(
    ("prompt", "field", "value"),
    [
        ("a short snare", "length", -1),
        ("a long snare", "length", 1),
        ("a snare", "length", 0),
        ("a warm pad with a fast attack", "sudden", True),
        ("a fast celesta", "sudden", False),
        ("a punchy 808 kick", "sudden", True),
        ("a high snare", "transposition", 5),
        ("a low tom", "transposition", 0),  # a kind of its own
        ("techno drum loop 120 bpm short", "length", 0),
    ],
)
def test_pocket_planner_reads_the_shape(pocket: Pocket, prompt: str, field: str, value: object) -> None:
    assert getattr(pocket.planner.plan(pocket.read(prompt), PlanRequest(1.0, 3)), field) == value


@pytest.mark.parametrize(("word", "low", "high"), [("high", 69, 127), ("low", 0, 55)])
def test_pocket_planner_moves_a_note_that_is_not_named(pocket: Pocket, word: str, low: int, high: int) -> None:
    note = pocket.planner.plan(pocket.read(f"a {word} synth bell"), PlanRequest(1.0, 3)).note
    assert note is not None
    assert low <= note <= high
    assert pocket.planner.plan(pocket.read(f"a {word} synth bell c4"), PlanRequest(1.0, 3)).note == 60


def test_pocket_planner_prefers_kinds_that_share_a_word(pocket: Pocket) -> None:
    assert pocket.planner.kind_of(pocket.read("something woody and voxy")) in ("woody bass", "vocal bass")


def test_pocket_planner_plays_a_chord_without_an_instrument_on_one(pocket: Pocket) -> None:
    for prompt in ("c minor chord", "an arpeggio", "em7"):
        assert pocket.planner.kind_of(pocket.read(prompt)) in {row.kind for row in INSTRUMENTS}


@pytest.mark.parametrize(
    ("prompt", "form", "pitch_class"),
    [("string ensemble c minor", "chord", 0), ("celesta em7", "chord", 4), ("fm electric piano e2", "note", 4)],
)
def test_pocket_planner_plays_a_named_chord_or_note(pocket: Pocket, prompt: str, form: str, pitch_class: int) -> None:
    sound = pocket.planner.plan(pocket.read(prompt), PlanRequest(1.0, 3))
    assert sound.note is not None
    assert sound.note % 12 == pitch_class
    assert sound.form == form or (form == "chord" and sound.form in ("arpeggio", "scale"))  # the network is untrained


@pytest.mark.parametrize(
    ("prompt", "layers"),
    [
        ("a grand piano c4", ["a grand piano c4"]),
        ("a grand piano in the rain, with reverb", ["a grand piano, with reverb", "the rain, with reverb"]),
        ("violin and flute c4", ["violin", "flute c4"]),
        ("flute, oboe; clarinet + bassoon & banjo", ["flute", "oboe", "clarinet", "bassoon"]),
        ("techno drum loop with snare and rain", ["techno drum loop with snare", "rain"]),
        ("celesta in a cathedral with delay", ["celesta in a cathedral with delay"]),
        ("a banjo and another banjo", ["a banjo and another banjo"]),
        ("somewhere, Rain  AND banjo", ["somewhere, Rain", "banjo"]),
        ("in", ["in"]),
        ("", [""]),
    ],
)
def test_pocket_planner_splits_a_prompt_for_several_sounds(pocket: Pocket, prompt: str, layers: list[str]) -> None:
    assert pocket.planner.split_layers(prompt) == layers


@given(prompt=st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_pocket_planner_splits_any_prompt(pocket: Pocket, prompt: str) -> None:
    assert 1 <= len(pocket.planner.split_layers(prompt)) <= MAX_LAYERS


@pytest.mark.parametrize(
    ("prompt", "is_repeated"),
    [
        ("bubbles", True),
        ("many lasers", True),
        ("birds", True),
        ("a bubble", False),
        ("kicks", False),  # a pattern is a drum loop's
        ("banjos c4", False),
        ("synth bells", False),
        ("risers", False),
    ],
)
def test_pocket_planner_repeats_short_sounds_in_the_plural(pocket: Pocket, prompt: str, is_repeated: bool) -> None:
    sound = pocket.planner.plan(pocket.read(prompt), PlanRequest(9.0, 3))
    starts = [start for start, *_ in sound.events]
    assert (len(starts) > 1) == is_repeated
    assert starts == sorted(starts)
    assert all(start < 9.0 for start in starts)
    if is_repeated:
        assert starts[0] == 0.0
        assert starts[-1] > 5.0
        intervals = {round(later - earlier, 3) for earlier, later in itertools.pairwise(starts)}
        assert len(intervals) == len(starts) - 1, "irregular"


@pytest.mark.parametrize(
    ("prompt", "notes"),
    [
        ("violin and flute c4", [60, 60]),
        ("violin c4 and flute d5", [60, 74]),
        ("rain with flute c5", [None, 72]),
    ],
)
def test_pocket_planner_plays_layers_on_the_note_that_is_named_last(
    pocket: Pocket, prompt: str, notes: list[int | None]
) -> None:
    assert [sound.note for sound in planned_layers(pocket, prompt)] == notes


def test_pocket_planner_plays_layers_on_one_root(pocket: Pocket) -> None:
    for prompt in ("synth bass e1 and flute", "cello and flute", "cello with a synth bell"):
        first, second = (sound.note for sound in planned_layers(pocket, prompt))
        assert first is not None
        assert second is not None
        assert second % 12 == first % 12
        assert second != first


def test_pocket_planner_plays_layers_at_one_tempo(pocket: Pocket) -> None:
    loop, tone = planned_layers(pocket, "techno drum loop 97 bpm with a banjo arpeggio")
    assert (loop.bpm, loop.kind, tone.kind) == (97, "drum loop", "banjo")


def planned_layers(pocket: Pocket, prompt: str) -> list[PocketSound]:
    readings = [pocket.read(part) for part in pocket.planner.split_layers(prompt)]
    return pocket.planner.plan_layers(readings, PlanRequest(1.0, 3))


def test_pocket_planner_varies_the_velocity_of_takes(pocket: Pocket) -> None:
    reading = pocket.read("celesta c5")
    velocities = {pocket.planner.plan(reading, PlanRequest(1.0, seed)).velocity for seed in range(8)}
    assert len(velocities) > 3

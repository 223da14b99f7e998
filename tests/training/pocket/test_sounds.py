import json

import numpy as np
import pytest

from timbred.engine.families.pocket_plans import draw_hits
from timbred.models.pocket import SAMPLE_RATE
from training.pocket import words
from training.pocket.effects import EFFECTS
from training.pocket.instruments import DRUMS, INSTRUMENTS, KITS, UNPITCHED
from training.pocket.patterns import STYLES
from training.pocket.recordings import RECORDINGS
from training.pocket.render import render
from training.pocket.sounds import CHORDS, Sound, draw, draw_loop, draw_synthesised, draw_tone


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_sounds_survive_being_stored() -> None:
    generator = random()
    for _ in range(200):
        sound = draw(generator)
        stored = json.loads(json.dumps(sound.to_dict()))
        assert json.loads(json.dumps(Sound.from_dict(stored).to_dict())) == stored


def test_sounds_repeat_with_their_seed() -> None:
    assert [draw(random(5)) for _ in range(3)] == [draw(random(5)) for _ in range(3)]
    assert draw(random(5)) != draw(random(6))


def test_sounds_have_over_a_hundred_kinds_in_unique_places() -> None:
    kinds = {row.kind for row in INSTRUMENTS} | {names[0] for names in UNPITCHED.values()}
    kinds |= {names[0] for names in DRUMS.values()} | {row.names[0] for row in RECORDINGS.values()}
    assert len(kinds) > 250
    assert len({(row.bank, row.program) for row in INSTRUMENTS}) == len(INSTRUMENTS)
    assert all(0 <= row.low < row.high <= 127 for row in INSTRUMENTS)


@pytest.mark.parametrize("style", STYLES)
def test_draw_loop_gives_whole_bars_that_begin_on_the_beat(style: str) -> None:
    for seed in range(5):
        loop = draw_loop(random(seed), style, 97)
        assert loop.seconds == pytest.approx(loop.bars * 240 / 97)
        assert loop.events[0][0] == 0
        assert all(start < loop.seconds for start, *_ in loop.events)
        assert loop.program in KITS


def test_draw_hits_with_swing_delays_every_second_step() -> None:
    steps = {round(hit.step % 4, 2) for hit in draw_hits(STYLES["hip hop"], 2, random())}
    assert steps <= {0, 1.28, 2, 3.28}


def test_chords_notes_belong_to_the_chord_and_are_in_range() -> None:
    by_kind = {row.kind: row for row in INSTRUMENTS}
    generator = random(3)
    seen = 0
    while seen < 40:
        tone = draw_tone(generator)
        if tone.form != "chord" or tone.chord is None or tone.note is None:
            continue
        seen += 1
        assert [note - tone.note for _, _, note, _ in tone.events] == list(CHORDS[tone.chord])
        assert by_kind[tone.kind].low <= tone.note


def test_words_captions_are_true() -> None:
    generator = random(4)
    phrases = {
        name: {phrase for phrase in (*effect.before, *effect.after) if len(phrase) > 9}
        for name, effect in EFFECTS.items()
    }
    for _ in range(400):
        sound = draw(generator)
        if sound.recipe is not None:
            continue
        text = words.caption(sound, generator, rough=False)
        for name, said in phrases.items():
            if any(phrase in text for phrase in said):
                allowed = {phrase for other in sound.effects for phrase in phrases[other]}
                named = " ".join(words.nouns(sound))
                assert any(phrase in allowed or phrase in named for phrase in said if phrase in text), (name, text)
        if "bpm" in text and sound.bpm is not None:
            assert f"{sound.bpm:g}" in text


def test_words_captions_vary_and_repeat_with_their_seed() -> None:
    tone = draw_tone(random(1))
    texts = {words.caption(tone, random(seed)) for seed in range(50)}
    assert len(texts) > 30
    assert words.caption(tone, random(7)) == words.caption(tone, random(7))


def test_words_captions_never_use_the_held_out_templates() -> None:
    generator = random(9)
    marks = [template.replace("{}", "").strip() for template in words.HELD_OUT_TEMPLATES]
    for _ in range(300):
        text = words.caption(draw(generator), generator).lower()
        assert not any(mark in text for mark in marks if len(mark.split()) > 2)


def test_words_note_names_count_octaves_from_middle_c() -> None:
    assert [words.note_name(note) for note in (60, 69, 24, 61)] == ["c4", "a4", "c1", "c#4"]


def test_draw_synthesised_is_rendered_at_full_level() -> None:
    generator = random(2)
    sounds = [draw_synthesised(generator) for _ in range(6)]
    for sound, audio in zip(sounds, render(sounds), strict=True):
        assert audio.shape == (2, round(sound.seconds * SAMPLE_RATE))
        assert float(np.abs(audio).max()) == pytest.approx(0.9, abs=1e-3)

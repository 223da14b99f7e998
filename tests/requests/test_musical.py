"""Key, tempo and signature of a request: what the model gets, in parameters or in words, and what the recipe keeps."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.requests.test_resolve import CARD, asked, resolved
from timbred import errors
from timbred.models.families import ACE_STEP
from timbred.protocol.keys import TRACKS
from timbred.requests.musical import resolve_music
from timbred.requests.resolve import Session, resolve
from timbred.storage.recipe import make_recipe, overlay, parameters_of

READER = msgspec.structs.replace(CARD, name="reader", capabilities=CARD.capabilities | {"key", "bpm"})
KEYS: dict[str, Any] = {"key": "c minor", "bpm": 97.4, "signature": "6/8"}


SINGER = msgspec.structs.replace(CARD, name="singer", capabilities=ACE_STEP.capabilities)
SONG: dict[str, Any] = {"lyrics": " [verse] la la\n", "language": "de", "task": "complete", "track": "drums bass"}


def song(**keys: Any) -> Any:
    return resolve(asked(init="x.wav", **keys), SINGER, Session(), 0, init_seconds=2.0)


def test_resolve_song_passes_its_keys_to_the_model():
    words = song(**SONG).inputs
    assert (words.lyrics, words.language) == ("[verse] la la", "de")
    assert (words.task, words.track) == ("complete", "drums bass")


def test_resolve_song_without_keys_leaves_the_defaults():
    words = resolved(SINGER).inputs
    assert (words.lyrics, words.language, words.task, words.track) == ("", "en", "", "")
    assert resolved(SINGER, lyrics="la").inputs.language == "en"


def test_resolve_song_comes_back_from_the_recipe():
    found = song(**SONG)
    recipe = make_recipe(
        found.for_recipe(), model="singer", licence="", prompt=found.prompt, seed=found.seed, created=0.0
    )
    kept = parameters_of(recipe)
    assert {key: kept[key] for key in SONG} == {**SONG, "lyrics": "[verse] la la"}
    assert "language" not in resolved(SINGER).for_recipe()


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"lyrics": "la" * 50_000}, "lyrics"),
        ({"lyrics": "la", "language": "klingon"}, "language"),
        ({"language": "de"}, "language: it goes with lyrics"),
        ({"task": "sing"}, "task"),
        ({"task": "extract", "track": "kazoo"}, "track: got 'kazoo', allowed are backing_vocals, bass"),
        ({"task": "extract", "track": "bass drums"}, "track: got 2, and extract takes one"),
        ({"track": "bass"}, "track: it goes with the tasks extract, lego, complete"),
        ({"task": "cover", "track": "bass"}, "track: it goes with the tasks extract, lego, complete"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_resolve_song_refuses_unknown_values_by_key(keys: dict[str, Any], named: str):
    with pytest.raises(errors.BadRequest) as refusal:
        song(**keys)
    assert str(refusal.value).startswith(named)


@given(st.dictionaries(st.sampled_from(["lyrics", "language", "task", "track", "regions"]), st.text(max_size=60)))
def test_resolve_song_of_any_text_renders_or_names_the_key(keys: dict[str, str]):
    try:
        found = song(**keys)
    except errors.BadRequest as refusal:
        named = str(refusal).partition(":")[0]
        assert set(named.split(", ")) & {*keys, "start"}
        return
    assert set(found.inputs.track.split()) <= set(TRACKS)


def test_resolve_appends_the_music_in_words_for_a_model_that_only_reads_text():
    words = resolved(**KEYS, prompt2="cold pad").inputs
    assert words.prompt == "warm pad, C minor, 97.4 bpm, 6/8 time"
    assert words.prompt2 == "cold pad, C minor, 97.4 bpm, 6/8 time"
    assert (words.key, words.bpm, words.signature) == ("", 0, "")


def test_resolve_passes_the_music_as_parameters_to_a_model_that_reads_them():
    words = resolved(READER, **KEYS).inputs
    assert words.prompt == "warm pad"
    assert (words.key, words.bpm, words.signature) == ("C minor", 97.4, "6/8")


def test_resolve_appends_only_what_the_model_does_not_read():
    card = msgspec.structs.replace(CARD, capabilities=CARD.capabilities | {"key"})
    words = resolved(card, **KEYS).inputs
    assert (words.prompt, words.key) == ("warm pad, 97.4 bpm, 6/8 time", "C minor")


def test_resolve_leaves_the_prompt_alone_with_in_words_off():
    found = resolved(**KEYS, in_words=0)
    assert (found.inputs.prompt, found.key) == ("warm pad", "C minor")


def test_resolve_leaves_the_prompt_alone_where_only_the_length_is_musical():
    found = resolved(bars=2)
    assert (found.inputs.prompt, found.in_words) == ("warm pad", False)
    assert resolved(bars=2, in_words=1).inputs.prompt == "warm pad, 120 bpm"
    assert resolved().in_words is None


def test_resolve_gives_a_reader_the_tempo_of_the_bars():
    assert resolved(READER, Session(tempo=90.0), bars=1).inputs.bpm == 90


def test_resolve_names_the_sessions_tempo_beside_a_requested_key():
    assert resolved(bars=2, key="D dorian").inputs.prompt == "warm pad, D dorian, 120 bpm"


def test_resolve_takes_the_beats_of_a_bar_from_the_signature():
    assert resolved(bars=1, signature="3/4").beats_per_bar == 3
    assert resolved(bars=1, bpm=120, signature="6/8").seconds == 1.5
    assert resolved(bars=1, signature="3/4", beats_per_bar=4).beats_per_bar == 4


def test_resolve_keeps_weights_of_the_requested_prompt():
    assert resolved(weights="pad:1.4", key="A minor").inputs.weights == (("pad", 1.4),)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"key": "H minor"}, "key: got 'H minor', allowed is a tonic from A to G"),
        ({"signature": "4/5"}, "signature: got '4/5', allowed is"),
        ({"fit": 1}, "fit: there is nothing to keep to; name @key, @bpm or @bars"),
        ({"fit": 1, "measure": 0, "bars": 1}, "measure: got 0, but fit compares"),
        ({"bpm": 0}, "bpm: got 0, allowed is a number from 20 to 999"),
    ],
)
def test_resolve_refuses_music_by_name(keys: dict[str, Any], message: str):
    with pytest.raises(errors.BadRequest) as refusal:
        resolved(**keys)
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize(
    ("keys", "measure"),
    [
        ({}, False),
        ({"bpm": 90}, False),
        ({"measure": 1}, True),
        ({"bars": 1}, True),
        ({"bars": 1, "measure": 0}, False),
        ({"fit": 1, "bpm": 90}, True),
    ],
)
def test_resolve_music_measures_where_asked_or_where_bars_are_given(keys: dict[str, Any], measure: bool):
    assert resolve_music(asked(**keys), 120.0).measure is measure


def repeated(found: Any, changes: dict[str, Any] | None = None) -> Any:
    recipe = make_recipe(
        found.for_recipe(), model="m", licence="", prompt=found.prompt, seed=1, model_prompt=found.inputs.prompt
    )
    request = overlay(parameters_of(recipe), changes or {})
    return resolve(asked(**request), CARD, Session(tempo=150.0), 0)


@pytest.mark.parametrize(
    "keys",
    [
        KEYS,
        {**KEYS, "in_words": 0},
        {"bars": 2},
        {"bars": 2, "bpm": 100},
        {"bars": 2, "key": "A minor"},
        {"bars": 1, "signature": "7/8"},
        {"seconds": 1},
    ],
)
def test_recipe_gives_the_model_the_same_prompt_again(keys: dict[str, Any]):
    found = resolved(**keys)
    again = repeated(found)
    assert again.inputs == found.inputs
    assert (again.seconds, again.prompt) == (found.seconds, "warm pad")


def test_recipe_names_a_changed_key_once():
    again = repeated(resolved(**KEYS), {"key": "D minor"})
    assert again.inputs.prompt == "warm pad, D minor, 97.4 bpm, 6/8 time"
    assert repeated(resolved(bars=2), {"key": "D minor"}).inputs.prompt == "warm pad, D minor, 120 bpm"


def test_recipe_shows_the_prompt_that_the_model_got():
    found = resolved(**KEYS)
    recipe = make_recipe(
        found.for_recipe(), model="m", licence="", prompt=found.prompt, seed=1, model_prompt=found.inputs.prompt
    )
    assert recipe["prompt"] == "warm pad"
    assert recipe["model_prompt"] == "warm pad, C minor, 97.4 bpm, 6/8 time"
    assert {key: recipe["parameters"][key] for key in KEYS} == {"key": "C minor", "bpm": 97.4, "signature": "6/8"}


def test_recipe_of_an_older_version_has_no_words_for_the_tempo_of_its_bars():
    older = make_recipe({"bars": 2.0, "bpm": 100.0}, model="m", licence="", prompt="warm pad", seed=1)
    assert resolve(asked(**parameters_of(older)), CARD, Session(), 0).inputs.prompt == "warm pad"

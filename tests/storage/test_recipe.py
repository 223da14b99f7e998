"""Recipes: made here, read from anywhere."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timbred.errors import BadAudio
from timbred.protocol.messages import Generate
from timbred.storage.recipe import DELIVERY_KEYS, PARAMETERS, TOP_LEVEL_KEYS, make_recipe, parameters_of

GIVEN: dict[str, Any] = {"seconds": 4.0, "steps": 20, "loop": True, "peak": "off", "negative": "hiss", "format": "flac"}


def made(**parameters: Any) -> dict[str, Any]:
    return make_recipe(
        parameters or GIVEN, model="pocket", licence="Apache-2.0", prompt="rain on tin", seed=7, created=0.0
    )


def test_make_recipe_has_the_documented_shape() -> None:
    recipe = made()
    assert {name: recipe[name] for name in ("recipe", "model", "licence", "prompt", "seed", "created")} == {
        "recipe": 1,
        "model": "pocket",
        "licence": "Apache-2.0",
        "prompt": "rain on tin",
        "seed": 7,
        "created": "1970-01-01T00:00:00Z",
    }
    assert recipe["parameters"] == GIVEN


def test_parameters_of_a_recipe_equal_those_it_was_made_from() -> None:
    through_a_file = msgspec.json.decode(msgspec.json.encode(made()))
    assert parameters_of(through_a_file) == {"prompt": "rain on tin", "model": "pocket", "seed": 7, **GIVEN}


def test_make_recipe_leaves_delivery_keys_out() -> None:
    assert made(seconds=1.0, to="play", folder="x", voice=1, takes=4, bpm=None)["parameters"] == {"seconds": 1.0}
    with pytest.raises(ValueError, match="not keys of generate: colour"):
        made(colour="red")


def test_make_recipe_places_every_key_of_generate() -> None:
    assert set(Generate.__struct_fields__) == set(PARAMETERS) | TOP_LEVEL_KEYS | DELIVERY_KEYS


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": "red"}, "unknown fields: 'colour'"),
        ({"recipe": 2}, "format is 2"),
        ({"recipe": "one"}, "recipe"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**40}, "seed"),
        ({"model": "m" * 201}, "model"),
        ({"prompt": "p" * 10_000}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"parameters": {"colour": 1}}, "'colour'"),
        ({"parameters": {"to": "play", "prompt": "x"}}, "'prompt', 'to'"),
        ({"parameters": {"steps": 0}}, "steps"),
        ({"parameters": {"seconds": "long"}}, "seconds"),
        ({"parameters": {"seconds": float("nan")}}, "seconds"),
        ({"parameters": {"format": "mp3"}}, "format"),
        ({"parameters": {str(n): n for n in range(100)}}, "and 92 more"),
        ({"parameters": []}, "parameters"),
    ],
)
def test_parameters_of_refuses_nonsense_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(BadAudio) as caught:
        parameters_of({**made(), **change})
    assert named in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["timbred", "recipe", "model", "licence", "prompt", "seed", "created", "parameters", "x"])
PARAMETER = st.dictionaries(st.sampled_from([*PARAMETERS, "to", "x"]), JSON, max_size=4)


@settings(deadline=None)
@given(st.dictionaries(NAMES, JSON | PARAMETER, max_size=9))
def test_parameters_of_reads_or_refuses_any_recipe(change: dict[str, Any]) -> None:
    for recipe in (change, {**made(), **change}):
        try:
            parameters = parameters_of(recipe)
        except BadAudio as error:
            str(error).encode()
        else:
            assert {"prompt", "model", "seed"} <= set(parameters) <= set(Generate.__struct_fields__)

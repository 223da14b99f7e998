"""Captions: repeatable, various, never through the held-out wordings."""

import re

import numpy as np

from training.captions import HELD_OUT_TEMPLATES, caption, note_name
from training.data import draw_recipe
from training.synthesis.recipe import Recipe


def some(count: int, seed: int) -> list[str]:
    """Captions of random recipes."""
    random = np.random.default_rng(seed)
    return [caption(draw_recipe(random), random) for _ in range(count)]


def test_caption_is_equal_for_equal_seeds() -> None:
    assert some(50, 4) == some(50, 4)
    assert len(set(some(500, 5))) > 400


def test_caption_never_uses_held_out_wordings() -> None:
    texts = [text.lower() for text in some(3000, 6)]
    for template in HELD_OUT_TEMPLATES:
        pattern = re.compile(re.escape(template).replace(r"\{\}", ".+"))
        assert not any(pattern.search(text) for text in texts)


def test_caption_names_attributes_and_never_contradicts_them() -> None:
    random = np.random.default_rng(7)
    recipe = Recipe("kick", 64_000, 1, length=-1, brightness=1)
    texts = [caption(recipe, random, rough=False) for _ in range(200)]
    assert sum("short" in text for text in texts) > 50
    assert not any(re.search(r"\b(long|dark)\b", text) for text in texts)


def test_note_name_counts_octaves() -> None:
    assert note_name(60) == "c4"
    assert note_name(37) == "c#2"
    assert note_name(37, flats=True) == "db2"

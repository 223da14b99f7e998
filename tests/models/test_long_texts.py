"""Texts longer than a text encoder's window."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.families.test_latent_diffusion import loudened, order, ours
from timbred.engine.diffusion.conditioning import average_parts
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import PromptInputs
from timbred.models import checkpoint
from timbred.models.long_texts import LongText, Part, Window, divide, windows_of

SOFT = "soft " * 60
"""Alone longer than the window of the tiny models."""


class _Tokenizer:
    """Two special tokens, and one for each letter."""

    model_max_length = 12

    def __call__(self, text: str) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[0, *map(ord, text.replace(" ", "")), 1])


WINDOWS = windows_of((_Tokenizer(),))


@given(st.text("ab \n", max_size=80))
def test_divide_keeps_every_word_in_parts_that_fit(text: str) -> None:
    parts = divide(text, WINDOWS)
    assert all(WINDOWS[0].fits(part.text) for part in parts)
    assert "".join("".join(part.text for part in parts).split()) == "".join(text.split())
    assert sum(part.share for part in parts) == pytest.approx(1.0)  # pyright: ignore[reportUnknownMemberType]
    if WINDOWS[0].fits(text):
        assert parts == [Part(text, 1.0)]


def test_divide_splits_between_words_where_they_fit() -> None:
    assert [part.text for part in divide("warm pad and bells", WINDOWS)] == ["warm pad and", "bells"]
    assert [part.text for part in divide("x" * 25, WINDOWS)] == ["x" * 10, "x" * 10, "x" * 5]


def test_windows_of_a_tokenizer_without_a_limit_are_none() -> None:
    assert windows_of((SimpleNamespace(model_max_length=int(1e30)),)) == ()
    assert divide("warm pad " * 1000, ()) == [Part("warm pad " * 1000, 1.0)]


def test_average_parts_weights_by_share() -> None:
    vectors = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
    found = average_parts(vectors, [Part("a", 0.75), Part("b", 0.25)])
    assert found.tolist() == [0.75, 0.25]


@pytest.fixture(scope="module", params=["audioldm2", "audioldm"])
def model(request: pytest.FixtureRequest) -> LatentDiffusion:
    folder: Path = request.getfixturevalue(request.param)
    found = checkpoint.inspect(folder, "tiny", "")
    return loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))


def sound(model: LatentDiffusion, prompt: str, negative: str = "", **words: object) -> np.ndarray:
    return ours(model, order(inputs=PromptInputs(prompt=prompt, negative=negative, **words)))  # pyright: ignore[reportArgumentType]


def test_long_texts_prompt_is_read_to_its_end(model: LatentDiffusion) -> None:
    assert not np.array_equal(sound(model, SOFT + "kick drum"), sound(model, SOFT + "hi-hat"))


def test_long_texts_negative_prompt_is_read_to_its_end(model: LatentDiffusion) -> None:
    """Also where it is longer than the prompt, to whose tokens diffusers cuts it."""
    one, other = (sound(model, "pad", SOFT + last) for last in ("kick drum", "hi-hat"))
    assert not np.array_equal(one, other)
    one, other = (sound(model, "pad", "a soft and warm sound, " + last) for last in ("kick", "bell"))
    assert not np.array_equal(one, other)


def test_long_texts_mix_and_weigh_their_words(model: LatentDiffusion) -> None:
    plain = sound(model, SOFT + "kick drum")
    assert not np.array_equal(plain, sound(model, SOFT + "kick drum", weights=(("kick", 3.0),)))
    assert np.array_equal(sound(model, "pad", prompt2=SOFT + "kick drum", mix=1.0), sound(model, SOFT + "kick drum"))


def test_long_texts_read_in_parts_are_reported(model: LatentDiffusion) -> None:
    assert model.find_long_texts(PromptInputs(prompt="pad", negative="hiss", prompt2="bell")) == []
    texts = {"prompt": SOFT + "kick", "negative": SOFT, "prompt2": SOFT + "bell"}
    found = model.find_long_texts(
        PromptInputs(prompt=texts["prompt"], negative=texts["negative"], prompt2=texts["prompt2"])
    )
    assert [text.key for text in found] == list(texts)
    for text in found:
        assert text == LongText(text.key, len(texts[text.key]), len(texts[text.key]), text.parts)
        assert text.parts > 1


def test_window_counts_special_tokens(model: LatentDiffusion) -> None:
    for window in model.conditioner.windows.prompt:
        assert isinstance(window, Window)
        assert window.tokens == 40
        assert window.count("") >= 1

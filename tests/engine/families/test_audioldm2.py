"""AudioLDM 2 checkpoints that speak: VITS reads what is said, CLAP what it is like."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.families.test_latent_diffusion import loudened, order, ours
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import PromptInputs
from timbred.models import checkpoint
from timbred.models.long_texts import LongText

SAID = "hello from the stage"
SOFT = "soft " * 60


@pytest.fixture(scope="module")
def model(audioldm2_speech: Path) -> LatentDiffusion:
    found = checkpoint.inspect(audioldm2_speech, "tiny", "")
    assert found.speaks
    return loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))


def sound(model: LatentDiffusion, prompt: str = "a woman", said: str = SAID, **words: object) -> np.ndarray:
    return ours(model, order(inputs=PromptInputs(prompt=prompt, transcription=said, **words)))  # pyright: ignore[reportArgumentType]


def test_audioldm2_speaks_the_transcription(model: LatentDiffusion) -> None:
    assert np.array_equal(sound(model), sound(model))
    assert not np.array_equal(sound(model), sound(model, said="good night"))
    assert not np.array_equal(sound(model), sound(model, prompt="a man"))


def test_audioldm2_reads_long_prompts_and_negative_prompts_to_their_end(model: LatentDiffusion) -> None:
    assert not np.array_equal(sound(model, SOFT + "kick"), sound(model, SOFT + "hi-hat"))
    one, other = (sound(model, negative=SOFT + last) for last in ("kick", "hi-hat"))
    assert not np.array_equal(one, other)


def test_audioldm2_weights_words_of_the_prompt(model: LatentDiffusion) -> None:
    assert not np.array_equal(sound(model, "a soft woman"), sound(model, "a soft woman", weights=(("soft", 3.0),)))


def test_audioldm2_mixes_prompts(model: LatentDiffusion) -> None:
    assert np.array_equal(sound(model, prompt2="a man", mix=1.0), sound(model, prompt="a man"))
    assert not np.array_equal(sound(model, prompt2="a man", mix=0.5), sound(model))


def test_audioldm2_cuts_a_long_transcription_after_a_word_and_reports_it(model: LatentDiffusion) -> None:
    said = "one two three four five six seven eight nine ten"
    cut = "one two three four five six seven eight"
    assert len(cut) == 39  # forty tokens: a letter each
    assert model.find_long_texts(PromptInputs(prompt="a woman", transcription=said)) == [
        LongText("transcription", len(said), len(cut), 1)
    ]
    assert model.find_long_texts(PromptInputs(prompt="a woman", transcription=cut)) == []


def test_audioldm2_reports_a_long_prompt_of_a_speech_model(model: LatentDiffusion) -> None:
    reported = model.find_long_texts(PromptInputs(prompt=SOFT, transcription=SAID))
    assert [(text.key, text.read) for text in reported] == [("prompt", len(SOFT))]

"""The exported tokenizers take whatever people type."""

import pytest
from transformers import RobertaTokenizer, T5Tokenizer

from training.settings import EXPORT

TEXTS = (
    "",
    "kick",
    "KICK DRUM",
    "ünïcödé snare 🥁",
    "雨の音",
    "a\tb\nc",
    "x" * 500,
    "'; drop table; --",
    "c#3 <s> </s>",
)


@pytest.mark.skipif(not EXPORT.exists(), reason="the model has not been exported yet")
@pytest.mark.parametrize(("folder", "kind"), [("tokenizer", RobertaTokenizer), ("tokenizer_2", T5Tokenizer)])
def test_text_tokenizers_accept_odd_characters(folder: str, kind: type) -> None:
    tokenizer = kind.from_pretrained(EXPORT / folder)
    assert tokenizer.model_max_length == 64
    for text in TEXTS:
        ids = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length).input_ids
        assert 1 <= len(ids) <= 64
        assert max(ids) < len(tokenizer)
    assert tokenizer("a kick drum").input_ids != tokenizer("a snare drum").input_ids

"""The daemon counts as the engine does, from files alone, and no file harms it."""

import asyncio
import json
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RobertaTokenizer

from tests.patience import TIMEOUT_S
from tests.requests.test_resolve import CARD, SPEAKER, resolved
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import PromptInputs
from timbred.models import checkpoint, registry, tokenizer_files
from timbred.models.long_texts import Window, Windows, long_texts
from timbred.models.pocket_words import MAX_WORDS, count_words
from timbred.models.registry import Card, Entry, Registry
from timbred.models.tokenizer_files import TokenizerFiles
from timbred.requests.prompt_texts import TextCounter

WORDS = "warm pad, 808 kick. naïve ПАД 音 ﷺ <s> \n"
SENTENCE = "a soft and warm pad that opens slowly over distant bells "
MODELS = ("audioldm", "audioldm2", "audioldm2_speech", "stable_audio", "stable_audio_3")


MERGES = (("a", "r"), ("ar", "m"), ("p", "a"), ("Ġ", "pa"), ("k", "i"), ("ki", "c"), ("Ġ", "b"))
"""Merges of the tokenizer in whose files something is changed."""


@pytest.fixture(autouse=True)
def counted_in_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timbred.requests.prompt_texts.COUNTED_WITHIN_S", 300.0)


def resident(folder: Path) -> LatentDiffusion:
    found = checkpoint.inspect(folder, "tiny", "")
    return make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None)


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def model(folder: Path) -> LatentDiffusion:
    return resident(folder)


def same_windows(own: Windows, model: LatentDiffusion) -> list[tuple[Any, Any]]:
    pairs = list(zip(own.prompt, model.conditioner.windows.prompt, strict=True))
    return pairs + list(zip(own.transcription, model.conditioner.windows.transcription, strict=True))


def test_tokenizer_files_windows_and_counts_equal_the_engines(folder: Path, model: LatentDiffusion) -> None:
    own = TokenizerFiles().windows(folder, "tiny")
    assert own.prompt

    @settings(max_examples=60, deadline=None)
    @given(st.text(st.sampled_from(WORDS) | st.characters(codec="utf-8"), min_size=1, max_size=120))
    def check(text: str) -> None:
        for ours, engines in same_windows(own, model):
            assert ours.tokens == engines.tokens
            assert ours.count(text) == engines.count(text)

    check()


def test_tokenizer_files_estimates_of_fitting_texts_hold(folder: Path, model: LatentDiffusion) -> None:
    files = TokenizerFiles()
    own = files.windows(folder, "tiny")
    short = [one for one in files.describe(folder, "tiny").tokenizers if one.reads == "prompt"]
    assert any(one.holds_all("a kick") for one in short)

    @settings(max_examples=60, deadline=None)
    @given(st.text(st.characters(max_codepoint=127), max_size=70))
    def check(text: str) -> None:
        for one, window in zip(short, own.prompt, strict=True):
            assert not one.holds_all(text) or window.fits(text)

    check()


def texts_of(folder: Path, card: Card = CARD) -> TextCounter:
    return TextCounter(Registry({card.name: Entry(card, folder, "")}))


@pytest.mark.parametrize("length", [20, 100, 500, 1900])
async def test_text_counter_reports_what_the_engine_warns_of(folder: Path, model: LatentDiffusion, length: int) -> None:
    text = (SENTENCE * 40)[:length]
    speaks = checkpoint.inspect(folder, "tiny", "").speaks
    card = SPEAKER if speaks else CARD
    spoken: dict[str, Any] = {"transcription": text} if speaks else {}
    asked = resolved(card, prompt=text, negative=text[: length // 2], prompt2=text[::-1], mix=0.5, **spoken)

    async def counted() -> tuple[Any, ...]:
        texts = texts_of(folder, card)
        at_once = texts.count_if_known(asked)
        found = await texts.count(asked)
        assert at_once in (None, found)
        assert texts.count_if_known(asked) == found, "the same words are counted once"
        return found

    said = [(text.key, text.characters, text.heard, text.parts) for text in await counted()]
    warned = model.find_long_texts(asked.order().inputs)
    assert said == [(text.key, text.characters, text.read, text.parts) for text in warned]
    assert bool(said) == (length > 20)


def test_text_counter_knows_short_texts_without_reading_a_tokenizer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(files: TokenizerFiles, folder: Path, name: str) -> Windows:
        pytest.fail(f"{name} in {folder} is read by {files}")

    monkeypatch.setattr(TokenizerFiles, "windows", refused)
    assert texts_of(folder).count_if_known(resolved(prompt="a kick drum")) == ()


def test_text_counter_reads_nothing_of_a_resident_model_with_known_tokenizers(copied: Path) -> None:
    texts = texts_of(copied)
    asked = resolved(prompt="a kick drum")
    assert texts.count_if_known(asked) == ()
    shutil.rmtree(copied)
    assert texts.count_if_known(asked, resident=True) == ()
    assert texts.count_if_known(resolved(prompt=SENTENCE * 10), resident=True) is None
    assert texts.count_if_known(resolved(prompt=SENTENCE * 10)) == (), "it isn't there any more"


def test_text_counter_always_counts_transcriptions(audioldm2_speech: Path) -> None:
    asked = resolved(SPEAKER, prompt="a woman", transcription="hello")
    assert texts_of(audioldm2_speech, SPEAKER).count_if_known(asked) is None


@pytest.fixture
def copied(audioldm2: Path, tmp_path: Path) -> Path:
    """The tokenizers of a model, the first one with merges, and its index."""
    shutil.copytree(audioldm2 / "tokenizer_2", tmp_path / "tokenizer_2")
    shutil.copy(audioldm2 / checkpoint.INDEX_NAME, tmp_path)
    plain = RobertaTokenizer.from_pretrained(str(audioldm2 / "tokenizer"))
    tokens = [*plain.get_vocab(), *("".join(pair) for pair in MERGES)]
    merges: Any = [*MERGES]  # transformers' annotation says less
    merging = RobertaTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=merges)
    merging.model_max_length = plain.model_max_length
    merging.save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def test_tokenizer_files_of_two_files_count_equally(copied: Path) -> None:
    before = TokenizerFiles().windows(copied, "tiny")
    file = copied / "tokenizer" / "tokenizer.json"
    found = json.loads(file.read_text("utf-8"))["model"]
    (copied / "tokenizer" / "vocab.json").write_text(json.dumps(found["vocab"]), "utf-8")
    merges = "".join(" ".join(pair) + "\n" for pair in found["merges"])
    (copied / "tokenizer" / "merges.txt").write_text("#version: 0.2\n" + merges, "utf-8")
    file.unlink()
    after = TokenizerFiles().windows(copied, "tiny")
    transformers = RobertaTokenizer.from_pretrained(str(copied / "tokenizer"))

    @settings(max_examples=60, deadline=None)
    @given(st.text(st.sampled_from(WORDS.replace("<", "")) | st.characters(codec="utf-8"), min_size=1, max_size=120))
    def check(text: str) -> None:
        assert before.prompt[0].count(text) == after.prompt[0].count(text) == len(transformers(text).input_ids)

    check()


def changed(file: Path, **steps: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **steps}), "utf-8")


def damage(file: Path, way: str) -> None:
    match way:
        case "cut short":
            file.write_bytes(file.read_bytes()[:1000])
        case "no JSON":
            file.write_bytes(b"\xff\x00" * 100)
        case "deep":
            file.write_text("[" * 100_000)
        case "other JSON":
            file.write_text('{"model": {"type": "BPE", "vocab": 7}}')
        case "a pipe":
            file.unlink()
            os.mkfifo(file)
        case "endless":
            file.unlink()
            file.symlink_to("/dev/zero")
        case "too large":
            with file.open("r+b") as content:
                content.truncate(tokenizer_files.MAX_TOKENIZER_BYTES + 1)
        case "its own expression":
            split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
            changed(file, pre_tokenizer={"type": "Sequence", "pretokenizers": [split]})
        case "long replacements":
            changed(file, normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1_000_000})
        case _:
            file.unlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names here")
@pytest.mark.parametrize(
    "way",
    [
        "cut short", "no JSON", "deep", "other JSON", "a pipe", "endless", "too large", "its own expression",
        "long replacements", "missing",
    ],
)  # fmt: skip
@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
async def test_tokenizer_files_logs_a_damaged_tokenizer_once_and_counts_nothing(
    copied: Path, caplog: pytest.LogCaptureFixture, part: str, way: str
) -> None:
    damage(copied / part / "tokenizer.json", way)
    asked = resolved(prompt=SENTENCE * 10)

    async def counted() -> None:
        texts = texts_of(copied)
        assert await texts.count(asked) == ()
        assert await texts.count(resolved(prompt=SENTENCE * 11)) == ()

    with caplog.at_level(logging.WARNING, "timbred"):
        await counted()
    (record,) = caplog.records
    assert "small: the tokens of its texts aren't counted before it is loaded" in record.getMessage()
    assert len(record.getMessage()) < 500


@pytest.mark.parametrize("longest", ["many", -1, True, None])
def test_tokenizer_files_counts_nothing_with_a_damaged_configuration(copied: Path, longest: object) -> None:
    changed(copied / "tokenizer" / "tokenizer_config.json", model_max_length=longest)
    assert texts_of(copied).count_if_known(resolved(prompt=SENTENCE * 10)) == ()


def test_tokenizer_files_reads_a_replaced_tokenizer_again(copied: Path) -> None:
    files = TokenizerFiles()
    words = PromptInputs(prompt=SENTENCE * 4)
    (before,) = long_texts(words.texts(), files.windows(copied, "tiny"))
    for part in ("tokenizer", "tokenizer_2"):
        changed(copied / part / "tokenizer_config.json", model_max_length=32)
    (after,) = long_texts(words.texts(), files.windows(copied, "tiny"))
    assert before.parts < after.parts
    damage(copied / "tokenizer" / "tokenizer.json", "cut short")
    assert files.windows(copied, "tiny") == Windows()


async def test_text_counter_does_not_wait_for_an_endless_count(
    copied: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    may_end = threading.Event()
    windows = TokenizerFiles.windows

    def slow(self: TokenizerFiles, folder: Path, name: str) -> Windows:
        assert may_end.wait(TIMEOUT_S)
        return windows(self, folder, name)

    monkeypatch.setattr(TokenizerFiles, "windows", slow)
    monkeypatch.setattr("timbred.requests.prompt_texts.COUNTED_WITHIN_S", 0.01)
    asked = resolved(prompt=SENTENCE * 10)

    async def counted() -> None:
        texts = texts_of(copied)
        assert await texts.count(asked) == ()
        assert texts.count_if_known(asked) == (), "the next one isn't kept waiting"
        may_end.set()
        late = texts.late
        assert late is not None
        await asyncio.wait_for(late, TIMEOUT_S)
        assert texts.count_if_known(asked) is None, "it is counted again"

    with caplog.at_level(logging.WARNING, "timbred"):
        await counted()
    assert "weren't counted within" in caplog.text


class Panic(BaseException):
    """As the tokenizers' library raises it."""


async def test_text_counter_logs_a_panic_and_counts_the_next_text(
    copied: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def panics(files: TokenizerFiles, folder: Path, name: str) -> Windows:
        raise Panic(f"{name} in {folder}, read by {files}")

    async def counted() -> None:
        texts = texts_of(copied)
        with monkeypatch.context() as patched:
            patched.setattr(TokenizerFiles, "windows", panics)
            assert await texts.count(resolved(prompt=SENTENCE * 10)) == ()
        assert await texts.count(resolved(prompt=SENTENCE * 10)) != ()

    with caplog.at_level(logging.WARNING, "timbred"):
        await counted()
    assert "its texts aren't counted before it reads them: Panic" in caplog.text


def test_tokenizer_files_count_the_words_of_the_embedded_model() -> None:
    folder = registry.pocket_folder()
    windows = TokenizerFiles().windows(folder, "pocket")
    prompt = f"{SENTENCE} in cm7 at 97bpm " * 5
    texts = {"prompt": prompt, "negative": "noise"}
    found = long_texts(texts, windows)
    assert [text.key for text in found] == ["prompt"]
    assert found == long_texts(texts, Windows((Window(count_words, MAX_WORDS),))), "as the engine divides it"

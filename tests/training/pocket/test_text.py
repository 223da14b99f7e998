import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timbred.engine.codecs.bands import BANDS, CENTRES, HALF_WIDTHS
from timbred.engine.families.pocket_networks import partial_bands, tensors
from timbred.models.pocket_words import FEATURE_COUNT, MAX_WORD_PIECES, MAX_WORDS, encode_words, read_words
from training.pocket.labels import NO_CLASS, labels_of
from training.pocket.sounds import draw
from training.pocket.text import label_losses, new_text_side
from training.pocket.vocabulary import CHOICES, CONDITION_SIZE, KINDS
from training.pocket.words import caption


@pytest.mark.parametrize(
    ("prompt", "pitch_class", "octave"),
    [
        ("piano C4", 0, 4),
        ("c sharp 3", 1, 3),
        ("Db5", 1, 5),
        ("bb2", 10, 2),
        ("f#-1", 6, -1),
        ("b#3", 0, 4),
        ("cb4", 11, 3),
    ],
)
def test_read_words_reads_notes(prompt: str, pitch_class: int, octave: int) -> None:
    note = read_words(prompt)[-1]
    assert (note.text, note.pitch_class, note.octave) == ("note", pitch_class, octave)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("a cm7 chord", ["a", "root", "m7", "chord"]),
        ("a minor", ["root", "minor"]),
        ("a piano", ["a", "piano"]),
        ("97bpm", ["number", "bpm"]),
        ("808 kick", ["808", "kick"]),
        ("e flat major 7!", ["root", "major", "7"]),
        ("hi-hat, 12-string", ["hi-hat", "12-string"]),
    ],
)
def test_read_words_reads_chords_and_numbers(prompt: str, texts: list[str]) -> None:
    assert [word.text for word in read_words(prompt)] == texts


@given(st.text(max_size=200))
def test_encode_words_accepts_any_prompt(prompt: str) -> None:
    encoded = encode_words([prompt, "kick"])
    assert encoded.pieces.shape[0] == 2
    assert 1 <= encoded.pieces.shape[1] <= MAX_WORDS
    assert encoded.pieces.shape[2] == MAX_WORD_PIECES
    assert encoded.features.shape[2] == FEATURE_COUNT
    assert np.isfinite(encoded.features).all()
    assert encoded.mask[:, 0].all()


def test_encode_words_ignores_case_and_spacing() -> None:
    side = new_text_side().eval()
    with torch.no_grad():
        first, second = side.read_prompts(["Grand  Piano C4", "grand piano c4"])
    assert torch.allclose(first, second, atol=1e-5)


def test_text_side_vectors_are_independent_of_the_batch() -> None:
    side = new_text_side().eval()
    with torch.no_grad():
        alone = side.read_prompts(["a kick"])[0]
        beside = side.read_prompts(["a kick", "a very long prompt with many words about strings in a hall"])[0]
    assert torch.allclose(alone, beside, atol=1e-5)


def test_partial_bands_of_a_note_contain_its_partials() -> None:
    bands = partial_bands().unflatten(1, (2, BANDS))
    a4 = bands[69, 0]
    fundamental = int((CENTRES - 440).abs().argmin())
    assert int(a4.argmax()) == fundamental
    assert float(a4[int((CENTRES - 880).abs().argmin())]) > 0
    where = CENTRES[fundamental] + HALF_WIDTHS[fundamental] * bands[69, 1, fundamental] / a4[fundamental]
    assert float(where) == pytest.approx(440, abs=0.1)


def test_text_condition_begins_with_the_vector() -> None:
    side = new_text_side().eval()
    with torch.no_grad():
        vectors = side.read_prompts(["a violin c4", "kick"])
        condition = side.condition(vectors)
    assert condition.shape == (2, CONDITION_SIZE)
    assert torch.equal(condition[:, : vectors.shape[1]], vectors)


def test_labels_of_every_sound_fit() -> None:
    random = np.random.default_rng(0)
    sounds = [draw(random) for _ in range(300)]
    labels = labels_of(sounds)
    assert (labels.classes["kind"] != NO_CLASS).all()
    for name, classes in labels.classes.items():
        assert classes.max() < len(CHOICES[name])
    loops = np.array([sound.form == "loop" and sound.source == "font" for sound in sounds])
    assert np.isfinite(labels.tempo[loops]).all()
    assert len(set(KINDS)) == len(KINDS)


def test_text_side_learns_its_labels() -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(1)
    sounds = [draw(random) for _ in range(24)]
    prompts = [caption(sound, random) for sound in sounds]
    side = new_text_side()
    optimiser = torch.optim.AdamW(side.parameters(), 3e-3)
    totals: list[float] = []
    for _ in range(25):
        vectors = side(*tensors(encode_words(prompts), torch.device("cpu")))
        loss = torch.stack(list(label_losses(side, vectors, labels_of(sounds)).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(float(loss.detach()))
    assert totals[-1] < 0.5 * totals[0]

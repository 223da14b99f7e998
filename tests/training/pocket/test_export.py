import json
from pathlib import Path

import torch

from tests.training.pocket.banks import small_codec, stored_bank
from timbred.engine.families.pocket_networks import Generator
from timbred.models.pocket import SAMPLE_RATE, GeneratorSizes, TextSizes
from training.pocket.ear_training import new_ear
from training.pocket.export import export, known_words, load_exported
from training.pocket.pipeline import Pocket, assemble
from training.pocket.text import new_text_side
from training.pocket.vocabulary import VOCABULARY


def small() -> Pocket:
    torch.manual_seed(0)
    vector = VOCABULARY.condition_size(24)
    pocket = assemble(
        new_text_side(TextSizes(pieces=16, width=32, layers=1, heads=2, queries=2, vector=24)).eval(),
        Generator(GeneratorSizes(latent=40, vector=vector, width=32, blocks=1, heads=2)).eval(),
        small_codec(),
        stored_bank(),
        torch.full((40,), 1.5),
        torch.full((40,), 0.25),
    )
    pocket.ear = new_ear(40).eval()
    return pocket


def test_export_makes_nearly_the_same_sounds(tmp_path: Path) -> None:
    pocket = small()
    size = export(pocket, tmp_path, 200)
    assert size == sum(path.stat().st_size for path in tmp_path.iterdir())
    read = load_exported(tmp_path)
    prompts = ["a grand piano c4", "a kick and rain"]
    for first, second in zip(*(made.plans(prompts, 0.5, 3) for made in (pocket, read)), strict=True):
        described = [json.dumps([sound.to_dict() for sound in layers]) for layers in (first, second)]
        assert described[0] == described[1]
        for sound in first:
            sketches = [made.sketcher.sketch([sound], 88).stacked() for made in (pocket, read)]
            assert torch.allclose(sketches[0], sketches[1], atol=0.05)
    sounds = read.sounds(["a grand piano c4", "rain"], 0.5, 3)
    assert [tuple(sound.shape) for sound in sounds] == [(2, SAMPLE_RATE // 2)] * 2
    assert all(bool(sound.isfinite().all()) for sound in sounds)


def test_export_repeats_sounds_with_their_seed() -> None:
    pocket = small()
    first, again, other = (pocket.sounds(["a kick"], 0.3, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_known_words_say_something_about_the_sound() -> None:
    words = set(known_words(400))
    assert {"piano", "kick"} <= words
    assert not {"a", "please", "dog"} & words


def test_vocabulary_has_more_than_a_hundred_kinds_in_families() -> None:
    kinds = VOCABULARY.families
    assert sum(map(len, kinds.values())) > 250
    assert {"piano", "voice", "drums", "synthesised"} <= kinds.keys()

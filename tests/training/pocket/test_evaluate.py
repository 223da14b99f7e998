import pytest

from timbred.models.pocket import SAMPLE_RATE
from training.pocket import evaluate
from training.pocket.evaluate import Request, SoundSource, load_source


@pytest.mark.parametrize("name", ["codec", "pocket"])
def test_load_source_needs_no_training_for_the_model_in_the_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "load_pocket", None)
    pocket = load_source(name)
    assert pocket.generator is None
    assert tuple(pocket.sounds(["a kick"], 0.3, 1)[0].shape) == (2, round(0.3 * SAMPLE_RATE))


def test_sound_source_renders_its_requests_in_their_order() -> None:
    kick, rain = (
        Request(words, evaluate.note_requests(1, held=None)[0].sound, seconds)
        for words, seconds in (("kick", 0.5), ("rain", 0.3))
    )
    sounds = SoundSource("pocket", load_source("pocket")).render([kick, rain, kick], 1)
    assert [sound.shape[1] for sound in sounds] == [round(seconds * SAMPLE_RATE) for seconds in (0.5, 0.3, 0.5)]

"""Init audio is handed to the engine in the model's channels."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile

from tests.requests.test_resolve import CARD, asked
from timbred.models.registry import Card
from timbred.requests.postprocess import read_init_audio
from timbred.requests.resolve import GivenSamples, Session, resolve

RATE = 16_000


def write_sound(path: Path, channels: int) -> np.ndarray:
    moments = np.arange(RATE) / RATE
    tones = [0.3 * np.sin(2 * np.pi * 220.0 * (number + 1) * moments) for number in range(channels)]
    samples = np.stack(tones, axis=1).astype(np.float32)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return samples


def card_of(channels: int) -> Card:
    return msgspec.structs.replace(CARD, channels=channels)


@pytest.mark.parametrize("sound_channels", [1, 2, 3])
@pytest.mark.parametrize("model_channels", [1, 2])
def test_read_init_audio_has_the_models_channels(tmp_path: Path, sound_channels: int, model_channels: int):
    samples = write_sound(tmp_path / "sound.wav", sound_channels)
    parameters = resolve(
        asked(init=str(tmp_path / "sound.wav")), card_of(model_channels), Session(), 0, init_seconds=1.0
    )
    read, clip = read_init_audio(tmp_path / "sound.wav", RATE, parameters)
    found = np.frombuffer(read, "<f4").reshape(-1, model_channels)
    assert clip.channels == sound_channels
    order = parameters.order(GivenSamples(init=read))
    assert order.init_audio is not None
    assert order.init_audio.channels == model_channels
    if sound_channels == model_channels:
        assert np.array_equal(found, samples)
    else:
        mean = samples.mean(axis=1, keepdims=True)
        assert np.allclose(found, np.repeat(mean, model_channels, axis=1), atol=1e-6)

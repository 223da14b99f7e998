"""What the page computes from a file is what numpy and libsndfile compute from it."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.web.browser import Page

DECODE = (
    "import('/panel/audio_decode.js').then(async ({ decode }) => { const text = atob(%s);"
    " const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer;"
    " const found = await decode(bytes, %d); return [found.rate, found.channels.map((one) => [...one])]; })"
)

FORMS = [
    ("WAV", "PCM_16", 0.0),
    ("WAV", "PCM_24", 0.0),
    ("WAV", "PCM_32", 0.0),
    ("WAV", "FLOAT", 0.0),
    ("WAVEX", "PCM_24", 0.0),
    ("RF64", "PCM_24", 0.0),
    ("AIFF", "PCM_16", 0.0),
    ("AIFF", "PCM_24", 0.0),
    ("AIFF", "FLOAT", 0.0),
    ("FLAC", "PCM_24", 2.0**-20),
]


def noise(frames: int, channels: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(-0.9, 0.9, (frames, channels)).astype(np.float32)


@pytest.mark.parametrize(("form", "subtype", "apart"), FORMS)
def test_spectra_reads_every_kind_of_file(page: Page, tmp_path: Path, form: str, subtype: str, apart: float) -> None:
    path, rate = tmp_path / "sound", 44100 if form == "AIFF" else 48000
    sound = noise(3001, 2)
    soundfile.write(path, 0.5 * sound, rate, subtype=subtype, format=form)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    text = base64.b64encode(path.read_bytes()).decode()
    found_rate, channels = page.run(DECODE % (json.dumps(text), rate))
    found = np.array(channels, np.float32).T
    assert found_rate == rate
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= apart


def test_spectra_reads_ogg_as_the_browser_does(page: Page, tmp_path: Path) -> None:
    """Decoders of Vorbis differ in where the first block begins: the tone and its loudness are what counts."""
    path = tmp_path / "sound.ogg"
    soundfile.write(path, 0.5 * np.sin(440 * 2 * np.pi * np.arange(24000) / 48000), 48000)
    text = base64.b64encode(path.read_bytes()).decode()
    rate, channels = page.run(DECODE % (json.dumps(text), 48000))
    found = np.array(channels[0])
    assert (rate, len(channels)) == (48000, 1)
    assert abs(len(found) - 24000) < 600
    assert np.sqrt((found**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    loudest = np.abs(np.fft.rfft(found)).argmax() * rate / len(found)
    assert loudest == pytest.approx(440, abs=4)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"FORM\0\0\0\0AIFF", b"no sound at all"])
def test_spectra_refuses_files_without_sound(page: Page, content: bytes) -> None:
    text = json.dumps(base64.b64encode(content).decode())
    assert page.run((DECODE % (text, 48000)) + ".then(() => 'read', (error) => error.name)") != "read"


@pytest.mark.parametrize("size", [2, 64, 2048])
def test_spectra_transform_equals_numpys(page: Page, size: int) -> None:
    samples = noise(size, 1)[:, 0].astype(np.float64)
    found = page.run(
        f"import('/panel/fft.js').then(({{ Fft }}) => [...new Fft({size}).power({json.dumps(samples.tolist())})])"
    )
    assert np.allclose(found, np.abs(np.fft.rfft(samples)) ** 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("frequency", [110.0, 1000.0, 9000.0])
def test_spectra_shows_a_tone_at_its_frequency(page: Page, frequency: float) -> None:
    columns, rows, rate = 8, 200, 48000
    found = page.run(
        f"import('/panel/fft.js').then(({{ spectrogram, height }}) => {{"
        f" const tone = Float32Array.from({{ length: {rate} }}, (_, n) => Math.sin(2 * Math.PI * {frequency} * n / {rate}));"  # noqa: E501
        f" return [[...spectrogram(tone, {rate}, {columns}, {rows})], height({frequency}, {rate})]; }})"
    )
    levels = np.array(found[0]).reshape(columns, rows)
    assert np.abs(levels[4].argmax() / rows - found[1]) < 0.03
    assert levels[4].max() > -1
    assert np.median(levels[4]) < -60


def test_spectra_outline_is_the_minimum_and_maximum(page: Page) -> None:
    sound = noise(1000, 2)
    found = page.run(
        "import('/panel/audio_decode.js').then(({ outline }) => { const channels = "
        f"{json.dumps(sound.T.tolist())}.map((one) => Float32Array.from(one));"
        " const { low, high, power } = outline({ rate: 8000, frames: 1000, channels }, 10);"
        " return [[...low], [...high], [...power]]; })"
    )
    parts = sound.reshape(10, 200)
    assert np.allclose(found[0], parts.min(1))
    assert np.allclose(found[1], parts.max(1))
    assert np.allclose(found[2], np.sqrt((parts**2).mean(1)), atol=1e-6)

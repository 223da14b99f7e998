"""Tones have the requested pitch at any frame rate and the level of the mel, and are continuous around a circle."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timbred.engine.codecs.chunked import ChunkedVocoder
from timbred.engine.codecs.mel import Analysis, analysis_of, log_mel
from timbred.engine.codecs.spectral_vocoder import (
    NamedNote,
    Note,
    SpectralVocoder,
    frequencies,
    hann_lobe,
    replace_harmonics,
)

RATE, HOP, FFT, FRAMES = 32_000, 320, 1280, 120
EDGE = 8 * HOP


def make_vocoder() -> SpectralVocoder:
    torch.manual_seed(0)
    return SpectralVocoder(64, RATE, (8, 8, 5), 16, 32, 2, FFT, 4, 64).eval().requires_grad_(False)


VOCODER = make_vocoder()
ANALYSIS: Analysis = analysis_of(VOCODER)


def harmonics(hertz: float, amplitudes: list[float], frames: int = FRAMES) -> torch.Tensor:
    """A steady tone, (1, samples)."""
    moments = torch.arange(frames * HOP, dtype=torch.float64) / RATE
    waves = [
        amplitude * torch.sin(2 * math.pi * order * hertz * moments + order**2)
        for order, amplitude in enumerate(amplitudes, start=1)
    ]
    return torch.stack(waves).sum(dim=0)[None].float()


def tones_alone(mel: torch.Tensor, note: Note) -> torch.Tensor:
    """What tones sound like where the vocoder makes nothing: the samples of the first take, without its ends."""
    nothing = torch.zeros(mel.shape[0], mel.shape[1], FFT // 2 + 1)
    spectrum = replace_harmonics(nothing, nothing, mel, torch.arange(mel.shape[1]), note, ANALYSIS)
    return VOCODER.overlap_add(spectrum)[0, EDGE:-EDGE]


def parts(samples: torch.Tensor, hertz: list[float]) -> tuple[list[float], float]:
    """The amplitudes of sines of these frequencies that together fit best, and the level of all that is not them."""
    moments = torch.arange(len(samples), dtype=torch.float64)[:, None] / RATE
    turned = 2 * math.pi * moments * torch.tensor(hertz, dtype=torch.float64)
    waves = torch.cat((torch.cos(turned), torch.sin(turned)), dim=1)
    fitted = torch.linalg.lstsq(waves, samples.double()[:, None]).solution
    left = samples.double() - (waves @ fitted)[:, 0]
    return fitted.view(2, -1).norm(dim=0).tolist(), float(left.square().mean().sqrt())


@given(hertz=st.floats(130.0, 2000.0))
def test_replace_harmonics_gives_a_tone_its_pitch_and_level(hertz: float):
    """A sine of any frequency, within 1 dB and 30 dB above all else, though 100 frames a second made it."""
    made = tones_alone(log_mel(harmonics(hertz, [0.3]), ANALYSIS), Note(hertz))
    (amplitude,), left = parts(made, [hertz])
    assert abs(20 * math.log10(amplitude / 0.3)) < 1.0
    assert 20 * math.log10(left / (amplitude / math.sqrt(2))) < -30.0


@pytest.mark.parametrize("hertz", [123.47, 220.0, 311.13, 523.25])
def test_replace_harmonics_keeps_the_level_of_harmonics(hertz: float):
    amplitudes = [0.2, 0.05, 0.1, 0.02, 0.06]
    made = tones_alone(log_mel(harmonics(hertz, amplitudes), ANALYSIS), Note(hertz))
    found, _ = parts(made, [hertz * order for order in range(1, 6)])
    for amplitude, wanted in zip(found, amplitudes, strict=True):
        assert abs(20 * math.log10(amplitude / wanted)) < 3.0


@pytest.mark.parametrize(("there", "asked"), [(196.0, 220.0), (311.1, 440.0), (440.0, 261.6), (110.0, 82.4)])
def test_replace_harmonics_moves_a_mel_of_another_pitch_to_the_requested_one(there: float, asked: float):
    """Nothing but harmonics of the pitch is heard, about as loud as the sound was."""
    sound = harmonics(there, [0.2, 0.1, 0.1, 0.05, 0.05])
    made = tones_alone(log_mel(sound, ANALYSIS), Note(asked))
    found, left = parts(made, [asked * order for order in range(1, int(6000 / asked) + 1)])
    assert 20 * math.log10(left / (math.sqrt(sum(one**2 for one in found)) / math.sqrt(2))) < -30.0
    assert abs(20 * math.log10(float(made.std() / sound.std()))) < 6.0


@given(hertz=st.floats(30.0, 1000.0), around=st.integers(50, 500))
def test_replace_harmonics_joins_harmonics_around_a_circle(hertz: float, around: int):
    """Each turns a whole number of times, which is by at most half a turn more or less than its own frequency says."""
    seconds = around * HOP / RATE
    own, closed = frequencies(Note(hertz), ANALYSIS), frequencies(Note(hertz, around), ANALYSIS)
    turns = closed * seconds
    assert (turns - turns.round()).abs().max() < 1e-6
    assert (closed - own).abs().max() <= max(0.5 / seconds, 1.0 / seconds - hertz) + 1e-9


def test_replace_harmonics_keeps_the_vocoders_beginning():
    """A stroke out of silence, and what follows it at once; then the tone takes over."""
    mel = torch.full((1, FRAMES, 64), -1.0)
    mel[:, 50:] = log_mel(harmonics(220.0, [0.3]), ANALYSIS)[:, 50:]
    magnitude, phase = torch.ones(1, FRAMES, 641), torch.zeros(1, FRAMES, 641)
    found = replace_harmonics(magnitude, phase, mel, torch.arange(FRAMES), Note(220.0), ANALYSIS)
    assert torch.allclose(found[:, 48:53], torch.ones(1, 5, 641, dtype=torch.complex64), atol=1e-5)
    assert found[0, 60, 9].abs() > 10.0
    assert found[0, 60, 13].abs() < 1.0, "between the first two harmonics lies next to nothing"


def test_replace_harmonics_adds_no_tone_to_silence():
    """What the spectrogram can't tell from nothing: its floor at -80 dB, and a little above it."""
    for floor in (-1.0, -0.95, -0.8):
        assert tones_alone(torch.full((1, FRAMES, 64), floor), Note(220.0)).abs().max() < 10 ** (-80 / 20)


def test_replace_harmonics_keeps_the_vocoders_highs():
    mel = log_mel(harmonics(220.0, [0.3]), ANALYSIS)
    magnitude, phase = torch.rand(1, FRAMES, 641), torch.rand(1, FRAMES, 641)
    found = replace_harmonics(magnitude, phase, mel, torch.arange(FRAMES), Note(220.0), ANALYSIS)
    own = torch.polar(magnitude, phase)
    assert torch.allclose(found[..., 250:], own[..., 250:], atol=1e-2)


def test_hann_lobe_equals_the_transform_of_a_hann_window():
    """By the transform of the window itself, between the bins too."""
    finely = torch.fft.rfft(torch.hann_window(FFT, dtype=torch.float64), 16 * FFT).abs()
    assert torch.allclose(hann_lobe(torch.arange(48) / 16).double().abs(), finely[:48] / finely[0], atol=1e-4)


@pytest.mark.parametrize("circular", [False, True])
def test_replace_harmonics_in_pieces_equals_the_whole(circular: bool):
    mel = torch.rand(2, 90, 64, generator=torch.Generator().manual_seed(1)) - 0.5
    vocoding = ChunkedVocoder(VOCODER, mel, circular, NamedNote(233.1))
    whole = vocoding.vocode()
    joined = torch.cat(
        [vocoding.vocode_piece(0, 16), vocoding.vocode_piece(16, 48), vocoding.vocode_piece(48, 90)], dim=1
    )
    assert torch.allclose(joined, whole, atol=1e-5)
    if not circular:
        assert torch.allclose(VOCODER(mel, None, Note(233.1)), whole, atol=1e-5)
    assert (whole - ChunkedVocoder(VOCODER, mel, circular).vocode()).abs().max() > 0.01, "there must be tones"


def test_replace_harmonics_of_a_loop_is_one_tone():
    """Three times around: nothing but the harmonics of one pitch, at the seams too."""
    mel = log_mel(harmonics(233.1, [0.2, 0.1], 97), ANALYSIS)
    mel = mel[:, 20:21].expand(-1, 97, -1).contiguous()
    nothing = torch.zeros(1, 97, 641)
    around = torch.arange(-10, 107) % 97
    note = Note(233.1, 97)
    spectrum = replace_harmonics(
        nothing[:, around % 97], nothing[:, around % 97], mel[:, around], around, note, ANALYSIS
    )
    circle = VOCODER.overlap_add(spectrum)[0, 10 * HOP : -10 * HOP]
    found, left = parts(circle.repeat(3), frequencies(note, ANALYSIS).tolist()[:8])
    assert 20 * math.log10(left / found[0]) < -30.0

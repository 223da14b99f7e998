"""A sound in pieces is the whole sound, and none of it is heard before that is safe."""

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from tests.engine.families.test_latent_diffusion import loudened, order
from timbred.engine.codecs.chunked import (
    ChunkedVocoder,
    PieceStream,
    VocoderContext,
    VocoderPieces,
    can_start_playback,
    context_of,
)
from timbred.engine.codecs.mel import loudest_frames
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.errors import ModelError
from timbred.ipc.engine_messages import PromptInputs
from timbred.models import checkpoint

PUBLISHED = SpeechT5HifiGanConfig(
    model_in_dim=16,
    sampling_rate=16000,
    upsample_initial_channel=32,
    upsample_rates=[5, 4, 2, 2, 2],
    upsample_kernel_sizes=[16, 16, 8, 4, 4],
    resblock_kernel_sizes=[3, 7, 11],
    resblock_dilation_sizes=[[1, 3, 5]] * 3,
)
"""The layers of AudioLDM's and AudioLDM 2's vocoder, in fewer channels."""

SPEECH = SpeechT5HifiGanConfig(
    model_in_dim=16,
    upsample_initial_channel=32,
    upsample_rates=[4, 4, 4, 4],
    upsample_kernel_sizes=[8, 8, 8, 8],
    resblock_kernel_sizes=[3, 5],
    resblock_dilation_sizes=[[1, 2], [1, 3, 5]],
)

FRAMES = 157


def audible(vocoder: Any) -> Any:
    """Random weights that let something through: the published initial ones are all but silent."""
    for name, parameter in vocoder.named_parameters():
        if parameter.dim() > 1:
            inputs = parameter.numel() / parameter.shape[1 if "upsampler" in name else 0]
            torch.nn.init.normal_(parameter, std=float(inputs**-0.5))
    return vocoder.eval().requires_grad_(False)


def make_vocoder(name: str) -> Any:
    torch.manual_seed(0)
    return audible(SpeechT5HifiGan(PUBLISHED if name == "published" else SPEECH))


@pytest.fixture(scope="module", params=["published", "speech"])
def vocoder(request: pytest.FixtureRequest) -> Any:
    return make_vocoder(request.param)


def joined(vocoding: ChunkedVocoder, edges: list[int]) -> torch.Tensor:
    return torch.cat([vocoding.vocode_piece(*part) for part in itertools.pairwise(edges)], dim=1)


def spectrogram(takes: int = 2) -> torch.Tensor:
    return torch.randn(takes, FRAMES, 16, generator=torch.Generator().manual_seed(3))


def test_chunked_vocoder_stream_pieces_equal_the_whole(vocoder: Any):
    vocoding = ChunkedVocoder(vocoder, spectrogram())
    whole = vocoder(spectrogram())
    assert 0.01 < whole.std() < 0.8, "the comparison must be of something"
    assert vocoding.samples == whole.shape[1]
    assert torch.allclose(joined(vocoding, [0, 1, 7, 40, 150, FRAMES]), whole, atol=1e-5)


def test_vocoder_context_is_what_a_frame_depends_on(vocoder: Any):
    """Neither less nor more, by the derivatives of one frame's samples."""
    mel = spectrogram(1).double().requires_grad_()
    hop, vocoder = ChunkedVocoder(vocoder, mel).hop, copy.deepcopy(vocoder).double()
    (gradient,) = torch.autograd.grad(vocoder(mel)[0, 60 * hop : 61 * hop].square().sum(), mel)
    reached = gradient[0].abs().sum(dim=-1).nonzero()
    assert context_of(vocoder) == VocoderContext(60 - int(reached.min()), int(reached.max()) - 60)


def test_context_of_the_published_vocoders():
    """Found by measuring on the real one: 21.5 frames before, 23 after."""
    assert context_of(SpeechT5HifiGan(PUBLISHED)) == VocoderContext(23, 23)


def test_chunked_vocoder_stream_of_a_loop_has_no_beginning(vocoder: Any):
    """Turned by some frames, a loop sounds the same but turned."""
    vocoding = ChunkedVocoder(vocoder, spectrogram(), circular=True)
    whole = joined(vocoding, [0, 16, 48, FRAMES])
    assert whole.shape[1] == vocoding.samples == FRAMES * vocoding.hop
    turned = ChunkedVocoder(vocoder, spectrogram().roll(-50, dims=1), circular=True).vocode()
    assert torch.allclose(turned, whole.roll(-50 * vocoding.hop, dims=1), atol=1e-5)


@given(ready=st.floats(0.01, 10), next_piece=st.floats(0.01, 10), left=st.floats(0, 60), pace=st.floats(0.001, 10))
def test_can_start_playback_is_true_in_time(ready: float, next_piece: float, left: float, pace: float):
    """Played from now on, neither the next piece nor the last one comes too late at the measured pace."""
    if can_start_playback(ready, min(next_piece, left), left, pace):
        assert pace * min(next_piece, left) <= ready + 1e-9
        assert pace * left <= ready + left + 1e-9


class Clock:
    """Time that goes on by a step at each look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def sounding(step: float, frames: int = FRAMES * 160) -> PieceStream:
    vocoding = ChunkedVocoder(make_vocoder("published"), spectrogram(1))
    pieces = VocoderPieces(vocoding, lambda call: call())
    return PieceStream(pieces, frames, 16000, Clock(step))


def test_chunked_vocoder_stream_begins_with_a_short_piece_and_lengthens_each_next_one():
    found = sounding(0.001)
    lengths = list[int]()
    while not found.done:
        piece = found.render_piece()
        assert piece is not None
        assert piece.first == sum(lengths)
        lengths.append(piece.samples.shape[1])
    assert lengths == [16 * 160, 32 * 160, 64 * 160, 45 * 160]
    assert sum(lengths) == found.frames


def test_can_start_playback_waits_for_a_slow_vocoder():
    """Slower than the sound lasts: nothing is heard before the end, and then all at once."""
    found = sounding(5.0)
    pieces = list[Any]()
    while not found.done:
        pieces.append(found.render_piece())
    assert [piece is None for piece in pieces] == [True, True, True, False]
    assert pieces[-1].first == 0
    assert torch.equal(pieces[-1].samples, found.waveforms)


def test_chunked_vocoder_stream_makes_no_more_than_is_wanted():
    found = sounding(0.001, frames=3000)
    while not found.done:
        found.render_piece()
    assert found.waveforms.shape == (1, 3000, 1)


def test_loudest_frames_lie_apart():
    mel = torch.full((1, 100, 16), -5.0)
    mel[0, 40], mel[0, 41], mel[0, 90] = 2.0, 1.9, 1.0
    assert loudest_frames(mel, 2, 16) == [40, 90]
    assert len(loudest_frames(mel, 100, 16)) == 6


@pytest.fixture(scope="module", params=["audioldm2", "audioldm"])
def model(request: pytest.FixtureRequest) -> LatentDiffusion:
    folder: Path = request.getfixturevalue(request.param)
    found = checkpoint.inspect(folder, "tiny", "")
    return loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))


@pytest.mark.parametrize("seconds", [0.5, 0.5299, 1.013])
def test_chunked_vocoder_pieces_equal_one_call(model: LatentDiffusion, seconds: float):
    wanted = order(seconds=seconds, steps=2, inputs=PromptInputs(prompt="bass c2"))
    run = model.begin(wanted)
    while not run.sampler.done:
        model.advance([run])
    whole = model.decode(run).waveforms
    assert np.abs(whole).max() > 0.001
    pieces = model.begin_stream(run)
    received = list[torch.Tensor]()
    while not pieces.done:
        if (piece := pieces.render_piece()) is not None:
            received.append(piece.samples)
    assert pieces.frames == whole.shape[1]
    assert torch.equal(torch.cat(received, dim=1), pieces.waveforms)
    np.testing.assert_allclose(pieces.waveforms.numpy(), whole, atol=1e-5)


def test_chunked_vocoder_raises_for_non_finite_values(model: LatentDiffusion):
    run = model.begin(order(steps=1))
    model.advance([run])
    run.sampler.latents = run.sampler.latents * float("nan")
    with pytest.raises(ModelError, match="NaN or infinity"):
        model.begin_stream(run)

"""Orders and renders of tiny waveform models, and comparisons with the stock pipelines."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.checkpoints import WAVE_RATE
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.factory import make_resident
from timbred.ipc.engine_messages import InitAudio, PromptInputs, RenderOrder, Repaint
from timbred.models import checkpoint

TOLERANCE = 1e-4
AUDIBLE_PEAK = 0.01


def load(folder: Path) -> LatentDiffusion:
    """Load a checkpoint in float32 on the CPU."""
    found = checkpoint.inspect(folder, "tiny", "")
    return make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None)


def wave_order(**changes: Any) -> RenderOrder:
    """Return an order for a waveform model."""
    plain: dict[str, Any] = {
        "words": PromptInputs(prompt="a kick drum"),
        "seconds": 0.4,
        "steps": 4,
        "guidance": 3.0,
        "eta": 0.0,
        "scheduler": "",
        "seeds": (7,),
    }
    return RenderOrder(**{**plain, **changes})


def render(model: LatentDiffusion, wanted: RenderOrder) -> NDArray[np.float32]:
    """Return the takes of an order rendered alone, (takes, frames, channels)."""
    return model.render(wanted, lambda _: None, lambda: False).waveforms


def stereo_sound(seconds: float, seed: int = 3) -> NDArray[np.float32]:
    """Return noise over a tone, different in each channel, (frames, 2)."""
    frames = round(seconds * WAVE_RATE)
    tone = np.sin(2 * np.pi * 440.0 * np.arange(frames) / WAVE_RATE)
    noise = np.random.default_rng(seed).uniform(-0.3, 0.3, (frames, 2))
    return (0.4 * tone[:, None] * [1.0, 0.5] + noise).astype(np.float32)


def init_audio(sound: NDArray[np.float32], strength: float, repaint: Repaint | None = None) -> InitAudio:
    """Return init audio of samples (frames, channels)."""
    return InitAudio(samples=sound.tobytes(), channels=sound.shape[1], strength=strength, repaint=repaint)


def stock_audio(sound: NDArray[np.float32]) -> torch.Tensor:
    """Return samples (frames, channels) as the stock pipelines take them, (1, channels, frames)."""
    return torch.from_numpy(np.ascontiguousarray(sound.T))[None]


def generator(seed: int) -> list[torch.Generator]:
    """Return a stock pipeline's random generator of one take."""
    return [torch.Generator().manual_seed(seed)]


def assert_equal_sounds(made: NDArray[np.float32], expected: torch.Tensor) -> None:
    """Compare takes (takes, frames, channels) with a stock pipeline's, (takes, channels, frames)."""
    reference = expected.transpose(1, 2).numpy()
    assert np.abs(reference).max() > AUDIBLE_PEAK, "the comparison must be of something"
    np.testing.assert_allclose(made, reference, atol=TOLERANCE)

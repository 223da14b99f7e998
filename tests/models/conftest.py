"""The tiny checkpoints of the engine's tests."""

from tests.engine.conftest import (
    audioldm,
    audioldm2,
    audioldm2_speech,
    children_import_tests,
    clap,
    one_thread,
    stable_audio,
    stable_audio_3,
)

__all__ = [
    "audioldm",
    "audioldm2",
    "audioldm2_speech",
    "children_import_tests",
    "clap",
    "one_thread",
    "stable_audio",
    "stable_audio_3",
]

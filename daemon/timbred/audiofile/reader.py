"""Reading of audio files and of the recipes in them. Nothing in a file from outside is trusted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile

from timbred.audio import Clip, Recipe, SampleRate, Samples
from timbred.audiofile.tags import read_recipe_text
from timbred.errors import BadAudio

MAX_SECONDS = 600.0
"""Default for the longest sound that is read."""

MAX_CHANNELS = 8
"""Channels that are read at most."""
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000
"""Rates that are read."""
MAX_RECIPE_CHARACTERS = 262_144
"""Characters of a recipe that are read from a file."""

BLOCK_FRAMES = 65_536
"""Frames that are read at a time."""

WIDE_SUBTYPES = ("PCM_32", "DOUBLE")
"""libsndfile's names of sample formats with more bits than float32 has for them."""


@dataclass(frozen=True)
class AudioHeader:
    """An audio file's rate in Hz, channels and frames, and libsndfile's names of its format and sample format."""

    rate: int
    channels: int
    frames: int
    kind: str
    subtype: str

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate


def decode(path: Path, max_seconds: float = MAX_SECONDS) -> Clip:
    """Read the sound in a file, at its own rate and channels, with its recipe if it has a readable one.

    Reads the formats of libsndfile: WAV, AIFF, FLAC, Ogg, MP3, CAF and more.

    Raises:
        BadAudio: missing, not audio, empty, longer than `max_seconds`, or with NaN or infinite samples.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            _check_header(file, path, max_seconds)
            samples = _read_samples(file, path, max_seconds)
            rate = SampleRate(file.samplerate)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, RuntimeError) as error:
        raise BadAudio(_describe_error(path, error)) from error
    if samples.shape[0] == 0:
        raise BadAudio(f"{path}: the audio file has no frames")
    if not np.isfinite(samples).all():
        raise BadAudio(f"{path}: the file has NaN or infinite samples; export it again from its editor")
    return Clip(samples, rate, _read_recipe_if_any(path))


def read_header(path: Path, max_seconds: float = MAX_SECONDS) -> AudioHeader:
    """Read the header of an audio file.

    Raises:
        BadAudio: missing, not audio, empty, or longer than `max_seconds`.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            _check_header(file, path, max_seconds)
            header = AudioHeader(file.samplerate, file.channels, file.frames, file.format, file.subtype)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, RuntimeError) as error:
        raise BadAudio(_describe_error(path, error)) from error
    if header.frames <= 0:
        raise BadAudio(f"{path}: the audio file has no frames")
    return header


def fits_float32(path: Path) -> bool:
    """Return whether float32 holds the samples of a file exactly.

    Samples of 32-bit integers and 64-bit floats may not fit.

    Raises:
        BadAudio: the file can't be read.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            if file.subtype not in WIDE_SUBTYPES:
                return True
            for block in file.blocks(BLOCK_FRAMES, dtype="float64", always_2d=True):
                if not np.array_equal(block, block.astype(np.float32)):
                    return False
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, RuntimeError) as error:
        raise BadAudio(_describe_error(path, error)) from error
    return True


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a file of timbred as it is stored: `timbred.storage.recipe` validates it.

    Raises:
        BadAudio: the file can't be read, has no recipe, or one that isn't JSON.
    """
    try:
        with path.open("rb") as file:
            text = read_recipe_text(file)
    except (OSError, ValueError) as error:
        raise BadAudio(_describe_error(path, error)) from error
    if text is None:
        raise BadAudio(f"{path}: this file has no timbred recipe")
    if len(text) > MAX_RECIPE_CHARACTERS:
        raise BadAudio(f"{path}: its recipe is longer than {MAX_RECIPE_CHARACTERS} characters")
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise BadAudio(f"{path}: its timbred recipe can't be read ({error})") from error


def _check_header(file: soundfile.SoundFile, path: Path, max_seconds: float) -> None:
    if not MIN_RATE_HZ <= file.samplerate <= MAX_RATE_HZ:
        raise BadAudio(f"{path}: a rate of {file.samplerate} Hz; allowed is {MIN_RATE_HZ} to {MAX_RATE_HZ}")
    if file.channels > MAX_CHANNELS:
        raise BadAudio(f"{path}: {file.channels} channels; at most {MAX_CHANNELS} are read")
    if 0 <= max_seconds * file.samplerate < file.frames:
        length = file.frames / file.samplerate
        raise BadAudio(f"{path}: {length:.1f} s long; at most {max_seconds:g} s are read, so cut it shorter")


def _read_samples(file: soundfile.SoundFile, path: Path, max_seconds: float) -> Samples:
    """Read block by block, as a header may announce more frames than there are."""
    blocks: list[Samples] = []
    remaining_frames = int(max_seconds * file.samplerate) + 1
    while remaining_frames > 0:
        block = np.asarray(file.read(min(BLOCK_FRAMES, remaining_frames), dtype="float32", always_2d=True), np.float32)
        if block.shape[0] == 0:
            break
        blocks.append(block)
        remaining_frames -= block.shape[0]
    if remaining_frames <= 0:
        raise BadAudio(f"{path}: longer than {max_seconds:g} s; cut it shorter")
    return np.concatenate(blocks) if blocks else np.zeros((0, file.channels), np.float32)


def _read_recipe_if_any(path: Path) -> Recipe:
    try:
        return read_recipe(path)
    except BadAudio:
        return {}


def _describe_error(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError) or not path.exists():
        return f"{path}: there is no such file"
    reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return f"{path}: this isn't an audio file that can be read ({str(reason).strip('. ')})"

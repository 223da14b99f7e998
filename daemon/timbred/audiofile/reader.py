"""From a file to a clip, and to the recipe it was made by. Nothing in a file from outside is trusted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile

from timbred.audio import Clip, Recipe, SampleRate, Samples
from timbred.audiofile.tags import recipe_text
from timbred.errors import BadAudio

LONGEST = 600.0
"""Seconds that are read unless the caller says otherwise."""

MOST_CHANNELS = 8
RATES = (1_000, 768_000)
LONGEST_RECIPE = 262_144
"""Characters of recipe that are read from a file."""

BLOCK = 65_536

WIDE_SUBTYPES = ("PCM_32", "DOUBLE")
"""libsndfile's names of samples that have more bits than float32 has for them."""


@dataclass(frozen=True)
class SoundHead:
    """What the head of a file of sound says: Hz, channels, frames, libsndfile's name of its kind and of its samples."""

    rate: int
    channels: int
    frames: int
    kind: str
    subtype: str

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


def decode(path: Path, max_seconds: float = LONGEST) -> Clip:
    """The sound in a file, at its own rate and channels, with its recipe if it carries a readable one.

    Reads whatever libsndfile reads: WAV, AIFF, FLAC, Ogg, MP3, CAF and more.

    Raises:
        BadAudio: missing, not sound, empty, longer than `max_seconds`, or with values that aren't numbers.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            _check_head(file, path, max_seconds)
            samples = _samples(file, path, max_seconds)
            rate = SampleRate(file.samplerate)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, RuntimeError) as error:
        raise BadAudio(_unreadable(path, error)) from error
    if samples.shape[0] == 0:
        raise BadAudio(f"{path}: the file is sound, but it holds no frames")
    if not np.isfinite(samples).all():
        raise BadAudio(f"{path}: the file holds values that aren't numbers; export it again from its editor")
    return Clip(samples, rate, _recipe_or_none(path))


def head_of(path: Path, max_seconds: float = LONGEST) -> SoundHead:
    """What the head of a file says of its sound.

    Raises:
        BadAudio: missing, not sound, empty, or longer than `max_seconds`.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            _check_head(file, path, max_seconds)
            head = SoundHead(file.samplerate, file.channels, file.frames, file.format, file.subtype)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, RuntimeError) as error:
        raise BadAudio(_unreadable(path, error)) from error
    if head.frames <= 0:
        raise BadAudio(f"{path}: the file is sound, but it holds no frames")
    return head


def keeps_every_bit(path: Path) -> bool:
    """Whether the samples of a file are numbers that float32 holds exactly, as `decode` reads them. Those of 32-bit
    integers and 64-bit floats may not be.

    Raises:
        BadAudio: the file can't be read.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            if file.subtype not in WIDE_SUBTYPES:
                return True
            for block in file.blocks(BLOCK, dtype="float64", always_2d=True):
                if not np.array_equal(block, block.astype(np.float32)):
                    return False
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, RuntimeError) as error:
        raise BadAudio(_unreadable(path, error)) from error
    return True


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file that timbred made, as it stands there: `timbred.storage.recipe` validates it.

    Raises:
        BadAudio: the file can't be read, carries no recipe, or one that isn't JSON.
    """
    try:
        with path.open("rb") as file:
            text = recipe_text(file)
    except (OSError, ValueError) as error:
        raise BadAudio(_unreadable(path, error)) from error
    if text is None:
        raise BadAudio(f"{path}: this file carries no timbred recipe")
    if len(text) > LONGEST_RECIPE:
        raise BadAudio(f"{path}: its recipe is longer than {LONGEST_RECIPE} characters")
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise BadAudio(f"{path}: its timbred recipe can't be read ({error})") from error


def _check_head(file: soundfile.SoundFile, path: Path, max_seconds: float) -> None:
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise BadAudio(f"{path}: a rate of {file.samplerate} Hz; allowed is {RATES[0]} to {RATES[1]}")
    if file.channels > MOST_CHANNELS:
        raise BadAudio(f"{path}: {file.channels} channels; at most {MOST_CHANNELS} are read")
    if 0 <= max_seconds * file.samplerate < file.frames:
        length = file.frames / file.samplerate
        raise BadAudio(f"{path}: {length:.1f} s long; at most {max_seconds:g} s are read, so cut it shorter")


def _samples(file: soundfile.SoundFile, path: Path, max_seconds: float) -> Samples:
    """Read block by block, as a head may promise more frames than there are."""
    blocks: list[Samples] = []
    left = int(max_seconds * file.samplerate) + 1
    while left > 0:
        block = np.asarray(file.read(min(BLOCK, left), dtype="float32", always_2d=True), np.float32)
        if block.shape[0] == 0:
            break
        blocks.append(block)
        left -= block.shape[0]
    if left <= 0:
        raise BadAudio(f"{path}: longer than {max_seconds:g} s; cut it shorter")
    return np.concatenate(blocks) if blocks else np.zeros((0, file.channels), np.float32)


def _recipe_or_none(path: Path) -> Recipe:
    try:
        return read_recipe(path)
    except BadAudio:
        return {}


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError) or not path.exists():
        return f"{path}: there is no such file"
    reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return f"{path}: this isn't sound that can be read ({str(reason).strip('. ')})"

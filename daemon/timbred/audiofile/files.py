"""Reading and writing of audio files, with the recipes in them. Nothing in a file from outside is trusted.

Written are WAV, FLAC, AIFF and Ogg Vorbis, with tags, loop points and tempo.
"""

import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import soundfile
from numpy.typing import NDArray

from timbred.audio import Clip, Recipe, SampleRate, Samples, require_sound
from timbred.audiofile.tags import (
    MIDDLE_C_NOTE,
    Chunk,
    append_chunks,
    clear_time_stamp,
    make_tags,
    read_recipe_text,
    sampler_chunk,
    tempo_chunk,
    write_tags,
)
from timbred.errors import BadAudio, BadRequest, Internal
from timbred.render_settings import CONTAINERS_BY_FORMAT, RenderSettings, bits_of, check

MAX_SECONDS = 600.0
"""Default for the longest sound that is read."""

MAX_CHANNELS = 8
"""Channels of a file at most."""

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000
"""Rates that are read."""

MAX_RECIPE_CHARACTERS = 262_144
"""Characters of a recipe that are read from a file."""

BLOCK_FRAMES = 65_536
"""Frames that are read or written at a time: libsndfile's Vorbis encoder overflows the stack on very long writes."""

WIDE_SUBTYPES = ("PCM_32", "DOUBLE")
"""libsndfile's names of sample formats with more bits than float32 has for them."""

VORBIS_COMPRESSION_LEVEL = 0.3
"""libsndfile's compression level, 0 (best) to 1; 0.3 is Vorbis' quality 7, about 224 kbit/s in stereo."""


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
        with _open(path) as file:
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
        with _open(path) as file:
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
        with _open(path) as file:
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


def _open(path: Path) -> soundfile.SoundFile:
    """Open an audio file, also at a path that isn't UTF-8, which soundfile takes as bytes only."""
    name: Any = str(path) if sys.platform == "win32" else os.fsencode(path)  # its types name no bytes
    return soundfile.SoundFile(name)


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


def encode(clip: Clip, target: Path | BinaryIO, settings: RenderSettings, root_note: int | None = None) -> None:
    """Write a finished clip to a path or an open binary file. Nothing is written if encoding fails.

    Raises:
        BadRequest: the format can't hold these bits, this rate or these channels.
        ModelError: the clip has no samples, or samples that are NaN or infinite.
        OSError: from the target.
    """
    content = encode_bytes(clip, settings, root_note)
    if isinstance(target, Path):
        target.write_bytes(content)
    else:
        target.write(content)


def encode_bytes(clip: Clip, settings: RenderSettings, root_note: int | None = None) -> bytes:
    """Return the whole file as bytes. The same clip, recipe and settings give the same bytes.

    A WAV has `smpl` (loop points, if the clip is a loop; the root note, MIDI 0..127, if known) and `acid` (if its
    length is a whole number of beats at its tempo). Values over full scale, which only occur with `peak` off, are
    clipped; 32-bit float files keep them.

    Raises:
        BadRequest, ModelError: as `encode`.
    """
    check(settings.format, settings.bits, clip.rate, None)
    if clip.channels > MAX_CHANNELS:
        raise BadRequest(f"channels: the sound has {clip.channels}, files hold up to {MAX_CHANNELS}")
    require_sound(clip)
    file = _encode_samples(clip, settings)
    if settings.format in ("wav", "aiff"):
        file = clear_time_stamp(file)
    if settings.format == "wav":
        file = append_chunks(file, _musical_chunks(clip, root_note))
    return write_tags(file, settings.format, make_tags(clip.recipe))


def _encode_samples(clip: Clip, settings: RenderSettings) -> bytes:
    container, bits = CONTAINERS_BY_FORMAT[settings.format], bits_of(settings)
    words = quantize(clip.samples, bits) if bits in (16, 24) else clip.samples
    buffer = io.BytesIO()
    compression = VORBIS_COMPRESSION_LEVEL if container.major == "OGG" else None
    try:
        with soundfile.SoundFile(
            buffer,
            "w",
            clip.rate,
            clip.channels,
            container.subtypes[bits],
            format=container.major,
            compression_level=compression,
        ) as file:
            for start in range(0, clip.frames, BLOCK_FRAMES):
                file.write(words[start : start + BLOCK_FRAMES])
    except soundfile.LibsndfileError as error:
        raise Internal(f"{settings.format} at {clip.rate} Hz can't be written: {error.error_string}") from error
    return buffer.getvalue()


def quantize(samples: Samples, bits: int | None) -> NDArray[Any]:
    """Return samples as the file's own integers, 24 bits in the upper part of 32, as libsndfile expects them.

    Rounded here, as libsndfile scales by 32767 on writing but by 32768 on reading.
    """
    scale = float(1 << ((bits or 16) - 1))
    steps = np.multiply(samples, scale, dtype=np.float64)
    np.clip(np.rint(steps, out=steps), -scale, scale - 1, out=steps)  # in place: fresh memory costs more than this
    return steps.astype(np.int16) if bits == 16 else steps.astype(np.int32) << 8


def _musical_chunks(clip: Clip, root_note: int | None) -> list[Chunk]:
    chunks: list[Chunk] = []
    if clip.loop or root_note is not None:
        note = MIDDLE_C_NOTE if root_note is None else root_note
        chunks.append(sampler_chunk(clip.rate, clip.frames if clip.loop else None, note))
    if clip.bpm is not None and (beats := count_beats(clip)) is not None:
        meter = _beats_per_bar(clip)
        chunks.append(tempo_chunk(clip.bpm, beats, meter, loops=clip.loop, root_note=root_note))
    return chunks


def count_beats(clip: Clip) -> int | None:
    """Return the beats of the clip, if they are a whole number and match its length within a millisecond.

    The `acid` chunk has no fractions, and a wrong count would make a host change the sound's tempo.
    """
    if not clip.bpm:
        return None
    beats = round(clip.seconds * clip.bpm / 60.0)
    is_exact = abs(beats * 60.0 / clip.bpm - clip.seconds) < 0.001
    is_agreed = clip.beats is None or abs(clip.beats - beats) < 0.001
    return beats if beats > 0 and is_exact and is_agreed else None


def _beats_per_bar(clip: Clip) -> int:
    parameters = clip.recipe.get("parameters")
    meter = parameters.get("beats_per_bar", 4) if isinstance(parameters, dict) else 4
    return int(meter) if isinstance(meter, int | float) and 1 <= meter <= 32 and meter == int(meter) else 4

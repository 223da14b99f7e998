"""Writing of audio files: WAV, FLAC, AIFF or Ogg Vorbis, with tags, loop points and tempo."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from timbred.audio import Clip, Samples, require_sound
from timbred.audiofile.reader import MAX_CHANNELS
from timbred.audiofile.tags import (
    MIDDLE_C_NOTE,
    Chunk,
    append_chunks,
    clear_time_stamp,
    make_tags,
    sampler_chunk,
    tempo_chunk,
    write_tags,
)
from timbred.errors import BadRequest, Internal
from timbred.render_settings import CONTAINERS_BY_FORMAT, RenderSettings, bits_of, check

VORBIS_COMPRESSION_LEVEL = 0.3
"""libsndfile's compression level, 0 (best) to 1; 0.3 is Vorbis' quality 7, about 224 kbit/s in stereo."""

BLOCK_FRAMES = 65_536
"""Frames passed to libsndfile in one call: its Vorbis encoder overflows the stack on very long writes."""


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

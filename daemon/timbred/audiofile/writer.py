"""From a finished clip to a file: WAV, FLAC, AIFF or Ogg Vorbis, with all that it should carry."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from timbred.audio import Clip, Samples, require_sound
from timbred.audiofile.reader import MOST_CHANNELS
from timbred.audiofile.riff import MIDDLE_C, Chunk, sampler_chunk, tempo_chunk, with_chunks, without_time_stamp
from timbred.audiofile.tags import tagged, tags_of
from timbred.errors import BadRequest, Internal
from timbred.render_settings import CONTAINERS, RenderSettings, bits_of, check

VORBIS_COMPRESSION = 0.3
"""libsndfile's 0 (best) to 1; 0.3 is Vorbis' quality 7, about 224 kbit/s in stereo."""

BLOCK = 65_536
"""Frames given to libsndfile at once: its Vorbis encoder overflows the stack on very long writes."""


def encode(clip: Clip, target: Path | BinaryIO, settings: RenderSettings, root_note: int | None = None) -> None:
    """Write a finished clip to a path or an open binary file. Nothing is written before encoding succeeded.

    Raises:
        BadRequest: the format can't hold these bits, this rate or these channels.
        ModelError: the clip holds no samples, or values that aren't finite numbers.
        OSError: from the target.
    """
    content = encoded(clip, settings, root_note)
    if isinstance(target, Path):
        target.write_bytes(content)
    else:
        target.write(content)


def encoded(clip: Clip, settings: RenderSettings, root_note: int | None = None) -> bytes:
    """The whole file as bytes. The same clip, recipe and settings give the same bytes.

    A WAV has `smpl` (loop points, when the clip is a loop; the root note, MIDI 0..127, when known) and
    `acid` (when its length is a whole number of beats at its tempo). Values over full scale, which only
    come with `peak` off, are clipped as by any converter; 32-bit float files keep them.

    Raises:
        BadRequest, ModelError: as `encode`.
    """
    check(settings.format, settings.bits, clip.rate, None)
    if clip.channels > MOST_CHANNELS:
        raise BadRequest(f"channels: the sound has {clip.channels}, files hold up to {MOST_CHANNELS}")
    require_sound(clip)
    file = _sound(clip, settings)
    if settings.format in ("wav", "aiff"):
        file = without_time_stamp(file)
    if settings.format == "wav":
        file = with_chunks(file, _musical_chunks(clip, root_note))
    return tagged(file, settings.format, tags_of(clip.recipe))


def _sound(clip: Clip, settings: RenderSettings) -> bytes:
    container, bits = CONTAINERS[settings.format], bits_of(settings)
    words = whole_numbers(clip.samples, bits) if bits in (16, 24) else clip.samples
    buffer = io.BytesIO()
    compression = VORBIS_COMPRESSION if container.major == "OGG" else None
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
            for start in range(0, clip.frames, BLOCK):
                file.write(words[start : start + BLOCK])
    except soundfile.LibsndfileError as error:
        raise Internal(f"{settings.format} at {clip.rate} Hz can't be written: {error.error_string}") from error
    return buffer.getvalue()


def whole_numbers(samples: Samples, bits: int | None) -> NDArray[Any]:
    """Samples as the file's own integers, 24 bits in the upper part of 32, as libsndfile takes them.

    Rounded here, since libsndfile scales by 32767 on writing but by 32768 on reading.
    """
    scale = float(1 << ((bits or 16) - 1))
    steps = np.multiply(samples, scale, dtype=np.float64)
    np.clip(np.rint(steps, out=steps), -scale, scale - 1, out=steps)  # in place: fresh memory costs more than this
    return steps.astype(np.int16) if bits == 16 else steps.astype(np.int32) << 8


def _musical_chunks(clip: Clip, root_note: int | None) -> list[Chunk]:
    chunks: list[Chunk] = []
    if clip.loop or root_note is not None:
        note = MIDDLE_C if root_note is None else root_note
        chunks.append(sampler_chunk(clip.rate, clip.frames if clip.loop else None, note))
    if clip.bpm is not None and (beats := whole_beats(clip)) is not None:
        meter = _beats_per_bar(clip)
        chunks.append(tempo_chunk(clip.bpm, beats, meter, loops=clip.loop, root_note=root_note))
    return chunks


def whole_beats(clip: Clip) -> int | None:
    """The beats that the clip lasts, if they are a whole number and really its length (within a millisecond).

    The `acid` chunk holds no fractions, and a host that trusted a wrong count would warp the sound.
    """
    if not clip.bpm:
        return None
    beats = round(clip.seconds * clip.bpm / 60.0)
    exact = abs(beats * 60.0 / clip.bpm - clip.seconds) < 0.001
    agreed = clip.beats is None or abs(clip.beats - beats) < 0.001
    return beats if beats > 0 and exact and agreed else None


def _beats_per_bar(clip: Clip) -> int:
    parameters = clip.recipe.get("parameters")
    meter = parameters.get("beats_per_bar", 4) if isinstance(parameters, dict) else 4
    return int(meter) if isinstance(meter, int | float) and 1 <= meter <= 32 and meter == int(meter) else 4

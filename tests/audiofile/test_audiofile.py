"""Encoding and decoding: the same sound, the whole recipe, and what samplers and hosts look for."""

import io
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from wavinfo import WavInfoReader

from tests.dsp.sounds import RECIPE, noise
from timbred.audio import Clip, SampleRate, Seconds
from timbred.audiofile.files import count_beats, decode, encode, encode_bytes, fits_float32, read_header, read_recipe
from timbred.audiofile.tags import read_chunks
from timbred.dsp.pipeline import run_pipeline
from timbred.errors import BadAudio, BadRequest, ModelError
from timbred.render_settings import CONTAINERS_BY_FORMAT, RenderSettings

KINDS: list[Any] = [(name, bits) for name, container in CONTAINERS_BY_FORMAT.items() for bits in container.subtypes]


def made(rate: int = 48_000, channels: int = 2, **kind: Any) -> tuple[Clip, RenderSettings]:
    wanted = RenderSettings(seconds=Seconds(0.5), rate=SampleRate(rate), **kind)
    sound = replace(noise(0.6, 16_000, channels=channels), recipe=RECIPE)
    return run_pipeline(sound, wanted), wanted


@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_encode_and_decode_return_every_container_whole(kind: Any, bits: Any, tmp_path: Path) -> None:
    clip, wanted = made(format=kind, bits=bits)
    path = tmp_path / f"sound.{kind}"
    encode(clip, path, wanted)
    back = decode(path)
    assert (back.rate, back.samples.shape) == (clip.rate, clip.samples.shape)
    assert back.recipe == RECIPE
    assert read_recipe(path) == RECIPE
    assert soundfile.info(path).format == CONTAINERS_BY_FORMAT[kind].major
    if bits is None:
        return
    tolerance = {16: 0.0, 24: 2.0**-23, 32: 0.0}[bits]
    assert np.abs(back.samples - clip.samples).max() <= tolerance


def test_encode_as_vorbis_keeps_the_sound_similar(tmp_path: Path) -> None:
    wanted = RenderSettings(seconds=Seconds(0.5), format="ogg")
    moments = np.arange(24_000) / 48_000
    tone = Clip((0.5 * np.sin(2 * np.pi * 440 * moments)).astype(np.float32)[:, None], SampleRate(48_000))
    encode(tone, tmp_path / "tone.ogg", wanted)
    back = decode(tmp_path / "tone.ogg")
    assert np.sqrt(np.mean((back.samples - tone.samples) ** 2)) < 0.01


@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_encode_gives_equal_bytes_for_equal_sounds(kind: Any, bits: Any) -> None:
    (one, wanted), (two, _) = made(format=kind, bits=bits), made(format=kind, bits=bits)
    assert encode_bytes(one, wanted) == encode_bytes(two, wanted)


@pytest.mark.parametrize("kind", list(CONTAINERS_BY_FORMAT))
@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 65_535, 96_000, 192_000])
def test_encode_writes_every_allowed_rate(kind: Any, rate: int, tmp_path: Path) -> None:
    wanted = RenderSettings(rate=SampleRate(rate), format=kind)
    encode(noise(0.05, rate), tmp_path / "sound", wanted)
    assert (decode(tmp_path / "sound").rate, decode(tmp_path / "sound").frames) == (rate, round(0.05 * rate))


def test_encode_writes_to_an_open_file() -> None:
    clip, wanted = made()
    buffer = io.BytesIO()
    encode(clip, buffer, wanted)
    assert buffer.getvalue() == encode_bytes(clip, wanted)


@pytest.mark.parametrize("kind", list(CONTAINERS_BY_FORMAT))
def test_read_recipe_returns_none_without_a_valid_recipe(kind: Any, tmp_path: Path) -> None:
    clip, wanted = made(format=kind)
    for recipe in ({}, {"prompt": "a\x00b\nc \ud800", "seed": 1}):
        encode(replace(clip, recipe=recipe), tmp_path / "sound", wanted)
        assert decode(tmp_path / "sound").frames == clip.frames


def test_encode_writes_titles(tmp_path: Path) -> None:
    clip, wanted = made(format="flac")
    encode(clip, tmp_path / "sound.flac", wanted)
    with soundfile.SoundFile(tmp_path / "sound.flac") as file:
        assert file.title == RECIPE["prompt"]
        assert file.comment == "pocket, seed 7, Apache-2.0"
    clip, wanted = made(format="wav")
    encode(clip, tmp_path / "sound.wav", wanted)
    info = WavInfoReader(str(tmp_path / "sound.wav"), info_encoding="utf-8").info
    assert info is not None
    assert info.title == RECIPE["prompt"]
    assert str(info.software).startswith("timbred ")


def test_encode_writes_loop_and_tempo_for_samplers_and_hosts(tmp_path: Path) -> None:
    clip, wanted = made()
    path = tmp_path / "loop.wav"
    encode(replace(clip, loop=True, bpm=120.0, beats=1.0), path, wanted)
    smpl: Any = WavInfoReader(str(path)).smpl
    loop = smpl.to_dict()["loops"][0]
    assert (loop["start_samples"], loop["end_samples"]) == (0, clip.frames - 1)
    with soundfile.SoundFile(path) as file:
        log = file.extra_info
        assert file.frames == clip.frames
    for line in ("Loop Count   : 1", f"End : {clip.frames - 1:5d}", "Beats     : 1", "Meter     : 4/4", "120.0"):
        assert line in log
    assert "Loop,RootNoteInvalid,StretchOn" in log


def test_encode_marks_a_phrase_with_tempo_as_one_shot_and_writes_its_note() -> None:
    clip, wanted = made()
    content = encode_bytes(replace(clip, bpm=120.0, beats=1.0), wanted, root_note=57)
    chunks = {chunk.name: chunk.content for chunk in read_chunks(content)}
    assert chunks["acid"][0] == 0x03
    assert chunks["acid"][4] == 57
    assert chunks["smpl"][12] == 57
    assert chunks["smpl"][28] == 0


def test_encode_writes_neither_loop_nor_tempo_for_a_plain_sound() -> None:
    clip, wanted = made()
    names = {chunk.name for chunk in read_chunks(encode_bytes(clip, wanted))}
    assert not names & {"smpl", "acid"}


def test_count_beats_returns_none_when_beats_do_not_fill_the_length() -> None:
    clip, _ = made()
    assert count_beats(replace(clip, bpm=120.0)) == 1
    assert count_beats(replace(clip, bpm=120.0, beats=4.0)) is None
    assert count_beats(replace(clip, bpm=121.0)) is None
    assert count_beats(replace(clip, bpm=60.0)) is None


def test_encode_refuses_unsupported_formats_before_writing(tmp_path: Path) -> None:
    clip, _ = made()
    path = tmp_path / "sound.flac"
    with pytest.raises(BadRequest, match="bits: got 32"):
        encode(clip, path, RenderSettings(format="flac", bits=32))
    broken = clip.with_samples(np.full((4, 1), np.nan))
    with pytest.raises(ModelError):
        encode(broken, path, RenderSettings(format="flac"))
    assert not path.exists()


def test_encode_clips_full_scale_except_in_float_formats(tmp_path: Path) -> None:
    loud = Clip(np.array([[1.5], [-1.5]], np.float32), SampleRate(8_000))
    encode(loud, tmp_path / "whole.wav", RenderSettings(bits=24))
    assert np.abs(decode(tmp_path / "whole.wav").samples).max() <= 1
    encode(loud, tmp_path / "float.wav", RenderSettings(bits=32))
    assert decode(tmp_path / "float.wav").samples[0] == 1.5


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 on this system")
def test_decode_reads_files_whose_names_are_not_utf8(tmp_path: Path) -> None:
    clip, wanted = made()
    encode(clip, tmp_path / "a.wav", wanted)
    path = (tmp_path / "a.wav").rename(tmp_path / os.fsdecode(b"Kl\xe4nge.wav"))
    assert decode(path).frames == read_header(path).frames == clip.frames
    assert fits_float32(path)


def test_decode_refuses_files_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    with pytest.raises(BadAudio, match="no such file"):
        decode(path)
    with pytest.raises(BadAudio, match="no such file"):
        read_recipe(path)
    for content in (b"", b"hello", b"RIFF\x00\x00\x00\x00WAVE"):
        path.write_bytes(content)
        with pytest.raises(BadAudio, match=r"x\.wav"):
            decode(path)
        with pytest.raises(BadAudio, match="has no timbred recipe"):
            read_recipe(path)
    with pytest.raises(BadAudio):
        decode(tmp_path)
    (tmp_path / "x.raw").write_bytes(bytes(100))
    with pytest.raises(BadAudio):
        decode(tmp_path / "x.raw")


def test_decode_refuses_unusable_sound(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, np.zeros((0, 1)), 8_000)
    with pytest.raises(BadAudio, match="no frames"):
        decode(path)
    soundfile.write(path, np.array([0.0, np.nan]), 8_000, "FLOAT")
    with pytest.raises(BadAudio, match="NaN or infinite"):
        decode(path)
    soundfile.write(path, np.zeros(8_001), 8_000)
    with pytest.raises(BadAudio, match=r"at most 1 s"):
        decode(path, max_seconds=1.0)
    soundfile.write(path, np.zeros(8_000), 8_000)
    assert decode(path, max_seconds=1.0).frames == 8_000
    assert decode(path).recipe == {}
    soundfile.write(path, np.zeros((10, 9)), 8_000)
    with pytest.raises(BadAudio, match="9 channels"):
        decode(path)


def test_decode_reads_a_truncated_file_to_its_end(tmp_path: Path) -> None:
    clip, wanted = made()
    path = tmp_path / "x.wav"
    path.write_bytes(encode_bytes(clip, wanted)[:30_000])
    assert 0 < decode(path).frames < clip.frames


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(list(CONTAINERS_BY_FORMAT)), st.integers(0, 6_000), st.binary(min_size=1, max_size=40))
def test_decode_reads_or_refuses_damaged_files(tmp_path_factory: Any, kind: Any, at: int, damage: bytes) -> None:
    content = bytearray(_SMALL[kind])
    at %= len(content)
    content[at : at + len(damage)] = damage
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(content)
    for reader in (decode, read_recipe):
        try:
            reader(path)
        except BadAudio as error:
            assert str(path) in str(error)


def _small(kind: Any) -> bytes:
    sound = replace(noise(0.05, 8_000), recipe={"prompt": "x", "seed": 1}, loop=True)
    return encode_bytes(sound, RenderSettings(format=kind))


_SMALL = {kind: _small(kind) for kind in CONTAINERS_BY_FORMAT}

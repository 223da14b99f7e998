"""Folders of sounds with captions, from which LoRAs are trained."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from timbred.errors import BadRequest
from timbred.filenames import printable
from timbred.models.training_set import (
    MAX_CAPTION_CHARACTERS,
    LabelledSound,
    TrainingOrder,
    caption_of_name,
    decode_line,
    encode_line,
    find_sounds,
)

ORDER = TrainingOrder(
    name="warm", model="pocket", model_folder="/model", loras_folder="/loras",
    sounds=(LabelledSound(path="/a.wav", caption="a", size=1),), steps=10, preview_steps=0, learning_rate=1e-4, rank=8,
    batch=4, seconds=2.0, min_seconds=0.1, channels=1, scheduler="ddim", render_steps=20, guidance=3.0, seed=0,
    device="cpu",
)  # fmt: skip


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"samples")


def test_find_sounds_reads_captions_from_texts_and_names(tmp_path: Path) -> None:
    write(tmp_path, "Warm_Pad-03.wav", "kits/808 kick.FLAC", "kits/snare.aiff", "notes.txt", "cover.jpg", ".hidden.wav")
    write(tmp_path, ".trash/clap.wav")
    (tmp_path / "kits" / "snare.txt").write_text("  a tight\n snare drum ", "utf-8")
    found = find_sounds(tmp_path)
    assert [(Path(sound.path).name, sound.caption, sound.size) for sound in found] == [
        ("Warm_Pad-03.wav", "warm pad", 7),
        ("808 kick.FLAC", "kick", 7),
        ("snare.aiff", "a tight snare drum", 7),
    ]


def test_find_sounds_reads_captions_as_windows_writes_them(tmp_path: Path) -> None:
    write(tmp_path, "snare.wav")
    (tmp_path / "snare.txt").write_bytes(b"\xef\xbb\xbfsn\xc3\xa4re\r\ndrum\r\n")
    assert [sound.caption for sound in find_sounds(tmp_path)] == ["sn\xe4re drum"]


def test_find_sounds_names_a_folder_that_has_none(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"missing isn't a folder; name one with sounds \(.*\.wav\)"):
        find_sounds(tmp_path / "missing")
    write(tmp_path, "notes.txt")
    with pytest.raises(BadRequest, match=r"has no sounds \(.*\.flac.*\)"):
        find_sounds(tmp_path)
    with pytest.raises(BadRequest, match="isn't a folder"):
        find_sounds(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is empty; write a caption into it, or delete it"),
        (b" \n ", "is empty; write a caption into it, or delete it"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"x" * (MAX_CAPTION_CHARACTERS + 1), "has more than 2000 characters; write a shorter caption"),
        (b"caf\xe9", r"can't be read as UTF-8 \(.*\); save it again as UTF-8"),
    ],
)
def test_find_sounds_names_a_text_that_is_no_caption(tmp_path: Path, text: bytes, said: str) -> None:
    write(tmp_path, "snare.wav")
    (tmp_path / "snare.txt").write_bytes(text)
    with pytest.raises(BadRequest, match=rf"snare\.txt {said}"):
        find_sounds(tmp_path)


@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=60))
def test_caption_of_name_is_never_empty(stem: str) -> None:
    caption = caption_of_name(stem)
    assert caption.encode()
    assert caption == printable(stem) or all(word == word.lower() and not word.isdigit() for word in caption.split())


@given(st.text(st.characters(exclude_categories=())), st.integers(0, 10**6))
def test_encode_line_keeps_any_path(path: str, step: int) -> None:
    order = replace(ORDER, sounds=(LabelledSound(path=path, caption="a", size=1),), steps=step)
    line = encode_line(order)
    assert line.isascii()
    assert line.find(b"\n") == len(line) - 1
    assert decode_line(line, TrainingOrder) == order


def test_training_order_may_be_continued_with_more_steps_and_other_previews() -> None:
    same = replace(ORDER, steps=20, preview_steps=5, device="cuda:0", render_steps=8, guidance=1.0, scheduler="euler")
    assert same.identity() == ORDER.identity()
    sounds = (LabelledSound(path="/a.wav", caption="b", size=1),)
    for changed in ({"sounds": sounds}, {"rank": 4}, {"seed": 1}, {"batch": 2}, {"learning_rate": 1e-3}):
        assert replace(ORDER, **changed).identity() != ORDER.identity()

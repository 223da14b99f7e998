"""Musical keys and time signatures as requests name them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.errors import BadRequest
from timbred.music import MODES, NOTE_VALUES, find_key, key_name, musical_words, read_key, read_signature

TONICS = [letter + sign for letter in "CDEFGAB" for sign in ("", "#", "b")]


@pytest.mark.parametrize(
    ("text", "name", "pitch_class"),
    [
        ("C minor", "C minor", 0),
        ("c", "C major", 0),
        ("Cm", "C minor", 0),
        ("CM", "C major", 0),
        ("F# major", "F# major", 6),
        ("f♯ Major", "F# major", 6),
        ("Bb dorian", "Bb dorian", 10),
        ("bb", "Bb major", 10),
        ("B", "B major", 11),
        ("b minor", "B minor", 11),
        ("Cb", "Cb major", 11),
        ("B#min", "B# minor", 0),
        ("E♭  LYDIAN ", "Eb lydian", 3),
        ("A maj", "A major", 9),
    ],
)
def test_read_key_normalizes_spellings(text: str, name: str, pitch_class: int):
    key = read_key(text)
    assert (str(key), key.pitch_class) == (name, pitch_class)


@pytest.mark.parametrize("text", ["H minor", "", " ", "C sad", "minor", "C##", "7", "C minor major", "Am7", "Ç"])
def test_read_key_names_what_is_allowed(text: str):
    with pytest.raises(BadRequest) as refusal:
        read_key(text)
    message = str(refusal.value)
    assert message.startswith(f"key: got {text!r}, allowed is a tonic from A to G")
    assert all(mode in message for mode in MODES)


@given(st.sampled_from(TONICS), st.sampled_from(MODES))
def test_read_key_reads_its_own_names(tonic: str, mode: str):
    key = read_key(f"{tonic} {mode}")
    assert read_key(str(key)) == key


@given(st.text(max_size=60))
def test_find_key_reads_or_refuses_any_text(text: str):
    key = find_key(text)
    assert key is None or (key.mode in MODES and 0 <= key.pitch_class < 12)


@pytest.mark.parametrize(
    ("text", "name", "beats"), [("4/4", "4/4", 4), (" 3 / 4", "3/4", 3), ("6/8", "6/8", 3), ("7/8", "7/8", 3.5)]
)
def test_read_signature_counts_quarter_notes(text: str, name: str, beats: float):
    signature = read_signature(text)
    assert (str(signature), signature.beats_per_bar) == (name, beats)


@pytest.mark.parametrize("text", ["0/4", "4/3", "33/4", "4", "4/", "/4", "4/4/4", "1/8", "32/1", "four/four", ""])
def test_read_signature_names_what_is_allowed(text: str):
    with pytest.raises(BadRequest, match=r"^signature: got .*allowed is a number from 1 to 32, a slash and one of"):
        read_signature(text)


@given(st.text(max_size=12) | st.from_regex(r"[0-9]{1,3}/[0-9]{1,3}", fullmatch=True))
def test_read_signature_reads_or_refuses_any_text(text: str):
    try:
        signature = read_signature(text)
    except BadRequest:
        return
    assert signature.denominator in NOTE_VALUES
    assert 1 <= signature.beats_per_bar <= 32
    assert read_signature(str(signature)) == signature


def test_key_name_names_each_key_once():
    names = {key_name(pitch_class, mode) for pitch_class in range(12) for mode in ("major", "minor")}
    assert len(names) == 24
    assert {(key.pitch_class, key.mode) for key in map(read_key, names)} == {
        (pitch_class, mode) for pitch_class in range(12) for mode in ("major", "minor")
    }


def test_musical_words_name_only_what_is_known():
    assert musical_words("C minor", 97.5, "6/8") == "C minor, 97.5 bpm, 6/8 time"
    assert musical_words("", 120.0, "") == "120 bpm"
    assert musical_words("", None, "") == ""

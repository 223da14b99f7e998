"""Settings files as editors write them."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.config import MAX_FILE_BYTES, decoded, parsed, read_settings
from timbred.errors import BadRequest

TEXT = '# für Bühne\ntempo = 90\n[takes]\n\tfolder = "/srv/Klänge"\n'
TABLE = {"tempo": 90, "takes": {"folder": "/srv/Klänge"}}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("trailing", ["", "\0", "\0" * 512, "\x1a"])
def test_parsed_reads_every_editors_encoding_and_line_end(encoding: str, end: str, trailing: str) -> None:
    assert parsed((TEXT.replace("\n", end) + trailing).encode(encoding)) == TABLE


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40), st.sampled_from(ENCODINGS[:6]))
def test_decoded_returns_text_of_any_encoding(comment: str, encoding: str) -> None:
    text = f"# {comment}\n"
    plain = text.replace("\u2028", "\n").replace("\u2029", "\n")
    assert decoded(text.encode(encoding)) == plain


@given(st.binary(max_size=200))
def test_parsed_takes_any_bytes_or_raises_one_error(content: bytes) -> None:
    try:
        assert isinstance(parsed(content), dict)
    except tomllib.TOMLDecodeError:
        assert content.strip()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("takes.folder = \u201c/srv\u201d", "typographic"),
        ('takes.folder = "C:\\Users\\me"', "single quotes, or with /"),
        ("tempo = \n", "line 1, column 9"),
        ("x" * (MAX_FILE_BYTES + 1), "is larger than"),
        ("a = " + "[" * 5_000, "can't be read"),
    ],
)
def test_read_settings_says_where_and_what_to_do(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "timbred.toml"
    file.write_bytes(content.encode())
    with pytest.raises(BadRequest, match="settings file") as caught:
        read_settings(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_read_settings_of_a_folder_a_loop_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path, tmp_path / "loop", tmp_path / "none"):
        with pytest.raises(BadRequest, match="can't be read"):
            read_settings(path)

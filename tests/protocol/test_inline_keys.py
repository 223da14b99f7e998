"""Keys inside texts, and quotes that protect a literal `@`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.errors import BadRequest
from timbred.protocol import json
from timbred.protocol import messages as m
from timbred.protocol.inline_keys import group, protect, read_words

KEYS = {"seconds", "seed", "name"}
is_key = KEYS.__contains__

words = st.text("abc\"'@1 ", min_size=1, max_size=6)
plain_words = st.lists(st.sampled_from(["warm", "808", 'a"', "b@c", "pad,"]), min_size=1, max_size=4)
keyed = st.lists(st.tuples(st.sampled_from(sorted(KEYS)), plain_words), max_size=3)


@given(plain_words, keyed, st.data())
def test_group_is_independent_of_the_division_into_strings(
    prompt: list[str], keys: list[tuple[str, list[str]]], data: st.DataObject
) -> None:
    atoms = [*prompt, *(word for key, value in keys for word in (f"@{key}", *value))]
    strings: list[str] = [atoms[0]]
    for atom in atoms[1:]:
        if data.draw(st.booleans()):
            strings[-1] += " " + atom
        else:
            strings.append(atom)
    found = group(strings, is_key, ["prompt"])
    assert " ".join(map(str, found.positional)) == " ".join(prompt)
    assert [(key, " ".join(map(str, value))) for key, value in found.keys] == [(k, " ".join(v)) for k, v in keys]


@given(st.lists(words, max_size=6))
def test_read_words_drops_only_quotes_and_spaces(strings: list[str]) -> None:
    found = group(strings, is_key, ["prompt"])
    if found.refusal is None:
        kept = [*found.positional, *(part for key, value in found.keys for part in ("@" + key, *value))]
        assert "".join(map(str, kept)).replace('"', "").replace(" ", "") == (
            "".join(strings).replace('"', "").replace(" ", "")
        )


@given(st.text('ab "@', max_size=12))
def test_read_words_keeps_texts_without_a_key_except_quotes(text: str) -> None:
    assert read_words("prompt", text, is_key).replace('"', "").strip() == text.replace('"', "").strip()


@given(st.lists(st.sampled_from(["a", "@", "@seed", "@home", "b@seed"]), min_size=1, max_size=5))
def test_read_words_returns_protected_texts(parts: list[str]) -> None:
    text = " ".join(parts)
    if parts[0] == "@seed":
        with pytest.raises(BadRequest, match="seed"):
            read_words("prompt", protect(text, is_key), is_key)
    else:
        assert read_words("prompt", protect(text, is_key), is_key) == text


def _read(**request: object) -> m.Request | BadRequest:
    return json.read_object({"type": "generate", "id": "a1", **request}).outcome


@pytest.mark.parametrize("field", json.WORD_FIELDS)
def test_json_refuses_texts_with_a_key_inside(field: str) -> None:
    outcome = _read(**{"prompt": "x", field: "kick drum @seconds 0.3"})
    assert isinstance(outcome, BadRequest)
    assert outcome.message.startswith(f"{field}: @seconds")
    assert '"seconds": ...' in outcome.message


def test_json_accepts_texts_with_an_at_sign_that_is_no_key() -> None:
    assert _read(prompt="dinner @ eight @home") == m.Generate(id="a1", prompt="dinner @ eight @home")
    assert _read(prompt='"at @seconds" past') == m.Generate(id="a1", prompt="at @seconds past")

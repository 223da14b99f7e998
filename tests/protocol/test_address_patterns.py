"""OSC 1.0 address patterns."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.errors import BadRequest
from timbred.protocol.osc_packets import MAX_PATTERN_CHARACTERS, is_pattern, parse_pattern

# elements of patterns, each with the regular expression that it stands for
_ELEMENTS = [
    ("*", "[^/]*"),
    ("?", "[^/]"),
    ("[a-c]", "[a-c]"),
    ("[!a-c]", "[^/a-c]"),
    ("[a-]", "[a-]"),
    ("{ab,c}", "(?:ab|c)"),
    ("{,a}", "(?:|a)"),
    ("a", "a"),
    ("b", "b"),
    (",", ","),
    ("-", "-"),
    ("/", "/"),
]


@given(
    st.lists(st.sampled_from(_ELEMENTS), max_size=7),
    st.text("abcd,-/", max_size=8),
)
def test_address_patterns_match_like_their_regular_expression(elements: list[tuple[str, str]], address: str) -> None:
    pattern = parse_pattern("".join(text for text, _ in elements))
    expression = "".join(expression for _, expression in elements)
    assert pattern.matches(address) == (re.fullmatch(expression, address) is not None)


@pytest.mark.parametrize(
    ("pattern", "address", "matches"),
    [
        ("/timbred/{ping,status}", "/timbred/ping", True),
        ("/timbred/{ping,status}", "/timbred/pin", False),
        ("/timbred/*", "/timbred/settings/tempo", False),
        ("/*/*/tempo", "/timbred/settings/tempo", True),
        ("/timbred/s[!e]*", "/timbred/status", True),
        ("/timbred/s[!e]*", "/timbred/set", False),
        ("//ping", "/timbred/ping", False),
    ],
)
def test_address_patterns_match_addresses(pattern: str, address: str, matches: bool) -> None:
    assert is_pattern(pattern) or pattern == "//ping"
    assert parse_pattern(pattern).matches(address) == matches


@pytest.mark.parametrize("pattern", ["/[a", "/{a,b", "/a]", "/a}", "/{a/b}", "/[/]"])
def test_address_patterns_with_an_open_bracket_are_refused(pattern: str) -> None:
    with pytest.raises(BadRequest, match="address pattern"):
        parse_pattern(pattern)


def test_address_patterns_of_maximum_length_match_in_bounded_steps() -> None:
    pattern = "*a" * (MAX_PATTERN_CHARACTERS // 2)
    assert not parse_pattern(pattern).matches("a" * 100 + "b")
    with pytest.raises(BadRequest, match="are allowed"):
        parse_pattern(pattern + "?")


@given(st.text(max_size=40))
def test_address_patterns_of_any_text_are_parsed_or_refused(text: str) -> None:
    try:
        parse_pattern(text).matches("/timbred/ping")
    except BadRequest:
        assert is_pattern(text)

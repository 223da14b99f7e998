"""The glossary names code that exists, and names it once."""

import re
from pathlib import Path

import pytest

from tests import package_counts

PAGE = Path(__file__).parents[1] / "docs" / "glossary.md"
ROW = re.compile(r"^\| (?P<term>[^|]+?) \| (?P<meaning>[^|]+?) \| `(?P<name>[^`|]+)` \|$", re.MULTILINE)
ROWS = [match.groups() for match in ROW.finditer(PAGE.read_text("utf-8"))]


@pytest.mark.parametrize("name", [name for _, _, name in ROWS])
def test_glossary_code_name_exists(name: str) -> None:
    assert package_counts.has_name(name), f"docs/glossary.md: there is no {name}"


@pytest.mark.parametrize(
    "name", ["timbred.nowhere", "timbred.audio.NoClip", "timbred.audio.Clip.nothing", "other.Name"]
)
def test_package_counts_has_name_refuses_an_unknown_name(name: str) -> None:
    assert not package_counts.has_name(name)


@pytest.mark.parametrize("name", ["timbred", "timbred.audio", "timbred.audio.Clip", "timbred.requests.job.Job.move"])
def test_package_counts_has_name_finds_modules_classes_and_members(name: str) -> None:
    assert package_counts.has_name(name)


def test_glossary_has_fifty_to_ninety_terms() -> None:
    assert 50 <= len(ROWS) <= 90


def test_glossary_has_no_row_that_the_tests_cannot_read() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    headings = [line for line in rows if line.startswith(("| Term |", "| --- |"))]
    assert len(rows) - len(headings) == len(ROWS)


def test_glossary_gives_each_term_and_each_name_once() -> None:
    terms = [term for term, _, _ in ROWS]
    names = [name for _, _, name in ROWS]
    assert len(set(terms)) == len(terms)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("term", "meaning"), [(term, meaning) for term, meaning, _ in ROWS])
def test_glossary_meaning_is_one_sentence(term: str, meaning: str) -> None:
    assert meaning.endswith("."), term
    assert ". " not in meaning, term


def test_package_counts_duplicate_classes_are_none() -> None:
    assert package_counts.duplicate_classes() == {}


def test_package_counts_question_docstrings_by_their_first_word() -> None:
    listed = package_counts.question_docstrings()
    assert all(text.split(maxsplit=1)[0].strip(",:") in package_counts.QUESTION_WORDS for _, _, text in listed)
    assert len(listed) < sum(1 for _ in package_counts.docstrings())

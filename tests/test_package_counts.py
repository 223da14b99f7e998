"""The package keeps its shape: few short modules, and docstrings that state instead of asking."""

import pytest

from tests import package_counts

MAX_MODULES = 150
"""Modules of the package at most, those of all model families included."""


@pytest.fixture(scope="module")
def counts() -> package_counts.Counts:
    return package_counts.count()


def test_package_counts_few_modules(counts: package_counts.Counts) -> None:
    assert 50 < counts.modules <= MAX_MODULES


def test_package_counts_few_short_modules(counts: package_counts.Counts) -> None:
    assert len(counts.short) <= 12, counts.short


def test_package_counts_no_long_module(counts: package_counts.Counts) -> None:
    assert counts.long == {}


def test_package_counts_few_question_docstrings(counts: package_counts.Counts) -> None:
    assert counts.docstrings > 1000
    assert counts.question_share <= 0.02, package_counts.report(counts, verbose=True)


def test_package_counts_report_has_a_line_for_each_count(counts: package_counts.Counts) -> None:
    lines = package_counts.report(counts, verbose=False).splitlines()
    assert lines[0] == f"modules: {counts.modules}"
    assert sum(line.startswith(("modules", "class names", "docstrings")) for line in lines) == 5

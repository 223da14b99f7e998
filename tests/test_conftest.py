"""The order in which several workers run the test files."""

from pathlib import Path

from tests import conftest
from tests.conftest import order_of_files

ROOT = Path(__file__).parents[1]


def test_conftest_longest_files_exist_once():
    assert all((ROOT / path).is_file() for path in conftest.LONGEST_FILES)
    assert len(set(conftest.LONGEST_FILES)) == len(conftest.LONGEST_FILES)


def test_order_of_files_begins_with_the_longest_then_has_the_most_tests_first():
    longest = conftest.LONGEST_FILES[-1]
    paths = ["tests/b.py", "tests/c.py", "tests/a.py", longest, "tests/c.py"]
    assert list(order_of_files(paths)) == [longest, "tests/c.py", "tests/a.py", "tests/b.py"]
    assert list(order_of_files(paths).values()) == [0, 1, 2, 3]


def test_order_of_files_names_no_file_without_tests():
    assert order_of_files(["tests/a.py"]) == {"tests/a.py": 0}
    assert order_of_files([]) == {}

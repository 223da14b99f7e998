"""Tests are named `test_<unit>_<behaviour>`, where the unit is one that the file is about."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import typer.main

from timbred.cli.main import app
from timbred.protocol.schema import EVENTS, REQUESTS

TESTS = Path(__file__).parent
OWN_PACKAGES = frozenset({"benchmarks", "bridges", "max_patches", "set_up", "tests", "timbred", "training"})
WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|\.")


def snake_case(name: str) -> str:
    """The name in lower case with underscores between its words, as `osc_query` of `OscQuery`."""
    return WORD_BOUNDARY.sub("_", name.strip("_")).lower()


def spoken_units() -> frozenset[str]:
    """Requests, events and commands, which tests of the whole program are about."""
    commands = typer.main.get_command(app)
    names = [*getattr(commands, "commands", {}), *(entry.name for entry in (*REQUESTS, *EVENTS))]
    return frozenset(map(snake_case, names))


def units_of(path: Path, tree: ast.Module) -> set[str]:
    """Units of a test file: the words of its own name, and the modules and names that it imports from the project."""
    words = path.stem.removeprefix("test_").split("_")
    units = {"_".join(words[:end]) for end in range(1, len(words) + 1)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            units.update(snake_case(alias.name) for alias in node.names if alias.name in OWN_PACKAGES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OWN_PACKAGES:
            units.update(map(snake_case, (node.module or "").split(".")[1:]))
            units.update(snake_case(alias.name) for alias in node.names)
    return units


def names_of_tests(tree: ast.Module) -> Iterator[str]:
    """Names of the test functions of a file, without `test_`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name.removeprefix("test_")


def names_without_unit() -> list[str]:
    """Tests whose names begin with no unit of their file, as `file: name`."""
    spoken, found = spoken_units(), list[str]()
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"), str(path))
        units = units_of(path, tree) | spoken
        for name in names_of_tests(tree):
            parts = name.split("_")
            if not any("_".join(parts[:end]) in units for end in range(1, len(parts))):
                found.append(f"{path.relative_to(TESTS)}: test_{name}")
    return found


def test_names_begin_with_a_unit_of_their_file() -> None:
    assert names_without_unit() == []


def test_names_units_are_its_name_and_its_imports() -> None:
    tree = ast.parse("from timbred.discovery.oscquery import OscQuery\nimport json")
    assert units_of(Path("test_oscquery_tree.py"), tree) == {"oscquery", "oscquery_tree", "discovery", "osc_query"}


def test_names_include_no_asyncio_run() -> None:
    """The plugin of anyio runs coroutines: `asyncio.run` only logs exceptions of callbacks, which that raises."""
    call = "asyncio." + "run("
    assert [path.name for path in TESTS.rglob("*.py") if call in path.read_text("utf-8")] == []

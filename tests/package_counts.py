"""Counts that describe the package's shape: `python -m tests.package_counts`.

Modules, short and long modules, class names that are used twice, and docstrings that begin with a question word.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "daemon" / "timbred"
SHORT_LINES = 40
LONG_LINES = 600
QUESTION_WORDS = frozenset({"What", "Whether", "Who", "Whom", "Whose", "How", "Where", "When", "Which", "Why"})

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, ast.Module]:
    """Syntax trees of the package's modules by dotted name; a package's name is that of its `__init__`."""
    trees: dict[str, ast.Module] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text("utf-8"), str(path))
    return trees


def line_counts() -> dict[str, int]:
    """Lines of each file, by its path within the package; `__init__` files that hold a docstring alone are left out."""
    counts: dict[str, int] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text("utf-8")
        body = ast.parse(text).body
        if path.name == "__init__.py" and all(isinstance(node, ast.Expr) for node in body):
            continue
        counts[path.relative_to(PACKAGE).as_posix()] = text.count("\n")
    return counts


def class_places() -> dict[str, list[str]]:
    """Modules that define each class name."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name)
    return places


def duplicate_classes() -> dict[str, list[str]]:
    """Class names that are defined more than once, with their modules."""
    return {name: places for name, places in class_places().items() if len(places) > 1}


def docstrings() -> Iterator[tuple[str, int, str]]:
    """Module, line and text of each docstring: of modules, classes, functions, and constants and fields."""
    for name, tree in modules().items():
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if not isinstance(body, list) or isinstance(node, ast.Lambda):
                continue
            for before, statement in zip([None, *body], body, strict=False):
                documented = (
                    isinstance(node, Definition) if before is None else isinstance(before, ast.Assign | ast.AnnAssign)
                )
                if documented and (text := string_of(statement)) is not None:
                    yield name, statement.lineno, text


def string_of(statement: ast.stmt) -> str | None:
    """The text of a statement that is only a string."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        value = statement.value.value
        return value if isinstance(value, str) else None
    return None


def question_docstrings() -> list[tuple[str, int, str]]:
    """Docstrings that begin with a question word, with module and line."""
    return [entry for entry in docstrings() if entry[2].split(maxsplit=1)[0].strip(",:") in QUESTION_WORDS]


def has_name(dotted: str) -> bool:
    """Report whether the package defines a dotted name: a module, or a class, function, constant or member in one.

    Args:
        dotted: full name, as `timbred.requests.scheduler.JobScheduler`.
    """
    known = modules()
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        module = known.get(".".join(parts[:end]))
        if module is not None:
            return _has_member(module, parts[end:])
    return False


def _has_member(scope: Definition, names: list[str]) -> bool:
    if not names:
        return True
    for node in scope.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == names[0]:
            return _has_member(node, names[1:])
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == names[0] for target in targets):
            return len(names) == 1
    return False


@dataclass
class Counts:
    """Figures of the package's shape."""

    modules: int
    short: dict[str, int] = field(default_factory=dict[str, int])
    long: dict[str, int] = field(default_factory=dict[str, int])
    duplicates: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    docstrings: int = 0
    questions: list[tuple[str, int, str]] = field(default_factory=list[tuple[str, int, str]])

    @property
    def question_share(self) -> float:
        """Share of docstrings that begin with a question word, 0 to 1."""
        return len(self.questions) / max(1, self.docstrings)


def count() -> Counts:
    """Count the package as it is on disk."""
    lines = line_counts()
    return Counts(
        modules=len(lines),
        short={name: number for name, number in lines.items() if number < SHORT_LINES},
        long={name: number for name, number in lines.items() if number > LONG_LINES},
        duplicates=duplicate_classes(),
        docstrings=sum(1 for _ in docstrings()),
        questions=question_docstrings(),
    )


def report(counts: Counts, verbose: bool) -> str:
    """Write the counts, one a line; `verbose` adds the names behind each of them."""
    lines = [f"modules: {counts.modules}"]
    lines.append(f"modules under {SHORT_LINES} lines: {len(counts.short)}")
    if verbose:
        lines += [f"  {name}: {number}" for name, number in counts.short.items()]
    lines.append(f"modules over {LONG_LINES} lines: {len(counts.long)}")
    lines += [f"  {name}: {number}" for name, number in counts.long.items()]
    lines.append(f"class names used more than once: {len(counts.duplicates)}")
    lines += [f"  {name}: {', '.join(places)}" for name, places in counts.duplicates.items()]
    share = 100 * counts.question_share
    lines.append(
        f"docstrings that begin with a question word: {len(counts.questions)} of {counts.docstrings} ({share:.1f} %)"
    )
    if verbose:
        lines += [f"  {name}:{line}: {text.splitlines()[0]}" for name, line, text in counts.questions]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(count(), verbose="--verbose" in sys.argv[1:]))

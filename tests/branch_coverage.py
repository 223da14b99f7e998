"""Branch coverage of each part of the package, from slipcover's JSON: `python -m tests.branch_coverage FILE`."""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

PACKAGE = "daemon/timbred/"
KINDS = ("executed_lines", "missing_lines", "executed_branches", "missing_branches")


def part_of(path: str) -> str:
    """Name of the subpackage of a file, or of the module where that lies in the package itself."""
    name = path.removeprefix(PACKAGE)
    return name.split("/", 1)[0].removesuffix(".py")


def count(files: dict[str, Any]) -> dict[str, Counter[str]]:
    """Executed and missing lines and branches of each part.

    Args:
        files: slipcover's record of each file, by its path.
    """
    parts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for path, record in files.items():
        parts[part_of(path)].update({kind: len(record[kind]) for kind in KINDS})
    return dict(parts)


def share(executed: int, missing: int) -> str:
    """Write the executed share in per cent; `-` where there is nothing to execute."""
    return f"{100 * executed / (executed + missing):.1f}" if executed + missing else "-"


def report(parts: dict[str, Counter[str]]) -> str:
    """Write a table: one line for each part, then the total."""
    total = sum(parts.values(), Counter[str]())
    lines = [f"{'branch coverage of the test processes':<40}{'lines %':>9}{'branches':>10}{'missing':>9}{'%':>7}"]
    for name, counts in [*sorted(parts.items()), ("total", total)]:
        executed, missing = counts["executed_branches"], counts["missing_branches"]
        of_lines = share(counts["executed_lines"], counts["missing_lines"])
        lines.append(f"{name:<40}{of_lines:>9}{executed + missing:>10}{missing:>9}{share(executed, missing):>7}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(count(json.loads(Path(sys.argv[1]).read_text("utf-8"))["files"])))

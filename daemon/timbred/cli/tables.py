"""Tables for people, JSON for programs."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

WRAPPED = ("prompt", "file", "remark", "found", "what to do")
"""Headings of columns whose text may go on in the next line; names and numbers stay whole."""

NOT_A_TERMINAL = 240
"""Characters in a line where nobody looks at a screen."""

Rows = Sequence[dict[str, Any]]


def show(rows: Rows, columns: dict[str, str], as_json: bool, empty: str) -> None:
    """Print rows: as JSON whole, or the named columns (key to heading) as a table."""
    if as_json:
        print(json.dumps(list(rows), indent=2))
    elif not rows:
        print(empty)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in columns.values():
            table.add_column(heading, no_wrap=heading not in WRAPPED, overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row.get(key)) for key in columns))
        wide = None if sys.stdout.isatty() else NOT_A_TERMINAL
        Console(width=wide).print(table)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1000 else f"{value:.0f}"
    return "" if value is None else str(value)

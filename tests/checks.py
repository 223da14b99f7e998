"""All checks of `make check`, side by side and beside a program: `python -m tests.checks [PROGRAM ARGUMENTS...]`.

The output of the checks follows that of the program. Exit status 1 if a check failed, else that of the program.
"""

import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TextIO

PROGRAMS = Path(sys.executable).parent

CHECKS: Mapping[str, Sequence[str]] = {
    "pyright": [str(PROGRAMS / "pyright")],
    "ruff check": [str(PROGRAMS / "ruff"), "check", "."],
    "ruff format": [str(PROGRAMS / "ruff"), "format", "--check", "."],
    "lint-imports": [str(PROGRAMS / "lint-imports")],
    "codespell": [str(PROGRAMS / "codespell")],
    "package counts": [sys.executable, "-m", "tests.package_counts"],
}
"""Command of each check, by its name; the longest is first, and the others run beside it."""

NOT_FOUND_STATUS = 127
"""Exit status that shells give for a program that isn't there."""


def run_check(command: Sequence[str]) -> tuple[int, str]:
    """Run a command; returns its exit status and all that it printed."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except FileNotFoundError:
        return NOT_FOUND_STATUS, f"{command[0]} isn't installed; run: make check\n"
    return done.returncode, done.stdout


def run_checks(checks: Mapping[str, Sequence[str]], output: TextIO) -> list[str]:
    """Run all checks, as many at once as there are cores; returns the names of those that failed.

    Args:
        checks: the command of each check, by its name.
        output: receives the output of each check in one piece, as soon as it has ended.
    """
    failed: list[str] = []
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        names = {pool.submit(run_check, command): name for name, command in checks.items()}
        for future in as_completed(names):
            status, text = future.result()
            print(f"{names[future]}: {f'failed with status {status}' if status else 'passed'}", file=output)
            print(text, end="", file=output, flush=True)
            if status:
                failed.append(names[future])
    return failed


def run_beside(checks: Mapping[str, Sequence[str]], command: Sequence[str], output: TextIO) -> tuple[int, list[str]]:
    """Run all checks beside a program; returns the program's exit status and the names of the checks that failed.

    Args:
        checks: the command of each check, by its name.
        command: the program, which has this process's input and output.
        output: receives the output of the checks when the program has ended.
    """
    kept = io.StringIO()
    with ThreadPoolExecutor(1) as pool:
        failed = pool.submit(run_checks, checks, kept)
        status = subprocess.run(command, check=False).returncode
        names = failed.result()
    print(kept.getvalue(), end="", file=output, flush=True)
    return status, names


if __name__ == "__main__":
    if sys.argv[1:]:
        program_status, failures = run_beside(CHECKS, sys.argv[1:], sys.stdout)
    else:
        program_status, failures = 0, run_checks(CHECKS, sys.stdout)
    sys.exit(f"failed: {', '.join(failures)}" if failures else program_status)

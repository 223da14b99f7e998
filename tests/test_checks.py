"""The checks of `make check`: each runs, alone or beside a program, and a failing one is named with its output."""

import io
import os
import sys
from pathlib import Path

from tests.checks import run_beside, run_check, run_checks


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


def test_run_check_returns_status_and_both_outputs():
    assert run_check(python("print('said')")) == (0, "said\n")
    assert run_check(python("import sys; print('wrong', file=sys.stderr); sys.exit(3)")) == (3, "wrong\n")


def test_run_checks_names_each_check_with_its_output_and_returns_the_failed():
    output = io.StringIO()
    checks = {"good": python("print('all is well')"), "bad": python("import sys; print('line 7'); sys.exit(2)")}
    assert run_checks(checks, output) == ["bad"]
    assert "good: passed\nall is well\n" in output.getvalue()
    assert "bad: failed with status 2\nline 7\n" in output.getvalue()


def test_run_check_says_what_is_not_installed(tmp_path: Path):
    program = str(tmp_path / "linter")
    assert run_check([program]) == (127, f"{program} isn't installed; run: make check\n")


def test_run_checks_runs_them_side_by_side(tmp_path: Path):
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)  # opening one end waits for the other
    checks = {"reader": python(f"open({pipe!r}).read()"), "writer": python(f"open({pipe!r}, 'w').write('here')")}
    assert run_checks(checks, io.StringIO()) == []


def test_run_beside_runs_checks_and_program_side_by_side_and_returns_both_results(tmp_path: Path):
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    checks = {"reader": python(f"import sys; print(open({pipe!r}).read()); sys.exit(1)")}
    output = io.StringIO()
    writer = python(f"import sys; open({pipe!r}, 'w').write('here'); sys.exit(5)")
    assert run_beside(checks, writer, output) == (5, ["reader"])
    assert output.getvalue() == "reader: failed with status 1\nhere\n"

"""Upper bounds on the package files and functions that one request executes, as the tracer counts them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.trace import MAX_FILE_COUNT, MAX_FUNCTION_COUNT, CallTrace

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def report() -> str:
    command = [sys.executable, "-m", "benchmarks", "trace"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_trace_counts_stay_within_their_bounds(report: str):
    counts = re.search(r"package files (\d+) \(goal \d+\), functions (\d+) ", report)
    assert counts is not None, report
    files, functions = map(int, counts.groups())
    assert 20 < files <= MAX_FILE_COUNT, report
    assert 100 < functions <= MAX_FUNCTION_COUNT, report


def test_trace_leaves_out_functions_of_other_events():
    request, restart = ("a.py", "receive"), ("b.py", "restart")
    traces = [CallTrace(dict.fromkeys(calls)) for calls in ([request, restart], [request], [restart, request])]
    assert list(traces[0].common_with(traces[1:]).calls) == [request]


def test_trace_passes_the_modules_that_the_concepts_page_names(report: str):
    traced = {line.split(":")[0].strip() for line in report.splitlines()[2:]}
    section = (ROOT / "docs" / "concepts.md").read_text("utf-8").partition("## The path of a `generate`")[2]
    named = re.findall(r"`(\w+(?:/\w+)*\.py)`", section.partition("\n## ")[0])
    assert len(named) > 15
    assert set(named) <= traced

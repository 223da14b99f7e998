"""The benchmarks' names, and the table that lists them."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import chaos, defaults, full_size, placement
from benchmarks.__main__ import DEFAULT_BENCHMARKS, NAMED_BENCHMARKS
from benchmarks.chaos_stage import Outcome
from tests.processes import none_left

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "performance.md").read_text("utf-8")


@pytest.mark.parametrize("name", [*DEFAULT_BENCHMARKS, *NAMED_BENCHMARKS])
def test_benchmarks_names_are_modules(name: str):
    assert importlib.util.find_spec(f"benchmarks.{name}") is not None


def test_benchmarks_table_has_every_figure_in_order():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 13))
    named = [name for _, name in rows]
    assert [name for name in named if name in DEFAULT_BENCHMARKS] == list(DEFAULT_BENCHMARKS)
    assert set(named) - set(DEFAULT_BENCHMARKS) <= set(NAMED_BENCHMARKS)


def test_benchmarks_table_has_no_empty_row():
    for row in re.findall(r"^\| \d+ \|.*\|$", PAGE, re.MULTILINE):
        reached = row.split("|")[5].strip()
        assert reached and not reached.isupper(), row


def test_benchmarks_list_their_names_for_an_unknown_one():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nothing"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "default_path" in done.stderr


def test_chaos_keeps_every_guarantee_in_a_tiny_size(tmp_path: Path):
    parts = "engine-kills,daemon-kills,pauses,floods,crowd,slow-readers"
    command = [sys.executable, "-m", "benchmarks", "chaos", "--only", parts]
    command += ["--scale", "0.001", "--pause", "0.5", "--ignore-times"]
    environment = {**os.environ, "TIMBRED_ENGINE_PROGRAM": f"{sys.executable} -m tests.fake_engine"}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "daemon")))
    with none_left():
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "engine killed: one terminal event for each request" in done.stdout
    assert not re.search(r"FAILED", done.stdout)


def test_chaos_counts_and_reports_a_broken_guarantee():
    kept, broken = Outcome("kept", recovery_s=[1.0, 3.0]), Outcome("broken")
    kept.check(True, "")
    broken.check(False, "no end")
    skipped = Outcome("skipped", skipped="no jackd")
    lines = chaos.table([kept, broken, skipped]).splitlines()
    assert lines[1].split() == ["kept", "1", "0", "2.00", "(3.00)"]
    assert lines[2].split() == ["broken", "1", "1"]
    assert "skipped: no jackd" in lines[3]
    assert lines[4] == "  FAILED  broken: no end"


def test_placement_simulation_ends_every_request_and_repeats_itself():
    outcomes = [placement.Simulation(engine_count=4, request_count=400).run() for _ in range(2)]
    assert outcomes[0].done + outcomes[0].refused == 400
    assert outcomes[0].waits == outcomes[1].waits
    assert sum(outcomes[0].waits["live"]) / len(outcomes[0].waits["live"]) < sum(outcomes[0].waits["background"]) / len(
        outcomes[0].waits["background"]
    )


def test_full_size_has_the_published_sizes():
    """346.9 and 718.0 million weights in the UNets of base and large."""
    import torch

    with torch.device("meta"):
        counts = [
            sum(weight.numel() for weight in full_size._unet(name, 1).parameters())  # pyright: ignore[reportPrivateUsage]
            for name in ("audioldm2", "audioldm2-large")
        ]
    assert [round(count / 1e6, 1) for count in counts] == [346.9, 718.0]


def test_defaults_figures_are_in_the_guide():
    guide = (ROOT / "docs" / "guide.md").read_text("utf-8")
    for name, measured, figure in defaults.measure_rows():
        assert f"| `{name}` | {measured} | {figure} |" in guide

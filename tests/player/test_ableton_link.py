"""A player and another Link peer agree where the beat is, as heard. In a network of their own."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.host_programs import absent
from tests.patience import TIMEOUT_S
from tests.player.player_stage import Require

ROOT = Path(__file__).parents[2]


def scene(alone: list[str]) -> dict[str, Any]:
    """What was played beside Link peers, in a network of their own."""
    reported = subprocess.run(
        [*alone, sys.executable, "-m", "tests.player.player_link_peers"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert reported.returncode == 0, reported.stderr
    return json.loads(reported.stdout.strip().splitlines()[-1])


def on_time(errors: dict[str, Any]) -> bool:
    """Whether clicks fell within 2 ms of the session's grid, before and after a change of tempo."""
    return max(abs(errors["median_first"]), abs(errors["median_changed"])) <= 2.0


def test_ableton_link_player_agrees_with_peers_on_the_beat(require_host: Require):
    for host in ("unshare", "ip", "jackd", "jack_wait"):
        require_host(host)
    alone = ["unshare", "-n", "bash", "-c", 'ip link set lo up && exec "$@"', "bash"]
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode != 0:
        absent("this user may not make a network of its own")
    errors = scene(alone)
    if not on_time(errors):  # a server without a card keeps time only as well as the machine lets it
        errors = scene(alone)
    if not all(map(math.isfinite, [*errors["first"], *errors["changed"]])):
        pytest.skip("the sound server itself was late in every attempt, so nothing could be measured")
    assert on_time(errors), errors
    assert len(errors["first"]) == len(errors["changed"]) == 8
    assert errors["stopped"] == {"sounding": 1, "reason": "stopped"}, "the session's stop ends what sounds"
    silent = errors["silent"]
    assert (silent["playing"], silent["ended"]) == (1, False), "a peer that falls silent takes nothing with it"
    assert silent["bpm"][1] == pytest.approx(silent["bpm"][0], abs=0.01)
    assert silent["beats"][1] == pytest.approx(silent["beats"][0], abs=0.1), "and the beat goes on"

"""`timbred say`, `takes`, `models` and `doctor`, as a shell or a program runs them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.forked_programs import torch_program
from tests.integration.conftest import settings_for
from tests.integration.daemons import ROOT, DaemonProcess, environment
from tests.patience import TIMEOUT_S


def run(folder: Path, *arguments: str, ports: DaemonProcess | None = None) -> subprocess.CompletedProcess[str]:
    """A command, pointed by the environment to a daemon or to a place where none is."""
    variables = environment(folder, fake_engine=True) | (torch_program() if "doctor" in arguments else {})
    variables["TIMBRED_ZMQ_REQUESTS"] = str(ports.requests) if ports else "1"
    return subprocess.run(
        [sys.executable, "-m", "timbred", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=ROOT,
        env=variables,
        check=False,
    )


def flags(folder: Path, model: Path) -> list[str]:
    settings = (*settings_for(model), f"takes.folder={folder / 'takes'}", f"models.folder={folder / 'models'}")
    return [word for setting in settings for word in ("--set", setting)]


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_say_goes_through_the_running_daemon(daemon: DaemonProcess, tmp_path: Path) -> None:
    out = tmp_path / "bell.flac"
    done = run(tmp_path, "say", "a bright bell", "--seconds", "0.5", "--seed", "7", "--steps", "2", ports=daemon)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert path.parent == daemon.takes
    assert soundfile.info(str(path)).frames == 24000
    done = run(tmp_path, "say", "a bright bell", "--seconds", "0.5", "--steps", "2", "--out", str(out), ports=daemon)
    assert done.stdout.splitlines()[-1] == str(out)
    assert soundfile.info(str(out)).format == "FLAC"


def test_say_works_without_a_daemon_and_the_take_is_listed(hollow: Path, tmp_path: Path) -> None:
    given = flags(tmp_path, hollow)
    done = run(tmp_path, "say", "a lonely bell", "--seconds", "0.5", "--steps", "2", *given)
    assert done.returncode == 0, done.stderr
    path = done.stdout.splitlines()[-1]
    [take] = rows(run(tmp_path, "takes", "--json", *given))
    assert (take["path"], take["prompt"], take["model"]) == (path, "a lonely bell", "hollow")


def test_say_that_fails_says_why(daemon: DaemonProcess, tmp_path: Path) -> None:
    for key, value, word in (("--seconds", "-1", "seconds"), ("--model", "nobody", "nobody")):
        done = run(tmp_path, "say", "a bell", key, value, ports=daemon)
        assert done.returncode != 0
        assert word in done.stderr
        assert "Traceback" not in done.stderr
        assert not done.stdout


def test_models_and_doctor_write_json(hollow: Path, tmp_path: Path) -> None:
    given = flags(tmp_path, hollow)
    models = {row["name"]: row for row in rows(run(tmp_path, "models", "--json", *given))}
    assert models["hollow"]["state"] == "available"
    assert models["audioldm2"]["state"] == "missing"
    found = json.loads(run(tmp_path, "doctor", "--json", *given).stdout)
    assert {"what", "state", "found", "remedy"} <= set(found[0])
    assert "model hollow (default)" in {finding["what"] for finding in found}


@pytest.mark.parametrize("setting", ["osc.port=70000", "volume=3"])
def test_serve_names_an_unusable_setting(setting: str, tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--set", setting)
    assert done.returncode != 0
    assert setting.partition("=")[0] in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_serve_starts_with_a_removed_setting_and_warns_of_it(hollow: Path, tmp_path: Path) -> None:
    removed = {"TIMBRED_STOP_PATIENCE": "0", "TIMBRED_ENGINE_HEARTBEAT": "never"}
    started = DaemonProcess(tmp_path, *settings_for(hollow), more=removed)
    started.stop()
    warnings = [line for line in started.log.read_text("utf-8").splitlines() if "no effect any more" in line]
    assert [line.split()[4] for line in warnings] == ["engine.heartbeat", "stop.patience"]

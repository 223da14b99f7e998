"""Copies of a process behave as programs of their own: streams, environment, exit status and end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import forked_programs
from tests.forked_programs import forked_command, torch_program
from tests.patience import TIMEOUT_S
from tests.processes import none_left
from timbred.ipc.isolation import TORCH_PROGRAM_VARIABLE, python_command, torch_command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies are made on Linux only")
JSON_TOOL = "json.tool"
"""A module that reads standard input, writes standard output, and exits with 1 on bad input."""


def run_copy(text: str, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = (*forked_command(JSON_TOOL), *arguments)
    return subprocess.run(
        command, input=text, capture_output=True, text=True, cwd=folder, timeout=TIMEOUT_S, check=False
    )


def test_forked_command_passes_streams_arguments_and_folder(tmp_path: Path):
    (tmp_path / "in.json").write_text('{"a": 1}', "utf-8")
    with none_left():
        assert run_copy("[1, 2]", "--compact").stdout == "[1,2]\n"
        done = run_copy("", "in.json", "--no-indent", folder=tmp_path)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, {"a": 1}, "")


def test_forked_command_ends_with_the_status_of_the_copy():
    done = run_copy("no JSON")
    assert done.returncode == 1
    assert "Expecting value" in done.stderr
    assert run_copy("", "--no-such-option").returncode == 2


def copies() -> list[psutil.Process]:
    (origin,) = forked_programs.origins
    return psutil.Process(origin).children()


def start_copy() -> tuple["subprocess.Popen[bytes]", psutil.Process]:
    """Start a copy that waits for input; return its command and its own process."""
    command = forked_command("tests.wait_for_input")
    before = set(copies())
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    (copy,) = set(copies()) - before
    assert copy.pid == pid
    return process, copy


def test_forked_command_ends_by_the_signal_of_the_copy():
    process, copy = start_copy()
    copy.send_signal(signal.SIGKILL)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == -signal.SIGKILL


def test_forked_command_that_is_killed_ends_the_copy():
    process, copy = start_copy()
    process.kill()
    copy.wait(TIMEOUT_S)
    assert not copy.is_running()
    process.communicate(timeout=TIMEOUT_S)


def test_torch_command_is_that_of_python_without_the_variable_of_tests(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(TORCH_PROGRAM_VARIABLE, raising=False)
    assert torch_command("timbred.engine.device", "--device", "cpu") == python_command(
        "timbred.engine.device", "--device", "cpu"
    )
    ((name, program),) = torch_program().items()
    monkeypatch.setenv(name, program)
    command = torch_command("timbred.engine.device", "--device", "cpu")
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert [place["device"] for place in json.loads(done.stdout)] == ["cpu"]
    assert os.environ[name] == program

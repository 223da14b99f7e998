"""The shell's lines, run by bash with liblo's own programs."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.free_ports import free_port
from tests.hosts import running
from tests.integration.clients import udp
from tests.integration.daemons import ROOT, DaemonProcess
from tests.integration.test_hosts import until_it_listens
from tests.patience import TIMEOUT_S

SHELL = ROOT / "bridges" / "shell"


def run(name: str, daemon: int, answers: int, *words: str) -> subprocess.CompletedProcess[str]:
    ports = {"TIMBRED_OSC_PORT": str(daemon), "TIMBRED_ANSWERS_PORT": str(answers)}
    return subprocess.run(
        ["bash", str(SHELL / name), *words],
        env={**os.environ, **ports},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_shell_makes_a_first_sound(daemon: DaemonProcess, require_host: Callable[[str], str]) -> None:
    require_host("oscdump")
    done = run("first-sound.sh", daemon.osc, free_port(), "a", "bright", "bell")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert path.is_file()
    assert path.name.startswith("a-bright-bell-")
    assert "progress" in done.stderr


def test_shell_shows_the_daemons_refusal(daemon: DaemonProcess, require_host: Callable[[str], str]) -> None:
    require_host("oscdump")
    done = run("first-sound.sh", daemon.osc, free_port(), "fail")
    assert done.returncode == 1
    assert "told to fail" in done.stderr


def test_shell_reports_a_missing_daemon(require_host: Callable[[str], str]) -> None:
    require_host("oscdump")
    port = free_port()
    done = run("first-sound.sh", port, free_port())
    assert done.returncode == 1
    assert f"no timbred answers at 127.0.0.1 port {port}; start it with: timbred serve" in done.stderr


def test_shell_gets_an_answer_to_every_line(daemon: DaemonProcess, require_host: Callable[[str], str]) -> None:
    answers, lines = free_port(), (SHELL / "requests.sh").read_text("utf-8")
    with running(require_host("oscdump"), "-L", str(answers)) as dump, udp(daemon.osc) as client:
        until_it_listens(client, dump, answers)
        done = run("requests.sh", daemon.osc, answers)
        assert done.returncode == 0, done.stderr
        dump.spoken.until("/timbred/status.reply ")
        dump.spoken.until('/timbred/done sis "takes"')
        dump.spoken.until('/timbred/done s "tempo"')
        dump.spoken.until("/timbred/settings/audio.rate i 48000")
        for number in range(1, len(re.findall(r'generate .*\$session-\d"', lines)) + 1):
            dump.spoken.until(rf'/timbred/(done|cancelled) \w+ "\d+-\d+-{number}"')
        assert not dump.spoken.matching("/timbred/fail")

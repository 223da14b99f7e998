"""The examples in `bridges/`, each run in its host against the real daemon."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.hosts import running
from tests.integration.clients import UdpClient, udp
from tests.integration.daemons import ROOT, DaemonProcess, environment
from tests.integration.osc import Value
from tests.patience import TIMEOUT_S

BRIDGES = ROOT / "bridges"

RequireHost = Callable[[str], str]


def copy_with_port(source: Path, folder: Path, before: str, after: str) -> Path:
    """An example that talks to another port than the default one."""
    text = source.read_text("utf-8")
    assert text.count(before) == 1
    copy = folder / source.name
    copy.write_text(text.replace(before, after), "utf-8")
    return copy


def test_bridges_puredata_example_makes_a_sound(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    pd = require_host("pd")
    patch = copy_with_port(
        BRIDGES / "puredata" / "first-sound.pd", tmp_path, "connect 127.0.0.1 7770", f"connect 127.0.0.1 {daemon.osc}"
    )
    quiet = ("-nogui", "-noaudio", "-nomidi")
    with running(pd, *quiet, "-open", str(patch), "-send", "first-sound bang") as program:
        program.spoken.until("^done: 1 1 ")
        assert program.spoken.until(r"^frames: (\d+)")[1] == "48000"
        assert program.spoken.matching("^progress: ")
        assert not program.spoken.matching("error|^fail: ")


def test_bridges_supercollider_example_makes_a_sound(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    sclang = require_host("sclang")
    script = copy_with_port(
        BRIDGES / "supercollider" / "first-sound.scd", tmp_path, '"TIMBRED_OSC_PORT".getenv', f'"{daemon.osc}"'
    )
    with running(sclang, "-D", str(script), folder=tmp_path) as program:
        path = program.spoken.until("^timbred: take (.+)")[1]
        program.spoken.until(r"^timbred: done, 1 take\(s\)")
        assert Path(path).is_file()
        assert program.spoken.matching("^timbred: .+ of ")
        assert not program.spoken.matching("ERROR|WARNING: timbred")


@pytest.mark.parametrize("way", ["osc", "zmq"])
def test_bridges_python_examples_make_a_sound(daemon: DaemonProcess, tmp_path: Path, way: str) -> None:
    port = daemon.osc if way == "osc" else daemon.requests
    done = subprocess.run(
        [sys.executable, str(BRIDGES / "python" / f"first_request_{way}.py"), "a bright bell", "--port", str(port)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment(tmp_path, fake_engine=True),
        check=True,
    )
    last = done.stdout.strip().splitlines()[-1]
    if way == "osc":
        assert Path(last).is_file()
    else:
        assert last.startswith("48000 frames of 1 channel(s), loudest 0.8")


def three_lines(host: str) -> list[str]:
    """What the README has for a host."""
    text = (ROOT / "README.md").read_text("utf-8").partition(f"**{host}**")[2].strip()
    return [line.strip() for line in text.splitlines()[:3]]


def test_bridges_supercollider_lines_of_the_readme_make_a_sound(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    sclang, script = require_host("sclang"), tmp_path / "readme.scd"
    reported = "OSCdef(\\told, { |m| m.postln }, '/timbred/done');"
    script.write_text("\n".join([reported, *three_lines("SuperCollider")]).replace("7770", str(daemon.osc)), "utf-8")
    with running(sclang, "-D", str(script), folder=tmp_path) as program:
        program.spoken.until(r"\[ */timbred/done, 1, 1, ")


def test_bridges_python_lines_of_the_readme_make_a_sound(daemon: DaemonProcess, tmp_path: Path) -> None:
    script = "\n".join(["import zmq", *three_lines("Python")]).replace("7771", str(daemon.requests))
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment(tmp_path, fake_engine=True),
        check=True,
    )
    assert Path(done.stdout.strip()).is_file()


class TouchDesigner(ModuleType):
    """Stand-ins for the operators that the example uses. What its OSC Out DAT sends is sent."""

    def __init__(self, client: UdpClient) -> None:
        super().__init__("td")
        self.cues = 0
        parameters = SimpleNamespace(file="", cuepulse=SimpleNamespace(pulse=self.cue))
        self.client = client
        self.operators: dict[str, Any] = {
            "oscout1": SimpleNamespace(sendOSC=self.send),
            "audiofilein1": SimpleNamespace(par=parameters),
        }

    def op(self, name: str) -> Any:
        return self.operators[name]

    def send(self, address: str, values: list[Value]) -> None:
        self.client.say(address.rpartition("/")[2], *values)

    def cue(self) -> None:
        self.cues += 1


def test_bridges_touchdesigner_script_makes_a_sound_with_stand_ins(
    daemon: DaemonProcess, client: UdpClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = TouchDesigner(client)
    monkeypatch.setitem(sys.modules, "td", host)
    found = importlib.util.spec_from_file_location("first_sound", BRIDGES / "touchdesigner" / "first_sound.py")
    assert found is not None
    assert found.loader is not None
    script: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    with udp(daemon.osc) as answers:
        script.ANSWERS = answers.port
        request = script.ask("a deep punchy kick drum")
        for event in answers.until_end(request):
            script.onReceiveOSC(None, 0, "", b"", 0.0, f"/timbred/{event.name}", list(event.arguments), None)
    assert Path(host.op("audiofilein1").par.file).is_file()
    assert host.cues == 1
    assert capsys.readouterr().out.endswith("timbred: 100%\n")

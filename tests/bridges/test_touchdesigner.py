"""The TouchDesigner component, built by its own script, over real UDP with a real daemon."""

import importlib.util
import signal
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct, inspect

from tests.bridges.touchdesigner_picture import picture
from tests.bridges.touchdesigner_td import Par, Project, audiofileinCHOP, tableDAT
from tests.free_ports import free_port
from tests.integration import clients
from tests.integration.conftest import StartDaemon, settings_for
from tests.integration.daemons import ROOT, DaemonProcess
from timbred.protocol import messages as m
from timbred.protocol.coercion import describe_type, fields_of
from timbred.protocol.describe import Key

FOLDER = ROOT / "bridges" / "touchdesigner"


def script(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


class Patch:
    """A project with the component in it, and what the textport shows."""

    def __init__(self, port: int, capture: pytest.CaptureFixture[str]) -> None:
        self.project = Project()
        sys.modules["td"] = self.project.module()
        self.capture = capture
        self.shown = ""
        self.component: Any = script("build_component").build(self.project.root, FOLDER)
        self.component.par.Port = port
        self.component.par.Answers = free_port()

    def par(self, name: str) -> Any:
        return self.component.par[name].eval()

    def textport(self) -> list[str]:
        self.shown += self.capture.readouterr().out
        return self.shown.splitlines()

    def until_ready(self) -> None:
        self.project.until(lambda: self.par("Connected") == 1)

    def until_status(self, *names: str) -> None:
        self.project.until(lambda: self.par("Status") in names)

    @property
    def takes(self) -> tableDAT:
        return self.component.op("takes")

    @property
    def sound(self) -> audiofileinCHOP:
        return self.component.op("sound")


OpenPatch = Callable[[int], Patch]


@pytest.fixture
def open_patch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Generator[OpenPatch]:
    """`open_patch(port)`: a project with a component that asks the daemon at this port."""
    monkeypatch.setitem(sys.modules, "td", ModuleType("td"))
    made: list[Patch] = []

    def opened(port: int) -> Patch:
        made.append(Patch(port, capsys))
        return made[-1]

    yield opened
    for patch in made:
        if patch.component.valid:
            patch.component.destroy()


@pytest.fixture
def patch(daemon: DaemonProcess, open_patch: OpenPatch) -> Patch:
    return open_patch(daemon.osc)


def test_touchdesigner_vocabulary_is_up_to_date() -> None:
    reported = (FOLDER / "timbred_vocabulary.py").read_text("utf-8")
    assert reported == script("write_vocabulary").written(), "run: make docs"


@pytest.mark.parametrize(("default", "expected"), [("-6", -6), ("0", 0), ("3", -1)])
def test_touchdesigner_takes_a_highest_value_of_zero_for_a_limit(
    monkeypatch: pytest.MonkeyPatch, default: str, expected: int
) -> None:
    writer = script("write_vocabulary")

    class Level(Struct):
        level: Annotated[float, Meta(ge=-60, le=0)]

    declared = inspect.type_info(Level)
    assert isinstance(declared, inspect.StructType)
    fields = {field.name: field for field in declared.fields}

    def fields_of_level(_: object) -> dict[str, inspect.Field]:
        return fields

    monkeypatch.setattr(writer, "fields_of", fields_of_level)
    assert writer.shown(Key("level", "-60 to 0", default, "", False)).default == expected


def test_touchdesigner_picture_is_up_to_date() -> None:
    drawn = (ROOT / "docs" / "pictures" / "touchdesigner.svg").read_text("utf-8")
    assert drawn == picture(), "run: make docs (python -m tests.bridges.touchdesigner_picture)"


def test_touchdesigner_pages_have_every_key_with_its_range(patch: Patch) -> None:
    pars: dict[str, Par] = {par.name.lower(): par for par in patch.component.customPars}
    fields = fields_of(m.Generate)
    for key in set(fields) - {"id", "port", "inline"}:
        par = pars[key.replace("_", "")]
        if key == "prompt":
            continue
        assert describe_type(fields[key].type) in par.help
        assert par.isDefault
        if par.style in ("Float", "Int"):
            assert f"to {par.max:.10g}" in describe_type(fields[key].type)
            assert par.clampMin and par.clampMax


def test_touchdesigner_loads_a_prompts_sound_into_the_chop(patch: Patch) -> None:
    patch.until_ready()
    patch.component.par.Prompt = "warm pad"
    patch.component.par.Seconds = 0.5
    patch.component.par.Steps = 2
    patch.component.par.Seed = 9
    patch.component.par.Scheduler = "euler"
    patch.component.par.Loop = 1
    patch.component.par.Generate.pulse()
    patch.until_status("done")
    path = Path(patch.par("File"))
    assert path.is_file()
    patch.project.until(lambda: patch.sound.log[-1] == (str(path), 1))
    assert patch.sound.log == [("", 0), (str(path), 1)]
    assert patch.sound.cues == 1
    row = dict(zip(patch.takes.rows[0], patch.takes.rows[1], strict=True))
    assert (row["seed"], row["prompt"], row["path"], row["seconds"]) == ("9", "warm pad", str(path), "0.5")
    assert patch.component.LastTake == row["take_id"]
    assert patch.par("Progress") == 1.0
    assert patch.component.errors == []
    assert patch.component.op("out1").inputConnectors[0].source is patch.sound


def test_touchdesigner_unloads_a_sound_one_frame_before_the_next(patch: Patch) -> None:
    patch.until_ready()
    paths: list[str] = []
    for seed in (1, 2):
        patch.component.Generate("pad", seconds=0.1, steps=1, seed=seed)
        patch.until_status("done")
        paths.append(patch.par("File"))
        patch.project.until(lambda: patch.sound.log[-1] == (paths[-1], 1))
    assert paths[0] != paths[1]
    assert patch.sound.log == [("", 0), (paths[0], 1), ("", 0), (paths[1], 1)]


def test_touchdesigner_makes_several_takes_and_variations(patch: Patch) -> None:
    patch.until_ready()
    patch.component.par.Autoplay = 0
    patch.component.Generate("pad", seconds=0.1, steps=1, takes=3, seed=20)
    patch.until_status("done")
    seeds = [patch.takes[row, "seed"] for row in range(1, patch.takes.numRows)]
    assert seeds == ["22", "21", "20"]
    assert patch.par("File") == patch.takes[3, "path"]
    patch.project.until(lambda: patch.sound.log[-1][0] != "")
    assert patch.sound.log[-1] == (patch.par("File"), 0)
    patch.component.par.Play.pulse()
    patch.project.frame()
    assert patch.sound.log[-1] == (patch.par("File"), 1)
    newest = patch.component.LastTake
    patch.component.par.Vary.pulse()
    patch.project.until(lambda: patch.takes.numRows == 5)
    assert patch.component.LastTake != newest
    assert patch.takes[1, "seconds"] == "0.1"


def test_touchdesigner_cancels_and_shows_what_waits(patch: Patch) -> None:
    patch.until_ready()
    patch.component.Generate("slow", steps=3)
    patch.until_status("step 1 of 3")
    assert patch.par("Progress") == pytest.approx(1 / 3)
    patch.component.Generate("pad", seconds=0.1, steps=1)
    patch.until_status("queued", "queued, 1 before it")
    patch.project.until(lambda: patch.par("Jobs") == "1 running, 1 queued")
    patch.component.par.Cancel.pulse()
    patch.project.until(lambda: not patch.component.ext.TimbredExt.requests)
    assert patch.par("Status") == "cancelled"


@pytest.mark.parametrize(
    ("keys", "code", "reported"),
    [
        ({"seconds": 9000.0}, "bad-request", "seconds: got 9000"),
        ({"model": "nothing"}, "unknown-model", "nothing"),
        ({"init": "/etc/passwd"}, "forbidden-path", "/etc/passwd"),
        ({"sekonds": 1}, "bad-request", "sekonds"),
    ],
)
def test_touchdesigner_shows_errors_on_the_component_and_in_the_textport(
    patch: Patch, keys: dict[str, Any], code: str, reported: str
) -> None:
    patch.until_ready()
    patch.component.Generate("pad", **keys)
    patch.until_status(code)
    assert reported in patch.component.errors[-1]
    assert sum(reported in line and f"({code})" in line for line in patch.textport()) == 1
    patch.component.Generate("pad", seconds=0.1, steps=1)
    patch.until_status("done")
    assert patch.component.errors == []


def test_touchdesigner_asks_for_words_or_a_take(patch: Patch) -> None:
    patch.until_ready()
    patch.component.par.Prompt = "  "
    patch.component.par.Generate.pulse()
    assert "Prompt" in patch.component.errors[-1]
    patch.component.par.Vary.pulse()
    assert "no take yet" in patch.component.errors[-1]


def test_touchdesigner_shows_models_and_memory(patch: Patch) -> None:
    patch.until_ready()
    patch.project.until(lambda: "hollow" in patch.component.par.Model.menuNames)
    assert patch.component.par.Model.menuNames[0] == ""
    patch.project.until(lambda: " MB, " in patch.par("Memory"))


def test_touchdesigner_lists_the_words_of_the_selected_model(patch: Patch) -> None:
    patch.until_ready()
    prompt = patch.component.par.Prompt
    patch.component.par.Model = "pocket"
    patch.project.until(lambda: "kick" in prompt.menuNames)
    assert "impact" in prompt.menuNames
    rows = patch.component.op("words").rows
    assert [str(cell) for cell in rows[0]] == ["group", "kinds", "word"]
    assert {str(row[1]) for row in rows[1:]} == {"0", "1"}
    assert {str(row[2]) for row in rows[1:] if str(row[1]) == "1"} == set(prompt.menuNames)
    patch.component.par.Model = "hollow"
    patch.project.until(lambda: patch.component.op("words").numRows == 1)


def test_touchdesigner_sends_the_frame_rate_and_resets_it(daemon: DaemonProcess, patch: Patch) -> None:
    with clients.udp(daemon.osc) as witness:

        def reported() -> float:
            return float(witness.ask("settings/engine.yield").arguments[0])

        patch.project.until(lambda: reported() == 60.0)
        patch.project.cookRate = 30.0
        patch.project.until(lambda: reported() == 30.0)
        patch.component.par.Yield = 0
        patch.project.until(lambda: reported() == 0.0)
        patch.component.par.Yield = 1
        patch.project.until(lambda: reported() == 30.0)
        patch.component.destroy()
        patch.project.until(lambda: reported() == 0.0)


def test_touchdesigner_starts_when_a_project_is_opened(patch: Patch) -> None:
    """TouchDesigner makes extensions anew then, if `initextonstart` says so."""
    assert patch.component.par.initextonstart.eval() == 1
    before = patch.component.ext.TimbredExt
    patch.component.par.reinitextensions.pulse()
    assert patch.component.ext.TimbredExt is not before
    patch.component.par.Connected = 0
    patch.until_ready()
    patch.component.Generate("pad", seconds=0.1, steps=1)
    patch.until_status("done")


def test_touchdesigner_rebuild_keeps_settings(patch: Patch) -> None:
    patch.component.par.Prompt = "rain"
    patch.component.par.Seconds = 2.5
    port = patch.par("Port")
    patch.component = script("build_component").build(patch.project.root, FOLDER)
    assert (patch.par("Prompt"), patch.par("Seconds"), patch.par("Port")) == ("rain", 2.5, port)
    assert list(patch.project.root.children) == ["timbred"]
    patch.until_ready()


def test_touchdesigner_reports_a_missing_daemon_within_two_seconds_and_finds_it_later(
    start_daemon: StartDaemon, open_patch: OpenPatch
) -> None:
    port = free_port()
    reported = f"no timbred answers at 127.0.0.1:{port}; start it with: timbred serve"

    patch = open_patch(port)
    patch.project.until(lambda: bool(patch.component.errors))
    limits = patch.component.ext.TimbredExt.Look.__globals__
    assert limits["ANSWER_TIMEOUT_S"] + limits["PING_INTERVAL_S"] < 2.0
    assert patch.component.errors == [reported]
    patch.textport()
    assert patch.component.Generate("pad") == ""
    assert f"timbred: {reported}" in patch.textport()
    start_daemon(f"osc.port={port}")
    patch.until_ready()
    assert patch.component.errors == []
    patch.component.Generate("pad", seconds=0.1, steps=1)
    patch.until_status("done")


def test_touchdesigner_reports_a_stopping_daemon(start_daemon: StartDaemon, open_patch: OpenPatch) -> None:
    first = start_daemon(f"osc.port={free_port()}")
    patch = open_patch(first.osc)
    patch.until_ready()
    patch.component.Generate("slow", steps=3)
    patch.until_status("step 1 of 3")
    first.signal()
    patch.until_status("shutting-down")
    assert "(shutting-down)" in patch.component.errors[-1]
    assert first.ended() == 0
    patch.until_status("no daemon")
    start_daemon(f"osc.port={first.osc}")
    patch.until_ready()
    patch.component.Generate("pad", seconds=0.1, steps=1)
    patch.until_status("done")


@pytest.mark.parametrize("back", ["at once", "later"])
def test_touchdesigner_notices_a_killed_daemon(
    start_daemon: StartDaemon, open_patch: OpenPatch, hollow: Path, tmp_path: Path, back: str
) -> None:
    (tmp_path / "first").mkdir()
    first = DaemonProcess(tmp_path / "first", *settings_for(hollow), f"osc.port={free_port()}")
    family = first.family()
    try:
        patch = open_patch(first.osc)
        patch.until_ready()
        patch.component.Generate("slow", steps=3)
        patch.until_status("step 1 of 3")
    finally:
        first.end_by_force(family)
    if back == "later":
        patch.until_status("no daemon")
        assert any("slow: no answer" in line for line in patch.textport())
    start_daemon(f"osc.port={first.osc}")
    patch.project.until(lambda: not patch.component.ext.TimbredExt.requests)
    assert any("slow: timbred was restarted" in line and "send it again" in line for line in patch.textport())
    patch.until_ready()
    patch.component.Generate("pad", seconds=0.1, steps=1)
    patch.until_status("done")


def test_touchdesigner_continues_requests_of_a_slow_daemon(start_daemon: StartDaemon, open_patch: OpenPatch) -> None:
    daemon = start_daemon()
    patch = open_patch(daemon.osc)
    patch.until_ready()
    daemon.process.send_signal(signal.SIGSTOP)
    patch.component.Generate("pad", seconds=0.1, steps=1)
    patch.until_status("no daemon")
    daemon.process.send_signal(signal.SIGCONT)
    patch.until_status("done")
    assert Path(patch.par("File")).is_file()

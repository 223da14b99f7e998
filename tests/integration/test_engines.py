"""Several engines: each with its own process, jobs and models; nothing is lost with one of them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq

from tests.integration import clients
from tests.integration.clients import SOUND, TERMINAL, UdpClient, order
from tests.integration.conftest import StartDaemon, settings_for
from tests.integration.daemons import FREE_PORTS, ROOT, DaemonProcess, environment, hollow_checkpoint
from tests.integration.osc import Reply
from tests.patience import TIMEOUT_S


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with two fake engines, each of which renders one job at a time."""
    folder = tmp_path_factory.mktemp("pair")
    model = hollow_checkpoint(folder / "hollow")
    daemon = DaemonProcess(folder, *settings_for(model), "engines=cpu cuda:1")
    yield daemon
    daemon.stop()


@pytest.fixture
def client(pair: DaemonProcess) -> Iterator[UdpClient]:
    with clients.udp(pair.osc) as made:
        until_all_are_up(made)
        yield made


def engines(client: UdpClient, count: int = 2) -> list[Reply]:
    """The `engine` events."""
    client.say("engines")
    return [client.receive() for _ in range(count)]


def until_all_are_up(client: UdpClient, count: int = 2) -> list[Reply]:
    """Ask until all engines are up with the default model."""
    while not all(event.arguments[3:5] == ("up", "hollow") for event in engines(client, count)):
        client.nothing_more()
    return engines(client, count)


def processes(daemon: DaemonProcess) -> list[psutil.Process]:
    """The engines' processes, in the order of their numbers."""
    found = [process for process in daemon.family()[1:] if "fake_engine" in " ".join(process.cmdline())]
    return sorted(found, key=lambda process: process.cmdline()[process.cmdline().index("--device") + 1] != "cpu")


def held(client: UdpClient, name: str, file: Path) -> None:
    """A job that holds an engine until there is this file."""
    client.say("generate", name, f"wait {file}", "@steps", 3, "@seconds", 0.2)
    client.until_step(name)


def test_engines_are_listed_with_their_devices_models_and_jobs(client: UdpClient, tmp_path: Path) -> None:
    held(client, "first", tmp_path / "go")
    listed = engines(client)
    assert [event.tags for event in listed] == ["issssffi"] * 2
    assert [event.arguments[:5] for event in listed] == [
        (1, "local", "cpu", "up", "hollow"),
        (2, "local", "cuda:1", "up", "hollow"),
    ]
    assert sum(int(event.arguments[7]) for event in listed) == 1
    (tmp_path / "go").touch()
    assert order(client.until_end("first"))[-2:] == ["take", "done"]


def test_engines_are_described_in_json(pair: DaemonProcess, client: UdpClient) -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(f"tcp://127.0.0.1:{pair.requests}")

        def ask(kind: str) -> dict[str, list[dict[str, object]]]:
            socket.send_json({"type": kind})
            assert socket.poll(int(TIMEOUT_S * 1000))
            return json.loads(socket.recv())

        first, second = ask("engines")["engines"]
        assert (first["number"], first["name"], first["trouble"]) == (1, "test engine, float32", "")
        assert second["device"] == "cuda:1"
        (hollow,) = [model for model in ask("models")["models"] if model["name"] == "hollow"]
        assert (hollow["state"], hollow["engines"], hollow["memory_mb"]) == ("resident", "1, 2", 6.0)
        status = client.ask("status")
        assert status.arguments[2] == 1, "one model is resident, in both"


def test_engines_are_printed_by_the_command(pair: DaemonProcess, client: UdpClient, tmp_path: Path) -> None:
    def run(*arguments: str, port: int = pair.requests) -> subprocess.CompletedProcess[str]:
        settings = (f"zmq.requests={port}", f"zmq.events={pair.events}", f"takes.folder={pair.takes}")
        return subprocess.run(
            [sys.executable, "-P", "-m", "timbred", *arguments, *(f"--set={setting}" for setting in settings)],
            capture_output=True, text=True, cwd=ROOT, env=environment(tmp_path, fake_engine=True), timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip

    listed = json.loads(run("engines", "--json").stdout)
    assert [(engine["number"], engine["device"], engine["state"]) for engine in listed] == [
        (1, "cpu", "up"),
        (2, "cuda:1", "up"),
    ]
    assert "hollow" in run("engines").stdout
    missing = run("engines", port=1)
    assert missing.returncode == 1
    assert "timbred serve" in missing.stderr


def test_engines_render_at_the_same_time(client: UdpClient, tmp_path: Path) -> None:
    for name in ("one", "two"):
        held(client, name, tmp_path / name)
    assert [event.arguments[7] for event in engines(client)] == [1, 1]
    assert client.ask("generate", "three", "pad", "@steps", 1, "@seconds", 0.2).name == "queued"
    (tmp_path / "two").touch()
    ends = client.until_ends("two", "three")
    assert [events[-1].name for events in ends.values()] == ["done", "done"]
    (tmp_path / "one").touch()
    assert client.until_end("one")[-1].name == "done"


def test_engines_cancel_a_job_in_any_of_them(client: UdpClient, tmp_path: Path) -> None:
    for name in ("one cancelled", "two cancelled"):
        held(client, name, tmp_path / "never")
    client.say("cancel", "*")
    ends = client.until_ends("one cancelled", "two cancelled")
    assert [events[-1].name for events in ends.values()] == ["cancelled", "cancelled"]
    client.nothing_more()


def test_engines_take_over_the_jobs_of_a_lost_one(pair: DaemonProcess, client: UdpClient, tmp_path: Path) -> None:
    """Each job ends once, and its events come in order; the lost engine comes back with the default model."""
    names = [f"lost-{number}" for number in range(2)]
    for name in names:
        held(client, name, tmp_path / name)
    client.say("generate", "behind", "pad", "@steps", 1, "@seconds", 0.2)
    client.until("queued", id="behind")
    processes(pair)[0].kill()
    for name in names:
        (tmp_path / name).touch()
    ends = client.until_ends(*names, "behind")
    for events in ends.values():
        assert [event.name for event in events if event.name in TERMINAL] == ["done"]
        assert order(events)[-2:] == ["take", "done"]
    until_all_are_up(client)
    client.nothing_more()


def test_engines_unload_a_model_everywhere_and_load_it_once(client: UdpClient) -> None:
    assert client.ask("unload", "hollow") == Reply("unloaded", "s", ("hollow",))
    assert [event.arguments[4] for event in engines(client)] == ["", ""]
    assert client.ask("load", "hollow") == Reply("loaded", "s", ("hollow",))
    assert sorted(str(event.arguments[4]) for event in engines(client)) == ["", "hollow"]
    client.say("unload", "hollow")
    client.until("unloaded")
    # as after a start
    for name in ("again 1", "again 2"):
        client.say("generate", name, "slow", "@steps", 3)
    for name in ("again 1", "again 2"):
        client.say("cancel", name)
    client.until_ends("again 1", "again 2")


def test_engines_that_cannot_start_leave_the_work_to_others(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The reason of a single one is in `engines`; requests go on."""
    reason = tmp_path / "reason"
    reason.touch()
    program = f"{sys.executable} -m tests.fake_engine --cannot-start-while {reason}"
    daemon = start_daemon("engines=cpu cpu cpu", more={"TIMBRED_ENGINE_PROGRAM": program})
    with clients.udp(daemon.osc) as client:
        while [event.arguments[3] for event in engines(client, 3)] != ["failed"] * 3:
            client.nothing_more()
        client.say("generate", "refused", "pad", "@steps", 1)
        assert client.until_end()[-1].arguments[:2] == ("refused", "worker-lost")
        reason.unlink()
        until_all_are_up(client, 3)
        client.say("generate", "goes", "pad", "@steps", 1, "@seconds", 0.2)
        assert order(client.until_end("goes")) == SOUND


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("engines=cuda:0 cuda:0", "cuda:0 is named 2 times"),
        ("engines=cuda:0 tpu", "'tpu' is no device"),
        ("engines=ray://nowhere 2", "'ray://nowhere' is no address of a Ray cluster"),
        ("engines=", "the value is empty"),
        ("engines=" + "cpu " * 64, "take 64000 MB"),
    ],
)
def test_engines_setting_that_cannot_be_used_ends_the_start(tmp_path: Path, setting: str, words: str) -> None:
    if "64000" in words and psutil.virtual_memory().total > 64e9:
        pytest.skip("this machine has memory for 64 engines")
    settings = (*FREE_PORTS, f"takes.folder={tmp_path}", setting)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "timbred", "serve", *(part for one in settings for part in ("--set", one))],
        capture_output=True, text=True, cwd=ROOT, env=environment(tmp_path, fake_engine=True), timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    shutil.rmtree(tmp_path)

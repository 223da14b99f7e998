"""When something goes wrong: one terminal event that says what to do, and the daemon goes on."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration import clients
from tests.integration.clients import SOUND, UdpClient, hold_engine, let_go, order
from tests.integration.conftest import StartDaemon
from tests.integration.daemons import FREE_PORTS, ROOT, DaemonProcess, environment, gone
from tests.integration.osc import Reply
from tests.patience import TIMEOUT_S


def test_failures_of_an_unknown_model_name_the_known_ones(client: UdpClient) -> None:
    answer = client.ask("generate", "who", "pad", "@model", "nobody")
    assert (answer.tags, answer.arguments[:2]) == ("sss", ("who", "unknown-model"))
    assert "nobody" in str(answer.arguments[2])
    assert "hollow" in str(answer.arguments[2])


def test_failures_of_missing_weights_name_the_command_that_fetches_them(client: UdpClient) -> None:
    answer = client.ask("generate", "where", "pad", "@model", "audioldm2-music")
    assert answer.arguments[:2] == ("where", "missing-weights")
    assert "timbred models pull audioldm2-music" in str(answer.arguments[2])


def test_failures_of_an_incomplete_model_folder_name_the_file(
    start_daemon: StartDaemon, hollow: Path, tmp_path: Path
) -> None:
    torn = shutil.copytree(hollow, tmp_path / "torn")
    (torn / "unet" / "model.safetensors").unlink()
    daemon = start_daemon(f"models.torn.source={torn}")
    with clients.udp(daemon.osc) as client:
        answer = client.ask("generate", "torn", "pad", "@model", "torn")
        assert answer.arguments[:2] == ("torn", "missing-weights")
        assert str(torn / "unet") in str(answer.arguments[2])
        client.make_take("pad")


def test_failures_of_a_full_queue_say_when_to_retry(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("queue.length=2")
    with clients.udp(daemon.osc) as client:
        hold_engine(client, "running")
        positions = [client.ask("generate", name, "pad", "@steps", 1).arguments[1] for name in ("one", "two")]
        assert positions == [1, 2]
        refused = client.ask("generate", "three", "pad", "@steps", 1)
        assert refused.arguments[:2] == ("three", "busy")
        assert "try again in" in str(refused.arguments[2])
        let_go(client, "running")
        client.until_ends("one", "two")
        client.say("generate", "three", "pad", "@steps", 1, "@seconds", 0.2)
        assert order(client.until_end()) == SOUND, "a refused id may be asked for again"


def test_failures_by_non_finite_sound_are_the_models(client: UdpClient, daemon: DaemonProcess) -> None:
    client.say("generate", "broken", "nan", "@steps", 1, "@name", "notanumber")
    events = client.until_end()
    assert order(events) == ["queued", "started", "progress", "fail"]
    assert events[-1].arguments[:2] == ("broken", "model-error")
    assert not list(daemon.takes.glob("notanumber*"))
    client.make_take("pad")


def test_failures_of_the_engine_once_do_not_lose_the_request(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with clients.udp(daemon.osc) as client:
        client.say("generate", "survives", "die once", "@seconds", 0.2, "@steps", 2)
        assert order(client.until_end()) == SOUND
        client.nothing_more()


def test_failures_of_the_engine_twice_lose_only_that_request(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with clients.udp(daemon.osc) as client, clients.udp(daemon.osc) as other:
        client.make_take("pad")
        client.say("generate", "deadly", "die", "@steps", 2)
        assert client.receive().name == "queued"
        other.say("generate", "next", "pad", "@seconds", 0.2, "@steps", 1)
        events = client.until_end()
        assert order(events)[-1] == "fail"
        assert [event.name for event in events].count("started") == 1
        assert events[-1].arguments[:2] == ("deadly", "worker-lost")
        assert order(other.until_end()) == SOUND
        client.nothing_more()


def test_failures_of_a_silent_engine_replace_it(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("engine.patience=4")
    with clients.udp(daemon.osc) as client:
        client.say("generate", "silent", "hang", "@steps", 2)
        assert client.until_end()[-1].arguments[:2] == ("silent", "worker-lost")
        client.make_take("pad")


def test_failures_of_a_killed_engine_replace_it(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with clients.udp(daemon.osc) as client:
        hold_engine(client, "held")
        engine = daemon.family()[1:]
        for process in engine:
            process.kill()
        client.say("cancel", "held")
        assert client.until_end()[-1] == Reply("cancelled", "s", ("held",))
        client.make_take("pad")
        assert gone(engine)


def test_failures_of_the_takes_folder_end_when_it_returns(start_daemon: StartDaemon, tmp_path: Path) -> None:
    parent = tmp_path / "disk"
    folder = parent / "takes"
    daemon = start_daemon(f"takes.folder={folder}", f"library.file={tmp_path / 'library.sqlite'}")
    with clients.udp(daemon.osc) as client:
        client.make_take("pad")
        parent.rename(tmp_path / "unplugged")
        parent.write_text("not a folder", "utf-8")
        client.say("generate", "nowhere", "pad", "@seconds", 0.2, "@steps", 1)
        failure = client.until_end()[-1]
        assert failure.arguments[:2] == ("nowhere", "forbidden-path")
        assert str(folder) in str(failure.arguments[2])
        parent.unlink()
        (tmp_path / "unplugged").rename(parent)
        assert Path(str(client.make_take("pad").arguments[2])).is_file()


def test_failures_by_a_deleted_folder_are_avoided_by_creating_it(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with clients.udp(daemon.osc) as client:
        client.make_take("pad", "@folder", "songs")
        shutil.rmtree(daemon.takes)
        assert Path(str(client.make_take("pad", "@folder", "songs").arguments[2])).is_file()
        client.say("takes")
        assert client.until("done", "fail")[-1].name == "done"


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="an administrator may write anywhere")
def test_failures_of_writing_the_takes_folder_are_reported(start_daemon: StartDaemon, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    daemon = start_daemon(f"takes.folder={folder}", f"library.file={tmp_path / 'library.sqlite'}")
    with clients.udp(daemon.osc) as client:
        folder.chmod(0o500)
        client.say("generate", "locked", "pad", "@seconds", 0.2, "@steps", 1)
        assert client.until_end()[-1].arguments[:2] == ("locked", "forbidden-path")
        folder.chmod(0o700)
        client.make_take("pad")


def test_failures_of_folders_outside_the_takes_folder_are_refusals(client: UdpClient) -> None:
    for folder in ("../elsewhere", "/tmp", "a/../../b"):
        client.say("generate", f"into {folder}", "pad", "@folder", folder, "@seconds", 0.2, "@steps", 1)
        assert client.until_end()[-1].arguments[1] == "forbidden-path"


def test_failures_of_a_client_disturb_nobody(daemon: DaemonProcess, client: UdpClient) -> None:
    for connect in (clients.udp, clients.tcp):
        with connect(daemon.osc) as lost:
            lost.say("generate", "lost", "lost sound", "@steps", 3, "@seconds", 0.2)
            lost.until("queued")
        client.say("generate", f"kept {connect.__name__}", "pad", "@seconds", 0.2, "@steps", 2)
        assert order(client.until_end()) == SOUND


def test_failures_of_one_client_are_not_sent_to_another(client: UdpClient, other: UdpClient) -> None:
    for number in range(5):
        client.say("generate", f"a{number}", "pad", "@seconds", 0.2, "@steps", 2)
        other.say("generate", f"b{number}", "pad", "@seconds", 0.2, "@steps", 2)
    for one, letter in ((client, "a"), (other, "b")):
        received = one.until_ends(*(f"{letter}{number}" for number in range(5)))
        assert [order(events) for events in received.values()] == [SOUND] * 5
        one.nothing_more()


def test_failures_by_a_stop_while_rendering_are_reported(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with clients.udp(daemon.osc) as client, clients.tcp(daemon.osc) as tcp:
        hold_engine(client, "running")
        assert tcp.ask("generate", "waiting", "pad").name == "queued"
        family = daemon.family()
        assert len(family) >= 2
        daemon.signal()
        assert tcp.receive().arguments[:2] == ("waiting", "shutting-down")
        assert client.until_end()[-1].arguments[:2] == ("running", "shutting-down")
        assert daemon.ended() == 0
        assert gone(family)
        assert daemon.half_written() == []


def test_failures_by_a_stop_while_the_engine_hangs_are_reported(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with clients.udp(daemon.osc) as client:
        client.make_take("pad")
        client.say("generate", "hanging", "hang")
        client.until("started")
        family = daemon.family()
        daemon.signal()
        assert client.until_end()[-1].arguments[:2] == ("hanging", "shutting-down")
        assert daemon.ended() == 0
        assert gone(family)


def test_failures_by_a_stop_spare_what_can_be_finished(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with clients.udp(daemon.osc) as client:
        client.say("generate", "finished", "pad", "@takes", 16, "@seconds", 5, "@steps", 2)
        client.until("progress")
        daemon.signal()
        events = client.until_end()
        assert events[-1].name == "done" or events[-1].arguments[1] == "shutting-down", "as far as the time allows"
        assert all(Path(str(event.arguments[2])).is_file() for event in events if event.name == "take")
        assert daemon.ended() == 0


def test_failures_by_an_interrupt_are_those_of_a_stop(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    family = daemon.family()
    daemon.signal(signal.SIGINT)
    assert daemon.ended() == 0
    assert gone(family)


def test_failures_of_a_second_daemon_name_the_taken_ports(daemon: DaemonProcess, tmp_path: Path) -> None:
    taken = {"osc.port": daemon.osc, "zmq.requests": daemon.requests}
    seconds = {
        setting: subprocess.Popen(
            [sys.executable, "-m", "timbred", "serve"]
            + [f"--set={one}" for one in (*FREE_PORTS, f"takes.folder={tmp_path}", f"{setting}={port}")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(tmp_path, fake_engine=True),
        )
        for setting, port in taken.items()
    }
    for setting, second in seconds.items():
        said, complained = second.communicate(timeout=TIMEOUT_S)
        assert second.returncode != 0
        assert "ready" not in said
        assert setting in complained
        assert str(taken[setting]) in complained
        assert "Traceback" not in complained
    assert daemon.process.poll() is None

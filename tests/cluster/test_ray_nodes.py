"""Engines on a real Ray cluster of several nodes on this machine, behind a real daemon: `make test-cluster`."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
from websockets.sync.client import connect

from tests.integration import clients
from tests.integration.clients import SOUND, UdpClient, hold_engine, let_go, order
from tests.integration.daemons import DaemonProcess, gone, hollow_checkpoint
from tests.integration.osc import Reply
from tests.patience import TIMEOUT_S
from tests.processes import python_path
from tests.ray_cluster import POLL_INTERVAL_S, ROOT, RayCluster

pytestmark = pytest.mark.skipif(
    os.environ.get("TIMBRED_TEST_CLUSTER") != "1", reason="make test-cluster runs these: they need Ray and minutes"
)

StartCluster = Callable[..., RayCluster]
StartDaemon = Callable[..., DaemonProcess]

SITE = '''
"""Changes modules of a node once they are imported."""
import sys
from importlib.machinery import PathFinder

CHANGES = {changes!r}


class ChangingFinder:
    def find_spec(self, name, path=None, target=None):
        if name not in CHANGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            exec(CHANGES[name], module.__dict__)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, ChangingFinder())
'''

NO_OTHER_FOLDERS = "NodeEngine._candidates = lambda *_: ()"
"""The nodes are on the daemon's machine; with this they find none of its folders."""

OTHER_FACTS = """
_described = NodeEngine.describe


async def describe(self):
    return {{**await _described(self), {key!r}: {value!r}}}


NodeEngine.describe = describe
"""


def changed(folder: Path, **changes: str) -> dict[str, str]:
    """Variables of nodes on which modules are changed by code; `timbred__cluster__node` is `timbred.cluster.node`."""
    folder.mkdir(exist_ok=True)
    code = {name.replace("__", "."): change for name, change in changes.items()}
    (folder / "sitecustomize.py").write_text(SITE.format(changes=code), "utf-8")
    return {"PYTHONPATH": python_path(folder, ROOT, ROOT / "daemon")}


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Three nodes that are all there after each test."""
    if os.environ.get("TIMBRED_TEST_CLUSTER") != "1":
        pytest.skip("make test-cluster runs these")
    cluster = RayCluster(tmp_path_factory.mktemp("cluster"), 3)
    yield cluster
    cluster.stop()


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[StartCluster]:
    """`start_cluster(nodes=2)`: a cluster that is ended with the test."""
    with contextlib.ExitStack() as ending:

        def start(nodes: int = 3, **variables: str) -> RayCluster:
            folder = tmp_path / "cluster"
            folder.mkdir()
            cluster = RayCluster(folder, nodes, **variables)
            ending.callback(cluster.stop)
            return cluster

        yield start


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    """`start_daemon(cluster.address)`: a daemon with an engine in a cluster; its model is in `tmp_path / "hollow"`."""
    with contextlib.ExitStack() as ending:

        def start(address: str, *settings: str, name: str = "daemon") -> DaemonProcess:
            model = tmp_path / "hollow"
            if not model.exists():
                hollow_checkpoint(model)
            (tmp_path / name).mkdir()
            models = (f"models.hollow.source={model}", "models.default=hollow", "player.device=no such device")
            daemon = DaemonProcess(tmp_path / name, *models, f"engines={address} 1", *settings)
            ending.callback(end, daemon)
            return daemon

        yield start


def end(daemon: DaemonProcess) -> None:
    """End a daemon, if the test has not killed it."""
    if daemon.process.poll() is None:
        daemon.stop()
    else:
        daemon.end_by_force([])


@pytest.fixture
def client(shared_cluster: RayCluster, start_daemon: StartDaemon) -> Iterator[UdpClient]:
    """A client of a daemon with an engine in the shared cluster."""
    with clients.udp(start_daemon(shared_cluster.address).osc) as made:
        yield made


class SlowAddress:
    """An address that accepts connections, and passes bytes on to another port only once it is `released`."""

    def __init__(self, port: int) -> None:
        self.released = threading.Event()
        self.waiting = threading.Event()
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"ray://127.0.0.1:{self._server.getsockname()[1]}"
        self._start(self._accept)

    def close(self) -> None:
        self.released.set()
        self._server.close()

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._server.accept()
                self._start(self._connect, near)

    def _connect(self, near: socket.socket) -> None:
        first = near.recv(65536)
        if not first:  # only to see if somebody listens
            near.close()
            return
        self.waiting.set()
        self.released.wait(TIMEOUT_S)
        far = socket.create_connection(("127.0.0.1", self._target))
        far.sendall(first)
        self._start(self._copy, near, far)
        self._start(self._copy, far, near)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError), source, target:
            while received := source.recv(65536):
                target.sendall(received)


def trouble(daemon: DaemonProcess) -> str:
    """Why no engine can be started, once that is known."""
    with connect(f"ws://127.0.0.1:{daemon.http}/ws", open_timeout=TIMEOUT_S) as page:
        while True:
            page.send(json.dumps({"type": "status"}))
            status: dict[str, Any] = json.loads(page.recv(TIMEOUT_S))
            if status["engine_trouble"]:
                assert status["engine"] == "failed"
                return str(status["engine_trouble"])
            time.sleep(POLL_INTERVAL_S)


def test_ray_nodes_render_preview_and_cancel(client: UdpClient, shared_cluster: RayCluster):
    client.say("generate", "first", "pad", "@seconds", 4, "@steps", 3, "@preview", 1)
    events = order(client.until_end())
    assert [name for name in events if name not in ("preview", "progress")] == ["queued", "started", "take", "done"]
    assert "preview" in events
    assert sum(map(len, shared_cluster.engines().values())) == 1
    hold_engine(client, "held")
    let_go(client, "held")
    client.say("generate", "broken", "fail", "@steps", 1)
    assert client.until_end()[-1].arguments[:2] == ("broken", "model-error")
    client.make_take("pad")


def test_ray_nodes_render_the_sound_of_a_local_engine(start_cluster: StartCluster, tmp_path: Path):
    """The real engine and the embedded model: the same samples, bit for bit."""
    cluster = start_cluster(1, TIMBRED_ENGINE_PROGRAM="")
    sounds: list[np.ndarray] = []
    for name, engines in (("here", "cpu"), ("there", f"{cluster.address} 1")):
        (tmp_path / name).mkdir()
        settings = ("models.default=pocket", "device.threads=1", "player.device=no such device", f"engines={engines}")
        daemon = DaemonProcess(tmp_path / name, *settings, fake_engine=False)
        try:
            with clients.udp(daemon.osc) as client:
                client.say("generate", "same", "kick", "@seconds", 0.5, "@steps", 4, "@seed", 7, "@exact", 1)
                *_, take, done = client.until_end()
                assert done.name == "done", done
                sounds.append(soundfile.read(str(take.arguments[2]))[0])
        finally:
            daemon.stop()
    assert np.array_equal(sounds[0], sounds[1])
    assert np.abs(sounds[0]).max() > 0.1


def test_ray_nodes_have_no_engine_after_the_daemon(shared_cluster: RayCluster, start_daemon: StartDaemon):
    daemon = start_daemon(shared_cluster.address)
    with clients.udp(daemon.osc) as client:
        client.make_take("pad")
    daemon.stop()
    shared_cluster.wait_for_engines(0)


def test_ray_nodes_end_the_engine_of_a_killed_daemon(shared_cluster: RayCluster, start_daemon: StartDaemon):
    daemon = start_daemon(shared_cluster.address)
    with clients.udp(daemon.osc) as client:
        client.make_take("pad")
    for process in daemon.family():
        process.kill()
    shared_cluster.wait_for_engines(0)


def test_ray_nodes_render_the_job_of_a_killed_relay_again(
    shared_cluster: RayCluster, start_daemon: StartDaemon, tmp_path: Path
):
    daemon = start_daemon(shared_cluster.address)
    with clients.udp(daemon.osc) as client:
        client.say("generate", "held", f"wait {tmp_path / 'go'}", "@seconds", 0.2, "@steps", 3)
        client.until_step("held")
        for process in daemon.family()[1:]:
            process.kill()
        (tmp_path / "go").touch()
        assert order(client.until_end())[-2:] == ["take", "done"]
        client.nothing_more()
    shared_cluster.wait_for_engines(1)


def test_ray_nodes_replace_a_frozen_engine(shared_cluster: RayCluster, start_daemon: StartDaemon, tmp_path: Path):
    daemon = start_daemon(shared_cluster.address, "engine.patience=8")
    with clients.udp(daemon.osc) as client:
        client.say("generate", "held", f"wait {tmp_path / 'go'}", "@seconds", 0.2, "@steps", 3)
        client.until_step("held")
        ((engine,),) = shared_cluster.engines().values()
        os.kill(engine, signal.SIGSTOP)
        (tmp_path / "go").touch()
        assert order(client.until_end())[-2:] == ["take", "done"]
        client.nothing_more()


def test_ray_nodes_replace_a_frozen_actor(shared_cluster: RayCluster, start_daemon: StartDaemon, tmp_path: Path):
    """As on a node that hangs: neither the actor nor its engine answers."""
    daemon = start_daemon(shared_cluster.address, "engine.patience=8")
    with clients.udp(daemon.osc) as client:
        client.say("generate", "held", f"wait {tmp_path / 'go'}", "@seconds", 0.2, "@steps", 3)
        client.until_step("held")
        ((engine,),) = shared_cluster.engines().values()
        actor = psutil.Process(engine).parent()
        assert actor is not None
        for process in (actor, psutil.Process(engine)):
            process.suspend()
        (tmp_path / "go").touch()
        assert order(client.until_end())[-2:] == ["take", "done"]
        client.nothing_more()


def test_ray_nodes_fetch_a_model_once(start_cluster: StartCluster, start_daemon: StartDaemon, tmp_path: Path):
    cluster = start_cluster(0, **changed(tmp_path / "site", timbred__cluster__node=NO_OTHER_FOLDERS))
    node = cluster.add_node(cpus=2)
    daemons = [start_daemon(cluster.address, name=name) for name in ("one", "two")]
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(clients.udp(daemon.osc)) for daemon in daemons]
        for client in both:
            client.say("generate", "first", "pad", "@seconds", 0.2, "@steps", 1)
        for client in both:
            assert order(client.until_end()) == SOUND
    (copy,) = cluster.copies(node)
    assert (copy / "vae" / "model.safetensors").read_bytes() == b"hollow"


def test_ray_nodes_render_the_job_of_a_killed_node_elsewhere(
    start_cluster: StartCluster, start_daemon: StartDaemon, tmp_path: Path
):
    cluster = start_cluster(3)
    daemon = start_daemon(cluster.address)
    with clients.udp(daemon.osc) as client:
        client.say("generate", "held", f"wait {tmp_path / 'go'}", "@seconds", 0.2, "@steps", 3)
        client.until_step("held")
        ((first, (pid,)),) = cluster.engines().items()
        engine = psutil.Process(pid)
        cluster.kill_node(first)
        assert gone([engine])
        (tmp_path / "go").touch()
        assert order(client.until_end())[-2:] == ["take", "done"]
        client.nothing_more()
        assert first not in cluster.engines()


def test_ray_nodes_take_the_jobs_of_each_other(start_cluster: StartCluster, start_daemon: StartDaemon, tmp_path: Path):
    """Two engines on three nodes: the loss of one leaves the other's job alone, and its own job is rendered again."""
    cluster = start_cluster(3)
    daemon = start_daemon(cluster.address, f"engines={cluster.address} 2")
    with clients.tcp(daemon.osc) as client:
        engines = cluster.wait_for_engines(2)
        names = [f"n{number}" for number in range(4)]
        for name in names:
            client.say("generate", name, f"wait {tmp_path / 'go'}", "@seconds", 0.2, "@steps", 3)
        client.until_step(names[0])
        killed, (pid,) = next(iter(engines.items()))
        engine = psutil.Process(pid)
        cluster.kill_node(killed)
        assert gone([engine])
        (tmp_path / "go").touch()
        heard = client.until_ends(*names)
        assert {events[-1].name for events in heard.values()} == {"done"}
        client.nothing_more()
        assert killed not in cluster.wait_for_engines(2)


def test_ray_nodes_stand_beside_an_engine_of_the_daemon(start_daemon: StartDaemon):
    """The cluster can't be reached: requests are rendered here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    daemon = start_daemon(f"ray://127.0.0.1:{port}", f"engines=cpu ray://127.0.0.1:{port} 1")
    with clients.udp(daemon.osc) as client:
        client.make_take("pad")


def test_ray_nodes_lose_no_request_while_one_joins_and_one_leaves(
    start_cluster: StartCluster, start_daemon: StartDaemon
):
    cluster = start_cluster(2)
    daemon = start_daemon(cluster.address, "queue.length=200")
    names = [f"n{number}" for number in range(100)]
    with clients.tcp(daemon.osc) as client:  # no event is lost while the nodes change
        client.make_take("pad")
        for name in names:
            client.say("generate", name, "pad", "@seconds", 0.2, "@steps", 2)
        cluster.add_node()
        (left,) = cluster.engines()
        cluster.remove_node(left)
        heard = client.until_ends(*names)
        assert {
            name: [event.name for event in events if event.name in clients.TERMINAL] for name, events in heard.items()
        } == {name: ["done"] for name in names}
        assert all([event.name for event in events].count("take") == 1 for events in heard.values())
        client.nothing_more()


def test_ray_nodes_without_room_say_so_until_one_joins(start_cluster: StartCluster, start_daemon: StartDaemon):
    cluster = start_cluster(0)
    daemon = start_daemon(cluster.address)
    assert "needs 1 CPU on one node, and of the cluster's 0 CPU 0 are free" in trouble(daemon)
    with clients.udp(daemon.osc) as client:
        client.say("generate", "refused", "pad", "@steps", 1)
        answer = client.until_end()[-1]
        assert answer.arguments[:2] == ("refused", "worker-lost")
        assert "has no room for an engine" in str(answer.arguments[2])
        cluster.add_node()
        while client.ask("generate", "again", "pad", "@steps", 1, "@seconds", 0.2).name == "fail":
            pass
        assert order(client.until_end())[-2:] == ["take", "done"]


@pytest.mark.parametrize(
    ("key", "value", "name"), [("timbred", "0.0.1", "timbred"), ("python", "3.9.1", "Python"), ("ray", "2.0.0", "Ray")]
)
def test_ray_nodes_of_another_version_are_refused(
    start_cluster: StartCluster, start_daemon: StartDaemon, tmp_path: Path, key: str, value: str, name: str
):
    change = OTHER_FACTS.format(key=key, value=value)
    cluster = start_cluster(1, **changed(tmp_path / "site", timbred__cluster__node=change))
    text = trouble(start_daemon(cluster.address))
    assert f"{name} has the version {value} on the node" in text
    assert "install the same version on both" in text
    cluster.wait_for_engines(0)


def test_ray_nodes_that_return_garbage_are_refused(
    start_cluster: StartCluster, start_daemon: StartDaemon, tmp_path: Path
):
    garbage = "async def receive(self):\n    return 'garbage'\n\n\nNodeEngine.receive = receive"
    cluster = start_cluster(1, **changed(tmp_path / "site", timbred__cluster__node=garbage))
    daemon = start_daemon(cluster.address)
    assert "its actor returned str instead of messages" in trouble(daemon)
    with clients.udp(daemon.osc) as client:
        assert client.ask("ping") == Reply("pong", "", ())


def test_ray_nodes_without_timbred_are_refused(start_cluster: StartCluster, start_daemon: StartDaemon, tmp_path: Path):
    missing = "raise ModuleNotFoundError(\"No module named 'timbred.cluster.node'\")"
    cluster = start_cluster(1, **changed(tmp_path / "site", timbred__cluster__node=missing))
    assert "install timbred" in trouble(start_daemon(cluster.address))


def test_ray_nodes_at_an_address_that_is_silent_are_given_up(start_daemon: StartDaemon):
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = trouble(start_daemon(f"ray://127.0.0.1:{server.getsockname()[1]}"))
    assert "no Ray answers there" in text


def test_ray_nodes_at_an_address_that_answers_late_are_used(shared_cluster: RayCluster, start_daemon: StartDaemon):
    slow = SlowAddress(shared_cluster.port)
    with contextlib.closing(slow), clients.udp(start_daemon(slow.address).osc) as client:
        assert slow.waiting.wait(TIMEOUT_S)
        client.say("generate", "early", "pad", "@seconds", 0.2, "@steps", 1)
        assert client.receive().name == "queued"
        slow.released.set()
        assert order(client.until_end()) == SOUND[1:]


def test_ray_nodes_at_a_closed_address_are_reported(start_daemon: StartDaemon):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert f"no Ray cluster at ray://127.0.0.1:{port}" in trouble(start_daemon(f"ray://127.0.0.1:{port}"))

"""What all tests share."""

import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import xdist
from hypothesis import settings

from tests.host_programs import HOST_MODULES, require_program
from tests.keys_home import KeysHome, make_home
from tests.npm import InstallNpm, installer

gc.disable()
"""Until the tests are collected: their imports make no garbage, and collections take a tenth of the time."""

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
"""OpenMP threads that spin while they wait take the cores from the other workers and processes of the tests."""

settings.register_profile("timbred", deadline=None)
settings.load_profile("timbred")  # a busy machine is no failure

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for every program that a script starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST_FILES = (
    "tests/cli/test_commands.py",
    "tests/cli/test_train.py",
    "tests/player/test_client.py",
    "tests/engine/compile/test_compiled_calls.py",
    "tests/test_benchmarks_gpu.py",
    "tests/bridges/test_supercollider.py",
    "tests/engine/diffusion/test_generation.py",
    "tests/player/test_flow.py",
    "tests/integration/test_models.py",
    "tests/web/test_panel.py",
    "tests/engine/test_training.py",
    "tests/max/test_devices.py",
    "tests/engine/memory/test_device_memory.py",
    "tests/bridges/test_puredata.py",
    "tests/engine/diffusion/test_lora.py",
    "tests/player/test_play_requests.py",
    "tests/cli/test_demo.py",
    "tests/integration/test_failures.py",
    "tests/player/test_player_loop_soak.py",
    "tests/client/test_client.py",
    "tests/engine/families/test_latent_diffusion.py",
    "tests/player/test_client_pauses.py",
    "tests/test_benchmarks.py",
    "tests/player/test_mixer_growing.py",
    "tests/training/pocket/test_carry.py",
    "tests/test_server.py",
    "tests/ipc/test_engine_client.py",
    "tests/discovery/test_mdns.py",
    "tests/integration/test_engine_unavailable.py",
    "tests/engine/diffusion/test_looping.py",
    "tests/player/test_ableton_link.py",
    "tests/test_wheel.py",
    "tests/bridges/test_touchdesigner.py",
    "tests/integration/test_clap.py",
    "tests/client/test_access.py",
)
"""Test files that take longest, from the longest on."""


def order_of_files(paths: Sequence[str]) -> dict[str, int]:
    """Position of each file in a run of several workers: `LONGEST_FILES`, then those with more tests first.

    Args:
        paths: the file of each test.
    """
    counts = Counter(paths)
    longest = [path for path in LONGEST_FILES if path in counts]
    rest = sorted(counts.keys() - set(longest), key=lambda path: (-counts[path], path))
    return {path: position for position, path in enumerate([*longest, *rest])}


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Let the workers begin with the longest files, so that none is still at one when the others have finished.

    pytest-xdist keeps this order with `--no-loadscope-reorder`.
    """
    if xdist.is_xdist_worker(session):
        paths = [item.nodeid.split("::", 1)[0] for item in items]
        positions = order_of_files(paths)
        ordered = sorted(zip(paths, items, strict=True), key=lambda pair: positions[pair[0]])
        items[:] = [item for _, item in ordered]


imported_at_collection = pytest.StashKey[frozenset[str]]()
"""The modules of `HOST_MODULES` that were imported once every test module had been."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Record which modules that need a host were imported to collect the tests; begin to collect garbage."""
    gc.freeze()
    gc.enable()
    session.config.stash[imported_at_collection] = HOST_MODULES & sys.modules.keys()


@pytest.fixture(scope="session", autouse=True)
def own_records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Records of what daemons create lie apart from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.delenv("XDG_RUNTIME_DIR", raising=False)
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Event loop of asynchronous tests."""
    return "asyncio"


@pytest.fixture
def require_host() -> Callable[[str], str]:
    """`require_host("oscsend")`: see `require_program`."""
    return require_program


@pytest.fixture(scope="session")
def install_npm(tmp_path_factory: pytest.TempPathFactory) -> InstallNpm:
    """`install_npm("osc@2.4.5")`: a folder in which Node finds this package."""
    return installer(tmp_path_factory.mktemp("npm"))


@pytest.fixture
def keys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeysHome:
    """A user with a key pair and a token, in a configuration folder of the test."""
    return make_home(tmp_path / "config", monkeypatch)

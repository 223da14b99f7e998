"""What all tests share."""

import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from tests.host_programs import HOST_MODULES, require_program
from tests.npm import InstallNpm, installer

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
"""OpenMP threads that spin while they wait take the cores from the other workers and processes of the tests."""

settings.register_profile("timbred", deadline=None)
settings.load_profile("timbred")  # a busy machine is no failure

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for every program that a script starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


imported_at_collection = pytest.StashKey[frozenset[str]]()
"""The modules of `HOST_MODULES` that were imported once every test module had been."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Record which modules that need a host were imported to collect the tests."""
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

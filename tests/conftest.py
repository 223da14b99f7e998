"""What all tests share."""

import os
import shutil
import signal
from collections.abc import Callable

import pytest
from hypothesis import settings

from tests.npm import InstallNpm, installer

settings.register_profile("timbred", deadline=None)
settings.load_profile("timbred")  # a busy machine is no failure

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for every program that a script starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def required(name: str) -> str:
    """The path of a program. Without it the test is skipped; in CI it fails."""
    found = shutil.which(name)
    if found is not None:
        return found
    reason = f"{name} isn't installed"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def require_host() -> Callable[[str], str]:
    """`require_host("oscsend")`: see `required`."""
    return required


@pytest.fixture(scope="session")
def install_npm(tmp_path_factory: pytest.TempPathFactory) -> InstallNpm:
    """`install_npm("osc@2.4.5")`: a folder in which Node finds this package."""
    return installer(tmp_path_factory.mktemp("npm"))

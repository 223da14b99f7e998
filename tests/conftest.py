"""What all tests share."""

import os
import shutil
from collections.abc import Callable

import pytest
from hypothesis import settings

from tests.npm import InstallNpm, installer

settings.register_profile("timbred", deadline=None)
settings.load_profile("timbred")  # a busy machine is no failure


@pytest.fixture
def require_host() -> Callable[[str], str]:
    """`require_host("oscsend")`: the program's path. Without it the test is skipped; in CI it fails."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is not None:
            return found
        reason = f"{name} isn't installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return find


@pytest.fixture(scope="session")
def install_npm(tmp_path_factory: pytest.TempPathFactory) -> InstallNpm:
    """`install_npm("osc@2.4.5")`: a folder in which Node finds this package."""
    return installer(tmp_path_factory.mktemp("npm"))

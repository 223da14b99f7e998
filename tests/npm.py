"""npm's packages for tests that talk to programs under Node: fetched once for a whole run."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

InstallNpm = Callable[[str], Path]
"""`install_npm("osc@2.4.5")`: a folder in which Node finds this package."""

WITHIN = 180.0
"""Seconds that npm gets."""


def installer(root: Path) -> InstallNpm:
    """Without npm, or without the package, the test is skipped; in CI it fails."""

    @cache
    def install(package: str) -> Path:
        npm = shutil.which("npm")
        if npm is None:
            return _without("npm isn't installed")
        folder = root / package.replace("/", "-").replace("@", "-")
        folder.mkdir()
        command = [npm, "install", package, "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WITHIN, check=False)
        return folder if done.returncode == 0 else _without(f"npm can't install {package}: {done.stderr[-300:]}")

    return install


def _without(reason: str) -> Path:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)

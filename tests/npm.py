"""npm's packages for tests that talk to programs under Node: fetched once for a whole run."""

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.host_programs import absent, require_program
from tests.patience import TIMEOUT_S

InstallNpm = Callable[[str], Path]
"""`install_npm("osc@2.4.5")`: a folder in which Node finds this package."""


def installer(root: Path) -> InstallNpm:
    """Without npm or the package the test is skipped; in CI it fails."""

    @cache
    def install(package: str) -> Path:
        npm = require_program("npm")
        folder = root / package.replace("/", "-").replace("@", "-")
        folder.mkdir()
        command = [npm, "install", package, "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        return folder if done.returncode == 0 else absent(f"npm can't install {package}: {done.stderr[-300:]}")

    return install

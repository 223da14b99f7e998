"""A wheel of timbred holds the panel, whole."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from timbred.panel import assets

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def test_the_wheel_holds_every_file_of_the_page(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    skipped = shutil.ignore_patterns("model", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "daemon" / "timbred", source / "daemon" / "timbred", ignore=skipped)
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = {
            name.removeprefix("timbred/panel/"): wheel.read(name)
            for name in wheel.namelist()
            if name.startswith("timbred/panel/")
        }
    assert len(assets()) > 20
    assert {name: held.get(name) for name in assets()} == {name: one.content for name, one in assets().items()}

"""The wheel: what it holds, and that it works where only it is installed."""

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import soundfile

import timbred
from tests.patience import TIMEOUT_S
from tests.processes import python_path, run_captured
from timbred.transports.web_api import assets

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's file, built offline from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "daemon" / "timbred",
        source / "daemon" / "timbred",
        ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
    )
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=source,
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def held(wheel: Path) -> dict[str, bytes]:
    """The wheel's files of the package by their paths in it."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.startswith("timbred/")}


def test_wheel_is_for_every_platform(wheel: Path):
    assert wheel.name == f"timbred-{timbred.__version__}-py3-none-any.whl"


def test_wheel_holds_every_file_of_the_package_and_nothing_else(held: dict[str, bytes], wheel: Path):
    package = ROOT / "daemon" / "timbred"
    files = {f"timbred/{file.relative_to(package).as_posix()}" for file in package.rglob("*") if file.is_file()}
    assert held.keys() == {name for name in files if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as archive:
        others = {name for name in archive.namelist() if not name.startswith("timbred/")}
    assert all(name.startswith(f"timbred-{timbred.__version__}.dist-info/") for name in others)


def test_wheel_holds_a_model_of_at_most_sixty_megabytes(held: dict[str, bytes], wheel: Path):
    size = sum(len(content) for name, content in held.items() if name.startswith("timbred/pocket/"))
    print(f"wheel {wheel.stat().st_size / 1e6:.1f} MB, model {size / 1e6:.1f} MB")
    assert 10e6 < size <= 60e6


def test_wheel_holds_the_types_the_model_and_the_panel(held: dict[str, bytes]):
    assert "timbred/py.typed" in held
    assert len(held["timbred/pocket/model/pocket.safetensors"]) > 1_000_000
    assert len(assets()) > 20
    page = {name: held.get(f"timbred/web/{name}") for name in assets()}
    assert page == {name: asset.content for name, asset in assets().items()}


def test_wheel_installs_the_command(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        entries = configparser.ConfigParser()
        entries.read_string(archive.read(name).decode())
    assert dict(entries["console_scripts"]) == {"timbred": "timbred.__main__:main"}


class Installation:
    """The wheel in a virtual environment of its own, the other packages from this one; and an empty folder."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder / "empty"
        self.folder.mkdir()
        place = folder / "venv"
        venv.create(place, symlinks=os.name != "nt")
        paths = sysconfig.get_paths("venv", {"base": str(place), "platbase": str(place)})
        self.packages, self.scripts = Path(paths["purelib"]), Path(paths["scripts"])
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self.packages)
        (self.packages / "others.pth").write_text("\n".join(filter(None, map(os.path.abspath, sys.path))), "utf-8")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TIMBRED_")}
        self.environment |= {"PYTHONPATH": python_path(), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.scripts / "python"), "-P", "-c", "from timbred.cli.main import main; main()", *words]
        return run_captured(command, self.folder, self.environment)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installation:
    return Installation(tmp_path_factory.mktemp("installation"), wheel)


def test_wheel_that_is_installed_is_what_runs(installation: Installation):
    code = "import timbred; print(timbred.__file__)"
    done = subprocess.run(
        [installation.scripts / "python", "-P", "-c", code],
        cwd=installation.folder, env=installation.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(done.stdout.strip()).is_relative_to(installation.packages)


def test_wheel_that_is_installed_makes_a_first_sound(installation: Installation):
    done = installation.run("demo", "--set", "osc.port=1", "--set", "takes.folder=sounds", "--no-play")
    assert done.returncode == 0, done.stderr
    path = installation.folder / done.stdout.strip()
    assert path.parent == installation.folder / "sounds"
    assert soundfile.info(path).frames > 0
    assert [entry.name for entry in installation.folder.iterdir()] == ["sounds"]


def test_wheel_that_is_installed_says_what_works(installation: Installation):
    done = installation.run("doctor", "--set", "osc.port=0", "--set", "takes.folder=sounds")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok model pocket (default)" in done.stdout

"""The set-up of a clone: each thing that can be in its way is told in a sentence, with what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import set_up
from tests.disks import on_disk
from tests.patience import TIMEOUT_S

ROOT = Path(__file__).parents[1]
UNREACHABLE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "1",
    "PIP_NO_CACHE_DIR": "1",
}
"""Nothing listens on the discard port."""


def clone(folder: Path) -> Path:
    """A folder with what the set-up reads."""
    for name in ("set_up.py", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "daemon" / "timbred").mkdir(parents=True)
    (folder / "daemon" / "timbred" / "__init__.py").write_text('__version__ = "0"\n')
    return folder


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 9, 2), (3, 14, 0), (2, 7, 18)])
def test_set_up_refuses_other_pythons(version: tuple[int, int, int]):
    found = ".".join(map(str, version))
    with pytest.raises(
        set_up.Impossible, match=f"needs Python 3.11, 3.12 or 3.13, and this is Python {found}. Install"
    ):
        set_up.check_python(version, [])


def test_set_up_accepts_the_pythons_that_the_package_accepts():
    for version in set_up.SUPPORTED:
        set_up.check_python((*version, 0), [])
    lowest, highest = set_up.SUPPORTED[0], set_up.SUPPORTED[-1]
    needs = f'requires-python = ">={lowest[0]}.{lowest[1]},<{highest[0]}.{highest[1] + 1}"'
    assert needs in (ROOT / "pyproject.toml").read_text("utf-8")


def test_set_up_without_venv_says_what_to_install(tmp_path: Path):
    code = "import runpy, sys; sys.modules['ensurepip'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    done = run(sys.executable, "-c", code, clone(tmp_path) / "set_up.py")
    assert done.returncode == 1
    assert "it has no ensurepip" in done.stderr
    assert "apt install python3-venv" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_set_up_without_a_network_says_so(tmp_path: Path):
    done = run(sys.executable, clone(tmp_path) / "set_up.py", **UNREACHABLE)
    assert done.returncode == 1
    begun, sentence, log = done.stderr.splitlines()
    assert begun.startswith("setting timbred up in ")
    assert "Traceback" not in done.stderr
    assert sentence.startswith("timbred: the packages can't be fetched: the package index doesn't answer. Connect")
    assert "127.0.0.1" in Path(log.removeprefix("The log: ")).read_text("utf-8")


def test_set_up_on_a_full_disk_says_so(tmp_path: Path):
    folder = clone(tmp_path)
    done = run(*on_disk(folder, "4m"), sys.executable, folder / "set_up.py", **UNREACHABLE)
    assert done.returncode == 1
    assert "timbred: the disk is full: the packages need about" in done.stderr
    assert "Traceback" not in done.stderr


def test_set_up_in_a_folder_that_cannot_be_written_says_so(tmp_path: Path):
    folder = clone(tmp_path)
    done = run(*on_disk(folder, "4m", "ro"), sys.executable, folder / "set_up.py", **UNREACHABLE)
    assert done.returncode == 1
    assert "timbred: a folder can't be written to: " in done.stderr
    assert str(folder) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Collecting torch>=2.9 (from timbred==0.1.0)\n", "fetching torch"),
        ("  Downloading torch-2.13.0-cp311-none-any.whl (531.2 MB)\n", "fetching torch (531.2 MB)"),
        ("  Using cached https://index/path/numpy-2.4.6-cp311.whl (16 MB)\n", "fetching numpy (16 MB)"),
        ("Installing collected packages: mpmath, torch, timbred\n", "installing 3 packages"),
        ("Requirement already satisfied: numpy in ./x\n", ""),
        ("  Preparing metadata (pyproject.toml): started\n", ""),
    ],
)
def test_set_up_steps_name_what_pip_does(line: str, shown: str):
    assert set_up.step(line) == shown


def test_set_up_writes_few_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]):
    lines = ["Collecting a\n", "Collecting b\n", "Installing collected packages: a, b\n"]
    assert set_up.show_steps(lines, terminal=False) == "".join(lines)
    assert capsys.readouterr().err == "installing 2 packages\n"
    set_up.show_steps(lines, terminal=True)
    assert capsys.readouterr().err.startswith(
        "\r  fetching a, package 1\r  fetching b, package 2\r  installing 2 packages"
    )


def test_set_up_lets_make_demo_run_the_command(tmp_path: Path):
    shutil.copy(ROOT / "Makefile", clone(tmp_path))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    done = run("make", "--dry-run", "--no-print-directory", "-C", tmp_path, "demo")
    assert done.stdout == ".venv/bin/timbred demo --set takes.folder=takes\n"


def test_set_up_without_a_python_names_the_remedy(tmp_path: Path):
    shutil.copy(ROOT / "Makefile", clone(tmp_path))
    done = run("make", "-C", tmp_path, "demo", "PYTHON=")
    assert done.returncode != 0
    assert "there is no Python here; install Python 3.11, 3.12 or 3.13" in done.stderr

"""Without the hosts and PortAudio everything can be imported, and what is skipped says what to install."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.bare_machine import HIDDEN_PROGRAMS, KEPT, covering, installed, path_without
from tests.conftest import imported_at_collection
from tests.host_programs import HIDDEN, HOST_MODULES, PORTAUDIO, PROGRAMS, absent, require_program
from tests.integration.conftest import settings_for
from tests.integration.daemons import environment, hollow_checkpoint
from tests.patience import TIMEOUT_S
from timbred.player.process.devices import INSTALL_PORTAUDIO

ROOT = Path(__file__).parents[1]
SOURCES = ("benchmarks", "bridges", "daemon", "max_patches", "tests", "training")
LOOK_AROUND = """
import os, sys
from tests.bare_machine import HIDDEN_PROGRAMS, installed, still_reached
covered = not any(os.access(file, os.X_OK) or file.stat().st_size for file in installed(HIDDEN_PROGRAMS))
try:
    import sounddevice
except (ImportError, OSError) as error:
    print(still_reached(), covered, type(error).__name__)
"""


def run_bare(*command: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of this Python's on the machine without hosts."""
    return subprocess.run(
        [sys.executable, "-m", "tests.bare_machine", sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        env=environment,
    )


def imports_at_import_time(tree: ast.AST) -> set[str]:
    """The top-level names of modules that are imported as soon as this code is, not inside a function."""
    found, waiting = set[str](), [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))
    return found


def test_bare_machine_check_finds_imports_at_import_time_outside_functions():
    code = "import a.b\nclass C:\n    import c\n    def f(self):\n        import d\nif 1:\n    from e.f import g"
    assert imports_at_import_time(ast.parse(code)) == {"a", "c", "e"}


def test_bare_machine_imports_the_package_without_portaudio():
    files = [file for folder in SOURCES for file in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 200
    needing = {
        str(file.relative_to(ROOT)): HOST_MODULES & imports_at_import_time(ast.parse(file.read_text("utf-8")))
        for file in files
    }
    assert {name: modules for name, modules in needing.items() if modules} == {}, (
        "import it in the function that uses it"
    )


def test_imported_at_collection_has_no_module_that_needs_portaudio(request: pytest.FixtureRequest):
    assert request.config.stash[imported_at_collection] == frozenset()


def test_bare_machine_hides_every_host():
    done = run_bare("-c", LOOK_AROUND)
    assert done.returncode == 0, done.stderr
    reached, covered, error = re.fullmatch(r"(\[.*\]) (True|False) (\w+)\n", done.stdout).groups()  # pyright: ignore[reportOptionalMemberAccess]
    assert reached == "[]"
    assert error in ("OSError", "ModuleNotFoundError", "ImportError")
    assert covered == str("files are covered" in done.stderr or not installed(HIDDEN_PROGRAMS))


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["devices"], 1, "timbred: sound can't be played (PortAudio library not found): install PortAudio"),
        (["doctor", "--set", "osc.port=0"], 0, "-- audio device: sound can't be played (PortAudio library not found)"),
        (["demo", "--set", "osc.port=1"], 0, "not played: sound can't be played (PortAudio library not found)"),
    ],
)
def test_bare_machine_commands_say_what_to_install_without_portaudio(
    tmp_path: Path, words: list[str], status: int, said: str
):
    settings = [f"takes.folder={tmp_path / 'takes'}", *settings_for(hollow_checkpoint(tmp_path / "hollow"))]
    flags = [] if words == ["devices"] else [part for setting in settings for part in ("--set", setting)]
    done = run_bare("-m", "timbred", *words, *flags, environment=environment(tmp_path, fake_engine=True))
    assert done.returncode == status, done.stderr
    reported = done.stdout + done.stderr
    assert said in reported
    assert "libportaudio2" in reported
    assert "Traceback" not in reported


def test_bare_machine_covers_files_where_the_user_may(tmp_path: Path):
    program = tmp_path / "host"
    program.write_text("#!/bin/sh\necho reached\n")
    program.chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = covering([program], scratch)
    if not words:
        absent("this user may not make a mount namespace")
    done = subprocess.run([*words, "sh", "-c", f"{program}; echo $?"], capture_output=True, text=True, check=False)
    assert "reached" not in done.stdout
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == "reached\n"


def test_bare_machine_ends_with_the_commands_exit_status():
    assert run_bare("-c", "import sys; sys.exit(7)").returncode == 7


def test_bare_machine_ends_its_command_with_itself():
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    command = [sys.executable, "-m", "tests.bare_machine", sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        inside = psutil.Process(int(process.stdout.readline()))
        process.terminate()
        assert process.wait(TIMEOUT_S) != 0
        inside.wait(TIMEOUT_S)


def test_path_without_hides_programs_and_keeps_the_others(tmp_path: Path):
    for folder, names in {"one": ("pd", "ls"), "two": ("sh",)}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch(mode=0o755)
    (tmp_path / "scratch").mkdir()
    path = path_without({"pd"}, f"{tmp_path / 'one'}:{tmp_path / 'two'}:{tmp_path / 'gone'}", tmp_path / "scratch")
    links, whole, gone = path.split(":")
    assert [file.name for file in Path(links).iterdir()] == ["ls"]
    assert (whole, gone) == (str(tmp_path / "two"), str(tmp_path / "gone"))


@pytest.mark.parametrize(("ci", "hidden", "ends"), [
    ("", "", pytest.skip.Exception), ("true", "", pytest.fail.Exception), ("true", "1", pytest.skip.Exception),
])  # fmt: skip
def test_absent_fails_in_ci_unless_the_host_is_hidden(
    monkeypatch: pytest.MonkeyPatch, ci: str, hidden: str, ends: type[Exception]
):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv(HIDDEN, hidden)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ends, match="oscsend isn't installed: apt install liblo-tools; macOS: brew install liblo"):
        require_program("oscsend")


def test_programs_has_the_package_of_every_program_that_a_test_uses():
    asked = {
        name
        for file in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"\b(?:require_host|require_program)\(\"([^\"]+)\"", file.read_text("utf-8"))
    }
    assert len(asked) > 8
    assert asked <= PROGRAMS.keys()
    assert PROGRAMS.keys() - KEPT <= HIDDEN_PROGRAMS


def test_programs_packages_are_installed_by_ci():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert {package.debian for package in (*PROGRAMS.values(), PORTAUDIO)} <= set(re.findall(r"[\w+-]+", script))
    assert f"apt install {PORTAUDIO.debian}" in INSTALL_PORTAUDIO


def test_bare_machine_is_run_by_ci_beside_the_hosts():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert script.index("make test-bare") < script.index("make test\n")

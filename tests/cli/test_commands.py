"""The commands as a user types them: processes, their output, their exit status."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests import checkpoints
from tests.forked_programs import torch_program
from tests.processes import python_path, run_captured
from timbred.audiofile.files import read_recipe
from timbred.cli import doctor
from timbred.config import load
from timbred.storage.recipe import parameters_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.audioldm(tmp_path_factory.mktemp("model"))


class Shell:
    """A user with a takes folder, a model called tiny, and an engine that renders sines."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.takes = folder / "takes"
        settings = {
            "TIMBRED_TAKES_FOLDER": str(self.takes),
            "TIMBRED_MODELS_FOLDER": str(folder / "models"),
            "TIMBRED_MODELS_TINY_SOURCE": str(model),
            "TIMBRED_MODELS_DEFAULT": "tiny",
            "TIMBRED_ENGINE_PROGRAM": f"{sys.executable} -m tests.fake_engine",
            "TIMBRED_ZMQ_REQUESTS": "1",  # nothing listens there: no other daemon of this machine is asked
            "PYTHONPATH": python_path(ROOT),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_DATA_HOME": str(folder / "data"),
        }
        self.environment = {**os.environ, **torch_program(), **settings}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "timbred", *arguments]
        return run_captured(command, self.folder, self.environment)

    def say(self, *arguments: str) -> Path:
        done = self.run("say", *arguments)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.splitlines()[-1])


@pytest.fixture
def shell(tmp_path: Path, model: Path) -> Shell:
    return Shell(tmp_path, model)


def test_say_prints_the_path_of_a_sound(shell: Shell):
    path = shell.say("a warm tone", "--seconds", "0.5", "--seed", "3")
    samples, rate = soundfile.read(path)
    assert (rate, len(samples)) == (48000, 24000)
    assert soundfile.info(path).subtype == "PCM_24"
    assert np.abs(samples).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)
    assert path.parent == shell.takes


def test_say_like_a_file_makes_the_same_sound_with_what_is_changed(shell: Shell):
    first = shell.say("a warm tone", "--seconds", "0.5", "--seed", "3")
    again = shell.say("--like", str(first))
    assert np.array_equal(soundfile.read(first)[0], soundfile.read(again)[0])
    other = shell.say("--like", str(first), "--seconds", "0.25")
    assert soundfile.info(other).frames == 12000


def test_say_reads_keys_inside_the_prompt(shell: Shell):
    path = shell.say('a tone "@ noon" @seconds 0.3 @name tone')
    assert soundfile.info(path).frames == 14400
    assert path.name.startswith("tone")
    recipe = parameters_of(read_recipe(path))
    assert (recipe["prompt"], recipe["seconds"]) == ("a tone @ noon", 0.3)
    assert parameters_of(read_recipe(shell.say("--like", str(path))))["prompt"] == "a tone @ noon"


def test_commands_warn_of_misspelt_variables(shell: Shell):
    shell.environment["TIMBRED_TAKES_FOLDR"] = "/x"
    done = shell.run("models", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)
    assert "TIMBRED_TAKES_FOLDR isn't a setting and is ignored; did you mean TIMBRED_TAKES_FOLDER?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a tone @secnods 3"], "@secnods"),
        (["a tone @seconds"], "@seconds: a value is required"),
        (["a tone @seed 3", "--seed", "3"], "seed: given twice"),
        (["a tone", "--negative", "hiss @seed 3"], "negative: @seed"),
    ],
)
def test_say_refuses_unknown_keys(shell: Shell, arguments: list[str], said: str):
    done = shell.run("say", *arguments)
    assert done.returncode == 1
    assert said in done.stderr


def test_say_prints_warnings_on_standard_error(shell: Shell):
    done = shell.run("say", "knows 0.1", "--seconds", "0.2")
    assert done.returncode == 0
    assert "prompt: nearest sound: tiny doesn't know this" in done.stderr
    assert Path(done.stdout.splitlines()[-1]).exists()


def test_say_finds_files_in_the_folder_of_the_shell(shell: Shell):
    first = shell.say("a warm tone", "--seconds", "0.5", "--seed", "3")
    there = shell.takes / "sub"
    there.mkdir()
    (there / "mine.wav").write_bytes(first.read_bytes())
    for named in ("takes/sub/mine.wav", "./takes/sub/mine.wav", str(there / "mine.wav"), "sub/mine.wav"):
        again = shell.say("a tone", "--seconds", "0.2", "--init", named)
        init = parameters_of(read_recipe(again))["init"]
        assert (shell.takes / init).samefile(there / "mine.wav"), named
    done = shell.run("say", "a tone", "--init", "./nowhere.wav")
    assert done.returncode == 1
    assert str(shell.folder / "nowhere.wav") in done.stderr


@pytest.mark.parametrize(("ending", "kind"), [("flac", "FLAC"), ("ogg", "OGG"), ("aiff", "AIFF"), ("wav", "WAV")])
def test_say_out_copies_to_a_file_whose_ending_chooses_the_format(shell: Shell, ending: str, kind: str):
    out = shell.folder / f"there/sound.{ending}"
    assert shell.say("a tone", "--seconds", "0.2", "--out", str(out)) == out
    assert soundfile.info(out).format == kind


def test_say_out_replaces_a_file_only_when_asked_to(shell: Shell):
    out = shell.folder / "sound.wav"
    out.write_bytes(b"mine")
    done = shell.run("say", "a tone", "--seconds", "0.2", "--out", str(out))
    assert (done.returncode, done.stdout) == (1, "")
    assert "exists already: choose another file, or add --overwrite" in done.stderr
    assert out.read_bytes() == b"mine"
    assert shell.say("a tone", "--seconds", "0.2", "--out", str(out), "--overwrite") == out
    assert soundfile.info(out).frames == 9600
    assert sorted(path.name for path in shell.folder.iterdir()) == ["sound.wav", "takes"]


@pytest.mark.parametrize("name", ["con.wav", "a:b.wav", "pad?.wav", " pad.wav", "x" * 201 + ".wav"])
def test_say_out_refuses_names_that_some_system_lacks(shell: Shell, name: str):
    done = shell.run("say", "a tone", "--out", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert "choose another name" in done.stderr


CONSOLES = [{"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}]


@pytest.mark.parametrize("console", CONSOLES, ids=str)
def test_commands_print_any_text_on_any_console(shell: Shell, console: dict[str, str]):
    shell.environment |= console
    shell.environment["TIMBRED_TAKES_FOLDER"] = str(shell.folder / "\u97f3")
    shell.say("\u96e8 \u2603", "--seconds", "0.1", "--out", "\u2603.wav")
    assert (shell.folder / "\u2603.wav").is_file()
    for line in ("takes", "takes --json", "models", "doctor", "describe", "--help", "say \u2603 --\u2603"):
        done = shell.run(*line.split())
        assert "Traceback" not in done.stderr
        assert done.stdout or done.stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="paths are Unicode there")
def test_commands_take_paths_that_are_not_utf8(shell: Shell):
    folder = os.fsdecode(os.fsencode(shell.folder) + b"/Kl\xe4nge")
    Path(folder).mkdir()
    command = [sys.executable, "-m", "timbred", "say", "a tone", "--seconds", "0.1", "--out", folder + "/a.wav"]
    done = subprocess.run(command, env=shell.environment, cwd=shell.folder, capture_output=True, check=False)
    assert done.stdout.splitlines()[-1] == os.fsencode(folder) + b"/a.wav", done.stderr
    for command in (["say", "a tone", "--seconds", "0.1"], ["doctor"], ["takes"]):
        done = shell.run(*command, "--set", f"takes.folder={folder}")
        assert "Traceback" not in done.stderr
        assert "its name isn't UTF-8" in done.stdout + done.stderr or command == ["takes"]
    done = shell.run("say", "a tone", "--set", f"models.folder={folder}")
    assert "models.folder: got" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device to write to")
def test_commands_name_a_full_disk_where_their_output_goes(shell: Shell):
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "timbred", "describe"]
        done = subprocess.run(
            command, env=shell.environment, stdout=full, stderr=subprocess.PIPE, check=False, text=True
        )
    assert done.returncode == 1
    assert "the disk of standard output is full" in done.stderr
    assert "Traceback" not in done.stderr


def test_commands_end_quietly_when_their_output_is_closed(shell: Shell):
    command = f"{sys.executable} -m timbred describe --json | head -c 1"
    done = subprocess.run(["sh", "-c", command], env=shell.environment, capture_output=True, check=False, text=True)
    assert done.stdout == "{"
    assert "Error" not in done.stderr


@pytest.mark.parametrize("file", ["a folder", "a loop", "below a file"])
def test_say_names_a_takes_folder_that_is_none(shell: Shell, file: str):
    place = shell.folder / "place"
    if file == "a loop":
        place.symlink_to(place)
    else:
        place.write_bytes(b"")
    folder = place / "takes" if file == "below a file" else place
    done = shell.run("say", "a tone", "--seconds", "0.1", "--set", f"takes.folder={folder}")
    assert (done.returncode, done.stdout) == (1, "")
    assert str(place) in done.stderr
    assert "Traceback" not in done.stderr
    done = shell.run("doctor", "--set", f"takes.folder={folder}")
    assert (done.returncode, done.stderr) == (1, "")
    assert "NO takes.folder" in done.stdout


def test_commands_without_a_home_folder_use_no_other(shell: Shell):
    for name in ("TIMBRED_TAKES_FOLDER", "TIMBRED_MODELS_FOLDER", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        shell.environment.pop(name, None)
    shell.environment["HOME"] = ""
    for command in (["say", "a tone"], ["serve"], ["takes"], ["doctor"], ["models"]):
        done = shell.run(*command)
        assert done.returncode == 1
        assert "so there is no default; set a folder" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert list(shell.folder.iterdir()) == []
    shell.environment["TIMBRED_TAKES_FOLDER"] = str(shell.takes)
    assert shell.say("a tone", "--seconds", "0.1").parent == shell.takes
    assert list(shell.folder.iterdir()) == [shell.takes]


def test_doctor_changes_no_library(shell: Shell):
    shell.takes.mkdir()
    library = shell.takes / ".timbred.sqlite"
    library.write_bytes(b"damaged" * 100)
    done = shell.run("doctor")
    assert "is damaged" in done.stdout
    assert library.read_bytes() == b"damaged" * 100
    assert list(shell.takes.iterdir()) == [library]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a tone", "--sed", "3"], "--sed: there is no such parameter"),
        (["a tone", "--seconds", "nine"], "seconds: got 'nine'"),
        (["a tone", "--seconds", "601"], "from 0.05 to 600"),
        (["a tone", "more"], "put the prompt in quotes"),
        ([""], "prompt"),
        (["a tone", "--out", "sound.mp3"], "its extension must be one of wav, flac, aiff, ogg"),
        (["a tone", "--model", "nothing"], "there is no model 'nothing'"),
        (["a tone", "--model", "audioldm2"], "timbred models pull audioldm2"),
        (["fail now"], "told to fail (model-error)"),
        (["--like", "pyproject.toml"], "pyproject.toml"),
        (["a tone", "--set", "osc.prt=3"], "there is no setting 'osc.prt'"),
        (["a tone", "--set", "osc.port=70000"], "setting osc.port: got '70000'"),
    ],
)
def test_say_names_what_is_wrong(shell: Shell, arguments: list[str], said: str):
    done = shell.run("say", *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_takes_are_listed_newest_first_and_searched(shell: Shell):
    assert "no takes yet" in shell.run("takes").stdout
    for prompt in ("a warm tone", "a cold bell"):
        shell.say(prompt, "--seconds", "0.1")
    listed: list[dict[str, Any]] = json.loads(shell.run("takes", "--json").stdout)
    assert [take["prompt"] for take in listed] == ["a cold bell", "a warm tone"]
    assert Path(listed[0]["path"]).is_file()
    found = json.loads(shell.run("takes", "warm", "--json").stdout)
    assert [take["prompt"] for take in found] == ["a warm tone"]
    assert "a warm tone" in shell.run("takes").stdout


def test_models_are_listed_with_what_to_do(shell: Shell):
    rows = {row["name"]: row for row in json.loads(shell.run("models", "--json").stdout)}
    assert rows["tiny"]["state"] == "available"
    assert rows["audioldm2"]["state"] == "missing"
    assert rows["audioldm2"]["remark"] == "fetch it with: timbred models pull audioldm2"
    assert rows["audioldm2"]["licence"] == "CC-BY-NC-SA-4.0"
    assert "timbred models pull audioldm2" in shell.run("models").stdout


def test_models_pull_refuses_a_model_from_a_folder(shell: Shell):
    done = shell.run("models", "pull", "tiny")
    assert done.returncode == 1
    assert "there is nothing to download" in done.stderr


def test_models_report_and_convert_pickled_weights(shell: Shell):
    folder = checkpoints.pickle_weights(checkpoints.audioldm(shell.folder / "old"))
    shell.environment["TIMBRED_MODELS_OLD_SOURCE"] = str(folder)
    rows = {row["name"]: row for row in json.loads(shell.run("models", "--json").stdout)}
    assert "timbred models convert old" in rows["old"]["remark"]
    done = shell.run("models", "convert", "old")
    assert done.returncode == 0, done.stderr
    assert all(Path(line).is_file() for line in done.stdout.splitlines())
    rows = {row["name"]: row for row in json.loads(shell.run("models", "--json").stdout)}
    assert rows["old"]["remark"] == ""


def test_doctor_says_what_works_and_what_to_do(shell: Shell):
    done = shell.run("doctor", "--json", "--set", "osc.port=0")
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert found["device"]["state"] in ("good", "note")
    assert found["takes.folder"]["state"] == "good"
    assert found["model tiny (default)"]["state"] == "good"
    assert done.returncode == 0
    (shell.folder / "file").write_text("")
    done = shell.run("doctor", "--set", f"takes.folder={shell.folder / 'file'}")
    assert done.returncode == 1
    assert "NO takes.folder" in done.stdout
    assert "-> --set takes.folder=FOLDER" in done.stdout


def test_doctor_checks_the_address_of_a_cluster(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        config = load(None, {}, [f"engines=ray://127.0.0.1:{port} 2"])
        monkeypatch.setitem(sys.modules, "ray", None)
        (finding,) = doctor._engines(config)  # pyright: ignore[reportPrivateUsage]
        assert (finding.state, finding.found) == ("bad", "Ray isn't installed")
        monkeypatch.setitem(sys.modules, "ray", json)  # any module that is there
        (finding,) = doctor._engines(config)  # pyright: ignore[reportPrivateUsage]
        assert finding.state == "good"
    (finding,) = doctor._engines(config)  # pyright: ignore[reportPrivateUsage]
    assert finding.state == "bad"
    assert f"no Ray cluster at ray://127.0.0.1:{port}" in finding.found


def test_commands_prefer_flags_to_the_environment_and_that_to_the_file(shell: Shell):
    file = shell.folder / "my.toml"
    file.write_text('[audio]\nrate = 22050\n[takes]\nfolder = "nowhere"\n')
    path = shell.say("a tone", "--seconds", "0.1", "--config", str(file))
    assert soundfile.info(path).samplerate == 22050
    assert path.parent == shell.takes
    path = shell.say("a tone", "--seconds", "0.1", "--config", str(file), "--set", "audio.rate=44100")
    assert soundfile.info(path).samplerate == 44100


def test_commands_and_daemon_import_only_what_they_need(shell: Shell):
    """Neither may pay for torch; the command line not for anything that a command doesn't need."""
    heavy = "import sys; from timbred.cli.main import main; print([name for name in {} if name in sys.modules])"
    names = ["torch", "diffusers", "numpy", "zmq", "soundfile", "sounddevice"]
    done = subprocess.run([sys.executable, "-c", heavy.format(names)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    daemon = heavy.replace("timbred.cli import main", "timbred.server import serve").format(["torch", "diffusers"])
    done = subprocess.run([sys.executable, "-c", daemon], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_commands_have_version_and_help(shell: Shell):
    assert shell.run("--version").stdout.strip() == "0.1.0"
    help_text = shell.run("--help").stdout
    for command in ("serve", "say", "takes", "models", "doctor", "describe"):
        assert command in help_text


def test_describe_prints_the_protocol(shell: Shell):
    assert "/timbred/generate" in shell.run("describe").stdout
    assert "$defs" in json.loads(shell.run("describe", "--json").stdout)

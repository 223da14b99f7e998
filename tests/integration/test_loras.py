"""LoRAs in the real daemon: listed, used by requests, repeated from recipes, and refused before the engine renders."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.forked_programs import torch_program
from tests.integration import clients
from tests.integration.clients import UdpClient, new_id
from tests.integration.daemons import ROOT, DaemonProcess, environment, write_checkpoints
from tests.integration.osc import Reply
from tests.loras import random_lora
from timbred.audiofile.files import read_recipe

KEYS = ("@seed", 7, "@exact", 1, "@steps", 4, "@seconds", 0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loras")


def pull(folder: Path, name: str, source: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `timbred loras pull` as a user does."""
    command = [sys.executable, "-m", "timbred", "loras", "pull", name, "--from", str(source), *options]
    values = (f"loras.folder={folder / 'loras'}", f"models.tiny.source={folder / 'tiny'}")
    settings = [word for value in values for word in ("--set", value)]
    return subprocess.run(
        [*command, *settings], cwd=ROOT, env=environment(folder, False), capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def lora_daemon(folder: Path) -> Iterator[DaemonProcess]:
    """A daemon with the real engine, a small model, and the LoRAs warm and cold."""
    from tests import checkpoints

    checkpoints.louden(write_checkpoints(folder, tiny="audioldm2") / "tiny")
    for seed, name in enumerate(("warm", "cold"), start=1):
        source = random_lora(folder / "tiny", folder / f"{name}.safetensors", seed=seed)
        done = pull(folder, name, source, "--licence", "CC0-1.0")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{folder / 'loras' / f'{name}.safetensors'}\n"
    settings = (
        f"models.tiny.source={folder / 'tiny'}",
        "models.default=tiny",
        "device=cpu",
        "device.threads=1",
        "engine.spare=off",
        f"loras.folder={folder / 'loras'}",
        "player.device=no such device",
    )
    started = DaemonProcess(folder, *settings, fake_engine=False, more=torch_program())
    yield started
    started.stop()


@pytest.fixture
def performer(lora_daemon: DaemonProcess) -> Iterator[UdpClient]:
    with clients.udp(lora_daemon.osc) as made:
        yield made
        made.say("cancel", "*")


def make(performer: UdpClient, *words: str | int | float) -> Reply:
    """Return the `take` event of a finished sound."""
    name = new_id()
    performer.say("generate", name, *words)
    *_, take, done = performer.until_end(name)
    assert done.name == "done", done
    return take


def samples(take: Reply) -> np.ndarray:
    return soundfile.read(str(take.arguments[2]))[0]


def test_loras_lists_each_and_then_done(performer: UdpClient) -> None:
    performer.say("loras")
    received = performer.until("done")
    assert received == [
        Reply("lora", "ssiss", ("cold", "tiny", 2, "CC0-1.0", "available")),
        Reply("lora", "ssiss", ("warm", "tiny", 2, "CC0-1.0", "available")),
        Reply("done", "sis", ("loras", 2, "")),
    ]


def test_lora_changes_the_sound_and_vary_repeats_it(performer: UdpClient) -> None:
    plain = make(performer, "snare drum", *KEYS)
    warm = make(performer, "snare drum", *KEYS, "@lora", "warm:0.3")
    both = make(performer, "snare drum", *KEYS, "@lora", "warm:0.3", "cold:-0.2")
    again = make(performer, "snare drum", *KEYS)
    sounds = [samples(take) for take in (plain, warm, both)]
    assert np.array_equal(sounds[0], samples(again)), "the model is unchanged afterwards"
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(sounds[first] - sounds[second]).max() > 0.01
    assert str(read_recipe(Path(str(both.arguments[2])))["parameters"]["lora"]).split("#")[0] == "warm"
    performer.say("vary", "varied", str(both.arguments[8]))
    *_, varied, done = performer.until_end("varied")
    assert done.name == "done"
    assert np.array_equal(samples(varied), sounds[2])
    performer.say("vary", "without", str(both.arguments[8]), "@lora", "none")
    *_, without, done = performer.until_end("without")
    assert done.name == "done"
    assert np.array_equal(samples(without), sounds[0])


def test_lora_requests_at_the_same_time_have_their_own(performer: UdpClient) -> None:
    keys = ("@seed", 7, "@steps", 12, "@seconds", 0.5)
    wanted = {"plain": (), "warm": ("@lora", "warm:0.3"), "cold": ("@lora", "cold:0.3")}
    alone = {name: samples(make(performer, "snare drum", *keys, *lora)) for name, lora in wanted.items()}
    for name, lora in wanted.items():
        performer.say("generate", f"{name} together", "snare drum", *keys, *lora)
    received = performer.until_ends(*(f"{name} together" for name in wanted))
    for name, sound in alone.items():
        (take,) = [event for event in received[f"{name} together"] if event.name == "take"]
        assert np.abs(samples(take) - sound).max() < 1e-3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nothing:0.5", "there is no LoRA 'nothing'; there are cold, warm"),
        ("warm:9", "got 'warm:9', allowed is name:weight with a weight from -4 to 4"),
        ("warm:nan", "allowed is name:weight"),
        ("warm warm:0.5", "'warm' has two weights"),
        ("warm#0123:0.5", "is another file now than the one with the hash 0123"),
    ],
)
def test_lora_value_is_refused_at_once(performer: UdpClient, value: str, said: str) -> None:
    failed = performer.ask("generate", f"refused {value}", "pad", "@lora", value)
    assert failed.name == "fail"
    assert failed.arguments[1] == "bad-request"
    assert str(failed.arguments[2]).startswith("lora: ")
    assert said in str(failed.arguments[2])


def test_lora_file_that_cannot_be_used_is_refused_at_once(performer: UdpClient, folder: Path) -> None:
    damaged = folder / "loras" / "damaged.safetensors"
    damaged.write_bytes(b"\x80\x04pickled")
    foreign = shutil.copy(folder / "warm.safetensors", folder / "loras" / "foreign.safetensors")
    try:
        pickled = performer.ask("generate", "damaged", "pad", "@lora", "damaged")
        assert pickled.arguments[:2] == ("damaged", "bad-request")
        assert "is a pickle, which can run code" in str(pickled.arguments[2])
        added = performer.ask("generate", "foreign", "pad", "@lora", "foreign")
        assert "timbred loras pull foreign --from" in str(added.arguments[2])
        performer.say("loras")
        states = [event.arguments[4] for event in performer.until("done")[:-1]]
        assert states == ["available", "invalid", "invalid", "available"]
    finally:
        damaged.unlink()
        Path(foreign).unlink()


def test_loras_pull_refuses_with_one_line_and_lists_as_json(lora_daemon: DaemonProcess, folder: Path) -> None:
    wrong = folder / "wrong.safetensors"
    wrong.write_bytes(b"PK\x03\x04archive")
    done = pull(folder, "wrong", wrong)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("timbred: lora: ")
    assert done.stderr.count("\n") == 1
    command = [sys.executable, "-m", "timbred", "loras", "--json", "--set", f"loras.folder={folder / 'loras'}"]
    listed = subprocess.run(
        command, cwd=ROOT, env=environment(folder, False), capture_output=True, text=True, check=True
    )
    assert [row["name"] for row in json.loads(listed.stdout)] == ["cold", "warm"]

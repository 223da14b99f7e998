"""Requests that start from other sounds, and can't: refused by key and range before the engine hears of them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.integration.clients import UdpClient, new_id
from tests.integration.daemons import DaemonProcess
from tests.integration.osc import Reply
from timbred.audio import Clip, SampleRate
from timbred.audiofile.files import encode
from timbred.render_settings import RenderSettings
from timbred.storage.recipe import make_recipe

RATE = 8000


pytestmark = pytest.mark.usefixtures("undisturbed")


@pytest.fixture(scope="module")
def files(daemon: DaemonProcess) -> dict[str, Path]:
    """Files in the takes folder.

    A second of sound, an empty sound, three hours, one with NaN, one with text, and one that another model made.
    """
    folder = daemon.takes / "given"
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: folder / f"{name}.wav" for name in ("second", "empty", "hours", "nan", "text")}
    second = np.sin(np.arange(RATE) / 9).astype(np.float32)
    soundfile.write(found["second"], second, RATE, subtype="FLOAT")
    soundfile.write(found["empty"], second[:0], RATE)
    with soundfile.SoundFile(found["hours"], "w", RATE, 1, "PCM_U8") as file:
        minute = np.zeros(60 * RATE, dtype=np.float32)
        for _ in range(180):
            file.write(minute)
    second[7] = np.nan
    soundfile.write(found["nan"], second, RATE, subtype="FLOAT")
    found["text"].write_text("this is no sound", "utf-8")
    recipe = make_recipe({"seconds": 1.0}, model="pocket", licence="none", prompt="pad", seed=7)
    clip = Clip(np.zeros((100, 1), dtype=np.float32), SampleRate(RATE), recipe)
    found["pocket"] = daemon.takes / "p.wav"
    with found["pocket"].open("w+b") as file:
        encode(clip, file, RenderSettings())
    return found


def refusal(client: UdpClient, name: str, *arguments: str | float) -> Reply:
    """The one answer to a request, after `queued` if it had to be read first."""
    answer = client.ask("generate", name, "warm pad", *arguments)
    return client.receive() if answer.name == "queued" else answer


CASES: dict[str, tuple[str, tuple[str | float, ...], str, tuple[str, ...]]] = {
    "nothing in it": ("empty", (), "bad-audio", ("empty.wav", "no frames")),
    "three hours": ("hours", (), "bad-audio", ("hours.wav", "10800")),
    "not a number": ("nan", (), "bad-audio", ("nan.wav",)),
    "not sound": ("text", (), "bad-audio", ("text.wav",)),
    "mask after the end": ("second", ("@start", 1.5, "@end", 2), "bad-request", ("start, end", "1.5", "0 to 1")),
    "mask beyond the end": ("second", ("@start", 0.5, "@end", 1.5), "bad-request", ("start, end", "1.5", "0 to 1")),
    "mask of nothing": ("second", ("@start", 0.5, "@end", 0.5), "bad-request", ("start, end", "0.5")),
    "mask upside down": ("second", ("@low", 4000, "@high", 200), "bad-request", ("low, high", "4000", "200")),
    "longer than it is": ("second", ("@seconds", 3), "bad-request", ("seconds", "3", "1")),
    "strength above one": ("second", ("@strength", 1.5), "bad-request", ("strength", "1.5", "1")),
    "continued beyond reason": ("second", ("@extend", 600), "bad-request", ("extend", "600", "1 s")),
    "continued to a length": ("second", ("@extend", 2, "@seconds", 3), "bad-request", ("seconds", "extend")),
    "looped": ("second", ("@loop", 1), "bad-request", ("init", "loop")),
}


@pytest.mark.parametrize("case", CASES)
def test_init_audio_that_cannot_be_read_is_refused(client: UdpClient, files: dict[str, Path], case: str) -> None:
    file, arguments, code, words = CASES[case]
    name = new_id()
    client.say("generate", name, "warm pad", "@init", str(files[file]), *arguments)
    answer = client.receive()
    if case == "not a number":  # all else shows without reading the sound, and is answered at once
        assert answer.name == "queued"
        answer = client.receive()
    assert (answer.name, answer.arguments[1]) == ("fail", code)
    for word in words:
        assert word in str(answer.arguments[2]), f"{word!r} should be named in {answer.arguments[2]!r}"
    client.nothing_more()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("@steps", 0), ("steps", "0", "1")),
        (("@steps", 10000), ("steps", "10000", "1000")),
        (("@steps", 3, "@scheduler", "pndm"), ("steps", "3", "pndm", "4")),
        (("@eta", 0.5, "@scheduler", "euler"), ("eta", "0.5", "ddim", "euler")),
        (("@weights", "trumpet:1.4"), ("weights", "trumpet", "warm pad")),
        (("@weights", "pad:9"), ("weights", "pad:9", "3")),
        (("@strength", 0.5), ("strength", "init")),
        (("@extend", 1), ("extend", "init")),
        (("@start", 0.5), ("start", "init")),
        (("@mix", 0.5), ("mix", "prompt2")),
        (("@noise", "nosuchtake"), ("no take", "nosuchtake")),
        (("@trim", 1, "@loop", 1), ("trim", "loop")),
    ],
    ids=str,
)
def test_init_audio_with_unfitting_values_is_refused(
    client: UdpClient, arguments: tuple[str | float, ...], words: tuple[str, ...]
) -> None:
    answer = refusal(client, new_id(), *arguments)
    assert (answer.name, answer.arguments[1]) == ("fail", "bad-request")
    for word in words:
        assert word in str(answer.arguments[2]), f"{word!r} should be named in {answer.arguments[2]!r}"
    client.nothing_more()


def test_init_audio_noise_of_another_models_take_is_refused(client: UdpClient, files: dict[str, Path]) -> None:
    answer = refusal(client, new_id(), "@noise", str(files["pocket"]))
    assert answer.arguments[1] == "bad-request"
    assert "noise" in str(answer.arguments[2])
    assert "pocket" in str(answer.arguments[2])


def test_init_audio_leaves_a_model_in_use_loaded(client: UdpClient) -> None:
    answer = client.ask("unload", "hollow")
    assert answer.arguments[:2] == ("unload", "bad-request")
    assert "in use" in str(answer.arguments[2])

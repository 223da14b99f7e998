"""Files of embeddings through the real daemon: refused by key and range, rendered, and repeated by `vary`."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file

from tests.integration import clients
from tests.integration.clients import UdpClient, new_id
from tests.integration.daemons import DaemonProcess, start_real_engine, write_checkpoints
from tests.integration.osc import Reply
from timbred.audiofile.files import read_recipe

SECONDS, ROWS = 0.5, 63
"""Length of all sounds here, in seconds and in rows of latents of the tiny Stable Audio 3."""


@pytest.fixture(scope="module")
def real_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    models = write_checkpoints(tmp_path_factory.mktemp("models"), three="stable_audio_3")
    started = start_real_engine(tmp_path_factory.mktemp("embedded"), {"three": models / "three"})
    yield started
    started.stop()


@pytest.fixture
def performer(real_daemon: DaemonProcess) -> Iterator[UdpClient]:
    with clients.udp(real_daemon.osc) as made:
        yield made
        made.say("cancel", "*")


def tensors(seed: int = 1, rows: int = ROWS) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "prompt_embeds": random.standard_normal((1, 9, 16)).astype(np.float32),
        "encoder_attention_mask": (np.arange(9) < 6).astype(np.int64)[None],
        "latents": random.standard_normal((1, 8, rows)).astype(np.float32),
    }


def write(folder: Path, name: str, values: dict[str, np.ndarray]) -> Path:
    path = folder / "given" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(values, path)
    return path


def end_of(performer: UdpClient, kind: str, *arguments: str | float) -> list[Reply]:
    name = new_id()
    performer.say(kind, name, *arguments)
    return performer.until_end(name)


def render(performer: UdpClient, *arguments: str | float) -> tuple[str, np.ndarray]:
    """Return the path and the samples of a take."""
    events = end_of(performer, "generate", "warm pad", "@seconds", SECONDS, "@steps", 3, "@seed", 7, *arguments)
    assert events[-1].name == "done", events[-1]
    path = str(events[-1].arguments[2])
    return path, soundfile.read(path, dtype="float32")[0]


def refusal(performer: UdpClient, *arguments: str | float) -> str:
    last = end_of(performer, "generate", "pad", "@seconds", SECONDS, "@steps", 3, *arguments)[-1]
    assert (last.name, last.arguments[1]) == ("fail", "bad-request"), last
    return str(last.arguments[2])


def test_embeddings_change_the_sound_and_vary_repeats_it(real_daemon: DaemonProcess, performer: UdpClient) -> None:
    path = write(real_daemon.takes, "one", tensors())
    take, sound = render(performer, "@embeddings", "given/one.safetensors")
    plain = render(performer)[1]
    assert np.abs(sound - plain).max() > 0.01
    named = read_recipe(Path(take))["parameters"]["embeddings"]
    assert named.startswith("given/one.safetensors#sha256=")

    again = end_of(performer, "vary", take)
    assert again[-1].name == "done", again[-1]
    np.testing.assert_array_equal(soundfile.read(str(again[-1].arguments[2]), dtype="float32")[0], sound)

    write(real_daemon.takes, "one", tensors(seed=2))
    changed = end_of(performer, "vary", take)[-1]
    assert (changed.name, changed.arguments[1]) == ("fail", "bad-request")
    assert "has changed since the take was made" in str(changed.arguments[2])
    other = end_of(performer, "vary", take, "@embeddings", str(path))[-1]
    assert other.name == "done"
    assert np.abs(soundfile.read(str(other.arguments[2]), dtype="float32")[0] - sound).max() > 0.01


def test_embeddings_noise_of_a_take_from_given_latents_is_refused(
    real_daemon: DaemonProcess, performer: UdpClient
) -> None:
    path = write(real_daemon.takes, "latents", {"latents": tensors()["latents"]})
    made = end_of(performer, "generate", "pad", "@seconds", SECONDS, "@steps", 3, "@embeddings", str(path))
    take = str(next(event for event in made if event.name == "take").arguments[-1])
    assert "began with the latents in" in refusal(performer, "@noise", take)


CASES: dict[str, tuple[dict[str, np.ndarray], tuple[str | float, ...], str]] = {
    "name": ({"image": tensors()["latents"]}, (), "unknown tensor 'image'; three takes prompt_embeds"),
    "rows": (tensors(rows=ROWS + 1), (), f"latents has the shape (1, 8, {ROWS + 1}); expected is (1, 8, {ROWS})"),
    "NaN": ({"latents": np.full((1, 8, ROWS), np.nan, np.float32)}, (), "latents has NaN or infinite values"),
    "takes": (tensors(), ("@takes", 2), "takes: got 2, but with latents"),
    "weights": (tensors(), ("@weights", "pad:1.2"), "weights: it doesn't go with prompt_embeds"),
    "unguided": ({"negative_prompt_embeds": tensors()["prompt_embeds"]}, (), "guidance: got 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_embeddings_that_do_not_fit_are_refused(real_daemon: DaemonProcess, performer: UdpClient, case: str) -> None:
    values, more, message = CASES[case]
    path = write(real_daemon.takes, case, values)
    assert message in refusal(performer, "@embeddings", str(path), *more)


def test_embeddings_outside_the_allowed_folders_are_refused(performer: UdpClient, tmp_path: Path) -> None:
    path = write(tmp_path, "outside", tensors())
    last = end_of(performer, "generate", "pad", "@embeddings", str(path))[-1]
    assert (last.name, last.arguments[1]) == ("fail", "forbidden-path")
    assert "there is no such file" in refusal(performer, "@embeddings", "none.safetensors")

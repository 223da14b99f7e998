"""The real engine with tiny random checkpoints of the stereo families: files, edits, previews and inline samples."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import zmq

from tests.integration import clients
from tests.integration.clients import SOUND, TIMEOUT_S, UdpClient, new_id, order
from tests.integration.daemons import DaemonProcess, start_real_engine, write_checkpoints

RATE = 48_000
MODELS = ("open", "three")
ALL_MODELS = (*MODELS, "song")


@pytest.fixture(scope="module")
def stereo_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with both families; the default is Stable Audio 3."""
    families = {"song": "ace_step", "open": "stable_audio", "three": "stable_audio_3"}
    models = write_checkpoints(tmp_path_factory.mktemp("models"), **families)
    started = start_real_engine(
        tmp_path_factory.mktemp("stereo"), {name: models / name for name in ("three", "open", "song")}
    )
    yield started
    started.stop()


@pytest.fixture
def performer(stereo_daemon: DaemonProcess) -> Iterator[UdpClient]:
    with clients.udp(stereo_daemon.osc) as made:
        yield made
        made.say("cancel", "*")


@pytest.fixture(scope="module")
def recorded(stereo_daemon: DaemonProcess) -> Path:
    """Half a second of stereo with different sounds in both channels."""
    folder = stereo_daemon.takes / "recorded"
    folder.mkdir(parents=True, exist_ok=True)
    moments = np.arange(RATE // 2) / RATE
    noise = 0.05 * np.random.default_rng(5).standard_normal(len(moments))
    samples = np.stack([0.2 * np.sin(2 * np.pi * 220.0 * moments), noise], axis=1)
    soundfile.write(folder / "stereo.wav", samples, RATE, subtype="PCM_24")
    return folder / "stereo.wav"


def read(path: object) -> np.ndarray:
    return soundfile.read(str(path), dtype="float32", always_2d=True)[0]


def render(performer: UdpClient, *arguments: str | float) -> np.ndarray:
    name = new_id()
    performer.say("generate", name, "warm pad", "@seed", 7, "@steps", 3, *arguments)
    events = performer.until_end(name)
    assert events[-1].name == "done", events[-1]
    return read(events[-1].arguments[2])


def channel_difference(samples: np.ndarray) -> float:
    return float(np.abs(samples[:, 0] - samples[:, 1]).max())


def test_stereo_models_are_listed_with_their_channels(stereo_daemon: DaemonProcess) -> None:
    with zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.REQ) as req:
        req.setsockopt(zmq.LINGER, 0)
        req.setsockopt(zmq.RCVTIMEO, int(TIMEOUT_S * 1000))
        req.connect(f"tcp://127.0.0.1:{stereo_daemon.requests}")
        req.send(json.dumps({"type": "models"}).encode())
        models = {model["name"]: model for model in json.loads(req.recv())["models"]}
    assert [(models[name]["channels"], models[name]["native_rate"]) for name in MODELS] == [(2, 8000)] * 2
    assert (models["open"]["max_seconds"], models["three"]["max_seconds"]) == (0.512, 8.0)
    assert (models["open"]["scheduler"], models["three"]["scheduler"]) == ("cosine-dpm", "ping-pong")


@pytest.mark.parametrize("model", MODELS)
def test_stereo_models_make_a_stereo_file(performer: UdpClient, model: str) -> None:
    ask = ("generate", f"from {model}", "warm pad", "@model", model, "@seconds", 0.4, "@steps", 3, "@seed", 7)
    performer.say(*ask)
    events = performer.until_end()
    assert order(events) == SOUND
    take = events[-2]
    samples = read(take.arguments[2])
    assert samples.shape == (round(0.4 * RATE), 2)
    assert take.arguments[5] == 2
    assert channel_difference(samples) > 0.01


@pytest.mark.parametrize("model", MODELS)
def test_stereo_models_make_a_mono_file_of_both_channels(performer: UdpClient, model: str) -> None:
    stereo = render(performer, "@model", model, "@seconds", 0.4, "@peak", "off", "@bits", 32)
    mono = render(performer, "@model", model, "@seconds", 0.4, "@peak", "off", "@bits", 32, "@channels", 1)
    assert mono.shape == (len(stereo), 1)
    np.testing.assert_allclose(mono[:, 0], stereo.mean(axis=1), atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_stereo_models_regenerate_a_part_in_stereo(performer: UdpClient, recorded: Path, model: str) -> None:
    there = read(recorded)
    whole = render(performer, "@model", model, "@init", str(recorded), "@start", 0.2, "@end", 0.4)
    assert whole.shape == there.shape
    first, last = round(0.2 * RATE), round(0.4 * RATE)
    assert np.array_equal(whole[:first], there[:first])
    assert np.array_equal(whole[last:], there[last:])
    part = whole[first + 2000 : last - 2000]
    assert not np.allclose(part, there[first + 2000 : last - 2000], atol=0.001)
    assert abs(float(np.corrcoef(part[:, 0], part[:, 1])[0, 1])) < 0.999


@pytest.mark.parametrize("model", ALL_MODELS)
def test_stereo_models_regenerate_several_regions(performer: UdpClient, recorded: Path, model: str) -> None:
    there = read(recorded)
    whole = render(performer, "@model", model, "@init", str(recorded), "@regions", "0.1-0.2", "0.3-0.4")
    changed = np.zeros(len(there), dtype=bool)
    for start, end in ((0.1, 0.2), (0.3, 0.4)):
        first, last = round(start * RATE), round(end * RATE)
        changed[first:last] = True
        assert not np.allclose(whole[first + 1000 : last - 1000], there[first + 1000 : last - 1000], atol=1e-4)
    assert np.array_equal(whole[~changed], there[~changed])


@pytest.mark.parametrize("model", ALL_MODELS)
def test_stereo_models_render_a_loop_of_exact_length(performer: UdpClient, model: str) -> None:
    samples = render(performer, "@model", model, "@seconds", 0.4, "@loop", 1)
    assert samples.shape == (round(0.4 * RATE), 2)
    assert np.abs(samples[0] - samples[-1]).max() <= np.abs(np.diff(samples, axis=0)).max()


def test_stereo_model_sings_with_the_timbre_of_a_reference(performer: UdpClient, recorded: Path) -> None:
    song = ("@model", "song", "@seconds", 0.4, "@lyrics", "[verse]", "la la", "@language", "de", "@peak", "off")
    plain, other = (render(performer, *song, *more) for more in ((), ("@reference", str(recorded))))
    assert plain.shape == other.shape == (round(0.4 * RATE), 2)
    assert not np.allclose(plain, other, atol=1e-4)


@pytest.mark.parametrize(("task", "track"), [("cover", ""), ("extract", "vocals"), ("complete", "bass drums")])
def test_stereo_model_does_tasks_on_a_sound(performer: UdpClient, recorded: Path, task: str, track: str) -> None:
    named = ("@track", *track.split()) if track else ()
    made = render(performer, "@model", "song", "@init", str(recorded), "@task", task, *named)
    assert made.shape == read(recorded).shape
    assert np.abs(made).max() > 0.01


def test_stereo_model_continues_audio_in_stereo(performer: UdpClient, recorded: Path) -> None:
    there, whole = read(recorded), render(performer, "@init", str(recorded), "@extend", 0.5)
    assert whole.shape == (RATE, 2)
    kept = round(0.4 * RATE)
    assert np.array_equal(whole[:kept], there[:kept])
    assert channel_difference(whole[RATE // 2 + 1000 :]) > 0.001


@pytest.mark.parametrize("model", MODELS)
def test_stereo_models_start_from_audio(performer: UdpClient, recorded: Path, model: str) -> None:
    plain = render(performer, "@model", model, "@seconds", 0.5)
    varied = render(performer, "@model", model, "@init", str(recorded), "@strength", 0.5)
    assert varied.shape == (RATE // 2, 2)
    assert not np.allclose(plain, varied, atol=0.001)


def test_stereo_model_sends_a_stereo_preview(performer: UdpClient) -> None:
    performer.say("generate", "soon", "pad", "@preview", 1, "@seconds", 0.6, "@steps", 8, "@seed", 3)
    events = performer.until_end("soon")
    (preview,) = (event for event in events if event.name == "preview")
    samples = read(preview.arguments[1])
    assert samples.shape == (round(0.6 * RATE), 2)
    assert channel_difference(samples) > 0.001


def test_stereo_model_sends_inline_samples_of_both_channels(stereo_daemon: DaemonProcess) -> None:
    request = {"type": "generate", "id": "in", "prompt": "pad", "seconds": 0.3, "steps": 2, "inline": True, "bits": 32}
    with zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RCVTIMEO, int(TIMEOUT_S * 1000))
        dealer.connect(f"tcp://127.0.0.1:{stereo_daemon.requests}")
        dealer.send(json.dumps(request).encode())
        while (parts := dealer.recv_multipart()) and json.loads(parts[0])["type"] != "take":
            pass
    take = json.loads(parts[0])
    samples = np.frombuffer(parts[1], "<f4").reshape(-1, take["channels"])
    assert samples.shape == (round(0.3 * RATE), 2)
    np.testing.assert_array_equal(samples, read(take["path"]))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("@init", "FILE", "@low", 400), "bands"),
        (("@scheduler", "ddim"), "ping-pong"),
        (("@seconds", 9), "8"),
        (("@lyrics", "la la"), "lyrics"),
        (("@task", "cover", "@init", "FILE"), "task"),
        (("@reference", "FILE"), "reference"),
        (("@init", "FILE", "@regions", "0.1-0.3", "0.2-0.4"), "0.1-0.3 and 0.2-0.4 overlap"),
        (("@init", "FILE", "@regions", "0.4-0.6"), "0 to 0.5"),
        (("@model", "song", "@lyrics", "la", "@language", "xx"), "yue"),
        (("@model", "song", "@task", "extract", "@track", "kazoo", "@init", "FILE"), "backing_vocals"),
        (("@model", "song", "@lyrics", "la " * 6000), "8192"),
    ],
    ids=str,
)
def test_stereo_model_refuses_what_it_cannot_do(
    performer: UdpClient, recorded: Path, arguments: tuple[str | float, ...], named: str
) -> None:
    name = new_id()
    given = [str(recorded) if argument == "FILE" else argument for argument in arguments]
    performer.say("generate", name, "pad", *given)
    failure = performer.until_end(name)[-1]
    assert (failure.name, failure.arguments[1]) == ("fail", "bad-request")
    assert named in str(failure.arguments[2])

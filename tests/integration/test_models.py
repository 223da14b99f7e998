"""The real engine with tiny random checkpoints of both families: the same conversations, with torch behind them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.integration import clients
from tests.integration.clients import SOUND, UdpClient, order
from tests.integration.daemons import DaemonProcess, gone, start_real_engine, write_checkpoints
from tests.integration.osc import Reply

LONG_ENOUGH = 900
"""Steps of a sound that is still being made when the test has done its part."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of each family, the older one with .bin weights."""
    from tests import checkpoints

    folder = tmp_path_factory.mktemp("models")
    write_checkpoints(folder, audioldm2="audioldm2", audioldm="audioldm")
    for name in ("audioldm2", "audioldm"):
        checkpoints.louden(folder / name)
    checkpoints.pickle_weights(folder / "audioldm")
    damaged = shutil.copytree(folder / "audioldm2", folder / "damaged")
    weights = next((damaged / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:5000])
    return folder


@pytest.fixture(scope="module")
def real_daemon(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with the real engine."""
    started = start(models, tmp_path_factory.mktemp("real"))
    yield started
    started.stop()


@pytest.fixture
def performer(real_daemon: DaemonProcess) -> Iterator[UdpClient]:
    """A client of it."""
    with clients.udp(real_daemon.osc) as made:
        yield made
        made.say("cancel", "*")


def start(models: Path, folder: Path) -> DaemonProcess:
    sources = {"tiny": models / "audioldm2", "older": models / "audioldm", "damaged": models / "damaged"}
    return start_real_engine(folder, sources, spare="auto")


@pytest.mark.parametrize("model", ["tiny", "older"])
def test_models_of_both_families_make_a_sound(performer: UdpClient, model: str) -> None:
    ask = ("generate", f"from {model}", "warm pad", "@model", model, "@seconds", 0.6, "@steps", 3, "@seed", 7)
    performer.say(*ask)
    events = performer.until_end()
    assert order(events) == SOUND
    _, started, *progress, take, done = events
    assert started == Reply("started", "ss", (f"from {model}", model))
    assert [event.arguments[2:4] for event in progress[-3:]] == [(1, 3), (2, 3), (3, 3)]
    fractions = [float(event.arguments[1]) for event in progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    sound = soundfile.info(str(take.arguments[2]))
    assert (sound.frames, sound.samplerate) == (round(0.6 * 48000), 48000)
    assert done.arguments[1] == 1


def test_models_repeat_a_seed_bit_for_bit_when_exact(performer: UdpClient) -> None:
    words = ("warm pad", "@seed", 5, "@exact", 1)
    one, two = (soundfile.read(str(performer.make_take(*words).arguments[2]))[0] for _ in range(2))
    other = soundfile.read(str(performer.make_take("warm pad", "@seed", 6, "@exact", 1).arguments[2]))[0]
    assert abs(one).max() > 0.5
    assert (one == two).all()
    assert abs(one - other).max() > 0.001


@pytest.mark.parametrize("model", ["tiny", "pocket"])
def test_models_repeat_several_exact_takes_bit_for_bit(performer: UdpClient, model: str) -> None:
    """By `vary`, and by their seed alone; 16 bits have dither too."""
    keys = ("@model", model, "@seconds", 0.5, "@steps", 3, "@exact", 1, "@bits", 16)
    performer.say("generate", f"exact {model}", "snare drum", "@takes", 4, "@seed", 11, *keys)
    events = performer.until_end(f"exact {model}")
    takes = [event for event in events if event.name == "take"]
    assert sorted(int(str(take.arguments[6])) for take in takes) == [11, 12, 13, 14]
    for number, take in enumerate(takes):
        names = f"again {model} {number}", f"alone {model} {number}"
        performer.say("vary", names[0], str(take.arguments[8]))
        performer.say("generate", names[1], "snare drum", "@seed", take.arguments[6], *keys)
        received = performer.until_ends(*names)
        varied, alone = (next(one for one in received[name] if one.name == "take") for name in names)
        sounds = [soundfile.read(str(one.arguments[2]), dtype="int16")[0] for one in (take, varied, alone)]
        assert np.abs(sounds[0]).max() > 1000
        assert np.array_equal(sounds[0], sounds[1])
        assert np.array_equal(sounds[0], sounds[2])


def test_models_make_each_take_from_its_seed(performer: UdpClient) -> None:
    performer.say("generate", "pair", "pad", "@takes", 2, "@seed", 11, "@seconds", 0.2, "@steps", 1)
    events = performer.until_end()
    assert order(events) == SOUND, events[-1]
    takes = {event.arguments[6]: event for event in events if event.name == "take"}
    assert set(takes) == {11, 12}
    alone = performer.make_take("pad", "@seed", 12)
    together, single = (soundfile.read(str(take.arguments[2]))[0] for take in (takes[12], alone))
    assert abs(together - single).max() < 10 ** (-80 / 20)


def test_models_send_ranked_takes_best_first(performer: UdpClient) -> None:
    performer.say("generate", "ranked", "pad", "@takes", 3, "@rank", 1, "@seconds", 0.2, "@steps", 1)
    *_, first, second, third, done = performer.until_end()
    scores = [float(take.arguments[7]) for take in (first, second, third)]
    assert [take.arguments[1] for take in (first, second, third)] == [0, 1, 2]
    assert scores == sorted(scores, reverse=True)
    assert done.arguments[2] == first.arguments[2], "done names the best take"


def test_models_store_embeddings_for_search_by_sound(performer: UdpClient) -> None:
    bell, gong, _ = (performer.make_take(words, "@seed", 5).arguments[8] for words in ("bell", "gong", "hat"))
    performer.until_alike(bell, gong)  # they share no word


def test_models_cancel_a_running_sound_at_its_next_step(performer: UdpClient) -> None:
    performer.say("generate", "endless", "pad", "@steps", LONG_ENOUGH)
    performer.until_step()
    performer.say("cancel", "endless")
    events = performer.until_end()
    assert events[-1] == Reply("cancelled", "s", ("endless",))
    assert set(order(events)) <= {"progress", "cancelled"}
    performer.nothing_more()
    performer.make_take("pad")


def test_models_write_a_preview_before_the_take(performer: UdpClient) -> None:
    performer.say("generate", "soon", "pad", "@preview", 1, "@seconds", 0.6, "@steps", 8, "@seed", 3)
    events = performer.until_end()
    names = [event.name for event in events]
    assert names.index("started") < names.index("preview") < names.index("take") < names.index("done")
    preview = events[names.index("preview")]
    assert (preview.tags, preview.id) == ("ss", "soon")
    assert str(preview.arguments[1]) != str(events[-1].arguments[2])
    performer.say("generate", "later", "pad", "@seconds", 0.6, "@steps", 8, "@seed", 3)
    plain = performer.until_end()[-2]
    one, two = (soundfile.read(str(take.arguments[2]))[0] for take in (events[-2], plain))
    assert abs(one - two).max() < 10 ** (-80 / 20), "a preview leaves the sound as it is"


def test_models_reuse_a_takes_noise_and_mix_a_second_prompt(performer: UdpClient) -> None:
    first = performer.make_take("dark bell", "@seed", 21)
    again = performer.make_take("dark bell", "@noise", first.arguments[8])
    mixed = performer.make_take("dark bell", "@seed", 21, "@prompt2", "bright rain", "@mix", 0.5)
    one, two, three = (soundfile.read(str(take.arguments[2]))[0] for take in (first, again, mixed))
    assert abs(one - two).max() < 10 ** (-80 / 20)
    assert abs(one - three).max() > 0.001


def test_models_are_loaded_and_unloaded(performer: UdpClient) -> None:
    assert performer.ask("load", "older") == Reply("loaded", "s", ("older",))
    both = performer.ask("status").arguments[2]
    assert performer.ask("unload", "older") == Reply("unloaded", "s", ("older",))
    assert performer.ask("status").arguments[2] == int(both) - 1


def test_models_continue_after_a_damaged_checkpoint(performer: UdpClient) -> None:
    performer.say("generate", "damaged", "pad", "@model", "damaged", "@steps", 1)
    failure = performer.until_end()[-1]
    assert failure.name == "fail"
    assert failure.arguments[1] in ("missing-weights", "model-error")
    assert "damaged" in str(failure.arguments[2])
    performer.make_take("pad")


def test_models_continue_after_a_killed_engine(performer: UdpClient, real_daemon: DaemonProcess) -> None:
    performer.make_take("pad")
    engine = real_daemon.family()[1:]
    for process in engine:
        process.kill()
    performer.make_take("pad")
    assert gone(engine)


REFUSED: dict[str, tuple[tuple[str | float, ...], tuple[str, ...]]] = {
    "no steps": (("@steps", 0), ("steps", "0", "1 to 1000")),
    "many steps": (("@steps", 10000), ("steps", "10000", "1 to 1000")),
    "steps that the scheduler has not": (("@steps", 995, "@scheduler", "unipc"), ("steps", "995", "unipc", "990")),
    "a scheduler that there is not": (("@scheduler", "magic"), ("scheduler", "magic", "ddim")),
    "noise for another scheduler": (("@eta", 0.5, "@scheduler", "heun"), ("eta", "0.5", "heun", "ddim")),
    "longer than the model makes": (("@seconds", 500), ("seconds", "500", "0.05 to")),
    "a word that is not in the prompt": (("@weights", "trumpet:1.4"), ("weights", "trumpet", "pad")),
    "a part without a sound": (("@start", 0.5), ("start", "init")),
    "speech": (("@transcription", "hello"), ("transcription", "tiny")),
    "a model that there is not": (("@model", "nothing"), ("nothing", "tiny")),
}


def test_models_refuse_impossible_requests_beside_a_sound(performer: UdpClient, real_daemon: DaemonProcess) -> None:
    """Each gets one answer, at once; another client's sound goes on meanwhile.

    What another model made lends no noise, and a model in use stays.
    """
    older = performer.make_take("pad", "@model", "older").arguments[8]
    with clients.udp(real_daemon.osc) as other:
        performer.say("generate", "goes on", "pad", "@steps", LONG_ENOUGH)
        performer.until_step()
        for name, (arguments, words) in REFUSED.items():
            answer = other.ask("generate", name, "warm pad", *arguments)
            assert (answer.name, answer.id) == ("fail", name)
            for word in words:
                assert word in str(answer.arguments[2]), f"{word!r} should be named in {answer.arguments[2]!r}"
        answer = other.ask("generate", "mixed", "warm pad", "@noise", older)
        assert answer.arguments[:2] == ("mixed", "bad-request")
        assert "older" in str(answer.arguments[2])
        answer = other.ask("unload", "tiny")
        assert answer.arguments[:2] == ("unload", "bad-request")
        assert "in use by 1 request" in str(answer.arguments[2])
        other.nothing_more()
        performer.say("cancel", "goes on")
        events = performer.until_end()
        assert events[-1] == Reply("cancelled", "s", ("goes on",))
        steps = [int(str(event.arguments[2])) for event in events[:-1]]
        assert steps == sorted(set(steps))


def test_models_stop_while_torch_is_being_imported(models: Path, tmp_path: Path) -> None:
    daemon = start(models, tmp_path)
    with clients.udp(daemon.osc) as client:
        assert client.ask("generate", "too early", "pad").name == "queued"
        family = daemon.family()
        daemon.signal()
        assert client.until_end()[-1].arguments[:2] == ("too early", "shutting-down")
        assert daemon.ended() == 0
        assert gone(family)


def test_models_stop_while_denoising(real_daemon: DaemonProcess) -> None:
    with clients.udp(real_daemon.osc) as client:
        client.say("generate", "long", "pad", "@steps", LONG_ENOUGH, "@seconds", 10, "@takes", 8)
        client.until_step()
        family = real_daemon.family()
        real_daemon.signal()
        end = client.until_end()[-1]
        assert end.arguments[:2] == ("long", "shutting-down"), end
        assert real_daemon.ended() == 0
        assert gone(family)
        assert real_daemon.half_written() == []

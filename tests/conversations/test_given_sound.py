"""Sounds that are continued, or of which a part is made anew: all else in the file is the given sound, to the bit."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conversations.clients import UdpClient, new_id, order
from tests.conversations.daemons import DaemonProcess
from timbred.render.keeping import CONTINUED, REPAINTED

RATE = 48_000


@pytest.fixture(scope="module")
def given(daemon: DaemonProcess) -> Path:
    """A second and a half of stereo in 24 bits, quiet, with a loud beginning."""
    folder = daemon.takes / "recorded"
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(5)
    samples = np.stack(
        [0.2 * np.sin(np.arange(RATE * 3 // 2) / 9), 0.05 * chance.standard_normal(RATE * 3 // 2)], axis=1
    )
    samples[:100] *= 3
    soundfile.write(folder / "stereo.wav", samples, RATE, subtype="PCM_24")
    return folder / "stereo.wav"


def made(client: UdpClient, *arguments: str | float) -> tuple[np.ndarray, int]:
    name = new_id()
    client.say("generate", name, "warm pad", "@steps", 2, *arguments)
    events = client.until_end(name)
    assert events[-1].name == "done", events[-1]
    return soundfile.read(str(events[-1].arguments[2]), dtype="float32", always_2d=True)


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def test_a_sound_is_continued_from_its_own_end(client: UdpClient, given: Path) -> None:
    there, (whole, rate) = read(given), made(client, "@init", str(given), "@extend", 1)
    assert rate == RATE
    assert whole.shape == (RATE * 5 // 2, 2)
    joined = len(there) - round(CONTINUED * RATE)
    assert np.array_equal(whole[:joined], there[:joined])
    assert np.abs(whole[len(there) : -1000]).max() > 0.01


def test_a_part_is_made_anew_and_nothing_else(client: UdpClient, given: Path) -> None:
    there, (whole, _) = read(given), made(client, "@init", str(given), "@start", 0.5, "@end", 1)
    assert whole.shape == there.shape
    outside = [*range(RATE // 2), *range(RATE, len(there))]
    assert np.array_equal(whole[outside], there[outside])
    inside = slice(RATE // 2 + round(REPAINTED * RATE), RATE - round(REPAINTED * RATE))
    assert not np.allclose(whole[inside], there[inside], atol=0.01)


def test_new_highs_leave_the_lows_as_they_are(client: UdpClient, given: Path) -> None:
    """The left channel is a tone of 849 Hz."""
    there, (whole, _) = read(given), made(client, "@init", str(given), "@low", 4000)
    assert whole.shape == there.shape
    assert np.abs((whole - there)[4800:-4800, 0]).max() < 0.01 * 0.2


def test_a_level_that_is_asked_for_is_reached(client: UdpClient, given: Path) -> None:
    whole, _ = made(client, "@init", str(given), "@extend", 1, "@peak", -6, "@channels", 1, "@rate", 44100)
    assert whole.shape == (round(2.5 * 44100), 1)
    assert np.abs(whole).max() == pytest.approx(10 ** (-6 / 20), abs=1e-4)


def test_what_goes_beyond_full_scale_is_not_clipped(client: UdpClient, given: Path) -> None:
    loud = given.with_name("loud.wav")
    soundfile.write(loud, 3 * read(given), RATE, subtype="FLOAT")
    there = read(loud)
    assert np.abs(there).max() > 1.5
    inside = slice(0, len(there) - round(CONTINUED * RATE))
    whole, _ = made(client, "@init", str(loud), "@extend", 1)
    assert np.allclose(whole[inside], there[inside] / np.abs(there).max(), atol=1e-6)
    whole, _ = made(client, "@init", str(loud), "@extend", 1, "@bits", 32)
    assert np.array_equal(whole[inside], there[inside])


def test_a_style_is_transferred_as_any_sound_is_made(client: UdpClient, given: Path) -> None:
    whole, _ = made(client, "@init", str(given), "@strength", 0.5)
    assert whole.shape == (RATE * 3 // 2, 1)
    assert np.abs(whole).max() == pytest.approx(10 ** (-1 / 20), abs=1e-4)


def test_a_continuation_has_a_preview(client: UdpClient, given: Path) -> None:
    name = new_id()
    client.say("generate", name, "warm pad", "@steps", 2, "@init", str(given), "@extend", 1, "@preview", 1)
    events = client.until_end(name)
    heard = [event for event in order(events) if event != "progress"]
    assert heard == ["queued", "started", "preview", "take", "done"]
    previews = [event for event in events if event.name == "preview"]
    assert len(previews) == 1
    early = read(Path(str(previews[0].arguments[1])))
    assert early.shape == (RATE * 5 // 2, 2)
    assert np.abs(early - np.pad(read(given), ((0, RATE), (0, 0))))[: RATE - 1000].max() < 1e-4, "16 bits, dithered"


def test_a_continuation_is_continued(client: UdpClient, given: Path) -> None:
    """By its take id, with what stays still the same."""
    name = new_id()
    client.say("generate", name, "warm pad", "@steps", 2, "@init", str(given), "@extend", 0.5)
    take = next(event for event in client.until_end(name) if event.name == "take")
    first = read(Path(str(take.arguments[2])))
    whole, _ = made(client, "@init", str(take.arguments[8]), "@extend", 0.5)
    joined = len(first) - round(CONTINUED * RATE)
    assert np.array_equal(whole[:joined], first[:joined])
    assert len(whole) == RATE * 5 // 2

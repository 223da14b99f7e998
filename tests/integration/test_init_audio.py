"""Sounds that are continued, or of which a part is made anew: all else in the file is the given sound, to the bit."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.integration.clients import UdpClient, new_id, order
from tests.integration.daemons import DaemonProcess
from timbred.dsp.splice import CONTINUE_CROSSFADE_S, INPAINT_CROSSFADE_S

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


def test_init_audio_is_continued_from_its_own_end(client: UdpClient, given: Path) -> None:
    there, (whole, rate) = read(given), made(client, "@init", str(given), "@extend", 1)
    assert rate == RATE
    assert whole.shape == (RATE * 5 // 2, 2)
    joined = len(there) - round(CONTINUE_CROSSFADE_S * RATE)
    assert np.array_equal(whole[:joined], there[:joined])
    assert np.abs(whole[len(there) : -1000]).max() > 0.01


def test_init_audio_part_is_replaced_alone(client: UdpClient, given: Path) -> None:
    there, (whole, _) = read(given), made(client, "@init", str(given), "@start", 0.5, "@end", 1)
    assert whole.shape == there.shape
    outside = [*range(RATE // 2), *range(RATE, len(there))]
    assert np.array_equal(whole[outside], there[outside])
    inside = slice(RATE // 2 + round(INPAINT_CROSSFADE_S * RATE), RATE - round(INPAINT_CROSSFADE_S * RATE))
    assert not np.allclose(whole[inside], there[inside], atol=0.01)


def test_init_audio_keeps_its_lows_under_new_highs(client: UdpClient, given: Path) -> None:
    """The left channel is a tone of 849 Hz."""
    there, (whole, _) = read(given), made(client, "@init", str(given), "@low", 4000)
    assert whole.shape == there.shape
    assert np.abs((whole - there)[4800:-4800, 0]).max() < 0.01 * 0.2


def test_init_audio_reaches_a_requested_level(client: UdpClient, given: Path) -> None:
    whole, _ = made(client, "@init", str(given), "@extend", 1, "@peak", -6, "@channels", 1, "@rate", 44100)
    assert whole.shape == (round(2.5 * 44100), 1)
    assert np.abs(whole).max() == pytest.approx(10 ** (-6 / 20), abs=1e-4)


def test_init_audio_beyond_full_scale_is_not_clipped(client: UdpClient, given: Path) -> None:
    loud = given.with_name("loud.wav")
    soundfile.write(loud, 3 * read(given), RATE, subtype="FLOAT")
    there = read(loud)
    assert np.abs(there).max() > 1.5
    inside = slice(0, len(there) - round(CONTINUE_CROSSFADE_S * RATE))
    for keys in ((), ("@bits", 32)):
        whole, _ = made(client, "@init", str(loud), "@extend", 1, *keys)
        assert np.array_equal(whole[inside], there[inside])
    for keys in (("@bits", 24), ("@format", "flac"), ("@format", "ogg"), ("@bits", 16, "@loudness", "off")):
        assert refused(client, "@init", str(loud), "@extend", 1, *keys).startswith("init: it reaches +5")
    whole, _ = made(client, "@init", str(loud), "@extend", 1, "@bits", 24, "@peak", -1)
    assert np.abs(whole).max() == pytest.approx(10 ** (-1 / 20), abs=1e-4)


def refused(client: UdpClient, *arguments: str | float) -> str:
    """The reason why a request is refused."""
    name = new_id()
    client.say("generate", name, "warm pad", "@steps", 2, *arguments)
    events = client.until_end(name)
    assert [event.name for event in events if event.name != "queued"] == ["fail"], events
    assert events[-1].arguments[1] in ("bad-request", "bad-audio")
    return str(events[-1].arguments[2])


def written(folder: Path, kind: str, subtype: str, channels: int, rate: int, peak: float) -> Path:
    """A second of a tone for each channel, with an offset in one of them, up to a peak."""
    path = folder / f"{kind} {subtype} {channels} {rate} {peak}.{kind.lower()}"
    moments = np.arange(rate) / rate
    tones = [np.sin(2 * np.pi * (110 + 30 * channel) * moments) / (1 + channel) for channel in range(channels)]
    samples = peak * np.stack(tones, axis=1)
    samples[:, -1] = 0.9 * samples[:, -1] + 0.02 * peak
    soundfile.write(path, samples, rate, subtype=subtype, format=kind)
    return path


KINDS = [
    ("WAV", "PCM_U8", 1, 48_000, 0.7, "PCM_16"),
    ("WAV", "PCM_16", 2, 44_100, 0.7, "PCM_16"),
    ("WAV", "PCM_16", 6, 22_050, 0.7, "PCM_16"),
    ("WAV", "PCM_24", 3, 48_000, 1.0, "PCM_24"),
    ("WAV", "PCM_24", 8, 11_025, 0.7, "PCM_24"),
    ("WAV", "FLOAT", 2, 44_101, 3.5, "FLOAT"),
    ("WAV", "FLOAT", 6, 8_000, 3.5, "FLOAT"),
    ("AIFF", "PCM_16", 2, 48_000, 0.7, "PCM_16"),
    ("AIFF", "PCM_24", 1, 96_000, 0.7, "PCM_24"),
    ("AIFF", "FLOAT", 2, 48_000, 2.0, "FLOAT"),
    ("FLAC", "PCM_16", 2, 44_100, 0.7, "PCM_16"),
    ("FLAC", "PCM_24", 6, 48_000, 0.7, "PCM_24"),
    ("FLAC", "PCM_S8", 1, 12_345, 0.7, "PCM_16"),
    ("OGG", "VORBIS", 2, 44_100, 0.7, "FLOAT"),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind[:4])))
@pytest.mark.parametrize("part", [("@extend", 0.5), ("@start", 0.3, "@end", 0.6)], ids=["extended", "repainted"])
def test_init_audio_keeps_channels_rate_format_and_level(
    client: UdpClient, given: Path, kind: tuple[str, str, int, int, float, str], part: tuple[str | float, ...]
) -> None:
    """8 bits are in 16, which hold them exactly; what was lossy is in float, as it was decoded."""
    major, subtype, channels, rate, peak, expected = kind
    path = written(given.parent, major, subtype, channels, rate, peak)
    name = new_id()
    client.say("generate", name, "warm pad", "@steps", 2, "@init", str(path), *part)
    events = client.until_end(name)
    assert events[-1].name == "done", events[-1]
    made_path = str(events[-1].arguments[2])
    info = soundfile.info(made_path)
    assert (info.channels, info.samplerate, info.subtype) == (channels, rate, expected)
    assert info.format == ("WAV" if major == "OGG" else major)
    there, whole = read(path), read(Path(made_path))
    ends = rate - round(CONTINUE_CROSSFADE_S * rate) if part[0] == "@extend" else round(0.3 * rate)
    assert np.array_equal(whole[:ends], there[:ends])
    if part[0] != "@extend":
        assert np.array_equal(whole[round(0.6 * rate) :], there[round(0.6 * rate) :])
    take = next(event for event in events if event.name == "take")
    assert take.arguments[4:6] == (rate, channels)


def test_init_audio_of_six_channels_keeps_them_and_their_lows(client: UdpClient, given: Path) -> None:
    path = written(given.parent, "WAV", "FLOAT", 6, 44_100, 2.5)
    there, (whole, rate) = read(path), made(client, "@init", str(path), "@low", 6000)
    assert (whole.shape, rate) == (there.shape, 44_100)
    assert np.abs((whole - there)[4410:-4410]).max() < 0.02 * 2.5


@pytest.mark.parametrize("subtype", ["PCM_32", "DOUBLE"])
def test_init_audio_of_more_bits_is_rounded_only_on_request(client: UdpClient, given: Path, subtype: str) -> None:
    peak = 0.7 if subtype == "PCM_32" else 3.5
    path = written(given.parent, "WAV", subtype, 2, RATE, peak)
    assert "more bits" in refused(client, "@init", str(path), "@extend", 0.5)
    whole, _ = made(client, "@init", str(path), "@extend", 0.5, "@bits", 32)
    there = soundfile.read(path, dtype="float64", always_2d=True)[0]
    assert np.abs(whole[: RATE // 2] - there[: RATE // 2]).max() < peak * 2**-24
    held = given.with_name(f"held {subtype}.wav")
    soundfile.write(held, read(path).astype("float64") if subtype == "DOUBLE" else read(given), RATE, subtype=subtype)
    whole, _ = made(client, "@init", str(held), "@extend", 0.5)
    assert np.array_equal(whole[: RATE // 2], read(held)[: RATE // 2]), "float32 holds these samples exactly"


def test_init_audio_refuses_what_many_channels_or_a_rate_prevent(client: UdpClient, given: Path) -> None:
    six = str(written(given.parent, "WAV", "PCM_16", 6, RATE, 0.5))
    assert refused(client, "@init", six, "@extend", 0.5, "@loudness", -20).startswith("loudness: ")
    whole, _ = made(client, "@init", six, "@extend", 0.5, "@loudness", -20, "@channels", 2)
    assert whole.shape[1] == 2
    slow = str(written(given.parent, "WAV", "PCM_16", 1, 4_000, 0.5))
    assert refused(client, "@init", slow, "@extend", 0.5).startswith("rate: init has 4000 Hz")
    whole, rate = made(client, "@init", slow, "@extend", 0.5, "@rate", 8000)
    assert (rate, len(whole)) == (8_000, 12_000)
    odd = str(written(given.parent, "WAV", "PCM_16", 1, 88_211, 0.5))
    assert refused(client, "@init", odd, "@extend", 0.5, "@format", "flac").startswith("rate: got 88211")


def test_init_audio_style_transfer_makes_a_new_sound(client: UdpClient, given: Path) -> None:
    whole, _ = made(client, "@init", str(given), "@strength", 0.5)
    assert whole.shape == (RATE * 3 // 2, 1)
    assert np.abs(whole).max() == pytest.approx(10 ** (-1 / 20), abs=1e-4)


def test_init_audio_continuation_has_a_preview(client: UdpClient, given: Path) -> None:
    name = new_id()
    client.say("generate", name, "warm pad", "@steps", 2, "@init", str(given), "@extend", 1, "@preview", 1)
    events = client.until_end(name)
    received = [event for event in order(events) if event != "progress"]
    assert received == ["queued", "started", "preview", "take", "done"]
    previews = [event for event in events if event.name == "preview"]
    assert len(previews) == 1
    early = read(Path(str(previews[0].arguments[1])))
    assert early.shape == (RATE * 5 // 2, 2)
    assert np.abs(early - np.pad(read(given), ((0, RATE), (0, 0))))[: RATE - 1000].max() < 1e-4, "16 bits, dithered"


def test_init_audio_continuation_is_continued(client: UdpClient, given: Path) -> None:
    """By its take id, with what stays still the same."""
    name = new_id()
    client.say("generate", name, "warm pad", "@steps", 2, "@init", str(given), "@extend", 0.5)
    take = next(event for event in client.until_end(name) if event.name == "take")
    first = read(Path(str(take.arguments[2])))
    whole, _ = made(client, "@init", str(take.arguments[8]), "@extend", 0.5)
    joined = len(first) - round(CONTINUE_CROSSFADE_S * RATE)
    assert np.array_equal(whole[:joined], first[:joined])
    assert len(whole) == RATE * 5 // 2

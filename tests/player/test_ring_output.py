"""How far sound is mixed ahead, with a sound library that only counts."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from timbred.player.process import devices as subject
from timbred.player.process.devices import LEAD_GROWTH, MAX_LEAD_RATIO, AudioDevice, Output

RATE = 48_000
DEVICE = AudioDevice(0, "card", "driver", 2, RATE, 0.005, is_default=True)


class Ring:
    """Counts what is in it."""

    def __init__(self, element: int, size: int) -> None:
        self.size = size
        self.read_available = 0

    def write(self, block: Any) -> None:
        self.read_available += len(block)
        assert self.read_available <= self.size


class Stream:
    """Takes frames when told; a ring that runs dry is let go."""

    opened: "Stream"

    def __init__(self, **options: Any) -> None:
        self.samplerate, self.latency, self.active = options["samplerate"], 0.005, True
        self.actions: list[Any] = []
        Stream.opened = self

    def start(self) -> None:
        pass

    def play_ringbuffer(self, ring: Ring) -> Any:
        self.actions = [SimpleNamespace(stats=SimpleNamespace(max_blocksize=128, output_underflows=0))]
        self.ring = ring
        return self.actions[0]

    def take(self, frames: int) -> None:
        self.ring.read_available -= min(frames, self.ring.read_available)
        if not self.ring.read_available:
            self.actions = []


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Output:
    monkeypatch.setattr(subject, "portaudio", lambda: SimpleNamespace(PortAudioError=OSError))
    monkeypatch.setitem(sys.modules, "rtmixer", SimpleNamespace(Mixer=Stream, RingBuffer=Ring))
    return Output(DEVICE, 2, 0.01)


def fill(output: Output) -> None:
    output.write(np.zeros((output.frames_missing, 2), np.float32))


def test_ring_output_keeps_the_lead_and_one_block_filled(output: Output):
    assert output.resume()
    fill(output)
    assert output.frames_written == 480 + 128
    Stream.opened.take(128)
    assert (output.frames_missing, output.frames_taken) == (128, 128)
    assert output.resume()
    assert (output.underruns, output.lead) == (0, 0.01)


@pytest.mark.parametrize(("lead", "block", "rest"), [(0.1, 128, 128 / RATE), (0.01, 128, 0.0025), (0.01, 1024, 0.0025)])
def test_ring_output_loses_at_most_one_block_between_two_wakeups(output: Output, lead: float, block: int, rest: float):
    subject_of = Output(output.device, 2, lead)
    assert subject_of.resume()
    Stream.opened.actions[0].stats.max_blocksize = block
    assert subject_of.poll_interval == pytest.approx(rest)
    fill(subject_of)
    Stream.opened.take(block)
    assert subject_of.resume()
    assert subject_of.underruns == 0


def test_ring_output_counts_each_underrun_and_lengthens_the_lead(output: Output):
    assert output.resume()
    leads: list[float] = []
    for number in range(1, 9):
        fill(output)
        Stream.opened.take(100_000)
        assert not output.resume(), "an underrun is reported once"
        assert output.resume()
        assert output.underruns == number
        leads.append(output.lead)
    assert leads[0] == pytest.approx(0.01 * LEAD_GROWTH)
    assert leads == sorted(leads)
    assert leads[-1] == pytest.approx(0.01 * MAX_LEAD_RATIO)

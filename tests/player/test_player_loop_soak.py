"""A loop sounds while everything else is as busy as it can be: what is captured of it is the loop, frame by frame.

Whether the ring ever runs dry hangs on the machine; that each time is counted, and that then not a frame is lost or
changed, doesn't. Nor does it hang on us whether the sound server itself is in time: where it isn't it says so, and
whole periods are missing or come twice. `python -m benchmarks.player_underruns` shows how often either happens.
"""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.player_underruns import hold_gil, keep_engine_busy
from tests.forked_programs import ENGINE, forked_command
from tests.player.player_stage import RATE, Require, jack_server, recording
from tests.player.unbroken import Gap, gaps
from timbred.audio import Samples
from timbred.config import load
from timbred.server import Daemon
from timbred.transports.base import InProcessClient

LOAD_S = 8.0
PERIOD = 128


def loop_of_noise() -> Samples:
    """Every frame another one, none of them silent."""
    wave = np.random.default_rng(7).uniform(0.02, 0.2, (RATE // 10, 2)) * np.resize([1.0, -1.0], (RATE // 10, 1))
    return wave.astype(np.float32)


async def keep_voices_busy(client: InProcessClient, path: Path, until: float) -> int:
    """Start, change and stop other voices on other channels without a pause. How many were started."""
    started = 0
    while time.monotonic() < until:
        voice = 2 + started % 8
        client.send(type="play", voice=voice, take=str(path), loop=1, out=3, gain=-20, speed=0.5 + started % 3)
        await client.request(type="set", voice=voice, gain=-30, pan=0.5, fade=0.05)
        if started % 3 == 2:
            await client.request(type="stop", voice=voice)
        started += 1
    return started


async def soak(folder: Path, require_host: Require) -> tuple[Samples, int, int, tuple[int, int], int]:
    soundfile.write(folder / "loop.wav", loop_of_noise(), RATE, subtype="FLOAT")
    ports = [f"{name}=0" for name in ("osc.port", "zmq.requests", "zmq.events", "http.port")]
    flags = [*ports, f"takes.folder={folder}", "player.channels=4", "log.level=error", "discovery.announce=0"]
    daemon = Daemon(load(None, {}, flags), engine_program=forked_command(ENGINE))
    await daemon.start()
    try:
        assert (await daemon.player.opened()).channels >= 2
        client = daemon.transports.client()
        with recording(require_host, folder) as record:
            await client.request(type="play", voice=1, take=str(folder / "loop.wav"), loop=1)
            until = time.monotonic() + LOAD_S
            with hold_gil():
                busy, voices = await asyncio.gather(
                    keep_engine_busy(daemon, until),
                    keep_voices_busy(daemon.transports.client(), folder / "loop.wav", until),
                )
            underruns, late = daemon.player.underruns, daemon.player.last.late
            await client.request(type="stop", voice="*")
            ended = daemon.player.last.frame
            while daemon.player.last.frame < ended + RATE:
                await asyncio.sleep(0.05)
            return record.samples(), underruns, late, busy, voices
    finally:
        await daemon.stop()


async def test_player_loop_soak_plays_a_loop_unchanged_under_load(
    require_host: Require, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with jack_server(require_host, period=PERIOD):
        captured, underruns, late, (made, loads), voices = await soak(tmp_path, require_host)
    fade_out = round(0.01 * RATE)
    last = int(np.flatnonzero(np.abs(captured).max(axis=1) > 0)[-1])
    found = gaps(captured[: last - fade_out], loop_of_noise())
    of_the_ring = [gap for gap in found if gap.silent and gap.frames and gap.skipped == 0]
    of_the_server = [gap for gap in found if gap not in of_the_ring]
    with capsys.disabled():
        print(f"\n  {made} sounds, {loads} loads, {voices} other voices; {underruns} underruns, {late} late, {found}")
    assert made
    assert voices
    assert len(of_the_ring) <= underruns + late, "each is counted"
    assert late or not of_the_server, "and the server says when it was late"
    for gap in found:
        assert gap.silent, found
        assert gap.skipped is not None, found
        assert gap.skipped % PERIOD == 0, found


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("none", []),
        ("silence", [Gap(20_000, 100, silent=True, skipped=0)]),
        ("lost", [Gap(20_000, 0, silent=True, skipped=1)]),
        ("repeated", [Gap(20_000, 0, silent=True, skipped=-128)]),
        ("changed", [Gap(20_000, 1, silent=False, skipped=1)]),
    ],
)
def test_gaps_finds_each_kind_of_damage(damage: str, expected: list[Gap]):
    loop = loop_of_noise()
    whole = np.tile(loop, (10, 1))
    before, after = whole[:20_000], whole[20_000:]
    silence = np.zeros((100, 2), np.float32)
    damaged = {
        "none": whole,
        "silence": np.concatenate((before, silence, after)),
        "lost": np.concatenate((before, after[1:])),
        "repeated": np.concatenate((before, before[-128:], after)),
        "changed": np.concatenate((before, after[:1] * 1.001, after[1:])),
    }[damage]
    found = gaps(np.concatenate((silence, damaged, silence)), loop)
    assert [Gap(gap.first - 100, gap.frames, gap.silent, gap.skipped) for gap in found] == expected

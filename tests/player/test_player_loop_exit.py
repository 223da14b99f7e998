"""A player that ends fades out and takes leave of the sound server, which goes on for everybody else."""

import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.patience import TIMEOUT_S
from tests.player.player_stage import RATE, JackServer, Require, player, recording
from timbred.audio import Samples

ROOT = Path(__file__).parents[2]

DAEMON = """
import anyio, asyncio, signal
import numpy as np
from tests.player.player_stage import RATE, play, player
from timbred.protocol import messages as m

def tone():
    wave = 0.5 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)
    return np.repeat(wave[:, None], 2, axis=1).astype(np.float32)

async def main():
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with player() as (subject, outbox):
        await subject.opened()
        print(subject.process.pid, flush=True)
        input()
        play(subject, tone(), loop=True)
        began = await outbox.until(m.Playing)
        while subject.last.frame < began.frame + 3 * RATE:
            await asyncio.sleep(0.05)
        print("sounding", flush=True)
        await told.wait()

anyio.run(main)
"""


async def recorded_until_it_left(sign: int, require_host: Require, folder: Path) -> Samples:
    """What is heard of a daemon that plays a loud tone when it gets this signal."""
    daemon = psutil.Popen([sys.executable, "-c", DAEMON], stdin=-1, stdout=-1, cwd=ROOT, text=True)
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    try:
        playing = psutil.Process(int(daemon.stdout.readline()))
        with recording(require_host, folder) as record:
            daemon.stdin.write("play\n")
            daemon.stdin.flush()
            assert daemon.stdout.readline() == "sounding\n"
            daemon.send_signal(sign)
            daemon.wait()
            playing.wait(TIMEOUT_S)
            await another_opens()
            return record.samples()
    finally:
        if daemon.is_running():
            daemon.kill()
            daemon.wait()
        daemon.stdin.close()
        daemon.stdout.close()


async def another_opens() -> None:
    """A server that waits for the one who left would let nobody in."""
    async with player() as (subject, _):
        assert (await subject.opened()).channels == 2


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
async def test_player_loop_exit_fades_out_and_leaves_the_sound_server_running(
    jack: JackServer, require_host: Require, tmp_path: Path, sign: signal.Signals
):
    captured = (await recorded_until_it_left(sign, require_host, tmp_path))[:, 0]
    steepest = 0.5 * 2 * np.pi * 220 / RATE
    assert np.abs(captured).max() == pytest.approx(0.5, abs=0.01)
    assert np.abs(np.diff(captured)).max() <= steepest * 1.05, "no click where it ends"
    assert not captured[-64:].any()

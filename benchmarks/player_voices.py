"""Cost of mixing: the time to mix a block divided by its duration, by voices and block size."""

import time
from statistics import median

import numpy as np

from benchmarks.machine import machine
from timbred.ipc.player_messages import Moment
from timbred.player.beat_grid import BeatGrid
from timbred.player.mixer.mixer import Mixer
from timbred.player.mixer.voice import StartVoice, VoiceSource
from timbred.player.process.devices import BLOCK_FRAMES
from timbred.player.process.player_loop import MAX_BLOCK_FRAMES

RATE_HZ = 48_000
BLOCK_COUNT = 600
LEAD_S = 0.01
"""Default lead of the player in seconds."""


def shares(voices: int, block: int, speed: float, level: float, prepared_speed: float = 1.0) -> tuple[float, float]:
    """Return the median time of a block over its length, and the largest share that any lead's length took.

    The second value is the load that a lead tolerates. The sounds are resampled for one speed and played at another.
    """
    mixer = Mixer(RATE_HZ, 2, BeatGrid(RATE_HZ, 120))
    sound = VoiceSource(
        np.random.default_rng(0).normal(0, level, (RATE_HZ, 2)).astype(np.float32), RATE_HZ / prepared_speed, loop=True
    )
    for voice in range(voices):
        mixer.play(StartVoice(voice, voice + 1, sound, speed=speed), Moment())
    times: list[float] = []
    for _ in range(BLOCK_COUNT):
        started_at = time.perf_counter()
        mixer.render(block)
        times.append(time.perf_counter() - started_at)
    within = max(1, round(LEAD_S * RATE_HZ / block))
    most = max(sum(times[start : start + within]) / within for start in range(BLOCK_COUNT - within + 1))
    return median(times) * RATE_HZ / block, most * RATE_HZ / block


def main() -> None:
    """Print the table."""
    print(f"mixing, share of real time at {RATE_HZ} Hz; {machine()}")
    for voices in (1, 8, 64):
        for block in (BLOCK_FRAMES, MAX_BLOCK_FRAMES):
            kinds = ((1.0, 0.001, 1.0), (1.3, 0.001, 1.3), (1.3, 0.001, 1.0), (1.0, 0.5, 1.0))
            plain, fast, moved, limited = (shares(voices, block, *kind) for kind in kinds)
            figures = (
                f"{plain[0]:.3f} as recorded, {fast[0]:.3f} at another speed, {moved[0]:.3f} just after `set @speed` "
                f"(at most {moved[1]:.3f} in {LEAD_S * 1000:g} ms), {limited[0]:.3f} limited"
            )
            print(f"  {voices:2d} voices, blocks of {block:3d}: {figures}")


if __name__ == "__main__":
    main()

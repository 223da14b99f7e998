"""A kit of eight sounds, asked for at once and played as a bar of sixteen steps, in one file: prints its path.

python bridges/python/drum_kit.py --bpm 120 --bars 2 --out beat.wav
"""

import argparse
import asyncio
import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from timbred.client import AsyncTimbred, Sound
from timbred.client.requests import GenerateKeys
from timbred.errors import TimbredError

RATE = 48000
PATTERNS = {
    "a deep punchy kick drum": "x...x...x...x...",
    "a crisp snare drum": "....x.......x..x",
    "a closed hi-hat": "x.x.x.x.x.x.x.x.",
    "an open hi-hat": "..............x.",
    "a hand clap": "............x...",
    "a low tom": "..........x.....",
    "a wooden rim click": "...x..x.........",
    "a metallic bell": "x...............",
}
"""What each sound is, and on which sixteenths it plays."""


async def kit(port: int | None) -> list[Sound]:
    """All sounds, made side by side."""
    async with AsyncTimbred(requests=port) as timbred:
        keys: GenerateKeys = {"seconds": 0.5, "seed": 1, "rate": RATE, "channels": 1, "trim": True, "to": "none"}
        return await asyncio.gather(*(timbred.generate(prompt, **keys) for prompt in PATTERNS))


def beat(sounds: list[Sound], bpm: float, bars: int) -> NDArray[np.float32]:
    """The patterns as sound, shape (frames,), with its loudest sample at -1 dBFS."""
    step = RATE * 60 / bpm / 4
    mixed = np.zeros(round(16 * bars * step) + RATE, np.float32)
    for sound, pattern in zip(sounds, PATTERNS.values(), strict=True):
        samples = sound.samples[:, 0]
        for place in (place for place, mark in enumerate(pattern * bars) if mark == "x"):
            begin = round(place * step)
            mixed[begin : begin + len(samples)] += samples
    mixed = mixed[: round(16 * bars * step)]
    return mixed * (10 ** (-1 / 20) / np.abs(mixed).max())


def main() -> None:
    """Make the kit, play the bar, write the file."""
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, help="of ZeroMQ requests; without it the daemon is found by itself")
    options.add_argument("--bpm", type=float, default=120.0)
    options.add_argument("--bars", type=int, default=2)
    options.add_argument("--out", type=Path, default=Path("beat.wav"))
    given = options.parse_args()
    try:
        sounds = asyncio.run(kit(given.port))
    except TimbredError as error:
        sys.exit(f"timbred: {error}")
    try:
        with given.out.open("xb") as file:  # never over another file
            soundfile.write(file, beat(sounds, given.bpm, given.bars), RATE, "PCM_24", format="WAV")
    except FileExistsError:
        sys.exit(f"{given.out} is there already: name another file with --out")
    print(given.out.absolute())


if __name__ == "__main__":
    main()

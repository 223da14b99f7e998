"""Render a drum kit of eight sounds concurrently and mix a beat of sixteen steps into one file; print its path.

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
"""Prompt of each sound, and its pattern of sixteenths."""


async def kit(port: int | None) -> list[Sound]:
    """Render all sounds concurrently."""
    async with AsyncTimbred(requests=port) as timbred:
        keys: GenerateKeys = {"seconds": 0.5, "seed": 1, "rate": RATE, "channels": 1, "trim": True, "to": "none"}
        return await asyncio.gather(*(timbred.generate(prompt, **keys) for prompt in PATTERNS))


def beat(sounds: list[Sound], bpm: float, bars: int) -> NDArray[np.float32]:
    """Mix the patterns; returns samples of shape (frames,) with a peak of -1 dBFS."""
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
    """Render the kit and write the mixed file."""
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, help="port of ZeroMQ requests; by default the daemon is searched for")
    options.add_argument("--bpm", type=float, default=120.0)
    options.add_argument("--bars", type=int, default=2)
    options.add_argument("--out", type=Path, default=Path("beat.wav"))
    arguments = options.parse_args()
    try:
        sounds = asyncio.run(kit(arguments.port))
    except TimbredError as error:
        sys.exit(f"timbred: {error}")
    try:
        with arguments.out.open("xb") as file:  # never overwrites a file
            soundfile.write(file, beat(sounds, arguments.bpm, arguments.bars), RATE, "PCM_24", format="WAV")
    except FileExistsError:
        sys.exit(f"{arguments.out} exists already: choose another file with --out")
    print(arguments.out.absolute())


if __name__ == "__main__":
    main()

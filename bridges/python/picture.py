"""A sound as a picture: its waveform, and how loud each frequency is over time. Needs matplotlib.

python bridges/python/picture.py "a deep punchy kick drum" "a bright bell" --out sounds.png
"""

import argparse
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np

from timbred.client import Sound, Timbred
from timbred.client.requests import GenerateKeys
from timbred.errors import TimbredError

WINDOW = 1024


def draw(sounds: dict[str, Sound], out: Path) -> None:
    """One column for each sound: the samples above, their spectrum in dB below."""
    figure, grid = plt.subplots(2, len(sounds), figsize=(4.2 * len(sounds), 4.6), squeeze=False, layout="constrained")
    for (prompt, sound), wave, spectrum in zip(sounds.items(), *grid, strict=True):
        mono = sound.samples.mean(axis=1)
        wave.plot(np.arange(len(mono)) / sound.rate, mono, linewidth=0.5)
        wave.set(title=prompt, ylim=(-1, 1), xlim=(0, sound.seconds), ylabel="sample")
        windows = {"NFFT": WINDOW, "noverlap": WINDOW * 3 // 4}
        spectrum.specgram(mono + 1e-9, Fs=sound.rate, vmin=-140, vmax=-30, cmap="magma", **windows)
        spectrum.set(xlabel="seconds", ylabel="Hz", ylim=(0, 16000), xlim=(0, sound.seconds))
    with out.open("xb") as file:  # never over another file
        figure.savefig(file, dpi=110, format=out.suffix.removeprefix(".") or "png")
    plt.close(figure)


def main() -> None:
    """Ask for the sounds, one after the other, and draw them."""
    options = argparse.ArgumentParser()
    options.add_argument("prompts", nargs="*", default=["a deep punchy kick drum", "a bright bell"])
    options.add_argument("--port", type=int, help="of ZeroMQ requests; without it the daemon is found by itself")
    options.add_argument("--seconds", type=float, default=1.0)
    options.add_argument("--out", type=Path, default=Path("sounds.png"))
    given = options.parse_args()
    try:
        with Timbred(requests=given.port) as timbred:
            keys: GenerateKeys = {"seconds": given.seconds, "seed": 3, "to": "none"}
            sounds = {words: timbred.generate(words, **keys) for words in given.prompts}
    except TimbredError as error:
        sys.exit(f"timbred: {error}")
    try:
        draw(sounds, given.out)
    except FileExistsError:
        sys.exit(f"{given.out} is there already: name another file with --out")
    print(given.out.absolute())


if __name__ == "__main__":
    main()

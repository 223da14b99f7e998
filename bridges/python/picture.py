"""Draw the waveform and spectrogram of rendered sounds. Needs matplotlib.

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
    """Draw a column for each sound: waveform above, spectrogram in dB below."""
    figure, grid = plt.subplots(2, len(sounds), figsize=(4.2 * len(sounds), 4.6), squeeze=False, layout="constrained")
    for (prompt, sound), wave, spectrum in zip(sounds.items(), *grid, strict=True):
        mono = sound.samples.mean(axis=1)
        wave.plot(np.arange(len(mono)) / sound.rate, mono, linewidth=0.5)
        wave.set(title=prompt, ylim=(-1, 1), xlim=(0, sound.seconds), ylabel="sample")
        windows = {"NFFT": WINDOW, "noverlap": WINDOW * 3 // 4}
        spectrum.specgram(mono + 1e-9, Fs=sound.rate, vmin=-140, vmax=-30, cmap="magma", **windows)
        spectrum.set(xlabel="seconds", ylabel="Hz", ylim=(0, 16000), xlim=(0, sound.seconds))
    with out.open("xb") as file:  # never overwrites a file
        figure.savefig(file, dpi=110, format=out.suffix.removeprefix(".") or "png")
    plt.close(figure)


def main() -> None:
    """Render the sounds, one after the other, and draw them."""
    options = argparse.ArgumentParser()
    options.add_argument("prompts", nargs="*", default=["a deep punchy kick drum", "a bright bell"])
    options.add_argument("--port", type=int, help="port of ZeroMQ requests; by default the daemon is searched for")
    options.add_argument("--seconds", type=float, default=1.0)
    options.add_argument("--out", type=Path, default=Path("sounds.png"))
    arguments = options.parse_args()
    try:
        with Timbred(requests=arguments.port) as timbred:
            keys: GenerateKeys = {"seconds": arguments.seconds, "seed": 3, "to": "none"}
            sounds = {prompt: timbred.generate(prompt, **keys) for prompt in arguments.prompts}
    except TimbredError as error:
        sys.exit(f"timbred: {error}")
    try:
        draw(sounds, arguments.out)
    except FileExistsError:
        sys.exit(f"{arguments.out} exists already: choose another file with --out")
    print(arguments.out.absolute())


if __name__ == "__main__":
    main()

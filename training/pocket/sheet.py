"""`python -m training.pocket.sheet PICTURE`: draw spectrograms of recordings and of the model's sounds side by side."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.models.pocket import SAMPLE_RATE
from training.pocket.evaluate import (
    SOURCES,
    Request,
    SoundSource,
    class_requests,
    load_source,
    loop_requests,
    note_requests,
)
from training.pocket.words import note_name

SHOWN_KINDS = ("piano", "violin", "choir aah", "flute", "trumpet", "kick", "snare", "crash cymbal", "sea", "warm pad")


def spectrogram(audio: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return levels in decibels (frequencies, times) of (2, samples), 0 is the maximum, 40 Hz to 16 kHz logarithmic."""
    size, hop = 4096, 512
    mono = np.pad(audio.mean(0), (size // 2, size))
    frames = mono[np.arange(max(1, audio.shape[1] // hop))[:, None] * hop + np.arange(size)] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    bins = np.geomspace(40, 16_000, 160) * size / SAMPLE_RATE
    levels = 10 * np.log10(power[:, np.round(bins).astype(int)].T + 1e-12)
    return np.maximum(levels - levels.max(), -70)


SHOWN_COLOURS = 128


def requests() -> list[Request]:
    """Return the requests for some classes, two named notes and two loops; notes are named as they are recorded."""
    chosen = [request for request in class_requests(1) if request.sound.kind in SHOWN_KINDS]
    return [*map(_name_note, chosen), *note_requests(2, held=True), *loop_requests(2)]


def _name_note(request: Request) -> Request:
    note = request.sound.note
    return request if note is None else replace(request, words=f"{request.words} {note_name(note)}")


def draw_sheet(
    rows: Sequence[Request], columns: Sequence[tuple[str, Sequence[NDArray[np.float32]]]], path: Path
) -> None:
    """Draw a row of spectrograms for each request, with one spectrogram for each source."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from PIL import Image

    figure, axes = pyplot.subplots(
        len(rows), len(columns), figsize=(2.6 * len(columns), 1.1 * len(rows)), squeeze=False
    )
    for row, request in enumerate(rows):
        for column, (source, sounds) in enumerate(columns):
            axis = axes[row][column]
            axis.imshow(spectrogram(sounds[row]), origin="lower", aspect="auto", cmap="magma", vmin=-70, vmax=0)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(source, fontsize=8)
        axes[row][0].set_ylabel(request.words, fontsize=6, rotation=0, ha="right", va="center")
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
    Image.open(path).convert("RGB").quantize(SHOWN_COLOURS).save(path, optimize=True)


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--source", choices=SOURCES[2:], default="pocket")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pocket = load_source(arguments.source)
    rows = requests()
    columns = [
        (source, SoundSource(source, pocket).render(rows, 1)) for source in ("recordings", "codec", arguments.source)
    ]
    draw_sheet(rows, columns, arguments.picture)


if __name__ == "__main__":
    main()

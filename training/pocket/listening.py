"""`python -m training.pocket.listening`: render the sounds of `docs/pocket-sounds.md`, and write the page.

The model in the package renders them, or another exported folder (`--model`). Equal models give equal files.
"""

import argparse
import math
import re
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from timbred.dsp.pipeline import measure_loudness
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.pocket_plans import named_note, tempo_of
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models.pocket_words import read_words
from timbred.models.registry import Entry, build, pocket_folder
from training.pocket import measures
from training.pocket.settings import REPOSITORY

PAGE = REPOSITORY / "docs" / "pocket-sounds.md"
FOLDER = REPOSITORY / "docs" / "pocket-sounds"
MAX_BYTES = 2_500_000
"""Largest size of all files together."""

PEAK = 10 ** (-1 / 20)
"""Largest amplitude of a file: -1 dBFS."""

COMPRESSION = 0.65
"""Of Vorbis, 0 (largest files) to 1: about 80 kbit a second."""

SERIAL = 1
"""Serial number of each Ogg stream, which is random otherwise."""

SEED = 11
LOOP_BARS = 2
SECONDS = {"drums": 1.2, "effects and ambiences": 3.0, "recorded": 2.0}
USUAL_SECONDS = 2.0
MELODIC_WORDS = frozenset({"chord", "arpeggio", "scale"})

PROMPTS: dict[str, tuple[str, ...]] = {
    "piano": ("a grand piano c4", "soft electric piano e3", "harpsichord c minor chord"),
    "chromatic percussion": ("glockenspiel c6", "vibraphone f4", "marimba pentatonic scale c4", "tubular bells g3"),
    "organ": ("church organ c3", "drawbar organ c minor 7 chord", "accordion a4"),
    "guitar": ("nylon guitar e3", "clean guitar a minor chord", "distortion guitar e2"),
    "bass": ("acoustic bass e2", "slap bass a1", "acid bass c2", "synth bass c2 with distortion"),
    "strings": (
        "violin a4", "cello c3", "pizzicato strings g4", "string ensemble d minor chord",
        "harp c major arpeggio 120 bpm",
    ),
    "voice": ("choir aah c4", "voice ooh e4", "solo vox a4"),
    "brass": ("trumpet c5", "french horn f3", "hard brass section c major chord"),
    "reed": ("clarinet d4", "alto sax g4", "oboe a4"),
    "flute": ("flute c5", "pan flute g4", "ocarina e5"),
    "lead": ("saw lead a3", "square lead c4"),
    "pad": ("warm pad c4", "halo pad e minor chord in a big hall"),
    "effect": ("crystal c5", "echo drops c4"),
    "ethnic": ("sitar d3", "koto a4", "kalimba c5"),
    "percussive": ("steel drum c5", "taiko c3"),
    "drums": ("kick", "snare in a large room", "closed hi-hat", "crash cymbal"),
    "drum loops": (
        "house drum loop 124 bpm", "dusty hip hop drum loop 90 bpm", "drum and bass drum loop 174 bpm",
        "jazz drum loop 140 bpm with brushes",
    ),
    "effects and ambiences": ("seashore", "helicopter"),
    "recorded": ("vinyl hiss", "808 kick"),
    "synthesised": ("rain", "riser", "zap"),
}  # fmt: skip
"""The prompts by family of the vocabulary."""

HEAD = """# Sounds of pocket

Sounds of the embedded model, in all of its families, each from the prompt beside it with the seed {seed}. Written by
`python -m training.pocket.listening`, which renders them again. Drum loops have {bars} bars and repeat without a seam.

`loudness` is integrated loudness (BS.1770). For named notes `pitch` is the deviation of the partials from the note, and
`HNR` the harmonics-to-noise ratio (Boersma 1993), from 6 % to 60 % of the sound.
"""


@dataclass(frozen=True)
class ListedSound:
    """One sound of the page.

    Attributes:
        family: family of its kind.
        prompt: its prompt.
    """

    family: str
    prompt: str

    @property
    def file_name(self) -> str:
        """Name of its file."""
        return re.sub(r"[^a-z0-9]+", "-", self.prompt.replace("#", "s")).strip("-") + ".ogg"

    @property
    def bpm(self) -> float | None:
        """Tempo of a drum loop; None for other sounds."""
        return tempo_of(read_words(self.prompt)) if self.family == "drum loops" else None

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        bpm = self.bpm
        return SECONDS.get(self.family, USUAL_SECONDS) if bpm is None else LOOP_BARS * 240 / bpm

    @property
    def note(self) -> int | None:
        """The MIDI note of a single named note."""
        words = read_words(self.prompt)
        return None if MELODIC_WORDS & {word.text for word in words} else named_note(words)


SOUNDS = tuple(ListedSound(family, prompt) for family, prompts in PROMPTS.items() for prompt in prompts)


def load_model(folder: Path | None) -> tuple[LatentDiffusion, Entry]:
    """Load the model in the package, or one of a folder, as the engine does."""
    sources = {} if folder is None else {"listened": str(folder.absolute())}
    entry = build(pocket_folder(), sources)["pocket" if folder is None else "listened"]
    name = entry.card.name
    return make_resident(entry.checkpoint(), name, torch.device("cpu"), torch.float32, lambda _: None), entry


def render_listed(model: LatentDiffusion, entry: Entry, sound: ListedSound) -> tuple[NDArray[np.float32], int]:
    """Render a sound with its peak at -1 dBFS: (frames, channels), and the sample rate."""
    order = RenderOrder(
        inputs=PromptInputs(prompt=sound.prompt, bpm=sound.bpm or 0.0),
        seconds=sound.seconds,
        steps=entry.card.steps,
        guidance=entry.card.guidance,
        eta=0.0,
        scheduler=entry.card.scheduler,
        seeds=(SEED,),
        loop=sound.bpm is not None,
    )
    rendered = model.render(order, lambda _: None, lambda: False)
    samples = rendered.waveforms[0][: round(sound.seconds * rendered.rate)]
    return samples * np.float32(PEAK / max(1e-6, float(np.abs(samples).max()))), rendered.rate


def encode_ogg(samples: NDArray[np.float32], rate: int) -> bytes:
    """Encode samples, (frames, channels), as Ogg Vorbis; equal samples give equal bytes."""
    buffer = BytesIO()
    soundfile.write(buffer, samples, rate, format="OGG", subtype="VORBIS", compression_level=COMPRESSION)
    return set_serial(buffer.getvalue())


def _crc_table() -> list[int]:
    table: list[int] = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


def set_serial(ogg: bytes) -> bytes:
    """Give the pages of an Ogg stream the serial number SERIAL, and new checksums (RFC 3533)."""
    table, pages = _crc_table(), bytearray(ogg)
    start = 0
    while start < len(pages):
        segments = pages[start + 26]
        end = start + 27 + segments + sum(pages[start + 27 : start + 27 + segments])
        pages[start + 14 : start + 18] = struct.pack("<I", SERIAL)
        pages[start + 22 : start + 26] = bytes(4)
        checksum = 0
        for byte in pages[start:end]:
            checksum = ((checksum << 8) & 0xFFFFFFFF) ^ table[(checksum >> 24) ^ byte]
        pages[start + 22 : start + 26] = struct.pack("<I", checksum)
        start = end
    return bytes(pages)


def measured_cells(sound: ListedSound, samples: NDArray[np.float32], rate: int) -> tuple[str, str, str]:
    """Return loudness, pitch and harmonics-to-noise ratio as text; `-` for what a sound doesn't have."""
    loudness = measure_loudness(samples, rate)
    heard = "-" if loudness is None or not math.isfinite(loudness) else f"{loudness:.1f} LUFS"
    if sound.note is None or rate != measures.SAMPLE_RATE:
        return heard, "-", "-"
    mono = samples.mean(1).astype(np.float64)
    part = mono[int(0.06 * len(mono)) : int(0.6 * len(mono))]
    return heard, f"{measures.note_cents(part, sound.note):+.0f} cents", f"{measures.harmonics_to_noise(part):.0f} dB"


def format_page(cells: dict[str, tuple[str, str, str]]) -> str:
    """Format the page; `cells` are the measures of each sound by the name of its file."""
    parts = [HEAD.format(seed=SEED, bars=LOOP_BARS)]
    for family, prompts in PROMPTS.items():
        lines = [f"\n## {family.capitalize()}\n", "| prompt | sound | loudness | pitch | HNR |"]
        lines.append("| --- | --- | --- | --- | --- |")
        for sound in (ListedSound(family, prompt) for prompt in prompts):
            name = sound.file_name
            loop = " loop" if sound.bpm is not None else ""
            player = f'<audio controls{loop} preload="none" src="{FOLDER.name}/{name}"></audio>'
            lines.append(f"| [{sound.prompt}]({FOLDER.name}/{name}) | {player} | {' | '.join(cells[name])} |")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def main() -> None:
    """Render all sounds and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="an exported folder, instead of the model in the package")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # faster on a busy machine, and equal on all
    model, entry = load_model(arguments.model)
    FOLDER.mkdir(exist_ok=True)
    cells: dict[str, tuple[str, str, str]] = {}
    files: dict[str, bytes] = {}
    for sound in SOUNDS:
        samples, rate = render_listed(model, entry, sound)
        files[sound.file_name] = encode_ogg(samples, rate)
        cells[sound.file_name] = measured_cells(sound, samples, rate)
    size = sum(map(len, files.values()))
    if size > MAX_BYTES:
        raise SystemExit(f"the files have {size:,} bytes together; {MAX_BYTES:,} are allowed: raise COMPRESSION")
    for old in FOLDER.glob("*.ogg"):
        old.unlink()
    for name, content in files.items():
        (FOLDER / name).write_bytes(content)
    PAGE.write_text(format_page(cells), "utf-8")
    print(f"{len(files)} sounds, {size / 1e6:.2f} MB, in {FOLDER}; {PAGE}")


if __name__ == "__main__":
    main()

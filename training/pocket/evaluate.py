"""`python -m training.pocket.evaluate`: the table of figures, for recordings, the codec and the generator.

Every prompt goes through a wording that no caption used. `recordings` are the sounds themselves as rendered from the
font that the model learns from, which shows what the measures are worth; `codec` are these after encoding and decoding.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import signal

from training.evaluate import SoundRequest, prompts_for, run
from training.pocket import measures
from training.pocket.classes import CLASSES
from training.pocket.classifier import draw_sound, load_classifier, log_mel
from training.pocket.features import bands_of, from_bytes
from training.pocket.instruments import INSTRUMENTS, Instrument
from training.pocket.patterns import STYLES
from training.pocket.pipeline import Pocket, load_pocket
from training.pocket.render import render
from training.pocket.running import log_figures
from training.pocket.settings import RUNS, SAMPLE_RATE
from training.pocket.sounds import CHORDS, Sound, draw_loop
from training.pocket.words import CHORD_NAMES, HELD_OUT_TEMPLATES, NOTE_NAMES, note_name
from training.settings import SETTINGS

SECONDS = 2.0
SOURCES = ("recordings", "codec", "generator", "student")
BATCH = 12


@dataclass
class Request:
    """A sound to ask for.

    Attributes:
        words: without the wording around them.
        sound: the same as a recording.
        tags: numbers that its measure needs.
    """

    words: str
    sound: Sound
    seconds: float = SECONDS
    tags: dict[str, float] = field(default_factory=dict[str, float])


@dataclass
class Maker:
    """One source of sounds."""

    source: str
    pocket: Pocket | None = None

    def make(self, requests: Sequence[Request], seed: int) -> list[NDArray[np.float32]]:
        """(2, samples) of each request."""
        if self.source in ("recordings", "codec"):
            rendered = render([request.sound for request in requests])
            if self.source == "recordings":
                return rendered
            assert self.pocket is not None
            return [self._coded(self.pocket, audio) for audio in rendered]
        assert self.pocket is not None
        found: list[NDArray[np.float32] | None] = [None] * len(requests)
        lengths = sorted({request.seconds for request in requests})
        for seconds in lengths:
            places = [place for place, request in enumerate(requests) if request.seconds == seconds]
            for first in range(0, len(places), BATCH):
                part = places[first : first + BATCH]
                prompts = [worded(requests[place].words, place) for place in part]
                for place, sound in zip(part, self.pocket.sounds(prompts, seconds, seed + first), strict=True):
                    found[place] = sound.numpy()
        return [sound for sound in found if sound is not None]

    @staticmethod
    def _coded(pocket: Pocket, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        channels = from_bytes(torch.from_numpy(bands_of(torch.from_numpy(audio))))
        return pocket.through_codec(channels, audio.shape[1]).numpy()


def worded(words: str, number: int) -> str:
    """A prompt in one of the held-out wordings."""
    return HELD_OUT_TEMPLATES[number % len(HELD_OUT_TEMPLATES)].format(words)


def _note(instrument: Instrument, note: int, seconds: float = SECONDS) -> Sound:
    return Sound(
        source="font",
        kind=instrument.kind,
        form="note",
        seconds=seconds,
        seed=note,
        bank=instrument.bank,
        program=instrument.program,
        events=((0.0, 0.92 * seconds, note, 95),),
        velocity=95,
        note=note,
    )


def _middle(audio: NDArray[np.float32], first: float = 0.2, last: float = 0.75) -> NDArray[np.float64]:
    mono = audio.mean(0).astype(np.float64)
    return mono[int(first * len(mono)) : int(last * len(mono))]


def class_requests(seeds: int) -> list[Request]:
    """Every class, in its own words."""
    random = np.random.default_rng(7)
    found: list[Request] = []
    for row in CLASSES:
        for seed in range(seeds):
            sound = draw_sound(row, random, "font")
            found.append(Request(row.asked[seed % len(row.asked)], sound, sound.seconds))
    return found


def note_requests(count: int, held: bool | None) -> list[Request]:
    """Named notes of pitched kinds, c1 to c7, spread over each kind's range."""
    random = np.random.default_rng(8)
    chosen = [row for row in INSTRUMENTS if held is None or row.held == held]
    chosen = [row for row in chosen if row.family not in ("effect", "percussive") and row.kind != "orchestra hit"]
    found: list[Request] = []
    for number in range(count):
        row = chosen[number * len(chosen) // count] if count <= len(chosen) else chosen[number % len(chosen)]
        note = int(random.integers(max(24, row.low), min(96, row.high) + 1))
        found.append(Request(f"{row.kind} {note_name(note)}", _note(row, note), tags={"note": note}))
    return found


def chord_requests(count: int) -> list[Request]:
    """Named triads of kinds that play chords."""
    random = np.random.default_rng(9)
    kinds = (
        "grand piano",
        "electric piano",
        "church organ",
        "string ensemble",
        "warm pad",
        "nylon guitar",
        "choir aah",
    )
    by_kind = {row.kind: row for row in INSTRUMENTS}
    found: list[Request] = []
    for number in range(count):
        row = by_kind[kinds[number % len(kinds)]]
        name = ("major", "minor")[number % 2]
        root = int(random.integers(48, 60))
        events = tuple((0.0, 1.84, root + step, 95) for step in CHORDS[name])
        words = f"{row.kind} {CHORD_NAMES[name][0].format(NOTE_NAMES[root % 12])} chord"
        sound = Sound("font", row.kind, "chord", SECONDS, number, row.bank, row.program, False, events, 95, root)
        found.append(Request(words, sound, tags={"root": root, "third": root + CHORDS[name][1], "fifth": root + 7}))
    return found


def loop_requests(count: int) -> list[Request]:
    """Drum loops of named styles and tempi, as long as their bars."""
    random = np.random.default_rng(10)
    styles = list(STYLES)
    found: list[Request] = []
    for number in range(count):
        style = styles[number % len(styles)]
        low, high = STYLES[style].tempo
        sound = draw_loop(random, style, int(random.integers(low, high + 1)))
        tempo = sound.bpm
        assert tempo is not None
        sound = Sound.from_dict(sound.to_dict() | {"effects": []})
        tags = {"bpm": tempo, "swing": STYLES[style].swing}
        found.append(Request(f"{style} drum loop {tempo:g} bpm", sound, sound.seconds, tags))
    return found


Figures = dict[str, float]


def kind_figures(maker: Maker, seeds: int, keep: Callable[[Request, NDArray[np.float32]], None]) -> Figures:
    """Recognition, and the embeddings' distance to recordings."""
    classifier = load_classifier()
    requests = class_requests(seeds)
    sounds = maker.make(requests, 100)
    for request, sound in zip(requests, sounds, strict=True):
        keep(request, sound)
    wanted = torch.arange(len(CLASSES)).repeat_interleave(seeds)
    mels = torch.cat([log_mel(torch.from_numpy(sound.mean(0))[None].float()) for sound in sounds])
    with torch.no_grad():
        best = classifier(mels).topk(3, -1).indices
        embedded = classifier.embed(mels).numpy()
        others = Maker("recordings").make(class_requests(seeds + 1), 0)
        real = torch.cat([log_mel(torch.from_numpy(sound.mean(0))[None]) for sound in others])
        distance = measures.frechet(classifier.embed(real).numpy(), embedded)
    hits = best == wanted[:, None]
    return {
        "recognised first": float(hits[:, 0].float().mean()),
        "recognised within three": float(hits.any(-1).float().mean()),
        "Fréchet distance": distance,
    }


def tone_figures(maker: Maker, count: int) -> Figures:
    """Harmonics-to-noise ratio and length of held tones."""
    requests = note_requests(count, held=True)
    sounds = maker.make(requests, 200)
    ratios = [measures.harmonics_to_noise(_middle(sound), 30.0, 2200.0) for sound in sounds]
    lasting = [measures.lasting_seconds(sound.mean(0)) for sound in sounds]
    return {
        "HNR of held tones, dB": float(np.median(ratios)),
        "held tones hold": float(np.mean([seconds >= 0.8 * SECONDS for seconds in lasting])),
    }


def pitch_figures(maker: Maker, count: int) -> Figures:
    """Named notes heard."""
    requests = note_requests(count, held=None)
    sounds = maker.make(requests, 300)
    right: list[bool] = []
    cents: list[float] = []
    for request, sound in zip(requests, sounds, strict=True):
        note = int(request.tags["note"])
        part = _middle(sound, 0.03, 0.6)
        cents.append(abs(measures.note_cents(part, note)))
        right.append(cents[-1] < 25 and measures.harmonic_share(part, note) > 0.6)
    return {"named notes": float(np.mean(right)), "cents beside the note, median": float(np.median(cents))}


def chord_figures(maker: Maker, count: int) -> Figures:
    """Named chords heard: their three pitch classes are the strongest."""
    requests = chord_requests(count)
    right: list[bool] = []
    for request, sound in zip(requests, maker.make(requests, 400), strict=True):
        strongest = set(np.argsort(measures.chroma(_middle(sound, 0.02, 0.7)))[-3:].tolist())
        right.append(strongest == {int(request.tags[name]) % 12 for name in ("root", "third", "fifth")})
    return {"named chords": float(np.mean(right))}


def loop_figures(maker: Maker, count: int) -> Figures:
    """Loops at their tempo, on the grid, without a jump at the seam."""
    requests = loop_requests(count)
    right: list[bool] = []
    shares: list[float] = []
    errors: list[float] = []
    for request, sound in zip(requests, maker.make(requests, 500), strict=True):
        mono = sound.mean(0)
        swing = 0.0 if not request.tags["swing"] else request.tags["swing"]
        shares.append(measures.grid_share(mono, request.tags["bpm"], swing))
        errors.append(measures.tempo_error(mono, request.tags["bpm"]))
        right.append(shares[-1] > 0.9 and errors[-1] < 0.01 and measures.seam(mono) < 1.0)
    return {
        "loops in tempo, on the grid, seamless": float(np.mean(right)),
        "hits on the grid": float(np.mean(shares)),
        "tempo error, median": float(np.median(errors)),
    }


class OldSource:
    """The source of sounds that the first version's comparisons ask: mono at their sample rate."""

    def __init__(self, pocket: Pocket) -> None:
        self.pocket = pocket

    def sounds(self, request: SoundRequest, seeds: int) -> list[NDArray[np.float32]]:
        """One sound a seed, two seconds long."""
        made = self.pocket.sounds(prompts_for(request, seeds), SECONDS, 600)
        rate = SETTINGS.mel.sample_rate
        return [
            np.asarray(signal.resample_poly(sound.mean(0).numpy(), rate // 100, SAMPLE_RATE // 100), np.float32)
            for sound in made
        ]


def comparison_figures(pocket: Pocket, seeds: int) -> Figures:
    """The first version's comparisons: brighter, longer, higher."""
    return {"old comparisons": run(OldSource(pocket), seeds).score}


def speed_figures(pocket: Pocket) -> Figures:
    """Seconds from words to samples, warm."""
    found: Figures = {}
    for seconds in (2.0, 10.0):
        taken: list[float] = []
        for seed in range(6):
            started = time.perf_counter()
            pocket.sounds(["a grand piano c4"], seconds, seed)
            taken.append(time.perf_counter() - started)
        found[f"seconds for {seconds:g} s"] = float(np.median(taken[1:]))
    return found


def evaluate(source: str, share: float, folder: Path | None) -> Figures:
    """All figures of one source; `share` scales how many sounds are asked for."""
    if source == "recordings":
        maker = Maker(source)
    else:
        maker = Maker(source, load_pocket(source == "student") if source != "codec" else _codec_alone())

    def keep(request: Request, sound: NDArray[np.float32]) -> None:
        if folder is not None:
            import soundfile

            folder.mkdir(parents=True, exist_ok=True)
            number = len(list(folder.iterdir()))
            name = request.words.replace(" ", "-").replace("#", "s")
            soundfile.write(folder / f"{number:03d}-{name}.wav", sound.T, SAMPLE_RATE)

    def count(full: int) -> int:
        return max(8, round(share * full))

    figures = kind_figures(maker, 2 if share >= 1 else 1, keep)
    figures |= tone_figures(maker, count(50))
    figures |= pitch_figures(maker, count(90))
    figures |= chord_figures(maker, count(42))
    figures |= loop_figures(maker, count(39))
    if source in ("generator", "student") and maker.pocket is not None:
        figures |= comparison_figures(maker.pocket, 2)
        figures |= speed_figures(maker.pocket)
    return figures


def _codec_alone() -> Pocket:
    """A pocket whose codec alone is trained."""
    from training.pocket.generator import Generator
    from training.pocket.latents import load_codec
    from training.pocket.text import TextSide

    nothing = torch.zeros(1)
    return Pocket(TextSide(), Generator(), load_codec(torch.device("cpu")), nothing, nothing)


def table(results: dict[str, Figures]) -> str:
    """The figures as a Markdown table, a column for each source."""
    names = list(dict.fromkeys(name for figures in results.values() for name in figures))
    lines = ["| figure | " + " | ".join(results) + " |", "| --- |" + " --- |" * len(results)]
    for name in names:
        cells = [f"{figures[name]:.3g}" if name in figures else "-" for figures in results.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=["recordings", "codec", "student"])
    parser.add_argument("--share", type=float, default=1.0, help="scales the number of sounds")
    parser.add_argument("--sounds", type=Path, help="folder to write the sounds of the classes to")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Figures] = {}
    for source in arguments.sources:
        folder = arguments.sounds / source if arguments.sounds else None
        results[source] = evaluate(source, arguments.share, folder)
        log_figures(f"evaluation of {source}", 0, results[source])
        (RUNS / f"evaluation-{source}.json").write_text(json.dumps(results[source], indent=1))
    print(table(results))


if __name__ == "__main__":
    main()

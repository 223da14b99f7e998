"""`python -m training.pocket.evaluate`: print a table of figures for recordings, the codec and the model.

Every prompt is in a wording that no caption used. `recordings` are sounds rendered from the soundfont of the training
data, which shows the accuracy of the measures; `codec` are these sounds after encoding and decoding by the model in the
package; `pocket` is this model; `sketch` and `generator` are the trained model without and with its generator.
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
from scipy import signal, stats

from timbred.models.pocket import SAMPLE_RATE
from timbred.models.registry import pocket_folder
from training.pocket import measures
from training.pocket.classes import CLASSES
from training.pocket.classifier import draw_sound, load_classifier, log_mel
from training.pocket.comparisons import comparison_score
from training.pocket.export import load_exported
from training.pocket.features import bands_of, from_bytes
from training.pocket.instruments import INSTRUMENTS, Instrument
from training.pocket.patterns import STYLES
from training.pocket.pipeline import Pocket, load_pocket
from training.pocket.render import render
from training.pocket.running import log_figures
from training.pocket.settings import RUNS
from training.pocket.sounds import CHORDS, Sound, draw_loop
from training.pocket.words import CHORD_NAMES, HELD_OUT_TEMPLATES, NOTE_NAMES, note_name
from training.synthesis.oscillators import RATE as SYNTHESIS_RATE

SECONDS = 2.0
SOURCES = ("recordings", "codec", "pocket", "sketch", "generator")
BATCH = 12


@dataclass
class Request:
    """A requested sound.

    Attributes:
        words: the prompt without the wording around it.
        sound: the description of the same sound as a recording.
        tags: numbers for its measure.
    """

    words: str
    sound: Sound
    seconds: float = SECONDS
    tags: dict[str, float] = field(default_factory=dict[str, float])


@dataclass
class SoundSource:
    """A source of sounds: recordings, the codec, sketches or the generator."""

    source: str
    pocket: Pocket | None = None

    def render(self, requests: Sequence[Request], seed: int) -> list[NDArray[np.float32]]:
        """Return the audio (2, samples) of each request."""
        if self.source in ("recordings", "codec"):
            rendered = render([request.sound for request in requests])
            if self.source == "recordings":
                return rendered
            assert self.pocket is not None
            return [self._code(self.pocket, audio) for audio in rendered]
        assert self.pocket is not None
        sounds: list[NDArray[np.float32] | None] = [None] * len(requests)
        lengths = sorted({request.seconds for request in requests})
        for seconds in lengths:
            indices = [index for index, request in enumerate(requests) if request.seconds == seconds]
            for first in range(0, len(indices), BATCH):
                part = indices[first : first + BATCH]
                prompts = [held_out_prompt(requests[index].words, index) for index in part]
                for index, sound in zip(part, self.pocket.sounds(prompts, seconds, seed + first), strict=True):
                    sounds[index] = sound.numpy()
        return [sound for sound in sounds if sound is not None]

    @staticmethod
    def _code(pocket: Pocket, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        channels = from_bytes(torch.from_numpy(bands_of(torch.from_numpy(audio))))
        return pocket.through_codec(channels, audio.shape[1]).numpy()


def held_out_prompt(words: str, number: int) -> str:
    """Return a prompt in one of the held-out wordings."""
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
    """Return requests for every class."""
    random = np.random.default_rng(7)
    requests: list[Request] = []
    for row in CLASSES:
        for seed in range(seeds):
            sound = draw_sound(row, random, "font")
            requests.append(Request(row.prompts[seed % len(row.prompts)], sound, sound.seconds))
    return requests


def note_requests(count: int, held: bool | None) -> list[Request]:
    """Return requests for named notes of pitched kinds, c1 to c7, at random in each kind's range."""
    random = np.random.default_rng(8)
    chosen = [row for row in INSTRUMENTS if held is None or row.held == held]
    chosen = [row for row in chosen if row.family not in ("effect", "percussive") and row.kind != "orchestra hit"]
    requests: list[Request] = []
    for number in range(count):
        row = chosen[number * len(chosen) // count] if count <= len(chosen) else chosen[number % len(chosen)]
        note = int(random.integers(max(24, row.low), min(96, row.high) + 1))
        requests.append(Request(f"{row.kind} {note_name(note)}", _note(row, note), tags={"note": note}))
    return requests


def chord_requests(count: int) -> list[Request]:
    """Return requests for named triads of kinds that play chords."""
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
    requests: list[Request] = []
    for number in range(count):
        row = by_kind[kinds[number % len(kinds)]]
        name = ("major", "minor")[number % 2]
        root = int(random.integers(48, 60))
        events = tuple((0.0, 1.84, root + step, 95) for step in CHORDS[name])
        words = f"{row.kind} {CHORD_NAMES[name][0].format(NOTE_NAMES[root % 12])} chord"
        sound = Sound("font", row.kind, "chord", SECONDS, number, row.bank, row.program, False, events, 95, root)
        requests.append(Request(words, sound, tags={"root": root, "third": root + CHORDS[name][1], "fifth": root + 7}))
    return requests


def loop_requests(count: int) -> list[Request]:
    """Return requests for drum loops of named styles and tempi, with the length of their bars."""
    random = np.random.default_rng(10)
    styles = list(STYLES)
    requests: list[Request] = []
    for number in range(count):
        style = styles[number % len(styles)]
        low, high = STYLES[style].tempo
        sound = draw_loop(random, style, int(random.integers(low, high + 1)))
        tempo = sound.bpm
        assert tempo is not None
        sound = Sound.from_dict(sound.to_dict() | {"effects": []})
        tags = {"bpm": tempo, "swing": STYLES[style].swing}
        requests.append(Request(f"{style} drum loop {tempo:g} bpm", sound, sound.seconds, tags))
    return requests


Figures = dict[str, float]


def kind_figures(source: SoundSource, seeds: int, save: Callable[[Request, NDArray[np.float32]], None]) -> Figures:
    """Return the classifier's accuracy, and the embeddings' Fréchet distance to recordings."""
    classifier = load_classifier()
    requests = class_requests(seeds)
    sounds = source.render(requests, 100)
    for request, sound in zip(requests, sounds, strict=True):
        save(request, sound)
    true_classes = torch.arange(len(CLASSES)).repeat_interleave(seeds)
    mels = torch.cat([log_mel(torch.from_numpy(sound.mean(0))[None].float()) for sound in sounds])
    with torch.no_grad():
        best = classifier(mels).topk(3, -1).indices
        embedded = classifier.embed(mels).numpy()
        recordings = SoundSource("recordings").render(class_requests(seeds + 1), 0)
        real = torch.cat([log_mel(torch.from_numpy(sound.mean(0))[None]) for sound in recordings])
        distance = measures.frechet(classifier.embed(real).numpy(), embedded)
    hits = best == true_classes[:, None]
    return {
        "top-1 accuracy of the classifier": float(hits[:, 0].float().mean()),
        "top-3 accuracy of the classifier": float(hits.any(-1).float().mean()),
        "Fréchet distance": distance,
    }


def tone_figures(source: SoundSource, count: int) -> Figures:
    """Return the harmonics-to-noise ratio of sustained tones, and the share that is long enough."""
    requests = note_requests(count, held=True)
    sounds = source.render(requests, 200)
    ratios = [measures.harmonics_to_noise(_middle(sound), 30.0, 2200.0) for sound in sounds]
    lengths = [measures.lasting_seconds(sound.mean(0)) for sound in sounds]
    return {
        "HNR of sustained tones, dB": float(np.median(ratios)),
        "sustained tones of full length": float(np.mean([seconds >= 0.8 * SECONDS for seconds in lengths])),
    }


def pitch_figures(source: SoundSource, count: int) -> Figures:
    """Return the share of named notes with the right pitch, and the deviation in cents."""
    requests = note_requests(count, held=None)
    sounds = source.render(requests, 300)
    right: list[bool] = []
    cents: list[float] = []
    for request, sound in zip(requests, sounds, strict=True):
        note = int(request.tags["note"])
        part = _middle(sound, 0.03, 0.6)
        cents.append(abs(measures.note_cents(part, note)))
        right.append(cents[-1] < 25 and measures.harmonic_share(part, note) > 0.6)
    return {"named notes": float(np.mean(right)), "deviation from the note in cents, median": float(np.median(cents))}


def chord_figures(source: SoundSource, count: int) -> Figures:
    """Return the share of named chords whose three pitch classes are the strongest ones."""
    requests = chord_requests(count)
    right: list[bool] = []
    for request, sound in zip(requests, source.render(requests, 400), strict=True):
        strongest = set(np.argsort(measures.chroma(_middle(sound, 0.02, 0.7)))[-3:].tolist())
        right.append(strongest == {int(request.tags[name]) % 12 for name in ("root", "third", "fifth")})
    return {"named chords": float(np.mean(right))}


def loop_figures(source: SoundSource, count: int) -> Figures:
    """Return the figures of loops: tempo, hits on the grid, jump at the seam."""
    requests = loop_requests(count)
    right: list[bool] = []
    shares: list[float] = []
    errors: list[float] = []
    for request, sound in zip(requests, source.render(requests, 500), strict=True):
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


OTHER_CLASSES = 4
"""Prompts of other classes with which each sound is compared."""


def ear_figures(source: SoundSource, pocket: Pocket) -> Figures:
    """Return the agreement of the ear's scores with the classifier, for sounds and prompts of equal and other classes.

    The correlation is that of ranks (Spearman) between scores and the classifier's probabilities of the classes.
    """
    classifier = load_classifier()
    requests = class_requests(1)
    sounds = source.render(requests, 700)
    mels = torch.cat([log_mel(torch.from_numpy(sound.mean(0))[None].float()) for sound in sounds])
    with torch.no_grad():
        chances = classifier(mels).softmax(-1).numpy()
    prompts = [held_out_prompt(request.words, index) for index, request in enumerate(requests)]
    scores = pocket.similarity([torch.from_numpy(sound).float() for sound in sounds], prompts)
    random = np.random.default_rng(12)
    pairs: list[tuple[int, int]] = []
    for index in range(len(requests)):
        others = random.choice(len(requests) - 1, OTHER_CLASSES, replace=False)
        pairs += [(index, index), *((index, int(other + (other >= index))) for other in others)]
    chosen = np.array(pairs).T
    ranks = [stats.rankdata(values[chosen[0], chosen[1]]) for values in (scores, chances)]
    correlation = np.corrcoef(ranks)[0, 1]
    own = scores.diagonal()[:, None]
    return {
        "ear: correlation with the classifier": float(correlation),
        "ear: own prompt above others": float((own > scores)[~np.eye(len(scores), dtype=bool)].mean()),
    }


def comparison_figures(pocket: Pocket, seeds: int) -> Figures:
    """Return the share of correct comparisons of two sounds, in mono at the rate of their measures."""

    def sounds(prompts: Sequence[str]) -> list[NDArray[np.float32]]:
        stereo = pocket.sounds(prompts, SECONDS, 600)
        factors = SYNTHESIS_RATE // 100, SAMPLE_RATE // 100
        return [np.asarray(signal.resample_poly(sound.mean(0).numpy(), *factors), np.float32) for sound in stereo]

    return {"comparisons": comparison_score(sounds, seeds)}


def speed_figures(pocket: Pocket) -> Figures:
    """Return the time from prompt to audio, without the first, slower one."""
    figures: Figures = {}
    for seconds in (2.0, 10.0):
        durations: list[float] = []
        for seed in range(6):
            started = time.perf_counter()
            pocket.sounds(["a grand piano c4"], seconds, seed)
            durations.append(time.perf_counter() - started)
        figures[f"seconds for {seconds:g} s"] = float(np.median(durations[1:]))
    return figures


def load_source(name: str) -> Pocket:
    """Return the model of a source: the trained one for "sketch" and "generator", else that in the package."""
    if name in ("sketch", "generator"):
        return load_pocket(sketches_only=name == "sketch")
    return load_exported(pocket_folder())


def evaluate(name: str, share: float, folder: Path | None) -> Figures:
    """Return all figures of one source; `share` scales the number of sounds."""
    source = SoundSource(name) if name == "recordings" else SoundSource(name, load_source(name))

    def save(request: Request, sound: NDArray[np.float32]) -> None:
        if folder is not None:
            import soundfile

            folder.mkdir(parents=True, exist_ok=True)
            number = len(list(folder.iterdir()))
            words = request.words.replace(" ", "-").replace("#", "s")
            soundfile.write(folder / f"{number:03d}-{words}.wav", sound.T, SAMPLE_RATE)

    def count(full: int) -> int:
        return max(8, round(share * full))

    figures = kind_figures(source, 2 if share >= 1 else 1, save)
    figures |= tone_figures(source, count(50))
    figures |= pitch_figures(source, count(90))
    figures |= chord_figures(source, count(42))
    figures |= loop_figures(source, count(39))
    if name in SOURCES[2:] and source.pocket is not None:
        figures |= ear_figures(source, source.pocket)
        figures |= comparison_figures(source.pocket, 2)
        figures |= speed_figures(source.pocket)
    return figures


def table(results: dict[str, Figures]) -> str:
    """Format the figures as a Markdown table with a column for each source."""
    names = list(dict.fromkeys(name for figures in results.values() for name in figures))
    lines = ["| figure | " + " | ".join(results) + " |", "| --- |" + " --- |" * len(results)]
    for name in names:
        cells = [f"{figures[name]:.3g}" if name in figures else "-" for figures in results.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=SOURCES[:3])
    parser.add_argument("--share", type=float, default=1.0, help="scales the number of sounds")
    parser.add_argument("--sounds", type=Path, help="folder for the sounds of the classes")
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

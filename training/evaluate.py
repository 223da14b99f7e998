"""Evaluation of the exported model by comparisons: `python -m training.evaluate`. Exit status 1 below `MIN_SCORE`.

Every comparison measures one or two sounds, with several seeds each, for prompts in wordings that no caption was
trained with (`captions.HELD_OUT_TEMPLATES`). `--source oracle` runs the comparisons on the synthesis itself, `--source
codec` on the synthesis after autoencoder and vocoder, which shows the accuracy of the measures and of the codec.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timbred.engine.codecs.spectral_vocoder import Note, note_hertz
from training import features
from training.captions import HELD_OUT_TEMPLATES
from training.data import ROW_FRAMES
from training.mel import log_mel
from training.settings import CARD, EXPORT, RUNS, SETTINGS
from training.synthesis.kinds import KINDS
from training.synthesis.recipe import Recipe, draw, render

MIN_SCORE = 0.85
Measure = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class SoundRequest:
    """A requested sound: the words of its prompt, and the recipe's kind and fields for the same sound."""

    words: str
    kind: str
    fields: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A comparison: `measure(first)` has to exceed `factor` times `measure(second)`, or times the number `second`."""

    name: str
    measure: Measure
    first: SoundRequest
    second: SoundRequest | float
    factor: float = 1.0


def prompt(words: str, kind: str, **fields: Any) -> SoundRequest:
    """Create an `SoundRequest` with fields by name."""
    return SoundRequest(words, kind, tuple(sorted(fields.items())))


def comparisons() -> list[Comparison]:
    """Return all comparisons."""
    kick, snare, hat = (
        prompt("a kick drum", "kick"),
        prompt("a snare drum", "snare"),
        prompt("a hi-hat", "closed hi-hat"),
    )
    pad, pluck = prompt("a pad", "pad"), prompt("a plucked string", "pluck")
    bell, organ, lead = (
        prompt("a bell", "bell"),
        prompt("an organ", "organ"),
        prompt("a synth lead", "lead"),
    )
    rain, riser, drone = (
        prompt("rain", "rain"),
        prompt("a riser", "riser"),
        prompt("a drone", "drone"),
    )
    listed = [
        Comparison("snare above kick (centroid)", features.centroid, snare, kick),
        Comparison("hi-hat above snare (centroid)", features.centroid, hat, snare),
        Comparison("hi-hat above tom (centroid)", features.centroid, hat, prompt("a tom", "tom")),
        Comparison("kick has more lows than clap", features.low_share, kick, prompt("a hand clap", "clap")),
        Comparison("bass has more lows than bell", features.low_share, prompt("a bass", "bass"), bell),
        Comparison(
            "impact has more lows than shaker",
            features.low_share,
            prompt("a boom", "impact"),
            prompt("a shaker", "shaker"),
        ),
        Comparison("pad's attack slower than pluck's", features.attack_seconds, pad, pluck, 1.5),
        Comparison(
            "open hi-hat longer than closed",
            features.length_seconds,
            prompt("an open hi-hat", "open hi-hat"),
            hat,
            1.5,
        ),
        Comparison(
            "cymbal longer than rim shot",
            features.length_seconds,
            prompt("a crash cymbal", "cymbal"),
            prompt("a rimshot", "rim"),
            2.0,
        ),
        Comparison("riser's centroid rises", features.centroid_movement, riser, 0.4),
        Comparison("riser rises more than rain", features.centroid_movement, riser, rain),
        Comparison(
            "zap falls: rain moves less downwards",
            features.centroid_movement,
            rain,
            prompt("a laser gun", "zap"),
        ),
        Comparison("bell more inharmonic than organ", features.inharmonicity, bell, organ),
        Comparison("bell more inharmonic than lead", features.inharmonicity, bell, lead),
        Comparison("bell rings longer than rim shot", features.length_seconds, bell, prompt("a rimshot", "rim"), 2.0),
        Comparison("rain steadier than snare", features.unsteadiness, snare, rain, 2.0),
        Comparison("rain lasts", features.length_seconds, rain, 1.6),
        Comparison("drone steadier than pluck", features.unsteadiness, pluck, drone, 2.0),
        Comparison("wind more even in spectrum than kick", features.spectral_entropy, prompt("wind", "wind"), kick),
    ]
    nouns = {
        "kick": "kick",
        "snare": "snare",
        "open hi-hat": "open hat",
        "pluck": "pluck",
        "bell": "bell",
        "pad": "pad",
        "lead": "lead",
        "rain": "rain",
        "tom": "tom",
        "bass": "bass",
        "noise": "noise",
        "organ": "organ",
    }
    for kind in ("kick", "snare", "open hi-hat", "pluck", "bell", "pad", "lead", "tom", "bass"):
        noun = nouns[kind]
        listed.append(
            Comparison(
                f"long {noun} longer than short",
                features.length_seconds,
                prompt(f"a long {noun}", kind, length=1),
                prompt(f"a short {noun}", kind, length=-1),
                1.3,
            )
        )
    for kind in ("snare", "pluck", "bell", "pad", "lead", "rain", "bass", "open hi-hat", "noise", "organ"):
        noun = nouns[kind]
        listed.append(
            Comparison(
                f"bright {noun} brighter than dark",
                features.centroid,
                prompt(f"a bright {noun}", kind, brightness=1),
                prompt(f"a dark {noun}", kind, brightness=-1),
            )
        )
    for kind, low, high in (("pluck", "c3", "c5"), ("lead", "a3", "a5"), ("organ", "d3", "d5"), ("bass", "e1", "e2")):
        first, second = (_note(name) for name in (high, low))
        listed.append(
            Comparison(
                f"{nouns[kind]} on {high} above {low}",
                features.pitch,
                prompt(f"a {nouns[kind]} on {high}", kind, note=first),
                prompt(f"a {nouns[kind]} on {low}", kind, note=second),
                1.2,
            )
        )
    for kind in ("pluck", "bell", "lead", "organ", "tom"):
        noun = nouns[kind]
        listed.append(
            Comparison(
                f"high {noun} above low",
                features.centroid,
                prompt(f"a high {noun}", kind, pitch=1),
                prompt(f"a low {noun}", kind, pitch=-1),
            )
        )
    for kind in ("pad", "organ", "lead"):
        noun = nouns[kind]
        listed.append(
            Comparison(
                f"{noun}: slow attack slower than fast",
                features.attack_seconds,
                prompt(f"a {noun} with a slow attack", kind, edge=1),
                prompt(f"a {noun} with a fast attack", kind, edge=-1),
                1.3,
            )
        )
    for kind, measure in (
        ("kick", features.fullness),
        ("bass", features.fullness),
        ("bell", features.spectral_entropy),
        ("organ", features.spectral_entropy),
    ):
        noun = nouns[kind]
        listed.append(
            Comparison(
                f"distorted {noun} fuller than plain",
                measure,
                prompt(f"a distorted {noun}", kind, flags=("distorted",)),
                prompt(f"a {noun}", kind),
            )
        )
    for kind in ("kick", "snare", "pluck"):
        noun = nouns[kind]
        listed.append(
            Comparison(
                f"{noun} in a hall longer than dry",
                features.length_seconds,
                prompt(f"a {noun} with lots of reverb", kind, space=1),
                prompt(f"a dry {noun}", kind, space=-1),
                1.1,
            )
        )
    for kind in ("lead", "organ"):
        noun = nouns[kind]
        listed.append(
            Comparison(
                f"noisy {noun} noisier than plain",
                features.spectral_entropy,
                prompt(f"a noisy {noun}", kind, flags=("noisy",)),
                prompt(f"a {noun}", kind),
            )
        )
    return listed


def _note(name: str) -> int:
    from training.captions import NOTE_NAMES

    return NOTE_NAMES.index(name[:-1]) + 12 * (int(name[-1]) + 1)


def prompts_for(request: SoundRequest, seeds: int) -> list[str]:
    """Return one prompt for each seed, in different held-out templates."""
    start = sum(map(ord, request.words))
    return [HELD_OUT_TEMPLATES[(start + seed) % len(HELD_OUT_TEMPLATES)].format(request.words) for seed in range(seeds)]


class Oracle:
    """The synthesis itself as the source of sounds."""

    def __init__(self, seconds: float) -> None:
        self.samples = int(np.ceil(seconds * 100 / ROW_FRAMES)) * ROW_FRAMES * SETTINGS.mel.hop
        self.output_samples = int(seconds * SETTINGS.mel.sample_rate)

    def recipe(self, request: SoundRequest, seed: int) -> Recipe:
        """Return the recipe for a request's fields; pitched kinds get a random note if none is named."""
        fields = dict(request.fields)
        row = KINDS[request.kind]
        if row.pitched and "note" not in fields:
            low, high = row.notes[fields.get("pitch", 0) + 1]
            fields["note"] = int(np.random.default_rng(seed + 17).integers(int(low), int(high) + 1))
        return Recipe(kind=request.kind, samples=self.samples, seed=seed, **fields)

    def sounds(self, request: SoundRequest, seeds: int) -> list[np.ndarray]:
        """Render one sound for each seed."""
        return [render(self.recipe(request, 1000 + seed))[: self.output_samples] for seed in range(seeds)]


class Codec(Oracle):
    """The synthesis after a round trip through the exported autoencoder and vocoder."""

    def __init__(self, seconds: float, model: Path) -> None:
        super().__init__(seconds)
        self.pipeline = load_pipeline(model)

    @torch.no_grad()
    def sounds(self, request: SoundRequest, seeds: int) -> list[np.ndarray]:
        """Render one sound for each seed."""
        audio = torch.stack([torch.from_numpy(sound) for sound in super().sounds(request, seeds)])
        audio = torch.nn.functional.pad(audio, (0, self.samples - audio.shape[1]))
        latents = self.pipeline.vae.encode(log_mel(audio)[:, None]).latent_dist.mode()
        audio = self.pipeline.vocoder(self.pipeline.vae.decode(latents).sample[:, 0])
        return list(audio[:, : self.output_samples].numpy())


class Model:
    """The exported model in diffusers' pipeline."""

    def __init__(self, seconds: float, model: Path, steps: int, guidance: float) -> None:
        self.seconds, self.steps, self.guidance = seconds, steps, guidance
        self.pipeline = load_pipeline(model)

    def generate(self, prompts: list[str], seeds: list[int], seconds: float | None = None) -> np.ndarray:
        """Render (prompts, samples), with one random generator for each prompt, at the notes that they name."""
        latents = self.pipeline(
            prompts,
            negative_prompt=[""] * len(prompts),
            audio_length_in_s=seconds or self.seconds,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="latent",
        ).audios
        return self.decode(latents, [note_hertz(prompt) for prompt in prompts])[:, : self.frames(seconds)]

    def frames(self, seconds: float | None) -> int:
        """Return the samples in `seconds`, or in the default length."""
        return int((seconds or self.seconds) * SETTINGS.mel.sample_rate)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, pitches: list[float | None]) -> np.ndarray:
        """Decode latents to (prompts, samples) at pitches in hertz, as the engine does."""
        vae, vocoder = self.pipeline.vae, self.pipeline.vocoder
        mel = vae.decode(latents / vae.config.scaling_factor).sample[:, 0]
        notes = [None if hertz is None else Note(hertz) for hertz in pitches]
        return torch.cat([vocoder(rows[None], None, note) for rows, note in zip(mel, notes, strict=True)]).numpy()

    def sounds(self, request: SoundRequest, seeds: int) -> list[np.ndarray]:
        """Render one sound for each seed."""
        return list(self.generate(prompts_for(request, seeds), list(range(seeds))))


def load_pipeline(folder: Path) -> Any:
    """Load diffusers' AudioLDM2Pipeline from an exported folder in float32."""
    import importlib

    import diffusers
    import transformers
    from diffusers.pipelines import audioldm2

    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    parts = {}
    for name, source in index.items():
        if name.startswith("_"):
            continue
        library, class_name = source
        modules = {"diffusers": diffusers, "transformers": transformers, "audioldm2": audioldm2}
        cls = getattr(modules.get(library) or importlib.import_module(library), class_name)
        options = (
            {} if "tokenizer" in name or name in ("feature_extractor", "scheduler") else {"torch_dtype": torch.float32}
        )
        parts[name] = cls.from_pretrained(folder / name, **options)
    pipeline = diffusers.AudioLDM2Pipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@dataclass
class Report:
    """Results: comparisons, which determine the score, and checks, all of which have to pass."""

    rows: list[tuple[str, int, int]] = field(default_factory=list)
    checks: list[tuple[str, int, int]] = field(default_factory=list)
    details: dict[str, list[list[float]]] = field(default_factory=dict)
    sounds: dict[SoundRequest, list[np.ndarray]] = field(default_factory=dict)

    def add(self, name: str, right: int, total: int) -> None:
        """Record and print a comparison."""
        self.rows.append((name, right, total))
        self._print(name, right, total)

    def check(self, name: str, right: int, total: int) -> None:
        """Record and print a check."""
        self.checks.append((name, right, total))
        self._print(f"check: {name}", right, total)

    @staticmethod
    def _print(name: str, right: int, total: int) -> None:
        mark = "" if right == total else "<" if right * 2 >= total else "<<<<"
        print(f"{right:3}/{total:<3} {mark:5} {name}", flush=True)

    @property
    def score(self) -> float:
        """Share of correct comparisons."""
        return sum(right for _, right, _ in self.rows) / sum(total for _, _, total in self.rows)

    @property
    def checks_pass(self) -> bool:
        """Return True if every check passes."""
        return all(right == total for _, right, total in self.checks)


def run(source: Any, seeds: int) -> Report:
    """Run all comparisons on one source."""
    report = Report()

    def sounds(request: SoundRequest) -> list[np.ndarray]:
        if request not in report.sounds:
            report.sounds[request] = source.sounds(request, seeds)
        return report.sounds[request]

    for item in comparisons():
        first = [item.measure(sound) for sound in sounds(item.first)]
        if isinstance(item.second, SoundRequest):
            second = [item.measure(sound) for sound in sounds(item.second)]
        else:
            second = [float(item.second)] * seeds
        right = sum(a > item.factor * b for a, b in zip(first, second, strict=True))
        report.details[item.name] = [first, second]
        report.add(item.name, right, seeds)
    all_sounds = [sound for seeded in report.sounds.values() for sound in seeded]
    report.check("finite", sum(bool(np.isfinite(sound).all()) for sound in all_sounds), len(all_sounds))
    report.check(
        "not silent (peak over 0.02)", sum(features.peak(sound) > 0.02 for sound in all_sounds), len(all_sounds)
    )
    requests = list(report.sounds.values())
    differ = sum(float(np.abs(seeded[0] - seeded[1]).mean()) > 1e-4 for seeded in requests)
    report.check("two seeds differ", differ, len(requests))
    return report


def check_repeatability(source: Model, report: Report) -> None:
    """Check that equal seeds give equal sounds."""
    words = ("a kick drum", "rain", "a bell on c5", "a dark pad")
    once = [source.generate([text], [5]) for text in words]
    again = [source.generate([text], [5]) for text in words]
    report.check(
        "equal seeds give equal sounds", sum(np.array_equal(a, b) for a, b in zip(once, again, strict=True)), len(words)
    )


def check_lengths(source: Model, report: Report) -> None:
    """Check that sounds of several lengths are finite, audible and as long as requested."""
    right = 0
    requested = (0.5, 1.0, 3.0, 5.0)
    for seconds in requested:
        sound = source.generate(["imagine a synth lead right now"], [1], seconds)[0]
        good = np.isfinite(sound).all() and features.peak(sound) > 0.1
        right += bool(good and len(sound) == int(seconds * SETTINGS.mel.sample_rate))
    report.check("0.5 to 5 s are as long as requested", right, len(requested))


STEADY_TONES = (
    "organ on a3",
    "pipe organ, d4",
    "long bass note e2",
    "long synth bass, a1",
    "synth lead on a4",
    "brass on g#3",
)
"""Prompts for steady tones."""


def check_tuning(source: Model, report: Report, seeds: int) -> None:
    """Check that steady tones are within 5 cents of the requested note."""
    cents = []
    for words in STEADY_TONES:
        requested = note_hertz(words) or 0.0
        for sound in source.generate([words] * seeds, list(range(seeds))):
            cents.append(abs(1200 * float(np.log2(features.pitch(sound) / requested))))
    report.details["cents from the requested note"] = [cents, [5.0] * len(cents)]
    report.check("in tune (5 cents)", sum(deviation < 5.0 for deviation in cents), len(cents))


def pool_levels(sound: np.ndarray) -> np.ndarray:
    """Return the input of the recognition of kinds: levels of 16 bands in 12 segments of the first two seconds."""
    padded = np.zeros(2 * SETTINGS.mel.sample_rate, np.float32)
    padded[: min(len(sound), len(padded))] = sound[: len(padded)] / (features.peak(sound) + 1e-9)
    mel = log_mel(torch.from_numpy(padded)[None])[0].numpy()
    bands = mel.reshape(len(mel), 16, 4).mean(2)
    edges = (0, 2, 4, 7, 11, 17, 25, 38, 56, 80, 115, 160, 200)
    return np.concatenate([bands[a:b].mean(0) for a, b in itertools.pairwise(edges)])


def recognise_kinds(source: Any, seeds: int) -> tuple[int, int, dict[str, str]]:
    """Classify sounds of each kind by their 5 nearest synthesised sounds.

    Returns:
        The number of correct classifications, of all, and the wrong classes by kind.
    """
    random = np.random.default_rng(77)
    references, names = [], []
    for kind in KINDS:
        for _ in range(40):
            references.append(pool_levels(render(draw(random, 2 * SETTINGS.mel.sample_rate, kind))))
            names.append(kind)
    known, labels = np.array(references), np.array(names)
    right, confused = 0, {}
    for kind in KINDS:
        classes = []
        for sound in source.sounds(prompt(f"a {kind}", kind), seeds):
            order = np.argsort(((known - pool_levels(sound)) ** 2).sum(1))[:5]
            values, counts = np.unique(labels[order], return_counts=True)
            classes.append(str(values[np.argmax(counts)]))
        right += classes.count(kind)
        if classes.count(kind) < seeds:
            confused[kind] = ", ".join(name for name in classes if name != kind)
    return right, seeds * len(KINDS), confused


def contact_sheet(sounds: dict[SoundRequest, list[np.ndarray]], path: Path, columns: int = 8) -> None:
    """Draw the spectrograms (log mel, 0 dB to -80 dB) of the first seed of every request."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows = -(-len(sounds) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(2.1 * columns, 1.7 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (request, seeded) in zip(axes.flat, sounds.items(), strict=False):
        mel = log_mel(torch.from_numpy(np.ascontiguousarray(seeded[0]))[None])[0].numpy()
        axis.imshow(mel.T, origin="lower", aspect="auto", vmin=-1, vmax=0.6, cmap="magma")
        axis.set_title(request.words, fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def main() -> None:
    """Run the evaluation, print it, and write the contact sheet and the figures."""
    card = json.loads(CARD.read_text(encoding="utf-8")) if CARD.exists() else {}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", choices=("model", "oracle", "codec"), default="model")
    parser.add_argument("--model", type=Path, default=EXPORT)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=card.get("steps", SETTINGS.inference.steps))
    parser.add_argument("--guidance", type=float, default=card.get("guidance", SETTINGS.inference.guidance))
    parser.add_argument("--sheet", type=Path, default=RUNS / "contact-sheet.png")
    parser.add_argument("--figures", type=Path, default=RUNS / "evaluation.json")
    arguments = parser.parse_args()
    started = time.monotonic()
    if arguments.source == "oracle":
        source: Any = Oracle(arguments.seconds)
    elif arguments.source == "codec":
        source = Codec(arguments.seconds, arguments.model)
    else:
        source = Model(arguments.seconds, arguments.model, arguments.steps, arguments.guidance)
    report = run(source, arguments.seeds)
    if isinstance(source, Model):
        check_repeatability(source, report)
        check_lengths(source, report)
        check_tuning(source, report, arguments.seeds)
    right, total, confused = recognise_kinds(source, arguments.seeds)
    print(f"\nkinds recognised by nearest neighbours (not part of the score): {right}/{total}")
    for kind, others in confused.items():
        print(f"    {kind}: classified as {others}")
    contact_sheet(report.sounds, arguments.sheet)
    figures = {
        "source": arguments.source,
        "steps": arguments.steps,
        "guidance": arguments.guidance,
        "score": report.score,
        "rows": report.rows,
        "checks": report.checks,
        "kinds_recognised": [right, total],
        "details": report.details,
    }
    arguments.figures.parent.mkdir(parents=True, exist_ok=True)
    arguments.figures.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    passed = report.score >= MIN_SCORE and report.checks_pass
    print(
        f"\n{100 * report.score:.1f} % of the comparisons are correct, {100 * MIN_SCORE:.0f} % required; the checks "
        f"{'pass' if report.checks_pass else 'FAIL'}; {time.monotonic() - started:.0f} s"
    )
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()

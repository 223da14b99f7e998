"""The default path against plain calls: one request through the daemon / one call of the same networks.

For `pocket` these are the calls of its training's evaluation; for Stable Audio 3 with random weights (`--model`), tiny
or in the size of its small model, diffusers' stock pipeline with the same steps, guidance and scheduler. The plain
calls are eager and leave out the file. Goal for Stable Audio 3 on a CPU: at most 0.6.
"""

import argparse
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import full_size, pocket
from benchmarks.daemon import daemon
from benchmarks.machine import machine
from benchmarks.measurement import Measurement, compare_medians
from benchmarks.subject import Subject

ROUND_COUNT = 15
FULL_SIZE_ROUND_COUNT = 5
SOUND_S = 2.0
POCKET = "pocket"
TINY = "stable-audio-3-tiny"
SMALL = "stable-audio-3-small"
DISTILLED_STEPS = 8


def main() -> None:
    """Print the table of the chosen model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=(POCKET, TINY, SMALL), default=POCKET)
    name = parser.parse_args().model
    rows = _measure_pocket() if name == POCKET else _measure_stable_audio_3(name)
    print(f"request through the daemon / plain calls, {name}, {SOUND_S:g} s; {machine()}")
    for heading, measured in rows:
        print(f"  {heading:<22} {measured.value:.3f}   ({measured.detail})")


def _measure_pocket() -> Sequence[tuple[str, Measurement]]:
    """Measure a cached prompt and uncached ones."""
    model = pocket.plain_model()
    pocket.time_plain_model(model, "a kick", SOUND_S, 0)
    rows: list[tuple[str, Measurement]] = []
    with daemon() as client:
        for seed in range(pocket.WARM_UP_SOUND_COUNT):
            client.time_generate(prompt="a kick", seconds=SOUND_S, seed=seed)
        for heading, prompts in (
            ("cached prompt", ["a kick"] * ROUND_COUNT),
            ("uncached prompt", [f"a bright bell number {number}" for number in range(ROUND_COUNT)]),
        ):
            pairs = [
                (
                    client.time_generate(prompt=prompt, seconds=SOUND_S, seed=seed),
                    pocket.time_plain_model(model, prompt, SOUND_S, seed),
                )
                for seed, prompt in enumerate(prompts)
            ]
            rows.append((heading, compare_medians(pairs)))
    return rows


def _measure_stable_audio_3(name: str) -> Sequence[tuple[str, Measurement]]:
    """Measure a cached prompt with random weights."""
    with _stable_audio_3(name) as subject:
        model = subject.resident()
        subject.time_stock_pipeline(model, 0)
        with subject.daemon() as client:
            for seed in range(pocket.WARM_UP_SOUND_COUNT):
                client.time_generate(**subject.keys(seed))
            pairs = [
                (client.time_generate(**subject.keys(seed)), subject.time_stock_pipeline(model, seed))
                for seed in range(ROUND_COUNT if name == TINY else FULL_SIZE_ROUND_COUNT)
            ]
    return (("cached prompt", compare_medians(pairs)),)


@contextmanager
def _stable_audio_3(name: str) -> Generator[Subject]:
    """Write a checkpoint with random weights, tiny or of the small model's size, for the time of the block."""
    with tempfile.TemporaryDirectory() as temporary_folder:
        folder = Path(temporary_folder) / name
        if name == TINY:
            from tests import checkpoints  # only there are tiny ones

            checkpoints.stable_audio_3(folder)
        else:
            full_size.make_stable_audio_3_small(folder)
        yield Subject(name, SOUND_S, DISTILLED_STEPS, 1.0, folder, "ping-pong")


if __name__ == "__main__":
    main()

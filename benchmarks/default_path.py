"""The default path against naive diffusers: one request through the daemon / one call of the stock pipeline.

Same components, steps, guidance and scheduler; the stock call leaves out the file. Goal on a CPU: at most 0.6.
"""

from benchmarks import pocket
from benchmarks.daemon import daemon
from benchmarks.machine import machine
from benchmarks.measurement import compare_medians

ROUND_COUNT = 15
SOUND_S = 2.0


def main() -> None:
    """Print the table, for a cached prompt and for uncached ones."""
    model = pocket.resident()
    pocket.time_stock_pipeline(model, "a kick", SOUND_S, 0)
    with daemon() as client:
        for seed in range(pocket.WARM_UP_SOUND_COUNT):
            client.time_generate(prompt="a kick", seconds=SOUND_S, seed=seed)
        print(f"request through the daemon / stock diffusers pipeline, pocket, {SOUND_S:g} s; {machine()}")
        for heading, prompts in (
            ("cached prompt", ["a kick"] * ROUND_COUNT),
            ("uncached prompt", [f"a bright bell number {number}" for number in range(ROUND_COUNT)]),
        ):
            pairs = [
                (
                    client.time_generate(prompt=prompt, seconds=SOUND_S, seed=seed),
                    pocket.time_stock_pipeline(model, prompt, SOUND_S, seed),
                )
                for seed, prompt in enumerate(prompts)
            ]
            measured = compare_medians(pairs)
            print(f"  {heading:<22} {measured.value:.3f}   ({measured.detail})")


if __name__ == "__main__":
    main()

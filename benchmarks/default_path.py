"""The default path against naive diffusers: one request through the daemon / one call of the stock pipeline.

Same components, steps, guidance and scheduler; the stock call leaves out the file. Goal on a CPU: at most 0.6.
"""

from statistics import median

from benchmarks import pocket
from benchmarks.daemon import daemon
from benchmarks.machine import machine

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
            ratio = median(daemon_s / stock_s for daemon_s, stock_s in pairs)
            ours, stock = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
            print(f"  {heading:<22} {ratio:.3f}   (medians {ours * 1e3:.0f} and {stock * 1e3:.0f} ms)")


if __name__ == "__main__":
    main()

"""Two local engines on the CPU with one thread each, against one: eight requests at once, requests a second.

Rounds of both daemons alternate, so that the figure doesn't depend on what else the machine does. Both take the same
number of jobs at once in each engine.

Goal: at least 1.7 times the throughput. Needs two cores.
"""

import time
from contextlib import ExitStack

from benchmarks.daemon import Client, daemon
from benchmarks.machine import machine
from benchmarks.measurement import compare_medians

MODEL = "pocket"
REQUEST_COUNT = 8
ROUND_COUNT = 9
WARM_UP_ROUNDS = 2
STEPS = (4, 50)
"""Numbers of steps: the default, and one with which the daemon's share of the work is small."""
KEYS = {"model": MODEL, "prompt": "a deep punchy kick drum", "seconds": 2.0}
SETTINGS = ("device.threads=1", "engine.spare=off", "discovery.announce=off")


def render_all(client: Client, number: int, steps: int) -> float:
    """Return the seconds in which all requests of a round are done."""
    started_at = time.perf_counter()
    for seed in range(REQUEST_COUNT):
        client.send("generate", id=f"{steps}-{number}-{seed}", seed=seed, steps=steps, **KEYS)
    for _ in range(REQUEST_COUNT):
        client.until("done")
    return time.perf_counter() - started_at


def wait_for_engines(client: Client, count: int) -> None:
    """Wait until all engines have the model."""
    while True:
        client.send("engines")
        engines = [client.until("engine") for _ in range(count)]
        if all(engine["state"] == "up" and MODEL in engine["models"] for engine in engines):
            return
        time.sleep(0.2)


def main() -> None:
    """Print the figure."""
    print(f"{REQUEST_COUNT} requests at once, two engines / one, a thread each, {ROUND_COUNT} rounds; {machine()}")
    with ExitStack() as stack:
        one = stack.enter_context(daemon("engines=cpu", *SETTINGS, model=MODEL))
        two = stack.enter_context(daemon("engines=cpu cpu", *SETTINGS, model=MODEL))
        wait_for_engines(one, 1)
        wait_for_engines(two, 2)
        for steps in STEPS:
            for number in range(WARM_UP_ROUNDS):
                render_all(one, -number - 1, steps)
                render_all(two, -number - 1, steps)
            measured = compare_medians(
                [(render_all(one, number, steps), render_all(two, number, steps)) for number in range(ROUND_COUNT)]
            )
            print(f"  {MODEL}, {steps} steps  {measured.value:5.2f}   ({measured.detail})", flush=True)


if __name__ == "__main__":
    main()

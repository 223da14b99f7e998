"""Fault injection: kills, pauses, floods, crowds, a full disk, an evening's load.

Each guarantee is tested many times. Prints a table of guarantees with their attempts, failures and recovery times.
Exit status 1 if any failed. A full run takes about two hours; `--scale 0.05` runs
a twentieth of every count, `--only` selected parts.

Goals for the recovery times on an idle machine: engine 5 s until a sound is rendered, player 1 s until its device is
open. Other programs that keep both cores busy multiply these times.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

from benchmarks import chaos_floods, chaos_kills, soak
from benchmarks.chaos_stage import Outcome, Reporter, Sizes
from benchmarks.machine import machine


def soak_part(sizes: Sizes, report: Reporter) -> list[Outcome]:
    """Send mixed requests of many lengths: memory, threads and descriptors stay flat."""
    outcome = Outcome("soak: memory, threads and descriptors are flat, every request ends")
    result = soak.run(sizes.minutes, sizes.seed, report)
    soak.report(result, report)
    outcome.attempts = (
        sum(result.tally.done.values()) + sum(result.tally.failed.values()) + len(result.tally.unanswered)
    )
    outcome.faults = result.faults
    return [outcome]


BENCHMARK_PARTS: dict[str, Callable[[Sizes, Reporter], list[Outcome]]] = {
    "engine-kills": chaos_kills.engine_kills,
    "player-kills": chaos_kills.player_kills,
    "daemon-kills": chaos_kills.daemon_kills,
    "pauses": chaos_kills.pauses,
    "floods": chaos_floods.floods,
    "crowd": chaos_floods.crowd,
    "slow-readers": chaos_floods.slow_readers,
    "full-disk": chaos_floods.full_disk,
    "soak": soak_part,
}


def table(outcomes: Sequence[Outcome]) -> str:
    """Format the outcomes as a table, with the first faults below it."""
    width = max(len(outcome.guarantee) for outcome in outcomes)
    lines = [f"  {'guarantee':{width}}  {'attempts':>8}  {'failed':>6}  recovery in s: median (max)"]
    for outcome in outcomes:
        if outcome.skipped:
            lines.append(f"  {outcome.guarantee:{width}}  {'skipped: ' + outcome.skipped}")
            continue
        times = f"{median(outcome.recovery_s):8.2f} ({max(outcome.recovery_s):.2f})" if outcome.recovery_s else ""
        lines.append(
            f"  {outcome.guarantee:{width}}  {outcome.attempts:8d}  {len(outcome.faults):6d}  {times}".rstrip()
        )
    for outcome in outcomes:
        lines += [f"  FAILED  {outcome.guarantee}: {fault}" for fault in outcome.faults[:10]]
        if len(outcome.faults) > 10:
            lines.append(f"  FAILED  {outcome.guarantee}: and {len(outcome.faults) - 10} more")
    return "\n".join(lines)


def run(parts: Sequence[str], sizes: Sizes, report: Reporter) -> list[Outcome]:
    """Run some parts; an exception in one counts as its failure, and the others continue."""
    outcomes: list[Outcome] = []
    for part in parts:
        report(f"  {part}: {(BENCHMARK_PARTS[part].__doc__ or '').splitlines()[0]}")
        started_at = time.monotonic()
        try:
            outcomes += BENCHMARK_PARTS[part](sizes, report)
        except Exception as error:  # noqa: BLE001  a broken part must not hide the others' outcomes
            outcomes.append(Outcome(f"{part} runs to its end", 1, [f"{type(error).__name__}: {error}"]))
        report(f"    {time.monotonic() - started_at:.0f} s")
    return outcomes


def main() -> None:
    """Print the table; exit with status 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks chaos", description=__doc__)
    parser.add_argument(
        "--only", default=",".join(BENCHMARK_PARTS), metavar="PARTS", help=f"of {', '.join(BENCHMARK_PARTS)}"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of every full count")
    parser.add_argument("--minutes", type=float, default=15.0, help="duration of the soak")
    parser.add_argument("--pause", type=float, default=36.0, help="seconds for which all processes are paused")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ignore-times", action="store_true", help="print the times of pings without checking them")
    options = parser.parse_args()
    parts = [part.strip() for part in options.only.split(",")]
    if unknown := [part for part in parts if part not in BENCHMARK_PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are: {', '.join(BENCHMARK_PARTS)}")
    sizes = Sizes(options.scale, options.minutes, options.pause, options.seed, not options.ignore_times)
    print(f"chaos at scale {sizes.scale:g}; {machine()}", flush=True)
    outcomes = run(parts, sizes, lambda text: print(text, flush=True))
    print(table(outcomes), flush=True)
    sys.exit(1 if any(outcome.faults for outcome in outcomes) else 0)


if __name__ == "__main__":
    main()

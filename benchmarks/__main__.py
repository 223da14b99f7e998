"""`python -m benchmarks NAME` runs one benchmark; without a name all that need no sound server, in order."""

import importlib
import sys

DEFAULT_BENCHMARKS: dict[str, str] = {
    "overhead": "request to finished file, less the bare call",
    "default_path": "default path / plain calls",
    "floor": "time on a GPU / arithmetic floor",
    "throughput": "eight requests at once / one after the other",
    "live_wait": "p95 of a live request beside a batch / alone",
    "restart": "first render after a restart / warm",
    "text_stage": "text stage, cached prompt / uncached prompt",
    "cancelling": "steps after a cancel",
    "first_sound": "first sound heard / whole render",
    "three_models": "memory of three models resident / apart",
    "intake": "OSC requests a second, generating / idle",
}
"""Names and descriptions, in the order of the table in docs/performance.md."""

NAMED_BENCHMARKS: dict[str, str] = {
    "floods": "a ping of one client beside floods of another, and memory; --seconds S [FLOOD...]",
    "memory_over_time": "a plot of memory while models are loaded and unloaded",
    "soak": "memory of each process over minutes or hours of mixed requests: flat; --minutes N",
    "loading_stall": "gaps between two steps, alone and while a model is loaded and unloaded / a usual step",
    "load_parts": "gain of each measure that keeps loads from delaying steps",
    "thread_counts": "steps with one thread, with all, and with the chosen number",
    "loop_seams": "the seam of loops",
    "extend_joins": "the joins of continued sounds",
    "defaults": "effect of the default processing on a sound",
    "two_engines": "two engines on the CPU, a thread each / one, eight requests",
    "placement": "a simulation of 1 to 64 GPUs and 100,000 requests: throughput, waits by priority, cost of placement",
    "pocket": "words to finished file with the embedded model, 2 and 10 s, memory, and the first file after a start",
    "trace": "package files and functions that one generate over UDP executes in the daemon, in order",
    "chaos": "kills, pauses, floods, crowds, a full disk: failures of each guarantee, and recovery times",
    "node_losses": "nodes of a Ray cluster killed in mid-render: requests lost, answered twice, recovery; --kills N",
    "gpu": "all figures of a GPU, and equality of its faster paths, in eight minutes; --tiny, --output FOLDER",
    "player_underruns": "underruns while generating, loading and compiling; needs JACK",
    "player_latency": "from a play datagram to the device; needs JACK",
    "player_voices": "cost of mixing",
}
"""Benchmarks that are run by name only."""


def main() -> int:
    """Run the benchmarks; returns exit status 2 for an unknown name."""
    names = sys.argv[1:2] or list(DEFAULT_BENCHMARKS)
    if names[0] not in DEFAULT_BENCHMARKS | NAMED_BENCHMARKS:
        print("unknown benchmark; choose one of: " + ", ".join(DEFAULT_BENCHMARKS | NAMED_BENCHMARKS), file=sys.stderr)
        return 2
    del sys.argv[1:2]
    for name in names:
        importlib.import_module(f"benchmarks.{name}").main()
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

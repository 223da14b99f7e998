"""Commands that measure the figures in the README: `python -m benchmarks`."""

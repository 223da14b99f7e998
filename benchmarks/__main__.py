"""All figures, one after the other."""

from benchmarks import default_path, intake, overhead

for figure in (overhead, default_path, intake):
    figure.main()
    print()

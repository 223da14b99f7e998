"""`python -m training.pocket.logbook`: write `training/LOG.md` and `training/curves.svg` from the runs' figures."""

import json
from pathlib import Path
from typing import Any

from training.pocket.settings import REPOSITORY, RUNS

PAGE = REPOSITORY / "training" / "LOG.md"
CURVES = REPOSITORY / "training" / "curves.svg"
STAGES = ("codec", "text", "generator", "student")
SHOWN = {
    "codec": ("held-out energy", "held-out offset", "held-out tonality", "hnr of codec", "log-spectral distance"),
    "text": ("kind", "note", "root", "chord", "touch", "tempo within 1 %"),
    "generator": ("error", "error at 0.5", "error at 0.95", "what words take away"),
    "student": tuple(f"error of step {step}" for step in range(1, 5)),
}
CURVE = {"codec": "loss", "text": "kind", "generator": "loss", "student": "loss"}
ROWS = 24
"""Longest table: later measurements are thinned out evenly, the last is always shown."""

HEAD = """# Training log of the second version of pocket

Written by `python -m training.pocket.logbook`. Figures are of sounds and wordings that no training saw; each line is a
checkpoint. `hnr` is the harmonics-to-noise ratio of held tones in decibels, `log-spectral distance` is in decibels
against the same bands without the codec; `what words take away` is the share of the generator's error that goes when it
is told the prompt.
"""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of `log.jsonl`."""
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most ROWS of them, the last among them."""
    if len(rows) <= ROWS:
        return rows
    return [rows[round(index * (len(rows) - 1) / (ROWS - 1))] for index in range(ROWS)]


def table(stage: str, rows: list[dict[str, Any]]) -> str:
    """Held-out figures of one stage in Markdown."""
    names = SHOWN[stage]
    lines = ["| step | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for row in thinned(rows):
        cells = [f"{row[name]:.3g}" if name in row else "-" for name in names]
        lines.append(f"| {row['step']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(rows: list[dict[str, Any]]) -> str:
    """The whole page."""
    parts = [HEAD, "![training losses](curves.svg)\n"]
    for stage in STAGES:
        held_out = [row for row in rows if row["stage"] == f"{stage} held-out"]
        if held_out:
            parts.append(f"## {stage.capitalize()}\n\n{table(stage, held_out)}\n")
    latest: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["stage"].startswith("evaluation of "):
            latest[row["stage"].removeprefix("evaluation of ")] = row
    if latest:
        from training.pocket.evaluate import table as evaluation_table

        figures = {
            source: {name: value for name, value in row.items() if name not in ("stage", "step", "time")}
            for source, row in latest.items()
        }
        parts.append(f"## Evaluation\n\n{evaluation_table(figures)}\n")
    return "\n".join(parts)


def draw_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """A picture of the training losses over steps."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "pocket"
    from matplotlib import pyplot

    stages = [stage for stage in STAGES if any(row["stage"] == stage for row in rows)]
    figure, axes = pyplot.subplots(1, max(1, len(stages)), figsize=(3.2 * max(1, len(stages)), 2.4), squeeze=False)
    for stage, axis in zip(stages, axes[0], strict=False):
        chosen = [row for row in rows if row["stage"] == stage and CURVE[stage] in row]
        axis.plot([row["step"] for row in chosen], [row[CURVE[stage]] for row in chosen], linewidth=0.8)
        axis.set_title(f"{stage}: {CURVE[stage]}", fontsize=8)
        axis.set_yscale("log")
        axis.tick_params(labelsize=6)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """Write both."""
    rows = read_log(RUNS / "log.jsonl")
    PAGE.write_text(page(rows))
    draw_curves(rows, CURVES)


if __name__ == "__main__":
    main()

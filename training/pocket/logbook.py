"""`python -m training.pocket.logbook`: write `training/LOG.md` and `training/curves.svg` from the runs' figures."""

import json
from pathlib import Path
from typing import Any

from training.pocket.settings import REPOSITORY, RUNS

PAGE = REPOSITORY / "training" / "LOG.md"
CURVES = REPOSITORY / "training" / "curves.svg"
STAGES = ("codec", "text", "generator")
TABLE_FIGURES = {
    "codec": ("held-out energy", "held-out offset", "held-out tonality", "hnr of codec", "log-spectral distance"),
    "text": ("kind", "note", "root", "chord", "touch", "tempo within 1 %"),
    "generator": ("error of sketch", "error at 1.0", "error at 0.8", "error reduction by prompt"),
}
CURVE_FIGURES = {"codec": "loss", "text": "kind", "generator": "loss"}
MAX_ROWS = 24
"""Maximum length of a table. The rows of longer logs are selected evenly, always with the last one."""

RENAMED_FIGURES = {
    "what words take away": "error reduction by prompt",
    "recognised first": "top-1 accuracy of the classifier",
    "recognised within three": "top-3 accuracy of the classifier",
    "HNR of held tones, dB": "HNR of sustained tones, dB",
    "held tones hold": "sustained tones of full length",
    "cents beside the note, median": "deviation from the note in cents, median",
    "old comparisons": "comparisons",
    "comparisons of version 1": "comparisons",
}
"""Names of figures in older logs, and their current names."""

HEAD = """# Training log of pocket

Written by `python -m training.pocket.logbook`. The figures are measured with held-out sounds and wordings; each row is
a checkpoint. `hnr` is the harmonics-to-noise ratio of sustained tones in decibels. `log-spectral distance` is in
decibels, relative to the same bands without the codec. `error of sketch` is the squared difference
between the latents of sketches and sounds, `error at 1.0` that of the generator's sounds when it starts from noise, and
`error reduction by prompt` the relative difference between this error with and without the prompt.
"""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines of `log.jsonl`."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines() if line]
    return [{RENAMED_FIGURES.get(name, name): value for name, value in row.items()} for row in rows]


def select_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Select at most MAX_ROWS rows evenly, with the last one."""
    if len(rows) <= MAX_ROWS:
        return rows
    return [rows[round(index * (len(rows) - 1) / (MAX_ROWS - 1))] for index in range(MAX_ROWS)]


def format_table(stage: str, rows: list[dict[str, Any]]) -> str:
    """Format the held-out figures of one stage as a Markdown table."""
    names = TABLE_FIGURES[stage]
    lines = ["| step | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for row in select_rows(rows):
        cells = [f"{row[name]:.3g}" if name in row else "-" for name in names]
        lines.append(f"| {row['step']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def format_page(rows: list[dict[str, Any]]) -> str:
    """Format the page."""
    parts = [HEAD, "![training losses](curves.svg)\n"]
    for stage in STAGES:
        held_out = [row for row in rows if row["stage"] == f"{stage} held-out"]
        if held_out:
            parts.append(f"## {stage.capitalize()}\n\n{format_table(stage, held_out)}\n")
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
    """Draw the training losses over the steps."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "pocket"
    from matplotlib import pyplot

    stages = [stage for stage in STAGES if any(row["stage"] == stage for row in rows)]
    figure, axes = pyplot.subplots(1, max(1, len(stages)), figsize=(3.2 * max(1, len(stages)), 2.4), squeeze=False)
    for stage, axis in zip(stages, axes[0], strict=False):
        chosen = [row for row in rows if row["stage"] == stage and CURVE_FIGURES[stage] in row]
        axis.plot([row["step"] for row in chosen], [row[CURVE_FIGURES[stage]] for row in chosen], linewidth=0.8)
        axis.set_title(f"{stage}: {CURVE_FIGURES[stage]}", fontsize=8)
        axis.set_yscale("log")
        axis.tick_params(labelsize=6)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """Write the page and the curves."""
    rows = read_log(RUNS / "log.jsonl")
    PAGE.write_text(format_page(rows))
    draw_curves(rows, CURVES)


if __name__ == "__main__":
    main()

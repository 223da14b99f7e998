"""`python -m training.pocket.logbook`: write `training/LOG.md` and `training/curves.svg` from the runs' figures."""

import itertools
import json
from pathlib import Path
from typing import Any

from training.pocket.settings import REPOSITORY, RUNS

PAGE = REPOSITORY / "training" / "LOG.md"
CURVES = REPOSITORY / "training" / "curves.svg"
STAGES = ("codec", "text", "ear", "generator")
TABLE_FIGURES = {
    "codec": ("held-out energy", "held-out offset", "held-out tonality", "hnr of codec", "log-spectral distance"),
    "text": ("kind", "note", "root", "chord", "touch", "tempo within 1 %"),
    "ear": ("kind", "form", "note"),
    "generator": ("error of sketch", "error at 1.0", "error at 0.8", "error removed", "error reduction by prompt"),
}
CURVE_FIGURES = {"codec": "loss", "text": "kind", "ear": "loss", "generator": "error"}
HELD_OUT_CURVES = {"codec": "hnr of codec", "text": "kind", "ear": "kind", "generator": "error removed"}
"""Figures of the training, and of held-out sounds, that are drawn over the steps."""

ABOUT_STAGES = {
    "codec": "Lower is better, except for `hnr of codec`: the harmonics-to-noise ratio of sustained tones in decibels. "
    "`log-spectral distance` is in decibels, relative to the same bands without the codec.",
    "text": "Higher is better: the share of held-out captions of which a class is predicted correctly.",
    "ear": "Higher is better: the share of held-out sounds of which a class is recognised. The ear compares takes with "
    "prompts.",
    "generator": "`error of sketch` is the squared difference between the latents of sketches and sounds; it changes "
    "with the bank and the composition of sketches only. `error at 1.0` is that of the generator's sounds when it "
    "starts from noise, `error removed` its relative reduction against the sketch (higher is better), and "
    "`error reduction by prompt` the relative difference between this error with and without the prompt.",
}
MAX_GAP_S = 1200
"""Longest time between two lines of one training; a longer one is a pause."""

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

Written by `python -m training.pocket.logbook` from `log.jsonl` in the folder of the runs. The figures are measured
with held-out sounds and wordings; each row is a checkpoint. `minutes` is the time of training until then, without
pauses, on a machine that other programs used too. A much smaller step than the one before it begins a new training of
the stage. The upper curves are figures of the training, the lower ones those of held-out sounds.
"""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines of `log.jsonl`."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines() if line]
    return [_with_shares({RENAMED_FIGURES.get(name, name): value for name, value in row.items()}) for row in rows]


def _with_shares(row: dict[str, Any]) -> dict[str, Any]:
    """Add the share of the sketch's error that the generator removes."""
    if "error of sketch" not in row or "error at 1.0" not in row:
        return row
    return {**row, "error removed": 1 - row["error at 1.0"] / row["error of sketch"]}


def add_minutes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the minutes of training until each row of a stage, without pauses; rows without a time have none."""
    spent: dict[str, float] = {}
    before: dict[str, tuple[float, int]] = {}
    timed: list[dict[str, Any]] = []
    for row in rows:
        stage = row["stage"].removesuffix(" held-out")
        if "time" not in row:
            timed.append(row)
            continue
        last_time, last_step = before.get(stage, (row["time"], row["step"]))
        gap = row["time"] - last_time
        begins_anew = row["step"] < last_step / 2  # a resumed training repeats a few steps only
        spent[stage] = 0.0 if begins_anew else spent.get(stage, 0.0) + (gap if 0 <= gap <= MAX_GAP_S else 0.0)
        before[stage] = row["time"], row["step"]
        timed.append({**row, "minutes": spent[stage] / 60})
    return timed


def select_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Select at most MAX_ROWS rows evenly, with the last one."""
    if len(rows) <= MAX_ROWS:
        return rows
    return [rows[round(index * (len(rows) - 1) / (MAX_ROWS - 1))] for index in range(MAX_ROWS)]


def format_table(stage: str, rows: list[dict[str, Any]]) -> str:
    """Format the held-out figures of one stage as a Markdown table."""
    names = TABLE_FIGURES[stage]
    lines = ["| step | minutes | " + " | ".join(names) + " |", "| --- | --- |" + " --- |" * len(names)]
    for row in select_rows(rows):
        cells = [f"{row[name]:.3g}" if name in row else "-" for name in names]
        minutes = f"{row['minutes']:.0f}" if "minutes" in row else "-"
        lines.append(f"| {row['step']:,} | {minutes} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def format_page(rows: list[dict[str, Any]]) -> str:
    """Format the page."""
    parts = [HEAD, "![training losses](curves.svg)\n"]
    timed = add_minutes(rows)
    for stage in STAGES:
        held_out = [row for row in timed if row["stage"] == f"{stage} held-out"]
        if held_out:
            parts.append(f"## {stage.capitalize()}\n\n{ABOUT_STAGES[stage]}\n\n{format_table(stage, held_out)}\n")
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
    """Draw figures of the training over the steps, and those of held-out sounds below."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "pocket"
    from matplotlib import pyplot

    stages = [stage for stage in STAGES if any(row["stage"] == stage for row in rows)]
    count = max(1, len(stages))
    figure, axes = pyplot.subplots(2, count, figsize=(3.2 * count, 4.2), squeeze=False)
    for column, stage in enumerate(stages):
        _draw(axes[0][column], rows, stage, CURVE_FIGURES[stage], f"{stage}: {CURVE_FIGURES[stage]}")
        held_out = HELD_OUT_CURVES[stage]
        _draw(axes[1][column], rows, f"{stage} held-out", held_out, f"{stage}, held-out: {held_out}")
        axes[0][column].set_yscale("log")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _draw(axis: Any, rows: list[dict[str, Any]], stage: str, name: str, title: str) -> None:
    """Draw a figure over the steps; a line for each training, so that none leads back to a smaller step."""
    chosen = [row for row in rows if row["stage"] == stage and name in row]
    starts = [0, *(at for at in range(1, len(chosen)) if chosen[at]["step"] < chosen[at - 1]["step"]), len(chosen)]
    for first, last in itertools.pairwise(starts):
        part = chosen[first:last]
        mark = "." if len(part) < MAX_ROWS else None
        axis.plot([row["step"] for row in part], [row[name] for row in part], linewidth=0.8, marker=mark)
    axis.set_title(title, fontsize=8)
    axis.tick_params(which="both", labelsize=6)


def main() -> None:
    """Write the page and the curves."""
    rows = read_log(RUNS / "log.jsonl")
    PAGE.write_text(format_page(rows))
    draw_curves(rows, CURVES)


if __name__ == "__main__":
    main()

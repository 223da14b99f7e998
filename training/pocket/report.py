"""`python -m training.pocket.report`: write the last evaluation's figures to `docs/pocket-figures.md` and README.md.

`training.pocket.evaluate` stores the figures in the folder of the runs; this writes them beside the bars that they have
to reach.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from timbred.models.pocket import MAX_SECONDS, WEIGHTS_NAME, read_card
from timbred.models.registry import pocket_folder
from training.pocket.evaluate import SOURCES, Figures, table
from training.pocket.settings import REPOSITORY, RUNS

PAGE = REPOSITORY / "docs" / "pocket-figures.md"
README = REPOSITORY / "README.md"
BEGIN, END = "<!-- figures of pocket: written by make pocket-eval -->\n", "<!-- end of the figures of pocket -->\n"

Results = Mapping[str, Figures]
"""Figures by source."""


@dataclass(frozen=True)
class Goal:
    """A figure of the model with the bar that it has to reach.

    Attributes:
        name: what is measured.
        bar, goal: the least accepted value and the aim; with `at_most` the largest accepted one.
        read: returns the value; None if it wasn't measured.
        form: format of the values, as for `str.format`.
        at_most: True if smaller values are better.
    """

    name: str
    bar: float
    goal: float
    read: Callable[[Results], float | None]
    form: str = "{:.0%}"
    at_most: bool = False

    def row(self, results: Results) -> str:
        """Format a row of the table."""
        value = self.read(results)
        if value is None:
            shown, verdict = "-", "not measured"
        else:
            shown = self.form.format(value)
            verdict = next(
                (word for word, limit in (("goal", self.goal), ("bar", self.bar)) if self._holds(value, limit)),
                "missed",
            )
        return f"| {self.name} | {shown} | {self.form.format(self.bar)} | {self.form.format(self.goal)} | {verdict} |"

    def _holds(self, value: float, limit: float) -> bool:
        return value <= limit if self.at_most else value >= limit


def _made(name: str) -> Callable[[Results], float | None]:
    return lambda results: results.get("pocket", {}).get(name)


def _distance_ratio(results: Results) -> float | None:
    """Return the Fréchet distance of the model in the package over that of the codec."""
    own, codec = (results.get(source, {}).get("Fréchet distance") for source in ("pocket", "codec"))
    return own / codec if own is not None and codec else None


def _package_megabytes(results: Results) -> float:
    del results
    return sum(file.stat().st_size for file in pocket_folder().iterdir()) / 1e6


GOALS = (
    Goal("recognised first by an independent classifier", 0.60, 0.80, _made("top-1 accuracy of the classifier")),
    Goal("recognised within three", 0.85, 0.95, _made("top-3 accuracy of the classifier")),
    Goal("harmonics-to-noise ratio of held tones", 10, 18, _made("HNR of sustained tones, dB"), "{:.1f} dB"),
    Goal("named notes within 25 cents, c1 to c7", 0.95, 0.99, _made("named notes")),
    Goal("held tones of the asked length", 1.0, 1.0, _made("sustained tones of full length")),
    Goal("drum loops in tempo, seamless", 0.80, 0.95, _made("loops in tempo, on the grid, seamless")),
    Goal("named chords heard", 0.80, 0.95, _made("named chords")),
    Goal("comparisons (pitch, length, brightness, kind...)", 0.92, 0.97, _made("comparisons")),
    Goal("Fréchet distance to recordings, over the codec's", 3.0, 1.5, _distance_ratio, "{:.1f}", at_most=True),
    Goal("size in the package", 60, 45, _package_megabytes, "{:.0f} MB", at_most=True),
    Goal("longest sound", 10, 12, lambda _: MAX_SECONDS, "{:.0f} s"),
)
"""The figures with their bars, in the order of the table."""


def read_results(folder: Path) -> dict[str, Figures]:
    """Return the figures that the evaluation stored in a folder, by source."""
    paths = {source: folder / f"evaluation-{source}.json" for source in SOURCES}
    return {source: json.loads(path.read_text()) for source, path in paths.items() if path.exists()}


def goals_table(results: Results) -> str:
    """Return the table of the model's figures with their bars."""
    lines = ["| figure | `pocket` | bar | goal | reached |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*lines, *(goal.row(results) for goal in GOALS)]) + "\n"


def format_page(results: Results, version: str) -> str:
    """Return the page of figures."""
    return f"""# Figures of pocket

Written by `make pocket-eval`; the model in the package is `{version}`. The prompts are in
wordings that no caption of the training used, the classifier was trained with another soundfont, and sounds are
measured as rendered, without selection. `reached` says if a figure holds the bar that was set for it, or the goal.
Latency and memory are measured by `python -m benchmarks pocket`.

{goals_table(results)}
## All sources

`recordings` are sounds rendered from the soundfont of the training data, which shows how accurate the measures are;
`codec` are these sounds after encoding and decoding, `pocket` is the model in the package.

{table(dict(results))}

## Spectrograms

Recordings, the codec and the model, side by side. [Sixty sounds to listen to](pocket-sounds.md).

![Spectrograms of recordings and of the model's sounds](pocket-contact-sheet.png)
"""


def fill_block(text: str, content: str) -> str:
    """Replace what is between BEGIN and END in a text.

    Raises:
        ValueError: The text has no such block.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f"README.md lacks the lines {BEGIN.strip()!r} and {END.strip()!r}; add them where the table belongs"
        )
    return before + BEGIN + content + END + after


def main() -> None:
    """Write both."""
    results = read_results(RUNS)
    if not results:
        raise SystemExit(f"{RUNS} has no evaluation; run: make pocket-eval")
    card = read_card(pocket_folder(), "pocket", f"{WEIGHTS_NAME} isn't complete")
    PAGE.write_text(format_page(results, card.version), "utf-8")
    README.write_text(fill_block(README.read_text("utf-8"), goals_table(results)), "utf-8")
    print(goals_table(results))


if __name__ == "__main__":
    main()

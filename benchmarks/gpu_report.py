"""The report of `python -m benchmarks gpu`: its rows, as JSON and as a table in markdown."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.measurement import Measurement

REPORT_VERSION = 2
"""Version of the JSON file."""

BASE, SMALL = "audioldm2-base", "stable-audio-3-small"
MODELS = (BASE, SMALL)

PartName = Literal["engine", "daemon", "memory"]
"""Process that measures a row: one with the engine, one with a client of a daemon, one with three models."""


@dataclass(frozen=True)
class RowKind:
    """A figure or check.

    Attributes:
        name: Its name; that of the benchmark for a figure.
        title: Description.
        unit: Unit of its value.
        goal: Value that it should reach; for a check, the tolerance.
        part: Process that measures it.
        number: Number of the figure; None for a check.
        is_minimum: True if values above the goal are better.
        not_for: Models that it isn't measured for, with the reasons.
    """

    name: str
    title: str
    unit: str
    goal: float
    part: PartName
    number: int | None = None
    is_minimum: bool = False
    not_for: Mapping[str, str] = field(default_factory=dict[str, str])


NO_SHARED_PARTS_REASON = "its goal is about AudioLDM 2 models, which share all but their networks"

FIGURES: tuple[RowKind, ...] = (
    RowKind("overhead", "request to finished file, less the bare call", "ms", 3.0, "daemon", 1),
    RowKind("default_path", "default path / stock diffusers pipeline", "ratio", 0.15, "daemon", 2),
    RowKind("floor", "time on a GPU / arithmetic floor", "ratio", 3.0, "engine", 3),
    RowKind("throughput", "eight requests at once / one after the other", "ratio", 3.0, "daemon", 4, True),
    RowKind("live_wait", "p95 of a live request beside a batch / alone", "ratio", 1.3, "daemon", 5),
    RowKind("restart", "first render after a restart / warm", "ratio", 3.0, "daemon", 6),
    RowKind("text_stage", "text stage, cached prompt / uncached prompt", "ratio", 0.02, "engine", 7),
    RowKind("cancelling", "steps after a cancel", "steps", 1.0, "daemon", 8),
    RowKind("first_sound", "first sound heard / whole render", "ratio", 0.85, "engine", 9),
    RowKind(
        "three_models",
        "memory of three models resident / apart",
        "ratio",
        0.71,
        "memory",
        11,
        not_for={SMALL: NO_SHARED_PARTS_REASON},
    ),
)

LARGEST, RMS = "largest difference / largest value", "RMS of the difference / RMS"

CHECKS: tuple[RowKind, ...] = (
    RowKind("step_graphs", "float32: calls recorded as graphs, and plain calls", LARGEST, 1e-4, "engine"),
    RowKind("whole_render", "float32: all steps recorded as one graph, and plain calls", LARGEST, 1e-4, "engine"),
    RowKind("compiled", "default path in the device's precision, and plain float32", RMS, 0.1, "engine"),
    RowKind("bfloat16", "plain bfloat16, and plain float32", RMS, 0.1, "engine"),
    RowKind("out_of_memory", "too large a batch, too long a sound, and a sound after them", "failures", 0.0, "engine"),
)


@dataclass(frozen=True)
class Row:
    """A figure or check of one model; exactly one of `value` and `reason` is given.

    Attributes:
        name: Name of its kind.
        model: The model.
        value: The measured value.
        detail: The measurements behind it in words.
        reason: The reason that it wasn't measured.
        is_missing: True if it should have been measured; False also for one that this machine or model can't have.
    """

    name: str
    model: str
    value: float | None = None
    detail: str = ""
    reason: str = ""
    is_missing: bool = False

    @property
    def kind(self) -> RowKind:
        """The kind of the row."""
        return next(kind for kind in (*FIGURES, *CHECKS) if kind.name == self.name)

    @property
    def is_met(self) -> bool | None:
        """True if the value reaches the goal; None without a value."""
        if self.value is None:
            return None
        return self.value >= self.kind.goal if self.kind.is_minimum else self.value <= self.kind.goal


class PartReport:
    """Rows of one part, written to a file after each, so that they outlast the process."""

    def __init__(self, path: Path, model: str) -> None:
        self.rows: list[Row] = []
        self._path = path
        self._model = model

    def measure(self, name: str, work: Callable[[], Measurement]) -> None:
        """Add a row; an error becomes its reason."""
        try:
            measured = work()
        except Exception as error:  # noqa: BLE001  one row's failure must not prevent the others
            reason = f"failed with {type(error).__name__}: {error}"[:500]
            self._add(Row(name, self._model, reason=reason, is_missing=True))
            return
        self._add(Row(name, self._model, float(measured.value), measured.detail))

    def skip(self, name: str, reason: str) -> None:
        """Add a row that this machine or model can't have."""
        self._add(Row(name, self._model, reason=reason))

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        hidden = self._path.with_suffix(".writing")
        hidden.write_text(json.dumps([asdict(row) for row in self.rows]), "utf-8")
        hidden.replace(self._path)


def read_rows(path: Path) -> list[Row]:
    """Return the rows that a part has written; none without a file."""
    return [Row(**fields) for fields in json.loads(path.read_text("utf-8"))] if path.exists() else []


def complete_rows(rows: Sequence[Row], ends: Mapping[tuple[PartName, str], str]) -> list[Row]:
    """Return a row for each kind and model; a missing one has the end of its part as its reason."""
    measured = {(row.name, row.model): row for row in rows}
    complete: list[Row] = []
    for kind in (*FIGURES, *CHECKS):
        for model in MODELS:
            end = ends.get((kind.part, model), "this part was not run") or "the part ended without this row"
            absent = Row(kind.name, model, reason=kind.not_for.get(model, end), is_missing=model not in kind.not_for)
            complete.append(measured.get((kind.name, model), absent))
    return complete


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        machine: Description of the machine.
        versions: Versions of timbred, torch and diffusers, and of CUDA if there is one.
        is_tiny: True if tiny models were measured, whose figures describe no real model.
        limit_s: Time limit in seconds.
        elapsed_s: Duration in seconds.
        rows: All rows.
    """

    machine: str
    versions: dict[str, str]
    is_tiny: bool
    limit_s: float
    elapsed_s: float
    rows: list[Row]

    @property
    def failed_checks(self) -> list[Row]:
        """Checks that ran and did not hold."""
        return [row for row in self.rows if row.kind in CHECKS and row.is_met is False]

    @property
    def missing(self) -> list[Row]:
        """Figures and checks that should have been measured and weren't."""
        return [row for row in self.rows if row.is_missing]

    @property
    def failure(self) -> str:
        """The missing rows, and the checks that don't hold, in words; empty without any."""
        by_reason: dict[str, list[str]] = {}
        for row in self.missing:
            by_reason.setdefault(row.reason, []).append(f"{row.name} ({row.model})")
        lines = [f"not measured: {', '.join(names)}: {reason}" for reason, names in by_reason.items()]
        lines += [f"doesn't hold: {row.name} ({row.model}): {row.detail}" for row in self.failed_checks]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """Write `gpu.json` and `gpu.md`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gpu.json").write_text(json.dumps(self.to_json(), indent=1) + "\n", "utf-8")
        (folder / "gpu.md").write_text(self.to_markdown(), "utf-8")

    def to_json(self) -> dict[str, Any]:
        """Return the report in builtin types."""
        facts = {key: value for key, value in asdict(replace(self, rows=[])).items() if key != "rows"}
        return {
            "version": REPORT_VERSION,
            **facts,
            "figures": [_row_json(row) for row in self.rows if row.kind in FIGURES],
            "checks": [_row_json(row) for row in self.rows if row.kind in CHECKS],
        }

    def to_markdown(self) -> str:
        """Return the report as tables."""
        sizes = "tiny models, whose figures describe no real model" if self.is_tiny else "published sizes"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [
            f"Machine: {self.machine}. {versions}. Random weights, {sizes}; {self.elapsed_s:.0f} s.",
            "",
            "| # | Figure | Model | Unit | Goal | Result | Met | Measurements, or the reason that there are none |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(_row_markdown(row) for row in self.rows if row.kind in FIGURES),
            "",
            "| | Check | Model | Unit | Tolerance | Result | Met | Measurements, or the reason that there are none |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(_row_markdown(row) for row in self.rows if row.kind in CHECKS),
        ]
        return "\n".join(lines) + "\n"


def _row_json(row: Row) -> dict[str, Any]:
    kind = row.kind
    return {
        "number": kind.number,
        "name": row.name,
        "title": kind.title,
        "model": row.model,
        "unit": kind.unit,
        "goal": kind.goal,
        "goal_is": "at least" if kind.is_minimum else "at most",
        "value": row.value,
        "is_met": row.is_met,
        "detail": row.detail,
        "reason": row.reason,
        "is_missing": row.is_missing,
    }


def _row_markdown(row: Row) -> str:
    kind = row.kind
    without_value = "missing" if row.is_missing else "not measured"
    result = without_value if row.value is None else f"{row.value:.3g}"
    met = {None: "", True: "yes", False: "no"}[row.is_met]
    goal = f"{'at least' if kind.is_minimum else 'at most'} {kind.goal:g}"
    words = (row.reason or row.detail).replace("|", "/").replace("\n", " ")
    number = "" if kind.number is None else str(kind.number)
    return f"| {number} | `{row.name}` | {row.model} | {kind.unit} | {goal} | {result} | {met} | {words} |"

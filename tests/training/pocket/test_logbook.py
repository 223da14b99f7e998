from pathlib import Path
from typing import Any

from training.pocket.logbook import MAX_GAP_S, MAX_ROWS, add_minutes, draw_curves, format_page, read_log, select_rows


def rows(count: int) -> list[dict[str, Any]]:
    losses: list[dict[str, Any]] = [
        {"stage": "codec", "step": step, "time": step, "loss": 1 / (1 + step)} for step in range(count)
    ]
    held_out = [{"stage": "codec held-out", "step": step, "time": 0, "hnr of codec": 12.25} for step in range(count)]
    return [*losses, *held_out, {"stage": "evaluation of codec", "step": 0, "time": 0, "named notes": 0.875}]


def test_format_page_has_a_row_for_each_checkpoint_and_the_evaluation() -> None:
    text = format_page(rows(3))
    assert text.count("| 12.2 |") == 3
    assert "| named notes | 0.875 |" in text
    assert "## Generator" not in text


def test_select_rows_keeps_the_last_row() -> None:
    selected = select_rows(rows(200))
    assert len(selected) == MAX_ROWS
    assert selected[-1] == rows(200)[-1]


def test_read_log_renames_figures_of_older_logs(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"stage": "generator held-out", "step": 3, "what words take away": 0.02}\n')
    (row,) = read_log(tmp_path / "log.jsonl")
    assert row == {"stage": "generator held-out", "step": 3, "error reduction by prompt": 0.02}
    assert "| 3 | - | - | - | - | - | 0.02 |" in format_page([row])


def test_read_log_adds_the_share_of_the_error_that_is_removed(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(
        '{"stage": "generator held-out", "step": 3, "error at 1.0": 0.3, "error of sketch": 0.4}\n'
    )
    (row,) = read_log(tmp_path / "log.jsonl")
    assert round(row["error removed"], 6) == 0.25


def test_add_minutes_leaves_out_pauses_and_begins_anew_with_each_training() -> None:
    times = [(10, 0), (20, 600), (30, 600 + MAX_GAP_S + 1), (40, 1260 + MAX_GAP_S + 1), (5, 1320 + MAX_GAP_S)]
    steps = [{"stage": "text", "step": step, "time": time} for step, time in times]
    assert [row["minutes"] for row in add_minutes(steps)] == [0, 10, 10, 21, 0]
    assert "minutes" not in add_minutes([{"stage": "text", "step": 3}])[0]


def test_draw_curves_is_equal_for_equal_figures(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw_curves(rows(20), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()

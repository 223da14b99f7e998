from pathlib import Path
from typing import Any

from training.pocket.logbook import ROWS, draw_curves, page, thinned


def rows(count: int) -> list[dict[str, Any]]:
    losses: list[dict[str, Any]] = [
        {"stage": "codec", "step": step, "time": step, "loss": 1 / (1 + step)} for step in range(count)
    ]
    held_out = [{"stage": "codec held-out", "step": step, "time": 0, "hnr of codec": 12.25} for step in range(count)]
    return [*losses, *held_out, {"stage": "evaluation of codec", "step": 0, "time": 0, "named notes": 0.875}]


def test_page_has_a_line_for_each_checkpoint_and_the_evaluation() -> None:
    text = page(rows(3))
    assert text.count("| 12.2 |") == 3
    assert "| named notes | 0.875 |" in text
    assert "## Generator" not in text


def test_thinned_tables_keep_the_last_row() -> None:
    kept = thinned(rows(200))
    assert len(kept) == ROWS
    assert kept[-1] == rows(200)[-1]


def test_draw_curves_is_equal_for_equal_figures(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw_curves(rows(20), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()

"""The table of figures beside their bars, and the block of README.md that it is written to."""

import json
from pathlib import Path

import pytest

from training.pocket.report import BEGIN, END, PAGE, README, fill_block, format_page, goals_table, read_results

RESULTS = {
    "codec": {"Fréchet distance": 50.0},
    "pocket": {
        "top-1 accuracy of the classifier": 0.61,
        "top-3 accuracy of the classifier": 0.84,
        "HNR of sustained tones, dB": 19.0,
        "Fréchet distance": 100.0,
    },
}


def test_goals_table_says_which_bars_are_reached() -> None:
    table = goals_table(RESULTS)
    assert "| recognised first by an independent classifier | 61% | 60% | 80% | bar |" in table
    assert "| recognised within three | 84% | 85% | 95% | missed |" in table
    assert "| harmonics-to-noise ratio of held tones | 19.0 dB | 10.0 dB | 18.0 dB | goal |" in table
    assert "| Fréchet distance to recordings, over the codec's | 2.0 | 3.0 | 1.5 | bar |" in table
    assert "| named notes within 25 cents, c1 to c7 | - | 95% | 99% | not measured |" in table


def test_format_page_has_the_figures_of_all_sources(tmp_path: Path) -> None:
    for source, figures in RESULTS.items():
        (tmp_path / f"evaluation-{source}.json").write_text(json.dumps(figures))
    page = format_page(read_results(tmp_path), "2-00000000")
    assert "| figure | codec | pocket |" in page
    assert "`2-00000000`" in page


def test_fill_block_replaces_the_table_alone() -> None:
    text = f"before\n{BEGIN}old\n{END}after\n"
    assert fill_block(text, "new\n") == f"before\n{BEGIN}new\n{END}after\n"
    with pytest.raises(ValueError, match=r"README\.md lacks the lines"):
        fill_block("no block", "new")


def test_report_pages_have_the_same_table() -> None:
    block = README.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]
    assert block
    assert block in PAGE.read_text("utf-8")

"""The table of branch coverage that `make test` prints."""

from tests.branch_coverage import count, part_of, report

FILES = {
    "daemon/timbred/dsp/pipeline.py": {
        "executed_lines": [1, 2, 3],
        "missing_lines": [4],
        "executed_branches": [[1, 2]],
        "missing_branches": [[1, 4]],
    },
    "daemon/timbred/dsp/mix.py": {
        "executed_lines": [1],
        "missing_lines": [],
        "executed_branches": [[1, 2], [1, 3]],
        "missing_branches": [],
    },
    "daemon/timbred/audio.py": {
        "executed_lines": [],
        "missing_lines": [1],
        "executed_branches": [],
        "missing_branches": [],
    },
}


def test_part_of_is_the_subpackage_or_the_module() -> None:
    assert part_of("daemon/timbred/engine/codecs/mel.py") == "engine"
    assert part_of("daemon/timbred/audio.py") == "audio"


def test_count_adds_the_files_of_a_part() -> None:
    assert count(FILES)["dsp"] == {
        "executed_lines": 4,
        "missing_lines": 1,
        "executed_branches": 3,
        "missing_branches": 1,
    }


def test_report_ends_with_the_total() -> None:
    _, audio, dsp, total = (line.split() for line in report(count(FILES)).splitlines())
    assert audio == ["audio", "0.0", "0", "0", "-"]
    assert dsp == ["dsp", "80.0", "4", "1", "75.0"]
    assert total == ["total", "66.7", "4", "1", "75.0"]

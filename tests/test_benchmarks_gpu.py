"""`python -m benchmarks gpu` with tiny models, on any machine: each figure and check has a value or a reason."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import full_size, gpu
from benchmarks.gpu_report import CHECKS, FIGURES, MODELS, PartReport, Report, Row, complete_rows, read_rows
from benchmarks.measurement import Measurement
from tests.forked_programs import forked_command, torch_program
from tests.processes import none_left

LIMIT_S = 100_000
"""Seconds that no machine needs: what is tested is the report, not the limit."""

NOT_ON_A_CPU = {"step_graphs", "whole_render", "floor"}
NOT_FOR_A_MODEL = {("whole_render", "audioldm2-base"), ("three_models", "stable-audio-3-small")}


@pytest.mark.timeout(3_600)
@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU's own rows are measured there")
def test_gpu_report_has_every_row_with_its_value_or_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["gpu", "--tiny", "--limit", str(LIMIT_S), "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(gpu, "PART_PROGRAM", forked_command("benchmarks.gpu_parts"))
    for name, value in torch_program().items():
        monkeypatch.setenv(name, value)
    with none_left():
        gpu.main()
    assert capsys.readouterr().out.strip() == (tmp_path / "gpu.md").read_text("utf-8").strip()
    report: dict[str, Any] = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert report["is_tiny"] is True
    assert report["versions"]["torch"] == torch.__version__
    assert 0.0 < report["elapsed_s"] < report["limit_s"] == LIMIT_S
    for rows, kinds in ((report["figures"], FIGURES), (report["checks"], CHECKS)):
        assert [(row["number"], row["name"], row["model"], row["unit"], row["goal"]) for row in rows] == [
            (kind.number, kind.name, model, kind.unit, kind.goal) for kind in kinds for model in MODELS
        ]
        for row in rows:
            if row["name"] in NOT_ON_A_CPU or (row["name"], row["model"]) in NOT_FOR_A_MODEL:
                assert (row["value"], row["is_met"], row["is_missing"]) == (None, None, False)
                assert row["reason"] and not row["reason"].startswith("failed"), row
            else:
                assert row["value"] is not None, row
                assert row["value"] > 0.0 or row["name"] in {"overhead", "cancelling", "out_of_memory"}, row
                assert isinstance(row["is_met"], bool)
                assert row["detail"] and not row["reason"], row
    assert all(row["is_met"] for row in report["checks"] if row["value"] is not None)
    assert [row["number"] for row in report["figures"][:: len(MODELS)]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]
    table = (tmp_path / "gpu.md").read_text("utf-8")
    for row in (*report["figures"], *report["checks"]):
        assert f"| `{row['name']}` | {row['model']} | {row['unit']} |" in table


def test_gpu_needs_a_gpu_for_real_sizes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="--tiny"):
        gpu.main()


def test_gpu_report_of_parts_that_end_early_has_their_ends_as_reasons(tmp_path: Path):
    part = PartReport(tmp_path / "rows.json", MODELS[0])
    part.measure("floor", lambda: Measurement(2.5, "12 and 5 ms"))
    part.skip("step_graphs", "no graphs here")

    def fail() -> Measurement:
        raise RuntimeError("no such kernel")

    part.measure("bfloat16", fail)
    assert read_rows(tmp_path / "rows.json") == part.rows
    assert read_rows(tmp_path / "missing.json") == []
    rows = complete_rows(part.rows, {("engine", MODELS[0]): "the part ended after its 120 s"})
    found = {(row.name, row.model): row for row in rows}
    assert len(found) == len(rows) == len(MODELS) * (len(FIGURES) + len(CHECKS))
    assert found["floor", MODELS[0]].is_met
    assert found["step_graphs", MODELS[0]].reason == "no graphs here"
    assert found["bfloat16", MODELS[0]].reason == "failed with RuntimeError: no such kernel"
    assert found["first_sound", MODELS[0]].reason == "the part ended after its 120 s"
    assert found["throughput", MODELS[1]].reason == "this part was not run"
    report = Report("a machine", {"torch": "2"}, False, 480.0, 100.0, rows)
    assert report.failed_checks == []
    assert found["bfloat16", MODELS[0]] in report.missing
    assert not {found["floor", MODELS[0]], found["step_graphs", MODELS[0]], found["three_models", MODELS[1]]} & set(
        report.missing
    )
    assert "bfloat16 (audioldm2-base): failed with RuntimeError: no such kernel" in report.failure
    table = report.to_markdown()
    assert "| 3 | `floor` | audioldm2-base | ratio | at most 3 | 2.5 | yes | 12 and 5 ms |" in table
    assert "| 4 | `throughput` | stable-audio-3-small | ratio | at least 3 | missing |  | this part" in table


def test_gpu_report_names_checks_that_do_not_hold():
    rows = complete_rows([Row("bfloat16", MODELS[0], 0.2, "latents after 20 steps")], {})
    assert "doesn't hold: bfloat16 (audioldm2-base): latents" in Report("", {}, False, 480.0, 1.0, rows).failure


@pytest.mark.parametrize("name", ["checkpoints", "daemon"])
def test_gpu_fails_and_names_what_is_missing_after_a_part_that_ran_out_of_time(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def run_part(part: str, model: str, *_: Any) -> tuple[list[Row], str]:
        kinds = [kind for kind in (*FIGURES, *CHECKS) if kind.part == part]
        rows = [Row(kind.name, model, kind.goal, "measured") for kind in kinds]
        return ([], "the part ended after its 0 s") if part == name else (rows, "")

    monkeypatch.setattr(gpu, "run_part", run_part)
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"not measured: .*throughput \(audioldm2-base\)") as ended:
        gpu.main()
    assert "the part ended after its 0 s" in str(ended.value)
    assert ("text_stage" in str(ended.value)) == (name == "checkpoints")
    figures = json.loads((tmp_path / "gpu.json").read_text("utf-8"))["figures"]
    assert all(row["is_missing"] for row in figures if row["name"] == "throughput")
    assert "| `throughput` | audioldm2-base | ratio | at least 3 | missing |" in (tmp_path / "gpu.md").read_text(
        "utf-8"
    )


def test_gpu_report_compares_with_goals_in_their_direction():
    assert Row("throughput", MODELS[0], 3.5).is_met
    assert Row("throughput", MODELS[0], 2.5).is_met is False
    assert Row("overhead", MODELS[0], 3.5).is_met is False
    assert Row("overhead", MODELS[0], reason="none").is_met is None


def test_gpu_parts_end_at_their_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A part that hangs is ended with its processes, and the report says so for each of its rows."""
    sleeper = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    start = subprocess.Popen

    def start_sleeper(_command: list[str], **keys: Any) -> Any:
        return start(sleeper, **keys)

    monkeypatch.setattr(gpu.subprocess, "Popen", start_sleeper)
    folders = gpu.Folders(tmp_path, tmp_path, tmp_path)
    with none_left():
        rows, end = gpu.run_part("engine", MODELS[0], folders, 0.0, is_tiny=True)
    assert (rows, end) == ([], "the part ended after its 0 s")


def test_gpu_parts_that_fail_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "PART_PROGRAM", forked_command("benchmarks.gpu_parts"))
    folders = gpu.Folders(tmp_path / "none", tmp_path, tmp_path)
    rows, end = gpu.run_part("nothing", MODELS[0], folders, 600.0, is_tiny=True)
    assert rows == []
    assert end.startswith("failed: the part ended with status 2")
    assert "invalid choice" in end


def test_full_size_stable_audio_3_small_has_the_published_size():
    """567 million weights without the text encoder, of which 107 million are the autoencoder's."""
    with torch.device("meta"):
        transformer = full_size.stable_audio_3_transformer()
    assert round(sum(weight.numel() for weight in transformer.parameters()) / 1e6) == 459

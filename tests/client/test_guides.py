"""What the guides show works as it stands there."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.integration.daemons import ROOT, DaemonProcess, environment
from tests.patience import TIMEOUT_S
from timbred import errors
from timbred.discovery.oscquery import ATTRIBUTES

DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(blocks("python.md", "python"))))
def test_guides_python_runs_as_printed(daemon: DaemonProcess, tmp_path: Path, number: int) -> None:
    place = {"TIMBRED_ZMQ_REQUESTS": str(daemon.requests), "TIMBRED_ZMQ_EVENTS": str(daemon.events)}
    done = subprocess.run(
        [sys.executable, "-c", blocks("python.md", "python")[number]],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**environment(tmp_path, fake_engine=True), **place},
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("page", ["python.md", "touchdesigner.md"])
def test_guides_contain_every_error_code(page: str) -> None:
    text = (DOCS / page).read_text("utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.+)$", text, re.MULTILINE))
    assert set(errors.CODES) <= set(rows)
    if page == "python.md":
        for code, kind in errors.CODES.items():
            assert f"`{kind.__name__}`" in rows[code]


def test_guides_addresses_answer_as_described(daemon: DaemonProcess) -> None:
    text = (DOCS / "oscquery.md").read_text("utf-8")
    shown = re.findall(r"http://127\.0\.0\.1:7773(/[^\s`]*)", text)
    assert len(shown) >= 4
    assert {status(daemon, path) for path in shown} == {200}
    for code, row in re.findall(r"^\| (204|400) \| (.+) \|$", text, re.MULTILINE):
        for path in re.findall(r"`(/[^`]+)`", row):
            assert status(daemon, path) == int(code), path
    for attribute in ATTRIBUTES:
        assert f"`{attribute}`" in text


def status(daemon: DaemonProcess, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{daemon.http}{path}", timeout=TIMEOUT_S) as answer:
            return answer.status
    except HTTPError as answer:
        return answer.code


def test_guides_pictures_exist() -> None:
    for page in ("python.md", "touchdesigner.md", "oscquery.md"):
        for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (DOCS / page).read_text("utf-8")):
            assert (DOCS / picture).is_file()

"""An engine or a player that can't be started is told at the top of the page, until one is up."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemons import FAKE_ENGINE, DaemonProcess, hollow_checkpoint
from tests.web.browser import Page, Wire

LINE = "$('#process-alerts').textContent"


@pytest.fixture
def reason(tmp_path: Path) -> Path:
    """As long as this file is there, no engine starts."""
    path = tmp_path / "reason"
    path.touch()
    return path


@pytest.fixture
def unable(browser: Wire, tmp_path: Path, reason: Path) -> Iterator[Page]:
    """The page of a daemon whose engine refuses to start."""
    daemon = DaemonProcess(
        tmp_path,
        f"models.hollow.source={hollow_checkpoint(tmp_path / 'hollow')}",
        "models.default=hollow",
        "player.device=no such device",
        more={"TIMBRED_ENGINE_PROGRAM": f"{FAKE_ENGINE} --cannot-start-while {reason}"},
    )
    page = Page(browser)
    try:
        page.open(f"http://127.0.0.1:{daemon.http}/")
        yield page
        assert page.troubles() == []
    finally:
        page.close()
        daemon.stop()


def test_panel_failures_of_an_engine_that_cannot_start_are_shown_until_it_starts(unable: Page, reason: Path) -> None:
    unable.until(f"{LINE} !== ''")
    notifications = unable.run(LINE)
    assert notifications.startswith("The engine can't be started, so no sound can be rendered: ")
    assert f"told not to start by {reason}; remove it." in notifications
    assert unable.run("$('#process-alerts').checkVisibility()")
    assert unable.run(
        "[$('#process-alerts').getAttribute('role'), $('#process-alerts').getAttribute('aria-live')]"
    ) == [
        "status",
        "polite",
    ]
    assert unable.run("document.documentElement.scrollWidth <= innerWidth")
    reason.unlink()
    unable.until(f"{LINE} === ''")
    assert unable.run("$('#process-alerts').getBoundingClientRect().height") == 0


def test_panel_failures_of_a_player_that_cannot_start_are_shown_beside_the_engine(page: Page) -> None:
    status = "{ engine_trouble: 'no such device; set device=cpu', player_trouble: 'numpy is missing; install it' }"
    notifications = page.run(f"import('/panel/process_alerts.js').then(({{ sentences }}) => sentences({status}))")
    assert notifications == [
        "The engine can't be started, so no sound can be rendered: no such device; set device=cpu."
        " timbred retries automatically.",
        "The player can't be started, so files are written, but nothing can be played: numpy is missing; install it."
        " timbred retries automatically.",
    ]
    assert page.run(LINE) == ""

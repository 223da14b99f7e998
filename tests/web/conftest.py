"""One browser and one daemon with the fake engine for all tests of the panel; each finds the page as new."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.free_ports import free_port
from tests.host_programs import require_program
from tests.integration.daemons import DaemonProcess, hollow_checkpoint
from tests.processes import none_left
from tests.web.browser import Page, Wire, chromium
from timbred.storage.library import Library

OLD_TAKES = 2000
"""Takes that are in the library before anything is made: more than a page shows at one time."""


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """A browser without a screen."""
    program = require_program("chromium")
    with none_left(), chromium(program, tmp_path_factory.mktemp("profile")) as wire:
        yield wire


class Restartable:
    """A daemon that can be ended and started again on the same ports' numbers and the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = hollow_checkpoint(folder / "hollow")
        self.now = self._started(f"http.port={free_port()}")

    def _started(self, *settings: str) -> DaemonProcess:
        return DaemonProcess(
            self.folder,
            f"models.hollow.source={self.model}",
            "models.default=hollow",
            "engine.jobs=1",
            "player.device=no such device",
            *settings,
        )

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.now.http}/"

    def end(self) -> None:
        self.now.stop()

    def end_by_force(self) -> None:
        """After a kill: nothing of it goes on running."""
        self.now.end_by_force([])

    def start(self) -> None:
        self.now = self._started(f"http.port={self.now.http}")


def fill(folder: Path, count: int) -> None:
    """A library with takes of long ago, whose files are gone."""
    path = folder / "takes" / ".timbred.sqlite"
    Library(path).close()
    rows = [
        (f"told{n:05d}", str(folder / f"old-{n}.wav"), float(n), f"old sound number {n}", "hollow", n, 1.0, 48000, 1, 0)
        for n in range(count)
    ]
    recipe = json.dumps({"timbred": "0.1.0", "recipe": 1, "model": "hollow", "prompt": "old sound", "seed": 1})
    columns = "take_id, path, created, prompt, model, seed, seconds, rate, channels, place, request_id, recipe"
    with sqlite3.connect(path) as database:
        marks = f"?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'old', '{recipe}'"
        database.executemany(f"INSERT INTO takes ({columns}) VALUES ({marks})", rows)
    database.close()


@pytest.fixture(scope="session")
def running(browser: Wire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restartable]:
    """The daemon behind the page."""
    folder = tmp_path_factory.mktemp("panel")
    fill(folder, OLD_TAKES)
    made = Restartable(folder)
    yield made
    made.end()


@pytest.fixture(scope="session")
def first_page(browser: Wire, running: Restartable) -> Page:
    page = Page(browser)
    page.open(running.address)
    return page


@pytest.fixture
def page(first_page: Page) -> Iterator[Page]:
    """The page, with nothing under way, nothing typed and the history in sight; afterwards its console is clean."""
    first_page.size(1440, 900)
    first_page.run("document.activeElement.blur()")
    first_page.press("Escape")
    first_page.run("timbred.requests.cancelAll()")
    first_page.until("!timbred.requests.live.length && timbred.own.open && timbred.allClients.open")
    first_page.run(
        "(timbred.requests.jobs.forEach((job) => timbred.requests.forget(job)), timbred.composer.reset(),"
        " timbred.history.search.value = '',"
        " timbred.history.stars.setAttribute('aria-pressed', 'false'), timbred.composer.startFresh(),"
        " timbred.composer.fail(''),"
        " timbred.history.clearSimilar(),"
        " timbred.composer.prompt.value = '', document.activeElement.blur(), timbred.takeView.player.stop())"
    )
    first_page.run("timbred.composer.fields.get('seconds').value = 0.5")
    first_page.press("1")
    first_page.run("document.activeElement.blur()")
    yield first_page
    assert first_page.troubles() == []


def make_sound(page: Page, prompt: str) -> str:
    """Type a prompt and make it; the take's id, once it stands in the middle."""
    page.press("p")
    page.run("$('#prompt').value = ''")
    page.type(prompt)
    page.press("Enter")
    page.press("Escape")
    page.until(f"!timbred.requests.live.length && timbred.takeView.take?.prompt === {json.dumps(prompt)}")
    page.until("timbred.takeView.shown && !timbred.takeView.job")
    return str(page.run("timbred.takeView.take.take_id"))

"""The panel of a daemon that other machines can reach: a link lets a browser in, and its cookie keeps it in."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.free_ports import free_port
from tests.integration.conftest import settings_for
from tests.integration.daemons import DaemonProcess, hollow_checkpoint
from tests.keys_home import BEYOND, TOKEN, KeysHome, own_address
from tests.web.browser import Page, Wire
from timbred.cli.keys import request_link


class RestartableBeyond:
    """A daemon beyond loopback on one HTTP port."""

    def __init__(self, folder: Path, home: KeysHome) -> None:
        self._folder = folder
        self._home = home
        self._http = f"http.port={free_port()}"
        self._model = hollow_checkpoint(folder / "hollow")
        self.now = self.start()

    def start(self, *settings: str) -> DaemonProcess:
        more = {"XDG_CONFIG_HOME": str(self._home.config)}
        self.now = DaemonProcess(self._folder, *settings_for(self._model), *BEYOND, self._http, *settings, more=more)
        return self.now


@pytest.fixture
def beyond(tmp_path: Path, keys_home: KeysHome) -> Iterator[RestartableBeyond]:
    made = RestartableBeyond(tmp_path / "daemon", keys_home)
    yield made
    made.now.stop()


def follow(page: Page, address: str, path: str) -> None:
    """Open a one-time link, whose page leads to the panel by itself."""
    page.ask("Page.navigate", url=address + path)
    while not any(told["frame"]["url"] == f"{address}/" for told in page.notifications("Page.frameNavigated")):
        page.ask("Network.enable")  # an answer comes after what was told before it
    page.until("window.timbred?.own.open")


def test_panel_opens_by_a_link_and_reports_the_end_of_its_access(browser: Wire, beyond: RestartableBeyond) -> None:
    address = f"http://{own_address()}:{beyond.now.http}"
    with contextlib.closing(Page(browser)) as page:
        page.ask("Page.navigate", url=f"{address}/status")
        page.until("document.body?.innerText.includes('access-denied')")
        follow(page, address, request_link("127.0.0.1", beyond.now.http, TOKEN))
        assert page.run("document.cookie") == ""  # scripts can't read it
        assert "warm" not in page.text("#takes")
        page.run("timbred.own.send({ type: 'generate', id: 'a', prompt: 'warm pad', seconds: 0.5 })")
        page.until("$('#takes').innerText.includes('warm pad')")

        beyond.now.stop()
        beyond.start()
        page.until("timbred.own.open && timbred.allClients.open")  # the cookie holds for another run
        beyond.now.stop()
        beyond.start("access.token=another-token-0123456789")
        page.until("$('#connection-state').textContent === 'access-denied'")
        assert "timbred keys link" in page.text("#connection-alert")
        with contextlib.closing(Page(browser)) as other:
            follow(other, address, request_link("127.0.0.1", beyond.now.http, "another-token-0123456789"))
            page.until("timbred.own.open")  # the cookie is the browser's

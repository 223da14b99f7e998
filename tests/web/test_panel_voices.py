"""Takes played from the page on the daemon's own voices, on a JACK server without a card."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemons import DaemonProcess, hollow_checkpoint
from tests.player.player_stage import Require, jack_server
from tests.web.browser import CTRL, Page, Wire
from tests.web.conftest import make_sound


@pytest.fixture
def heard_page(browser: Wire, require_host: Require, tmp_path: Path) -> Iterator[Page]:
    """A page of a daemon that has a sound device."""
    with jack_server(require_host):
        model = hollow_checkpoint(tmp_path / "hollow")
        daemon = DaemonProcess(tmp_path, f"models.hollow.source={model}", "models.default=hollow", "player.lead=200")
        page = Page(browser)
        try:
            page.open(f"http://127.0.0.1:{daemon.http}/")
            yield page
            assert page.troubles() == []
        finally:
            page.close()
            daemon.stop()


def test_panel_voices_play_change_and_stop_a_take(heard_page: Page) -> None:
    page = heard_page
    make_sound(page, "on a voice")
    page.run("(timbred.voices.fields.get('loop').value = true, timbred.voices.fields.get('voice').value = 7)")
    page.press("b")
    page.until("$('#voices [data-voice=\"7\"] .prompt')?.textContent === 'on a voice'")
    page.until("$('[data-status=voices]').textContent.startsWith('1')")
    page.run("$('#voices [data-voice=\"7\"] [data-key=gain] input').focus()")
    page.type("-6")
    page.press("Tab")
    assert page.text("#voices-failure") == ""
    page.run("$('#voices [data-voice=\"7\"] [data-key=pan] input').focus()")
    page.type("9")
    page.press("Tab")
    page.until("$('#voices-failure').textContent.startsWith('bad-request: pan')")
    assert page.text("#voices [data-voice='7'] [data-key=pan] .failure").startswith("pan: got 9")
    page.run("$('#voices [data-voice=\"7\"] .small').focus()")
    page.press("Enter")
    page.until("!$('#voices [data-voice]')")

    page.press("Escape")
    page.run("document.activeElement.blur()")
    page.press("b")
    page.until("$('#voices [data-voice=\"7\"]')")
    page.press("p")
    page.press(".", CTRL)
    page.until("!$('#voices [data-voice]') && $('[data-status=voices]').textContent.startsWith('0')")
    page.until("$('#voices').textContent.includes('Nothing is playing.')")


def test_panel_voices_start_and_end_a_flow(heard_page: Page) -> None:
    page = heard_page
    page.press("p")
    page.type("an endless tone")
    page.press("Escape")
    page.press("3")
    page.run("$('#voice-flow').focus()")
    page.press("Enter")
    page.until("$('#voices [data-voice=\"1\"] .prompt')?.textContent || $('#voices-failure').textContent")
    assert page.text("#voices-failure") == ""
    page.press(".", CTRL)
    page.until("!$('#voices [data-voice]')")

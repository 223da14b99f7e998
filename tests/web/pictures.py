"""Screenshots of the panel for the documentation: `python -m tests.web.pictures`.

Starts a daemon with the model `pocket` and a browser, makes sounds, and writes docs/panel-*.png. With the argument
`engines` it writes docs/panel-engines.png alone, of a daemon with three engines of the tests.
"""

import json
import sys
import tempfile
from pathlib import Path

from tests.host_programs import PROGRAMS, find_program
from tests.integration import clients
from tests.integration.clients import hold_engine, let_go
from tests.integration.daemons import DaemonProcess, hollow_checkpoint
from tests.web.browser import SHIFT, Page, chromium
from tests.web.conftest import make_sound

DOCS = Path(__file__).parents[2] / "docs"

PROMPTS = (
    ("808 kick", 36),
    ("snare in a large room", 3),
    ("closed hi-hat", 11),
    ("rain", 8),
    ("trumpet c4", 21),
    ("a dark drone c2", 5),
    ("warm pad c4 in a cathedral", 17),
    ("tubular bells c5", 42),
    ("riser", 2),
    ("warm pad a3", 23),
    ("harp c major arpeggio 120 bpm", 7),
    ("techno drum loop 128 bpm", 12),
    ("violin a4", 4),
    ("warm pad c4 slow attack", 29),
)
STARRED = ("808 kick", "warm pad c4 in a cathedral", "tubular bells c5", "warm pad a3")
LONG_STEPS = 300


def take_pictures(page: Page, folder: Path) -> None:
    """Every picture, in the order in which the page gets there."""
    fill(page)
    page.picture(folder / "panel-desktop.png")
    list_words(page, folder / "panel-words.png")
    page.press("/")
    page.type("warm pad")
    page.until("timbred.history.rows.size === 3")
    page.press("Escape")
    page.press("v")
    page.until("!timbred.requests.live.length && timbred.history.rows.size === 4")
    page.until("timbred.takeView.shown && !timbred.takeView.job")
    sketched(page)
    page.picture(folder / "panel-history.png")
    page.run("(timbred.history.search.value = '', timbred.history.refresh())")
    denoise(page, folder / "panel-denoising.png")
    repaint(page, folder / "panel-repaint.png")
    fail(page, folder / "panel-failure.png")
    page.size(390, 844, phone=True)
    page.run("$('.top').scrollIntoView()")
    page.picture(folder / "panel-phone.png")


def fill(page: Page) -> None:
    for prompt, seed in PROMPTS:
        page.run(f"timbred.composer.fields.get('seed').value = {seed}")
        make_sound(page, prompt)
        if prompt in STARRED:
            page.press("s")
            page.until("timbred.takeView.take.starred")
    page.run("timbred.composer.reset()")
    page.run("document.activeElement.blur()")
    page.run("timbred.takeView.player.seek(0.62)")
    sketched(page)


def sketched(page: Page) -> None:
    """Wait until every row in sight has its outline."""
    page.until(
        "[...timbred.history.rows.values()].slice(0, 10).every(({ picture }) => picture.getContext('2d')"
        ".getImageData(0, 0, picture.width, picture.height).data.some((value) => value > 0))"
    )


def list_words(page: Page, path: Path) -> None:
    """The words that the model knows, and the completion of a prompt."""
    page.run("$('#known-words').open = true")
    page.press("p")
    page.run("$('#prompt').value = ''")
    page.type("soft el")
    page.press("ArrowDown")
    page.picture(path)
    page.press("Escape")
    page.run("($('#known-words').open = false, $('#prompt').value = 'warm pad c4 slow attack')")
    page.press("Escape")


def denoise(page: Page, path: Path) -> None:
    page.run(f"timbred.composer.fields.get('steps').value = {LONG_STEPS}")
    page.run("timbred.composer.fields.get('seed').value = 5")
    page.press("p")
    page.run("$('#prompt').value = ''")
    page.type("string ensemble d minor chord")
    page.press("Enter")
    page.until("timbred.takeView.previewed && timbred.takeView.shown && timbred.takeView.job?.fraction > 0.55")
    page.picture(path)
    page.press("Escape")
    page.press("x")
    page.until("!$('.card')")
    page.run("timbred.composer.reset()")


def repaint(page: Page, path: Path) -> None:
    x, y, width, height = page.run(
        "(({ x, y, width, height }) => [x, y, width, height])($('.spectrogram').getBoundingClientRect())"
    )
    page.drag((x + width * 0.45, y + height * 0.05), (x + width * 0.8, y + height * 0.5), SHIFT)
    page.run("$('#prompt').value = ''")
    page.type("tubular bells c5")
    page.picture(path)
    page.press("Escape")
    page.run("(timbred.composer.startFresh(), timbred.takeView.regionSelect.forget(), document.activeElement.blur())")


def fail(page: Page, path: Path) -> None:
    page.run("timbred.composer.fields.get('seconds').value = 30")
    page.press("p")
    page.press("Enter")
    page.until("$('.card[data-state=failed]')")
    page.press("Escape")
    page.run("document.activeElement.blur()")
    page.press("b")
    page.until("$('#voices-failure').innerText")
    page.picture(path)
    page.run("(timbred.composer.reset(), timbred.requests.jobs.forEach((job) => timbred.requests.forget(job)))")
    page.press("1")


def picture_engines(page: Page, daemon: DaemonProcess, folder: Path) -> None:
    """The list of three engines, two of which render."""
    page.run("document.activeElement.blur()")
    page.press("2")
    for number in (1, 2, 3):
        page.until(f"$('[data-engine=\"{number}\"]')?.textContent.includes('in memory: hollow')")
    with clients.udp(daemon.osc) as client:
        for name in ("one", "two"):
            hold_engine(client, name)
        page.until(
            "[...document.querySelectorAll('[data-engine]')].filter((e) => /1 req/.test(e.textContent)).length === 2"
        )
        page.picture(folder / "panel-engines.png")
        for name in ("one", "two"):
            let_go(client, name)


def main_engines(program: str) -> int:
    """Take the picture of the engines, those of the tests."""
    with tempfile.TemporaryDirectory(prefix="music-") as name:
        folder = Path(name)
        model = hollow_checkpoint(folder / "hollow")
        settings = (f"models.hollow.source={model}", "models.default=hollow", "player.device=no such device")
        daemon = DaemonProcess(folder, *settings, "engines=cuda:0 cuda:1 cpu", "engine.jobs=1")
        try:
            with chromium(program, folder / "profile") as wire:
                page = Page(wire)
                page.open(f"http://127.0.0.1:{daemon.http}/")
                picture_engines(page, daemon, DOCS)
        finally:
            daemon.stop()
    return 0


def main() -> int:
    program = find_program("chromium")
    if program is None:
        sys.exit(f"chromium isn't installed: {PROGRAMS['chromium'].remedy}")
    if sys.argv[1:] == ["engines"]:
        return main_engines(program)
    with tempfile.TemporaryDirectory(prefix="music-") as name:
        folder = Path(name)
        daemon = DaemonProcess(folder, "player.device=no such device", fake_engine=False)
        try:
            with chromium(program, folder / "profile") as wire:
                page = Page(wire)
                page.open(f"http://127.0.0.1:{daemon.http}/")
                page.until("timbred.models.models.get('pocket')?.state === 'resident'", 200)
                take_pictures(page, DOCS)
                if troubles := page.troubles():
                    print(json.dumps(troubles, indent=1), file=sys.stderr)
                    return 1
        finally:
            daemon.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())

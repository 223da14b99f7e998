"""The panel for allClients: by keys alone, at phone width, read aloud, in the dark; and from no other address."""

import json
import re

import pytest

from tests.web.browser import SHIFT, Json, Page
from tests.web.conftest import Restartable, make_sound
from timbred.transports.web_api import assets

CONTROLS = "button, a[href], input, select, textarea, summary, [tabindex], [role=slider]"
SEEN = (
    f"$$('{CONTROLS}').filter((one) => !one.disabled && one.tabIndex >= 0 && one.checkVisibility({{"
    " visibilityProperty: true }) && !one.matches('.skip'))"
)
"""The controls that can be seen and used now."""

CONTRAST = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, part) => sum + v * [0.2126, 0.7152, 0.0722][part], 0);
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(one).backgroundColor);
      layers.push([r, g, b, a]);
      if (a === 1) break;
    }
    return layers.reverse().reduce((under, [r, g, b, a]) => [r, g, b].map((v, i) => v * a + under[i] * (1 - a)),
      [10, 11, 14]);
  };
  const shown = $$('body *').filter((one) => one.checkVisibility({ visibilityProperty: true, opacityProperty: true })
    && !one.closest('.visually-hidden, .skip, [disabled], .missing, [aria-disabled], option, noscript')
    && [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
  return [shown.length, shown.map((one) => {
    const [r, g, b, a = 1] = parse(getComputedStyle(one).color);
    const under = behind(one);
    const ink = [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
    const [high, low] = [light(ink), light(under)].sort((x, y) => y - x);
    return [(high + 0.05) / (low + 0.05), one.outerHTML.slice(0, 120)];
  }).filter(([ratio]) => ratio < 4.5)];
})()"""


def test_panel_sources_name_no_other_address() -> None:
    for name, asset in assets().items():
        named = re.findall(r"(?:https?|wss?|ftp):?//[^\s\"'`$]*|[\"'(=]//\w[^\s\"'`]*", asset.content.decode())
        assert set(named) <= {"http://www.w3.org/2000/svg", "ws://"}, name
        assert "<script>" not in asset.content.decode()
        assert " style=" not in asset.content.decode()


def test_panel_requests_no_other_address(page: Page, running: Restartable) -> None:
    make_sound(page, "only from here")
    asked = page.addresses()
    assert len(asked) > 30
    own = re.escape(f"127.0.0.1:{running.now.http}/")
    assert [one for one in asked if not re.match(f"(http|ws)://{own}", one)] == []


@pytest.mark.parametrize("width", [320, 390, 768])
def test_panel_is_no_wider_than_a_phone(page: Page, width: int) -> None:
    make_sound(page, "a prompt that is long enough to need more than one line on the screen of a telephone")
    page.run("$('#all-keys').open = true")
    page.size(width, 800, phone=True)
    for tab in "2341":
        page.press(tab)
        wide = page.run(
            "$$('body *').filter((one) => one.checkVisibility() && !one.closest('.visually-hidden, .skip, canvas')"
            " && one.getBoundingClientRect().right > innerWidth + 0.5).map((one) => one.outerHTML.slice(0, 100))"
        )
        assert wide == []
        assert page.run("document.documentElement.scrollWidth") <= width
    small = page.run(
        f"{SEEN}.map((one) => [one.getBoundingClientRect(), one.outerHTML.slice(0, 90)])"
        ".filter(([box]) => box.height < 24 && box.width < 24).map(([, html]) => html)"
    )
    assert [one for one in small if "checkbox" not in one] == []
    page.run("$('#all-keys').open = false")


def test_panel_controls_are_reached_by_tab_with_visible_focus(page: Page) -> None:
    make_sound(page, "walk to every control")
    page.run("$('#all-keys').open = true")
    for tab in ("1", "2", "3"):
        page.run("document.activeElement.blur()")
        page.press(tab)
        wanted: list[str] = page.run(
            f"(window.walked = new Map({SEEN}.map((one, index) => [one, index])),"
            " [...window.walked.keys()].map((one) => one.outerHTML.slice(0, 100)))"
        )
        page.run("(document.activeElement.blur(), $('.skip').focus())")
        reached: set[int] = set()
        for _ in range(len(wanted) + 5):
            page.press("Tab")
            at, ring = page.run(
                "(() => { const one = document.activeElement, look = getComputedStyle(one);"
                " return [window.walked.get(one) ?? -1, one.matches(':focus-visible')"
                " && look.outlineStyle !== 'none' && parseFloat(look.outlineWidth) >= 2]; })()"
            )
            if at >= 0:
                assert ring, wanted[at]
                reached.add(at)
            if len(reached) == len(wanted):
                break
        assert [wanted[one] for one in range(len(wanted)) if one not in reached] == []
    page.run("$('#prompt').focus()")
    page.press("Tab", SHIFT)
    assert page.run("document.activeElement.id") != "prompt"
    page.run("$('#all-keys').open = false")


def test_panel_tabs_and_dialog_are_used_by_keys(page: Page) -> None:
    page.press("2")
    page.press("ArrowRight")
    assert page.run("document.activeElement.id") == "tab-voices"
    assert page.run("$$('[role=tabpanel]').filter((one) => !one.hidden).map((one) => one.id)") == ["voices"]
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert page.run("document.activeElement.id") == "tab-history"
    page.press("?")
    page.until("$('#help').open")
    page.press("s")
    page.press("Escape")
    page.until("!$('#help').open")
    page.run("document.activeElement.blur()")
    page.press("?")
    page.run("$('#single-keys').click()")
    page.press("Escape")
    page.until("!$('#help').open")
    page.run("document.activeElement.blur()")
    page.press("p")
    assert page.run("document.activeElement.id") != "prompt"
    page.run("timbred.shortcuts.setSingle(true)")


def test_panel_elements_have_accessible_names(page: Page) -> None:
    make_sound(page, "read me aloud")
    page.run("$('#all-keys').open = true")
    nameless: list[Json] = []
    for tab in "2341":
        page.press(tab)
        nodes = page.ask("Accessibility.getFullAXTree")["nodes"]
        used = [
            node
            for node in nodes
            if not node["ignored"]
            and any(one["name"] == "focusable" and one["value"].get("value") for one in node.get("properties", []))
            and node["role"]["value"] != "RootWebArea"
        ]
        assert len(used) > 30
        nameless += [node for node in used if not node.get("name", {}).get("value", "").strip()]
    assert [(one["role"]["value"], one.get("backendDOMNodeId")) for one in nameless] == []
    assert page.run("document.documentElement.lang") == "en"
    twice = page.run("$$('[id]').map((one) => one.id).filter((id, at, all) => all.indexOf(id) !== at)")
    assert twice == []
    broken = page.run(
        "$$('[aria-describedby], [aria-controls], [aria-labelledby]').flatMap((one) => ['aria-describedby',"
        " 'aria-controls', 'aria-labelledby'].flatMap((name) => (one.getAttribute(name) ?? '').split(' ')"
        ".filter((id) => id && !document.getElementById(id))))"
    )
    assert broken == []
    assert page.text("#announcements") != ""
    page.run("$('#all-keys').open = false")


def test_panel_text_has_contrast_in_the_dark(page: Page) -> None:
    make_sound(page, "clear enough")
    page.run("$('#all-keys').open = true")
    for tab in "2341":
        page.press(tab)
        count, faint = page.run(CONTRAST)
        assert count > 40
        assert faint == []
    assert page.run("getComputedStyle(document.documentElement).colorScheme") == "dark"
    page.run("$('#all-keys').open = false")


def test_panel_table_of_keys_is_the_documented_one(page: Page) -> None:
    shown = page.run("$$('#shortcuts tr').map((row) => [...row.children].map((cell) => cell.textContent))")
    rows = page.run("import('/panel/shortcuts.js').then((m) => m.SHORTCUTS.map(([key, words]) => [key, words]))")
    assert shown == json.loads(json.dumps(rows))

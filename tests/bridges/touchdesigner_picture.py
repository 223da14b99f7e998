"""Draws the TouchDesigner component as its script builds it: the first page, and the network inside.

python -m tests.bridges.touchdesigner_picture > docs/pictures/touchdesigner.svg
"""

import importlib.util
import sys
from html import escape
from typing import Any

from tests.bridges.touchdesigner_td import OP, Par, Project
from tests.integration.daemons import ROOT

FOLDER = ROOT / "bridges" / "touchdesigner"
COLOURS = {"DAT": "#b085b5", "CHOP": "#6b9e4f"}
SAYS = {
    "timbred_ext": "the extension",
    "timbred_vocabulary": "keys of a sound, their ranges",
    "osc_callbacks": "callbacks of hear",
    "parameter_callbacks": "buttons",
    "ask": "to the daemon, port 7770",
    "hear": "its answers, port 7780",
    "watch": "presses of buttons",
    "takes": "each take, newest first",
    "words": "words of the model",
    "sound": "the take that is loaded",
    "out1": "wire this to your patch",
}
KINDS = {
    "textDAT": "Text DAT",
    "oscoutDAT": "OSC Out DAT",
    "oscinDAT": "OSC In DAT",
    "parameterexecuteDAT": "Parameter Execute DAT",
    "tableDAT": "Table DAT",
    "audiofileinCHOP": "Audio File In CHOP",
    "outCHOP": "Out CHOP",
}
BOX = (190, 74)


def picture() -> str:
    """The whole drawing as SVG."""
    before = sys.modules.get("td")
    project = Project()
    sys.modules["td"] = project.module()
    try:
        component = _built(project)
    finally:
        sys.modules.pop("td")
        if before is not None:
            sys.modules["td"] = before
    parts = [*_page(component), *_network(component)]
    return _HEAD + "\n".join(parts) + "\n</svg>\n"


def _built(project: Project) -> Any:
    found = importlib.util.spec_from_file_location("build_component", FOLDER / "build_component.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    component = module.build(project.root, FOLDER)
    component.par.Status, component.par.Progress = "step 5 of 8", 0.625
    component.par.File = "~/Music/timbred/a-deep-punchy-kick-drum-0001.wav"
    return component


def _page(component: Any) -> list[str]:
    pages = list(dict.fromkeys(par.page for par in component.customPars))
    shown: list[Par] = [par for par in component.customPars if par.page == pages[0]]
    height = 76 + 30 * len(shown)
    parts = [_box(20, 20, 400, height, "#3b3b3b", "#222"), _text(34, 42, "timbred", 15, "#fff")]
    for place, page in enumerate(pages):
        parts.append(_box(20 + 100 * place, 54, 98, 24, "#5a5a5a" if place == 0 else "#2c2c2c", "#222"))
        parts.append(_text(30 + 100 * place, 71, page, 12, "#fff" if place == 0 else "#aaa"))
    for row, par in enumerate(shown):
        parts += _parameter(par, 92 + 30 * row)
    return parts


def _parameter(par: Par, y: int) -> list[str]:
    if par.isPulse:
        return [_box(170, y, 236, 22, "#5f5f5f", "#777"), _text(180, y + 16, par.label, 12, "#fff")]
    parts = [_text(34, y + 16, par.label, 12, "#ddd"), _box(170, y, 236, 22, "#1d1d1d", "#555")]
    if par.style == "Toggle":
        return [
            *parts[:1],
            _box(170, y, 40, 22, "#1d1d1d", "#555"),
            _text(180, y + 16, "On" if par.val else "Off", 12, "#eee"),
        ]
    if par.style == "Float":
        parts.append(_box(170, y, round(236 * par.val), 22, "#4c6f8f", "#555"))
    value = f"{par.val:g}" if par.style == "Float" else str(par.val)
    return [*parts, _text(178, y + 16, value if len(value) < 36 else "..." + value[-28:], 12, "#eee")]


def _network(component: Any) -> list[str]:
    left, top = 450, 46
    parts: list[str] = []
    places: dict[str, tuple[float, float]] = {}
    for name, operator in component.children.items():
        places[name] = (left + operator.nodeX * 0.88, top - operator.nodeY * 0.64)
    (x1, y1), (x2, y2) = places["sound"], places["out1"]
    parts.append(f'<path d="M{x1 + BOX[0]} {y1 + 37} L{x2} {y2 + 37}" stroke="#cfe8bf" stroke-width="3"/>')
    for name, operator in component.children.items():
        parts += _node(name, operator, *places[name])
    return parts


def _node(name: str, operator: OP, x: float, y: float) -> list[str]:
    kind = type(operator).__name__
    family = "CHOP" if kind.endswith("CHOP") else "DAT"
    return [
        _box(x, y, *BOX, COLOURS[family], "#222"),
        _text(x + 10, y + 22, name, 14, "#111", bold=True),
        _text(x + 10, y + 41, KINDS[kind], 12, "#222"),
        _text(x + 10, y + 60, SAYS[name], 12, "#222"),
    ]


def _box(x: float, y: float, width: float, height: float, fill: str, line: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="{fill}" stroke="{line}"/>'


def _text(x: float, y: float, text: str, size: int, fill: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}"{weight}>{escape(text)}</text>'


_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1330 430" font-family="sans-serif">
<rect width="1330" height="430" fill="#484848"/>
"""


if __name__ == "__main__":
    sys.stdout.write(picture())

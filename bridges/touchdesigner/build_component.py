"""Builds the `timbred` component inside TouchDesigner.

1. Drag this file into a network: it becomes a Text DAT.
2. Right-click it, Run Script. A component called `timbred` appears beside it.
3. To keep it: right-click the component, Save Component .tox

It reads the other files of its folder and puts their text into the component, which then needs none of them.
"""

import importlib.util
from pathlib import Path

import td

PAGE = "timbred"

FIXED = [
    # page, style, name, label, default, help
    (PAGE, "Str", "Prompt", "Prompt", "a deep punchy kick drum", "What to hear, in words"),
    (PAGE, "Pulse", "Generate", "Generate", None, "Make a sound from the prompt and the pages beside this one"),
    (PAGE, "Pulse", "Vary", "More Like This", None, "A variation of the newest take"),
    (PAGE, "Pulse", "Cancel", "Cancel", None, "End everything that was asked for"),
    (PAGE, "Pulse", "Play", "Play", None, "Play the loaded take from its start"),
    (PAGE, "Toggle", "Autoplay", "Play when It Comes", 1, "Play each take as soon as it is loaded"),
    (PAGE, "Str", "Status", "Status", "", "What the daemon is doing"),
    (PAGE, "Float", "Progress", "Progress", 0.0, "How far the sound is, 0 to 1"),
    (PAGE, "Str", "File", "File", "", "The take that is loaded"),
    ("Connection", "Str", "Address", "Network Address", "127.0.0.1", "Where the daemon is"),
    ("Connection", "Int", "Port", "Port", 7770, "The daemon's setting osc.port"),
    ("Connection", "Int", "Answers", "Answers on Port", 7780, "A free port of this machine; one for each component"),
    ("Connection", "Toggle", "Yield", "Give Way to Frames", 1, "The engine rests after each step for our frame rate"),
    ("Connection", "Toggle", "Connected", "Connected", 0, "Whether the daemon answers"),
    ("Connection", "Str", "Jobs", "Jobs", "", "Requests that are running and waiting"),
    ("Connection", "Str", "Memory", "Memory", "", "The device's memory, and resident models"),
]
"""Parameters that are the component's own; the others are those of a sound, from `timbred_vocabulary.py`."""

SHOWN_ONLY = ("Status", "Progress", "File", "Connected", "Jobs", "Memory")

TEXTS = ("timbred_ext", "timbred_vocabulary", "osc_callbacks", "parameter_callbacks")

TAKES_HEAD = ["take_id", "index", "seconds", "rate", "channels", "seed", "score", "prompt", "path"]


def build(network, folder):
    """Make the component in `network` from the files in `folder`; one that is there already is replaced.

    Returns:
        the component.
    """
    before = network.op("timbred")
    kept = {} if before is None else {par.name: par.eval() for par in before.customPars if _is_kept(par)}
    if before is not None:
        before.destroy()
    component = network.create(td.baseCOMP, "timbred")
    vocabulary = _module(Path(folder) / "timbred_vocabulary.py")
    _parameters(component, vocabulary)
    for name, value in kept.items():
        if component.par[name] is not None:
            component.par[name].val = value
    for place, name in enumerate(TEXTS):
        text = _made(component, td.textDAT, name, 0, -150 * place)
        text.text = (Path(folder) / (name + ".py")).read_text("utf-8")
    _operators(component)
    _extension(component)
    return component


def _is_kept(par):
    return par.name not in SHOWN_ONLY and not par.isPulse and not par.isDefault


def _parameters(component, vocabulary):
    pages = {}
    fixed = [
        {"page": page, "style": style, "name": name, "label": label, "default": default, "help": about}
        for page, style, name, label, default, about in FIXED
    ]
    for shown in (*fixed, *vocabulary.PARAMETERS):
        page = pages.get(shown["page"]) or pages.setdefault(shown["page"], component.appendCustomPage(shown["page"]))
        _parameter(page, shown)
    for name in SHOWN_ONLY:
        component.par[name].readOnly = True


def _parameter(page, shown):
    label = shown.get("label") or shown["key"].replace("_", " ").title()
    par = getattr(page, "append" + shown["style"])(shown["name"], label=label)[0]
    if hasattr(par, "help"):  # since build 2022.20000
        par.help = shown["help"]
    if "choices" in shown:
        par.menuNames = par.menuLabels = shown["choices"]
    if "low" in shown:
        par.min = par.normMin = shown["low"]
        par.max = par.normMax = shown["high"]
        par.clampMin = par.clampMax = True
        if shown["style"] == "Float" and shown["high"] > 10:
            par.normMax = 10.0
    if shown["default"] is not None:
        par.default = shown["default"]
        par.val = shown["default"]


def _operators(component):
    ask = _made(component, td.oscoutDAT, "ask", 250, 0)
    ask.par.address.expr = "parent().par.Address"
    ask.par.port.expr = "parent().par.Port"
    hear = _made(component, td.oscinDAT, "hear", 250, -150)
    for docked in list(hear.docked):  # the callbacks that TouchDesigner made itself
        docked.destroy()
    hear.par.port.expr = "parent().par.Answers"
    hear.par.callbacks = "osc_callbacks"
    if hasattr(hear.par, "localaddress"):
        hear.par.localaddress = "127.0.0.1"  # no firewall asks about what only this machine reaches
    watch = _made(component, td.parameterexecuteDAT, "watch", 250, -300)
    watch.text = component.op("parameter_callbacks").text
    watch.par.op = ".."
    watch.par.pars = "*"
    watch.par.custom, watch.par.builtin = 1, 0
    watch.par.onpulse, watch.par.valuechange = 1, 1
    takes = _made(component, td.tableDAT, "takes", 250, -450)
    takes.clear()
    takes.appendRow(TAKES_HEAD)
    sound = _made(component, td.audiofileinCHOP, "sound", 500, 0)
    sound.par.file = ""
    sound.par.playmode = "sequential"
    sound.par.repeat = 0
    sound.par.play = 0
    out = _made(component, td.outCHOP, "out1", 760, 0)
    out.inputConnectors[0].connect(sound)


def _extension(component):
    """The first extension; its parameters were renamed in build 2022."""
    for names in (("ext0object", "ext0promote"), ("extension1", "promoteextension1")):
        made, promote = component.par[names[0]], component.par[names[1]]
        if made is not None:
            made.val = "op('./timbred_ext').module.TimbredExt(me)"
            promote.val = 1
            break
    if component.par["initextonstart"] is not None:
        component.par.initextonstart = 1  # or a project that is opened would wait for somebody to ask it something
    component.par.reinitextensions.pulse()


def _made(component, kind, name, x, y):
    operator = component.create(kind, name)
    operator.nodeX, operator.nodeY = x, y
    return operator


def _module(path):
    found = importlib.util.spec_from_file_location("timbred_vocabulary", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


if __name__ == "__main__":
    # TouchDesigner runs a Text DAT's script under this name, with `me` for the DAT
    here = me  # noqa: F821  # pyright: ignore
    built = build(here.parent(), Path(str(here.par.file.eval())).parent)
    built.nodeX, built.nodeY = here.nodeX + 200, here.nodeY
    print("timbred: the component is built; press Generate")

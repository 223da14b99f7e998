"""Construction of the `timbred` component inside TouchDesigner.

1. Drag this file into a network: it becomes a Text DAT.
2. Right-click it, Run Script. A component called `timbred` appears beside it.
3. To keep it: right-click the component, Save Component .tox

The script copies the text of the other files of its folder into the component, which is then self-contained.
"""

import importlib.util
from pathlib import Path

import td

PAGE = "timbred"

FIXED = [
    # page, style, name, label, default, help
    (
        PAGE,
        "StrMenu",
        "Prompt",
        "Prompt",
        "a deep punchy kick drum",
        "Text that describes the sound; the menu has the kinds of sounds that the model knows",
    ),
    (PAGE, "Pulse", "Generate", "Generate", None, "Render the prompt with the parameters of all pages"),
    (PAGE, "Pulse", "Vary", "More Like This", None, "Render a variation of the newest take"),
    (PAGE, "Pulse", "Cancel", "Cancel", None, "Cancel all requests of this component"),
    (PAGE, "Pulse", "Play", "Play", None, "Play the loaded take from its start"),
    (PAGE, "Toggle", "Autoplay", "Play Automatically", 1, "Play each take as soon as it is loaded"),
    (PAGE, "Str", "Status", "Status", "", "State of the request"),
    (PAGE, "Float", "Progress", "Progress", 0.0, "Progress of the request, 0 to 1"),
    (PAGE, "Str", "File", "File", "", "File of the loaded take"),
    ("Connection", "Str", "Address", "Network Address", "127.0.0.1", "Address of the daemon"),
    ("Connection", "Int", "Port", "Port", 7770, "The daemon's setting osc.port"),
    (
        "Connection",
        "Int",
        "Answers",
        "Answers on Port",
        7780,
        "Port for the answers: a free port of this machine, different for each component",
    ),
    (
        "Connection",
        "Toggle",
        "Yield",
        "Yield to Frames",
        1,
        "The engine pauses after each step for the rendering of frames",
    ),
    ("Connection", "Toggle", "Connected", "Connected", 0, "1 while the daemon answers"),
    ("Connection", "Str", "Jobs", "Jobs", "", "Number of running and queued requests"),
    ("Connection", "Str", "Memory", "Memory", "", "Memory of the compute device, and loaded models"),
]
"""Parameters of the component: page, style, name, label, default, help. The others are in `timbred_vocabulary.py`."""

SHOWN_ONLY = ("Status", "Progress", "File", "Connected", "Jobs", "Memory")

TEXTS = ("timbred_ext", "timbred_vocabulary", "osc_callbacks", "parameter_callbacks")

WORDS_HEAD = ["group", "kinds", "word"]

TAKES_HEAD = ["take_id", "index", "seconds", "rate", "channels", "seed", "score", "prompt", "path"]


def build(network, folder):
    """Build the component in `network` from the files in `folder`; an existing one is replaced.

    Returns:
        The component.
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
        text = _create(component, td.textDAT, name, 0, -150 * place)
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
    ask = _create(component, td.oscoutDAT, "ask", 250, 0)
    ask.par.address.expr = "parent().par.Address"
    ask.par.port.expr = "parent().par.Port"
    hear = _create(component, td.oscinDAT, "hear", 250, -150)
    for docked in list(hear.docked):  # the callbacks that TouchDesigner creates by default
        docked.destroy()
    hear.par.port.expr = "parent().par.Answers"
    hear.par.callbacks = "osc_callbacks"
    if hasattr(hear.par, "localaddress"):
        hear.par.localaddress = "127.0.0.1"  # avoids a firewall prompt: only this machine can connect
    watch = _create(component, td.parameterexecuteDAT, "watch", 250, -300)
    watch.text = component.op("parameter_callbacks").text
    watch.par.op = ".."
    watch.par.pars = "*"
    watch.par.custom, watch.par.builtin = 1, 0
    watch.par.onpulse, watch.par.valuechange = 1, 1
    takes = _create(component, td.tableDAT, "takes", 250, -450)
    takes.clear()
    takes.appendRow(TAKES_HEAD)
    words = _create(component, td.tableDAT, "words", 500, -450)
    words.clear()
    words.appendRow(WORDS_HEAD)
    sound = _create(component, td.audiofileinCHOP, "sound", 500, 0)
    sound.par.file = ""
    sound.par.playmode = "sequential"
    sound.par.repeat = 0
    sound.par.play = 0
    out = _create(component, td.outCHOP, "out1", 760, 0)
    out.inputConnectors[0].connect(sound)


def _extension(component):
    """Set the first extension, whose parameters were renamed in build 2022."""
    for names in (("ext0object", "ext0promote"), ("extension1", "promoteextension1")):
        extension, promote = component.par[names[0]], component.par[names[1]]
        if extension is not None:
            extension.val = "op('./timbred_ext').module.TimbredExt(me)"
            promote.val = 1
            break
    if component.par["initextonstart"] is not None:
        component.par.initextonstart = 1  # otherwise the extension of an opened project starts at its first use only
    component.par.reinitextensions.pulse()


def _create(component, kind, name, x, y):
    operator = component.create(kind, name)
    operator.nodeX, operator.nodeY = x, y
    return operator


def _module(path):
    spec = importlib.util.spec_from_file_location("timbred_vocabulary", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    # TouchDesigner runs the script of a Text DAT under this name, with `me` set to the DAT
    here = me  # noqa: F821  # pyright: ignore
    built = build(here.parent(), Path(str(here.par.file.eval())).parent)
    built.nodeX, built.nodeY = here.nodeX + 200, here.nodeY
    print("timbred: the component is built; press Generate")

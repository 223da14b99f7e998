"""The extension class of the `timbred` component: asks the daemon over OSC and loads what comes back.

Everything happens on TouchDesigner's own thread, in callbacks that return at once: no frame waits for a sound.
`build_component.py` puts this text into the component and wires it.
"""

import math
import time
import uuid
from pathlib import Path

import td
from timbred_vocabulary import AS_DECLARED, EVENTS, PARAMETERS

LOOK_EVERY = 0.5
"""Seconds between two questions whether the daemon is there."""

ABSENT_AFTER = 1.2
"""Seconds without any answer after which it isn't: with the time to the next question that is told within two."""

KEPT = 200
"""Takes that the table remembers."""

START_IT = "start it with: timbred serve"

TAKES_HEAD = ["take_id", "index", "seconds", "rate", "channels", "seed", "score", "prompt", "path"]


class TimbredExt:
    """Promoted to the component: `op('timbred').Generate('warm pad')`."""

    def __init__(self, ownerComp):
        self.ownerComp = ownerComp
        self.requests = {}
        self.state = "looking"
        self.heard_at = time.monotonic()
        self.asked_at = None
        self.began = math.inf
        self.told = ""
        self.models = []
        self.frame_rate = None
        # not at once: the component can't be asked for its extension while that is being made
        td.run("args[0]()", self.Look, delayFrames=1, fromOP=ownerComp)

    def onDestroyTD(self):
        """The component is deleted: nothing needs to give way to it any more."""
        self._send("settings/engine.yield", 0.0)

    # what a performer asks

    def Generate(self, prompt=None, **keys):
        """Ask for a sound; returns the request's id. What isn't given stands on the component's pages."""
        words = str(self._par("Prompt")).strip() if prompt is None else prompt
        if not words:
            self._trouble("Prompt: say what you want to hear, as in: warm analog pad")
            return ""
        return self._ask("generate", [words], words, keys)

    def Vary(self, take_id=None, prompt=None, **keys):
        """Ask for a variation of a take, of the last one if none is named; returns the request's id."""
        take = take_id or self.LastTake
        if not take:
            self._trouble("Vary: there is no take yet; generate one first")
            return ""
        keys.setdefault("seed", uuid.uuid4().int % 2**31)
        return self._ask("vary", [take, *([prompt] if prompt else [])], prompt or "a variation", keys, from_pages=False)

    def Cancel(self):
        """End everything that was asked for."""
        for request in self.requests:
            self._send("cancel", request)

    def Set(self, name, value):
        """Change a setting of the daemon while it runs: `Set('tempo', 128)`."""
        self._send("settings/" + name, value)

    def GiveWay(self):
        """Tell the daemon our frame rate, so that it rests between its steps; or that it needn't."""
        self.frame_rate = float(td.project.cookRate) if self._par("Yield") else 0.0
        self.Set("engine.yield", self.frame_rate)

    @property
    def LastTake(self):
        """The id of the newest take, '' when there is none."""
        table = self.ownerComp.op("takes")
        return str(table[1, "take_id"]) if table.numRows > 1 else ""

    # what the daemon says

    def Receive(self, address, args):
        """Called by the OSC In DAT's callbacks with each answer."""
        self.heard_at = time.monotonic()
        if self.state != "there":
            self._arrived()
        answer = getattr(self, "_on_" + address.rpartition("/")[2].replace(".", "_"), None)
        if answer is not None and address in EVENTS:
            answer(dict(zip(EVENTS[address], args, strict=False)))

    def _on_status_reply(self, told):
        self._show("Jobs", f"{told['jobs_running']} running, {told['jobs_queued']} waiting")
        used, total = told["device_memory_used"], told["device_memory_total"]
        self._show("Memory", f"{used:.0f} of {total:.0f} MB, {told['models_resident']} models")
        now, asked, self.asked_at = time.monotonic(), self.asked_at or 0.0, None
        if asked - told["uptime_s"] > self.began:  # it began later than the one we knew can have begun
            self._lost("timbred was started again while it worked on this; ask once more")
            self._welcome()
            self.began = math.inf
        self.began = min(self.began, now - told["uptime_s"])

    def _on_model(self, told):
        if told["state"] != "missing" and told["name"] not in self.models:
            self.models.append(told["name"])
            menu = self.ownerComp.par["Model"]
            menu.menuNames = menu.menuLabels = ["", *self.models]

    def _on_queued(self, told):
        before = told["position"]
        self._show("Status", f"waiting, {before} before it" if before else "waiting")
        self._show("Progress", 0.0)

    def _on_started(self, told):
        self._show("Status", f"{told['model']} is at work")

    def _on_progress(self, told):
        self._show("Progress", told["fraction"])
        self._show("Status", f"step {told['step']} of {told['steps']}" if told["step"] else "the model is being loaded")

    def _on_preview(self, told):
        if told["id"] in self.requests:
            self._load(told["path"])

    def _on_take(self, told):
        if told["id"] not in self.requests:
            return
        table = self.ownerComp.op("takes")
        row = {**told, "prompt": self.requests[told["id"]]}
        table.insertRow([_shown(row[name]) for name in TAKES_HEAD], 1)
        while table.numRows > KEPT + 1:
            table.deleteRow(table.numRows - 1)
        if told["index"] == 0:
            self._load(told["path"])

    def _on_done(self, told):
        if self.requests.pop(told["id"], None) is not None:
            self._show("Progress", 1.0)
            self._show("Status", "done")

    def _on_cancelled(self, told):
        if self.requests.pop(told["id"], None) is not None:
            self._show("Progress", 0.0)
            self._show("Status", "cancelled")

    def _on_warning(self, told):
        self._trouble(f"{told['key']}: {told['message']}")

    def _on_fail(self, told):
        self.requests.pop(told["id"], None)
        self._show("Status", told["code"])
        self._trouble(f"{told['message']} ({told['code']})")

    # is it there?

    def Look(self):
        """Ask the daemon for a sign of life, and once more in half a second. Run by itself."""
        if not self.ownerComp.valid or self.ownerComp.ext.TimbredExt is not self:
            return  # an older one, whose text was changed: its successor looks
        if self.state != "absent" and time.monotonic() - self.heard_at > ABSENT_AFTER:
            self._vanished()
        if self.state == "there" and self.frame_rate and self.frame_rate != td.project.cookRate:
            self.GiveWay()
        if self.asked_at is None:
            self.asked_at = time.monotonic()
        self._send("status")
        td.run("args[0]()", self.Look, delayMilliSeconds=int(LOOK_EVERY * 1000), fromOP=self.ownerComp)

    def _vanished(self):
        self.state = "absent"
        self._show("Connected", 0)
        self._show("Status", "no daemon")
        self._trouble(self._absent())
        for prompt in self.requests.values():  # kept: it may only have been slow, and go on
            self._trouble(f"{prompt}: no answer any more; if timbred was ended, ask once more when it is back")

    def _absent(self):
        return f"no timbred answers at {self._par('Address')}:{int(self._par('Port'))}; {START_IT}"

    def _arrived(self):
        self.state = "there"
        self._no_trouble()
        self._show("Connected", 1)
        self._show("Status", "ready")
        print("timbred: connected")
        self._welcome()

    def _welcome(self):
        """Greet and query a daemon that has just appeared."""
        self.models = []
        self._send("models")
        self.GiveWay()

    def _lost(self, reason):
        """Fail the requests that can't be completed any more."""
        lost, self.requests = self.requests, {}
        for prompt in lost.values():
            self._trouble(f"{prompt}: {reason}")

    # how it is asked and shown

    def _ask(self, name, positional, prompt, keys, from_pages=True):
        self._no_trouble()
        if self.state == "absent":
            self._trouble(self._absent())
            return ""
        request = uuid.uuid4().hex
        self.requests[request] = prompt
        self._show("Status", "asked")
        self._show("Progress", 0.0)
        given = {**(self._from_pages() if from_pages else {}), **keys}
        flat = [part for key, value in given.items() for part in ("@" + key, _argument(value))]
        self._send(name, request, *positional, *flat)
        return request

    def _from_pages(self):
        """The keys whose parameter was changed; what stands at its default is the daemon's to choose."""
        found = {}
        for shown in PARAMETERS:
            par = self.ownerComp.par[shown["name"]]
            value = par.eval()
            if value not in (shown["default"], AS_DECLARED, ""):
                found[shown["key"]] = value
        return found

    def _send(self, name, *arguments):
        answers = ("@port", int(self._par("Answers")))
        self.ownerComp.op("ask").sendOSC("/timbred/" + name, [*arguments, *answers])

    def _load(self, path):
        """Load a file into the Audio File In CHOP.

        The previous file is released one frame before, so that the CHOP never plays from a file that is half replaced.
        """
        if not path:
            return
        if not Path(path).is_file():
            self._trouble(f"{path} isn't there; is the daemon on another machine?")
            return
        self._show("File", path)
        sound = self.ownerComp.op("sound")
        sound.par.play = 0
        sound.par.file = ""
        td.run("args[0](args[1])", self._loaded, path, delayFrames=1, fromOP=self.ownerComp)

    def _loaded(self, path):
        if self._par("File") != path:
            return  # another one came within this frame
        sound = self.ownerComp.op("sound")
        sound.par.file = path
        sound.par.cuepulse.pulse()
        sound.par.play = int(self._par("Autoplay"))

    def _par(self, name):
        return self.ownerComp.par[name].eval()

    def _show(self, name, value):
        self.ownerComp.par[name].val = value

    def _trouble(self, text):
        """Show an error on the component and, once, in the textport."""
        self.ownerComp.addScriptError(text)
        if text != self.told:
            print(f"timbred: {text}")
        self.told = text

    def _no_trouble(self):
        self.ownerComp.clearScriptErrors()
        self.told = ""


def _shown(value):
    """A value as the table shows it: OSC's floats have six digits that count."""
    return f"{value:.6g}" if isinstance(value, float) else value


def _argument(value):
    """A value as OSC carries it."""
    return int(value) if isinstance(value, bool) else value

"""The extension class of the `timbred` component: sends requests over OSC and loads the takes.

All code runs on TouchDesigner's main thread, in callbacks that return immediately, so that no frame is delayed.
`build_component.py` copies this text into the component.
"""

import math
import time
import uuid
from pathlib import Path

import td
from timbred_vocabulary import AS_DECLARED, EVENTS, PARAMETERS

PING_INTERVAL_S = 0.5
"""Seconds between two status requests."""

ANSWER_TIMEOUT_S = 1.2
"""Seconds without an answer after which the daemon counts as absent; with the interval it is reported within two."""

MAX_TAKES = 200
"""Maximum number of takes in the table."""

START_REMEDY = "start it with: timbred serve"

WORDS_HEAD = ["group", "kinds", "word"]

TAKES_HEAD = ["take_id", "index", "seconds", "rate", "channels", "seed", "score", "prompt", "path"]


class TimbredExt:
    """Promoted to the component: `op('timbred').Generate('warm pad')`."""

    def __init__(self, ownerComp):
        self.ownerComp = ownerComp
        self.requests = {}
        self.state = "looking"
        self.answered_at = time.monotonic()
        self.asked_at = None
        self.began = math.inf
        self.reported = ""
        self.models = []
        self.kinds = []
        self.frame_rate = None
        # one frame later, because the extension isn't accessible during its construction
        td.run("args[0]()", self.Look, delayFrames=1, fromOP=ownerComp)

    def onDestroyTD(self):
        """Reset `engine.yield` when the component is deleted."""
        self._send("settings/engine.yield", 0.0)

    # requests

    def Generate(self, prompt=None, **keys):
        """Request a sound; returns the request's id. Other keys are read from the component's pages."""
        text = str(self._par("Prompt")).strip() if prompt is None else prompt
        if not text:
            self._report_error("Prompt: enter a description of a sound, as in: warm analog pad")
            return ""
        return self._ask("generate", [text], text, keys)

    def Vary(self, take_id=None, prompt=None, **keys):
        """Request a variation of a take, by default of the newest one; returns the request's id."""
        take = take_id or self.LastTake
        if not take:
            self._report_error("Vary: there is no take yet; generate one first")
            return ""
        keys.setdefault("seed", uuid.uuid4().int % 2**31)
        return self._ask("vary", [take, *([prompt] if prompt else [])], prompt or "a variation", keys, from_pages=False)

    def Cancel(self):
        """Cancel all requests of this component."""
        for request in self.requests:
            self._send("cancel", request)

    def Set(self, name, value):
        """Change a setting of the daemon while it runs: `Set('tempo', 128)`."""
        self._send("settings/" + name, value)

    def SetYield(self):
        """Send the frame rate to the daemon, so that it pauses between steps; 0 if yielding is off."""
        self.frame_rate = float(td.project.cookRate) if self._par("Yield") else 0.0
        self.Set("engine.yield", self.frame_rate)

    def AskWords(self):
        """Query the words that the selected model knows, for the table `words` and the menu of the prompt."""
        self.kinds = []
        words = self.ownerComp.op("words")
        words.clear()
        words.appendRow(WORDS_HEAD)
        model = str(self._par("Model"))
        self._send("words", *([model] if model else []))

    @property
    def LastTake(self):
        """The id of the newest take; '' if there is none."""
        table = self.ownerComp.op("takes")
        return str(table[1, "take_id"]) if table.numRows > 1 else ""

    # events

    def Receive(self, address, args):
        """Handle an answer; called by the OSC In DAT's callbacks."""
        self.answered_at = time.monotonic()
        if self.state != "there":
            self._arrived()
        answer = getattr(self, "_on_" + address.rpartition("/")[2].replace(".", "_"), None)
        if answer is not None and address in EVENTS:
            answer(dict(zip(EVENTS[address], args, strict=False)))

    def _on_status_reply(self, event):
        self._show("Jobs", f"{event['jobs_running']} running, {event['jobs_queued']} queued")
        used, total = event["device_memory_used"], event["device_memory_total"]
        self._show("Memory", f"{used:.0f} of {total:.0f} MB, {event['models_resident']} models")
        now, asked, self.asked_at = time.monotonic(), self.asked_at or 0.0, None
        if asked - event["uptime_s"] > self.began:  # it started later than the known one
            self._lost("timbred was restarted during this request; send it again")
            self._welcome()
            self.began = math.inf
        self.began = min(self.began, now - event["uptime_s"])

    def _on_model(self, event):
        if event["state"] != "missing" and event["name"] not in self.models:
            self.models.append(event["name"])
            menu = self.ownerComp.par["Model"]
            menu.menuNames = menu.menuLabels = ["", *self.models]

    def _on_known(self, event):
        words = event["words"].split(", ")
        table = self.ownerComp.op("words")
        for word in words:
            table.appendRow([event["group"], int(event["kinds"]), word])
        if event["kinds"]:
            self.kinds += [word for word in words if word not in self.kinds]
            menu = self.ownerComp.par["Prompt"]
            menu.menuNames = menu.menuLabels = self.kinds

    def _on_queued(self, event):
        before = event["position"]
        self._show("Status", f"queued, {before} before it" if before else "queued")
        self._show("Progress", 0.0)

    def _on_started(self, event):
        self._show("Status", f"rendering with {event['model']}")

    def _on_progress(self, event):
        self._show("Progress", event["fraction"])
        self._show("Status", f"step {event['step']} of {event['steps']}" if event["step"] else "loading the model")

    def _on_preview(self, event):
        if event["id"] in self.requests:
            self._load(event["path"])

    def _on_take(self, event):
        if event["id"] not in self.requests:
            return
        table = self.ownerComp.op("takes")
        row = {**event, "prompt": self.requests[event["id"]]}
        table.insertRow([_shown(row[name]) for name in TAKES_HEAD], 1)
        while table.numRows > MAX_TAKES + 1:
            table.deleteRow(table.numRows - 1)
        if event["index"] == 0:
            self._load(event["path"])

    def _on_done(self, event):
        if self.requests.pop(event["id"], None) is not None:
            self._show("Progress", 1.0)
            self._show("Status", "done")

    def _on_cancelled(self, event):
        if self.requests.pop(event["id"], None) is not None:
            self._show("Progress", 0.0)
            self._show("Status", "cancelled")

    def _on_warning(self, event):
        self._report_error(f"{event['key']}: {event['message']}")

    def _on_fail(self, event):
        self.requests.pop(event["id"], None)
        self._show("Status", event["code"])
        self._report_error(f"{event['message']} ({event['code']})")

    # detection of the daemon

    def Look(self):
        """Send a status request and check for answers; repeats every `PING_INTERVAL_S`."""
        if not self.ownerComp.valid or self.ownerComp.ext.TimbredExt is not self:
            return  # replaced by a newer instance, which continues
        if self.state != "absent" and time.monotonic() - self.answered_at > ANSWER_TIMEOUT_S:
            self._vanished()
        if self.state == "there" and self.frame_rate and self.frame_rate != td.project.cookRate:
            self.SetYield()
        if self.asked_at is None:
            self.asked_at = time.monotonic()
        self._send("status")
        td.run("args[0]()", self.Look, delayMilliSeconds=int(PING_INTERVAL_S * 1000), fromOP=self.ownerComp)

    def _vanished(self):
        self.state = "absent"
        self._show("Connected", 0)
        self._show("Status", "no daemon")
        self._report_error(self._absent())
        for prompt in self.requests.values():  # kept, because a slow daemon may still complete them
            self._report_error(f"{prompt}: no answer; if timbred was stopped, send it again when it is running")

    def _absent(self):
        return f"no timbred answers at {self._par('Address')}:{int(self._par('Port'))}; {START_REMEDY}"

    def _arrived(self):
        self.state = "there"
        self._clear_errors()
        self._show("Connected", 1)
        self._show("Status", "ready")
        print("timbred: connected")
        self._welcome()

    def _welcome(self):
        """Query a daemon that has just appeared."""
        self.models = []
        self._send("models")
        self.AskWords()
        self.SetYield()

    def _lost(self, reason):
        """Fail the requests that can't be completed any more."""
        lost, self.requests = self.requests, {}
        for prompt in lost.values():
            self._report_error(f"{prompt}: {reason}")

    # sending and display

    def _ask(self, name, positional, prompt, keys, from_pages=True):
        self._clear_errors()
        if self.state == "absent":
            self._report_error(self._absent())
            return ""
        request = uuid.uuid4().hex
        self.requests[request] = prompt
        self._show("Status", "sent")
        self._show("Progress", 0.0)
        values = {**(self._from_pages() if from_pages else {}), **keys}
        flat = [part for key, value in values.items() for part in ("@" + key, _argument(value))]
        self._send(name, request, *positional, *flat)
        return request

    def _from_pages(self):
        """Return the keys whose parameter was changed; the daemon chooses the others."""
        changed = {}
        for shown in PARAMETERS:
            par = self.ownerComp.par[shown["name"]]
            value = par.eval()
            if value not in (shown["default"], AS_DECLARED, ""):
                changed[shown["key"]] = value
        return changed

    def _send(self, name, *arguments):
        answers = ("@port", int(self._par("Answers")))
        self.ownerComp.op("ask").sendOSC("/timbred/" + name, [*arguments, *answers])

    def _load(self, path):
        """Load a file into the Audio File In CHOP.

        The previous file is released one frame earlier, so that the CHOP never plays from a partly replaced file.
        """
        if not path:
            return
        if not Path(path).is_file():
            self._report_error(f"{path} doesn't exist here; is the daemon on another machine?")
            return
        self._show("File", path)
        sound = self.ownerComp.op("sound")
        sound.par.play = 0
        sound.par.file = ""
        td.run("args[0](args[1])", self._loaded, path, delayFrames=1, fromOP=self.ownerComp)

    def _loaded(self, path):
        if self._par("File") != path:
            return  # a newer take arrived within this frame
        sound = self.ownerComp.op("sound")
        sound.par.file = path
        sound.par.cuepulse.pulse()
        sound.par.play = int(self._par("Autoplay"))

    def _par(self, name):
        return self.ownerComp.par[name].eval()

    def _show(self, name, value):
        self.ownerComp.par[name].val = value

    def _report_error(self, text):
        """Show an error on the component and, once, in the textport."""
        self.ownerComp.addScriptError(text)
        if text != self.reported:
            print(f"timbred: {text}")
        self.reported = text

    def _clear_errors(self):
        self.ownerComp.clearScriptErrors()
        self.reported = ""


def _shown(value):
    """Format a value for the table: OSC's 32-bit floats have six significant digits."""
    return f"{value:.6g}" if isinstance(value, float) else value


def _argument(value):
    """Convert a value to an OSC argument."""
    return int(value) if isinstance(value, bool) else value

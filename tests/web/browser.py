"""Chromium without a screen, told what to do over its own debugging protocol: real keys, real pictures, real sound."""

import base64
import contextlib
import itertools
import json
import re
import subprocess
import threading
from collections.abc import Generator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.patience import TIMEOUT_S

Json = dict[str, Any]

MAX_ANSWER_S = 2 * TIMEOUT_S
"""Seconds without an answer after which Chromium itself counts as hung."""

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-default-apps",
    "--mute-audio",
    "--hide-scrollbars",
)
"""Chromium as root, without anything that it would ask other machines for."""

KEYS = {
    "Enter": ("Enter", 13, "\r"),
    "Tab": ("Tab", 9, ""),
    "Escape": ("Escape", 27, ""),
    "Backspace": ("Backspace", 8, ""),
    "Delete": ("Delete", 46, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "Home": ("Home", 36, ""),
    "End": ("End", 35, ""),
    " ": ("Space", 32, " "),
    ".": ("Period", 190, "."),
    "/": ("Slash", 191, "/"),
    "?": ("Slash", 191, "?"),
}
ALT, CTRL, META, SHIFT = 1, 2, 4, 8


class Wire:
    """Commands to Chromium and their answers; what it tells unasked is kept in `told`."""

    def __init__(self, address: str) -> None:
        self._closing = contextlib.ExitStack()
        line = connect(address, max_size=None, proxy=None, open_timeout=TIMEOUT_S, ping_timeout=TIMEOUT_S)
        self._socket: ClientConnection = self._closing.enter_context(line)
        self._numbers = itertools.count(1)
        self._asked: dict[int, Future[Json]] = {}
        self._lock = threading.Lock()
        self.notifications: list[Json] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        for text in self._socket:
            message: Json = json.loads(text)
            if "id" not in message:
                self.notifications.append(message)
                continue
            with self._lock:
                asked = self._asked.pop(message["id"])
            if "error" in message:
                asked.set_exception(AssertionError(message["error"]))
            else:
                asked.set_result(message["result"])

    def ask(self, method: str, session: str | None = None, **parameters: object) -> Json:
        number = next(self._numbers)
        answer: Future[Json] = Future()
        with self._lock:
            self._asked[number] = answer
        whole: Json = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(whole if session is None else {**whole, "sessionId": session}))
        return answer.result(MAX_ANSWER_S)

    def close(self) -> None:
        self._closing.close()
        self._reading.join(TIMEOUT_S)


class Page:
    """One tab."""

    def __init__(self, wire: Wire, width: int = 1440, height: int = 900) -> None:
        self._wire = wire
        self._target = wire.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session: str = wire.ask("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")
        self.size(width, height)
        self.ask("Emulation.setFocusEmulationEnabled", enabled=True)

    def ask(self, method: str, **parameters: object) -> Json:
        return self._wire.ask(method, self._session, **parameters)

    def notifications(self, method: str) -> list[Json]:
        """What Chromium told of this tab under this name."""
        return [
            one["params"]
            for one in list(self._wire.notifications)
            if one["method"] == method and one.get("sessionId") == self._session
        ]

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1 + phone, mobile=phone
        )

    def open(self, address: str) -> None:
        self.ask("Page.navigate", url=address)
        self.until("window.timbred?.own.open")

    def reload(self) -> None:
        self.run("window.before = true")
        self.ask("Page.reload")
        self.until("!window.before && window.timbred?.own.open")

    def close(self) -> None:
        self._wire.ask("Target.closeTarget", targetId=self._target)

    @contextlib.contextmanager
    def copied(self) -> Generator["Page"]:
        """A copy of this tab, which begins with what this one remembers."""
        kept = self.run("JSON.stringify(Object.entries(sessionStorage))")
        copy = Page(self._wire)
        recall = f"for (const [name, value] of {kept}) if (!(name in sessionStorage)) sessionStorage[name] = value"
        copy.ask("Page.addScriptToEvaluateOnNewDocument", source=recall)
        try:
            yield copy
        finally:
            copy.close()

    # ---- asking

    def run(self, expression: str) -> Any:
        """The value of an expression, awaited; `$` finds an element, `$$` all of them."""
        whole = (
            "(async () => { const $ = (s) => document.querySelector(s), $$ = (s) => [...document.querySelectorAll(s)];"
            f" return ({expression}); }})()"
        )
        answer = self.ask(
            "Runtime.evaluate", expression=whole, awaitPromise=True, returnByValue=True, userGesture=False
        )
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}\n{answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, expression: str, within: float = TIMEOUT_S) -> Any:
        """The value of an expression as soon as it is true; looked for with each picture that the browser draws."""
        whole = (
            "(async () => { const $ = (s) => document.querySelector(s), $$ = (s) => [...document.querySelectorAll(s)];"
            f" const end = performance.now() + {within * 1000};"
            " for (;;) { try {"
            f" const found = await ({expression}); if (found) return found; }} catch (error) {{ window.until = error }}"
            " if (performance.now() > end) throw new Error('not within its time: ' + window.until);"
            " await new Promise((resolve) => setTimeout(resolve, 16)); } })()"
        )
        # a page that is just going away takes the question with it
        for _ in range(5):
            try:
                answer = self.ask("Runtime.evaluate", expression=whole, awaitPromise=True, returnByValue=True)
                break
            except AssertionError as error:
                if "navigated" not in str(error) and "destroyed" not in str(error) and "context" not in str(error):
                    raise
        else:
            raise AssertionError(f"the page doesn't stay: {expression}")
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}\n{self.text('body')[:3000]}")
        return answer["result"].get("value")

    def watch(self, selector: str) -> None:
        """From now on, notice an element that may soon be gone again; `until_seen` waits for it."""
        self.run(
            f"(window.seenBriefly = !!$({json.dumps(selector)}), new MutationObserver(() => {{"
            f" window.seenBriefly ||= !!$({json.dumps(selector)}); }})"
            ".observe(document.body, { subtree: true, childList: true, attributes: true }), 0)"
        )

    def until_seen(self) -> None:
        """Wait until the element that is watched for has been there."""
        self.until("window.seenBriefly")

    def text(self, selector: str) -> str:
        """All text in an element, whether it has been drawn yet or not."""
        return str(self.run(f"$({json.dumps(selector)})?.textContent ?? ''"))

    # ---- doing

    def press(self, key: str, modifiers: int = 0) -> None:
        """A key goes down and up, as from a keyboard."""
        code, number, text = KEYS.get(key, (f"Key{key.upper()}", ord(key.upper()[0]), key))
        if key.isdigit():
            code = f"Digit{key}"
        if key == "?" or (len(key) == 1 and key.isupper()):
            modifiers |= SHIFT
        text = "" if modifiers & (CTRL | ALT | META) else text
        parts: Json = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **parts)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **parts)

    def type(self, text: str) -> None:
        for letter in text:
            self.press(letter)

    def click(self, selector: str) -> None:
        """A press of the mouse in the middle of an element, once it stands still and nothing covers it."""
        place = self.until(
            f"(() => {{ const found = $({json.dumps(selector)}); found.scrollIntoView({{ block: 'nearest' }});"
            " const { x, y, width, height } = found.getBoundingClientRect();"
            " const place = [x + width / 2, y + height / 2];"
            " const still = String(place) === String(window.placeBefore); window.placeBefore = place;"
            " return still && found.contains(document.elementFromPoint(...place)) && place; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float], modifiers: int = 0) -> None:
        """The mouse goes down in one place and up in another."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1, modifiers=modifiers)

    def picture(self, path: Path) -> None:
        """What is to be seen, as a PNG file."""
        shot = self.ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    # ---- what it did

    def addresses(self) -> list[str]:
        """Every address that the page asked for."""
        asked = [one["request"]["url"] for one in self.notifications("Network.requestWillBeSent")]
        return asked + [one["url"] for one in self.notifications("Network.webSocketCreated")]

    def troubles(self) -> list[str]:
        """What went wrong in the page's scripts, as its console has it."""
        thrown = [json.dumps(one["exceptionDetails"]) for one in self.notifications("Runtime.exceptionThrown")]
        said = [
            json.dumps(one["args"]) for one in self.notifications("Runtime.consoleAPICalled") if one["type"] == "error"
        ]
        return thrown + said


@contextlib.contextmanager
def chromium(program: str, profile: Path) -> Generator[Wire]:
    """A browser of its own that is gone when the block ends."""
    command = [program, *QUIET, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said: list[str] = []
    wire: Wire | None = None
    draining: threading.Thread | None = None
    try:
        for line in process.stderr:
            said.append(line.decode(errors="replace"))
            if found := re.search(r"DevTools listening on (\S+)", said[-1]):
                wire = Wire(found[1])
                break
        if wire is None:
            raise AssertionError("chromium doesn't start:\n" + "".join(said))
        draining = threading.Thread(target=process.stderr.read, daemon=True)
        draining.start()
        yield wire
    finally:
        if wire is not None:
            with contextlib.suppress(Exception):  # it may have gone already; whether it has is seen below
                wire.ask("Browser.close")
            wire.close()
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if draining is not None:
            draining.join(TIMEOUT_S)
        process.stderr.close()

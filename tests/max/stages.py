"""A generated patch played under Node: its objects, cords and scripts, with stand-ins for Max's and Live's parts."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from max_patches.patcher import Box, Patch
from max_patches.words import port as usual_port
from tests.integration.daemons import ROOT
from tests.patience import TIMEOUT_S

SCRIPTS = ROOT / "max_patches" / "timbred"
STAGE = Path(__file__).parent / "stage" / "stage.js"

Seen = dict[str, Any]


def live(*, version: Sequence[int] = (12, 1, 0), **more: Any) -> dict[str, Any]:
    """A Live set: one audio track of two slots, with the device on it."""
    song = {
        "tempo": 124.0,
        "signature_numerator": 6,
        "signature_denominator": 8,
        "root_note": 9,
        "scale_name": "Minor",
        "scale_mode": 1,
        **more.pop("song", {}),
    }
    tracks = more.pop("tracks", [{"name": "Sounds"}])
    return {"version": list(version), "song": song, "tracks": tracks, "device": 0, "scenes": 2, **more}


class MaxStage:
    """A patch that is being played. What happens in it is heard in order; each wait goes on from the last."""

    def __init__(self, process: subprocess.Popen[str], patch: Patch) -> None:
        self.process = process
        self.patch = patch
        self.seen: list[Seen] = []
        self._at: dict[str, int] = {}
        self._more = threading.Condition()
        self._open = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.seen.append(json.loads(line))
                self._more.notify_all()
        with self._more:
            self._open = False
            self._more.notify_all()

    def until(self, wanted: Callable[[Seen], bool], what: str) -> Seen:
        """The next that is wanted, as soon as it happens; `what` names it, and each name goes on from its own last.

        A fault in a script ends the test.
        """
        deadline = time.monotonic() + TIMEOUT_S
        with self._more:
            while True:
                for found in self.seen[self._at.get(what, 0) :]:
                    self._at[what] = self._at.get(what, 0) + 1
                    assert "fault" not in found, found["fault"]
                    if wanted(found):
                        return found
                left = deadline - time.monotonic()
                if not self._open or left <= 0:
                    raise AssertionError(f"{what} didn't come as wanted:\n" + "\n".join(map(str, self.seen[-40:])))
                self._more.wait(left)

    def received(self, box: Box, *beginning: Any) -> list[Any]:
        """The next message that an object is told, beginning so."""
        wanted = list(beginning)

        def is_wanted(seen: Seen) -> bool:
            return seen.get("box") == box.id and seen["message"][: len(wanted)] == wanted

        return self.until(is_wanted, f"told {box.id} {box.text or box.maxclass}")["message"]

    def status(self, words: str) -> str:
        """The next status line that has these words."""
        line = self.box("live.comment", "connecting to timbred")

        def is_wanted(seen: Seen) -> bool:
            return seen.get("box") == line.id and words in str(seen["message"][1])

        return str(self.until(is_wanted, "status")["message"][1])

    def console(self, words: str) -> str:
        """The next line of Max's console that has these words."""
        return str(self.until(lambda seen: "console" in seen and words in seen["text"], "console")["text"])

    def called(self, name: str) -> Seen:
        """The next call of Live's API of this name."""
        return self.until(lambda seen: seen.get("call") == name, "Live")

    def clip_set(self) -> tuple[str, Any]:
        """The next property of a clip that is set."""
        found = self.until(lambda seen: seen.get("live") == "Clip" and "set" in seen, "clip")
        return found["set"], found["value"]

    def box(self, kind: str, text: str = "", index: int = 0) -> Box:
        """An object of the patch, by its name and what stands in it."""
        return [box for box in self.patch.boxes if box.name == kind and text in box.text][index]

    def parameter(self, name: str) -> Box:
        """An object of the patch, by its parameter's name."""
        [found] = [box for box in self.patch.parameters if box.parameter is not None and box.parameter.name == name]
        return found

    def order(self, order: str, box: Box | None = None, value: Any = None) -> None:
        """Do something to an object: click, type, turn..."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"order": order, "box": box and box.id, "value": value}) + "\n")
        self.process.stdin.flush()

    def click(self, name: str) -> None:
        """Press a button."""
        self.order("click", self.parameter(name))

    def turn(self, name: str, value: float) -> None:
        """Set a knob."""
        self.order("turn", self.parameter(name), value)

    def type(self, words: str, index: int = 0) -> None:
        """Type into a field, without Return."""
        self.order("type", self.box("textedit", index=index), words)

    def port(self, number: int) -> None:
        """Type another port; it is the last of the number fields."""
        self.order("turn", [box for box in self.patch.boxes if box.maxclass == "number"][-1], number)

    def stored(self) -> dict[str, Any]:
        """What Live would save now, by the objects' ids."""
        self.order("stored")
        return self.until(lambda seen: "stored" in seen, "stored")["stored"]

    @property
    def faults(self) -> list[Seen]:
        """What went wrong in the scripts, and what a patch must never do."""
        return [seen for seen in self.seen if "fault" in seen]


@contextmanager
def playing(
    node: str,
    folder: Path,
    patch: Patch,
    port: int,
    *,
    set_of_live: dict[str, Any] | None = None,
    stored: dict[str, Any] | None = None,
) -> Generator[MaxStage]:
    """Play a patch that looks for timbred on `port`; it is gone when the block ends, and no fault was in it."""
    scripts = copy_of_scripts(folder / "scripts", port)
    (folder / "patch.json").write_text(json.dumps(patch.saved()), "utf-8")
    (folder / "settings.json").write_text(json.dumps({"rate": 44100, "live": set_of_live, "stored": stored}), "utf-8")
    command = [node, str(STAGE), str(scripts), str(folder / "patch.json"), str(folder / "settings.json")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stage = MaxStage(process, patch)
    try:
        stage.until(lambda seen: seen.get("stage") == "loaded", "loading")
        yield stage
        assert not stage.faults
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(TIMEOUT_S)
        assert process.stdout is not None
        process.stdout.close()


def copy_of_scripts(folder: Path, port: int) -> Path:
    """The scripts as they are, but for the port that they look on first."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(SCRIPTS, folder)
    vocabulary = folder / "timbred-vocabulary.js"
    text = vocabulary.read_text("utf-8")
    usual = f"exports.port = {usual_port()};"
    assert text.count(usual) == 1
    vocabulary.write_text(text.replace(usual, f"exports.port = {port};"), "utf-8")
    return folder

"""Real Pd without a window or a sound card, with a patch around the bridge's objects, told what to do over a socket."""

import contextlib
import socket
import time
from collections.abc import Generator
from pathlib import Path

from tests.free_ports import free_port
from tests.hosts import TIMEOUT_S, Program, Spoken, running
from tests.integration.daemons import ROOT

FOLDER = ROOT / "bridges" / "puredata"
RATE = 48_000

HEAD = """#N canvas 60 60 600 400 12;
#X obj 20 20 netreceive -u {port};
#X obj 20 50 route one two note file all drum record;
#X obj 400 50 s pd;
#X obj 20 330 soundfiler;
#X obj 120 330 s timbred-connect;
#X obj 120 360 s drum-machine;
#X obj 200 20 loadbang;
#X obj 300 20 print stage;
#X connect 0 0 1 0;
#X connect 1 3 3 0;
#X connect 1 4 4 0;
#X connect 1 5 5 0;
#X connect 1 7 2 0;
#X connect 6 0 7 0;
"""
"""A patch that passes on what it is told: to its objects one and two, as notes to one, to soundfiler, to Pd."""

TWO_CLIENTS = """#X obj 20 80 timbred 127.0.0.1 {daemon};
#X obj 320 80 timbred 127.0.0.1 {daemon};
#X obj 20 120 print take;
#X obj 120 120 print progress;
#X obj 220 120 print event;
#X obj 320 120 print other;
#X connect 1 0 8 0;
#X connect 1 1 9 0;
#X connect 8 0 10 0;
#X connect 8 1 11 0;
#X connect 8 2 12 0;
#X connect 9 2 13 0;
"""

SAMPLER = """#X obj 20 80 timbred-sampler sound 127.0.0.1 {daemon};
#X obj 20 120 print ready;
#X obj 120 120 print progress;
#X obj 220 120 print event;
#X obj 320 120 writesf~;
#X connect 1 6 12 0;
#X connect 1 0 8 0;
#X connect 1 2 8 1;
#X connect 8 0 12 0;
#X connect 8 1 9 0;
#X connect 8 2 10 0;
#X connect 8 3 11 0;
"""

NOTHING = ""


class Pd:
    """A running Pd."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self._address = ("127.0.0.1", port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    @property
    def spoken(self) -> Spoken:
        return self.program.spoken

    def say(self, message: str) -> None:
        """Send a message as it stands in a message box, to the object that its first word names."""
        self._socket.sendto(f"{message};\n".encode(), self._address)

    def until_said(self, pattern: str, times: int) -> None:
        """Wait until so many lines with the pattern have been said."""
        deadline = time.monotonic() + TIMEOUT_S
        while len(self.spoken.matching(pattern)) < times:
            assert time.monotonic() < deadline, self.spoken.lines
            time.sleep(0.01)

    def quit(self) -> None:
        """End it as its own menu does; files are closed."""
        self.say("quit")
        self.program.process.wait(TIMEOUT_S)

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def pd_with(program: str, folder: Path, objects: str, daemon: int, *more: str) -> Generator[Pd]:
    """Pd with a patch of these objects, gone at the end."""
    port = free_port()
    patch = folder / "stage.pd"
    patch.write_text(HEAD.format(port=port) + objects.format(daemon=daemon), "utf-8")
    quiet = ("-nogui", "-noaudio", "-nomidi", "-r", str(RATE), "-path", str(FOLDER))
    with running(program, *quiet, "-open", str(patch), *more, "-send", "pd dsp 1") as started:
        pd = Pd(started, port)
        try:
            pd.spoken.until("^stage: bang")
            yield pd
        finally:
            pd.close()

"""`first-sound.maxpat`: a patch that uses Max's own objects only, without JavaScript."""

from max_patches.patcher import Patch
from max_patches.words import port

NAME = "first-sound"
ANSWERS = 7779
"""The port on which the patch listens."""

EVENTS = ("progress", "take", "done", "fail")


def build() -> Patch:
    """Build the patch: a button, a request, the answers, and the sound."""
    patch = Patch(NAME)
    with patch.row('Start the daemon with "timbred serve", turn audio on, then click the button.'):
        button = patch.add("button", wide=24.0)
        number = patch.box("random 2147483647")
        patch.add("comment", text="a new id for each request", wide=240.0)
    with patch.row("udpsend receives nothing: @port sends the answers to udpreceive"):
        ask = patch.message(f"/timbred/generate $1 a deep punchy kick drum @seconds 1 @channels 2 @port {ANSWERS}")
    with patch.row():
        send = patch.box(f"udpsend 127.0.0.1 {port()}")
    with patch.row("the answers"):
        receive = patch.box(f"udpreceive {ANSWERS}")
    with patch.row():
        route = patch.box("route " + " ".join(f"/timbred/{event}" for event in EVENTS))
    with patch.row():
        printed = [patch.box(f"print {name}") for name in ("progress", "done", "fail", "timbred")]
        path = patch.box("zl nth 3")
        replace = patch.box("prepend replace")
    with patch.row("play the sound when it is loaded"):
        buffer = patch.box("buffer~ timbred-first-sound")
        start = patch.message("start")
        play = patch.box("play~ timbred-first-sound 2")
    with patch.row():
        speakers = patch.box("dac~")
    patch.cord(button, number, ask, send)
    patch.cord(receive, route, printed[0])
    patch.cord((route, EVENTS.index("take")), path, replace, buffer)
    patch.cord((route, EVENTS.index("done")), printed[1])
    patch.cord((route, EVENTS.index("fail")), printed[2])
    patch.cord((route, len(EVENTS)), printed[3])
    patch.cord((buffer, 1), start, play, speakers)
    patch.into((play, 1), speakers, 1)
    return patch

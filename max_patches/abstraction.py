"""`timbred.maxpat`, the abstraction for your own patches, and its help patch."""

from max_patches.patcher import Patch

NAME = "timbred"
OUTLETS = (
    ("take", "index path seconds rate channels seed score take_id, after the request's number"),
    ("progress", "0 to 1"),
    ("status", "done, fail, cancelled, queued, started, link and all other messages"),
    ("path", "path of the best take when the request is done"),
)


def build() -> Patch:
    """Build the abstraction: requests to the inlet, answers from the outlets."""
    patch = Patch(NAME)
    with patch.row(
        "requests: generate PROMPT @key VALUE..., vary TAKE @key VALUE..., cancel, play, models, port, host ..."
    ):
        asked = patch.add("inlet", comment="generate, vary, cancel and every other request")
        node = patch.box(
            "node.script timbred-link.js @autostart 1", saved_object_attributes={"autostart": 1, "defer": 0, "watch": 0}
        )
    with patch.row("answers"):
        in_order, by_name = patch.typed("deferlow", "route take progress done fail link alive ready file")
    with patch.row("to Max's console: errors, and the state of the connection"):
        as_done, as_fail, as_link, as_file, console = patch.typed(
            "prepend done", "prepend fail", "prepend link", "prepend file", "print timbred"
        )
    with patch.row():
        fraction, best = patch.typed("unpack s 0.", "unpack s 0 s")
    with patch.row():
        outlets = [patch.add("outlet", comment=f"{name}: {words}", wide=30.0) for name, words in OUTLETS]
    patch.cord(asked, node, in_order, by_name, outlets[0])
    patch.cord((by_name, 1), fraction)
    patch.cord((fraction, 1), outlets[1])
    patch.cord((by_name, 2), as_done, outlets[2])
    patch.cord((by_name, 2), best)
    patch.cord((best, 2), outlets[3])
    patch.cord((by_name, 3), as_fail, outlets[2])
    patch.cord(as_fail, console)
    patch.cord((by_name, 4), as_link, outlets[2])
    patch.cord(as_link, console)
    patch.cord((by_name, 7), as_file, outlets[2])
    patch.cord((by_name, 8), outlets[2])
    return patch


def build_help() -> Patch:
    """Build the help patch: a first sound, and examples of requests."""
    patch = Patch(f"{NAME}.maxhelp")
    with patch.row('Start the daemon with "timbred serve", turn audio on below, click a message.'):
        asks = [
            patch.message(words)
            for words in (
                "generate a deep punchy kick drum @seconds 1",
                "generate warm analog pad @seconds 4 @takes 2 @channels 2",
            )
        ]
    with patch.row("cancel; list models; status; change the port"):
        asks += [patch.message(words) for words in ("cancel *", "models", "status", "port 7770")]
    with patch.row():
        timbred = patch.box("timbred")
    with patch.row():
        take = patch.box("print take")
        bar = patch.add(
            "multislider", size=1, setminmax=[0.0, 1.0], orientation=0, setstyle=1, wide=120.0, parameter_enable=0
        )
        status = patch.box("print status")
        replace = patch.box("prepend replace")
    with patch.row("file names are never reused, so a new take never replaces a file that plays"):
        buffer = patch.box("buffer~ timbred-help")
    with patch.row():
        rate = patch.box("sig~ 1.")
        set_buffer = patch.message("set timbred-help, 0")
    with patch.row():
        groove = patch.box("groove~ timbred-help 2")
    with patch.row():
        sound = patch.add("ezdac~", wide=45.0)
    for ask in asks:
        patch.cord(ask, timbred)
    patch.cord((timbred, 0), take)
    patch.cord((timbred, 1), bar)
    patch.cord((timbred, 2), status)
    patch.cord((timbred, 3), replace, buffer)
    patch.cord((buffer, 1), set_buffer, groove)
    patch.cord(rate, groove, sound)
    patch.into((groove, 1), sound, 1)
    return patch

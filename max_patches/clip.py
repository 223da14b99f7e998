"""`timbred clip.amxd`: writes takes as clips into Live, in the Live set's tempo, meter and key."""

from max_patches import parts
from max_patches.parts import Desk
from max_patches.patcher import BLOB, STORED, Parameter, Patch

NAME = "timbred clip"
WIDTH = 572.0

TARGETS = ("Next free slot of this track", "Selected slot, or free below", "Arrangement, at the song's position")
"""Same order as in `timbred-desk.js`."""


def build() -> Patch:
    """Build the device: prompt, request, takes, destination."""
    patch = Patch(NAME, WIDTH)
    desk = Desk(patch, "clip")
    parts.prompt_column(desk)
    parts.request_fields(desk, 232, *parts.length_field("bars", 1.0))
    _song(desk)
    _takes(desk)
    _start(desk)
    parts.buffers(desk)
    parts.rate_of(desk)
    parts.footer(desk, WIDTH)
    return patch


def _song(desk: Desk) -> None:
    patch = desk.patch
    with patch.row("the Live set's tempo, meter and key"):
        song = parts.label(patch, "tempo, meter and key come from Live", (370, 6, 194, parts.LABEL_HEIGHT))
    desk.shown_in(desk.face("song"), song)
    with patch.row():
        tempo = parts.switch(
            patch,
            "Add tempo",
            (370, 24, 96, 16),
            "append the tempo to the prompt, as in: 124 bpm",
            name="Tempo to the words",
        )
        desk.knob(tempo, "tempo-words")
    with patch.row():
        key = parts.switch(
            patch,
            "Add key",
            (468, 24, 96, 16),
            "append root note and scale to the prompt, as in: in A minor",
            name="Key to the words",
        )
        desk.knob(key, "key-words")


def _takes(desk: Desk) -> None:
    patch = desk.patch
    poly, number = parts.player(patch, desk.per_slot("use", 1)[0], 2)
    with patch.row("the takes"):
        parts.waveform(patch, number, (370, 44, 194, 36))
    with patch.row():
        parts.take_tabs(desk, (370, 83, 160, 16))
        pressed = parts.button(patch, "Play", (532, 83, 32, 16), "play this take once", "Hear")
        note = patch.message("midinote 60 100")
    patch.cord(pressed, note, poly)
    with patch.row("destination"):
        target = parts.menu(
            patch, "Target", TARGETS, (370, 103, 194, 16), "where clips are created; existing clips are kept"
        )
        desk.knob(target, "target")
    with patch.row():
        desk.button("Make clip", (370, 122, 62, 18), "clip 0", "create a clip from this take")
        auto = parts.switch(patch, "Each take", (434, 122, 62, 18), "create a clip from each new take")
        desk.knob(auto, "auto")
    with patch.row():
        desk.button(
            "Folder", (498, 122, 66, 18), "folder 0", "open the folder of the take's file, to drag the file into Live"
        )
    with patch.row("the track's audio passes through"):
        through = patch.box("plugin~")
        out = patch.box("plugout~")
    patch.cord(through, out)
    patch.into((through, 1), out, 1)
    patch.cord(poly, out)
    patch.into((poly, 1), out, 1)


def _start(desk: Desk) -> None:
    """Add the drop target for init audio: a sample or clip from Live's browser."""
    patch = desk.patch
    with patch.row("init audio"):
        shown = parts.label(patch, "no init audio", (48, 136, 116, 14))
        hint = "drop a sample from Live's browser: new sounds start from its audio"
        start = Parameter("Start", BLOB, visibility=STORED)
        target = patch.add(
            "live.drop", face=(10, 136, 36, 14), parameter=start, legend="drop", hint=hint, annotation=hint
        )
        sender = patch.box("prepend drop")
        nothing = desk.button("Clear", (166, 136, 54, 14), "drop", "remove the init audio")
        clear = patch.message("clear")
    patch.cord(nothing, clear, target)
    patch.cord(target, sender, desk.js)
    desk.shown_in(desk.face("start"), shown)

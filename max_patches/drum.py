"""`timbred drum.amxd`: eight pads, one prompt each."""

from max_patches import parts
from max_patches.parts import Desk
from max_patches.patcher import DECIBELS, FLOAT, Box, Outlet, Parameter, Patch

NAME = "timbred drum"
WIDTH = 690.0
PADS = 8
LOWEST_NOTE = 36
NOTES = ("C1", "C#1", "D1", "D#1", "E1", "F1", "F#1", "G1")
"""Live's names of MIDI notes 36 to 43, those of a drum rack's first pads."""

VOICES = 4
_PITCH = 17.5


def build() -> Patch:
    """Build the device: a line for each pad, and the shared controls."""
    patch = Patch(NAME, WIDTH)
    desk = Desk(patch, "drum")
    with patch.row("notes to pads"):
        raw = patch.box("midiin")
        parse = patch.box("midiparse")
        by_note = patch.box("route " + " ".join(str(LOWEST_NOTE + pad) for pad in range(PADS)))
        out = patch.box("plugout~")
        level = parts.gain(patch, (638, 6, 44, 140))
    patch.cord(raw, parse, by_note)
    patch.cord(level, out)
    patch.into((level, 1), out, 1)
    for pad in range(PADS):
        _pad(desk, pad, (by_note, pad), level)
    _shared(desk)
    parts.buffers(desk)
    parts.rate_of(desk)
    parts.footer(desk, WIDTH)
    return patch


def _pad(desk: Desk, pad: int, struck: Outlet, out: Box) -> None:
    patch = desk.patch
    y = 5 + _PITCH * pad
    high = 16.0
    poly, _ = parts.player(patch, desk.per_slot("use", PADS)[pad], VOICES)
    with patch.row(f"pad {pad + 1}"):
        note = patch.message("midinote 60 $1")
        pressed = parts.button(patch, NOTES[pad], (8, y, 28, high), "play this pad", f"Hear {NOTES[pad]}")
        once = patch.box("t b")
        strike = patch.message("midinote 60 100")
    patch.cord(struck, note, poly)
    patch.cord(pressed, once, strike, poly)
    with patch.row():
        words = parts.words_field(patch, (40, y, 176, high), "what this pad shall sound like, in words")
        parts.prompt_of(desk, pad, words, desk.per_slot("prompt", PADS)[pad])
    with patch.row():
        note = NOTES[pad]
        for words_on_it, x, wide, message, hint in (
            ("New", 219, 32, f"generate {pad}", "a new sound from these words"),
            ("More", 253, 32, f"more {pad}", "another sound like this one"),
            ("<", 287, 14, f"step {pad} -1", "the take before"),
            (">", 329, 14, f"step {pad} 1", "the next take"),
        ):
            desk.button(words_on_it, (x, y, wide, high), message, hint, f"{words_on_it} {note}")
        shown = patch.box("unpack 0 s")
        which = parts.label(patch, "-", (302, y, 26, high))
        patch.cord(desk.per_slot("takes", PADS)[pad], shown)
        desk.shown_in((shown, 1), which)
    with patch.row():
        bar = parts.progress_bar(patch, (347, y + 4, 52, 7))
        patch.cord(desk.per_slot("progress", PADS)[pad], bar)
        level = Parameter(f"Level {NOTES[pad]}", FLOAT, -70.0, 6.0, 0.0, DECIBELS)
        fader = parts.field(patch, level, (403, y, 46, high), "this pad's level")
        ratio = patch.box("expr exp($f1 * 0.11512925)")
        left, right = patch.box("*~ 1."), patch.box("*~ 1.")
    patch.cord(fader, ratio)
    patch.into(ratio, left, 1)
    patch.into(ratio, right, 1)
    patch.cord(poly, left, out)
    patch.cord((poly, 1), right)
    patch.into(right, out, 1)


def _shared(desk: Desk) -> None:
    """Controls shared by all pads, right of them."""
    patch = desk.patch
    x = 460.0
    with patch.row("request"):
        desk.button("New: all pads", (x, 5, 98, 18), "all", "render a new sound for each pad with a prompt")
        desk.button("Cancel", (x + 102, 5, 66, 18), "cancel", "cancel the running requests")
    fields = (parts.length_field("seconds", 1.0), parts.takes_field(), parts.distance_field())
    for line, (parameter, hint) in enumerate(fields):
        y, name = 27 + 18.0 * line, parameter.name.lower()
        with patch.row():
            parts.label(patch, name, (x, y, 56, 16))
            desk.knob(parts.field(patch, parameter, (x + 58, y, 110, 16), hint), name)
    with patch.row():
        parts.model_line(desk, (x, 81, 56, 16), (x + 58, 81, 110, 16))
    with patch.row("any other keys of a request"):
        parts.label(patch, "keys", (x, 99, 56, 16))
        parts.keys_field(desk, (x + 58, 99, 110, 16))
    with patch.row():
        locked = parts.switch(
            patch, "Lock seeds", (x, 117, 168, 14), "reuse each pad's seed: the same prompt gives the same sound"
        )
        desk.knob(locked, "lock")
    with patch.row("history"):
        parts.label(patch, "history", (x, 133, 56, 15))
        parts.history(desk, (x + 58, 133, 110, 15))

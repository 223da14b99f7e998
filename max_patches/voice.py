"""One voice of the sampler: plays the selected buffer, transposed by the interval between note and root."""

from dataclasses import dataclass

from max_patches.patcher import Box, Patch

NAME = "timbred-voice"

SETTINGS = ("buffer", "length", "root", "tune", "attack", "decay", "sustain", "release", "loop")
"""Settings of a voice: buffer name; milliseconds; MIDI note; semitones; ms, ms, 0 to 1, ms; 0 or 1."""


@dataclass(frozen=True)
class _Note:
    """Outlets of a note: `begin` at its start (right to left), `off` at its end, `speed` on request."""

    begin: Box
    off: tuple[Box, int]
    speed: Box
    level: Box


def build() -> Patch:
    """Build `timbred-voice.maxpat`, for poly~. Inlet 1: pitch and velocity. Inlet 2: `SETTINGS`.

    A loop plays until its note ends; any other sound plays to its end. A note uses the buffer that is selected when it
    starts.
    """
    patch = Patch(NAME)
    with patch.row("settings"):
        setting = patch.box("in 2")
        by_name = patch.box("route " + " ".join(SETTINGS))
    patch.cord(setting, by_name)
    note = _note(patch, by_name)
    groove, envelope = _sound(patch, by_name, note)
    _end(patch, by_name, note, envelope)
    _begin(patch, by_name, note, groove, envelope)
    return patch


def _set(by_name: Box, name: str) -> tuple[Box, int]:
    return by_name, SETTINGS.index(name)


def _note(patch: Patch, by_name: Box) -> _Note:
    with patch.row("pitch and velocity; the velocity is evaluated last"):
        note, turned, parted, on_or_off = patch.typed("in 1", "zl rev", "unpack 0 0", "sel 0")
    with patch.row("from pitch to speed: 2 to the power of semitones / 12"):
        over_root, tuned, speed, kept_speed = patch.typed("- 60.", "+ 0.", "expr exp($f1 * 0.057762265)", "f 1.")
    with patch.row("note start, right to left: level, buffer, speed, length, start, envelope"):
        begin, level, kept_level = patch.typed("t b b b b b f", "/ 127.", "f 1.")
    patch.cord(note, turned, parted, on_or_off)
    patch.cord((parted, 1), over_root, tuned, speed)
    patch.into(speed, kept_speed, 1)
    patch.into(_set(by_name, "root"), over_root, 1)
    patch.into(_set(by_name, "tune"), tuned, 1)
    patch.cord((on_or_off, 1), begin)
    patch.cord((begin, 5), level)
    patch.into(level, kept_level, 1)
    return _Note(begin, (on_or_off, 0), kept_speed, kept_level)


def _begin(patch: Patch, by_name: Box, note: _Note, groove: Box, envelope: Box) -> None:
    with patch.row("the buffer is selected at the start of a note"):
        buffer = patch.message("timbred-none")
        use_buffer = patch.box("prepend set")
        from_start = patch.message("0")
        looping = patch.box("prepend loop")
    patch.into(_set(by_name, "buffer"), buffer, 1)
    patch.cord((note.begin, 4), buffer, use_buffer, groove)
    patch.cord((note.begin, 3), note.speed)
    patch.cord((note.begin, 1), from_start, groove)
    patch.cord((note.begin, 0), note.level, envelope)
    patch.cord(_set(by_name, "loop"), looping, groove)


def _end(patch: Patch, by_name: Box, note: _Note, envelope: Box) -> None:
    with patch.row("end: of a loop at note-off; of any other sound at its end minus the release time"):
        length, at_speed, less_release, at_least, end = patch.typed(
            "f 1000.", "/ 1.", "- 50.", "maximum 1.", "delay 1000"
        )
    with patch.row():
        not_loop, end_gate, off_gate = patch.typed("== 0", "gate 1 1", "gate 1 0")
        silence = patch.message("0.")
    patch.into(_set(by_name, "length"), length, 1)
    patch.into(_set(by_name, "release"), less_release, 1)
    patch.into(note.speed, at_speed, 1)
    patch.cord((note.begin, 2), length, at_speed, less_release, at_least, end)
    patch.cord(_set(by_name, "loop"), off_gate)
    patch.cord(_set(by_name, "loop"), not_loop, end_gate)
    patch.into(end, end_gate, 1)
    patch.into(note.off, off_gate, 1)
    patch.cord(end_gate, silence, envelope)
    patch.cord(off_gate, silence)


def _sound(patch: Patch, by_name: Box, note: _Note) -> tuple[Box, Box]:
    with patch.row("sound"):
        rate, groove, envelope, busy = patch.typed(
            "sig~ 1.", "groove~ timbred-none 2", "adsr~ 1. 0. 1. 50.", "thispoly~"
        )
    with patch.row():
        left, right = patch.typed("*~", "*~")
    with patch.row():
        out_left, out_right = patch.typed("out~ 1", "out~ 2")
    patch.cord(note.speed, rate, groove, left, out_left)
    patch.cord((groove, 1), right, out_right)
    for inlet, name in enumerate(("attack", "decay", "sustain", "release"), start=1):
        patch.into(_set(by_name, name), envelope, inlet)
    patch.into(envelope, left, 1)
    patch.into(envelope, right, 1)
    patch.cord(envelope, busy)
    patch.cord((envelope, 2), busy)
    return groove, envelope

"""`timbred instrument.amxd`: a prompt becomes a sampler that is played with MIDI."""

from max_patches import parts
from max_patches.parts import Desk
from max_patches.patcher import FLOAT, INTEGER, NOTE, PERCENT, SEMITONES, TIME, Box, Parameter, Patch

NAME = "timbred instrument"
WIDTH = 620.0
VOICES = 16

ENVELOPE = (
    ("attack", Parameter("Attack", FLOAT, 0.0, 5000.0, 1.0, TIME, exponent=3.0), "attack time of a note"),
    ("decay", Parameter("Decay", FLOAT, 0.0, 5000.0, 100.0, TIME, exponent=3.0), "decay time to the sustain level"),
    ("sustain", Parameter("Sustain", FLOAT, 0.0, 1.0, 1.0, PERCENT), "sustain level"),
    ("release", Parameter("Release", FLOAT, 1.0, 5000.0, 60.0, TIME, exponent=3.0), "release time"),
)


def build() -> Patch:
    """Build the device: prompt, request, takes, sampler, level."""
    patch = Patch(NAME, WIDTH)
    desk = Desk(patch, "instrument")
    parts.prompt_column(desk)
    parts.request_fields(desk, 232, *parts.length_field("seconds", 2.0))
    poly = _sampler(desk)
    _output(patch, poly)
    parts.buffers(desk)
    parts.rate_of(desk)
    parts.footer(desk, WIDTH)
    return patch


def _sampler(desk: Desk) -> Box:
    patch = desk.patch
    poly, number = parts.player(patch, desk.per_slot("use", 1)[0], VOICES)
    with patch.row("the selected take"):
        parts.waveform(patch, number, (370, 6, 188, 56))
    with patch.row():
        parts.take_tabs(desk, (370, 66, 188, 18))
    with patch.row("playback"):
        mode = parts.tabs(
            patch, "Play", ("One-shot", "Loop"), (370, 88, 116, 16), "play to the end, or loop while a note is held"
        )
        parts.setting_of(patch, mode, "loop", poly)
    with patch.row():
        parts.label(patch, "root", (488, 88, 26, parts.LABEL_HEIGHT), right=True)
        root = Parameter("Root", INTEGER, 0, 127, 60, NOTE)
        parts.setting_of(
            patch,
            parts.field(patch, root, (516, 88, 42, 16), "the note that plays the take at its original pitch"),
            "root",
            poly,
        )
    with patch.row():
        for index, (name, parameter, hint) in enumerate(ENVELOPE):
            knob = parts.dial(patch, parameter, (370 + 38.0 * index, 110, 36, 36), hint)
            parts.setting_of(patch, knob, name, poly)
    with patch.row():
        tune = Parameter("Tune", FLOAT, -24.0, 24.0, 0.0, SEMITONES)
        parts.setting_of(patch, parts.dial(patch, tune, (522, 110, 36, 36), "transposition"), "tune", poly)
    with patch.row("notes"):
        raw = patch.box("midiin")
        notes = patch.box("midiparse")
        to_voice = patch.box("prepend midinote")
    patch.cord(raw, notes, to_voice, poly)
    return poly


def _output(patch: Patch, poly: Box) -> None:
    with patch.row("level"):
        level = parts.gain(patch, (568, 6, 44, 140))
        out = patch.box("plugout~")
    patch.cord(poly, level, out)
    patch.into((poly, 1), level, 1)
    patch.into((level, 1), out, 1)

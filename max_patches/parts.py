"""Parts that several devices have: the link to timbred, the sampler's buffers, fields, buttons and knobs."""

from collections.abc import Sequence

from max_patches.patcher import (
    BLOB,
    CHOICE,
    DECIBELS,
    FLOAT,
    INTEGER,
    STORED,
    TWO_PLACES,
    Box,
    Outlet,
    Parameter,
    Patch,
    Rectangle,
)
from max_patches.words import allowed, bounds, port

BUFFERS = 16
"""Buffers of a device: its takes, and those of the request before, which may still sound."""

TAKES = 8
"""Takes that a device flips through."""

OWN_SCHEDULER = "its own"
"""Says that the scheduler is the model's choice. `timbred-desk.js` has the same words."""

VOICE = "timbred-voice"

FIELD = {"bgcolor": "themecolor.live_control_text_bg", "textcolor": "themecolor.live_control_fg"}
MENU = {"bgfillcolor": "themecolor.live_control_text_bg", "textcolor": "themecolor.live_control_fg"}
BAR = {"bgcolor": "themecolor.live_control_text_bg", "slidercolor": "themecolor.live_value_bar"}
WAVE = {"bgcolor": "themecolor.live_control_text_bg", "waveformcolor": "themecolor.live_value_bar"}
NUMBER_FIELD = {"bgcolor": "themecolor.live_control_text_bg", "textcolor": "themecolor.live_control_fg"}

LABEL_HEIGHT = 16.0
FACE_WORDS = (
    *("status", "progress", "takes", "seed", "prompt", "keys", "port"),
    *("models", "history", "start", "song", "folder", "typed", "link"),
)
"""Messages from `timbred-desk.js` to the device's interface."""


class Desk:
    """The JavaScript in a device and what it is wired to."""

    def __init__(self, patch: Patch, kind: str) -> None:
        self.patch = patch
        with patch.row("timbred: node.script talks to it, in a process of its own; js decides; pattr stores"):
            ready = patch.box("live.thisdevice")
            self.js = patch.box(f"js timbred-device.js {kind}")
            node = patch.box(
                "node.script timbred-link.js @autostart 1",
                saved_object_attributes={"autostart": 1, "defer": 0, "watch": 0},
            )
            in_order = patch.box("deferlow")
            heard = patch.box("prepend heard")
            store = patch.box("pattr timbred-state", parameter=Parameter("timbred-state", BLOB, visibility=STORED))
            restore = patch.box("prepend restore")
        with patch.row():
            self._face = patch.box("route " + " ".join(FACE_WORDS))
            self._sampler = patch.box("route fill use")
        patch.cord(ready, self.js)
        patch.cord((self.js, 0), node)
        patch.cord(node, in_order, heard, self.js)
        patch.cord((self.js, 2), store, restore, self.js)
        patch.cord((self.js, 1), self._face)
        patch.cord((self.js, 3), self._sampler)
        self._slots: dict[str, Box] = {}

    def face(self, word: str) -> Outlet:
        """Return the outlet for the values of this word."""
        return self._face, FACE_WORDS.index(word)

    @property
    def fill(self) -> Outlet:
        """Buffer number and path, as they come."""
        return self._sampler, 0

    @property
    def use(self) -> Outlet:
        """Slot, buffer number and milliseconds."""
        return self._sampler, 1

    def per_slot(self, word: str, slots: int) -> list[Outlet]:
        """The same for each slot."""
        if word not in self._slots:
            with self.patch.row():
                self._slots[word] = self.patch.box("route " + " ".join(map(str, range(slots))))
            source = self.use if word == "use" else self.face(word)
            self.patch.cord(source, self._slots[word])
        return [(self._slots[word], index) for index in range(slots)]

    def shown_in(self, source: Outlet, box: Box) -> None:
        """Set a field to the outlet's values, without output from the field."""
        setter = self.patch.box("prepend set")
        self.patch.cord(source, setter, box)

    def button(self, label: str, face: Rectangle, message: str, hint: str, name: str = "") -> Box:
        """A button that says `message` to the JavaScript. It can be mapped to a key or a controller."""
        patch = self.patch
        pressed = button(patch, label, face, hint, name)
        once = patch.box("t b")
        said = patch.message(message)
        patch.cord(pressed, once, said, self.js)
        return pressed

    def knob(self, box: Box, name: str, outlet: int = 0) -> None:
        """Connect a control to the JavaScript's parameter `name`."""
        says = self.patch.box(f"prepend knob {name}")
        self.patch.cord((box, outlet), says, self.js)


def label(patch: Patch, words: str, face: Rectangle, *, right: bool = False) -> Box:
    """Words that stay."""
    return patch.add(
        "live.comment",
        text=words,
        face=face,
        fontsize=9.5,
        textjustification=2 if right else 0,
        fontname="Ableton Sans Medium",
    )


def button(patch: Patch, words: str, face: Rectangle, hint: str, name: str = "") -> Box:
    """A button."""
    parameter = Parameter(name or words, CHOICE, choices=("off", "on"), short=words)
    return patch.add("live.text", text=words, face=face, parameter=parameter, mode=0, hint=hint, annotation=hint)


def switch(patch: Patch, words: str, face: Rectangle, hint: str, *, on: bool = False, name: str = "") -> Box:
    """A button that stays down."""
    parameter = Parameter(name or words, CHOICE, choices=("off", "on"), initial=float(on), short=words)
    return patch.add(
        "live.text", text=words, texton=words, face=face, parameter=parameter, mode=1, hint=hint, annotation=hint
    )


def tabs(patch: Patch, name: str, choices: Sequence[str], face: Rectangle, hint: str, *, columns: int = 0) -> Box:
    """One of several, side by side."""
    parameter = Parameter(name, CHOICE, choices=tuple(choices), initial=0.0)
    return patch.add(
        "live.tab",
        face=face,
        parameter=parameter,
        hint=hint,
        annotation=hint,
        num_lines_patching=1,
        num_lines_presentation=1 if not columns else -(-len(choices) // columns),
    )


def menu(patch: Patch, name: str, choices: Sequence[str], face: Rectangle, hint: str) -> Box:
    """One of several, in a menu."""
    parameter = Parameter(name, CHOICE, choices=tuple(choices), initial=0.0)
    return patch.add("live.menu", face=face, parameter=parameter, hint=hint, annotation=hint)


def growing_menu(patch: Patch, face: Rectangle, hint: str) -> Box:
    """A menu that the JavaScript fills."""
    return patch.add(
        "umenu", face=face, colours=MENU, items=[], fontsize=9.5, hint=hint, annotation=hint, parameter_enable=0
    )


def field(patch: Patch, parameter: Parameter, face: Rectangle, hint: str) -> Box:
    """A number to drag or type."""
    return patch.add("live.numbox", face=face, parameter=parameter, hint=hint, annotation=hint)


def dial(patch: Patch, parameter: Parameter, face: Rectangle, hint: str) -> Box:
    """A knob with its name over it and its value under it."""
    return patch.add("live.dial", face=face, parameter=parameter, hint=hint, annotation=hint, appearance=1)


def whole_number(patch: Patch, face: Rectangle, key: str, hint: str) -> Box:
    """A number too large for one of Live's parameters."""
    low, high, _ = bounds(key)
    return patch.add(
        "number",
        face=face,
        colours=NUMBER_FIELD,
        minimum=int(low),
        maximum=int(high),
        fontsize=9.5,
        triangle=0,
        hint=hint,
        annotation=hint,
        parameter_enable=0,
    )


def words_field(patch: Patch, face: Rectangle, hint: str, *, lines: int = 1) -> Box:
    """A field to type words in; Return says them."""
    return patch.add(
        "textedit",
        face=face,
        colours=FIELD,
        keymode=1,
        outputmode=1,
        tabmode=0,
        lines=lines,
        wordwrap=1 if lines > 1 else 0,
        fontsize=10.0,
        border=1.0,
        rounded=3.0,
        hint=hint,
        annotation=hint,
        parameter_enable=0,
    )


def progress_bar(patch: Patch, face: Rectangle) -> Box:
    """Fills from left to right."""
    return patch.add(
        "multislider",
        face=face,
        colours=BAR,
        size=1,
        setminmax=[0.0, 1.0],
        orientation=0,
        setstyle=1,
        ignoreclick=1,
        contdata=1,
        hint="how far it is",
        annotation="how far it is",
        parameter_enable=0,
    )


def prompt_of(desk: Desk, slot: int, written: Box, shown: Outlet) -> None:
    """Wires a field for words to its slot."""
    _said(desk, written, f"prepend prompt {slot}")
    desk.shown_in(shown, written)


def _said(desk: Desk, written: Box, as_message: str) -> None:
    """Output typed text at Return, shortly after the last letter, and when the JavaScript requests it.

    The word `text`, which textedit puts before it, goes along: without it an empty field would say `bang`.
    """
    patch = desk.patch
    says = patch.box(as_message)
    pause = patch.box("delay 400")
    patch.cord(written, says, desk.js)
    patch.cord((written, 3), pause, written)
    patch.cord(desk.face("typed"), written)


def buffers(desk: Desk) -> None:
    """Sixteen buffers, filled by number; each says when it is."""
    patch = desk.patch
    with patch.row(
        "sounds: a file is read into a buffer that nothing plays from; --- makes the names this device's own"
    ):
        by_number = patch.box("route " + " ".join(str(number) for number in range(1, BUFFERS + 1)))
    patch.cord(desk.fill, by_number)
    for number in range(1, BUFFERS + 1):
        with patch.row():
            replace = patch.box("prepend replace")
            buffer = patch.box(f"buffer~ ---timbred{number}")
            filled = patch.message(f"filled {number}")
        patch.cord((by_number, number - 1), replace, buffer)
        patch.cord((buffer, 1), filled, desk.js)


def player(patch: Patch, use: Outlet, voices: int) -> tuple[Box, Outlet]:
    """Voices that play the buffer in use. Returns them, and where the buffer's number comes out."""
    with patch.row():
        parted = patch.box("unpack 0 0.")
        name = patch.box("sprintf buffer ---timbred%ld")
        length = patch.box("prepend length")
        poly = patch.box(f"poly~ {VOICE} {voices} @target 0 @steal 1")
    patch.cord(use, parted, name)
    patch.cord((parted, 1), length)
    patch.into(name, poly, 1)
    patch.into(length, poly, 1)
    return poly, (parted, 0)


def setting_of(patch: Patch, box: Box, name: str, poly: Box) -> None:
    """Send a control's value to all voices."""
    says = patch.box(f"prepend {name}")
    patch.cord(box, says)
    patch.into(says, poly, 1)


def gain(patch: Patch, face: Rectangle) -> Box:
    """A fader with a meter."""
    parameter = Parameter("Gain", FLOAT, -70.0, 6.0, 0.0, DECIBELS)
    return patch.add(
        "live.gain~", face=face, parameter=parameter, channels=2, orientation=0, hint="level", annotation="level"
    )


def rate_of(desk: Desk) -> None:
    """Files come at Live's own sample rate."""
    patch = desk.patch
    with patch.row("the rate that Live runs at"):
        loaded = patch.box("loadbang")
        state = patch.box("dspstate~")
    patch.cord(loaded, state)
    desk.knob(state, "rate", 1)


def footer(desk: Desk, width: float) -> None:
    """The line at the bottom: what is going on, and timbred's port."""
    patch = desk.patch
    with patch.row("what is going on"):
        status = label(patch, "looking for timbred", (8, 151, width - 86, LABEL_HEIGHT))
        label(patch, "port", (width - 74, 151, 26, LABEL_HEIGHT), right=True)
        where = whole_number(
            patch, (width - 46, 151, 40, LABEL_HEIGHT), "port", f"timbred's OSC port; it is {port()} unless set"
        )
        said = patch.box("prepend port")
    patch.cord(where, said, desk.js)
    desk.shown_in(desk.face("status"), status)
    desk.shown_in(desk.face("port"), where)
    with patch.row("a folder on the desktop"):
        opened = patch.message("; max launchbrowser $1")
    patch.cord(desk.face("folder"), opened)


class _Column:
    """Lines of a label and a field, one under the other."""

    LABEL, FIELD, PITCH = 56.0, 70.0, 18.0

    def __init__(self, x: float) -> None:
        self.x = x
        self._y = 6.0 - self.PITCH

    def next(self) -> tuple[Rectangle, Rectangle]:
        """Return the position of the next label and field."""
        self._y += self.PITCH
        return (self.x, self._y, self.LABEL, LABEL_HEIGHT), (self.x + self.LABEL, self._y, self.FIELD, LABEL_HEIGHT)


def request_fields(desk: Desk, x: float, length: Parameter, length_hint: str) -> None:
    """The column of what may be set for a request: length, takes, steps, scheduler, model, distance, seed, loop."""
    patch, column = desk.patch, _Column(x)
    with patch.row("what is asked for"):
        _number_line(desk, column, length, length_hint)
    for parameter, hint in (takes_field(), steps_field()):
        with patch.row():
            _number_line(desk, column, parameter, hint)
    with patch.row():
        name, place = column.next()
        label(patch, "scheduler", name)
        schedulers = allowed("scheduler")
        chosen = menu(patch, "Scheduler", (OWN_SCHEDULER, *schedulers.choices), place, schedulers.about)
        desk.knob(chosen, "scheduler", 1)
    with patch.row():
        model_line(desk, *column.next())
    with patch.row():
        _number_line(desk, column, *distance_field())
    _seed_line(desk, column)
    with patch.row():
        (left, y, wide, _), place = column.next()
        hint = "the end meets the start without a seam"
        desk.knob(switch(patch, "Make a loop", (left, y, wide + place[2], 16), hint), "loop")


def _number_line(desk: Desk, column: _Column, parameter: Parameter, hint: str) -> None:
    name, place = column.next()
    label(desk.patch, parameter.name.lower(), name)
    desk.knob(field(desk.patch, parameter, place, hint), parameter.name.lower())


def _seed_line(desk: Desk, column: _Column) -> None:
    patch = desk.patch
    (left, y, wide, _), place = column.next()
    with patch.row():
        desk.knob(switch(patch, "Lock seed", (left, y, wide - 3, 16), "the same seed again"), "lock")
        seed = whole_number(patch, place, "seed", "the same seed, model and words give the same sound")
        said = patch.box("prepend seed 0")
        patch.cord(seed, said, desk.js)
        desk.shown_in(desk.per_slot("seed", 1)[0], seed)


def model_line(desk: Desk, name: Rectangle, place: Rectangle) -> None:
    """The menu of the models that timbred has."""
    patch = desk.patch
    label(patch, "model", name)
    models = growing_menu(patch, place, "which model makes it")
    said = patch.box("prepend model")
    patch.cord((models, 1), said, desk.js)
    patch.cord(desk.face("models"), models)


def length_field(key: str, initial: float) -> tuple[Parameter, str]:
    """Seconds or bars, with what is said of them. Longer ones lie closer together on the field."""
    low, high, about = bounds(key)
    return Parameter(key.capitalize(), FLOAT, low, high, initial, TWO_PLACES, exponent=4.0), about


def takes_field() -> tuple[Parameter, str]:
    """Number of takes of a request."""
    low, high, about = bounds("takes")
    return Parameter("Takes", INTEGER, low, min(float(TAKES), high), 1.0), f"{about}, to flip through"


def steps_field() -> tuple[Parameter, str]:
    """Steps; 0 stands for the model's own number."""
    _, high, about = bounds("steps")
    return Parameter("Steps", FLOAT, 0.0, high, 0.0), f"{about}; 0: as many as the model likes"


def distance_field() -> tuple[Parameter, str]:
    """Strength: how much a sound may differ from its init audio."""
    low, high, _ = bounds("strength")
    return Parameter("Distance", FLOAT, low, high, 0.5, TWO_PLACES), "More like this: how far from the take it may go"


def prompt_column(desk: Desk) -> None:
    """The left column of a device with one prompt."""
    patch = desk.patch
    with patch.row("words"):
        words = words_field(patch, (8, 6, 212, 56), "what you want to hear, in words; Return or Generate", lines=4)
        prompt_of(desk, 0, words, desk.per_slot("prompt", 1)[0])
    with patch.row():
        desk.button("Generate", (8, 66, 74, 18), "generate 0", "make a sound from these words")
        desk.button("More like this", (84, 66, 84, 18), "more 0", "another sound that begins where this take is")
        desk.button("Cancel", (170, 66, 50, 18), "cancel", "stop what is being made")
    with patch.row():
        bar = progress_bar(patch, (8, 88, 212, 7))
        patch.cord(desk.per_slot("progress", 1)[0], bar)
    with patch.row("any other keys of a request"):
        label(patch, "keys", (8, 99, 40, LABEL_HEIGHT))
        keys_field(desk, (48, 99, 172, 17))
    with patch.row("sounds made before"):
        label(patch, "before", (8, 118, 40, LABEL_HEIGHT))
        history(desk, (48, 118, 172, 16))


def keys_field(desk: Desk, face: Rectangle) -> None:
    """Any other keys of a request, as in the protocol; they override the knobs."""
    patch = desk.patch
    keys = words_field(patch, face, "more keys of the request, as in: @guidance 5 @negative hiss")
    _said(desk, keys, "prepend keys")
    desk.shown_in(desk.face("keys"), keys)


def history(desk: Desk, face: Rectangle) -> None:
    """The sounds that this device made before, newest first."""
    patch = desk.patch
    before = growing_menu(patch, face, "sounds made before; choose one to have it back")
    said = patch.box("prepend recall")
    patch.cord(before, said, desk.js)
    patch.cord(desk.face("history"), before)


def take_tabs(desk: Desk, face: Rectangle) -> None:
    """The takes to flip through."""
    patch = desk.patch
    numbers = [str(number) for number in range(1, TAKES + 1)]
    chosen = tabs(patch, "Take", numbers, face, "flip through the takes")
    said = patch.box("prepend choose 0")
    shown = patch.box("unpack 0 s")
    patch.cord(chosen, said, desk.js)
    patch.cord(desk.per_slot("takes", 1)[0], shown)
    desk.shown_in((shown, 0), chosen)


def waveform(patch: Patch, number: Outlet, face: Rectangle) -> None:
    """The buffer in use, drawn."""
    name = patch.box("sprintf set ---timbred%ld")
    drawn = patch.add(
        "waveform~",
        face=face,
        colours=WAVE,
        vzoom=1.0,
        setmode=0,
        ignoreclick=1,
        labels=0,
        ticks=0,
    )
    patch.cord(number, name, drawn)

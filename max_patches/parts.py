"""Parts shared by the devices: the connection to timbred, the sampler's buffers, fields, buttons and knobs."""

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
"""Number of buffers of a device: its takes, and those of the previous request, which may still be playing."""

TAKES = 8
"""Maximum number of takes that a device shows."""

OWN_SCHEDULER = "its own"
"""Menu entry for the model's default scheduler; the same text as in `timbred-desk.js`."""

FIRST_SCHEDULERS = ("ddim", "dpm++2m", "dpm++2m-karras", "euler", "euler-a", "heun", "lms", "pndm", "unipc")
"""Schedulers of the first version. Live stores the index of a menu's entry, so that later ones follow them."""

VOICE = "timbred-voice"

FIELD = {"bgcolor": "themecolor.live_control_text_bg", "textcolor": "themecolor.live_control_fg"}
MENU = {"bgfillcolor": "themecolor.live_control_text_bg", "textcolor": "themecolor.live_control_fg"}
BAR = {"bgcolor": "themecolor.live_control_text_bg", "slidercolor": "themecolor.live_value_bar"}
WAVE = {"bgcolor": "themecolor.live_control_text_bg", "waveformcolor": "themecolor.live_value_bar"}
NUMBER_FIELD = {"bgcolor": "themecolor.live_control_text_bg", "textcolor": "themecolor.live_control_fg"}

LABEL_HEIGHT = 16.0
FACE_WORDS = (
    *("status", "progress", "takes", "seed", "prompt", "keys", "port"),
    *("models", "history", "start", "song", "folder", "typed", "link", "words"),
)
"""Messages from `timbred-desk.js` to the device's interface."""


class Desk:
    """The JavaScript of a device and its connections."""

    def __init__(self, patch: Patch, kind: str) -> None:
        self.patch = patch
        with patch.row(
            "timbred: node.script communicates with it in a separate process; js holds the state; pattr stores it"
        ):
            ready = patch.box("live.thisdevice")
            self.js = patch.box(f"js timbred-device.js {kind}")
            node = patch.box(
                "node.script timbred-link.js @autostart 1",
                saved_object_attributes={"autostart": 1, "defer": 0, "watch": 0},
            )
            in_order = patch.box("deferlow")
            event = patch.box("prepend event")
            store = patch.box("pattr timbred-state", parameter=Parameter("timbred-state", BLOB, visibility=STORED))
            restore = patch.box("prepend restore")
        with patch.row():
            self._face = patch.box("route " + " ".join(FACE_WORDS))
            self._sampler = patch.box("route fill use")
        patch.cord(ready, self.js)
        patch.cord((self.js, 0), node)
        patch.cord(node, in_order, event, self.js)
        patch.cord((self.js, 2), store, restore, self.js)
        patch.cord((self.js, 1), self._face)
        patch.cord((self.js, 3), self._sampler)
        self._slots: dict[str, Box] = {}

    def face(self, word: str) -> Outlet:
        """Return the outlet of the messages that begin with this word."""
        return self._face, FACE_WORDS.index(word)

    @property
    def fill(self) -> Outlet:
        """Outlet of buffer number and path of each new take."""
        return self._sampler, 0

    @property
    def use(self) -> Outlet:
        """Outlet of slot, buffer number and length in milliseconds."""
        return self._sampler, 1

    def per_slot(self, word: str, slots: int) -> list[Outlet]:
        """Return one outlet for each slot."""
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
        """Add a button that sends `message` to the JavaScript. It can be mapped to a key or a controller."""
        patch = self.patch
        pressed = button(patch, label, face, hint, name)
        once = patch.box("t b")
        sender = patch.message(message)
        patch.cord(pressed, once, sender, self.js)
        return pressed

    def knob(self, box: Box, name: str, outlet: int = 0) -> None:
        """Connect a control to the JavaScript's parameter `name`."""
        sender = self.patch.box(f"prepend knob {name}")
        self.patch.cord((box, outlet), sender, self.js)


def label(patch: Patch, words: str, face: Rectangle, *, right: bool = False) -> Box:
    """Add a fixed label."""
    return patch.add(
        "live.comment",
        text=words,
        face=face,
        fontsize=9.5,
        textjustification=2 if right else 0,
        fontname="Ableton Sans Medium",
    )


def button(patch: Patch, words: str, face: Rectangle, hint: str, name: str = "") -> Box:
    """Add a button."""
    parameter = Parameter(name or words, CHOICE, choices=("off", "on"), short=words)
    return patch.add("live.text", text=words, face=face, parameter=parameter, mode=0, hint=hint, annotation=hint)


def switch(patch: Patch, words: str, face: Rectangle, hint: str, *, on: bool = False, name: str = "") -> Box:
    """Add a toggle button."""
    parameter = Parameter(name or words, CHOICE, choices=("off", "on"), initial=float(on), short=words)
    return patch.add(
        "live.text", text=words, texton=words, face=face, parameter=parameter, mode=1, hint=hint, annotation=hint
    )


def tabs(patch: Patch, name: str, choices: Sequence[str], face: Rectangle, hint: str, *, columns: int = 0) -> Box:
    """Add a row of tabs."""
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
    """Add a menu."""
    parameter = Parameter(name, CHOICE, choices=tuple(choices), initial=0.0)
    return patch.add("live.menu", face=face, parameter=parameter, hint=hint, annotation=hint)


def growing_menu(patch: Patch, face: Rectangle, hint: str) -> Box:
    """Add a menu that the JavaScript fills."""
    return patch.add(
        "umenu", face=face, colours=MENU, items=[], fontsize=9.5, hint=hint, annotation=hint, parameter_enable=0
    )


def field(patch: Patch, parameter: Parameter, face: Rectangle, hint: str) -> Box:
    """Add a number field."""
    return patch.add("live.numbox", face=face, parameter=parameter, hint=hint, annotation=hint)


def dial(patch: Patch, parameter: Parameter, face: Rectangle, hint: str) -> Box:
    """Add a dial with its name above and its value below."""
    return patch.add("live.dial", face=face, parameter=parameter, hint=hint, annotation=hint, appearance=1)


def whole_number(patch: Patch, face: Rectangle, key: str, hint: str) -> Box:
    """Add a number field for values too large for a parameter of Live."""
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
    """Add a text field that outputs its text at Return."""
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
    """Add a progress bar."""
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
        hint="progress",
        annotation="progress",
        parameter_enable=0,
    )


def prompt_of(desk: Desk, slot: int, written: Box, shown: Outlet) -> None:
    """Connect a prompt field to its slot."""
    _said(desk, written, f"prepend prompt {slot}")
    desk.shown_in(shown, written)


def _said(desk: Desk, written: Box, as_message: str) -> None:
    """Output typed text at Return, shortly after the last letter, and when the JavaScript requests it.

    The prefix `text` of textedit is kept: without it an empty field would output `bang`.
    """
    patch = desk.patch
    sender = patch.box(as_message)
    pause = patch.box("delay 400")
    patch.cord(written, sender, desk.js)
    patch.cord((written, 3), pause, written)
    patch.cord(desk.face("typed"), written)


def buffers(desk: Desk) -> None:
    """Add sixteen buffers, loaded by number; each reports when it is loaded."""
    patch = desk.patch
    with patch.row(
        "sounds: a file is read into a buffer that isn't playing; --- makes the names unique to this device"
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
    """Add voices that play the selected buffer. Returns them, and the outlet of the buffer's number."""
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
    sender = patch.box(f"prepend {name}")
    patch.cord(box, sender)
    patch.into(sender, poly, 1)


def gain(patch: Patch, face: Rectangle) -> Box:
    """Add a fader with a meter."""
    parameter = Parameter("Gain", FLOAT, -70.0, 6.0, 0.0, DECIBELS)
    return patch.add(
        "live.gain~", face=face, parameter=parameter, channels=2, orientation=0, hint="level", annotation="level"
    )


def rate_of(desk: Desk) -> None:
    """Request files at Live's sample rate."""
    patch = desk.patch
    with patch.row("Live's sample rate"):
        loaded = patch.box("loadbang")
        state = patch.box("dspstate~")
    patch.cord(loaded, state)
    desk.knob(state, "rate", 1)


def footer(desk: Desk, width: float) -> None:
    """Add the status line and timbred's port."""
    patch = desk.patch
    with patch.row("status"):
        status = label(patch, "connecting to timbred", (8, 151, width - 86, LABEL_HEIGHT))
        label(patch, "port", (width - 74, 151, 26, LABEL_HEIGHT), right=True)
        where = whole_number(
            patch, (width - 46, 151, 40, LABEL_HEIGHT), "port", f"timbred's OSC port (osc.port), {port()} by default"
        )
        sender = patch.box("prepend port")
    patch.cord(where, sender, desk.js)
    desk.shown_in(desk.face("status"), status)
    desk.shown_in(desk.face("port"), where)
    with patch.row("open a folder"):
        opened = patch.message("; max launchbrowser $1")
    patch.cord(desk.face("folder"), opened)


class _Column:
    """Positions of a column of labels and fields."""

    LABEL, FIELD, PITCH = 56.0, 70.0, 18.0

    def __init__(self, x: float) -> None:
        self.x = x
        self._y = 6.0 - self.PITCH

    def next(self) -> tuple[Rectangle, Rectangle]:
        """Return the position of the next label and field."""
        self._y += self.PITCH
        return (self.x, self._y, self.LABEL, LABEL_HEIGHT), (self.x + self.LABEL, self._y, self.FIELD, LABEL_HEIGHT)


def request_fields(desk: Desk, x: float, length: Parameter, length_hint: str) -> None:
    """Add the column of request parameters: length, takes, steps, scheduler, model, distance, seed, loop."""
    patch, column = desk.patch, _Column(x)
    with patch.row("request"):
        _number_line(desk, column, length, length_hint)
    for parameter, hint in (takes_field(), steps_field()):
        with patch.row():
            _number_line(desk, column, parameter, hint)
    with patch.row():
        name, place = column.next()
        label(patch, "scheduler", name)
        schedulers = allowed("scheduler")
        later = [choice for choice in schedulers.choices if choice not in FIRST_SCHEDULERS]
        choices = (OWN_SCHEDULER, *FIRST_SCHEDULERS, *later)
        chosen = menu(patch, "Scheduler", choices, place, schedulers.about)
        desk.knob(chosen, "scheduler", 1)
    with patch.row():
        model_line(desk, *column.next())
    with patch.row():
        _number_line(desk, column, *distance_field())
    _seed_line(desk, column)
    with patch.row():
        (left, y, wide, _), place = column.next()
        hint = "render a seamless loop"
        desk.knob(switch(patch, "Make a loop", (left, y, wide + place[2], 16), hint), "loop")


def _number_line(desk: Desk, column: _Column, parameter: Parameter, hint: str) -> None:
    name, place = column.next()
    label(desk.patch, parameter.name.lower(), name)
    desk.knob(field(desk.patch, parameter, place, hint), parameter.name.lower())


def _seed_line(desk: Desk, column: _Column) -> None:
    patch = desk.patch
    (left, y, wide, _), place = column.next()
    with patch.row():
        desk.knob(switch(patch, "Lock seed", (left, y, wide - 3, 16), "reuse this seed"), "lock")
        seed = whole_number(patch, place, "seed", "random seed; the same seed, model and prompt give the same sound")
        sender = patch.box("prepend seed 0")
        patch.cord(seed, sender, desk.js)
        desk.shown_in(desk.per_slot("seed", 1)[0], seed)


def model_line(desk: Desk, name: Rectangle, place: Rectangle) -> None:
    """Add the menu of timbred's models."""
    patch = desk.patch
    label(patch, "model", name)
    models = growing_menu(patch, place, "model that renders the sound")
    sender = patch.box("prepend model")
    patch.cord((models, 1), sender, desk.js)
    patch.cord(desk.face("models"), models)


def length_field(key: str, initial: float) -> tuple[Parameter, str]:
    """Return the parameter for seconds or bars, on an exponential scale, and its description."""
    low, high, about = bounds(key)
    return Parameter(key.capitalize(), FLOAT, low, high, initial, TWO_PLACES, exponent=4.0), about


def takes_field() -> tuple[Parameter, str]:
    """Return the parameter for the number of takes, and its description."""
    low, high, about = bounds("takes")
    return Parameter("Takes", INTEGER, low, min(float(TAKES), high), 1.0), f"{about} per request"


def steps_field() -> tuple[Parameter, str]:
    """Return the parameter for the number of steps, and its description; 0 stands for the model's default."""
    _, high, about = bounds("steps")
    return Parameter("Steps", FLOAT, 0.0, high, 0.0), f"{about}; 0: the model's default"


def distance_field() -> tuple[Parameter, str]:
    """Return the parameter for `strength`, the amount of change to the init audio, and its description."""
    low, high, _ = bounds("strength")
    return Parameter("Distance", FLOAT, low, high, 0.5, TWO_PLACES), "More like this: amount of change to the take"


def prompt_column(desk: Desk) -> None:
    """Add the left column of a device with one prompt."""
    patch = desk.patch
    with patch.row("prompt"):
        words = words_field(
            patch, (8, 6, 212, 56), "prompt: describe the sound, then press Return or Generate", lines=4
        )
        prompt_of(desk, 0, words, desk.per_slot("prompt", 1)[0])
    with patch.row():
        desk.button("Generate", (8, 66, 74, 18), "generate 0", "render the prompt")
        desk.button("More like this", (84, 66, 84, 18), "more 0", "render a variation of this take")
        desk.button("Cancel", (170, 66, 50, 18), "cancel", "cancel the running request")
    with patch.row():
        bar = progress_bar(patch, (8, 88, 212, 7))
        patch.cord(desk.per_slot("progress", 1)[0], bar)
    with patch.row("any other keys of a request"):
        label(patch, "keys", (8, 99, 40, LABEL_HEIGHT))
        keys_field(desk, (48, 99, 172, 17))
    with patch.row("history"):
        label(patch, "history", (8, 118, 40, LABEL_HEIGHT))
        history(desk, (48, 118, 84, 16))
    with patch.row("words that the model knows"):
        known_words(desk, (136, 118, 84, 16))


def known_words(desk: Desk, face: Rectangle) -> None:
    """Add the menu of the words that the model knows; one that is selected is added to the prompt."""
    patch = desk.patch
    words = growing_menu(patch, face, "words that the model knows; select one to add it to the prompt")
    sender = patch.box("prepend word")
    patch.cord((words, 1), sender, desk.js)
    patch.cord(desk.face("words"), words)


def keys_field(desk: Desk, face: Rectangle) -> None:
    """Add the field for other keys of the request, as in the protocol; they override the knobs."""
    patch = desk.patch
    keys = words_field(patch, face, "more keys of the request, as in: @guidance 5 @negative hiss")
    _said(desk, keys, "prepend keys")
    desk.shown_in(desk.face("keys"), keys)


def history(desk: Desk, face: Rectangle) -> None:
    """Add the menu of the device's earlier takes, newest first."""
    patch = desk.patch
    before = growing_menu(patch, face, "earlier sounds of this device; select one to restore it")
    sender = patch.box("prepend recall")
    patch.cord(before, sender, desk.js)
    patch.cord(desk.face("history"), before)


def take_tabs(desk: Desk, face: Rectangle) -> None:
    """Add the tabs that select a take."""
    patch = desk.patch
    numbers = [str(number) for number in range(1, TAKES + 1)]
    chosen = tabs(patch, "Take", numbers, face, "select a take")
    sender = patch.box("prepend choose 0")
    shown = patch.box("unpack 0 s")
    patch.cord(chosen, sender, desk.js)
    patch.cord(desk.per_slot("takes", 1)[0], shown)
    desk.shown_in((shown, 0), chosen)


def waveform(patch: Patch, number: Outlet, face: Rectangle) -> None:
    """Add the waveform of the selected buffer."""
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

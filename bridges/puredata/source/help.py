"""The help patches. Requests, keys and errors come from the protocol's declarations."""

import textwrap

from bridges.puredata.source.patch import Patch
from timbred.errors import CODES
from timbred.protocol import messages as m
from timbred.protocol.describe import Key, keys_of
from timbred.protocol.schema import REQUESTS, RequestEntry

LINE, COLUMN = 17, 96
"""Pixels from one line of a comment to the next; characters of a page's lines."""

NOT_FROM_PD = ("id", "prompt", "inline", "port")
"""Fields of `generate` that aren't keys in a patch, because the abstraction sets them or they don't apply."""

CLICKED: tuple[tuple[str, str], ...] = (
    ("generate warm analog pad @seconds 2", "render a sound"),
    ("generate deep kick drum @seconds 0.5 @takes 4", "render four takes"),
    ("vary @seed 5", "render the last take with another seed"),
    ("vary last @seconds 1 @guidance 5", "render the last take with other values"),
    ("cancel", "cancel all requests of this object"),
    ("flow 2 rain on a tin roof", "continuous playback on the daemon's voice 2"),
    ("flow 2 wind in wires", "change its prompt"),
    ("stop 2 @fade 3", "stop it with a fade-out of 3 s"),
    ("set 1 @gain -6 @fade 2", "fade voice 1 to -6 dB"),
    ("stop", "stop all voices"),
    ("models", "list the models"),
    ("status", "report the daemon's status"),
    ("takes @search pad", "search earlier takes"),
    ("tempo 120", "set the tempo"),
    ("settings/tempo", "read a setting"),
    ("connect 127.0.0.1 7770", "connect to another daemon"),
)
"""The messages of the help patch, and their descriptions."""

PLAYED: tuple[tuple[str, str], ...] = (
    ("generate warm analog pad on C4 @seconds 2", "render a sound"),
    ("generate small bright bell @seconds 1.5", "render another sound"),
    ("vary @seed 5", "render the last take with another seed"),
    ("root 60", "note of the original pitch"),
    ("attack 20", "attack in milliseconds"),
    ("release 300", "release in milliseconds"),
    ("oneshot", "notes play to the end of the sound"),
    ("gate", "notes play while held"),
    ("loop", "notes loop while held"),
    ("bang", "play it at the root note"),
)
"""The messages of the sampler's help patch."""

TIMEOUT = "timeout: No answer: the daemon isn't running, or exited. Sent by the patch itself."


def timbred_help() -> Patch:
    """Build the help patch of `[timbred]`, with an example of every request."""
    patch = Patch(760, 820)
    patch.draw(
        '20 10 # [timbred]: renders audio from text. Start the daemon with "timbred serve", then click a message.'
    )
    y = 45
    for number, (message, about) in enumerate(CLICKED):
        patch.draw(f"20 {y} m{number}( {message}")
        if about:
            patch.draw(f"400 {y} # {about}")
        y += 27
    patch.draw(
        """
        20 540 timbred: timbred
        110 540 # arguments: host, port (default 127.0.0.1 7770)
        20 600 both: t a a
        20 630 read( read -resize $1 timbred-help
        20 660 file: soundfiler
        20 690 loaded: t b f
        20 720 player: tabplay~ timbred-help
        20 750 out: dac~
        110 690 frames: print frames
        440 690 table: table timbred-help 64
        80 780 # takes: path, id, index, seconds, rate, channels, seed, score, take id
        640 690 audio( ; pd dsp 1

        300 630 path: list append
        300 660 play( play 1 $1
        300 690 asked: s $0-ask
        300 565 # on voice 1
        90 500 ask: r $0-ask
        560 600 console: print events
        560 625 # all messages of the daemon
        430 620 # progress
        """
    )
    patch.button("again", 300, 590)
    patch.slider("progress", 430, 600, 100, 16)
    patch.part("keys", 300, 500, keys_page())
    patch.part("requests", 400, 500, requests_page())
    patch.part("errors", 520, 500, errors_page())
    for number in range(len(CLICKED)):
        patch.draw(f"m{number} > timbred")
    patch.draw(
        """
        ask > timbred
        timbred > both > read > file > loaded > player > out
        player > out.1
        loaded.1 > frames
        both.1 > path.1
        again > path > play > asked
        timbred.1 > progress
        timbred.2 > console
        """
    )
    return patch


def sampler_help() -> Patch:
    """Build the help patch of `[timbred-sampler]`, with prompts and notes."""
    patch = Patch(760, 600)
    patch.draw(
        """
        20 10 # [timbred-sampler name]: renders a playable sound. Turn the audio on, click a prompt, wait, play.
        560 45 audio( ; pd dsp 1
        """
    )
    y = 45
    for number, (message, about) in enumerate(PLAYED):
        patch.draw(f"20 {y} m{number}( {message}\n350 {y} # {about}")
        y += 27
    patch.draw(
        """
        250 320 c( 60 100
        310 320 e( 64 100
        370 320 g( 67 100
        430 320 off( 60 0
        480 320 off_e( 64 0
        530 320 off_g( 67 0
        620 320 midi: notein
        620 350 note: pack f f
        530 290 # pitch, velocity; 0 is note-off

        20 400 sampler: timbred-sampler help-sound
        20 460 quiet: *~ 0.5
        20 500 out: dac~
        100 460 ready: print ready
        100 485 # ready TABLE FRAMES: the table of the next note
        330 510 # progress
        480 460 console: print events
        480 485 # all messages of the daemon
        20 540 # Two tables, help-sound-1 and help-sound-2, alternate: a playing table is never overwritten.
        20 565 # The take is rendered at this patch's sample rate with one channel: @rate and @channels are added.
        """
    )
    patch.slider("progress", 330, 460, 100, 16)
    for number in range(len(PLAYED)):
        patch.draw(f"m{number} > sampler")
    for name in ("note", "c", "e", "g", "off", "off_e", "off_g"):
        patch.draw(f"{name} > sampler.1")
    patch.draw(
        """
        midi > note
        midi.1 > note.1
        sampler > quiet > out
        quiet > out.1
        sampler.1 > ready
        sampler.2 > progress
        sampler.3 > console
        """
    )
    return patch


def _page(name: str, lines: list[str]) -> Patch:
    """Build a page of comments."""
    patch = Patch(760, 400, name)
    y = 10
    for line in lines:
        patch.comment(20, y, line, COLUMN)
        y += LINE * len(textwrap.wrap(line.replace(";", ","), COLUMN)) + 4
    patch.height = y + LINE
    return patch


def keys_page() -> Patch:
    """Build the page of the keys of `generate`."""
    lines = ["Keys of generate, vary and flow, written as: @key value"]
    return _page("keys", lines + [key_line(key) for key in keys_of(m.Generate) if key.name not in NOT_FROM_PD])


def key_line(key: Key) -> str:
    """Return the line of a key."""
    default = f"; default {key.default}".replace("`", "") if key.default else ""
    return f"@{key.name}: {key.about.replace('`', '')} ({key.allowed}{default})"


def requests_page() -> Patch:
    """Build the page of requests."""
    return _page("requests", ["Requests. Ids are added automatically."] + [_request_line(e) for e in REQUESTS])


def _request_line(entry: RequestEntry) -> str:
    arguments = [name for name in (*entry.positional, entry.rest) if name and not (entry.has_id and name == "id")]
    name = f"{entry.name}/NAME" if entry.family else entry.name
    about = " ".join((entry.kind.__doc__ or "").split()).partition(". ")[0].rstrip(".") + "."
    return " ".join([name, *(argument.upper() for argument in arguments)]) + ": " + about


def errors_page() -> Patch:
    """Build the page of error codes."""
    lines = [
        "Failures are sent as: fail ID CODE MESSAGE. The message contains the remedy.",
        "Warnings are sent as: warning ID KEY MESSAGE. The request continues.",
    ]
    return _page("errors", lines + [f"{code}: {kind.meaning}" for code, kind in CODES.items()] + [TIMEOUT])

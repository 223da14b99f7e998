"""The help patches. What they say of requests, keys and errors is taken from the protocol's declarations."""

import textwrap

from bridges.puredata.source.patch import Patch
from timbred.errors import CODES
from timbred.protocol import messages as m
from timbred.protocol.describe import Key, keys_of
from timbred.protocol.vocabulary import REQUESTS, RequestEntry

LINE, COLUMN = 17, 96
"""Pixels from one line of a comment to the next; characters of a page's lines."""

NOT_FROM_PD = ("id", "prompt", "inline", "port")
"""Fields of `generate` that are no keys in a patch: it makes ids, the answers come back, samples are files."""

CLICKED = (
    *("one", "four", "same", "other", "cancel", "flow", "on", "enough", "set", "stop"),
    *("models", "status", "search", "tempo", "setting", "connect"),
)
"""The messages of the help patch."""

TIMEOUT = "timeout: Nothing answers: the daemon isn't running, or went away. Said by the patch itself."


def timbred_help() -> Patch:
    """`[timbred]` with every kind of request to click."""
    patch = Patch(840, 600)
    patch.draw(
        """
        20 10 # [timbred]: words become sounds. Start the daemon with "timbred serve", then click a message.
        20 45 one( generate warm analog pad @seconds 2
        330 45 four( generate deep kick drum @seconds 0.5 @takes 4
        20 75 same( vary
        70 75 other( vary last @seed 5
        250 75 # the last take again, changed as said
        20 105 cancel( cancel
        100 105 # ends all that is still to come
        20 135 flow( flow 2 rain on a tin roof
        230 135 on( flow 2 wind in wires
        400 135 enough( stop 2
        480 135 # a sound without end, and where to next
        20 165 set( set 1 @gain -6 @fade 2
        230 165 stop( stop
        290 165 # the daemon's own voices: one softer; all silent
        20 195 models( models
        90 195 status( status
        160 195 search( takes @search pad
        310 195 tempo( tempo 120
        400 195 setting( settings/tempo
        530 195 connect( connect 127.0.0.1 7770
        20 270 timbred: timbred
        110 270 # arguments: host, port (else 127.0.0.1 7770)

        20 330 both: t a a
        20 360 read( read -resize $1 timbred-help
        20 390 file: soundfiler
        20 420 loaded: t b f
        20 450 player: tabplay~ timbred-help
        20 480 out: dac~
        130 420 frames: print frames
        240 450 table: table timbred-help 64
        260 375 audio( ; pd dsp 1
        20 520 # takes: path, id, index, seconds, rate, channels, seed, score, take id

        400 360 path: list append
        400 390 play( play 1 $1
        400 415 # on the daemon's voice 1
        640 330 console: print heard
        640 355 # all that the daemon says
        520 270 # progress
        """
    )
    patch.button("again", 400, 320)
    patch.slider("progress", 520, 300, 100, 16)
    patch.part("keys", 20, 560, keys_page())
    patch.part("requests", 110, 560, requests_page())
    patch.part("errors", 230, 560, errors_page())
    for name in CLICKED:
        patch.draw(f"{name} > timbred")
    patch.draw(
        """
        timbred > both > read > file > loaded > player > out
        player > out.1
        loaded.1 > frames
        both.1 > path.1
        again > path > play > timbred
        timbred.1 > progress
        timbred.2 > console
        """
    )
    return patch


def sampler_help() -> Patch:
    """`[timbred-sampler]` with prompts and notes."""
    patch = Patch(760, 560)
    patch.draw(
        """
        20 10 # [timbred-sampler name]: words become an instrument. Turn the audio on, ask, wait, play.
        560 45 audio( ; pd dsp 1
        20 45 pad( generate warm analog pad on C4 @seconds 2
        20 75 bell( generate small bright bell @seconds 1.5
        20 105 vary( vary
        70 105 # another one like the last
        20 135 root( root 60
        100 135 # the note at which it sounds as it is
        20 165 attack( attack 20
        120 165 release( release 300
        220 165 # ms
        20 195 oneshot( oneshot
        100 195 gate( gate
        150 195 loop( loop
        210 195 # to the end; while a note is held; around while it is held
        20 250 hit( bang
        70 250 # plays it at its root

        400 45 midi: notein
        400 75 note: pack f f
        400 135 c( 60 100
        460 135 e( 64 100
        520 135 g( 67 100
        400 165 off( 60 0
        460 165 off_e( 64 0
        520 165 off_g( 67 0
        400 105 # notes: pitch and velocity

        20 310 sampler: timbred-sampler help-sound
        20 440 out: dac~
        20 370 quiet: *~ 0.5
        120 380 ready: print ready
        420 380 console: print heard
        300 340 # progress
        120 405 # ready TABLE FRAMES: the table that the next note plays
        420 355 # all that the daemon says
        20 490 # Two tables, help-sound-1 and help-sound-2, take turns: what sounds is never overwritten.
        20 515 # The take is made at this patch's sample rate, with one channel: @rate and @channels are added.
        """
    )
    patch.slider("progress", 300, 365, 100, 16)
    for name in ("pad", "bell", "vary", "root", "attack", "release", "oneshot", "gate", "loop", "hit"):
        patch.draw(f"{name} > sampler")
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
    """A page of comments below each other."""
    patch = Patch(760, 400, name)
    y = 10
    for line in lines:
        patch.comment(20, y, line, COLUMN)
        y += LINE * len(textwrap.wrap(line.replace(";", ","), COLUMN)) + 4
    patch.height = y + LINE
    return patch


def keys_page() -> Patch:
    """Every key of `generate`."""
    lines = ["Keys of generate, vary and flow. Each is written as: @key value"]
    return _page("keys", lines + [key_line(key) for key in keys_of(m.Generate) if key.name not in NOT_FROM_PD])


def key_line(key: Key) -> str:
    """A key as a line of a page."""
    default = f" (else {key.default})".replace("`", "") if key.default else ""
    return f"@{key.name}: {key.about.replace('`', '')}: {key.allowed}{default}"


def requests_page() -> Patch:
    """Every request."""
    return _page(
        "requests", ["Requests. An id is made for those that need one."] + [_request_line(e) for e in REQUESTS]
    )


def _request_line(entry: RequestEntry) -> str:
    arguments = [name for name in (*entry.positional, entry.rest) if name and not (entry.has_id and name == "id")]
    name = f"{entry.name}/NAME" if entry.family else entry.name
    about = (entry.kind.__doc__ or "").splitlines()[0]
    return " ".join([name, *(argument.upper() for argument in arguments)]) + ": " + about


def errors_page() -> Patch:
    """Every error code."""
    lines = ["A failure comes as: fail ID CODE MESSAGE. The message says what to do."]
    return _page("errors", lines + [f"{code}: {kind.meaning}" for code, kind in CODES.items()] + [TIMEOUT])

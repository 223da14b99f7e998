"""`[timbred]`: the client abstraction, with one UDP socket and detection of the daemon."""

from bridges.puredata.source.patch import Patch

HOST, PORT = "127.0.0.1", 7770
"""The default address of the daemon."""

ASK_EVERY = 500
"""Milliseconds between two `status` requests."""

SILENCE = 1500
"""Milliseconds without an answer after which the daemon counts as not running."""

LAST_LINE = 1000000
"""A line number beyond the end of every text: setting it appends a line."""


def timbred() -> Patch:
    """Build the abstraction."""
    patch = Patch(680, 320)
    patch.draw(
        """
        20 10 # [timbred host port]: requests in, takes out. See timbred-help.pd.
        20 50 in: inlet
        300 90 open: text define $0-open
        300 120 waiting: text define $0-waiting
        300 150 # pending requests, and queued requests
        20 250 takes: outlet
        160 250 progress: outlet
        300 250 events: outlet
        20 280 # takes
        160 280 # progress 0 to 1
        300 280 # all messages of the daemon
        """
    )
    patch.part("requests", 20, 90, _requests())
    patch.part("connection", 20, 130, _connection())
    patch.part("answers", 20, 170, _answers())
    patch.part("ids", 150, 90, _ids())
    patch.part("watch", 150, 130, _watch())
    patch.part("kept", 150, 170, _kept())
    patch.part("console", 150, 210, _console())
    patch.draw(
        """
        in > requests > connection > answers > takes
        answers.1 > progress
        answers.2 > events
        """
    )
    return patch


def _requests() -> Patch:
    """Build the conversion of a message to the bytes of an OSC message."""
    patch = Patch(1040, 810, "requests")
    patch.draw(
        f"""
        20 10 # Sent if the daemon is running, queued while its state is unknown, refused if it isn't running.
        20 60 in: inlet
        20 90 connect: route connect
        160 90 elsewhere: s $0-connect
        20 120 whole: list append
        300 120 kept: r $0-kept
        20 150 order: t a b
        160 150 state: value $0-state
        20 180 stated: list prepend
        20 210 way: route 1 0 -1
        in > connect > elsewhere
        connect.1 > whole > order > stated > way
        kept > order
        order.1 > state > stated.1

        560 60 refused: list append
        560 90 what: list split 1
        560 120 refusal( $1: not sent - start it with: timbred serve
        560 150 console: print timbred
        560 180 fail( fail $1 timeout timbred-is-not-running
        560 210 local_event: s $0-event
        way.1 > refused > what > refusal > console
        what > fail > local_event

        300 180 keep: list append
        300 210 kept_ones: text set $0-waiting {LAST_LINE}
        way.2 > keep > kept_ones

        20 260 kind: route generate vary cancel stop status
        way > kind

        20 300 new: t a b
        80 330 ask: s $0-new-id
        20 360 generate: list prepend
        200 300 of: route last bang
        320 330 named: list append
        320 360 begins: t a a
        420 360 first: list split 1
        420 390 letters: list fromsymbol
        420 420 letter: list split 1
        420 450 at_sign: == 64
        320 480 either: list prepend
        320 510 either_way: route 1
        200 540 latest: list prepend
        200 510 take: r $0-latest
        200 570 newer: t a b
        260 600 new_id_of_vary: s $0-new-id
        200 640 vary: list prepend
        80 420 id: r $0-id
        80 450 one( generate $1
        80 590 other( vary $1
        kind > new > generate
        new.1 > ask
        kind.1 > of > latest > newer > vary
        of.1 > latest
        of.2 > named > begins > either > either_way > latest
        begins.1 > first > letters > letter > at_sign > either.1
        either_way.1 > newer
        newer.1 > new_id_of_vary
        take > latest.1
        id > one > generate.1
        id > other > vary.1

        560 300 cancel: route bang
        560 330 all( cancel *
        600 360 cancelled: list prepend cancel
        kind.2 > cancel > all
        cancel.1 > cancelled

        720 300 stop: route bang
        720 330 every( stop *
        760 360 stopped: list prepend stop
        kind.3 > stop > every
        stop.1 > stopped

        900 300 status: t b b
        920 330 asked: s $0-asked
        900 360 state_of( status
        kind.4 > status > state_of
        status.1 > asked

        20 680 request: list append
        20 710 halves: t a a
        160 710 head: list split 1
        160 740 address( set timbred $1
        20 740 rest: list split 1
        20 770 bytes: oscformat
        160 770 send: list prepend send
        320 770 trim: list trim
        440 770 out: outlet
        generate > request > halves > rest
        vary > request
        all > request
        cancelled > request
        every > request
        stopped > request
        state_of > request
        kind.5 > request
        halves.1 > head > address > bytes
        rest.1 > bytes > send > trim > out
        """
    )
    return patch


def _ids() -> Patch:
    """Build unique ids: object number, age of the daemon at detection, counter."""
    patch = Patch(780, 560, "ids")
    patch.draw(
        f"""
        20 10 # An id: object number, age of the daemon at detection, counter.
        20 50 new: r $0-new-id
        20 80 order: t b b
        20 110 count: f 1
        90 110 next: + 1
        220 110 met: value $0-met
        20 140 both: pack f f
        20 170 self: list prepend $0
        20 200 name( symbol pd-$1-$2-$3
        20 230 twice: t s s
        20 260 id: s $0-id
        120 260 open: text set $0-open {LAST_LINE}
        new > order > count > both > self > name > twice > id
        order.1 > met > both.1
        count > next > count.1
        twice.1 > open

        20 310 # A request has ended.
        20 340 ended: r $0-ended
        20 370 found: text search $0-open
        20 400 there: moses 0
        60 430 gone: text delete $0-open
        ended > found > there
        there.1 > gone

        300 310 # The daemon is lost: all pending requests fail.
        300 340 lost: r $0-lost
        300 370 each: until
        300 400 size: text size $0-open
        300 430 some: sel 0
        360 460 first: t b b
        300 490 remove( 0
        300 520 removed: text delete $0-open
        440 490 line( 0
        440 520 read: text get $0-open
        520 430 fail( fail $1 timeout timbred-exited
        520 460 local_event: s $0-event
        lost > each > size > some > each.1
        some.1 > first > remove > removed
        first.1 > line > read > fail > local_event
        """
    )
    return patch


def _connection() -> Patch:
    """Build the socket; every received answer counts as a sign that the daemon is running."""
    patch = Patch(880, 560, "connection")
    patch.draw(
        f"""
        20 10 # The socket, and a status request every {ASK_EVERY} ms.
        20 50 start: loadbang
        20 80 begin: t b b
        20 110 on( 1
        20 140 metro: metro {ASK_EVERY}
        20 170 ask: oscformat timbred status
        20 200 send: list prepend send
        20 230 trim: list trim
        start > begin > on > metro > ask > send > trim

        200 110 args( args
        200 140 given: pdcontrol
        360 80 elsewhere: r $0-connect
        500 80 all: r timbred-connect
        200 170 two: list split 2
        360 170 one: list split 1
        360 200 host: list append {PORT}
        480 200 none( {HOST} {PORT}
        200 230 place: list append
        200 260 default: route 0
        200 290 local( list {HOST} {PORT}
        200 320 address: t a b
        340 320 reset: s $0-elsewhere
        200 350 remember: t a a
        340 350 where: s $0-where
        200 380 connect( disconnect, connect $1 $2
        begin.1 > args > given > two > place > default > local > address > remember > connect
        elsewhere > two
        all > two
        two.2 > one > host > place
        one.2 > none > place
        default.1 > address
        address.1 > reset
        remember.1 > where

        20 350 in: inlet
        20 420 socket: netsend -u -b
        120 460 received: t a b
        120 490 parsed: oscparse
        220 490 alive: s $0-alive
        120 520 out: outlet
        trim > socket
        in > socket
        connect > socket
        socket.1 > received > parsed > out
        received.1 > alive
        """
    )
    return patch


def _watch() -> Patch:
    """Build the detection of the daemon, and the actions when it appears or disappears."""
    patch = Patch(960, 640, "watch")
    patch.draw(
        f"""
        20 10 # State of the daemon. -1: unknown, 0: not running, 1: running.
        20 50 start: loadbang
        120 50 elsewhere: r $0-elsewhere
        20 80 unknown: t b b b
        260 80 alive: r $0-alive
        20 170 wait: delay {SILENCE}
        120 110 minus( -1
        120 140 state: value $0-state
        260 140 lose: s $0-lost
        start > unknown > wait
        elsewhere > unknown
        unknown.1 > minus > state
        unknown.2 > lose
        alive > wait

        20 230 # No answer: it isn't running.
        20 260 was: value $0-state
        20 290 already: sel 0
        80 320 gone: t b b b b b
        80 530 flush: s $0-flush
        80 410 place: list append
        180 380 where: r $0-where
        80 440 words( no timbred answers at $1 $2 - start it with: timbred serve - this patch reconnects by itself
        80 490 console: print timbred
        180 350 lost: s $0-lost
        300 350 not_running( running 0
        300 380 local_event: s $0-event
        420 350 no( 0
        420 380 now: value $0-state
        wait > was > already
        already.1 > gone > flush
        gone.1 > place > words > console
        gone.2 > lost
        gone.3 > not_running > local_event
        gone.4 > no > now
        where > place.1

        500 10 # A lower uptime shows that it was restarted.
        500 50 status: r $0-status
        500 80 tail: list split 8
        500 110 age: list split 1
        500 140 ages: t f f b b
        800 110 last: value $0-age
        680 110 before: value $0-state
        640 170 aged: value $0-age
        500 200 new: expr ($f2 != 1) || ($f1 < $f3)
        500 230 yes: sel 1
        status > tail
        tail.1 > age > ages > new > yes
        ages.1 > aged
        ages.2 > before > new.1
        ages.3 > last > new.2

        500 290 here: t b b b b b b
        500 590 flushed: s $0-flush
        560 530 hello( hello puredata
        560 560 greet: s $0-kept
        640 350 young: value $0-age
        640 380 met: value $0-met
        760 350 running( running 1
        760 380 say: s $0-event
        760 440 one( 1
        760 470 is: value $0-state
        880 350 ended: s $0-lost
        yes > here > flushed
        here.1 > hello > greet
        here.2 > young > met
        here.3 > running > say
        here.4 > one > is
        here.5 > ended
        """
    )
    return patch


def _kept() -> Patch:
    """Build the queue of requests received while the daemon's state is unknown."""
    patch = Patch(540, 280, "kept")
    patch.draw(
        """
        20 10 # When the state is known, they are sent, or fail.
        20 50 flush: r $0-flush
        20 80 each: until
        20 110 size: text size $0-waiting
        20 140 some: sel 0
        60 170 first: t b b b
        60 200 out: list append
        60 230 on: s $0-kept
        180 200 remove( 0
        180 230 removed: text delete $0-waiting
        380 200 line( 0
        380 230 read: text get $0-waiting
        flush > each > size > some > each.1
        some.1 > first > out > on
        first.1 > remove > removed
        first.2 > line > read > out.1
        """
    )
    return patch


def _answers() -> Patch:
    """Build the routing of events: takes, progress, and all events unchanged."""
    patch = Patch(980, 520, "answers")
    patch.draw(
        """
        20 10 # All messages leave through the right outlet; takes and progress also through their own.
        20 50 in: inlet
        120 50 trim_in: list trim
        20 80 root: route timbred
        20 110 own: route status.reply
        20 140 twice: t a a
        20 200 kind: route take progress queued fail done cancelled warning
        in > trim_in > root > own
        own.1 > twice > kind

        640 50 asked: r $0-asked
        640 80 open( 1
        640 140 status: t b a a
        640 170 close( 0
        720 200 gate: spigot
        820 170 watched: s $0-status
        720 230 named: list prepend status.reply
        720 260 trim: list trim
        560 140 local_event: r $0-event
        asked > open > gate.1
        own > status > close > gate.1
        status.1 > gate > named > trim
        status.2 > watched

        20 240 found: route takes
        20 300 take: list append
        20 330 latest: t a a
        20 360 order( list $3 $1 $2 $4 $5 $6 $7 $8 $9
        140 390 id( symbol $9
        140 420 remember: s $0-latest
        20 460 takes: outlet
        kind > found
        found.1 > take > latest > order > takes
        latest.1 > id > remember

        320 300 progress: list append
        320 330 fraction( $2
        320 270 zero( 0
        320 460 fractions: outlet
        kind.1 > progress > fraction > fractions
        kind.2 > zero > fractions

        860 460 events: outlet
        twice.1 > events
        trim > events
        local_event > events

        400 240 fail: t a a
        400 270 failed: list append
        480 300 end: list append
        480 330 which: list split 1
        480 360 ended: s $0-ended
        kind.3 > fail > failed
        fail.1 > end > which > ended
        kind.4 > end
        kind.5 > end

        400 390 error_line: s $0-line
        320 360 warned: list append
        kind.6 > warned > error_line
        failed > error_line
        """
    )
    return patch


def _console() -> Patch:
    """Build the output of an error to Pd's console: message and code in one line."""
    patch = Patch(560, 420, "console")
    patch.draw(
        """
        20 10 # A failure in Pd's console: the message, then the code in brackets.
        20 50 error_line: r $0-line
        20 80 local_event: list split 1
        80 110 order: t a a
        80 140 after: list split 1
        300 140 code: list split 1
        140 170 message: list fromsymbol
        300 170 letters: list fromsymbol
        300 200 bracket: list prepend 32 40
        140 230 both: list append
        140 260 close: list append 41
        140 290 line: list tosymbol
        140 320 trim: list trim
        140 350 console: print timbred
        error_line > local_event
        local_event.1 > order > after
        after.1 > message > both > close > line > trim > console
        order.1 > code > letters > bracket > both.1
        """
    )
    return patch

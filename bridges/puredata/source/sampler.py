"""`[timbred-sampler name]`: a sampler for a generated sound.

Two tables alternate: a new sound is loaded into the unused table, and the next note plays it.
"""

from bridges.puredata.source.patch import Patch

VOICES = 8
"""Number of voices."""

QUIET = 5
"""Fade-out in milliseconds of a voice whose table is needed for the next sound."""

LOAD_AFTER = 10
"""Milliseconds from the start of that fade-out to the loading."""

STEAL = 3
"""Fade-out in milliseconds of a voice that is stolen for the next note."""

ROOT, ATTACK, RELEASE = 60, 0, 50
"""Defaults of a sampler: the MIDI note of the original pitch; milliseconds; milliseconds."""


def sampler() -> Patch:
    """Build the abstraction."""
    patch = Patch(860, 480)
    patch.draw(
        """
        20 10 # [timbred-sampler name host port]: requests and notes in, audio out. See timbred-sampler-help.pd.
        20 60 in: inlet
        20 90 kind: route generate vary bang
        20 120 made: t a b
        20 210 generate: list append
        20 240 asked: list prepend generate
        200 120 varied: t a b
        200 210 vary: list append
        200 240 again: list prepend vary
        100 150 rate: samplerate~
        100 180 form( list @rate $1 @channels 1
        20 280 plain: list trim
        20 320 timbred: timbred $2 $3
        in > kind > made > generate > asked > plain > timbred
        made.1 > rate > form > generate.1
        kind.1 > varied > vary > again > plain
        varied.1 > rate
        form > vary.1

        400 90 set: route root attack release oneshot gate loop
        400 150 root: s $0-root
        460 180 attack: s $0-attack
        540 150 release: s $0-release
        560 120 oneshot( 0
        600 120 gate( 1
        640 120 loop( 2
        640 150 mode: s $0-mode
        400 240 other: list append
        kind.3 > set > root
        set.1 > attack
        set.2 > release
        set.3 > oneshot > mode
        set.4 > gate > mode
        set.5 > loop > mode
        set.6 > other > plain

        740 60 notes: inlet
        400 280 hit: s $0-hit
        kind.2 > hit

        600 330 first: table $1-1 64
        600 360 second: table $1-2 64

        20 430 signal: outlet~
        160 430 ready: outlet
        300 430 progress: outlet
        440 430 events: outlet
        20 455 # sound
        160 455 # ready TABLE FRAMES
        300 455 # progress 0 to 1
        440 455 # all messages of the daemon
        """
    )
    patch.part("play", 600, 280, _notes())
    patch.part("load", 20, 360, _load())
    patch.draw(
        """
        notes > play
        play > signal
        timbred > load > ready
        timbred.1 > progress
        timbred.2 > events
        """
    )
    return patch


def _load() -> Patch:
    """Build the loading of the first take into the unused table."""
    patch = Patch(760, 560, "load")
    patch.draw(
        f"""
        20 10 # The first take of a request is loaded into the unused table.
        500 60 begin: loadbang
        500 90 second( 2
        500 120 used: value $0-used
        begin > second > used

        20 60 in: inlet
        20 90 order( list $3 $1
        20 120 best: route 0
        20 150 path: list append
        20 180 go: t a b
        160 180 using: value $0-used
        160 210 target: expr 3 - $f1
        160 240 both: t f f f
        380 270 quiet: s $0-quiet
        160 270 name: makefilename $1-%d
        160 300 table: pack s f
        20 330 whole: list append
        20 360 later: t b a
        20 390 wait: delay {LOAD_AFTER}
        20 420 job: list append
        in > order > best > path > go > whole > later > wait > job
        go.1 > using > target > both > name > table > whole.1
        both.1 > table.1
        both.2 > quiet
        later.1 > job.1

        20 450 now: t a a
        20 480 read( read -resize $1 $2
        20 510 file: soundfiler
        260 450 where( list $2 $3
        140 510 there: moses 1
        260 480 named: list prepend
        400 480 done: t a a
        job > now > read > file > there
        now.1 > where > named.1
        there.1 > named
        """
    )
    patch.draw(
        """
        400 510 latest( list $2 $3
        520 510 latest_is: s $0-latest
        400 420 say( ready $1 $3
        400 390 out: outlet
        140 535 missing( the sound file can't be read
        400 535 console: print timbred-sampler
        named > done > say > out
        done.1 > latest > latest_is
        there > missing > console
        """
    )
    return patch


def _notes() -> Patch:
    """Build the assignment of notes to voices; the first note after the loading of a new sound plays it."""
    patch = Patch(760, 540, "notes")
    patch.draw(
        f"""
        20 10 # A note uses a free voice. The first note after the loading of a new sound plays it.
        20 60 in: inlet
        360 60 hit: r $0-hit
        360 90 at: f {ROOT}
        480 60 root_is: r $0-root
        360 120 full( list $1 127
        20 150 order: t a a
        20 360 poly: poly {VOICES} 1
        in > order > poly
        hit > at > full > order
        root_is > at.1

        160 180 on: stripnote
        160 210 bang: t b
        160 240 latest: list append 2 0
        300 210 newest: r $0-latest
        160 270 sound: unpack f f
        160 300 twice: t f f
        240 330 used: value $0-used
        order.1 > on > bang > latest > sound > twice
        newest > latest.1
        twice.1 > used

        400 210 root: r $0-root
        470 210 attack: r $0-attack
        560 210 release: r $0-release
        660 210 mode: r $0-mode
        400 300 settings: pack 2 0 {ROOT} {ATTACK} {RELEASE} 0
        twice > settings
        sound.1 > settings.1
        root > settings.2
        attack > settings.3
        release > settings.4
        mode > settings.5

        20 390 note: pack f f f
        20 420 whole: list append
        20 450 gate: spigot
        160 390 come: r $0-latest
        160 420 open( 1
        20 480 voices: clone -s 1 timbred-sampler-voice {VOICES} $0 $1
        20 510 out: outlet~
        poly > note > whole > gate > voices > out
        poly.1 > note.1
        poly.2 > note.2
        settings > whole.1
        come > open > gate.1
        """
    )
    return patch


def voice() -> Patch:
    """Build a voice. Its input: pitch velocity table frames root attack release mode."""
    patch = Patch(1000, 600)
    patch.draw(
        """
        20 10 # One voice of timbred-sampler: pitch velocity table frames root attack release mode.
        20 50 in: inlet
        20 80 order( list $2 $1 $3 $4 $5 $6 $7 $8
        20 110 kind: route 0
        20 290 outlet: outlet~
        in > order > kind
        """
    )
    patch.part("start", 60, 140, _start())
    patch.part("reader", 60, 200, _reader())
    patch.part("envelope", 300, 200, _envelope())
    patch.draw(
        """
        300 80 off( list $7 $6
        300 110 held: route 0
        300 140 time: unpack f
        300 170 fall( 0 $1
        20 260 product: *~
        kind > off > held
        held.1 > time > fall > envelope
        kind.1 > start > reader > product > outlet
        start > envelope.1
        envelope > product.1
        """
    )
    return patch


def _start() -> Patch:
    """Build the start of a note: a playing voice is faded out first. The sample rate is appended to the note."""
    patch = Patch(560, 400, "start")
    patch.draw(
        f"""
        20 10 # A playing voice is faded out first.
        20 50 in: inlet
        20 80 order: t a b
        20 110 keep: t b a
        20 230 wait: delay
        20 260 job: list append
        160 80 sounding: value $0-sounding
        160 110 busy: sel 1
        160 140 two: t b b
        160 170 steal( {STEAL}
        240 170 fade( 0 {STEAL}
        240 200 fades: s $0-envelope
        340 140 free( 0
        in > order > keep > wait > job
        keep.1 > job.1
        order.1 > sounding > busy > two > steal > wait.1
        two.1 > fade > fades
        busy.1 > free > wait.1

        20 290 go: t a b
        120 290 rate: samplerate~
        20 320 full: list append
        20 350 out: outlet
        job > go > full > out
        go.1 > rate > full.1
        """
    )
    return patch


def _reader() -> Patch:
    """Build the table reader: once, or looped."""
    patch = Patch(900, 450, "reader")
    patch.draw(
        """
        20 10 # velocity pitch table frames root attack release mode rate: reads the table once, or looped.
        20 50 in: inlet
        20 80 each: t a a a a
        in > each

        660 110 table( $3
        660 140 both: t f f
        660 170 name: makefilename $3-%d
        660 200 set( set $1
        800 170 mine: s $0-table
        each.3 > table > both > name > set
        both.1 > mine

        560 110 mode( $8
        560 140 around: == 2
        560 170 switch: t f f
        600 200 once: == 0
        each.2 > mode > around > switch
        switch.1 > once

        390 110 turn( list $2 $5 $9 $4
        240 140 speed: expr pow(2, ($f1 - $f2) / 12) * $f3 / $f4
        400 170 reset: t f b
        460 200 begin( 0
        400 230 phase: phasor~
        400 260 frames: *~
        400 290 loop: *~
        each.1 > turn > speed > reset > phase > frames > loop
        reset.1 > begin > phase.1
        switch > loop.1

        20 110 way( list $4 $2 $5 $9
        20 140 size: t a a
        20 170 time: expr 1000 * $f1 / $f4 / pow(2, ($f2 - $f3) / 12)
        20 200 count: unpack f
        20 230 span: pack f f
        20 260 run( 0, $1 $2
        20 290 line: vline~
        20 320 straight: *~
        20 350 index: +~
        20 380 sound: tabread4~
        20 410 out: outlet~
        each > way > size > count > span > run > line > straight > index > sound > out
        size.1 > time > span.1
        count > frames.1
        once > straight.1
        loop > index.1
        set > sound
        """
    )
    return patch


def _envelope() -> Patch:
    """Build the envelope: attack at the start, release at the end or at note-off, fade-out if the voice is needed."""
    patch = Patch(850, 440, "envelope")
    patch.draw(
        f"""
        20 10 # Attack at a note's start. Release at its end, or if the table or the voice is needed.
        20 50 falls: inlet
        20 80 fades: r $0-envelope
        20 360 line: vline~
        20 390 out: outlet~
        falls > line
        fades > line > out

        140 50 in: inlet
        140 80 each: t b a a
        140 290 on( 1
        140 320 sounds: value $0-sounding
        in > each > on > sounds

        240 110 touch( list $1 $6
        240 140 speed: unpack f f
        240 170 loud: expr pow($f1 / 127, 2)
        240 200 rise: pack f f
        240 230 up( 0, $1 $2
        each.1 > touch > speed > loud > rise > up > line
        speed.1 > rise.1

        420 110 length( list $4 $2 $5 $9 $8
        420 170 lasts: expr if($f5 == 2, 1e+09, 1000 * $f1 / $f4 / pow(2, ($f2 - $f3) / 12))
        420 220 life: delay
        420 250 ended: t b b
        420 280 silent( 0
        480 280 idle( 0
        480 310 is_idle: value $0-sounding
        each.2 > length > lasts > life > ended > silent > line
        ended.1 > idle > is_idle

        620 50 quiet: r $2-quiet
        620 80 mine: == 0
        700 50 table: r $0-table
        620 110 yes: sel 1
        620 140 fade( 0 {QUIET}
        quiet > mine > yes > fade > line
        table > mine.1
        """
    )
    return patch

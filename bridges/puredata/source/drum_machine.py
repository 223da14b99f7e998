"""Drum machine: eight prompts and a step sequencer. A replaced sound plays from the next hit on."""

from bridges.puredata.source.patch import Patch

STEPS = 16
TEMPO = 120
LEVEL, ROW_LEVEL = 0.5, 0.8

DRUMS: tuple[tuple[str, str, str], ...] = (
    ("kick", "a deep punchy kick drum @seconds 0.5", "x...x...x...x..."),
    ("snare", "a tight acoustic snare drum @seconds 0.4", "....x.......x..x"),
    ("hat", "a short closed hi-hat @seconds 0.2", "x.x.x.x.x.x.x.x."),
    ("open", "an open hi-hat @seconds 0.6", "......x.......x."),
    ("clap", "a wide hand clap @seconds 0.5", "............x..."),
    ("tom", "a low round tom @seconds 0.6", "..........x....."),
    ("rim", "a dry wooden rimshot @seconds 0.3", "...x.....x......"),
    ("bell", "a small bright bell @seconds 1", "x..............."),
)
"""Name, prompt and first pattern of each row."""

FACE_WIDTH, FACE_HEIGHT = 650, 28


def drum_machine() -> Patch:
    """Build the main patch."""
    patch = Patch(690, 770)
    patch.draw(
        """
        20 10 # Start the daemon with "timbred serve", turn the audio on, click make all, then run.
        20 50 audio( ; pd dsp 1
        20 88 # audio on
        """
    )
    patch.button("make", 140, 50, sends="$0-make")
    patch.toggle("run", 260, 50, sends="$0-run", receives="$0-shown-run")
    patch.number("tempo", 380, 50, sends="$0-tempo", receives="$0-shown-tempo")
    patch.slider("level", 480, 50, 128, 20, sends="$0-level", receives="$0-shown-level")
    patch.draw(
        """
        140 88 # make all
        260 88 # run
        380 88 # tempo
        480 88 # level
        """
    )
    for row, (name, prompt, _) in enumerate(DRUMS):
        y = 120 + 76 * row
        patch.draw(
            f"""
            20 {y} make{row}: r $0-make
            20 {y + 22} ask{row}( generate {prompt}
            20 {y + 46} row{row}: timbred-drum-row {name} $0
            make{row} > ask{row} > row{row}
            """
        )
    patch.draw("20 734 # Edit a prompt and click it to replace the sound from the next hit on.")
    patch.part("sequencer", 440, 120, _sequencer())
    patch.part("mix", 560, 120, _mix())
    patch.part("beginning", 440, 196, _beginning())
    patch.part("remote", 560, 196, _remote())
    return patch


def _sequencer() -> Patch:
    """Build the step counter."""
    patch = Patch(460, 420, "sequencer")
    patch.draw(
        f"""
        20 10 # {STEPS} steps, four per beat.
        20 50 run: r $0-run
        20 80 start: t f b
        20 230 metro: metro {15000 // TEMPO}
        20 260 count: f
        100 260 next: + 1
        100 290 around: mod {STEPS}
        20 320 step( step $1
        20 350 rows: s $0-rows
        120 110 first( 0
        220 80 tempo: r $0-tempo
        220 110 sane: clip 20 400
        220 140 time: expr 15000 / $f1
        run > start > metro > count > step > rows
        start.1 > first > count.1
        tempo > sane > time > metro.1
        count > next > around > count.1
        """
    )
    return patch


def _mix() -> Patch:
    """Build the mix of all rows, with optional recording to a file."""
    patch = Patch(520, 360, "mix")
    patch.draw(
        f"""
        20 10 # The sum of all rows, clipped at full scale.
        20 50 rows: catch~ $0-mix
        140 50 level: r $0-level
        140 80 ramp: pack f 20
        140 110 line: line~ {LEVEL}
        20 150 scaled: *~
        20 190 held: clip~ -1 1
        20 310 out: dac~
        rows > scaled > held > out
        held > out.1
        level > ramp > line > scaled.1

        260 50 record: r $0-record
        260 80 on: route bang
        260 150 stop( stop
        320 110 name: list append
        320 180 go( open -bytes 4 $1, start
        260 230 file: writesf~
        held > file
        record > on > stop > file
        on.1 > name > go > file
        """
    )
    return patch


def _beginning() -> Patch:
    """Build the initial pattern, tempo and level."""
    patch = Patch(600, 400, "beginning")
    patch.draw(
        f"""
        20 10 # Initial values.
        20 50 start: loadbang
        20 350 rows: s $0-rows
        300 80 tempo( {TEMPO}
        300 110 to_tempo: s $0-shown-tempo
        440 80 level( {LEVEL}
        440 110 to_level: s $0-shown-level
        start > tempo > to_tempo
        start > level > to_level
        """
    )
    for row, (name, _, pattern) in enumerate(DRUMS):
        steps = " ".join("1" if step == "x" else "0" for step in pattern)
        patch.draw(f"20 {85 + 30 * row} row{row}( {name} {steps}\nstart > row{row} > rows")
    return patch


def _remote() -> Patch:
    """Build the receiver of messages that other patches send to drum-machine."""
    patch = Patch(840, 230, "remote")
    patch.draw(
        """
        20 10 # Send to drum-machine: make, run 1, tempo 90, level 0.5, record FILE, record, kick STEPS, kick vary
        20 60 in: r drum-machine
        20 90 kind: route make run tempo level record
        20 150 make: s $0-make
        100 180 run: s $0-shown-run
        240 150 tempo: s $0-shown-tempo
        340 180 level: s $0-shown-level
        480 150 record: s $0-record
        560 180 rows: s $0-rows
        in > kind > make
        kind.1 > run
        kind.2 > tempo
        kind.3 > level
        kind.4 > record
        kind.5 > rows
        """
    )
    return patch


def row() -> Patch:
    """Build a row: sampler, steps, progress and level."""
    patch = Patch(1100, 420, face=(10, 10, FACE_WIDTH, FACE_HEIGHT))
    patch.button("ready", 16, 15, 18)
    for step in range(STEPS):
        patch.toggle(f"step{step}", 44 + 24 * step + 6 * (step // 4), 15, 18)
    patch.slider("progress", 460, 17, 90, 14)
    patch.slider("level", 562, 17, 90, 14)
    patch.draw(
        f"""
        20 50 in: inlet
        20 300 sampler: timbred-sampler $1
        20 340 loud: *~ {ROW_LEVEL}
        20 370 out: throw~ $2-mix
        in > sampler > loud > out
        400 340 start: loadbang
        400 370 begin( {ROW_LEVEL}
        start > begin > level
        sampler.1 > ready
        sampler.2 > progress
        level > loud.1

        200 280 hit( 60 127
        hit > sampler.1

        240 50 rows: r $2-rows
        240 80 kind: route step $1
        170 140 at: sel {" ".join(str(step) for step in range(STEPS))}
        200 220 on: sel 1
        200 250 bang: t b
        600 50 what: route generate vary
        600 110 pattern: unpack {" ".join(["f"] * STEPS)}
        20 80 new: list prepend generate
        20 110 other: list prepend vary
        20 140 asked: list trim
        rows > kind > at
        kind.1 > what > new > asked > sampler
        what.1 > other > asked
        what.2 > pattern
        on > bang > hit
        """
    )
    for step in range(STEPS):
        x = 170 + 56 * step
        patch.draw(f"{x} 170 f{step}: f\nat.{step} > f{step} > on\nstep{step} > f{step}.1\npattern.{step} > step{step}")
    return patch

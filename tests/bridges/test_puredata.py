"""Words in real Pd become samples in its own tables."""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from bridges.puredata.source.drum_machine import DRUMS, LEVEL, ROW_LEVEL, TEMPO
from bridges.puredata.source.timbred import SILENCE
from tests.bridges.puredata_program import FOLDER, NOTHING, RATE, SAMPLER, TWO_CLIENTS, Pd, pd_with
from tests.bridges.stand_in import stand_in
from tests.free_ports import free_port
from tests.hosts import TIMEOUT_S
from tests.integration.conftest import StartDaemon, settings_for
from tests.integration.daemons import DaemonProcess
from tests.player.player_stage import jack_server
from timbred.protocol.schema import REQUESTS

RequireHost = Callable[[str], str]

RUNNING = "^(event|other): running 1"
GONE = "^timbred: no timbred answers at 127.0.0.1 "
AUDIBLE, EXACT = 1e-5, 1e-4
"""Full scale is 1. Pd interpolates in tables; between frames that is far below what a 16-bit file could tell."""

BEAT = RATE * 60 // TEMPO
ID = r"(pd-\d+-\d+-[\d.e+]+)"


def sound(path: Path) -> NDArray[np.float32]:
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    return np.asarray(samples, np.float32)


def in_table(pd: Pd, *tables: str, folder: Path) -> NDArray[np.float32]:
    """Return the samples of a table, or those of several as channels."""
    path = folder / f"{tables[0]}.wav"
    pd.say(f"file write -wave -bytes 4 {path} {' '.join(tables)}")
    until_written(path, 1000)
    return sound(path)


def until_written(path: Path, size: int) -> None:
    """Wait until a file has grown to so many bytes."""
    deadline = time.monotonic() + TIMEOUT_S
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def test_puredata_loads_a_prompts_samples_into_a_table(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    with pd_with(require_host("pd"), tmp_path, SAMPLER, daemon.osc) as pd:
        pd.say("one generate warm pad @seconds 0.5 @steps 2 @seed 3")
        assert pd.spoken.until(r"^ready: ready (\S+) (\d+)").groups() == ("sound-1", "24000")
        path = Path(pd.spoken.until(rf"^event: take {ID} 0 (\S+) 0.5 {RATE} 1 3 ")[2])
        assert np.array_equal(in_table(pd, "sound-1", folder=tmp_path), sound(path))
        progress = [float(line.partition(": ")[2]) for line in pd.spoken.matching("^progress")]
        assert progress == sorted(progress)
        assert (progress[0], progress[-2:]) == (0, [0.5, 1])
        assert not pd.spoken.matching("error")


STEREO_TABLES = (
    TWO_CLIENTS
    + """#X obj 20 160 table left 16;
#X obj 120 160 table right 16;
#X obj 220 160 print file;
#X connect 3 0 16 0;
"""
)
"""Two tables, and the number of frames that `soundfiler` has read or written."""


def test_puredata_loads_a_stereo_sound_into_two_tables(
    stereo_daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    with pd_with(require_host("pd"), tmp_path, STEREO_TABLES, stereo_daemon.osc) as pd:
        pd.say(f"one generate warm pad @seconds 0.5 @steps 3 @seed 7 @rate {RATE}")
        path = Path(pd.spoken.until(rf"^take: list (\S+\.wav) {ID} 0 0.5 {RATE} 2 7 ")[1])
        made = sound(path)
        assert made.shape == (RATE // 2, 2)
        assert np.abs(made[:, 0] - made[:, 1]).max() > 0.01
        pd.say(f"file read -resize {path} left right")
        pd.spoken.until(f"^file: {RATE // 2}")
        assert np.array_equal(in_table(pd, "left", "right", folder=tmp_path), made)
        assert not pd.spoken.matching("error")


def test_puredata_never_overwrites_a_sounding_table(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    with pd_with(require_host("pd"), tmp_path, SAMPLER, daemon.osc) as pd:
        pd.say("one generate first @seconds 0.5 @steps 1 @seed 1")
        pd.spoken.until("^ready: ready sound-1 24000")
        pd.say("note 60 100")
        pd.say("one vary @seconds 0.25 @seed 2")
        pd.spoken.until("^ready: ready sound-2 12000")
        takes = sorted(daemon.takes.glob("first-*.wav"), key=lambda path: path.stat().st_mtime)[-2:]
        assert np.array_equal(in_table(pd, "sound-1", folder=tmp_path), sound(takes[0]))
        assert np.array_equal(in_table(pd, "sound-2", folder=tmp_path), sound(takes[1]))
        pd.say("one vary @seconds 0.2 @seed 3")
        pd.spoken.until("^ready: ready sound-2 9600")


def test_puredata_sends_every_request(daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path) -> None:
    said = {
        "generate": ("generate warm pad @seconds 0.2 @steps 1", rf"done {ID} 1 /"),
        "vary": ("vary last @seed 5", rf"take {ID} 0 \S+ 0.2 48000 1 5 "),
        "cancel": ("cancel", "done cancel"),
        "stop": ("stop", "(done|fail) stop"),
        "status": ("status", "status.reply 0 0 1 "),
        "models": ("models", "model hollow resident"),
        "load": ("load hollow", "loaded hollow"),
        "words": ("words pocket", "known pocket "),
        "loras": ("loras", "done loras"),
        "engines": ("engines", "engine 1 "),
        "unload": ("unload hollow", "unloaded hollow"),
        "takes": ("takes @limit 1", "take takes 0 "),
        "play": ("play 1 nothing", "fail play "),
        "set": ("set 1 @gain -3", "fail set "),
        "flow": ("flow 1 rain", "(fail flow|flowing) "),
        "tempo": ("tempo 120", "done tempo"),
        "settings": ("settings/tempo 120", "settings tempo 120"),
        "sync": ("sync 7", "synced 7"),
        "ping": ("ping", "pong"),
        "notify": ("notify 0", "done notify"),
        "hello": ("hello stage", "welcome udp:"),
    }
    assert said.keys() == {entry.name for entry in REQUESTS}
    with pd_with(require_host("pd"), tmp_path, TWO_CLIENTS, daemon.osc) as pd:
        pd.spoken.until("^event: running 1")
        for message, answer in said.values():
            pd.say(f"one {message}")
            pd.spoken.until(f"^event: {answer}")
        path, name = pd.spoken.until(rf"^take: list (\S+\.wav) {ID} 0 0.2 48000 1 \d+ 0 \S+$").groups()
        assert Path(path).is_file()
        assert pd.spoken.matching(f"^event: started {name} hollow")
        assert not pd.spoken.matching("^take: .* takes ")


def test_puredata_plays_on_the_daemons_voices(
    start_daemon: StartDaemon, require_host: RequireHost, tmp_path: Path
) -> None:
    with jack_server(require_host):
        daemon = start_daemon("player.device=")
        with pd_with(require_host("pd"), tmp_path, TWO_CLIENTS, daemon.osc) as pd:
            pd.say("one flow 1 wind in wires @seconds 0.5 @steps 1")
            pd.until_said("^event: flowing 1 ", 2)
            pd.say("one generate warm pad @seconds 0.3 @steps 1")
            take = pd.spoken.until(r"^take: list .* (\S+)$")[1]
            pd.say(f"one play 2 {take} @gain -6")
            pd.spoken.until(f"^event: playing 2 {take}")
            pd.spoken.until(f"^event: ended 2 {take}")
            pd.say("one flow 1 rain on a tent @seconds 0.5 @steps 1")
            pd.until_said("^event: flowing 1 ", len(pd.spoken.matching("^event: flowing 1 ")) + 2)
            pd.say("one stop")
            pd.spoken.until("^event: ended 1 ")
            assert not pd.spoken.matching("^timbred: ")
        daemon.stop()


def test_puredata_prints_errors_on_the_console(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    with pd_with(require_host("pd"), tmp_path, TWO_CLIENTS, daemon.osc) as pd:
        pd.say("one generate warm pad @seconds -1")
        pd.spoken.until(r"^timbred: seconds: got -1.0, allowed is a number from 0.05 to 600 \(bad-request\)$")
        pd.say("one generate fail @steps 1")
        pd.spoken.until(r"^timbred: told to fail \(model-error\)$")
        pd.say("one sing")
        pd.spoken.until(r"^timbred: there is no request 'sing'; .* \(bad-request\)$")


def test_puredata_never_reuses_ids(daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path) -> None:
    program, names = require_host("pd"), list[str]()
    for _ in range(2):
        with pd_with(program, tmp_path, TWO_CLIENTS, daemon.osc) as pd:
            for number in range(3):
                for which, event in (("one", "event"), ("two", "other")):
                    pd.say(f"{which} generate warm @steps 1 @seconds 0.1 @seed {number}")
                    pd.spoken.until(rf"^{event}: take {ID} 0 \S+ 0.1 48000 1 {number} ")
            names += [re.split(" ", line)[2] for line in pd.spoken.matching("^(event|other): queued")]
    assert len(set(names)) == 12


def test_puredata_reports_a_missing_daemon_and_continues_when_it_starts(
    start_daemon: StartDaemon, require_host: RequireHost, tmp_path: Path
) -> None:
    assert SILENCE < 2000, "it is said within two seconds"
    port = free_port()
    with pd_with(require_host("pd"), tmp_path, TWO_CLIENTS, port) as pd:
        pd.say("one generate early @seconds 0.1 @steps 1")
        pd.spoken.until(GONE + f"{port} - start it with: timbred serve")
        pd.spoken.until("^timbred: generate: not sent - start it with: timbred serve")
        pd.spoken.until("^event: fail generate timeout")
        assert not pd.spoken.matching(RUNNING)
        start_daemon(f"osc.port={port}")
        pd.spoken.until("^event: running 1")
        pd.say("one generate late @seconds 0.1 @steps 1")
        assert "late-" in pd.spoken.until(r"^take: list (\S+)")[1]
        assert len(pd.spoken.matching(GONE)) == 2, "said once by each object, not again and again"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_puredata_reports_a_daemon_that_ends_during_a_request(
    start_daemon: StartDaemon, hollow: Path, require_host: RequireHost, tmp_path: Path, number: signal.Signals
) -> None:
    program, port = require_host("pd"), free_port()
    (tmp_path / "first").mkdir()
    first = DaemonProcess(tmp_path / "first", *settings_for(hollow), f"osc.port={port}")
    family = first.family()
    try:
        with pd_with(program, tmp_path, TWO_CLIENTS, port) as pd:
            pd.say("one generate slow @steps 4")
            name = pd.spoken.until(f"^event: progress {ID} 0.25 ")[1]
            first.signal(number)
            first.ended()
            code = "shutting-down" if number is signal.SIGTERM else "timeout"
            pd.spoken.until(f"^event: fail {name} {code} ")
            pd.spoken.until("^event: running 0")
            start_daemon(f"osc.port={port}")
            pd.until_said("^event: running 1", 2)
            pd.say("one generate again @seconds 0.1 @steps 1")
            pd.spoken.until(r"^take: list \S+again-")
            assert len(pd.spoken.matching(f"^event: (fail|done|cancelled) {name}")) == 1
    finally:
        first.end_by_force(family)


def test_puredata_notices_a_daemon_that_restarted_between_two_requests(
    require_host: RequireHost, tmp_path: Path
) -> None:
    with stand_in() as daemon, pd_with(require_host("pd"), tmp_path, TWO_CLIENTS, daemon.port) as pd:
        pd.say("one generate warm pad")
        pd.spoken.until("^event: running 1")
        daemon.age = 1.0
        pd.spoken.until(rf"^event: fail {ID} timeout ")
        pd.until_said("^event: running 1", 2)
        assert not pd.spoken.matching("^event: running 0")


def heard_so_far(path: Path) -> NDArray[np.float32]:
    """What is recorded so far: the file has no length yet, so it is read beyond the longest header there is."""
    raw = path.read_bytes()[128:] if path.exists() else b""
    return np.frombuffer(raw[: len(raw) // 4 * 4], "<f4")


def until_hit(path: Path, hits: int, needle: NDArray[np.float32]) -> None:
    """Wait until a sound has been recorded so many times."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(where(needle, heard_so_far(path))) < hits:
        assert time.monotonic() < deadline, "it isn't heard"
        time.sleep(0.05)


def where(needle: NDArray[np.float32], hay: NDArray[np.float32]) -> list[int]:
    """The frames at which a sound begins and plays to its end as it is, but for its first frame: Pd plays it silent."""
    quiet = 1 + int(np.flatnonzero(np.abs(needle[1:]) > AUDIBLE)[0])
    begins = np.flatnonzero((np.abs(hay[1:]) > AUDIBLE) & (np.abs(hay[:-1]) <= AUDIBLE)) + 1 - quiet
    parts = ((int(begin), hay[begin:][: len(needle)]) for begin in begins if begin >= 0)
    return [begin for begin, part in parts if len(part) == len(needle) and np.abs(part - needle)[1:].max() < EXACT]


def as_hit(path: Path) -> NDArray[np.float32]:
    """A take as the drum machine plays it."""
    return sound(path) * np.float32(ROW_LEVEL * LEVEL)


def test_puredata_drum_machine_changes_a_sound_while_it_runs(
    start_daemon: StartDaemon, require_host: RequireHost, tmp_path: Path
) -> None:
    daemon, recorded = start_daemon(), tmp_path / "recorded.wav"
    with pd_with(require_host("pd"), tmp_path, NOTHING, daemon.osc, "-open", str(FOLDER / "drum-machine.pd")) as pd:
        pd.say(f"all 127.0.0.1 {daemon.osc}")
        pd.say("drum kick generate before @seconds 0.3 @steps 1 @seed 1")
        until_written(daemon.takes / "before-0001.wav", 1000)
        pd.say(f"drum record {recorded}")
        pd.say("drum run 1")
        before = as_hit(daemon.takes / "before-0001.wav")
        until_hit(recorded, 2, before)
        pd.say("drum kick generate after @seconds 0.3 @steps 1 @seed 2")
        until_written(daemon.takes / "after-0001.wav", 1000)
        after = as_hit(daemon.takes / "after-0001.wav")
        until_hit(recorded, 2, after)
        pd.say("drum run 0")
        pd.say("drum record")
        pd.quit()
    received = sound(recorded)
    hits = {"before": where(before, received), "after": where(after, received)}
    times = [*hits["before"], *hits["after"]]
    assert len(hits["before"]) >= 2
    assert len(hits["after"]) >= 2
    assert set(np.diff(times)) == {BEAT}, "one after the other, each in its place"
    for name, sample in (("before", before), ("after", after)):
        for time_of_hit in hits[name]:
            received[time_of_hit : time_of_hit + len(sample)] = 0
    assert np.abs(received[: times[-1] + BEAT]).max() < EXACT, "nothing but whole hits: no click, no rest of a sound"


def test_puredata_drum_machine_makes_its_eight_sounds(
    start_daemon: StartDaemon, require_host: RequireHost, tmp_path: Path
) -> None:
    daemon = start_daemon()
    with pd_with(require_host("pd"), tmp_path, NOTHING, daemon.osc, "-open", str(FOLDER / "drum-machine.pd")) as pd:
        pd.say(f"all 127.0.0.1 {daemon.osc}")
        pd.say("drum make")
        for _, prompt, _ in DRUMS:
            slug = prompt.partition(" @")[0].replace(" ", "-")
            until_written(daemon.takes / f"{slug}-0001.wav", 1000)
        assert not pd.spoken.matching("error")


def record(pd: Pd, path: Path, until: float) -> NDArray[np.float32]:
    """Wait until so many seconds have been recorded from now on; what they hold so far."""
    frames = len(heard_so_far(path)) + int(until * RATE)
    deadline = time.monotonic() + TIMEOUT_S
    while len(heard_so_far(path)) < frames:
        assert time.monotonic() < deadline, pd.spoken.lines
        time.sleep(0.01)
    return heard_so_far(path)


def loudest(part: NDArray[np.float32]) -> float:
    """The frequency that is loudest, Hz."""
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
    return float(np.argmax(spectrum)) * RATE / len(part)


def test_puredata_notes_play_at_their_pitch_and_a_loop_lasts_to_its_end(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    path = tmp_path / "recorded.wav"
    with pd_with(require_host("pd"), tmp_path, SAMPLER, daemon.osc) as pd:
        pd.say("one generate tone @seconds 0.25 @steps 1 @seed 1 @fade_in 0 @fade_out 0")
        pd.spoken.until("^ready: ready sound-1 12000")
        pd.say(f"record open -bytes 4 {path}")
        pd.say("record start")
        record(pd, path, 0.1)
        pd.say("note 72 127")
        once = record(pd, path, 1)
        pd.say("one loop")
        pd.say("one root 48")
        pd.say("note 60 127")
        around = record(pd, path, 1.5)[len(once) :]
        pd.say("note 60 0")
        ended = record(pd, path, 1)
    [sounding] = np.nonzero(np.abs(once) > AUDIBLE)
    assert abs(len(once[sounding[0] : sounding[-1]]) - 6000) < 200, "an octave higher, half as long"
    assert abs(loudest(once[sounding[0] : sounding[-1]]) - 880) < 10
    held = around[-RATE // 2 :]
    assert abs(loudest(held) - 880) < 5
    assert np.abs(held[: RATE // 10]).max() > 0.5
    assert np.abs(ended[-RATE // 10 :]).max() == 0, "a note's end is heard"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.pd")))
def test_puredata_opens_every_patch(require_host: RequireHost, tmp_path: Path, name: str) -> None:
    with pd_with(require_host("pd"), tmp_path, NOTHING, free_port(), "-open", str(FOLDER / name)) as pd:
        pd.say("quit")
        pd.program.process.wait(TIMEOUT_S)
        assert not [line for line in pd.spoken.lines if "error" in line or "create" in line], pd.spoken.lines

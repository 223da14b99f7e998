"""Words in real sclang become samples in real scsynth's own buffers, and are heard."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from bridges.supercollider.source.classes import NOT_FROM_HERE, arguments, keys
from tests.bridges.stand_in import stand_in
from tests.bridges.supercollider_program import QUARK, RequireHost, recording, sclang, sclang_with_server, until_said
from tests.free_ports import free_port
from tests.integration.conftest import StartDaemon, settings_for
from tests.integration.daemons import DaemonProcess
from tests.patience import TIMEOUT_S
from tests.player.player_stage import JackServer, jack_server
from timbred.protocol import messages as m
from timbred.protocol.coercion import fields_of
from timbred.protocol.schema import REQUEST_NAMED

FADE_IN = 0.03
"""Seconds after which the fade of sclang's own `play` is over."""


@pytest.fixture
def jack(require_host: RequireHost) -> Iterator[JackServer]:
    with jack_server(require_host) as server:
        yield server


def sound(path: str | Path) -> NDArray[np.float32]:
    samples, _ = soundfile.read(path, dtype="float32")
    return np.asarray(samples, np.float32)


ASK = """
Timbred.generate("rain on tin", seconds: 0.5, steps: 2, seed: 3, {keys} progress: {{ |fraction, eta|
    "{name} progress %".format(fraction).postln }}) {{ |buffer, take|
    "{name} take % % %".format(take.path, buffer.numFrames, buffer.bufnum).postln;
    buffer.write("{copy}", "wav", "float", completionMessage: {{
        fork {{ s.sync; "{name} written".postln }};
        nil
    }})
}};
"""


@pytest.mark.usefixtures("jack")
def test_supercollider_loads_a_prompts_samples_into_a_buffer(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    ways = {"client": "", "server": "scsynth: true, ", "number": "scsynth: true, buffer: 77, "}
    body = "".join(ASK.format(name=name, keys=keys, copy=tmp_path / f"{name}.wav") for name, keys in ways.items())
    with sclang_with_server(require_host, tmp_path, body, daemon.osc, free_port()) as program:
        for name in ways:
            path, frames, number = program.spoken.until(rf"^{name} take (\S+) (\d+) (\d+)").groups()
            program.spoken.until(f"^{name} written")
            assert frames == "24000"
            assert (number == "77") == (name == "number")
            assert np.array_equal(sound(tmp_path / f"{name}.wav"), sound(path))
            fractions = [float(line.split()[2]) for line in program.spoken.matching(f"^{name} progress ")]
            assert fractions[-2:] == [0.5, 1]
        assert not program.spoken.matching("ERROR|WARNING")


@pytest.mark.usefixtures("jack")
def test_supercollider_loads_a_stereo_sound_into_a_buffer(
    stereo_daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    body = """
    Timbred.generate("warm pad", seconds: 0.5, steps: 3, seed: 7) { |buffer, take|
        "take % % %".format(take.path, buffer.numChannels, buffer.numFrames).postln;
        buffer.write("COPY", "wav", "float", completionMessage: { fork { s.sync; "written".postln }; nil })
    };
    """.replace("COPY", str(tmp_path / "copy.wav"))
    with sclang_with_server(require_host, tmp_path, body, stereo_daemon.osc, free_port()) as program:
        path, channels, frames = program.spoken.until(r"^take (\S+) (\d+) (\d+)").groups()
        program.spoken.until("^written")
        made = sound(path)
        assert (int(frames), int(channels)) == made.shape
        assert channels == "2"
        assert np.abs(made[:, 0] - made[:, 1]).max() > 0.01
        assert np.array_equal(sound(tmp_path / "copy.wav"), made)
        assert not program.spoken.matching("ERROR|WARNING")


@pytest.mark.usefixtures("jack")
def test_supercollider_sound_is_audible(daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path) -> None:
    body = """
    Timbred.generate("rain on tin", seconds: 0.5, steps: 1, seed: 2) { |buffer, take|
        OSCFunc({ |message| var synth; synth = buffer.play; synth.onFree({ "over".postln }) }, "/play").oneShot;
        "take % %".format(take.path, NetAddr.langPort).postln
    };
    """
    with sclang_with_server(require_host, tmp_path, body, daemon.osc, free_port()) as program:
        path, port = program.spoken.until(r"^take (\S+) (\d+)").groups()
        with recording(require_host, tmp_path) as captured:
            subprocess.run([require_host("oscsend"), "127.0.0.1", port, "/play"], check=True, timeout=TIMEOUT_S)
            program.spoken.until("^over")
            received = captured.samples()[:, 0]
    needle = sound(path)[int(FADE_IN * 48000) :]
    at = int(np.argmax(np.correlate(received, needle[:4800], "valid")))
    assert np.abs(received[at : at + len(needle)] - needle).max() < 1e-4


@pytest.mark.usefixtures("jack")
def test_supercollider_plays_the_pbind_example(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    body = (QUARK / "examples" / "pbind.scd").read_text("utf-8")
    body = body[body.index("(\n") + 2 : body.rindex(")")]
    with sclang_with_server(require_host, tmp_path, body, daemon.osc, free_port()) as program:
        program.spoken.until("^timbred: 100%")
        program.spoken.until("^timbred: playing; stop it with ~rhythm.stop")
        with recording(require_host, tmp_path) as captured:
            captured.wait_for(2 * 48000)
            received = captured.samples()
        assert np.abs(received).max() > 0.02
        assert not program.spoken.matching("ERROR|WARNING|FAILURE")


@pytest.mark.usefixtures("jack")
def test_supercollider_reports_a_server_port_without_a_server(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    script = f"""
    Timbred.generate("rain", seconds: 0.2, steps: 1, scsynth: {free_port()}, buffer: 3,
        fail: {{ |code, message| "failed % %".format(code, Timbred.lastTake.path).postln }}) {{ "loaded".postln }};
    """
    with sclang(require_host, tmp_path, script, daemon.osc) as program:
        assert Path(program.spoken.until(r"^failed no-audio-device (\S+)")[1]).is_file()
        program.spoken.until(r"^ERROR: timbred: scsynth: no server answers at 127.0.0.1 port \d+; .*no-audio-device")


VOICES = """
fork {
    var take, told = { |name| { |event ... said| "% % %".format(name, event, said[0]).postln } };
    Timbred.flow(1, "wind in wires", told.(\\flow), seconds: 0.5, steps: 1);
    take = Timbred.generate("warm", seconds: 0.3, steps: 1).wait[0];
    Timbred.play(2, take, told.(\\play), gain: -6);
    OSCFunc({ Timbred.flow(1, "rain on a tent", seconds: 0.5, steps: 1) }, "/course");
    OSCFunc({ Timbred.stop(1) }, "/stop");
    "here % %".format(NetAddr.langPort, take.takeId).postln
};
"""


@pytest.mark.usefixtures("jack")
def test_supercollider_plays_on_the_daemons_voices(
    start_daemon: StartDaemon, require_host: RequireHost, tmp_path: Path
) -> None:
    daemon = start_daemon("player.device=")
    with sclang(require_host, tmp_path, VOICES, daemon.osc) as program:
        port, take = program.spoken.until(r"^here (\d+) (\S+)").groups()
        program.spoken.until(f"^play playing {take}")
        program.spoken.until(f"^play ended {take}")
        for address in ("/course", "/stop"):
            until_said(program, "^flow flowing", len(program.spoken.matching("^flow flowing")) + 2)
            subprocess.run([require_host("oscsend"), "127.0.0.1", port, address], check=True, timeout=TIMEOUT_S)
        program.spoken.until("^flow ended")
        assert not program.spoken.matching("ERROR|WARNING")


EVERYTHING = """
fork {
    var request, say = { |name ... said| "% %".format(name, said.join(" ")).postln };
    request = Timbred.generate("two words", seconds: 0.2, steps: 1, takes: 2, negative: "noise", seed: 4, peak: -3);
    say.(\\takes, *request.wait.collect(_.seed));
    request = Timbred.vary(nil, seconds: 0.1);
    say.(\\varied, request.wait[0].seconds.round(0.001));
    request = Timbred.vary(request.takes[0], prompt: "other words", seed: 9);
    say.(\\changed, request.wait[0].seed, request.takes[0].path.contains("other-words"));
    request = Timbred.generate("slow", steps: 3, progress: { |fraction| if(fraction > 0) { request.cancel } });
    request.wait;
    say.(\\state, request.state);
    Timbred.generate("warm", seconds: -1, fail: { |code, message| say.(\\refused, code, message) }).wait;
    Timbred.models({ |name, state| if(name == \\hollow) { say.(\\model, state) } });
    Timbred.words(\\pocket, { |model, group, kinds, words| if(kinds == 1) { say.(\\known, model, words) } });
    Timbred.takes({ |take| say.(\\found, take.seed) }, search: "other words", limit: 1);
    Timbred.setting("tempo", nil, { |value| say.(\\setting, value) });
    Timbred.tempo(120, { say.(\\tempo) });
    Timbred.status({ |queued, running| say.(\\status, queued, running) });
    Timbred.load("hollow", { |name| say.(\\loaded, name) });
    Timbred.play(1, request);
    Timbred.flow(2, "wind in wires");
    Timbred.stopAll;
    say.(\\within, Timbred.silence + Timbred.askEvery);
    say.(\\arguments, *Timbred.class.findMethod(\\generate).argNames.as(Array).drop(1));
    say.(\\codes, TimbredVocabulary.codes.includes('no-audio-device'), TimbredVocabulary.ranges[\\seconds]);
    say.(\\end);
};
"""


def test_supercollider_sends_every_request_and_key(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    script = EVERYTHING.replace("play(1, request)", 'play(1, "nothing")')
    with sclang(require_host, tmp_path, script, daemon.osc) as program:
        program.spoken.until("^end")
        for line in (
            "^takes 4 5",
            "^varied 0.1",
            "^changed 9 true",
            "^state cancelled",
            "^refused bad-request seconds: got -1, allowed is a number from 0.05 to 600",
            "^ERROR: timbred: seconds: got -1, .* .bad-request.",
            "^model resident",
            "^known pocket .*kick, ",
            "^found 9",
            "^setting [0-9.]+",
            "^tempo",
            "^status 0 0",
            "^loaded hollow",
            "^ERROR: timbred: take: no take has the id 'nothing'",
            "^ERROR: timbred: .*.no-audio-device.",
            "^codes true a number from 0.05 to 600",
            r"^within 1\.[0-9]+",
        ):
            program.spoken.until(line)
        names = program.spoken.until("^arguments (.*)")[1].split()
    assert names == arguments(REQUEST_NAMED["generate"])
    assert {*names} | {*NOT_FROM_HERE} >= {*fields_of(m.Generate)}


WATCH = """
Timbred.default.addDependant({ |timbred, what, now| if(what == \\running) { "running %".format(now).postln } });
OSCFunc({
    Timbred.generate("again", seconds: 0.1, steps: 1, fail: { |code| "failed %".format(code).postln }) { };
    Timbred.default.addDependant({ |timbred, what, id, index, path|
        if(what == \\take) { "take %".format(path).postln } })
}, "/go");
"here %".format(NetAddr.langPort).postln;
"""


def test_supercollider_reports_a_missing_daemon_and_continues_when_it_starts(
    start_daemon: StartDaemon, require_host: RequireHost, tmp_path: Path
) -> None:
    port = free_port()
    with sclang(require_host, tmp_path, WATCH, port) as program:
        program.spoken.until(
            rf"^WARNING: timbred: no timbred answers at 127.0.0.1 port {port}; start it with: timbred serve"
        )
        go = [require_host("oscsend"), "127.0.0.1", program.spoken.until(r"^here (\d+)")[1], "/go"]
        program.spoken.until("^running false")
        subprocess.run(go, check=True, timeout=TIMEOUT_S)
        program.spoken.until("^WARNING: timbred: generate isn't sent: no timbred answers at ")
        program.spoken.until("^failed timeout")
        start_daemon(f"osc.port={port}")
        program.spoken.until("^running true")
        subprocess.run(go, check=True, timeout=TIMEOUT_S)
        assert "again-" in program.spoken.until(r"^take (\S+)")[1]
        assert len(program.spoken.matching("^WARNING: timbred: no timbred answers")) == 1


def test_supercollider_notices_a_daemon_that_restarted_between_two_requests(
    require_host: RequireHost, tmp_path: Path
) -> None:
    ask = 'Timbred.generate("warm", fail: { |code| "lost %".format(code).postln });'
    with stand_in() as daemon, sclang(require_host, tmp_path, WATCH + ask, daemon.port) as program:
        program.spoken.until("^running true")
        daemon.age = 1.0
        program.spoken.until("^lost timeout")
        until_said(program, "^running true", 2)
        assert not program.spoken.matching("^running false")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_supercollider_reports_a_daemon_that_ends_during_a_request(
    start_daemon: StartDaemon, hollow: Path, require_host: RequireHost, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "first").mkdir()
    port = free_port()
    first = DaemonProcess(tmp_path / "first", *settings_for(hollow), f"osc.port={port}")
    family = first.family()
    slow = """
    Timbred.generate("slow", steps: 4, progress: { |fraction| "progress %".format(fraction).postln },
        fail: { |code| "lost %".format(code).postln });
    """
    try:
        with sclang(require_host, tmp_path, WATCH + slow, port) as program:
            program.spoken.until("^progress 0.25")
            first.signal(number)
            first.ended()
            program.spoken.until("^lost " + ("shutting-down" if number is signal.SIGTERM else "timeout"))
            program.spoken.until("^running false")
            start_daemon(f"osc.port={port}")
            here = program.spoken.until(r"^here (\d+)")[1]
            until_said(program, "^running true", 2)
            subprocess.run([require_host("oscsend"), "127.0.0.1", here, "/go"], check=True, timeout=TIMEOUT_S)
            program.spoken.until(r"^take \S+again-")
            assert len(program.spoken.matching("^lost ")) == 1
    finally:
        first.end_by_force(family)


def test_supercollider_source_makes_the_files(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "bridges.supercollider.source", str(tmp_path)],
        cwd=QUARK.parents[1],
        check=True,
        timeout=TIMEOUT_S,
    )
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) == 4
    for path in made:
        there = QUARK / path.relative_to(tmp_path)
        assert there.read_text("utf-8") == path.read_text("utf-8"), "run python -m bridges.supercollider.source"


HELP = """
SCDoc.helpTargetDir = "TARGET";
SCDoc.indexAllDocuments(true);
["Classes/Timbred", "Classes/TimbredRequest", "Classes/TimbredTake", "Reference/TimbredKeys"].do { |name|
    SCDoc.prepareHelpForURL(URI.fromLocalPath("TARGET/" ++ name ++ ".html"))
};
"rendered".postln;
"""


def test_supercollider_help_pages_are_complete(require_host: RequireHost, tmp_path: Path) -> None:
    target = tmp_path / "help"
    with sclang(require_host, tmp_path, HELP.replace("TARGET", str(target)), free_port()) as program:
        program.spoken.until("^rendered")
        assert not program.spoken.matching("WARNING: SCDoc|ERROR")
    for name in ("Classes/Timbred", "Classes/TimbredRequest", "Classes/TimbredTake", "Reference/TimbredKeys"):
        assert (target / f"{name}.html").stat().st_size > 1000


def test_supercollider_help_covers_every_class_and_method() -> None:
    pages = {path.stem: path.read_text("utf-8") for path in (QUARK / "HelpSource").rglob("*.schelp")}
    for name in ("Timbred", "TimbredRequest", "TimbredTake"):
        source = (QUARK / "Classes" / f"{name}.sc").read_text("utf-8")
        readable = re.findall(r"[<>]+([a-z]\w*)", " ".join(re.findall(r"^\t(?:class)?var (.*);", source, re.MULTILINE)))
        for member in readable:
            assert re.search(rf"METHOD:: .*\b{member}\b", pages[name]), f"{name}.{member}"
    for key in keys(REQUEST_NAMED["generate"]):
        assert f"## {key.name} ||" in pages["TimbredKeys"]

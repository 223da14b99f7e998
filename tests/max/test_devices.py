"""The devices, played over real UDP with the real daemon: what a performer does, and what Max and Live are told."""

import contextlib
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

from max_patches import abstraction, clip, drum, instrument, parts, voice
from max_patches.patcher import Patch
from tests.forked_programs import torch_program
from tests.free_ports import free_port
from tests.integration.conftest import StartDaemon, settings_for
from tests.integration.daemons import DaemonProcess
from tests.max.stages import MaxStage, Seen, live, playing
from timbred.audiofile.files import decode, read_recipe

RequireHost = Callable[[str], str]
Play = Callable[..., contextlib.AbstractContextManager[MaxStage]]


@pytest.fixture
def play(require_host: RequireHost, tmp_path: Path) -> Play:
    """Stage for a device, a context manager: `play(instrument.build(), daemon.osc)`."""
    node = require_host("node")

    def start(patch: Patch, port: int, **more: Any) -> contextlib.AbstractContextManager[MaxStage]:
        return playing(node, tmp_path, patch, port, **more)

    return start


@contextlib.contextmanager
def connected(play: Play, patch: Patch, daemon: DaemonProcess, **more: Any) -> Generator[MaxStage]:
    """A device in Live that has found the daemon."""
    with play(patch, daemon.osc, set_of_live=more.pop("set_of_live", live()), **more) as stage:
        stage.status("connected to timbred")
        yield stage


def generate(stage: MaxStage, words: str) -> None:
    stage.type(words)
    stage.click("Generate")


def filled(stage: MaxStage) -> tuple[str, str]:
    """The next file that is read, and the buffer that reads it."""
    found = stage.until(lambda seen: seen.get("name") == "buffer~", "a buffer~ told to read")
    word, path = found["message"]
    assert word == "replace"
    box = next(box for box in stage.patch.boxes if box.id == found["box"])
    return path, box.text.split()[1].replace("---", "042")


def recipe(path: str) -> dict[str, Any]:
    """What timbred was asked for, as the file says."""
    found = read_recipe(Path(path))
    return {**found["parameters"], "seed": found["seed"], "prompt": found["prompt"]}


def in_use(stage: MaxStage, index: int = 0) -> tuple[float, str]:
    """The next length in milliseconds and buffer that the voices are told."""
    poly = stage.box("poly~", index=index)
    length = stage.received(poly, "inlet 1", "length")[2]
    return length, stage.received(poly, "inlet 1", "buffer")[2]


def test_devices_make_words_a_sampler(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, instrument.build(), daemon) as stage:
        stage.turn("Seconds", 0.5)
        stage.turn("Takes", 3)
        stage.turn("Steps", 4)
        stage.turn("Scheduler", 2)
        generate(stage, "warm analog pad")
        stage.status("started")
        assert stage.received(stage.box("multislider"), 0.5) == [0.5]
        stage.status("50 %")
        first, buffer = filled(stage)
        assert Path(first).is_file()
        assert Path(first).parent == daemon.takes
        asked = recipe(first)
        assert {key: asked[key] for key in ("prompt", "seconds", "steps", "scheduler", "channels", "rate")} == {
            "prompt": "warm analog pad", "seconds": 0.5, "steps": 4,
            "scheduler": "dpm++2m", "channels": 2, "rate": 44100,
        }  # fmt: skip
        assert in_use(stage) == (500, buffer)
        assert stage.received(stage.box("waveform~"), "set") == ["set", buffer]
        stage.status("3 takes")
        files = [seen["message"][1] for seen in stage.seen if seen.get("name") == "buffer~"]
        assert len(set(files)) == 3
        stage.turn("Take", 2)
        assert in_use(stage)[1] != buffer, "another take sounds at once: its file was read before"
        assert len([seen for seen in stage.seen if seen.get("name") == "buffer~"]) == 3


def test_devices_leave_buffers_that_may_sound_during_a_new_request(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, instrument.build(), daemon) as stage:
        stage.turn("Takes", parts.TAKES)
        stage.turn("Seconds", 0.1)
        stage.turn("Steps", 1)
        generate(stage, "one")
        stage.status("8 takes")
        generate(stage, "two")
        stage.status("8 takes")
        received = [seen["box"] for seen in stage.seen if seen.get("name") == "buffer~"]
        assert len(received) == len(set(received)) == parts.BUFFERS


def test_devices_lock_one_seed_and_draw_another(play: Play, daemon: DaemonProcess) -> None:
    def seed(stage: MaxStage) -> int:
        return int(stage.received(stage.box("number"), "set")[1])

    with connected(play, instrument.build(), daemon) as stage:
        stage.turn("Seconds", 0.1)
        assert seed(stage) == 0
        generate(stage, "bell")
        one = seed(stage)
        filled(stage)
        stage.status("1 take")
        stage.click("Lock seed")
        stage.click("Generate")
        path = Path(filled(stage)[0])
        assert seed(stage) == one
        stage.status("1 take")
        stage.click("Lock seed")
        stage.click("Generate")
        assert seed(stage) != one
        stage.status("1 take")
        assert path.name == "bell-0002.wav", "the file names go on counting"


def test_devices_make_variations_from_the_take(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, instrument.build(), daemon) as stage:
        stage.click("More like this")
        stage.status("press Generate first")
        stage.turn("Seconds", 0.3)
        generate(stage, "glass bell")
        one = filled(stage)[0]
        stage.status("1 take")
        stage.turn("Distance", 0.25)
        stage.click("More like this")
        other = filled(stage)[0]
        assert Path(other).name.startswith("glass-bell")
        stage.status("1 take")
        old, new = recipe(one), recipe(other)
        assert "init" not in old
        assert new["init"]
        assert new["strength"] == 0.25
        assert new["seed"] != old["seed"], "another sound"
        stage.click("Lock seed")
        stage.click("More like this")
        again = recipe(filled(stage)[0])
        assert (again["seed"], again["init"] != new["init"]) == (new["seed"], True)
        history = stage.received(stage.box("umenu"), "append")
        assert history[1].startswith("glass bell, ")


def test_devices_vary_a_loop_without_init_audio(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, instrument.build(), daemon) as stage:
        stage.click("Make a loop")
        stage.turn("Seconds", 0.3)
        generate(stage, "shaker")
        stage.status("1 take")
        stage.click("More like this")
        stage.status("1 take")


def test_devices_cancel_and_start_the_next_request(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, instrument.build(), daemon) as stage:
        stage.turn("Seconds", 0.1)
        generate(stage, "slow pad")
        stage.status("%")
        stage.click("Cancel")
        stage.status("cancelled")
        generate(stage, "quick pad")
        stage.status("1 take")


def test_devices_replace_a_running_request(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, instrument.build(), daemon) as stage:
        stage.turn("Seconds", 0.1)
        generate(stage, "slow pad")
        stage.status("%")
        generate(stage, "quick pad")
        assert Path(filled(stage)[0]).name.startswith("quick-pad")
        stage.status("1 take")


def test_devices_show_the_message_of_a_refused_value(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, instrument.build(), daemon) as stage:
        stage.type("@guidance 99", index=1)
        generate(stage, "pad")
        said = stage.status("bad-request")
        assert "guidance: got '99', allowed is a number from 0 to 50" in said
        assert stage.console("guidance: got").startswith("timbred: bad-request")
        stage.type("", index=1)
        generate(stage, "pad")
        stage.status("1 take")
        stage.type("@seconds 0.1 @steps 1", index=1)
        generate(stage, "pad")
        assert in_use(stage)[0] == 2000
        assert in_use(stage)[0] == pytest.approx(100, abs=1), "the line of keys goes over the knobs"
        stage.status("1 take")


def test_devices_ask_for_words(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, instrument.build(), daemon) as stage:
        stage.click("Generate")
        stage.status("enter a prompt")


def test_devices_restore_the_live_set_without_timbred(play: Play, daemon: DaemonProcess) -> None:
    patch = instrument.build()
    with connected(play, patch, daemon) as stage:
        stage.turn("Takes", 2)
        stage.turn("Seconds", 0.2)
        stage.turn("Attack", 250)
        generate(stage, 'pad, "wide"; 100 % ü')
        stage.status("2 takes")
        stage.turn("Take", 1)
        length, _ = in_use(stage)
        stored = stage.stored()
        made = [seen["message"][1] for seen in stage.seen if seen.get("name") == "buffer~"]
    with play(patch, free_port(), set_of_live=live(), stored=stored) as again:
        assert [filled(again)[0] for _ in made] == [made[1], made[0]], "the one that sounds comes first"
        assert again.received(again.box("poly~"), "inlet 1", "attack") == ["inlet 1", "attack", 250]
        assert again.received(again.box("textedit"), "set") == ["set", 'pad, "wide"; 100 % ü']
        assert again.received(again.box("live.tab"), "set") == ["set", 1]
        assert in_use(again)[0] == length
        history = [
            seen["message"] for seen in again.seen if seen.get("name") == "umenu" and seen["message"][0] == "append"
        ]
        assert len([message for message in history if "wide" in message[1]]) >= 2


def test_devices_restore_an_earlier_sound(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, instrument.build(), daemon) as stage:
        stage.turn("Seconds", 0.1)
        for words in ("one", "two"):
            generate(stage, words)
            stage.status("1 take")
        stage.order("choose", menu(stage, "earlier"), 1)
        stage.received(stage.box("textedit"), "set", "one")
        in_use(stage)


def menu(stage: MaxStage, hint: str) -> Any:
    return next(box for box in stage.patch.boxes if box.maxclass == "umenu" and hint in box.attributes["hint"])


def test_devices_add_known_words_to_the_prompt(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, instrument.build(), daemon) as stage:
        models, words = menu(stage, "model that renders"), menu(stage, "words that the model knows")
        stage.received(models, "append", "pocket")
        stage.order("choose", models, 1)  # the entry after the default
        assert stage.received(words, "append") == ["append", "add a word"]
        word = stage.received(words, "append")[1]
        stage.type("soft")
        stage.order("choose", words, 1)
        stage.received(stage.box("textedit"), "set", f"soft {word}")
        assert stage.received(words, "set") == ["set", 0]


def test_devices_report_a_missing_file(play: Play, daemon: DaemonProcess) -> None:
    patch = instrument.build()
    with connected(play, patch, daemon) as stage:
        stage.turn("Seconds", 0.1)
        generate(stage, "short life")
        path = Path(filled(stage)[0])
        stage.status("1 take")
        stored = stage.stored()
    path.unlink()
    with play(patch, daemon.osc, set_of_live=live(), stored=stored) as again:
        again.console(f"{path.name} is missing on the disk")


def test_devices_report_a_missing_daemon_and_find_it_later(play: Play, start_daemon: StartDaemon) -> None:
    port = free_port()
    with play(instrument.build(), port, set_of_live=live()) as stage:
        said = stage.status("doesn't answer")
        assert f"127.0.0.1:{port}" in said
        assert "timbred serve" in said
        stage.console("doesn't answer")
        generate(stage, "pad")
        stage.status("timeout: timbred doesn't answer")
        start_daemon(f"osc.port={port}")
        stage.status("connected to timbred")
        stage.turn("Seconds", 0.1)
        generate(stage, "pad")
        stage.status("1 take")


def test_devices_notice_a_stopped_daemon_and_its_restart(play: Play, start_daemon: StartDaemon) -> None:
    port = free_port()
    daemon = start_daemon(f"osc.port={port}")
    with connected(play, instrument.build(), daemon) as stage:
        generate(stage, "slow pad")
        stage.status("%")
        daemon.signal()
        stage.status("shutting-down: ")
        stage.console("shutting-down: ")
        stage.status("doesn't answer")
        daemon.ended()
        start_daemon(f"osc.port={port}")
        stage.status("connected to timbred")
        stage.turn("Seconds", 0.1)
        generate(stage, "pad")
        stage.status("1 take")


def test_devices_notice_a_killed_daemon(play: Play, start_daemon: StartDaemon, hollow: Path, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "mortal").mkdir()
    daemon = DaemonProcess(tmp_path / "mortal", *settings_for(hollow), f"osc.port={port}")
    family = daemon.family()
    try:
        with connected(play, instrument.build(), daemon) as stage:
            generate(stage, "slow pad")
            stage.status("%")
            family = daemon.family()
            daemon.end_by_force(family)
            stage.status("timeout: timbred exited")
            start_daemon(f"osc.port={port}")
            stage.status("connected to timbred")
            stage.turn("Seconds", 0.1)
            generate(stage, "pad")
            stage.status("1 take")
    finally:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_devices_restart_after_node_ends(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, instrument.build(), daemon) as stage:
        stage.order("kill", stage.box("node.script"))
        stage.status("Node for Max isn't running")
        stage.status("connected to timbred")
        stage.turn("Seconds", 0.1)
        generate(stage, "pad")
        stage.status("1 take")


def test_devices_find_another_port_and_remember_it(play: Play, daemon: DaemonProcess) -> None:
    patch = instrument.build()
    with play(patch, free_port(), set_of_live=live()) as stage:
        stage.status("doesn't answer")
        stage.port(daemon.osc)
        stage.status("connected to timbred")
        stored = stage.stored()
    with play(patch, free_port(), set_of_live=live(), stored=stored) as again:
        again.status("connected to timbred")


def test_devices_beside_each_other_work(
    play: Play, daemon: DaemonProcess, tmp_path: Path, require_host: RequireHost
) -> None:
    node = require_host("node")
    with contextlib.ExitStack() as stack:
        stages: list[MaxStage] = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            stages.append(
                stack.enter_context(playing(node, folder, instrument.build(), daemon.osc, set_of_live=live()))
            )
        for number, stage in enumerate(stages):
            stage.status("connected to timbred")
            stage.turn("Seconds", 0.1)
            generate(stage, f"sound {number}")
        for number, stage in enumerate(stages):
            assert Path(filled(stage)[0]).name.startswith(f"sound-{number}")
            stage.status("1 take")


def test_devices_make_a_clip_in_the_sets_metre_and_key(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, clip.build(), daemon) as stage:
        line = stage.box("live.comment", "tempo, meter")
        assert [seen for seen in stage.seen if seen.get("box") == line.id][-1]["message"] == [
            "set",
            "124 bpm  ·  6/8  ·  A minor",
        ]
        stage.turn("Bars", 1)
        stage.click("Tempo to the words")
        stage.click("Key to the words")
        generate(stage, "organ")
        path, _ = filled(stage)
        assert Path(path).name.startswith("organ-in-a-minor-124-bpm")
        asked = recipe(path)
        assert (asked["bars"], asked["bpm"], asked["beats_per_bar"]) == (1, 124, 3)
        assert in_use(stage)[0] == pytest.approx(3 * 60_000 / 124, abs=1), "a bar of 6/8 has three quarter notes"
        stage.status("1 take")
        stage.order("live", value=["tempo", 60.5])
        stage.received(line, "set", "60.5 bpm  ·  6/8  ·  A minor")
        stage.click("Generate")
        assert in_use(stage)[0] == pytest.approx(3 * 60_000 / 60.5, abs=1)


def test_devices_place_a_take_in_the_next_free_slot(play: Play, daemon: DaemonProcess) -> None:
    tracks = [{"name": "Other"}, {"name": "Sounds", "full": [0], "slots": 2}]
    set_of_live = live(tracks=tracks, device=1, racks=2)
    with connected(play, clip.build(), daemon, set_of_live=set_of_live) as stage:
        stage.click("Make clip")
        stage.status("there is no take to write yet")
        stage.turn("Bars", 0.25)
        stage.click("Make a loop")
        generate(stage, "shaker")
        stage.status("1 take")
        stage.click("Make clip")
        call = stage.called("create_audio_clip")
        assert call["live"] == "ClipSlot"
        assert Path(call["arguments"][0]).is_file()
        assert [stage.clip_set() for _ in range(3)] == [("name", "shaker"), ("warping", 1), ("looping", 1)]
        stage.status("in slot 2 of Sounds")
        stage.click("Make clip")
        assert stage.called("create_scene")["arguments"] == [-1]
        stage.status("in slot 3 of Sounds")


def test_devices_place_each_take_automatically(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, clip.build(), daemon, set_of_live=live(tracks=[{"name": "Sounds", "slots": 8}])) as stage:
        stage.turn("Bars", 0.25)
        stage.turn("Takes", 3)
        stage.click("Each take")
        generate(stage, "hit")
        paths = [stage.called("create_audio_clip")["arguments"][0] for _ in range(3)]
        assert len(set(paths)) == 3
        assert all(Path(path).is_file() for path in paths)
        stage.status("3 takes")


def test_devices_place_a_take_where_requested(play: Play, daemon: DaemonProcess) -> None:
    tracks = [{"name": "Here", "slots": 4}, {"name": "There", "slots": 4, "full": [1]}, {"name": "Keys", "audio": 0}]
    set_of_live = live(tracks=tracks, selected={"track": 1, "slot": 1}, song={"current_song_time": 16.5})
    with connected(play, clip.build(), daemon, set_of_live=set_of_live) as stage:
        stage.turn("Bars", 0.25)
        generate(stage, "hit")
        stage.status("1 take")
        stage.turn("Target", 1)
        stage.click("Make clip")
        assert stage.called("create_audio_clip")["live"] == "ClipSlot"
        stage.status("in slot 3 of There")
        stage.turn("Target", 2)
        stage.click("Make clip")
        call = stage.called("create_audio_clip")
        assert (call["live"], call["arguments"][1]) == ("Track", 16.5)
        stage.status("in the arrangement of Here, beat 16.5")


def test_devices_name_a_track_without_audio(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, clip.build(), daemon, set_of_live=live(tracks=[{"name": "Keys", "audio": 0}])) as stage:
        stage.turn("Bars", 0.25)
        generate(stage, "hit")
        stage.status("1 take")
        stage.click("Make clip")
        stage.status("Keys isn't an audio track")
        assert not [seen for seen in stage.seen if seen.get("call") == "create_audio_clip"]


@pytest.mark.parametrize(
    ("version", "can"), [((11, 3, 25), False), ((12, 0, 4), False), ((12, 0, 5), True), ((13, 0, 0), True)]
)
def test_devices_explain_the_manual_way_in_older_live(
    play: Play, daemon: DaemonProcess, version: tuple[int, int, int], can: bool
) -> None:
    with connected(play, clip.build(), daemon, set_of_live=live(version=version)) as stage:
        stage.turn("Bars", 0.25)
        generate(stage, "hit")
        path = Path(filled(stage)[0])
        stage.status("1 take")
        stage.click("Make clip")
        if can:
            stage.status("in slot 1")
            return
        stage.status(f"Live {'.'.join(map(str, version))} can't create clips from a device")
        stage.click("Folder")
        opened = stage.received(stage.box("message", "launchbrowser"))
        assert opened == ["max", "launchbrowser", f"file://{daemon.takes}"]
        stage.status(f"drag {path.name}")
        assert not [seen for seen in stage.seen if seen.get("call") == "create_audio_clip"]


def test_devices_work_in_a_live_without_a_scale(play: Play, daemon: DaemonProcess) -> None:
    set_of_live = live(version=(11, 0, 0))
    for property_of_twelve in ("root_note", "scale_name", "scale_mode"):
        del set_of_live["song"][property_of_twelve]
    with connected(play, clip.build(), daemon, set_of_live=set_of_live) as stage:
        stage.turn("Bars", 0.25)
        stage.click("Key to the words")
        generate(stage, "organ")
        assert Path(filled(stage)[0]).name == "organ-0001.wav"
        stage.status("1 take")


def test_devices_start_from_a_dropped_sound(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, clip.build(), daemon) as stage:
        stage.turn("Bars", 0.25)
        generate(stage, "first")
        first = filled(stage)[0]
        stage.status("1 take")
        stage.order("drop", stage.box("live.drop"), first)
        shown = stage.box("live.comment", "no init audio")
        stage.received(shown, "set", f"init: {Path(first).name}")
        stage.click("Generate")
        stage.status("1 take")
        stage.order("drop", stage.box("live.drop"), "/etc/hostname")
        stage.click("Generate")
        stage.status("forbidden-path: ")
        stage.click("Clear")
        assert stage.received(stage.box("live.drop"), "clear") == ["clear"]
        stage.received(shown, "set", "no init audio")
        stage.click("Generate")
        stage.status("1 take")


def test_devices_have_eight_pads(play: Play, daemon: DaemonProcess) -> None:
    with connected(play, drum.build(), daemon) as stage:
        stage.turn("Seconds", 0.1)
        fields = [box for box in stage.patch.boxes if box.maxclass == "textedit"]
        for pad in range(drum.PADS):
            stage.order("return", fields[pad], f"hit {pad + 1}")
        stage.click("New: all pads")
        polys = [box for box in stage.patch.boxes if box.name == "poly~"]
        wanted, files = {box.id for box in polys}, list[str]()

        def all_used(seen: Seen) -> bool:
            if seen.get("name") == "buffer~":
                files.append(Path(seen["message"][1]).name)
            if seen.get("name") == "poly~" and seen["message"][1] == "buffer":
                wanted.remove(seen["box"])
            return not wanted

        stage.until(all_used, "a buffer for each pad")
        assert sorted(re.sub(r"-\d{4}\.wav$", "", name) for name in files) == [
            f"hit-{pad + 1}" for pad in range(drum.PADS)
        ]
        stage.order("midi", stage.box("midiin"), [144, 38, 90])
        assert stage.received(polys[2], "midinote") == ["midinote", 60, 90]
        stage.click("Hear G1")
        assert stage.received(polys[7], "midinote") == ["midinote", 60, 100]


def test_devices_fill_one_pad(play: Play, daemon: DaemonProcess) -> None:
    patch = drum.build()
    with connected(play, patch, daemon) as stage:
        stage.turn("Seconds", 0.1)
        stage.turn("Takes", 2)
        stage.type("tom", index=5)
        stage.click("New F1")
        path, _ = filled(stage)
        in_use(stage, 5)
        stage.status("2 takes")
        stage.click("> F1")
        assert filled(stage)[0] != path
        stage.click("More F1")
        stage.status("2 takes")
        stored = stage.stored()
    with play(patch, daemon.osc, set_of_live=live(), stored=stored) as again:
        filled(again)
        in_use(again, 5)


def test_devices_work_as_an_abstraction(play: Play, daemon: DaemonProcess) -> None:
    with play(abstraction.build(), daemon.osc) as stage:
        takes, progress, status, path = (box for box in stage.patch.boxes if box.maxclass == "outlet")
        stage.received(status, "link", 1)
        inlet = stage.box("inlet")
        stage.order("send", inlet, ["generate", "warm", "pad", "@seconds", 0.2, "@steps", 2, "@takes", 2])
        stage.received(status, "queued", 1)
        assert stage.received(progress) == [0.5]
        first = stage.received(takes, 1, 0)
        assert first[2].endswith(".wav")
        assert stage.received(takes, 1, 1)[2] != first[2]
        assert stage.received(path) == [first[2]]
        assert stage.received(status, "done", 1, 2) == ["done", 1, 2, first[2]]
        stage.order("send", inlet, ["vary", first[-1], "@seed", 5])
        assert stage.received(takes, 2, 0)[6] == 5
        stage.received(status, "done", 2)
        stage.order("send", inlet, ["generate", "pad", "@bits", 7])
        assert "bits" in stage.console("timbred fail 3 bad-request")
        assert stage.received(status, "fail", 3)[2] == "bad-request"
        stage.order("send", inlet, ["generate", "slow", "pad"])
        stage.received(status, "started", 4)
        stage.order("send", inlet, ["cancel", "*"])
        stage.received(status, "cancelled", 4)
        stage.order("send", inlet, ["settings", "tempo", 99])
        assert stage.received(status, "settings/tempo") == ["settings/tempo", 99]
        stage.order("send", inlet, ["settings", "tempo", 120])
        stage.order("send", inlet, ["sing", "la"])
        stage.console("no handler for sing")
        stage.order("send", inlet, ["host", "no-such-host.invalid"])
        assert "no-such-host.invalid" in stage.received(status, "link", 0)[2]
        stage.order("send", inlet, ["port", 123456])
        assert stage.received(status, "fail", "port")[3] == "port: got 123456, allowed is 1 to 65535"
        stage.order("send", inlet, ["host", "127.0.0.1"])
        stage.received(status, "link", 1)
        stage.order("send", inlet, ["generate", "last", "@seconds", 0.1])
        stage.received(status, "done", 5)


def test_devices_help_makes_a_first_sound(play: Play, daemon: DaemonProcess) -> None:
    with play(abstraction.build_help(), daemon.osc) as stage:
        stage.console("timbred link 1")
        stage.order("send", stage.box("message", "kick drum"), ["bang"])
        path = stage.received(stage.box("buffer~"), "replace")[1]
        assert Path(path).name.startswith("a-deep-punchy-kick-drum")
        groove = stage.box("groove~")
        assert [stage.received(groove) for _ in range(2)] == [["set", "timbred-help"], [0]]
        assert stage.received(stage.box("multislider"), 1) == [1]
        stage.console("status done 1 1")
        stage.order("send", stage.box("message", "models"), ["bang"])
        stage.console("status model pocket")


def test_devices_use_the_embedded_model(play: Play, tmp_path: Path) -> None:
    """The real engine: a sound, one like it, and a loop of a bar."""
    (tmp_path / "real").mkdir()
    daemon = DaemonProcess(
        tmp_path / "real", "player.device=no such device", "engine.spare=off", fake_engine=False, more=torch_program()
    )
    try:
        with connected(play, instrument.build(), daemon) as stage:
            stage.turn("Seconds", 0.5)
            stage.turn("Steps", 4)
            generate(stage, "deep kick drum")
            stage.status("1 take")
            stage.click("More like this")
            stage.status("1 take")
            first, second = (decode(Path(filled(stage)[0])) for _ in range(2))
            assert (first.rate, first.samples.shape) == (44100, (22050, 2))
            assert second.samples.shape == first.samples.shape
            assert abs(first.samples).max() == pytest.approx(10 ** (-1 / 20), abs=0.01)
            assert abs(first.samples - second.samples).max() > 0.01, "another sound"
        with connected(play, clip.build(), daemon) as stage:
            stage.turn("Bars", 0.5)
            stage.turn("Steps", 4)
            stage.click("Make a loop")
            stage.click("Each take")
            generate(stage, "shaker loop")
            made = decode(Path(stage.called("create_audio_clip")["arguments"][0]))
            assert made.samples.shape[0] == round(0.5 * 3 * 60 / 124 * 44100)
            stage.status("1 take")
    finally:
        daemon.stop()


class Voice:
    """One voice of the sampler, and what its sound parts are told."""

    def __init__(self, stage: MaxStage) -> None:
        self.stage = stage
        self.notes, self.settings = stage.box("in", "1"), stage.box("in", "2")

    def set(self, *message: Any) -> None:
        self.stage.order("send", self.settings, list(message))

    def note(self, pitch: int, velocity: int) -> None:
        self.stage.order("send", self.notes, [pitch, velocity])

    def received(self, name: str, *beginning: Any) -> list[Any]:
        return self.stage.received(self.stage.box(name), *beginning)


def test_devices_play_the_buffer_at_a_notes_pitch(play: Play) -> None:
    with play(voice.build(), 9) as stage:
        one = Voice(stage)
        one.set("release", 20)
        assert one.received("adsr~") == ["inlet 4", 20]
        one.set("buffer", "042timbred3")
        one.set("length", 100)
        one.note(72, 64)
        assert one.received("groove~") == ["set", "042timbred3"]
        [speed] = one.received("sig~")
        assert speed == pytest.approx(2, abs=1e-6)
        assert one.received("groove~") == [0]
        [level] = one.received("adsr~")
        assert level == pytest.approx(64 / 127)
        one.note(72, 0)
        assert one.received("adsr~") == [0], "at its end, not at the note's: 100 ms at double speed, less the release"
        one.set("root", 72)
        one.set("tune", -12)
        one.note(72, 127)
        assert one.received("sig~")[0] == pytest.approx(0.5, abs=1e-6)


def test_devices_loop_until_the_note_ends(play: Play) -> None:
    with play(voice.build(), 9) as stage:
        one = Voice(stage)
        one.set("buffer", "042timbred1")
        one.set("length", 60)
        one.set("loop", 1)
        assert one.received("groove~") == ["loop", 1]
        one.note(60, 127)
        assert one.received("adsr~") == [1]
        one.note(60, 0)
        assert one.received("adsr~") == [0]
        one.set("loop", 0)
        one.received("groove~", "loop", 0)


def test_devices_play_a_changed_buffer_from_the_next_note(play: Play) -> None:
    with play(voice.build(), 9) as stage:
        one = Voice(stage)
        one.set("loop", 1)
        one.set("buffer", "042timbred1")
        one.note(60, 127)
        one.set("buffer", "042timbred2")
        one.set("loop", 1)
        one.note(62, 127)
        received = [one.received("groove~") for _ in range(6)]
        assert received == [["loop", 1], ["set", "042timbred1"], [0], ["loop", 1], ["set", "042timbred2"], [0]]

"""The generated patches: whole, as Max saves them, and of one mind with timbred and their own scripts."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from py2max.maxref import get_object_info

from max_patches import abstraction, clip, container, drum, first_sound, instrument, parts, voice
from max_patches.generate import DEVICES, ROOT, files, needed
from max_patches.objects import NOT_IN_MAX, SIGNAL
from max_patches.patcher import BLOB, DEVICE_HEIGHT, Box, Patch
from max_patches.words import allowed
from tests.integration.clients import UdpClient
from tests.integration.daemons import DaemonProcess
from timbred.errors import CODES

DEVICE_PATCHES = [module.build() for module, _ in DEVICES]
PATCHES = [*DEVICE_PATCHES, abstraction.build(), abstraction.build_help(), voice.build(), first_sound.build()]
SCRIPTS = ROOT / "max_patches" / "timbred"
VARIABLE = {
    "gate",
    "js",
    "pattr",
    "poly~",
    "route",
    "sel",
    "t",
    "unpack",
    "zl",
    "sprintf",
    "sig~",
    "out~",
    "in",
    "==",
    "f",
    "groove~",
    "inlet",
    "outlet",
    "play~",
}
"""Objects whose inlets and outlets depend on what is typed or on a script, or which the reference has otherwise than
Max saves them: `inlet` and `outlet`."""

TAKES_SIGNALS = {"*~", "plugout~", "live.gain~", "thispoly~", "ezdac~", "dac~"}
"""Objects whose inlets take signals though the reference has no type for them, or one in other words."""

WITHOUT_CORDS = {"comment", "live.comment", "panel"}


def named(patch: Patch) -> str:
    return patch.name


each_patch = pytest.mark.parametrize("patch", PATCHES, ids=named)
each_device = pytest.mark.parametrize("patch", DEVICE_PATCHES, ids=named)


@pytest.mark.parametrize("path", files(), ids=str)
def test_patches_in_the_folder_are_those_generated_now(path: Path) -> None:
    assert (ROOT / path).read_bytes() == files()[path], "run: python -m max_patches.generate"


@pytest.mark.parametrize("patch", PATCHES, ids=named)
def test_patches_have_no_fault_for_py2max(patch: Patch, tmp_path: Path) -> None:
    saved = tmp_path / "patch.maxpat"
    saved.write_text(json.dumps(patch.saved()), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "py2max", "validate", str(saved)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    findings = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    unknown = re.compile(r"W-UNKNOWN-OBJECT: object '(node\.script|timbred)'")
    assert all(unknown.search(line) for line in findings), done.stdout


@each_patch
def test_patches_connect_every_cord(patch: Patch) -> None:
    ids = [box.id for box in patch.boxes]
    assert len(set(ids)) == len(ids)
    for (source, outlet), (destination, inlet) in patch.cords:
        assert source in patch.boxes
        assert destination in patch.boxes
        assert outlet < len(source.ports.outlets), (source.text, outlet)
        assert inlet < destination.ports.inlets, (destination.text, inlet)
    ends = [((a.id, outlet), (b.id, inlet)) for (a, outlet), (b, inlet) in patch.cords]
    assert len(set(ends)) == len(ends), "a cord twice"


@each_patch
def test_patches_connect_signals_to_signal_inlets(patch: Patch) -> None:
    for (source, outlet), (destination, inlet) in patch.cords:
        if source.ports.outlets[outlet] == SIGNAL:
            assert takes_signal(destination, inlet), (source.text, destination.text or destination.maxclass)
        else:
            assert not only_signal(destination, inlet), (source.text, destination.text)


def kind_of_inlet(box: Box, inlet: int) -> str:
    info = get_object_info(box.name)
    if info is None or inlet >= len(info["inlets"]):
        return ""
    return str(info["inlets"][inlet]["type"])


def takes_signal(box: Box, inlet: int) -> bool:
    return box.name in TAKES_SIGNALS or "signal" in kind_of_inlet(box, inlet)


def only_signal(box: Box, inlet: int) -> bool:
    """Whether only a signal goes in there; the players take messages in their left inlet too."""
    return kind_of_inlet(box, inlet) == "signal" and box.name not in ("groove~", "play~", "poly~")


@each_patch
def test_patches_use_only_objects_of_max(patch: Patch) -> None:
    for box in patch.boxes:
        if box.name in NOT_IN_MAX or box.name == "node.script":
            continue
        info = get_object_info(box.name)
        assert info is not None, box.text
        if box.name not in VARIABLE and (info["inlets"] or info["outlets"]):
            assert box.ports.inlets == len(info["inlets"]), (box.name, box.ports, info["inlets"])
            assert len(box.ports.outlets) == len(info["outlets"]), (box.name, box.ports, info["outlets"])


@each_patch
def test_patches_have_no_unconnected_object(patch: Patch) -> None:
    connected = {end.id for (source, _), (destination, _) in patch.cords for end in (source, destination)}
    alone = [
        box.text or box.maxclass for box in patch.boxes if box.id not in connected and box.maxclass not in WITHOUT_CORDS
    ]
    assert alone == []


@each_device
def test_patches_place_visible_objects_inside_the_device_and_apart(patch: Patch) -> None:
    faces = [(box, box.face) for box in patch.boxes if box.face is not None]
    for box, (x, y, width, height) in faces:
        assert x >= 0
        assert y >= 0
        assert x + width <= patch.width, box
        assert y + height <= DEVICE_HEIGHT, box
        assert all(float(number).is_integer() or box.face for number in (x, width))
    for (one, a), (other, b) in itertools.combinations(faces, 2):
        apart = a[0] + a[2] <= b[0] or b[0] + b[2] <= a[0] or a[1] + a[3] <= b[1] or b[1] + b[3] <= a[1]
        assert apart, (one.text or one.parameter, other.text or other.parameter)


@each_device
def test_patches_annotate_every_control(patch: Patch) -> None:
    for box in patch.faces:
        if box.maxclass not in ("live.comment", "waveform~"):
            assert box.attributes.get("hint"), box
            assert box.attributes["hint"] == box.attributes.get("annotation")


@each_device
def test_patches_give_each_parameter_a_unique_name_and_a_range(patch: Patch) -> None:
    names = [box.parameter.name for box in patch.parameters if box.parameter is not None]
    assert len(set(names)) == len(names)
    for box in patch.parameters:
        assert box.parameter is not None
        if box.parameter.kind != BLOB:
            saved = box.parameter.saved()
            assert saved["parameter_mmax"] > saved.get("parameter_mmin", 0)
            initial = saved.get("parameter_initial", [saved.get("parameter_mmin", 0)])[0]
            assert saved.get("parameter_mmin", 0) <= initial <= saved["parameter_mmax"]
        else:
            assert box.parameter.visibility == 1, "stored, not automated"


@each_device
def test_patches_store_every_parameter_with_the_live_set(patch: Patch) -> None:
    by_script = {"textedit", "umenu", "number", "multislider", "waveform~", "live.comment"}
    for box in patch.faces:
        assert box.parameter is not None or box.maxclass in by_script, box
    [store] = [box for box in patch.boxes if box.name == "pattr"]
    saved = store.saved()
    assert saved["saved_object_attributes"]["parameter_enable"] == 1
    assert saved["saved_attribute_attributes"]["valueof"]["parameter_type"] == BLOB
    assert saved["varname"] == "timbred-state"


def test_patches_have_the_ranges_and_choices_of_timbred() -> None:
    saved = {
        box.parameter.name: box.parameter
        for patch in (instrument.build(), clip.build())
        for box in patch.parameters
        if box.parameter
    }
    for name, key in (("Seconds", "seconds"), ("Bars", "bars"), ("Distance", "strength")):
        bounds = allowed(key)
        assert (saved[name].low, saved[name].high) == (bounds.low, bounds.high)
    schedulers = saved["Scheduler"].choices
    assert schedulers[: 1 + len(parts.FIRST_SCHEDULERS)] == (parts.OWN_SCHEDULER, *parts.FIRST_SCHEDULERS)
    assert set(schedulers) == {parts.OWN_SCHEDULER, *allowed("scheduler").choices}
    assert saved["Takes"].high == parts.TAKES <= (allowed("takes").high or 0)
    seeds = [box for box in instrument.build().boxes if box.maxclass == "number"]
    assert seeds[0].attributes["maximum"] == allowed("seed").high


def script(name: str) -> str:
    return (SCRIPTS / name).read_text("utf-8")


def test_patches_and_scripts_use_the_same_words() -> None:
    desk = script("timbred-desk.js")
    shown = set(re.findall(r'show\(\["(\w+)"', desk)) | set(re.findall(r'this\.menu\("(\w+)"', desk)) | {"folder"}
    assert shown == set(parts.FACE_WORDS)
    assert f'OWN_SCHEDULER = "{parts.OWN_SCHEDULER}"' in desk
    assert f"BUFFERS = {parts.BUFFERS};" in desk
    assert len(re.findall(r'"', desk.partition("TARGETS = [")[2].partition("]")[0])) == 2 * len(clip.TARGETS)
    texts = [box.text for patch in DEVICE_PATCHES for box in patch.boxes]
    sent = {match[1] for text in texts if (match := re.match(r"prepend knob ([\w-]+)$", text))}
    read = set(re.findall(r"knobs\.(\w+)", desk)) | set(re.findall(r'knobs\["([\w-]+)"\]', desk)) | {"seconds", "bars"}
    assert sent == read
    assert f"slots: {drum.PADS}" in desk


@each_device
def test_patches_send_only_messages_that_the_script_knows(patch: Patch) -> None:
    commands = set(
        re.findall(
            r"^    (\w+): function", script("timbred-desk.js").partition("var COMMANDS")[2].partition("\n};")[0], re.M
        )
    )
    into_js = [source for (source, _), (destination, _) in patch.cords if destination.name == "js"]
    for box in into_js:
        word = box.text.split()[1] if box.name == "prepend" else box.text.split()[0]
        assert word in {*commands, "event", "live.thisdevice"}, box.text


def test_patches_scripts_for_js_are_es5(require_host: Any) -> None:
    node = require_host("node")
    old = sorted(path.name for path in SCRIPTS.glob("*.js") if "ES5" in path.read_text("utf-8"))
    assert {"timbred-device.js", "timbred-desk.js", "timbred-vocabulary.js"} <= set(old)
    for name in re.findall(r'require\("([\w-]+)"\)', "".join(map(script, old))):
        assert f"{name}.js" in old
    parse = (
        "const acorn = require('internal/deps/acorn/acorn/dist/acorn'); const fs = require('fs');"
        "for (const file of process.argv.slice(1)) acorn.parse(fs.readFileSync(file, 'utf8'), { ecmaVersion: 5 });"
    )
    done = subprocess.run(
        [node, "--expose-internals", "-e", parse, *(str(SCRIPTS / name) for name in old)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_patches_first_sound_sends_a_valid_request(daemon: DaemonProcess, client: UdpClient, other: UdpClient) -> None:
    texts = [box.text for box in first_sound.build().boxes]
    assert f"udpreceive {first_sound.ANSWERS}" in texts
    [request] = [text for text in texts if text.startswith("/timbred/")]
    words = request.replace("$1", "1234567").replace(str(first_sound.ANSWERS), str(other.port))
    address, *atoms = words.split()
    client.say(address.rpartition("/")[2], *(int(atom) if atom.isdigit() else atom for atom in atoms))
    assert other.until_end()[-1].name == "done"


def test_patches_vocabulary_has_every_code() -> None:
    text = script("timbred-vocabulary.js")
    assert f"exports.codes = {json.dumps(list(CODES))};" in text


@pytest.mark.parametrize(("module", "kind"), DEVICES, ids=lambda part: getattr(part, "NAME", part))
def test_container_reads_a_device_back(module: Any, kind: str) -> None:
    patch = module.build()
    file = (SCRIPTS / f"{patch.name}.amxd").read_bytes()
    assert file[:12] == b"ampf\x04\0\0\0" + container.KINDS[kind]
    assert file[12:24] == b"meta\x04\0\0\0\0\0\0\0"
    assert file[24:28] == b"ptch"
    assert int.from_bytes(file[28:32], "little") == len(file) - 32
    assert file.endswith(b"}\n\0")
    found, patcher = container.unpack(file)
    assert found == kind
    assert patcher["patcher"]["boxes"] == patch.saved()["patcher"]["boxes"]
    assert patcher["patcher"]["openinpresentation"] == 1
    assert patcher["patcher"]["devicewidth"] == patch.width


@given(st.binary(max_size=80))
def test_container_refuses_what_is_no_device(tail: bytes) -> None:
    good = container.pack("instrument", "{}")
    assert container.unpack(good) == ("instrument", {})
    for file in (tail, good[: len(tail) % len(good)], good[:12] + tail):
        if file == good:
            continue
        with pytest.raises(ValueError, match=r".+"):
            container.unpack(file)


def test_patches_have_the_files_that_a_device_needs_beside_it() -> None:
    for patch in PATCHES:
        for box in patch.boxes:
            words = box.text.split()
            if box.name in ("js", "node.script"):
                assert (SCRIPTS / words[1]).is_file()
            if box.name in ("poly~", "timbred"):
                assert (SCRIPTS / f"{words[1] if box.name == 'poly~' else words[0]}.maxpat").is_file()


@each_device
def test_patches_name_all_the_files_that_a_device_needs(patch: Patch) -> None:
    names = needed(patch)
    assert all((SCRIPTS / name).is_file() for name in names)
    helps = {"timbred.maxhelp", "timbred.maxpat", "first-sound.maxpat"}
    assert set(names) == {path.name for path in SCRIPTS.iterdir() if path.suffix != ".amxd"} - helps
    _, patcher = container.unpack((SCRIPTS / f"{patch.name}.amxd").read_bytes())
    assert [entry["name"] for entry in patcher["patcher"]["dependency_cache"]] == names


@each_device
def test_patches_name_buffers_for_one_device(patch: Patch) -> None:
    names = [box.text.split()[1] for box in patch.boxes if box.name == "buffer~"]
    assert len(set(names)) == parts.BUFFERS
    assert all(name.startswith("---") for name in names)

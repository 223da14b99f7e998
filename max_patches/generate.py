"""Generation of the files of `max_patches/timbred`, and of the pictures of the devices in the guide.

python -m max_patches.generate
"""

import re
import sys
from pathlib import Path

from max_patches import abstraction, clip, container, drum, first_sound, instrument, voice, words
from max_patches.patcher import Patch, as_json, device_extra
from max_patches.picture import draw, draw_patching

ROOT = Path(__file__).parents[1]
FOLDER = Path("max_patches/timbred")
PICTURES = Path("docs/pictures")

VOCABULARY_FILE = "timbred-vocabulary.js"
VOCABULARY = words.script()
OWN_MODULE = re.compile(r'require\("(?:\./)?(timbred-[\w-]+?)(?:\.js)?"\)')

DEVICES = ((instrument, "instrument"), (clip, "audio effect"), (drum, "instrument"))
"""Each device and its type in Live."""


def device_file(patch: Patch, kind: str) -> bytes:
    """Return the content of a device's `.amxd` file."""
    extra = device_extra(container.KINDS[kind], patch.width, needed(patch))
    return container.pack(kind, as_json(patch.saved(extra)))


def needed(patch: Patch) -> list[str]:
    """Return the names of the files that a device depends on: its voice, its scripts, and their modules."""
    names = {f"{voice.NAME}.maxpat"}
    waiting = [box.text.split()[1] for box in patch.boxes if box.name in ("js", "node.script")]
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            text = VOCABULARY if name == VOCABULARY_FILE else (ROOT / FOLDER / name).read_text("utf-8")
            waiting += [f"{module}.js" for module in OWN_MODULE.findall(text)]
    return sorted(names)


def files() -> dict[Path, bytes]:
    """Return the content of every generated file, by its path relative to the project's root."""
    contents = {
        FOLDER / VOCABULARY_FILE: VOCABULARY.encode(),
        FOLDER / "timbred.maxpat": as_json(abstraction.build().saved()).encode(),
        FOLDER / "timbred.maxhelp": as_json(abstraction.build_help().saved()).encode(),
        FOLDER / "first-sound.maxpat": as_json(first_sound.build().saved()).encode(),
        FOLDER / "timbred-voice.maxpat": as_json(voice.build().saved()).encode(),
    }
    for module, kind in DEVICES:
        patch = module.build()
        contents[FOLDER / f"{patch.name}.amxd"] = device_file(patch, kind)
        contents[PICTURES / f"{patch.name.replace(' ', '-')}.svg"] = draw(patch).encode()
    away = f"{instrument.NAME}, away"
    contents[PICTURES / "timbred-instrument-away.svg"] = draw(instrument.build(), away).encode()
    contents[PICTURES / "timbred-max-help.svg"] = draw_patching(abstraction.build_help()).encode()
    return contents


def main() -> int:
    """Write all patches and scripts; return the exit status."""
    for path, content in files().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_bytes(content)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

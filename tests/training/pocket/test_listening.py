"""The page of sounds, its files and the command that writes both agree in their names; samples aren't compared."""

import re
from io import BytesIO

import numpy as np
import soundfile

from training.pocket import listening
from training.pocket.listening import SOUNDS, ListedSound, encode_ogg, format_page, measured_cells
from training.pocket.vocabulary import VOCABULARY

RATE = 44_100


def test_listening_has_sixty_sounds_of_all_families() -> None:
    assert len(SOUNDS) == len({sound.file_name for sound in SOUNDS}) == 60
    assert list(listening.PROMPTS) == list(VOCABULARY.families)


def test_listening_page_and_files_are_those_of_the_command() -> None:
    page = listening.PAGE.read_text("utf-8")
    names = re.findall(r'src="pocket-sounds/(.+?)"', page)
    assert names == re.findall(r"\]\(pocket-sounds/(.+?)\)", page) == [sound.file_name for sound in SOUNDS]
    assert re.findall(r"^\| \[(.+?)\]", page, re.MULTILINE) == [sound.prompt for sound in SOUNDS]
    files = {path.name: path.stat().st_size for path in listening.FOLDER.iterdir()}
    assert files.keys() == set(names)
    assert sum(files.values()) < listening.MAX_BYTES
    for sound in SOUNDS:
        assert soundfile.info(listening.FOLDER / sound.file_name).duration == round(sound.seconds * RATE) / RATE


def test_listening_measures_a_named_note_and_no_other_sound() -> None:
    time = np.arange(2 * RATE) / RATE
    tone = np.repeat(np.sin(2 * np.pi * 440 * 2 ** (10 / 1200) * time)[:, None], 2, axis=1).astype(np.float32)
    assert measured_cells(ListedSound("flute", "flute a4"), tone, RATE)[1] == "+10 cents"
    for prompt in ("flute a minor chord", "marimba pentatonic scale a4", "rain"):
        assert measured_cells(ListedSound("flute", prompt), tone, RATE)[1:] == ("-", "-")
    loudness = {sound.file_name: ("-20.0 LUFS", "-", "-") for sound in SOUNDS}
    assert format_page(loudness).count("| -20.0 LUFS | - | - |") == len(SOUNDS)


def test_encode_ogg_gives_equal_bytes_for_equal_samples() -> None:
    noise = (0.1 * np.random.default_rng(0).standard_normal((RATE, 2))).astype(np.float32)
    encoded = encode_ogg(noise, RATE)
    assert encoded == encode_ogg(noise, RATE)
    read, rate = soundfile.read(BytesIO(encoded))
    assert (read.shape, rate) == ((RATE, 2), RATE)
    assert np.corrcoef(read[:, 0], noise[:, 0])[0, 1] > 0.5

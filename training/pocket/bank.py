"""`python -m training.pocket.bank`: encode the sounds from which sketches are composed.

The bank holds a note of every few semitones of each instrument, the hits of each drum kit, recorded samples and
synthesised sounds, as latents of the codec with one byte for each value.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timbred.engine.families.pocket_networks import BandCodec, TextSide
from timbred.engine.families.pocket_plans import USUAL_VELOCITY
from timbred.engine.families.pocket_sketch import CODE_RANGE, StoredBank
from timbred.models.pocket import SAMPLE_RATE, TOKEN_FRAMES, BankEntry
from training.pocket.codec import load_codec
from training.pocket.features import bands_of, from_bytes
from training.pocket.instruments import DRUMS, INSTRUMENTS, KITS, SHARED_KEYS, UNPITCHED, Instrument
from training.pocket.recordings import RECORDINGS
from training.pocket.render import PEAK, read_recording, render_soundfont, synthesise
from training.pocket.running import fingerprint
from training.pocket.settings import RUNS
from training.pocket.sounds import Sound
from training.pocket.words import caption
from training.synthesis import recipe as synthesis
from training.synthesis.kinds import KINDS as SYNTHESISED_KINDS
from training.synthesis.oscillators import RATE as SYNTHESIS_RATE

BANK = RUNS / "bank.npz"
NOTE_STEP = 5
"""Semitones between the notes of an instrument: each is transposed by at most two."""
SUSTAINED_SECONDS, STRUCK_SECONDS, LOW_STRUCK_SECONDS = 2.2, 2.6, 4.0
RELEASED_SHARE = 0.92
HIT_SECONDS, TEXTURE_SECONDS, SYNTHESISED_SECONDS = 3.0, 6.0, 2.5
SYNTHESISED_SOUNDS = 12
"""Sounds of each synthesised kind."""
SILENT_DB = -66.0
SEED = 61
CAPTIONS_OF_AN_ENTRY = 8


def draw_entries() -> list[Sound]:
    """Return the descriptions of the bank's sounds."""
    sounds = [_note(row, note) for row in INSTRUMENTS for note in notes_of(row)]
    for key in DRUMS:
        for kit in (0,) if key in SHARED_KEYS else KITS:
            sounds.append(_played("hit", DRUMS[key][0], HIT_SECONDS, 0, kit, key, drums=True))
    for (bank, program), names in UNPITCHED.items():
        sounds.append(_played("texture", names[0], TEXTURE_SECONDS, bank, program, 60))
    for name, row in RECORDINGS.items():
        seconds = float(min(row.seconds, 10.0))
        sounds.append(Sound("samples", row.names[0], row.form, seconds, seed=0, recording=name))
    random = np.random.default_rng(SEED)
    for kind in SYNTHESISED_KINDS:
        for _ in range(SYNTHESISED_SOUNDS):
            recipe = synthesis.draw(random, int(SYNTHESISED_SECONDS * SYNTHESIS_RATE), kind)
            form = "note" if recipe.note is not None else "texture"
            fields = dataclasses.asdict(recipe) | {"flags": list(recipe.flags)}
            sounds.append(
                Sound(
                    "code",
                    f"synthesised {kind}",
                    form,
                    SYNTHESISED_SECONDS,
                    recipe.seed,
                    note=recipe.note,
                    recipe=fields,
                )
            )
    return sounds


@torch.no_grad()
def entry_vectors(side: TextSide, entries: Sequence[BankEntry]) -> Tensor:
    """Return the mean unit vectors (sounds, vector) of captions of synthesised sounds; zero for other sounds."""
    vectors = torch.zeros(len(entries), side.sizes.vector)
    for index, entry in enumerate(entries):
        if entry.sound.recipe is not None:
            random = np.random.default_rng(index)
            texts = [caption(entry.sound, random, rough=False, note_chance=0.3) for _ in range(CAPTIONS_OF_AN_ENTRY)]
            vectors[index] = torch.nn.functional.normalize(side.read_prompts(texts).mean(0), dim=0)
    return vectors


def notes_of(instrument: Instrument) -> list[int]:
    """Return the notes of an instrument in the bank, at most `NOTE_STEP` apart, so that no note is far from one."""
    reach = NOTE_STEP // 2
    count = max(1, -(-(instrument.high - instrument.low + 1) // NOTE_STEP))
    return [min(instrument.low + reach + index * NOTE_STEP, instrument.high) for index in range(count)]


def _note(instrument: Instrument, note: int) -> Sound:
    struck = LOW_STRUCK_SECONDS if note < 55 else STRUCK_SECONDS
    seconds = SUSTAINED_SECONDS if instrument.held else struck
    return _played("note", instrument.kind, seconds, instrument.bank, instrument.program, note, named=True)


def _played(
    form: str, kind: str, seconds: float, bank: int, program: int, key: int, drums: bool = False, named: bool = False
) -> Sound:
    gate = seconds * (1.0 if form == "note" else RELEASED_SHARE)
    return Sound(
        source="font",
        kind=kind,
        form=form,
        seconds=seconds,
        seed=key,
        bank=bank,
        program=program,
        drums=drums,
        events=((0.0, gate, key, USUAL_VELOCITY),),
        velocity=USUAL_VELOCITY,
        note=key if named else None,
    )


def _render(sounds: list[Sound]) -> list[NDArray[np.float32]]:
    """Return the audio (2, samples) of each sound at its own level."""
    played = [sound for sound in sounds if sound.source == "font"]
    audio = iter(render_soundfont(played, "font"))
    rendered: list[NDArray[np.float32]] = []
    for sound in sounds:
        if sound.source == "font":
            rendered.append(next(audio))
        else:
            rendered.append(synthesise(sound) if sound.source == "code" else read_recording(sound))
    return rendered


def _trimmed(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut the silence at the end."""
    hop = 1024
    padded = np.pad(np.abs(audio).max(0), (0, -audio.shape[1] % hop))
    levels = padded.reshape(-1, hop).max(1)
    loud = np.flatnonzero(levels > levels.max() * 10 ** (SILENT_DB / 20))
    return audio[:, : (int(loud[-1]) + 2) * hop] if len(loud) else audio[:, :hop]


def entries_of(rows: list[Any]) -> tuple[BankEntry, ...]:
    """Return the entries of the result of `StoredBank.rows`."""
    return tuple(BankEntry(Sound.from_dict(sound), gain, first, tokens) for sound, gain, first, tokens in rows)


def load_bank(path: Path = BANK) -> StoredBank:
    """Load the bank.

    Raises:
        FileNotFoundError: It hasn't been encoded.
    """
    if not path.exists():
        raise FileNotFoundError("the bank isn't encoded yet: run python -m training.pocket.bank first")
    with np.load(path) as stored:
        return StoredBank(
            torch.from_numpy(stored["codes"]),
            torch.from_numpy(stored["scale"]),
            torch.from_numpy(stored["middle"]),
            entries_of(json.loads(str(stored["entries"]))),
            int(stored["encoder"]),
        )


@torch.no_grad()
def encode(codec: BandCodec) -> None:
    """Render and encode the bank, and write it."""
    sounds = draw_entries()
    vectors: list[Tensor] = []
    entries: list[BankEntry] = []
    first = 0
    for start in range(0, len(sounds), 200):
        part = sounds[start : start + 200]
        for sound, audio in zip(part, _render(part), strict=True):
            peak = float(np.abs(audio).max())
            gain = peak / PEAK if sound.source == "font" else 1.0
            cut = _trimmed(audio * (PEAK / (peak + 1e-9)))
            encoded = codec.encoder(from_bytes(torch.from_numpy(bands_of(torch.from_numpy(cut))))[None])[0][0]
            entries.append(BankEntry(sound, gain, first, len(encoded)))
            vectors.append(encoded)
            first += len(encoded)
        print(f"{start + len(part)} of {len(sounds)} sounds, {first} vectors", flush=True)
    joined = torch.cat(vectors)
    scale, middle = joined.std(0).clamp_min(0.02), joined.mean(0)
    codes = ((joined - middle) / scale * (127 / CODE_RANGE)).round().clamp(-127, 127).to(torch.int8)
    bank = StoredBank(codes, scale, middle, tuple(entries), fingerprint(codec.encoder.state_dict()))
    temporary = BANK.with_suffix(".tmp.npz")
    np.savez_compressed(
        temporary,
        codes=codes.numpy(),
        scale=scale.numpy(),
        middle=middle.numpy(),
        encoder=bank.encoder,
        entries=np.array(json.dumps(bank.rows())),
    )
    temporary.rename(BANK)
    seconds = first * TOKEN_FRAMES * 256 / SAMPLE_RATE
    print(f"{len(entries)} sounds, {seconds:.0f} s, {BANK.stat().st_size / 1e6:.1f} MB", flush=True)


def main() -> None:
    """Encode the bank with the trained codec."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    encode(load_codec(torch.device("cpu")))


if __name__ == "__main__":
    main()

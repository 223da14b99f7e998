import numpy as np
import torch

from tests.training.pocket.banks import bank, small_codec, stored_bank
from training.pocket.bank import NOTE_STEP, _trimmed, draw_entries, entries_of, notes_of  # pyright: ignore[reportPrivateUsage]
from training.pocket.instruments import INSTRUMENTS
from training.pocket.vocabulary import KINDS


def test_notes_of_are_near_every_note_of_an_instrument() -> None:
    for row in INSTRUMENTS:
        notes = notes_of(row)
        assert notes == sorted(set(notes))
        assert all(min(abs(note - other) for other in notes) <= NOTE_STEP // 2 for note in range(row.low, row.high + 1))


def test_draw_entries_has_every_kind_but_loops() -> None:
    assert {sound.kind for sound in draw_entries()} == set(KINDS) - {"drum loop"}


def test_draw_entries_repeats() -> None:
    assert draw_entries() == draw_entries()


def test_trimmed_cuts_only_silence_at_the_end() -> None:
    audio = np.zeros((2, 30_000), np.float32)
    audio[:, 2_000:9_000] = 0.5
    cut = _trimmed(audio)
    assert 9_000 <= cut.shape[1] < 12_000
    assert np.array_equal(cut, audio[:, : cut.shape[1]])


def test_bank_decodes_the_latents_of_an_entry() -> None:
    made, stored = bank(), stored_bank()
    codec = small_codec()
    entry = made.entries[3]
    latents = stored.codes[entry.first : entry.first + entry.tokens].float() * (4 / 127)
    with torch.no_grad():
        decoded = codec.decoder(latents[None])[0]
    assert torch.allclose(made.frames(3).stacked(), decoded, atol=1e-5)


def test_entries_of_reads_what_rows_wrote() -> None:
    stored = stored_bank()
    assert entries_of(stored.rows()) == stored.entries

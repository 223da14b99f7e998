"""A small bank with an untrained codec, for tests."""

import dataclasses

import torch

from timbred.engine.families.pocket_networks import BandCodec
from timbred.engine.families.pocket_sketch import Bank, StoredBank
from timbred.models.pocket import BankEntry, CodecSizes
from training.pocket.bank import draw_entries
from training.pocket.sounds import Sound

SIZES = CodecSizes(group_latent=2, widths=(16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1))
ENTRY_TOKENS = 12


def small_codec() -> BandCodec:
    """Return an untrained codec with 40 values a vector."""
    torch.manual_seed(0)
    return BandCodec(SIZES).eval()


def stored_bank(sounds: list[Sound] | None = None) -> StoredBank:
    """Return a bank of all descriptions with random latents."""
    listed = draw_entries() if sounds is None else sounds
    entries = tuple(BankEntry(sound, 0.5, ENTRY_TOKENS * index, ENTRY_TOKENS) for index, sound in enumerate(listed))
    source = torch.Generator().manual_seed(1)
    codes = torch.randint(-127, 128, (ENTRY_TOKENS * len(listed), SIZES.latent), generator=source).to(torch.int8)
    return StoredBank(codes, torch.ones(SIZES.latent), torch.zeros(SIZES.latent), entries, 77)


def bank(sounds: list[Sound] | None = None) -> Bank:
    """Return a bank of random sounds."""
    return Bank(small_codec().decoder, stored_bank(sounds))


def with_frames(made: Bank, index: int, **frames: torch.Tensor) -> Bank:
    """Replace bands of one entry's decoded sound."""
    made._decoded[index] = dataclasses.replace(made.frames(index), **frames)  # pyright: ignore[reportPrivateUsage]
    return made

import torch

from timbred.engine.codecs.bands import BANDS, CHANNELS, Frames, analyse
from timbred.engine.families.pocket_networks import BandCodec, from_cells, to_cells
from training.pocket.codec import reconstruction_losses
from training.pocket.codec_training import loss_of
from training.pocket.features import TOKEN_FRAMES, bands_of, from_bytes, silence, tokens_of


def channels(seed: int, tokens: int = 4) -> torch.Tensor:
    audio = 0.2 * torch.randn(2, tokens * TOKEN_FRAMES * 256, generator=torch.Generator().manual_seed(seed))
    return from_bytes(torch.from_numpy(bands_of(audio)))


def test_to_cells_holds_every_channel_once() -> None:
    given = torch.randn(2, 16, CHANNELS)
    assert torch.allclose(from_cells(to_cells(given)), given)


def test_codec_keeps_lengths_and_ranges() -> None:
    codec = BandCodec()
    with torch.no_grad():
        mean, spread = codec.encoder(channels(0)[None])
        made = Frames.unstacked(codec.decoder(mean))
    assert mean.shape == spread.shape == (1, 4, codec.sizes.latent)
    assert made.energy.shape == (1, 4 * TOKEN_FRAMES, BANDS)
    assert float(made.offset.abs().max()) <= 1
    assert 0 <= float(made.tonality.min()) <= float(made.tonality.max()) <= 1


def test_codec_uses_only_neighbouring_bands() -> None:
    codec = BandCodec().eval()
    given = channels(1, 24)[None]
    changed = given.clone()
    changed[:, :TOKEN_FRAMES] += 0.5
    moved = (codec.encoder(changed)[0] - codec.encoder(given)[0]).abs().mean(-1)[0]
    # Group norms carry a little everywhere; convolutions most to the neighbours.
    assert float(moved[0]) > 4 * float(moved[-1])


def test_reconstruction_losses_are_zero_for_equal_channels_and_grow_with_differences() -> None:
    true = channels(2)[None]
    assert all(float(loss) == 0 for loss in reconstruction_losses(true, true).values())
    near, far = (reconstruction_losses(true + shift, true) for shift in (0.02, 0.1))
    assert all(float(near[name]) <= float(far[name]) + 1e-6 for name in near)
    assert float(near["energy"]) > 0


def test_codec_learns_a_sound() -> None:
    torch.manual_seed(0)
    codec = BandCodec()
    optimiser = torch.optim.AdamW(codec.parameters(), 4e-3)
    given = channels(3)[None]
    losses: list[float] = []
    for _ in range(25):
        loss, _ = loss_of(codec, given)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_from_bytes_keeps_channels_to_their_resolution() -> None:
    audio = 0.3 * torch.randn(2, 8192, generator=torch.Generator().manual_seed(4))
    stored = from_bytes(torch.from_numpy(bands_of(audio)))
    assert float((stored - analyse(audio, 32).stacked()).abs().max()) < 0.006


def test_tokens_of_a_sound_cover_it_and_put_silence_at_the_floor() -> None:
    assert [tokens_of(samples) for samples in (1, 2048, 2049)] == [1, 1, 2]
    assert float(Frames.unstacked(from_bytes(silence())).energy.max()) == -96

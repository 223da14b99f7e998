import numpy as np
import torch

from timbred.engine.families.pocket_networks import Generator, flow_times
from timbred.models.pocket import GeneratorSizes
from training.pocket.generator import expected_sound, sample
from training.pocket.generator_training import Batch, flow_loss

SMALL = GeneratorSizes(latent=8, vector=16, width=64, blocks=2, heads=2)


def generator(seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    made = Generator(SMALL)
    for value in made.parameters():
        torch.nn.init.normal_(value, std=0.1)
    return made.eval()


def batch(tokens: list[int]) -> Batch:
    random = torch.Generator().manual_seed(1)
    count = len(tokens)
    counts = torch.tensor(tokens)
    sound = torch.randn(count, max(tokens), 8, generator=random)
    vector = torch.randn(count, 16, generator=random)
    return Batch(sound, vector, counts, torch.randn(count, max(tokens), 8, generator=random))


def test_generator_gives_equal_sounds_alone_and_beside_a_longer_one() -> None:
    made = generator()
    both = batch([5, 9])
    time = torch.tensor([0.5, 0.5])
    with torch.no_grad():
        beside = made(both.sound, time, both.vector, both.tokens, both.sketch)[0, :5]
        alone = made(both.sound[:1, :5], time[:1], both.vector[:1], both.tokens[:1], both.sketch[:1, :5])[0]
    assert torch.allclose(alone, beside, atol=1e-4)


def test_generator_ignores_what_is_beyond_the_end() -> None:
    made = generator()
    both = batch([5, 9])
    time = torch.tensor([0.3, 0.9])
    changed = both.sound.clone()
    changed[0, 5:] = 7.0
    with torch.no_grad():
        first = made(both.sound, time, both.vector, both.tokens, both.sketch)
        second = made(changed, time, both.vector, both.tokens, both.sketch)
    assert torch.allclose(first[0, :5], second[0, :5], atol=1e-4)
    losses = [
        flow_loss(made, Batch(sound, both.vector, both.tokens, both.sketch), time, sound * 0)
        for sound in (both.sound, changed)
    ]
    assert torch.allclose(losses[0][0], losses[1][0], atol=1e-4)


def test_sample_repeats_with_its_seed_and_follows_its_prompt() -> None:
    made = generator()
    vector, sketch = batch([6]).vector, batch([6]).sketch
    first, again = (sample(made, vector, [6], sketch, 3, 1.0, 5) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, sample(made, vector, [6], sketch, 3, 1.0, 6))
    assert not torch.allclose(first, sample(made, -vector, [6], sketch, 3, 1.0, 5))
    assert not torch.allclose(first, sample(made, vector, [6], -sketch, 3, 1.0, 5))


def test_sample_of_an_untrained_generator_is_nearly_the_sketch() -> None:
    torch.manual_seed(0)
    given = batch([6])
    arrived = sample(Generator(SMALL).eval(), given.vector, [6], given.sketch, 4, 1.0, 0)
    assert float((arrived - given.sketch).abs().max()) < 0.2


def test_expected_sound_with_guidance_of_one_is_unguided() -> None:
    made = generator()
    given = batch([6])
    plain, nearly, more = (
        expected_sound(made, given.sound, 0.5, given.vector, given.tokens, given.sketch, guidance)
        for guidance in (1.0, 1.0 + 1e-6, 4.0)
    )
    assert torch.allclose(plain, nearly, atol=1e-3)
    assert not torch.allclose(plain, more, atol=1e-3)


def test_flow_times_go_from_noise_to_sound() -> None:
    schedule = flow_times(4)
    assert schedule[0] == 1
    assert schedule[-1] == 0
    assert schedule == sorted(schedule, reverse=True)


def test_sample_of_the_true_sound_gives_the_sound() -> None:
    target = torch.randn(1, 6, 8)

    class Known(Generator):
        def forward(
            self,
            noisy: torch.Tensor,
            time: torch.Tensor,
            vector: torch.Tensor,
            tokens: torch.Tensor | None,
            sketch: torch.Tensor,
        ) -> torch.Tensor:
            return target

    arrived = sample(Known(SMALL), torch.zeros(1, 16), [6], torch.zeros(1, 6, 8), 4, 1.0, 0)
    assert torch.allclose(arrived, target, atol=1e-4)


def test_generator_learns_one_sound() -> None:
    torch.manual_seed(0)
    made = Generator(SMALL)
    given = batch([6] * 8)
    given.sound[:] = given.sound[:1]
    optimiser = torch.optim.AdamW(made.parameters(), 3e-3)
    losses: list[float] = []
    for _ in range(60):
        time = torch.from_numpy(np.linspace(0.05, 0.95, 8).astype(np.float32))
        loss = flow_loss(made, given, time, torch.randn_like(given.sound)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])

import numpy as np
import torch

from training.pocket.distillation import run_teacher
from training.pocket.generator import Generator, GeneratorSizes, sample, times, velocity
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
    return Batch(sound, torch.randn(count, 16, generator=random), counts)


def test_generator_gives_equal_sounds_alone_and_beside_a_longer_one() -> None:
    made = generator()
    both = batch([5, 9])
    time = torch.tensor([0.5, 0.5])
    with torch.no_grad():
        beside = made(both.sound, time, both.vector, both.tokens)[0, :5]
        alone = made(both.sound[:1, :5], time[:1], both.vector[:1], both.tokens[:1])[0]
    assert torch.allclose(alone, beside, atol=1e-4)


def test_generator_ignores_what_is_beyond_the_end() -> None:
    made = generator()
    both = batch([5, 9])
    time = torch.tensor([0.3, 0.9])
    changed = both.sound.clone()
    changed[0, 5:] = 7.0
    with torch.no_grad():
        first = made(both.sound, time, both.vector, both.tokens)
        second = made(changed, time, both.vector, both.tokens)
    assert torch.allclose(first[0, :5], second[0, :5], atol=1e-4)
    losses = [
        flow_loss(made, Batch(sound, both.vector, both.tokens), time, sound * 0) for sound in (both.sound, changed)
    ]
    assert torch.allclose(losses[0][0], losses[1][0], atol=1e-4)


def test_sample_repeats_with_its_seed_and_follows_its_prompt() -> None:
    made = generator()
    vector = batch([6]).vector
    first, again = (sample(made, vector, [6], 3, 1.0, 5) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, sample(made, vector, [6], 3, 1.0, 6))
    assert not torch.allclose(first, sample(made, -vector, [6], 3, 1.0, 5))


def test_sample_with_guidance_of_one_is_unguided() -> None:
    made = generator()
    given = batch([6])
    plain = velocity(made, given.sound, 0.5, given.vector, given.tokens, 1.0)
    nearly = velocity(made, given.sound, 0.5, given.vector, given.tokens, 1.0 + 1e-6)
    more = velocity(made, given.sound, 0.5, given.vector, given.tokens, 4.0)
    assert torch.allclose(plain, nearly, atol=1e-3)
    assert not torch.allclose(plain, more, atol=1e-3)


def test_times_go_from_noise_to_sound() -> None:
    schedule = times(4)
    assert schedule[0] == 1
    assert schedule[-1] == 0
    assert schedule == sorted(schedule, reverse=True)


def test_sample_of_the_true_velocity_gives_the_sound() -> None:
    target = torch.randn(1, 6, 8)

    class Known(Generator):
        def forward(
            self, noisy: torch.Tensor, time: torch.Tensor, vector: torch.Tensor, tokens: torch.Tensor
        ) -> torch.Tensor:
            return (noisy - target) / time[:, None, None]

    arrived = sample(Known(SMALL), torch.zeros(1, 16), [6], 4, 1.0, 0)
    assert torch.allclose(arrived, target, atol=1e-4)


def test_run_teacher_starts_from_noised_sound_with_a_guided_target() -> None:
    made = generator()
    given = batch([6, 6])
    noise = torch.randn_like(given.sound)
    start, target = run_teacher(made, given, noise, 0.9, 0.5)
    assert torch.allclose(start, 0.1 * given.sound + 0.9 * noise, atol=1e-5)
    assert target.shape == start.shape
    assert float((target - velocity(made, start, 0.9, given.vector, given.tokens, 3.0)).abs().max()) > 0


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

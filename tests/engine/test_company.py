"""Jobs that share the network come out as they would alone, whoever comes and goes."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.test_equal_to_diffusers import loudened, order
from timbred.engine import checkpoint
from timbred.engine.adapters.families import make_resident
from timbred.engine.adapters.latent_diffusion import LatentDiffusion, Run
from timbred.engine.wire import RenderOrder, Words

WITHIN = 1e-4
"""-80 dBFS."""

SCHEDULERS = ["ddim", "dpm++2m", "euler-a", "heun", "pndm", "unipc"]
PROMPTS = ["kick", "a long bright bell with a very slow attack and a lot of room", "rain on a tin roof"]


@pytest.fixture(scope="module", params=["audioldm2", "audioldm"])
def model(request: pytest.FixtureRequest) -> LatentDiffusion:
    folder: Path = request.getfixturevalue(request.param)
    found = checkpoint.inspect(folder, "tiny", "")
    return loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))


def orders(chance: random.Random) -> list[RenderOrder]:
    return [
        order(
            words=Words(prompt=chance.choice(PROMPTS), negative=chance.choice(["", "noise"])),
            seconds=chance.choice([0.3, 0.5]),
            loop=chance.random() < 0.4,
            steps=chance.randint(4, 8),
            guidance=chance.choice([1.0, 3.0, 6.0]),
            eta=0.0,
            scheduler=chance.choice(SCHEDULERS),
            seeds=tuple(chance.randrange(1000) for _ in range(chance.randint(1, 2))),
        )
        for _ in range(8)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_each_survivor_equals_its_solo_run(model: LatentDiffusion, seed: int):
    """Eight jobs start at random moments, some are dropped on the way, the others step together by shape."""
    chance = random.Random(seed)
    wanted = orders(chance)
    waiting, running, sounds = list(enumerate(wanted)), dict[int, Run](), dict[int, np.ndarray]()
    while waiting or running:
        if waiting and (not running or chance.random() < 0.5):
            number, one = waiting.pop(0)
            running[number] = model.begin(one)
        if running and chance.random() < 0.1:
            running.pop(chance.choice(list(running)))
            continue
        if running:
            shape = chance.choice(list(running.values())).shape
            model.advance([run for run in running.values() if run.shape == shape])
        for number, run in tuple(running.items()):
            if run.sampling.done:
                sounds[number] = model.finish(running.pop(number)).waveforms
    assert len(sounds) >= 3
    for number, together in sounds.items():
        alone = model.render(wanted[number], lambda _: None, lambda: False).waveforms
        assert np.abs(alone).max() > 0.01
        assert np.abs(together - alone).max() < WITHIN

"""Jobs that share the network come out as they would alone, whoever comes and goes."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs

from tests.engine.families.renders import render_in_changing_batches, wave_orders
from tests.engine.families.test_latent_diffusion import loudened, order
from tests.engine.memory.test_device_memory import source
from tests.forked_programs import ENGINE, forked_command
from tests.ipc.test_engine_client import EventRecorder, engine
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.ipc import engine_messages
from timbred.ipc.engine_client import EngineLink
from timbred.ipc.engine_messages import InitAudio, NoiseSource, PromptInputs, RenderOrder, Repaint
from timbred.models import checkpoint
from timbred.models.families import ACE_STEP, STABLE_AUDIO, STABLE_AUDIO_3

WITHIN = 1e-4
"""-80 dBFS."""

MAX_STEPS = 400
"""Steps that no rendering reaches before it is cancelled at one of the first."""

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
            inputs=PromptInputs(prompt=chance.choice(PROMPTS), negative=chance.choice(["", "noise"])),
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
def test_generation_in_a_changing_batch_equals_its_solo_run(model: LatentDiffusion, seed: int):
    """Eight jobs start at random moments, some are dropped on the way, the others step together by shape."""
    chance = random.Random(seed)
    wanted = orders(chance)
    sounds, _ = render_in_changing_batches(model, wanted, chance, start_probability=0.5)
    assert len(sounds) >= 3
    for number, together in sounds.items():
        alone = model.render(wanted[number], lambda _: None, lambda: False).mono
        assert np.abs(alone).max() > 0.01
        assert np.abs(together.mono - alone).max() < WITHIN


# the same by the engine process, with all that can be asked of it


def given(chance: random.Random, **changes: Any) -> InitAudio:
    """Half a second that a performer may have recorded."""
    moments = np.arange(8000) / 16000
    sound = 0.5 * np.sin(2 * np.pi * chance.uniform(100, 2000) * moments) + np.array(
        [0.1 * chance.uniform(-1, 1) for _ in moments]
    )
    return InitAudio(samples=sound.astype("<f4").tobytes(), **changes)


def everything(chance: random.Random) -> list[RenderOrder]:
    """One order of each kind, in an order by chance; all else about them is by chance too."""
    inputs = PromptInputs(prompt=chance.choice(PROMPTS))
    part = Repaint(start=0.1, end=0.3, low=0.0, high=2000.0)
    kinds: list[dict[str, Any]] = [
        {},
        {"inputs": PromptInputs(prompt=chance.choice(PROMPTS), negative="noise"), "guidance": 5.0},
        {"guidance": 1.0},
        {"seeds": tuple(chance.randrange(1000) for _ in range(3))},
        {"init_audio": given(chance, strength=chance.choice([0.5, 0.8])), "seconds": 0.5},
        {"init_audio": given(chance, strength=1.0, repaint=(part,)), "seconds": 0.5},
        {"init_audio": given(chance, strength=1.0), "seconds": 1.2, "window": 0.8},
        {"loop": True},
        {"noise": NoiseSource(seed=chance.randrange(1000), seconds=0.4)},
        {"inputs": PromptInputs(prompt=PROMPTS[0], prompt2=PROMPTS[2], mix=0.5)},
        {"inputs": PromptInputs(prompt=PROMPTS[2], weights=(("rain", 1.5),))},
        {"scheduler": "ddim", "eta": 0.7},
        {"exact": True},
        {"steps": 40},
        {"steps": 40, "seconds": 0.3},
    ]
    common = [
        {
            "inputs": inputs,
            "seconds": chance.choice([0.3, 0.5]),
            "steps": chance.randint(4, 8),
            "guidance": chance.choice([1.0, 3.0]),
            "scheduler": chance.choice(SCHEDULERS),
            "seeds": (chance.randrange(1000),),
        }
        for _ in kinds
    ]
    found = [order(**{**plain, **special}) for plain, special in zip(common, kinds, strict=True)]
    chance.shuffle(found)
    return found


class Conversation:
    """Orders to one engine, and what became of them."""

    def __init__(self, link: EngineLink, recorder: EventRecorder, models: list[engine_messages.ModelSource]) -> None:
        self.link = link
        self.recorder = recorder
        self.models = models
        self.jobs = 0
        self.rendered: dict[int, list[np.ndarray]] = {}
        self.cancelled: set[int] = set()
        self.stepped: dict[int, int] = {}

    def send(self, one: RenderOrder, rank: int, model: int) -> int:
        self.jobs += 1
        self.link.send(engine_messages.RenderJob(job=self.jobs, model=self.models[model], order=one, rank=rank))
        return self.jobs

    async def receive(self) -> None:
        message, frames = await self.recorder.next()
        match message:
            case engine_messages.JobRendered():
                self.rendered[message.job] = [np.frombuffer(frame, "<f4") for frame in frames]
            case engine_messages.JobCancelled():
                self.cancelled.add(message.job)
            case engine_messages.StepDone():
                self.stepped[message.job] = message.step
            case _:
                assert isinstance(
                    message,
                    engine_messages.ModelLoading
                    | engine_messages.ModelLoaded
                    | engine_messages.PreviewRendered
                    | engine_messages.PieceRendered
                    | engine_messages.EmbeddingsReady
                    | engine_messages.TextRead,
                ), message

    @property
    def running(self) -> int:
        return self.jobs - len(self.rendered) - len(self.cancelled)


def loud_copy(folder: Path, place: Path) -> Path:
    """A checkpoint whose vocoder is heard."""
    copy = Path(shutil.copytree(folder, place))
    found = checkpoint.inspect(copy, "tiny", "")
    model = loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))
    model.pipeline.vocoder.save_pretrained(copy / "vocoder")
    return copy


async def test_engine_batches_equal_their_solo_runs(
    audioldm2: Path, audioldm: Path, stable_audio: Path, stable_audio_3: Path, ace_step: Path, tmp_path: Path
):
    """Requests to models of five families at random moments and with random priorities equal their single renders.

    The models load and their calls are prepared meanwhile; some requests are cancelled. Then each rendered one is
    repeated alone.
    """
    models = [
        source("two", loud_copy(audioldm2, tmp_path / "two")),
        source("one", loud_copy(audioldm, tmp_path / "one")),
        source("stable", stable_audio),
        source("stable-3", stable_audio_3),
        source("ace", ace_step),
    ]
    chance = random.Random(5)
    orders_by_model = [
        everything(chance),
        everything(chance),
        wave_orders(chance, STABLE_AUDIO.schedulers),
        wave_orders(chance, STABLE_AUDIO_3.schedulers),
        wave_orders(chance, ACE_STEP.schedulers),
    ]
    wanted = [(one, chance.randrange(3), model) for model, orders in enumerate(orders_by_model) for one in orders]
    chance.shuffle(wanted)
    doomed = {chance.randrange(1, len(wanted) + 1): chance.randint(1, 3) for _ in range(5)}
    endless, _, model = wanted[min(doomed) - 1]  # one that can't be rendered before it is cancelled
    wanted[min(doomed) - 1] = structs.replace(endless, steps=MAX_STEPS), 1, model

    async with engine(forked_command(ENGINE), compile="auto", cache=str(tmp_path / "cache")) as (link, recorder):
        assert isinstance(await recorder.next(), engine_messages.EngineReady)
        company = Conversation(link, recorder, models)
        left, asked = list(wanted), set[int]()
        while left or company.running:
            if left and (company.running == 0 or (company.running < 8 and chance.random() < 0.3)):
                company.send(*left.pop(0))
                continue
            await company.receive()
            for job, step in doomed.items():
                if job not in asked and company.stepped.get(job, 0) >= step and job not in company.rendered:
                    asked.add(job)
                    link.send(engine_messages.CancelJob(job=job))
        assert len(company.rendered) >= len(wanted) - len(doomed)
        assert company.cancelled <= asked
        assert company.cancelled
        alone = Conversation(link, recorder, models)
        alone.jobs = first = len(wanted)
        alone.rendered = {number: [] for number in range(1, first + 1)}
        for job, together in company.rendered.items():
            one, _, model = wanted[job - 1]
            number = alone.send(one, 1, model)
            while number not in alone.rendered:
                await alone.receive()
            solo = alone.rendered[number]
            assert len(solo) == len(together) == len(one.seeds)
            for take, again in zip(together, solo, strict=True):
                assert np.abs(again).max() > 0.01, one
                assert np.abs(take - again).max() < WITHIN, one

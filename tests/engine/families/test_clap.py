"""CLAP as a component: equal to transformers' own, and the takes of every family in its order."""

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tests import checkpoints
from tests.engine.families.renders import load, wave_order
from tests.engine.families.test_latent_diffusion import order
from tests.engine.test_scheduler_pauses import FakeLink
from tests.patience import TIMEOUT_S
from timbred.engine import device
from timbred.engine import scheduler as engine_module
from timbred.engine.diffusion.generation import Embeddings, RenderedSounds
from timbred.engine.families import clap as clap_module
from timbred.engine.families.clap import (
    INDEX_DELAY_S,
    Clap,
    EmbeddingTask,
    TakeEmbedder,
    load_clap,
    mix_to_mono,
    split_excerpts,
)
from timbred.engine.families.component_loader import SharedComponents
from timbred.engine.memory.device_memory import DeviceMemory
from timbred.engine.model_manager import ModelManager
from timbred.engine.scheduler import EngineScheduler
from timbred.errors import ModelError
from timbred.ipc.engine_messages import (
    EmbeddingsReady,
    EngineMessage,
    JobRendered,
    LoadModel,
    ModelLoaded,
    ModelSource,
    ModelUnloaded,
    QuitEngine,
    RenderJob,
    RenderOrder,
)
from timbred.models import clap as clap_files

SAMPLE_RATE_HZ = 48_000
PROMPT = "a kick drum"
CPU = device.ComputeDevice(torch.device("cpu"), "CPU", torch.float32)


def loaded(folder: Path) -> Clap:
    found = clap_files.inspect(folder, "")
    component = load_clap(found, torch.float32, SharedComponents(), DeviceMemory(torch.device("cpu"), 10**9))
    component.stages.device_memory.add(component.modules)
    return component


def stock(folder: Path, sounds: list[NDArray[np.float32]], text: str = PROMPT) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of sounds of one channel and of a text by transformers alone."""
    model: Any = transformers.ClapModel.from_pretrained(folder).eval()
    extractor: Any = transformers.ClapFeatureExtractor.from_pretrained(folder)
    tokenizer: Any = transformers.RobertaTokenizer.from_pretrained(folder)
    inputs = tokenizer(text, return_tensors="pt")
    inputs["input_features"] = extractor(sounds, return_tensors="pt", sampling_rate=SAMPLE_RATE_HZ).input_features
    with torch.no_grad():
        outputs = model(**inputs)
    return outputs.audio_embeds.numpy(), outputs.text_embeds.numpy()


def noise(seconds: float, seed: int = 1, channels: int = 1, rate: int = SAMPLE_RATE_HZ) -> NDArray[np.float32]:
    shape = (int(seconds * rate), channels)
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.fixture(scope="module")
def component(clap: Path) -> Clap:
    return loaded(clap)


def test_clap_equals_transformers(clap: Path, component: Clap) -> None:
    sounds = [noise(0.5), noise(1.0, 2), noise(10.0, 3)]
    audio, text = stock(clap, [sound[:, 0] for sound in sounds])
    vectors = np.stack([component.embed_sound(sound, SAMPLE_RATE_HZ) for sound in sounds])
    np.testing.assert_allclose(vectors, audio, atol=1e-5)
    scores = component.score_takes(PROMPT, Embeddings(vectors, component.encoder_id))
    np.testing.assert_allclose(scores, audio @ text[0], atol=1e-5)


def test_clap_resamples_to_its_own_rate(clap: Path, component: Clap) -> None:
    sound = noise(0.5, rate=44_100)
    audio, _ = stock(clap, [soxr.resample(sound[:, 0], 44_100, SAMPLE_RATE_HZ)])
    np.testing.assert_allclose(component.embed_sound(sound, 44_100), audio[0], atol=1e-5)


def test_clap_vector_of_equal_channels_is_that_of_one(component: Clap) -> None:
    sound = noise(0.5)
    both = np.repeat(sound, 2, axis=1)
    np.testing.assert_allclose(
        component.embed_sound(both, SAMPLE_RATE_HZ), component.embed_sound(sound, SAMPLE_RATE_HZ), atol=1e-5
    )


def test_clap_hears_channels_that_cancel_each_other(component: Clap) -> None:
    sound = noise(0.5)
    inverted = np.concatenate([sound, -sound], axis=1)
    np.testing.assert_allclose(
        component.embed_sound(inverted, SAMPLE_RATE_HZ), component.embed_sound(sound, SAMPLE_RATE_HZ), atol=1e-5
    )


def test_mix_to_mono_keeps_the_power_of_the_channels() -> None:
    left, right, silence = noise(1.0, 1)[:, 0], noise(1.0, 2)[:, 0], np.zeros(SAMPLE_RATE_HZ, np.float32)
    for channels in ((left, right), (left, silence), (left, -0.5 * left), (left, -0.9 * left + 0.1 * right)):
        stereo = np.stack(channels, axis=1).astype(np.float32)
        assert np.square(mix_to_mono(stereo)).mean() == pytest.approx(np.square(stereo).mean(), rel=1e-4)
    assert not mix_to_mono(np.zeros((100, 2), np.float32)).any()


def test_split_excerpts_are_spread_over_the_sound() -> None:
    def starts(frames: int) -> list[int]:
        return [int(part[0]) for part in split_excerpts(np.arange(frames, dtype=np.float32), 100)]

    assert starts(40) == [0]
    assert starts(102) == [0]
    assert starts(200) == [0, 100]
    assert starts(250) == [0, 150]
    assert starts(10_000) == [0, 3300, 6600, 9900]
    assert all(len(part) == 100 for part in split_excerpts(np.zeros(10_000, np.float32), 100))


def test_clap_vector_of_a_long_sound_has_all_parts(component: Clap) -> None:
    one, other = noise(10.0, 1), 0.01 * noise(10.0, 2)
    vector = component.embed_sound(np.concatenate([one, other]), SAMPLE_RATE_HZ)
    parts = component.embed_sound(one, SAMPLE_RATE_HZ) + component.embed_sound(other, SAMPLE_RATE_HZ)
    np.testing.assert_allclose(vector, parts / np.linalg.norm(parts), atol=1e-5)


def changed_weights(clap: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """Copy a CLAP with other weights."""
    folder.mkdir()
    for file in clap.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def without(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    """Return the change that removes a tensor."""

    def remove(weights: dict[str, torch.Tensor]) -> None:
        del weights[name]

    return remove


def test_load_clap_refuses_a_missing_tensor(clap: Path, tmp_path: Path) -> None:
    """Transformers would fill it with random values."""
    name = "audio_model.audio_encoder.patch_embed.proj.weight"
    folder = changed_weights(clap, tmp_path / "lacking", without(name))
    with pytest.raises(ModelError, match=rf"{name} is missing in .*lacking"):
        loaded(folder)


def test_load_clap_refuses_a_tensor_of_another_shape(clap: Path, tmp_path: Path) -> None:
    def widen(weights: dict[str, torch.Tensor]) -> None:
        weights["text_model.pooler.dense.bias"] = torch.zeros(17)

    with pytest.raises(ModelError, match=r"text_model.pooler.dense.bias has the shape \[17\] in .* says \[16\]"):
        loaded(changed_weights(clap, tmp_path / "wide", widen))


def test_clap_refuses_vectors_that_are_not_finite(clap: Path, tmp_path: Path) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights["audio_projection.linear2.bias"][0] = torch.nan

    damaged = loaded(changed_weights(clap, tmp_path / "damaged", spoil))
    with pytest.raises(ModelError, match="aren't finite"):
        damaged.embed_sound(noise(0.5), SAMPLE_RATE_HZ)


def test_load_clap_uses_a_copy_that_is_in_memory(clap: Path, tmp_path: Path) -> None:
    shared, memory = SharedComponents(), DeviceMemory(torch.device("cpu"), 10**9)
    copy = changed_weights(clap, tmp_path / "copy", lambda _: None)
    (copy / "model.safetensors").write_bytes((clap / "model.safetensors").read_bytes())
    one, other = (load_clap(clap_files.inspect(folder, ""), torch.float32, shared, memory) for folder in (clap, copy))
    assert one.model is other.model


# the queue


class StubClap(Clap):
    """A CLAP whose vectors are known."""

    def __init__(self, name: str = "stub", fails: bool = False) -> None:
        self.name, self.fails = name, fails
        self.count = 0

    @property
    def encoder_id(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.name

    def embed_sound(self, waveform: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        if self.fails:
            raise RuntimeError("no such kernel")
        self.count += 1
        return waveform[0]

    def score_takes(self, prompt: str, embeddings: Embeddings) -> list[float]:
        return embeddings.vectors[:, 0].tolist()


class Choice:
    """Chooses a CLAP; `is_loading` while there will be one."""

    def __init__(self, clap: Clap | None, is_loading: bool = False) -> None:
        self.clap, self.is_loading = clap, is_loading
        self.requested: list[int] = []

    def clap_for(self, render: RenderJob) -> Clap | None:
        return None if self.is_loading else self.clap

    def request_clap(self, render: RenderJob) -> bool:
        self.requested.append(render.job)
        return self.is_loading


def task(job: int, rank: int = 1, ranks: bool = False, values: tuple[float, ...] = (0.1, 0.3, 0.2)) -> EmbeddingTask:
    takes = np.array(values, np.float32)[:, None, None]
    render = RenderJob(job=job, model=ModelSource(name="tiny", folder=""), order=order(), rank=rank)
    return EmbeddingTask(render, RenderedSounds(takes, SAMPLE_RATE_HZ), ranks)


def test_take_embedder_embeds_one_take_at_a_time_and_ranks_them() -> None:
    clap = StubClap()
    embedder = TakeEmbedder(Choice(clap))
    embedder.add(task(1, ranks=True))
    assert embedder.step([]) is None
    assert clap.count == 1
    assert embedder.step([1, 2]) is None, "others as urgent, or less, don't delay it"
    assert embedder.step([0]) is None
    assert clap.count == 2, "a more urgent job does"
    ended = embedder.step([])
    assert ended is not None
    assert [index for index, _ in ended.ranked] == [1, 2, 0]
    assert [score for _, score in ended.ranked] == pytest.approx([0.3, 0.2, 0.1])
    assert embedder.step([]) is None
    assert clap.count == 3


def test_take_embedder_indexes_takes_while_nothing_is_rendered() -> None:
    clap, clock = StubClap(), [10.0]
    embedder = TakeEmbedder(Choice(clap), lambda: clock[0])
    assert embedder.due_in_s is None
    embedder.add(task(1, values=(0.5,)))
    assert embedder.step([]) is None, "the next request may be on its way"
    assert embedder.due_in_s == pytest.approx(INDEX_DELAY_S)
    clock[0] += INDEX_DELAY_S
    assert embedder.due_in_s == 0.0
    assert embedder.step([2]) is None
    assert clap.count == 0
    assert embedder.next([]) is not None
    ended = embedder.step([])
    assert ended is not None
    assert ended.ranked == [(0, None)]
    assert ended.embeddings.vectors.tolist() == [[0.5]]


def test_take_embedder_holds_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clap_module, "MAX_PENDING_BYTES", 8)
    embedder = TakeEmbedder(Choice(StubClap()))
    embedder.add(task(1, values=(0.5,)))
    embedder.add(task(2, values=(0.5,)))
    assert embedder.step([0]) is None
    embedder.add(task(3, values=(0.5,)))
    ended = embedder.step([0])
    assert ended is not None
    assert ended.render.job == 1
    assert embedder.step([0]) is None


def test_take_embedder_waits_for_a_clap_that_is_loaded() -> None:
    choice = Choice(StubClap(), is_loading=True)
    embedder = TakeEmbedder(choice)
    embedder.add(task(1, ranks=True, values=(0.5,)))
    assert embedder.step([]) is None
    assert embedder.next([]) is None
    assert choice.requested == [1]
    choice.is_loading = False
    embedder.resume()
    ended = embedder.step([])
    assert ended is not None
    assert ended.is_done


def test_take_embedder_drops_takes_of_a_job_that_has_ended() -> None:
    embedder = TakeEmbedder(Choice(StubClap()))
    embedder.add(task(1, ranks=True))
    embedder.add(task(1))
    assert embedder.is_ranking
    embedder.drop_ranking(1)
    assert not embedder.is_ranking
    assert embedder.due_in_s is not None, "takes that are sent stay"


@pytest.mark.parametrize("clap", [None, StubClap(fails=True)])
def test_take_embedder_ends_without_vectors_where_there_is_no_clap_or_an_error(clap: Clap | None) -> None:
    embedder = TakeEmbedder(Choice(clap))
    embedder.add(task(1, ranks=True))
    ended = embedder.step([])
    assert ended is not None
    assert not ended.is_done
    assert (ended.error is None) == (clap is None)
    assert ended.ranked == [(0, None), (1, None), (2, None)]


def test_embedding_task_begins_again_with_another_clap() -> None:
    subject = task(1)
    subject.embed_next(StubClap("one"))
    for _ in range(3):
        assert not subject.is_done
        subject.embed_next(StubClap("two"))
    assert subject.is_done
    assert subject.embeddings.encoder_id == "two"


# in the engine


class RecordingLink(FakeLink):
    """Keeps all messages; `react` returns what the daemon answers to one."""

    def __init__(self, react: Callable[[EngineMessage], Any]) -> None:
        super().__init__()
        self.messages: list[tuple[Any, tuple[bytes, ...]]] = []
        self.react = react

    def send(self, message: EngineMessage, *payload: bytes) -> None:
        self.messages.append((message, payload))
        answer = self.react(message)
        if answer is not None:
            self.inbox.put(answer)

    def of(self, kind: type) -> dict[int, tuple[Any, tuple[bytes, ...]]]:
        """The messages of a kind, by job."""
        return {message.job: (message, payload) for message, payload in self.messages if isinstance(message, kind)}


def run_engine(
    monkeypatch: pytest.MonkeyPatch, orders: list[Any], react: Callable[[EngineMessage], Any], budget: int = 0
) -> RecordingLink:
    link = RecordingLink(react)

    def make_link(*_: object) -> RecordingLink:
        return link

    monkeypatch.setattr(engine_module, "DaemonLink", make_link)
    for message in orders:
        link.inbox.put(message)
    EngineScheduler(CPU, "", "", 1.0, budget).run()
    return link


def quit_after(count: int) -> Callable[[EngineMessage], Any]:
    """Return what ends an engine after so many jobs have their embeddings."""
    remaining = iter(range(count - 1, -1, -1))
    return lambda message: QuitEngine() if isinstance(message, EmbeddingsReady) and next(remaining) == 0 else None


def job(number: int, name: str, folder: Path, wanted: RenderOrder, component: Path | None, rank: int = 1) -> RenderJob:
    installed = None if component is None else ModelSource(name=clap_files.CLAP_NAME, folder=str(component))
    return RenderJob(
        job=number, model=ModelSource(name=name, folder=str(folder)), order=wanted, rank=rank, clap=installed
    )


RANKED: dict[str, Any] = {"rank": True, "embed_takes": True, "seeds": (1, 2, 3)}


def test_clap_ranks_takes_of_every_family(
    clap: Path, stable_audio_3: Path, audioldm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = [
        job(1, "three", stable_audio_3, wave_order(guidance=1.0, scheduler="ping-pong", **RANKED), clap),
        job(2, "older", audioldm, order(**RANKED), clap),
    ]
    link = run_engine(monkeypatch, orders, quit_after(2))
    rendered, ready = link.of(JobRendered), link.of(EmbeddingsReady)
    encoder_ids = {message.ear for message, _ in ready.values()}
    assert len(encoder_ids) == 1
    assert "" not in encoder_ids
    for number, channels in ((1, 2), (2, 1)):
        message, payload = rendered[number]
        assert message.channels == channels
        takes = [np.frombuffer(samples, np.float32).reshape(-1, channels) for samples in payload]
        mono = [soxr.resample(mix_to_mono(take), message.rate, SAMPLE_RATE_HZ) for take in takes]
        audio, text = stock(clap, mono)
        np.testing.assert_allclose(message.scores, audio @ text[0], atol=1e-5)
        assert list(message.scores) == sorted(message.scores, reverse=True)
        assert sorted(message.seeds) == [1, 2, 3]
        vectors = [np.frombuffer(vector, np.float32) for vector in ready[number][1]]
        np.testing.assert_allclose(vectors, audio, atol=1e-5)


def test_clap_of_a_resident_model_ranks_takes_of_others(
    audioldm2: Path, audioldm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender = ModelSource(name="two", folder=str(audioldm2))
    orders = [job(1, "older", audioldm, order(**RANKED), None), LoadModel(model=lender)]

    def react(message: EngineMessage) -> Any:
        if isinstance(message, ModelLoaded) and message.model.name == "two":
            assert message.model.lends_clap
            return job(2, "older", audioldm, order(**RANKED), None)
        return QuitEngine() if isinstance(message, EmbeddingsReady) and message.job == 2 else None

    link = run_engine(monkeypatch, orders, react)
    assert len(link.of(JobRendered)[2][0].scores) == 3
    assert link.of(EmbeddingsReady)[2][0].ear == model_encoder_id(audioldm2)


def model_encoder_id(folder: Path) -> str:
    clap = load(folder).clap
    assert clap is not None
    return clap.encoder_id


def test_clap_that_is_absent_leaves_takes_in_the_order_of_their_seeds(
    audioldm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = run_engine(monkeypatch, [job(1, "older", audioldm, order(**RANKED), None)], quit_after(1))
    message, _ = link.of(JobRendered)[1]
    assert (message.seeds, message.scores) == ((1, 2, 3), ())
    assert link.of(EmbeddingsReady)[1] == (EmbeddingsReady(job=1, ear=""), ())


def test_clap_that_can_not_be_loaded_is_tried_and_reported_once(
    clap: Path, audioldm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = changed_weights(clap, tmp_path / "lacking", without("text_model.pooler.dense.bias"))
    orders = [job(number, "older", audioldm, order(**RANKED), folder) for number in (1, 2)]
    link = run_engine(monkeypatch, orders, quit_after(2))
    assert {number: message.scores for number, (message, _) in link.of(JobRendered).items()} == {1: (), 2: ()}
    warnings = [record.getMessage() for record in caplog.records if "aren't compared" in record.getMessage()]
    assert len(warnings) == 1
    assert "text_model.pooler.dense.bias is missing" in warnings[0]


def test_clap_is_evicted_and_loaded_again(
    clap: Path, audioldm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for one model and the component: another model takes the place of both until the next take."""
    other = checkpoints.audioldm(tmp_path / "other", seed=5)
    size = load(audioldm).weight_bytes
    loads: list[str] = []
    load_component = load_clap

    def count_loads(*arguments: Any) -> Clap:
        loads.append("clap")
        return load_component(*arguments)

    monkeypatch.setattr("timbred.engine.model_manager.load_clap", count_loads)

    def react(message: EngineMessage) -> Any:
        if isinstance(message, EmbeddingsReady) and message.job == 1:
            return LoadModel(model=ModelSource(name="two", folder=str(other)))
        if isinstance(message, ModelLoaded) and message.model.name == "two":
            return job(2, "two", other, order(**RANKED), clap)
        return QuitEngine() if isinstance(message, EmbeddingsReady) else None

    component_bytes = sum(weights.numel() * 4 for weights in load_file(clap / "model.safetensors").values())
    budget = size + component_bytes // 2
    assert component_bytes < budget
    link = run_engine(monkeypatch, [job(1, "one", audioldm, order(**RANKED), clap)], react, budget)
    unloaded = [message.name for message, _ in link.messages if isinstance(message, ModelUnloaded)]
    assert {"one", "clap"} <= set(unloaded)
    assert loads == ["clap", "clap"]
    assert [len(message.scores) for message, _ in link.of(JobRendered).values()] == [3, 3]


def test_model_manager_refuses_a_clap_beyond_its_budget(clap: Path, caplog: pytest.LogCaptureFixture) -> None:
    posted: queue.SimpleQueue[Any] = queue.SimpleQueue()
    manager = ModelManager(CPU, 1000, posted.put)
    wanted = job(1, "older", Path(), order(**RANKED), clap)
    assert manager.request_clap(wanted)
    assert manager.finish_load(posted.get(timeout=TIMEOUT_S)) is None
    assert "clap needs" in caplog.text
    assert not manager.request_clap(wanted)
    assert manager.clap_for(wanted) is None

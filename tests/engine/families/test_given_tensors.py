"""Orders that bring embeddings and noise along, against diffusers' own pipelines called with the same tensors."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from tests import checkpoints
from tests.engine.families.renders import (
    TOLERANCE,
    assert_equal_sounds,
    init_audio,
    load,
    render,
    stereo_sound,
    wave_order,
)
from tests.engine.families.test_latent_diffusion import loudened
from tests.engine.families.test_musicldm import hear_as_transformers_4
from timbred.engine.diffusion.sampler import make_scheduler
from timbred.engine.families.base import LatentDiffusion
from timbred.ipc.engine_messages import GivenTensor, PromptInputs, RenderOrder
from timbred.models import checkpoint
from timbred.models.embeddings import TensorInput

SOUND_S = 0.4
TOKEN_COUNT, WINDOW_TOKENS, VECTOR_COUNT = 11, 40, 8
MODELS = ("audioldm2", "audioldm", "musicldm", "stable_audio", "stable_audio_3", "ace_step", "ace_step_base")
TEXT_MODELS = tuple(name for name in MODELS if not name.startswith("ace_step"))
PROMPT, NEGATIVE, LATENTS = "prompt", "negative", "latents"


@pytest.fixture(scope="module")
def ace_step_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.ace_step(tmp_path_factory.mktemp("base"), seed=3, turbo=False, covers=False)


@pytest.fixture(scope="module")
def model_of(request: pytest.FixtureRequest) -> Callable[[str], LatentDiffusion]:
    """Return a loader of tiny models, each of which is loaded once."""
    loaded: dict[str, LatentDiffusion] = {}

    def get(name: str) -> LatentDiffusion:
        if name not in loaded:
            model = load(request.getfixturevalue(name))
            loaded[name] = loudened(model) if hasattr(model.pipeline, "vocoder") else model
        return loaded[name]

    return get


def random_tensor(wanted: TensorInput, random: np.random.Generator, tokens: int) -> np.ndarray:
    """Return values of the shape of an input; masks hide the last third of the tokens."""
    named = {"tokens": tokens, "vectors": VECTOR_COUNT}
    shape = [axis if isinstance(axis, int) else named[axis] for axis in wanted.axes]
    if wanted.kind == "mask":
        return np.broadcast_to(np.arange(tokens) < 2 * tokens // 3, shape).astype("<f4")
    return random.standard_normal(shape).astype("<f4")


def tensors_of(
    folder: Path, parts: tuple[str, ...], masked: bool = True, seed: int = 5, tokens: int = TOKEN_COUNT
) -> dict[str, np.ndarray]:
    """Return random tensors of the named parts of a file for a checkpoint."""
    found = checkpoint.inspect(folder, "tiny", "")
    random = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for name, wanted in checkpoint.read_tensor_inputs(found, "tiny", SOUND_S).items():
        if not name.endswith(("prompt_embeds", "attention_mask", "latents")):
            continue
        part = LATENTS if name == "latents" else NEGATIVE if name.startswith("negative_") else PROMPT
        values = random_tensor(wanted, random, tokens)
        if part in parts and (masked or wanted.kind == "values"):
            made[name] = values
    return made


def order(model: LatentDiffusion, tensors: dict[str, np.ndarray], **changes: Any) -> RenderOrder:
    given = tuple(GivenTensor(name=name, shape=value.shape, values=value.tobytes()) for name, value in tensors.items())
    scheduler = model.spec.facts.schedulers[0]
    return wave_order(**{"seconds": SOUND_S, "scheduler": scheduler, "tensors": given, **changes})


def stock(model: LatentDiffusion, wanted: RenderOrder, tensors: dict[str, np.ndarray], **more: Any) -> torch.Tensor:
    """Render an order by the stock pipeline with the same tensors: (1, channels, frames)."""
    kind: Any = more.pop("kind", type(model.pipeline))
    pipeline = kind(
        **{**model.pipeline.components, "scheduler": make_scheduler(wanted.scheduler, model.scheduler_config)}
    )
    pipeline.set_progress_bar_config(disable=True)
    values = {
        name: torch.from_numpy(value).long() if name.endswith("mask") else torch.from_numpy(value)
        for name, value in tensors.items()
    }
    accepted = inspect.signature(kind.__call__).parameters
    lengths = ("audio_length_in_s", "audio_end_in_s", "audio_duration", "duration")
    length = next(name for name in lengths if name in accepted)
    texts: dict[str, Any] = {} if "prompt_embeds" in values else {"prompt": wanted.inputs.prompt}
    guidance = {"guidance_scale": wanted.guidance} if "guidance_scale" in accepted else {}
    sound = pipeline(
        **texts,
        **values,
        **guidance,
        **{length: wanted.seconds, **more},
        num_inference_steps=wanted.steps,
        generator=[torch.Generator().manual_seed(wanted.seeds[0])],
    ).audios
    sound = torch.as_tensor(sound)
    sound = sound[:, None] if sound.dim() == 2 else sound
    return sound[:, :, : int(wanted.seconds * model.latent_layout.rate)]


def assert_equals_stock(
    model: LatentDiffusion, tensors: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> None:
    wanted = order(model, tensors, **changes)
    made = render(model, wanted)
    with monkeypatch.context() as patch:
        hear_as_transformers_4(model, patch)
        assert_equal_sounds(made, stock(model, wanted, tensors))


@pytest.mark.parametrize("guidance", [3.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("name", MODELS)
def test_given_tensors_order_with_all_tensors_equals_stock(
    model_of: Callable[[str], LatentDiffusion],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    guidance: float,
):
    parts = (PROMPT, NEGATIVE, LATENTS) if guidance > 1.0 else (PROMPT, LATENTS)
    tensors = tensors_of(request.getfixturevalue(name), parts)
    assert_equals_stock(model_of(name), tensors, monkeypatch, guidance=guidance)


@pytest.mark.parametrize("guidance", [3.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("name", TEXT_MODELS)
def test_given_tensors_order_with_prompt_tensors_and_text_of_negative_prompt_equals_stock(
    model_of: Callable[[str], LatentDiffusion],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    guidance: float,
):
    # Stable Audio 3's pipeline joins both prompts as they are, and encodes the negative one to the whole window
    tokens = WINDOW_TOKENS if name == "stable_audio_3" else TOKEN_COUNT
    tensors = tensors_of(request.getfixturevalue(name), (PROMPT,), tokens=tokens)
    assert_equals_stock(model_of(name), tensors, monkeypatch, guidance=guidance)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_given_tensors_order_with_tensors_without_masks_equals_stock(
    model_of: Callable[[str], LatentDiffusion],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
):
    tensors = tensors_of(request.getfixturevalue(name), (PROMPT, NEGATIVE), masked=False)
    assert_equals_stock(model_of(name), tensors, monkeypatch)


@pytest.mark.parametrize("name", MODELS)
def test_given_tensors_order_with_latents_and_text_equals_stock(
    model_of: Callable[[str], LatentDiffusion],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
):
    tensors = tensors_of(request.getfixturevalue(name), (LATENTS,))
    assert_equals_stock(model_of(name), tensors, monkeypatch, inputs=PromptInputs(prompt="a bell"), guidance=1.0)


def number(value: float) -> np.ndarray:
    return np.array(value, "<f4")


def text(words: str) -> np.ndarray:
    return np.frombuffer(words.encode(), np.uint8).astype("<f4")


NUMBERS: dict[str, tuple[str, dict[str, np.ndarray], dict[str, Any]]] = {
    "start": ("stable_audio", {"audio_start_in_s": number(0.1)}, {"audio_start_in_s": 0.1, "audio_end_in_s": 0.5}),
    "padding": ("stable_audio_3", {"silence_padding_duration": number(0.3)}, {"silence_padding_duration": 0.3}),
    "log SNR": (
        "stable_audio_3",
        {"logsnr_min": number(-4.0), "logsnr_max": number(1.5)},
        {"logsnr_min": -4.0, "logsnr_max": 1.5},
    ),
    "shift": ("ace_step", {"shift": number(1.5)}, {"shift": 1.5}),
    "timesteps": ("ace_step", {"timesteps": np.array([1.0, 0.7, 0.5, 0.2], "<f4")}, {"timesteps": [1, 0.7, 0.5, 0.2]}),
    "guided steps": (
        "ace_step_base",
        {"cfg_interval_start": number(0.2), "cfg_interval_end": number(0.5)},
        {"cfg_interval_start": 0.2, "cfg_interval_end": 0.5},
    ),
    "lengths": (
        "ace_step",
        {"max_text_length": number(20), "max_lyric_length": number(9)},
        {"max_text_length": 20, "max_lyric_length": 9},
    ),
    "instruction": ("ace_step", {"instruction": text("Sing like a whale:")}, {"instruction": "Sing like a whale:"}),
    "codes": (
        "ace_step",
        {"audio_codes": np.array([3, 17, 25, 9, 40], "<f4")},
        {"audio_codes": "".join(f"<|audio_code_{code}|>" for code in (3, 17, 25, 9, 40))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NUMBERS)
def test_given_tensors_order_with_numbers_equals_stock(model_of: Callable[[str], LatentDiffusion], case: str):
    name, tensors, parameters = NUMBERS[case]
    model = model_of(name)
    words = PromptInputs(prompt="a bell in a room", lyrics="la la hey" if name.startswith("ace_step") else "")
    wanted = order(model, tensors, inputs=words)
    if words.lyrics:
        parameters = {**parameters, "lyrics": words.lyrics}
    made = render(model, wanted)
    assert_equal_sounds(made, stock(model, wanted, {}, **parameters)[:, :, : made.shape[1]])
    assert np.abs(made - render(model, order(model, {}, inputs=words))).max() > TOLERANCE


def test_given_tensors_stream_from_a_later_start_equals_whole(model_of: Callable[[str], LatentDiffusion]):
    model = model_of("stable_audio")
    generation = model.begin(order(model, {"audio_start_in_s": number(0.1)}, steps=2))
    while not generation.sampler.done:
        model.advance([generation])
    whole, stream = model.decode(generation).waveforms, model.begin_stream(generation)
    pieces = [piece.samples for piece in iter(lambda: None if stream.done else stream.render_piece(), None)]
    np.testing.assert_allclose(torch.cat(pieces, dim=1).numpy(), whole, atol=1e-5)


def test_given_tensors_order_with_init_audio_and_all_tensors_equals_stock(
    model_of: Callable[[str], LatentDiffusion], stable_audio_3: Path
):
    model, sound = model_of("stable_audio_3"), stereo_sound(SOUND_S)
    tensors = tensors_of(stable_audio_3, (PROMPT, LATENTS))
    wanted = order(model, tensors, init_audio=init_audio(sound, strength=0.6), guidance=1.0)
    kind: Any = diffusers.StableAudio3AudioToAudioPipeline
    audio = torch.from_numpy(np.ascontiguousarray(sound.T))[None]
    expected = stock(model, wanted, tensors, kind=kind, audio=audio, init_noise_level=0.6)
    assert_equal_sounds(render(model, wanted), expected)


@pytest.mark.parametrize("name", TEXT_MODELS)
@pytest.mark.parametrize("part", [PROMPT, NEGATIVE, LATENTS])
def test_given_tensors_every_part_of_the_tensors_changes_the_sound(
    model_of: Callable[[str], LatentDiffusion], request: pytest.FixtureRequest, name: str, part: str
):
    model, folder = model_of(name), request.getfixturevalue(name)
    tensors = tensors_of(folder, (PROMPT, NEGATIVE, LATENTS))
    changed = {**tensors, **tensors_of(folder, (part,), seed=9)}
    assert np.abs(render(model, order(model, tensors)) - render(model, order(model, changed))).max() > 2 * TOLERANCE


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_given_tensors_orders_with_tensors_and_with_texts_step_in_one_batch_as_alone(
    model_of: Callable[[str], LatentDiffusion], request: pytest.FixtureRequest, name: str
):
    model = model_of(name)
    tensors = tensors_of(request.getfixturevalue(name), (PROMPT, NEGATIVE, LATENTS))
    wanted = [order(model, tensors), order(model, {}, seeds=(3,))]
    alone = [render(model, one) for one in wanted]
    generations = [model.begin(one) for one in wanted]
    together = [generations] if generations[0].shape == generations[1].shape else [[one] for one in generations]
    for batch in together:
        while not batch[0].sampler.done:
            model.advance(batch)
    for generation, expected in zip(generations, alone, strict=True):
        np.testing.assert_allclose(model.decode(generation).waveforms, expected, atol=1e-4)

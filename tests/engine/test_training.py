"""Training of LoRAs on tiny checkpoints: the loss falls, the sound changes, and interruptions leave no trace."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from msgspec.structs import replace

from tests.engine.families.renders import load, render, wave_order
from timbred.engine.training import Trainer, train
from timbred.errors import BadAudio, BadRequest, ModelError
from timbred.models.lora import LoraRegistry, add
from timbred.models.registry import build
from timbred.models.training_set import TrainingOrder, TrainingReport, decode_line, encode_line, find_sounds
from timbred.requests.loras import LoraHandlers, format_loras

RATE_HZ = 16_000
STEP_COUNT = 24
AUDIBLE_SHARE = 0.01
"""Share of a sound's peak by which training must change it: random vocoders are silent, so that it's no fixed level."""


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder with a mono tone, captioned by its name, and stereo noise, captioned by its text."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    time = np.arange(RATE_HZ // 2) / RATE_HZ
    soundfile.write(folder / "low_tone-01.wav", 0.5 * np.sin(2 * np.pi * 220 * time), RATE_HZ)
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (RATE_HZ, 2))
    soundfile.write(folder / "02.wav", noise, RATE_HZ)
    (folder / "02.txt").write_text("rain on tin\n")
    return folder


@pytest.fixture
def make_order(tmp_path: Path, sounds: Path) -> Callable[..., TrainingOrder]:
    """Return a function that makes the order to train a LoRA of a checkpoint."""

    def make(folder: Path, **changes: Any) -> TrainingOrder:
        card = build(tmp_path / "models", {"tiny": str(folder)})["tiny"].card
        plain: dict[str, Any] = {
            "name": "warm",
            "model": "tiny",
            "model_folder": str(folder),
            "loras_folder": str(tmp_path / "loras"),
            "sounds": find_sounds(sounds),
            "steps": STEP_COUNT,
            "preview_steps": 0,
            "learning_rate": 0.03,
            "rank": 4,
            "batch": 2,
            "seconds": 0.5,
            "min_seconds": card.min_seconds,
            "channels": card.channels,
            "scheduler": card.scheduler,
            "render_steps": 2,
            "guidance": 1.0,
            "seed": 3,
            "device": "cpu",
        }
        return TrainingOrder(**{**plain, **changes})

    return make


def reports_of(order: TrainingOrder) -> list[TrainingReport]:
    reports: list[TrainingReport] = []
    train(order, reports.append)
    return reports


def matrices(order: TrainingOrder) -> bytes:
    return (order.files.matrices / "adapter_model.safetensors").read_bytes()


@pytest.fixture(params=["audioldm", "audioldm2", "stable_audio", "stable_audio_3", "ace_step"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_train_lowers_the_loss_and_changes_the_sound(
    folder: Path, tmp_path: Path, make_order: Callable[..., TrainingOrder]
) -> None:
    order = make_order(folder, preview_steps=STEP_COUNT)
    reports = reports_of(order)
    losses = [report.mean_loss for report in reports if report.mean_loss is not None]
    assert losses[-1] < 0.99 * losses[0], losses
    assert [report.read for report in reports if report.read] == [1, 2]
    assert [report.step for report in reports if report.loss is not None] == list(range(1, STEP_COUNT + 1))
    first, last = (soundfile.read(report.preview)[0] for report in reports if report.preview)
    assert first.shape == last.shape
    assert np.abs(first - last).max() > AUDIBLE_SHARE * np.abs(first).max() > 0
    assert reports[-1].is_finished

    entry = build(tmp_path / "models", {"tiny": str(folder)})["tiny"]
    registry = LoraRegistry(tmp_path / "loras", build(tmp_path / "models", {"tiny": str(folder)}))
    add(order.files.matrices, "warm", registry, "tiny")
    assert [(listed.name, listed.rank, listed.state) for listed in registry.entries()] == [("warm", 4, "available")]
    silent: Any = None  # resolving tells clients nothing
    (use,) = LoraHandlers(silent, registry).resolve("warm:1", entry)
    assert format_loras((use,)).startswith("warm#"), "recipes name it"
    model = load(folder)
    plain = wave_order(steps=2, guidance=1.0, scheduler=entry.card.scheduler)
    without, trained = render(model, plain), render(model, replace(plain, loras=(use,)))
    assert np.abs(trained - without).max() > AUDIBLE_SHARE * np.abs(without).max() > 0


def test_train_continues_as_if_it_had_not_been_interrupted(
    audioldm: Path, tmp_path: Path, make_order: Callable[..., TrainingOrder]
) -> None:
    whole = make_order(audioldm, steps=9, loras_folder=str(tmp_path / "whole"))
    reports_of(whole)
    parts = make_order(audioldm, steps=9, loras_folder=str(tmp_path / "parts"))
    reports: list[TrainingReport] = []
    train(parts, reports.append, lambda: any(report.step == 5 for report in reports))
    assert not parts.files.matrices.exists()
    assert (reports[-1].step, reports[-1].is_finished) == (5, False)
    continued = reports_of(parts)
    assert [report.step for report in continued if report.loss is not None] == [6, 7, 8, 9]
    assert continued[-1].is_finished
    assert matrices(parts) == matrices(whole)


def test_train_that_fails_saves_the_steps_before(audioldm: Path, make_order: Callable[..., TrainingOrder]) -> None:
    order = make_order(audioldm, steps=6)
    reports: list[TrainingReport] = []

    def report(progress: TrainingReport) -> None:
        reports.append(progress)
        if progress.step == 4:
            raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError):
        train(order, report)
    steps = [progress.step for progress in reports_of(order) if progress.loss is not None]
    assert steps == [5, 6]


def test_train_names_a_learning_rate_that_is_too_high(audioldm: Path, make_order: Callable[..., TrainingOrder]) -> None:
    order = make_order(audioldm, learning_rate=1e30)
    with pytest.raises(ModelError, match=r"failed at step \d+: .* use a lower --learning-rate than 1e\+30"):
        train(order, lambda _: None)


def test_train_refuses_the_state_of_another_training(
    audioldm: Path, sounds: Path, make_order: Callable[..., TrainingOrder]
) -> None:
    order = make_order(audioldm, steps=3)
    reports_of(order)
    with pytest.raises(BadRequest, match=r"--steps: got 2, and the training of warm has done 3 already"):
        reports_of(replace(order, steps=2))
    for changed in ({"rank": 2}, {"seed": 4}, {"seconds": 0.4}, {"sounds": order.sounds[:1]}):
        with pytest.raises(BadRequest, match="trained with other sounds or options before"):
            reports_of(replace(order, **changed))
    (sounds / "02.txt").write_text("hail")
    with pytest.raises(BadRequest, match="trained with other sounds or options before"):
        reports_of(replace(order, sounds=find_sounds(sounds)))
    content = order.files.state.read_bytes()
    for damaged in (content[:-5], content[:20], b"", b"\x80\x04pickled", content.replace(b'"step"', b'"stop"')):
        order.files.state.write_bytes(damaged)
        with pytest.raises(BadRequest, match=r"is damaged \(.*\); start anew with --restart"):
            reports_of(order)


@pytest.mark.parametrize("content", [b"", b"RIFF no sound"])
def test_train_names_a_file_that_is_no_sound(
    audioldm: Path, sounds: Path, make_order: Callable[..., TrainingOrder], content: bytes
) -> None:
    (sounds / "broken.wav").write_bytes(content)
    with pytest.raises(BadAudio, match=r"broken\.wav"):
        reports_of(make_order(audioldm, sounds=find_sounds(sounds)))


def test_train_renders_a_preview_that_was_stopped_when_it_is_continued(
    audioldm: Path, make_order: Callable[..., TrainingOrder]
) -> None:
    order = make_order(audioldm, steps=4, preview_steps=2, render_steps=3)
    reports: list[TrainingReport] = []
    calls_after_step = [0]

    def is_stopped() -> bool:
        if reports and reports[-1].step == 2:
            calls_after_step[0] += 1
        return calls_after_step[0] == 3  # before the preview, before its first step, before its second step

    train(order, reports.append, is_stopped)
    assert (reports[-1].step, reports[-1].is_finished) == (2, False)
    assert [path.name for path in order.files.existing_previews()] == ["step-000000.wav"]
    previews = [report.preview for report in reports_of(order) if report.preview]
    assert previews == [str(order.files.preview(step)) for step in (2, 4)]


def test_train_keeps_paths_that_are_not_utf8(
    audioldm: Path, sounds: Path, make_order: Callable[..., TrainingOrder]
) -> None:
    if sys.platform != "linux":
        pytest.skip("names are UTF-8 on this system")
    (sounds / "02.txt").unlink()
    (sounds / "02.wav").rename(sounds / os.fsdecode(b"kl\xe4nge.wav"))
    order = make_order(audioldm, steps=1, sounds=find_sounds(sounds))
    assert sorted(sound.caption for sound in order.sounds) == ["kl nge", "low tone"]
    assert reports_of(decode_line(encode_line(order), TrainingOrder))[-1].is_finished


def test_train_leaves_out_silent_parts(audioldm: Path, sounds: Path, make_order: Callable[..., TrainingOrder]) -> None:
    tone = soundfile.read(sounds / "low_tone-01.wav")[0]
    soundfile.write(sounds / "low_tone-01.wav", np.concatenate([tone, np.zeros(4 * RATE_HZ), tone]), RATE_HZ)
    order = make_order(audioldm, sounds=find_sounds(sounds)[1:])
    trainer = Trainer(order, load(audioldm), lambda _: None)
    trainer.read_sounds()
    assert len(trainer.examples) == 2
    soundfile.write(sounds / "low_tone-01.wav", np.zeros(RATE_HZ), RATE_HZ)
    with pytest.raises(BadAudio, match=r"low_tone-01\.wav: the sound is silent; remove it"):
        reports_of(order)


def test_train_stopped_before_its_first_step_changes_nothing(
    audioldm: Path, make_order: Callable[..., TrainingOrder]
) -> None:
    order = make_order(audioldm, steps=2)
    train(order, lambda _: None, lambda: True)
    assert not order.files.matrices.exists()
    first, second = reports_of(order), make_order(audioldm, steps=2, name="whole")
    assert first[-1].is_finished
    reports_of(second)
    assert matrices(order) == matrices(second)


def test_trainer_cuts_long_sounds_into_parts(audioldm: Path, make_order: Callable[..., TrainingOrder]) -> None:
    order = make_order(audioldm, seconds=0.3)
    trainer = Trainer(order, load(audioldm), lambda _: None)
    trainer.read_sounds()
    assert trainer.measure_loss() == trainer.measure_loss()
    # 1 s of noise are three parts, 0.1 s at the end is left out; half a second of tone are two parts
    assert len(trainer.examples) == 3 + 2


def test_trainer_says_that_peft_is_missing(
    audioldm: Path, make_order: Callable[..., TrainingOrder], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(audioldm)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match="training needs the package peft"):
        Trainer(make_order(audioldm), model, lambda _: None)


def test_trainer_changes_only_its_own_matrices(audioldm: Path, make_order: Callable[..., TrainingOrder]) -> None:
    model = load(audioldm)
    before = {name: weight.clone() for name, weight in model.denoiser.network.state_dict().items()}
    order = make_order(audioldm, steps=2)
    trainer = Trainer(order, model, lambda _: None)
    trainer.read_sounds()
    trainer.run()
    after = {
        name.replace(".base_layer", ""): weight
        for name, weight in model.denoiser.network.state_dict().items()
        if "lora_" not in name
    }
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())

"""Renders of a small untrained model of the family pocket, loaded from its exported folder, and of the embedded one."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch

from tests.training.pocket.test_export import small
from timbred.engine.codecs.bands import Frames
from timbred.engine.families.base import WARM_UP_SECONDS, LatentDiffusion
from timbred.engine.families.pocket import PocketCodec, load_pipeline
from timbred.engine.model_manager import make_resident
from timbred.errors import ModelError
from timbred.ipc.engine_messages import InitAudio, PromptInputs, RenderOrder, Repaint
from timbred.ipc.player_messages import Moment
from timbred.models import checkpoint, registry
from timbred.models.pocket import CARD_NAME, SAMPLE_RATE, WEIGHTS_NAME
from timbred.player.beat_grid import BeatGrid
from timbred.player.mixer.mixer import Mixer
from timbred.player.mixer.voice import StartVoice, VoiceSource
from training.pocket import measures
from training.pocket.export import export

CAPTIONS = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pocket")
    export(small(), path, CAPTIONS)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> LatentDiffusion:
    found = checkpoint.inspect(folder, "pocket", "install it again")
    return make_resident(found, "pocket", torch.device("cpu"), torch.float32, lambda _: None)


@pytest.fixture(scope="module")
def embedded() -> LatentDiffusion:
    found = registry.build(registry.pocket_folder(), {})["pocket"].checkpoint()
    return make_resident(found, "pocket", torch.device("cpu"), torch.float32, lambda _: None)


def order(prompt: str = "grand piano c4", **changes: Any) -> RenderOrder:
    fields: dict[str, Any] = {"seconds": 0.5, "steps": 2, "guidance": 1.0, "eta": 0.0, "scheduler": "flow-euler"}
    fields |= {"inputs": PromptInputs(prompt=prompt), "seeds": (1,)}
    return RenderOrder(**(fields | changes))


def render(model: LatentDiffusion, wanted: RenderOrder) -> np.ndarray:
    return model.render(wanted, lambda _: None, lambda: False).waveforms


def tone(seconds: float = 0.5) -> bytes:
    wave = 0.5 * np.sin(2 * np.pi * 440.0 / SAMPLE_RATE * np.arange(round(seconds * SAMPLE_RATE)))
    return np.stack((wave, wave), axis=1).astype("<f4").tobytes()


def test_pocket_renders_stereo_of_the_exact_length(model: LatentDiffusion) -> None:
    for seconds in (0.3, 0.512, 1.0):
        assert render(model, order(seconds=seconds)).shape == (1, round(seconds * SAMPLE_RATE), 2)


def test_pocket_repeats_a_sound_with_its_seed(model: LatentDiffusion) -> None:
    first, again = (render(model, order(seeds=(7, 8))) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


def test_pocket_take_alone_equals_take_in_a_batch(model: LatentDiffusion) -> None:
    alone, both = render(model, order(seeds=(8,))), render(model, order(seeds=(7, 8)))
    assert np.allclose(alone[0], both[1], atol=1e-4)


def test_pocket_batches_requests_of_one_length(model: LatentDiffusion) -> None:
    orders = [order("rain", seeds=(3,)), order("a kick", seeds=(4,))]
    generations = [model.begin(wanted) for wanted in orders]
    assert generations[0].shape == generations[1].shape
    while not generations[0].sampler.done:
        model.advance(generations)
    for wanted, generation in zip(orders, generations, strict=True):
        assert np.allclose(model.decode(generation).waveforms, render(model, wanted), atol=1e-4)


def test_pocket_negative_prompt_changes_a_guided_sound(model: LatentDiffusion) -> None:
    plain, guided = (
        render(model, order(inputs=PromptInputs(prompt="pad c3", negative=negative), guidance=3.0))
        for negative in ("", "noise")
    )
    assert not np.array_equal(plain, guided)


def test_pocket_loop_has_its_exact_length_and_no_seam(model: LatentDiffusion) -> None:
    sounds = model.render(order("techno drum loop", loop=True, seconds=0.6187), lambda _: None, lambda: False)
    loop = sounds.waveforms[0]
    assert sounds.looped == (True,)
    assert len(loop) == round(0.6187 * SAMPLE_RATE)
    steps = np.abs(np.diff(np.concatenate((loop, loop[:1])), axis=0))
    assert steps[-1].max() <= np.quantile(steps, 0.999)


def test_pocket_sound_is_nearer_to_init_audio_with_less_strength(model: LatentDiffusion) -> None:
    distances: list[float] = []
    for strength in (0.1, 0.5, 1.0):
        generation = model.begin(order("a kick", init_audio=InitAudio(samples=tone(), channels=2, strength=strength)))
        while not generation.sampler.done:
            model.advance([generation])
        init = generation.sampler.init_latents
        assert init is not None
        distances.append(float((generation.sampler.latents - init.latents).norm()))
    assert distances == sorted(distances)
    assert distances[0] < 0.9 * distances[2]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1e5), (4000.0, 1e5)])
def test_pocket_repaint_keeps_the_bands_of_the_rest(model: LatentDiffusion, low: float, high: float) -> None:
    region = Repaint(start=0.25, end=0.5, low=low, high=high)
    init = InitAudio(samples=tone(), channels=2, strength=1.0, repaint=(region,))
    sound = render(model, order("noise", init_audio=init))[0, :, 0]
    kept = sound[: SAMPLE_RATE // 5]
    spectrum = np.abs(np.fft.rfft(kept * np.hanning(len(kept))))
    assert abs(np.argmax(spectrum) * SAMPLE_RATE / len(kept) - 440.0) < 6.0


def test_pocket_repaint_begins_a_new_sound_in_its_region(model: LatentDiffusion) -> None:
    region = Repaint(start=1.5, end=2.0, low=0.0, high=1e5)
    init = InitAudio(samples=tone(2.5), channels=2, strength=1.0, repaint=(region,))
    sound = render(model, order("a snare", seconds=2.5, init_audio=init))[0]
    begun = sound[round(1.5 * SAMPLE_RATE) : round(1.6 * SAMPLE_RATE)]
    assert float(np.abs(begun).max()) > 0.05, "a snare of the whole length would be over here"


def test_pocket_peak_is_that_of_the_training(model: LatentDiffusion) -> None:
    for prompt in ("grand piano c4", "rain", "a kick with reverb"):
        assert float(np.abs(render(model, order(prompt))).max()) == pytest.approx(0.9, abs=1e-3)


def test_pocket_without_refinement_renders_its_sketch(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    card = json.loads((tmp_path / CARD_NAME).read_text())
    (tmp_path / CARD_NAME).write_text(json.dumps(card | {"refinement": 0.0}))
    found = checkpoint.inspect(tmp_path, "pocket", "install it again")
    plain = make_resident(found, "pocket", torch.device("cpu"), torch.float32, lambda _: None)
    few, many = (render(plain, order(steps=steps)) for steps in (1, 5))
    assert np.array_equal(few, many), "the number of steps has no influence without the generator's changes"


def test_pocket_without_a_generator_renders_its_sketch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pocket = small()
    pocket.generator = None
    assert export(pocket, tmp_path, CAPTIONS) < sum(path.stat().st_size for path in folder.iterdir())
    found = checkpoint.inspect(tmp_path, "pocket", "install it again")
    plain = make_resident(found, "pocket", torch.device("cpu"), torch.float32, lambda _: None)
    monkeypatch.setattr(PocketCodec, "encode", None)  # there is nothing to encode for
    steps: list[int] = []
    plain.render(order(steps=3), steps.append, lambda: False)
    assert steps == [1, 2, 3]
    few, many = (render(plain, order("noise", steps=count)) for count in (1, 5))
    assert np.array_equal(few, many)
    region = Repaint(start=0.25, end=0.5, low=0.0, high=1e5)
    for changes in (
        {"loop": True},
        {"init_audio": InitAudio(samples=tone(), channels=2, strength=1.0, repaint=(region,))},
    ):
        assert render(plain, order("noise", **changes)).shape == (1, SAMPLE_RATE // 2, 2)


def test_pocket_warms_up_by_a_short_sound(
    model: LatentDiffusion, embedded: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator isn't run for a shape that no request has asked for."""
    rendered: list[int] = []

    def count_samples(frames: Frames, samples: int, seed: int, circle: bool) -> torch.Tensor:
        rendered.append(samples)
        return torch.zeros(2, samples)

    monkeypatch.setattr("timbred.engine.families.pocket.synthesise", count_samples)
    embedded.warm_up()
    assert rendered == [round(WARM_UP_SECONDS * SAMPLE_RATE)]
    model.warm_up()
    assert len(rendered) == 1


def test_pocket_previews_the_predicted_sound(model: LatentDiffusion) -> None:
    generation = model.begin(order(seeds=(1, 2)))
    model.advance([generation])
    assert model.preview(generation).waveforms.shape == (1, SAMPLE_RATE // 2, 2)


def test_pocket_streams_one_piece(model: LatentDiffusion) -> None:
    generation = model.begin(order())
    while not generation.sampler.done:
        model.advance([generation])
    stream = model.begin_stream(generation)
    piece = stream.render_piece()
    assert stream.done
    assert piece is not None
    assert piece.samples.shape == (1, SAMPLE_RATE // 2, 2)


def test_pocket_ear_compares_sounds_with_prompts(model: LatentDiffusion) -> None:
    sounds = model.render(order("rain", seeds=(1, 2)), lambda _: None, lambda: False)
    embeddings = model.clap.embed_takes(sounds)
    assert np.allclose(np.linalg.norm(embeddings.vectors, axis=1), 1.0, atol=1e-5)
    scores = model.clap.score_takes("rain", embeddings)
    assert len(scores) == 2
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert np.allclose(model.clap.embed_sound(sounds.waveforms[0] * 0.1, SAMPLE_RATE), embeddings.vectors[0], atol=0.01)


def level_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(samples**2)))


def test_pocket_extension_has_the_level_of_what_it_continues(embedded: LatentDiffusion) -> None:
    """Of a sound that is far softer than those of the training."""
    prompt = "church organ a3"
    sound = 0.1 * render(embedded, order(prompt, seconds=1.5, steps=4))[0]
    init = InitAudio(samples=sound.astype("<f4").tobytes(), channels=2, strength=1.0)
    wanted = order(prompt, seconds=3.0, window=10.0, steps=4, seeds=(1, 2), init_audio=init)
    second = SAMPLE_RATE
    for waveform in render(embedded, wanted):
        before, after = waveform[second // 2 : second * 5 // 4], waveform[second * 7 // 4 : second * 5 // 2]
        assert abs(level_db(after) - level_db(before)) < 4


def test_pocket_extension_continues_without_a_step(embedded: LatentDiffusion) -> None:
    sound = render(embedded, order("church organ a3", seconds=1.5, steps=4))[0]
    init = InitAudio(samples=sound.astype("<f4").tobytes(), channels=2, strength=1.0)
    longer = render(embedded, order("church organ a3", seconds=3.0, window=10.0, steps=4, init_audio=init))[0]
    steps = np.abs(np.diff(longer[:, 0]))
    join = len(sound)
    assert steps[join - 4000 : join + 4000].max() <= 1.5 * steps[join // 2 : join - 4000].max()


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize(
    ("prompt", "hertz"), [("church organ a3", 220.0), ("violin g#4", 415.305), ("flute c5", 523.251)]
)
def test_pocket_named_note_is_the_pitch(embedded: LatentDiffusion, prompt: str, hertz: float, loop: bool) -> None:
    """Within 25 cents, around a loop too."""
    mono = render(embedded, order(prompt, seconds=1.5, steps=4, loop=loop))[0].mean(axis=1)
    pitches = librosa.yin(mono, fmin=60, fmax=2000, sr=SAMPLE_RATE, frame_length=4096)
    assert abs(1200 * np.log2(np.median(pitches[8:-8]) / hertz)) < 25


@pytest.mark.parametrize("damage", ["missing", "shape", "nan", "short"])
def test_load_pipeline_refuses_damaged_tensors(folder: Path, tmp_path: Path, damage: str) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / WEIGHTS_NAME
    tensors = load_file(path)
    if damage == "missing":
        del tensors["text.places"]
    elif damage == "shape":
        tensors["bank"] = tensors["bank"][1:].clone()
    elif damage == "nan":
        tensors["codec.encoder.place"][0] = torch.nan
    save_file(tensors, path)
    if damage == "short":
        path.write_bytes(path.read_bytes()[:-100])
    name = {"missing": "text.places is missing", "shape": "bank has the shape", "nan": "NaN", "short": "damaged"}[
        damage
    ]
    with pytest.raises(ModelError, match=name):
        load_pipeline(tmp_path / "model", "pocket", lambda _: None)


def test_load_pipeline_refuses_sizes_of_other_tensors(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / CARD_NAME
    card = json.loads(path.read_text())
    card["sizes"]["text"]["layers"] = 2
    path.write_text(json.dumps(card))
    with pytest.raises(ModelError, match="is missing in"):
        load_pipeline(tmp_path / "model", "pocket", lambda _: None)
    card["sizes"]["text"]["layers"] = 64
    card["sizes"]["generator"]["blocks"] = 64
    card["sizes"]["generator"]["expansion"] = 4096
    path.write_text(json.dumps(card))
    with pytest.raises(ModelError, match="fewer values"):
        load_pipeline(tmp_path / "model", "pocket", lambda _: None)


GUIDE = (Path(__file__).parents[3] / "docs" / "guide.md").read_text("utf-8")
ASKED = GUIDE.partition("\n## What pocket can be asked for\n")[2].partition("\n## ")[0]
EXAMPLES = [
    prompt
    for _, examples in re.findall(r"^\| ([^|`]+) \| (`.+`) \|$", ASKED, re.MULTILINE)
    for prompt in re.findall(r"`(.+?)`", examples)
]


def test_pocket_knows_every_example_of_the_guide(embedded: LatentDiffusion) -> None:
    shares = {prompt: embedded.begin(order(prompt, seconds=0.5)).knows for prompt in (*EXAMPLES, "dog barking")}
    assert len(EXAMPLES) >= 25
    assert [prompt for prompt in EXAMPLES if (shares[prompt] or 0.0) < 0.9] == []
    assert "`dog barking`" in ASKED
    assert shares["dog barking"] == 0.0


MELODY = (
    ("violin", "a4", 69), ("flute", "c5", 72), ("trumpet", "g4", 67), ("clarinet", "e4", 64), ("cello", "c3", 48),
    ("church organ", "c4", 60), ("grand piano", "d4", 62), ("choir aah", "f4", 65),
)  # fmt: skip
TRANSCRIPTION_RATE = 11_025
TRANSCRIPTION_HOP = 512


def test_pocket_melody_of_eight_instruments_is_transcribed_without_an_error(embedded: LatentDiffusion) -> None:
    sounds = [render(embedded, order(f"{kind} {name}", seconds=1.0, steps=4))[0] for kind, name, _ in MELODY]
    melody = librosa.resample(np.concatenate(sounds).mean(axis=1), orig_sr=SAMPLE_RATE, target_sr=TRANSCRIPTION_RATE)
    hertz, is_voiced, _ = librosa.pyin(
        melody, fmin=65.0, fmax=1100.0, sr=TRANSCRIPTION_RATE, frame_length=1024, hop_length=TRANSCRIPTION_HOP
    )
    heard: list[int] = []
    for number in range(len(MELODY)):
        first, last = (round((number + share) * TRANSCRIPTION_RATE / TRANSCRIPTION_HOP) for share in (0.1, 0.7))
        assert is_voiced[first:last].mean() > 0.9
        heard.append(round(float(np.median(librosa.hz_to_midi(hertz[first:last][is_voiced[first:last]])))))
    assert heard == [note for _, _, note in MELODY]


LOOP_BPM = 97.0
PLAYED_SECONDS = 60
STRONG_SHARE = 0.5
"""Strength of an onset, relative to the strongest, from which on it belongs to a hit on the grid."""


def test_pocket_drum_loop_stays_with_a_click_for_a_minute(embedded: LatentDiffusion) -> None:
    """The player's mixer repeats two bars; their onsets lie on the click's sixteenths, in the last as in the first."""
    inputs = PromptInputs(prompt="house drum loop", bpm=LOOP_BPM)
    seconds = 2 * 4 * 60 / LOOP_BPM
    loop = render(embedded, order(inputs=inputs, seconds=seconds, steps=4, loop=True))[0]
    assert len(loop) == round(seconds * SAMPLE_RATE)
    grid = BeatGrid(SAMPLE_RATE, LOOP_BPM)
    mixer = Mixer(SAMPLE_RATE, 2, grid, limit=False)
    mixer.play(StartVoice(1, 1, VoiceSource(loop, SAMPLE_RATE, True)), Moment(kind="number", number=0.0))
    played = np.concatenate([mixer.render(SAMPLE_RATE) for _ in range(PLAYED_SECONDS)]).mean(axis=1)
    repeats = int(PLAYED_SECONDS / seconds)
    counts: list[int] = []
    for repeat in (0, repeats - 1):
        first_frame = grid.frame_of(8.0 * repeat)
        times, strengths = measures.onsets(played[first_frame : first_frame + len(loop)])
        hits = first_frame + times[strengths > STRONG_SHARE * strengths.max()] * SAMPLE_RATE
        sixteenths = np.array([grid.frame_of(8.0 * repeat + step / 4) for step in range(33)])
        distances = np.abs(hits[:, None] - sixteenths).min(axis=1)
        assert distances.max() < 0.015 * SAMPLE_RATE
        counts.append(len(hits))
    assert counts[0] == counts[1] >= 4

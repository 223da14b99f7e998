"""A note that a prompt names is the note that sounds."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.families.test_latent_diffusion import order
from timbred.engine.codecs.spectral_vocoder import (
    HIGHEST_MIDI_NOTE,
    LOWEST_MIDI_NOTE,
    NamedNote,
    named_note,
    note_hertz,
)
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import InitAudio, PromptInputs
from timbred.models import registry
from training import features
from training.captions import note_name

WORDS = st.sampled_from(["a warm organ", "Bass", "lead,", "808", "mp3", "a-flat", "b 4 bars", "r2d2", "c64", "4x4", ""])


@given(
    note=st.integers(LOWEST_MIDI_NOTE, HIGHEST_MIDI_NOTE),
    flats=st.booleans(),
    upper=st.booleans(),
    before=WORDS,
    after=WORDS,
)
def test_named_note_reads_a_note(note: int, flats: bool, upper: bool, before: str, after: str):
    name = note_name(note, flats)
    found = note_hertz(f"{before} {name.upper() if upper else name} {after}")
    assert found == pytest.approx(440.0 * 2 ** ((note - 69) / 12))


@pytest.mark.parametrize(
    "prompt", ["", "a kick drum", "808", "c", "a 4", "mp3", "c64", "r2d2", "bass c2 to e2", "bass c2 rising", "bell c9"]
)
def test_named_note_is_none_without_exactly_one_note(prompt: str):
    assert note_hertz(prompt) is None


def test_note_hertz_between_two_prompts_lies_between_their_notes():
    between = named_note(PromptInputs(prompt="organ a3", prompt2="organ a4", mix=0.5))
    assert between is not None
    assert (between.hertz, between.share) == (pytest.approx(311.127, rel=1e-4), 1.0)
    assert named_note(PromptInputs(prompt="organ a3", prompt2="rain", mix=0.25)) == NamedNote(220.0, 0.75)
    assert named_note(PromptInputs(prompt="rain", prompt2="organ a3", mix=0.25)) == NamedNote(220.0, 0.25)
    assert named_note(PromptInputs(prompt="rain", prompt2="wind", mix=0.5)) is None


@pytest.mark.parametrize(("one", "other"), [("organ a3", "rain"), ("rain", "organ a3"), ("organ a3", "bass c2")])
def test_note_hertz_at_either_end_is_the_plain_prompts_note(one: str, other: str):
    for mix, plain in ((0.0, one), (1.0, other)):
        assert named_note(PromptInputs(prompt=one, prompt2=other, mix=mix)) == named_note(PromptInputs(prompt=plain))


@pytest.fixture(scope="module")
def pocket() -> LatentDiffusion:
    found = registry.build(registry.pocket_folder(), {})["pocket"].checkpoint()
    return make_resident(found, "pocket", torch.device("cpu"), torch.float32, lambda _: None)


def rendered(model: LatentDiffusion, prompt: str, **fields: Any) -> np.ndarray:
    wanted = order(
        **{"inputs": PromptInputs(prompt=prompt), "seconds": 1.5, "steps": 6, "guidance": 1.0, "seeds": (1,)} | fields
    )
    return model.render(wanted, lambda _: None, lambda: False).mono


ASKED = [("organ a3", 220.0), ("long bass note e2", 82.407), ("a synth lead on a4", 440.0), ("brass on g#3", 207.652)]


@pytest.mark.parametrize(("prompt", "hertz"), ASKED)
@pytest.mark.parametrize("loop", [False, True])
def test_note_synthesis_of_pocket_is_in_tune(pocket: LatentDiffusion, prompt: str, hertz: float, loop: bool):
    """Within 5 cents; around a loop, which each harmonic must turn a whole number of times, half a turn is more."""
    for sound in rendered(pocket, prompt, seeds=(1, 2), loop=loop):
        received = features.pitch(sound)
        cents = 5.0 + (1200 * math.log2(1 + 0.5 / 1.5 / hertz) if loop else 0.0)
        assert abs(1200 * math.log2(received / hertz)) < cents, f"{received:.1f} Hz"


def test_note_synthesis_of_a_mix_equals_the_plain_sounds_at_its_ends_and_is_continuous(pocket: LatentDiffusion):
    run = pocket.begin(order(inputs=PromptInputs(prompt="organ a3"), seconds=1.0, steps=4))
    while not run.sampler.done:
        pocket.advance([run])
    mel = pocket.codec.decode_mel(run.sampler.latents)

    def sound(note: NamedNote | None) -> np.ndarray:
        with torch.inference_mode():
            return pocket.codec.with_note(note).chunked_vocoder(mel).vocode().numpy()

    sweep = [sound(NamedNote(220.0, share)) for share in (0.0, 0.01, 0.5, 0.99, 1.0)]
    np.testing.assert_allclose(sweep[0], sound(None), atol=1e-5)
    whole = np.abs(sweep[4] - sweep[0]).max()
    assert np.abs(sweep[1] - sweep[0]).max() < 0.15 * whole
    assert np.abs(sweep[4] - sweep[3]).max() < 0.15 * whole


def test_note_synthesis_leaves_prompts_without_a_note(pocket: LatentDiffusion):
    """Drums, noises and textures are the vocoder's own, to the bit."""
    run = pocket.begin(order(inputs=PromptInputs(prompt="a snare drum"), seconds=1.0, steps=2))
    while not run.sampler.done:
        pocket.advance([run])
    mel = pocket.codec.decode_mel(run.sampler.latents)
    with torch.inference_mode():
        own = pocket.pipeline.vocoder(mel).numpy()
    assert np.array_equal(pocket.decode(run).mono, own[:, :32_000])


def test_note_synthesis_keeps_the_pitch_of_an_original(pocket: LatentDiffusion):
    samples = 0.5 * np.sin(2 * np.pi * 300.0 * np.arange(32_000) / 32_000)
    given_sound = InitAudio(samples=samples.astype("<f4").tobytes(), strength=0.3)
    fields: dict[str, Any] = {"init_audio": given_sound, "seconds": 1.0, "steps": 4}
    run = pocket.begin(order(inputs=PromptInputs(prompt="organ a3"), guidance=1.0, seeds=(1,), **fields))
    while not run.sampler.done:
        pocket.advance([run])
    with torch.inference_mode():
        own = pocket.pipeline.vocoder(pocket.codec.decode_mel(run.sampler.latents)).numpy()
    np.testing.assert_allclose(pocket.decode(run).mono, own[:, :32_000] / run.init_gain, atol=1e-5)

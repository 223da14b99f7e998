"""What a request comes to: defaults, the model's ranges, contradictions."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred import errors
from timbred.dsp.splice import EditedPart
from timbred.models.families import STABLE_AUDIO_3, Capability
from timbred.models.registry import Card
from timbred.protocol.coercion import build
from timbred.protocol.messages import Generate
from timbred.protocol.schema import REQUEST_NAMED
from timbred.requests.key_checks import INIT_KEYS, NEEDED_CAPABILITIES, NOT_WITH_EXTEND
from timbred.requests.resolve import (
    MAX_EXTENDED_SECONDS,
    MAX_WINDOW_SECONDS,
    GivenSamples,
    Parameters,
    Session,
    resolve,
)
from timbred.storage.recipe import make_recipe, parameters_of

CARD = Card(
    name="small",
    title="small",
    task="text-to-audio",
    licence="Apache-2.0",
    native_rate=16000,
    min_seconds=0.5,
    max_seconds=5.0,
    default_seconds=2.0,
    steps=12,
    guidance=3.0,
    negative="noise",
)
SPEAKER = Card(
    name="speaker", title="", task="text-to-speech", licence="", native_rate=16000, max_seconds=10.0,
    default_seconds=5.0, steps=20, guidance=3.5, speaks=True,
)  # fmt: skip


def asked(**keys: Any) -> Generate:
    request = build(REQUEST_NAMED["generate"], {"id": "a", "prompt": "warm pad", **keys})
    assert isinstance(request, Generate)
    return request


def resolved(card: Card = CARD, session: Session | None = None, **keys: Any) -> Parameters:
    return resolve(asked(**keys), card, session or Session(), 1234)


def test_resolve_takes_defaults_from_the_card_and_the_session():
    found = resolved()
    assert (found.seconds, found.steps, found.guidance, found.scheduler) == (2.0, 12, 3.0, "dpm++2m")
    assert (found.negative, found.seed, found.rate, found.takes) == ("noise", 1234, 48000, 1)
    assert found.render_settings().peak == -1.0


def test_resolve_keeps_an_empty_negative_prompt():
    assert resolved(negative="").negative == ""


def test_resolve_computes_bars_from_the_session():
    found = resolved(session=Session(tempo=120.0), bars=2)
    assert (found.seconds, found.bpm, found.beats) == (4.0, 120.0, 8.0)
    assert resolved(bars=1, bpm=90, beats_per_bar=3).seconds == 2.0


def test_resolve_gives_each_take_its_own_seed_within_range():
    assert resolved(seed=2147483647, takes=3).seeds == (2147483647, 0, 1)


def test_resolve_renders_a_loop_at_its_own_length():
    assert resolved(seconds=2, loop=1).rendered_seconds == 2.0
    assert resolved(seconds=0.1, loop=1).rendered_seconds == 0.1
    assert resolved(seconds=2, loop=1).order().loop


def test_resolve_renders_at_least_the_models_shortest_length():
    found = resolved(seconds=0.1)
    assert (found.seconds, found.rendered_seconds) == (0.1, 0.5)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"seconds": 6}, "seconds: got 6, small makes 0.05 to 5"),
        ({"bars": 4}, "bars: 4 bars of 4 beats at 120 bpm last 8 s, small makes 0.05 to 5 s"),
        ({"bars": 1, "seconds": 2}, "seconds: the length is already given in bars"),
        ({"beats_per_bar": 3}, "beats_per_bar: it goes with bars"),
        ({"eta": 0.5}, "eta: got 0.5, but only the scheduler ddim uses it, not dpm++2m"),
        ({"steps": 3, "scheduler": "pndm"}, "steps: got 3, pndm takes 4 to 999"),
        ({"steps": 1000, "scheduler": "ddim"}, "steps: got 1000, ddim takes 1 to 999"),
        ({"steps": 1000, "scheduler": "dpm++2m"}, "steps: got 1000, dpm++2m takes 1 to 990"),
        ({"format": "ogg", "bits": 16}, "bits"),
        ({"format": "flac", "bits": 32}, "bits"),
        ({"transcription": "hello"}, "transcription: small doesn't speak"),
        ({"to": "none"}, "to: got none"),
        ({"mix": 0.5}, "mix: it goes with prompt2"),
        ({"weights": "bell:2"}, "weights: 'bell' isn't a word of the prompt"),
        ({"weights": "pad:9"}, "weights: got 'pad:9', allowed is word:weight"),
        ({"weights": "pad"}, "weights: got 'pad', allowed is word:weight"),
        ({"weights": "pad:nan"}, "weights: got 'pad:nan'"),
        ({"weights": "pad:1 pad:2"}, "weights: 'pad' has two weights"),
        ({"noise": "tk3w9mz2qd", "takes": 2}, "takes: got 2, but with noise"),
        ({"voice": 1}, "voice: it goes with"),
        ({"gain": -3}, "gain: it goes with"),
    ],
)
def test_resolve_refuses_contradictions_by_name(keys: dict[str, Any], named: str):
    with pytest.raises(errors.BadRequest) as refusal:
        resolved(**keys)
    assert str(refusal.value).startswith(named)


VALUES: dict[str, Any] = {
    "strength": 0.5, "start": 0.1, "end": 0.2, "low": 100, "high": 200, "seconds": 1, "bars": 1,
    "beats_per_bar": 3, "trim": 1, "regions": "0-1",
}  # fmt: skip


@pytest.mark.parametrize("key", NOT_WITH_EXTEND)
def test_resolve_refuses_contradictions_of_a_continuation(key: str):
    with pytest.raises(errors.BadRequest, match=f"^{key}: it doesn't go with extend"):
        resolve(asked(init="x.wav", extend=3, **{key: VALUES[key]}), CARD, Session(), 0, init_seconds=2.0)


@pytest.mark.parametrize("key", ["strength", "start", "end", "low", "high"])
def test_resolve_refuses_a_value_of_zero_in_a_continuation(key: str):
    with pytest.raises(errors.BadRequest, match=f"^{key}: it doesn't go with extend"):
        resolve(asked(init="x.wav", extend=3, **{key: 0}), CARD, Session(), 0, init_seconds=2.0)


def test_resolve_accepts_a_flag_that_is_off_in_a_continuation():
    assert resolve(asked(init="x.wav", extend=3, trim=0), CARD, Session(), 0, init_seconds=2.0).seconds == 5.0


def test_resolve_gives_a_continuation_the_length_of_both_parts():
    found = resolve(asked(init="x.wav", extend=12, to="both", voice="1"), CARD, Session(), 0, init_seconds=33.5)
    order = found.order(GivenSamples(init=b""))
    assert (found.seconds, order.seconds, order.window, order.is_streamed) == (45.5, 45.5, 5.0, False)
    assert not {"seconds", "window"} & {key for key, value in found.for_recipe().items() if value is not None}
    assert found.for_recipe()["extend"] == 12


def test_resolve_leaves_level_and_fades_of_an_original_unless_requested():
    def finished(**keys: Any) -> tuple[float | None, float, float, bool]:
        found = resolve(asked(init="x.wav", to="play", **keys), CARD, Session(), 0, init_seconds=3.0)
        return found.peak, found.fade_in, found.fade_out, found.is_streamed

    assert finished() == (-1.0, 0.002, 0.01, True), "none of it stays"
    assert finished(extend=2) == (None, 0.0, 0.01, False)
    assert finished(start=1, end=2) == (None, 0.0, 0.0, False)
    assert finished(start=1) == (None, 0.0, 0.01, False)
    assert finished(end=2) == (None, 0.002, 0.0, False)
    assert finished(low=4000) == (None, 0.0, 0.0, False)
    assert finished(start=1, end=2, seconds=2.5) == (None, 0.0, 0.01, False), "its end is not the given one's"
    assert finished(extend=2, peak=-3, fade_in=0.5, fade_out=0) == (-3, 0.5, 0.0, False)
    recipe = resolve(asked(init="x.wav", extend=2), CARD, Session(), 0, init_seconds=3.0).for_recipe()
    assert (recipe["peak"], recipe["fade_in"]) == ("off", 0.0)


def test_resolve_leaves_automatic_fades_out_of_the_recipe():
    """Else `vary` would ask for them, and get them exactly."""
    plain = resolve(asked(), CARD, Session(), 0)
    assert (plain.render_settings().fade_in, plain.render_settings().fade_out) == (None, None)
    assert not {"fade_in", "fade_out"} & set(plain.for_recipe())
    named = resolve(asked(fade_in=0.002, fade_out=0.0), CARD, Session(), 0)
    assert (named.render_settings().fade_in, named.render_settings().fade_out) == (0.002, 0.0)
    assert (named.for_recipe()["fade_in"], named.for_recipe()["fade_out"]) == (0.002, 0.0)
    kept = resolve(asked(init="x.wav", extend=2), CARD, Session(), 0, init_seconds=3.0)
    assert (kept.render_settings().fade_in, kept.render_settings().fade_out) == (0.0, None)


def test_resolve_gives_the_bounds_of_the_edited_part():
    def parts(**keys: Any) -> tuple[EditedPart, ...]:
        return resolve(asked(init="x.wav", **keys), CARD, Session(), 0, init_seconds=3.0).edited_parts

    assert parts() == ()
    assert parts(extend=2) == (EditedPart(3.0, 5.0),)
    assert parts(start=1) == (EditedPart(1.0, 3.0),)
    assert parts(end=2, low=4000) == (EditedPart(0.0, 2.0, 4000.0),)
    assert parts(high=500) == (EditedPart(0.0, 3.0, 0.0, 500.0),)


def test_resolve_limits_windows_to_the_models_trained_length():
    card = msgspec.structs.replace(CARD, max_seconds=60.0)
    assert resolve(asked(init="x.wav", extend=50), card, Session(), 0, init_seconds=3.0).window == MAX_WINDOW_SECONDS


def test_resolve_limits_the_length_of_a_continuation():
    with pytest.raises(errors.BadRequest, match=r"^extend: got 100 s after the 501 s of init, .* 600"):
        resolve(asked(init="x.wav", extend=100), CARD, Session(), 0, init_seconds=MAX_EXTENDED_SECONDS - 99)
    with pytest.raises(errors.BadRequest, match=r"^extend: it goes with init"):
        resolved(extend=1)


def test_resolve_original_has_its_length():
    found = resolve(asked(init="x.wav"), CARD, Session(), 0, init_seconds=3.0)
    assert (found.seconds, found.strength, found.repaint) == (3.0, 0.5, ())
    assert resolve(asked(init="x.wav", seconds=1.0), CARD, Session(), 0, init_seconds=30.0).seconds == 1.0


def test_resolve_original_gives_the_edited_part():
    found = resolve(asked(init="x.wav", start=1.0, low=4000), CARD, Session(), 0, init_seconds=3.0)
    assert found.strength == 1.0
    (part,) = found.repaint
    assert (part.start, part.end, part.low) == (1.0, 3.0, 4000)
    order = found.order(GivenSamples(init=b"\0\0\0\0"))
    assert order.init_audio is not None
    assert order.init_audio.repaint == found.repaint


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"init": "x.wav", "seconds": 4}, "seconds: got 4, but init has only 3"),
        ({"init": "x.wav", "start": 3.5}, "start, end: got 3.5 to 3 s"),
        ({"init": "x.wav", "start": 2, "end": 1}, "start, end: got 2 to 1 s"),
        ({"init": "x.wav", "end": 3.5}, "start, end: got 0 to 3.5 s"),
        ({"init": "x.wav", "low": 500, "high": 400}, "low, high: got 500 to 400 Hz"),
        ({"init": "x.wav", "loop": 1}, "init: it doesn't go with loop"),
        ({"trim": 1, "loop": 1}, "trim: a loop has its exact length"),
        ({"init": "x.wav", "noise": "tk3w9mz2qd"}, "init: it doesn't go with noise"),
    ],
)
def test_resolve_original_refuses_parts_outside_of_it(keys: dict[str, Any], named: str):
    with pytest.raises(errors.BadRequest) as refusal:
        resolve(asked(**keys), CARD, Session(), 0, init_seconds=3.0)
    assert str(refusal.value).startswith(named)


@pytest.mark.parametrize("key", INIT_KEYS)
def test_resolve_refuses_edits_without_an_original(key: str):
    keys: dict[str, Any] = {key: "0.5-1" if key == "regions" else 0.5}
    with pytest.raises(errors.BadRequest, match=f"^{key}: it goes with init"):
        resolved(**keys)


def test_resolve_names_how_to_cut_an_original_that_is_too_long():
    with pytest.raises(errors.BadRequest, match="take its beginning with @seconds 5"):
        resolve(asked(init="x.wav"), CARD, Session(), 0, init_seconds=30.0)


def test_resolve_refuses_a_speech_model_without_words():
    with pytest.raises(errors.BadRequest, match="transcription"):
        resolved(SPEAKER)
    assert resolved(SPEAKER, transcription="good evening").order().inputs.transcription == "good evening"


@given(
    seconds=st.none() | st.floats(0.05, 5.0),
    seed=st.none() | st.integers(0, 2147483647),
    loudness=st.sampled_from([None, "off", -14.0, -23.0]),
    peak=st.sampled_from([None, "off", -1.0, -6.0]),
    loop=st.booleans(),
    trim=st.booleans(),
    file_format=st.sampled_from(["wav", "flac", "aiff", "ogg"]),
    negative=st.none() | st.text(max_size=20).filter(lambda text: "\x00" not in text),
    prompt2=st.none() | st.just("a church bell"),
    weights=st.none() | st.just("pad:1.5 warm:0.2"),
    noise=st.none() | st.just("tk3w9mz2qd"),
)
def test_resolve_of_a_recipe_gives_equal_parameters(file_format: str, **keys: Any):
    keys["trim"] = keys["trim"] and not keys["loop"]
    found = resolved(format=file_format, **{key: value for key, value in keys.items() if value is not None})
    recipe = make_recipe(
        found.for_recipe(), model=found.model, licence="", prompt=found.prompt, seed=found.seed, created=0.0
    )
    again = build(REQUEST_NAMED["generate"], {"id": "b", **parameters_of(recipe)})
    assert isinstance(again, Generate)
    assert resolve(again, CARD, Session(rate=8000, tempo=33.0), 99) == found


STEREO = msgspec.structs.replace(
    CARD,
    name="stereo",
    channels=2,
    max_seconds=8.0,
    scheduler="ping-pong",
    schedulers=STABLE_AUDIO_3.schedulers,
    capabilities=STABLE_AUDIO_3.capabilities,
)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"init": "x.wav", "low": 4000.0}, r"low: stereo can't .* \(bands\)"),
        ({"init": "x.wav", "high": 400.0}, r"high: stereo can't .* \(bands\)"),
        ({"scheduler": "ddim"}, "scheduler: got ddim, stereo takes ping-pong, flow-euler"),
        ({"init": "x.wav", "extend": 598.0}, "together they may last 600 s"),
    ],
    ids=str,
)
def test_resolve_refuses_what_the_family_cannot_do(keys: dict[str, Any], named: str):
    with pytest.raises(errors.BadRequest, match=named):
        resolve(asked(**keys), STEREO, Session(), 0, init_seconds=3.0)


@pytest.mark.parametrize("key", [key for key in NEEDED_CAPABILITIES if key != "negative"])
def test_resolve_names_missing_capability(key: str):
    card = msgspec.structs.replace(CARD, capabilities=frozenset[Capability]())
    texts = {"language": "en", "task": "cover", "track": "bass", "lyrics": "la", "reference": "x.wav", "lora": "a:1"}
    value = {**texts, "weights": "warm:1.5", "init": "x.wav", "loop": True, "regions": "0-1"}.get(key, 1.0)
    with pytest.raises(errors.BadRequest, match=f"^{key}: small can't .*{NEEDED_CAPABILITIES[key]}"):
        resolve(asked(**{key: value}), card, Session(), 0)


@pytest.mark.parametrize("key", ["start", "end", "low", "high"])
def test_resolve_names_missing_capability_of_a_value_of_zero(key: str):
    card = msgspec.structs.replace(CARD, capabilities=frozenset[Capability]({"init"}))
    with pytest.raises(errors.BadRequest, match=f"^{key}: small can't .*{NEEDED_CAPABILITIES[key]}"):
        resolve(asked(init="x.wav", **{key: 0}), card, Session(), 0, init_seconds=2.0)


@pytest.mark.parametrize("keys", [{"loop": 0}, {"negative": ""}], ids=str)
def test_resolve_needs_no_capability_for_a_key_that_asks_for_nothing(keys: dict[str, Any]):
    card = msgspec.structs.replace(CARD, capabilities=frozenset[Capability]())
    assert resolved(card, **keys).model == "small"


def test_resolve_without_requested_capability_needs_none():
    card = msgspec.structs.replace(STEREO, capabilities=frozenset[Capability]())
    found = resolved(card)
    assert (found.scheduler, found.init_channels) == ("ping-pong", 2)


def test_resolve_keeps_other_schedulers_of_the_family():
    assert resolved(STEREO, scheduler="flow-euler").scheduler == "flow-euler"

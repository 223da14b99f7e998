"""Keys about given sounds: regions, tasks, and what is refused before anything is rendered."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.requests.test_resolve import CARD, asked
from timbred import errors
from timbred.dsp.splice import EditedPart
from timbred.models.families import ACE_STEP
from timbred.requests.key_checks import MAX_BAND_HZ, MAX_REGIONS, read_regions
from timbred.requests.resolve import GivenSamples, Parameters, Session, resolve

SINGER = msgspec.structs.replace(
    CARD, name="singer", capabilities=ACE_STEP.capabilities, scheduler="flow-euler", schedulers=ACE_STEP.schedulers
)


def resolved(card: Any = CARD, **keys: Any) -> Parameters:
    return resolve(asked(**{"init": "x.wav", **keys}), card, Session(), 0, init_seconds=4.0)


@st.composite
def apart(draw: st.DrawFn) -> list[tuple[float, float]]:
    """Regions within 4 s that don't overlap, in any order."""
    edges = sorted(draw(st.sets(st.integers(0, 4000), min_size=2, max_size=2 * MAX_REGIONS)))
    pairs = [(first / 1000, last / 1000) for first, last in zip(edges[::2], edges[1::2], strict=False)]
    return draw(st.permutations(pairs))


@given(apart())
def test_read_regions_returns_them_in_rising_order(regions: list[tuple[float, float]]):
    text = " ".join(f"{start!r}-{end!r}" for start, end in regions)
    assert read_regions(text, 4.0) == tuple(sorted(regions))


@given(st.text(st.sampled_from("0123456789.-e+ nai"), max_size=40))
def test_read_regions_of_any_text_are_within_the_sound_or_refused(text: str):
    try:
        found = read_regions(text, 4.0)
    except errors.BadRequest as refusal:
        assert str(refusal).startswith("regions: ")
        return
    assert all(0.0 <= start < end <= 4.0 + 1e-6 for start, end in found)
    assert all(end <= start for (_, end), (start, _) in pairwise(found))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "got 0, allowed are 1 to 64"),
        ("1-2 1.5-3", "1-2 and 1.5-3 overlap"),
        ("3-3.5 0-3.1", "0-3.1 and 3-3.5 overlap"),
        ("1-1", "got '1-1', allowed is start-end in seconds from 0 to 4"),
        ("2-1", "got '2-1'"),
        ("3-4.5", "got '3-4.5'"),
        ("-1-2", "got '-1-2'"),
        ("1", "got '1'"),
        ("a-b", "got 'a-b'"),
        ("nan-2", "got 'nan-2'"),
        (" ".join(f"{number / 100}-{(number + 1) / 100}" for number in range(65)), "got 65, allowed are 1 to 64"),
    ],
)
def test_read_regions_refuses_what_is_no_region(text: str, named: str):
    with pytest.raises(errors.BadRequest) as refusal:
        read_regions(text, 4.0)
    assert str(refusal.value).startswith("regions: ")
    assert named in str(refusal.value)


def test_resolve_gives_a_part_for_each_region():
    found = resolved(regions="3-3.5 0.5-1.25", low=500)
    assert [(part.start, part.end, part.low, part.high) for part in found.repaint] == [
        (0.5, 1.25, 500.0, MAX_BAND_HZ),
        (3.0, 3.5, 500.0, MAX_BAND_HZ),
    ]
    assert found.edited_parts == (EditedPart(0.5, 1.25, 500.0), EditedPart(3.0, 3.5, 500.0))
    assert (found.strength, found.render_settings().peak, found.is_streamed) == (1.0, None, False)
    order = found.order(GivenSamples(init=b"\0\0\0\0"))
    assert order.init_audio is not None
    assert order.init_audio.repaint == found.repaint


@pytest.mark.parametrize(
    ("regions", "fades"),
    [("0-1", {"fade_in"}), ("3-4", {"fade_out"}), ("1-2", set()), ("0-1 3-4", {"fade_in", "fade_out"})],
)
def test_resolve_fades_only_regenerated_ends(regions: str, fades: set[str]):
    assert resolved(regions=regions).automatic_fades == fades


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"regions": "0-1", "start": 2}, "start: it doesn't go with regions"),
        ({"regions": "0-1", "end": 2}, "end: it doesn't go with regions"),
        ({"regions": "0-1", "extend": 1}, "regions: it doesn't go with extend"),
        ({"task": "repaint"}, "task: repaint needs the parts"),
        ({"task": "cover", "start": 1}, "start: cover has no parts"),
        ({"task": "extract", "regions": "0-1"}, "regions: extract has no parts"),
        ({"task": "text2music", "end": 1}, "end: text2music has no parts"),
        ({"task": "cover", "extend": 1}, "extend: it is the task repaint, and task is cover"),
        *(
            ({"task": task, "init": None}, f"task: {task} needs a sound")
            for task in ("repaint", "cover", "extract", "lego", "complete")
        ),
    ],
    ids=str,
)
def test_resolve_refuses_contradicting_keys_of_given_sounds(keys: dict[str, Any], named: str):
    wanted = {key: value for key, value in {"init": "x.wav", **keys}.items() if value is not None}
    with pytest.raises(errors.BadRequest) as refusal:
        resolve(asked(**wanted), SINGER, Session(), 0, init_seconds=4.0 if "init" in wanted else None)
    assert str(refusal.value).startswith(named)


@pytest.mark.parametrize(
    ("keys", "strength", "is_joined"),
    [
        ({}, 0.5, False),
        ({"task": "repaint", "start": 1}, 1.0, True),
        ({"regions": "0-1 2-3"}, 1.0, True),
        ({"task": "cover"}, 1.0, False),
        ({"task": "lego", "track": "drums", "start": 1}, 1.0, False),
        ({"extend": 1}, 0.5, True),
    ],
    ids=str,
)
def test_resolve_keeps_init_audio_as_the_task_wants(keys: dict[str, Any], strength: float, is_joined: bool):
    found = resolved(SINGER, **keys)
    assert (found.strength, bool(found.edited_parts)) == (strength, is_joined)


def test_resolve_passes_a_reference_beside_the_init_audio():
    order = resolved(SINGER, reference="voice.wav").order(GivenSamples(b"\0\0\0\0", b"\0\0\0\1"))
    assert order.reference is not None
    assert (order.reference.samples, order.reference.repaint) == (b"\0\0\0\1", ())
    assert resolved(SINGER, reference="voice.wav").for_recipe()["reference"] == "voice.wav"

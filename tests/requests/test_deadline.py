"""As many steps as fit before a deadline, and a refusal that says when it could be."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.errors import BadRequest
from timbred.requests.deadline import (  # fmt: skip
    HANDLING_S,
    MAX_SECONDS_FROM_NOW,
    Deadline,
    DeadlineClock,
    DeadlineRequest,
    StepPace,
    fewer_steps,
    fewest_steps,
    read_by,
    steps_by,
)

CLOCK = DeadlineClock(beat=100.5, bpm=120, beats_per_bar=4)
PACE = StepPace(wait=0.5, overhead=0.5, step=0.1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bar 33", Deadline(bar=33)),
        ("BAR 1", Deadline(bar=1)),
        ("bar33", Deadline(bar=33)),
        ("4.5", Deadline(seconds=4.5)),
    ],
)
def test_read_by_reads_every_form(text: str, expected: Deadline):
    assert read_by(text) == expected


@given(st.text(max_size=40))
def test_read_by_refuses_other_values(text: str):
    try:
        found = read_by(text)
    except BadRequest as error:
        assert "by: got" in str(error)
    else:
        assert (found.bar or 0) >= 1 or 0 < found.seconds <= MAX_SECONDS_FROM_NOW


@pytest.mark.parametrize("text", ["bar 0", "bar", "bar -3", "0", "-1", "nan", "inf", "4000", "next bar"])
def test_read_by_refuses_unusable_deadlines(text: str):
    with pytest.raises(BadRequest, match="by: got"):
        read_by(text)


@given(
    st.floats(0.01, 600),
    st.floats(0, 30),
    st.floats(0.001, 30),
    st.floats(1e-4, 5),
    st.integers(1, 10),
    st.integers(10, 200),
)
def test_deadline_steps_fit_and_one_more_would_not(
    seconds: float, wait: float, rest: float, step: float, fewest: int, most: int
):
    pace = StepPace(wait, rest, step)
    try:
        steps = steps_by(Deadline(seconds=seconds), pace, fewest, most, None)
    except BadRequest as error:
        assert pace.needed(fewest) > seconds
        could = re.search(r"ready by ([\d.e+]+)$", str(error))
        assert could is not None
        if float(could[1]) < 1e5:
            assert steps_by(Deadline(seconds=float(could[1])), pace, fewest, most, None) >= fewest
        return
    assert fewest <= steps <= most
    assert pace.needed(steps) <= seconds + 1e-6
    assert steps == most or pace.needed(steps + 1) > seconds - 1e-6


def test_deadline_bar_counts_from_one_in_the_sessions_tempo():
    # bar 33 begins on beat 128, in 13.75 s
    assert steps_by(Deadline(bar=33), StepPace(0, 0, 0.5), 2, 100, CLOCK) == int((13.75 - 0.15) * 0.85 / 0.5)


def test_deadline_bar_that_cannot_be_met_names_one_that_can():
    with pytest.raises(BadRequest, match=r"by: bar 27 is in 1\.75 s.*fewest sensible steps \(5\).*ready by bar 28$"):
        steps_by(Deadline(bar=27), PACE, 5, 20, CLOCK)
    assert steps_by(Deadline(bar=28), PACE, 5, 20, CLOCK) == 20
    with pytest.raises(BadRequest, match=r"by: bar 2 is past.*ready by bar 28$"):
        steps_by(Deadline(bar=2), PACE, 5, 20, CLOCK)


def test_deadline_minimum_steps_are_the_fewest_useful_ones():
    assert fewest_steps(of_model=20, of_scheduler=1, requested=None) == 5
    assert fewest_steps(of_model=4, of_scheduler=1, requested=None) == 2
    assert fewest_steps(of_model=8, of_scheduler=4, requested=None) == 4
    assert fewest_steps(of_model=20, of_scheduler=1, requested=3) == 3


@given(
    st.floats(-1, 60),
    st.floats(0, 60),
    st.floats(0, 5),
    st.floats(1e-3, 5),
    st.integers(1, 10),
    st.integers(0, 200),
)
def test_deadline_restarts_a_job_only_when_that_is_in_time_and_continuing_is_not(
    left: float, remaining: float, rest: float, step: float, fewest: int, steps_left: int
):
    pace = StepPace(0.0, rest, step)
    steps = fewer_steps(DeadlineRequest(lambda: left, fewest), pace, remaining, steps_left)
    if steps is None:
        some = fewest < steps_left and pace.needed(fewest) < left - 1e-6 and pace.needed(steps_left) > left + 1e-6
        assert remaining + HANDLING_S <= left or not some
        return
    assert remaining + HANDLING_S > left
    assert fewest <= steps < steps_left
    assert pace.needed(steps) <= left + 1e-6


def test_deadline_continues_a_job_of_unknown_pace():
    assert fewer_steps(DeadlineRequest(lambda: 1.0, 2), StepPace(0, 0, 0.0), 9.0, 50) is None

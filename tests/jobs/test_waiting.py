"""How long a sound with a deadline waits for others before its turn."""

from typing import Any, cast

import pytest

from tests.jobs.test_timing import parameters
from timbred.jobs.deadline import Wanted
from timbred.jobs.dispatcher import Dispatcher
from timbred.jobs.job import Job
from timbred.protocol.exchange import ClientId

STEP, REST, WHOLE = 0.1, 0.7, 1.7
"""Seconds that a step of these sounds takes, all else of it, and the whole of it with its ten steps."""


def waiting(*jobs: tuple[str, bool], running: int = 1) -> Dispatcher:
    """A dispatcher with jobs of these priorities, some with a deadline; the first are in the engine."""
    nothing = cast("Any", None)
    subject = Dispatcher(nothing, nothing, nothing)
    subject.estimates.measured(parameters(), STEP, REST)
    for number, (priority, wanted) in enumerate(jobs):
        job = Job(number, ClientId("a"), number, parameters(priority=priority))
        job.wanted = Wanted(lambda: 10.0, 4) if wanted else None
        if number < running:
            subject.rendering[number] = job
        else:
            subject.queue.add(job)
    return subject


@pytest.mark.parametrize("priority", ["live", "normal", "background"])
def test_an_engine_with_nothing_to_do_takes_it_at_once(priority: str):
    assert waiting().wait_for(priority) == 0.0


@pytest.mark.parametrize("other", ["live", "normal", "background"])
def test_others_without_a_deadline_only_end_what_they_are_at(other: str):
    assert waiting((other, False), (other, False), running=2).wait_for("live") == pytest.approx(REST)


def test_others_with_a_deadline_go_before_it():
    subject = waiting(("live", False), ("live", True), ("normal", True), ("live", False))
    assert subject.wait_for("live") == pytest.approx(REST + 2 * WHOLE), "the last one isn't begun"


def test_one_that_is_not_live_waits_in_the_queue_for_all_that_are_not_behind_it():
    subject = waiting(("background", False), ("live", False), ("normal", False))
    assert subject.wait_for("normal") == pytest.approx(REST + 2 * WHOLE)
    assert subject.wait_for("background") == pytest.approx(3 * WHOLE)
    assert subject.wait_for("live") == pytest.approx(REST)

"""How long a sound with a deadline waits for others before its turn."""

import pytest

from tests.requests.test_eta import parameters
from timbred.protocol.boundary import ClientId
from timbred.requests import scheduler
from timbred.requests.deadline import DeadlineRequest
from timbred.requests.eta import EtaEstimates
from timbred.requests.job import Job

STEP, REST, WHOLE = 0.1, 0.7, 1.7
"""Seconds that a step of these sounds takes, all else of it, and the whole of it with its ten steps."""


def wait(priority: str, *jobs: tuple[str, bool], running: int = 1) -> float:
    """How long a sound waits for jobs of these priorities, some with a deadline; the first are in the engine."""
    estimates = EtaEstimates()
    estimates.add(parameters(), STEP, REST)
    there = [job(number, *one) for number, one in enumerate(jobs)]
    return scheduler.expected_wait(priority, there[:running], there[running:], estimates)


def job(number: int, priority: str, wanted: bool) -> Job:
    made = Job(number, ClientId("a"), number, parameters(priority=priority))
    made.deadline = DeadlineRequest(lambda: 10.0, 4) if wanted else None
    return made


@pytest.mark.parametrize("priority", ["live", "normal", "background"])
def test_an_engine_with_nothing_to_do_takes_it_at_once(priority: str):
    assert wait(priority) == 0.0


@pytest.mark.parametrize("other", ["live", "normal", "background"])
def test_others_without_a_deadline_only_end_what_they_are_at(other: str):
    assert wait("live", (other, False), (other, False), running=2) == pytest.approx(REST)


def test_others_with_a_deadline_go_before_it():
    there = ("live", False), ("live", True), ("normal", True), ("live", False)
    assert wait("live", *there) == pytest.approx(REST + 2 * WHOLE), "the last one isn't begun"


def test_one_that_is_not_live_waits_in_the_queue_for_all_that_are_not_behind_it():
    there = ("background", False), ("live", False), ("normal", False)
    assert wait("normal", *there) == pytest.approx(REST + 2 * WHOLE)
    assert wait("background", *there) == pytest.approx(3 * WHOLE)
    assert wait("live", *there) == pytest.approx(REST)
